/* Tables of kernels, one function for each instruction set and kind; dispatch.c collects them. */
#ifndef TESSERA_KERNELS_REGISTRY_H
#define TESSERA_KERNELS_REGISTRY_H

#include "kernels/kernel.h"

/* The types packed as codes (kernels/layout.h). */
#define PACKED_CODE_TYPES(X)                                                                       \
    X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ4_NL)      \
    X(IQ4_XS) X(MXFP4)

const struct gemm_kernel *scalar_q_kernels(size_t *count);
const struct gemm_kernel *avx2_q_kernels(size_t *count);
const struct gemm_kernel *avx_vnni_q_kernels(size_t *count);
const struct gemm_kernel *avx512_q_kernels(size_t *count);
/* AMX with vector code of either width around the tiles; amx_tile_kernels never leave the tiles,
 * for tests and measurements. */
const struct gemm_kernel *amx_q_kernels_avx2(size_t *count);
const struct gemm_kernel *amx_q_kernels_avx512(size_t *count);
const struct gemm_kernel *amx_tile_kernels_avx2(size_t *count);
const struct gemm_kernel *amx_tile_kernels_avx512(size_t *count);
const struct gemm_kernel *scalar_float_kernels(size_t *count);
const struct gemm_kernel *avx2_float_kernels(size_t *count);
const struct gemm_kernel *avx512_float_kernels(size_t *count);
const struct gemm_kernel *avx512_bf16_kernels(size_t *count);
const struct gemm_kernel *scalar_mapped_kernels(size_t *count);
const struct gemm_kernel *avx2_mapped_kernels(size_t *count);
const struct gemm_kernel *avx512_mapped_kernels(size_t *count);
void scalar_row_ops(struct row_ops *ops);
void avx2_row_ops(struct row_ops *ops);
void avx512_row_ops(struct row_ops *ops);
/* Over the rest of the vector code of the same width. */
void amx_row_ops_avx2(struct row_ops *ops);
void amx_row_ops_avx512(struct row_ops *ops);

#endif
