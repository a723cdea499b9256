/* Rows of activations to ACT_Q8 with AVX2: bit for bit what the scalar reference gives. */
#ifndef TESSERA_AVX2_QUANTIZE_H
#define TESSERA_AVX2_QUANTIZE_H

#include "kernels/kernel.h"

void avx2_quantize_rows(const struct quantize_args *args);

#endif
