/* Packing of floating-point weights (layout.h), shared by the kernels of all ISAs. */
#ifndef TESSERA_FLOAT_PANELS_H
#define TESSERA_FLOAT_PANELS_H

#include <stddef.h>

struct quantize_args;

/* F16 and BF16 differ in the order of their halves only. */
size_t float_packed_bytes_32(int n, int k);
size_t float_packed_bytes_16(int n, int k);
void float_pack_f32(void *packed, const void *rows, int n, int k, int n0, int n1);
void float_pack_f16(void *packed, const void *rows, int n, int k, int n0, int n1);
void float_pack_bf16(void *packed, const void *rows, int n, int k, int n0, int n1);
void float_unpack_f32(void *rows, const void *packed, int n, int k, int n0, int n1);
void float_unpack_f16(void *rows, const void *packed, int n, int k, int n0, int n1);
void float_unpack_bf16(void *rows, const void *packed, int n, int k, int n0, int n1);

/* The `quantize_rows` of ACT_F32: a copy. */
void float_copy_rows(const struct quantize_args *args);

#endif
