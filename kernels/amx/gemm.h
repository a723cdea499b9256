/* Products on bf16 tiles, for any type of weights that can be brought into tiles. */
#ifndef TESSERA_AMX_GEMM_H
#define TESSERA_AMX_GEMM_H

#include "kernels/amx/width.h"
#include "kernels/kernel.h"

enum { TILE_K = 32 };

/* Where the weights of a panel (16 columns) come from, as tiles: 16 rows of 64 bytes for each 32 k,
 * row p holding k = 2p and 2p + 1 of every column. */
struct tile_source {
    /* Writes the tiles of k0 <= k < k1; k0 is a multiple of TILE_K, and k1 unless it is k. Called
     * some time before they are needed: what it reads two panels further on will be next. */
    void (*fill)(uint8_t *tiles, const struct gemm_args *args, int panel, int k0, int k1);
    /* Where not NULL: the tiles from k0 on, as they lie in the packed matrix; `fill` then only
     * has them fetched. */
    const uint8_t *(*in_place)(const struct gemm_args *args, int panel, int k0);
};

/* scratch_bytes of kernels that call tile_gemm. */
size_t AMX_NAME(tile_gemm_scratch)(int k);

/* The product of `args`, whose rows are (or begin as) ACT_BF16. Configures the calling thread's
 * tiles and releases them. */
void AMX_NAME(tile_gemm)(const struct gemm_args *args, const struct tile_source *source);

/* quantize_rows of ACT_BF16. */
void AMX_NAME(tile_quantize_rows)(const struct quantize_args *args);

/* The first part of ACT_BF16X3_F32. */
void AMX_NAME(tile_split_rows)(const struct quantize_args *args);

#endif
