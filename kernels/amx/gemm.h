/* Products on bf16 tiles, for any type of weights that can be brought into tiles. */
#ifndef TESSERA_AMX_GEMM_H
#define TESSERA_AMX_GEMM_H

#include "kernels/amx/width.h"
#include "kernels/kernel.h"

enum { TILE_K = 32, CHUNK_K = 512 };

/* Fills `tiles` with the weights of one panel (16 columns), k0 <= k < k1: consecutive tiles of 16
 * rows of 64 bytes, one for each 32 k, row p holding k = 2p and 2p + 1 of every column. k0 is a
 * multiple of CHUNK_K; k1 as well, or k. */
typedef void tile_filler(uint8_t *tiles, const struct gemm_args *args, int panel, int k0, int k1);

/* scratch_bytes of kernels that call tile_gemm. */
size_t AMX_NAME(tile_gemm_scratch)(int k);

/* The product of `args`, whose rows are (or begin as) ACT_BF16. Configures the calling thread's
 * tiles and releases them. */
void AMX_NAME(tile_gemm)(const struct gemm_args *args, tile_filler *fill);

/* quantize_rows of ACT_BF16. */
void AMX_NAME(tile_quantize_rows)(void *a, size_t a_stride, const float *x, size_t ldx, int m,
                                  int k);

#endif
