/* Rows of activations to ACT_Q8 with AVX2: bit for bit what the scalar reference gives. */
#ifndef TESSERA_AVX2_QUANTIZE_H
#define TESSERA_AVX2_QUANTIZE_H

#include <stddef.h>

void avx2_quantize_rows(void *a, size_t a_stride, const float *x, size_t ldx, int m, int k);

#endif
