/* Products on bf16 tiles, for any type of weights that can be brought into tiles. */
#ifndef TESSERA_AMX_GEMM_H
#define TESSERA_AMX_GEMM_H

#include <stdbool.h>

#include "kernels/amx/width.h"
#include "kernels/kernel.h"

enum { TILE_K = 32 };

/* A panel (16 columns) of a packed matrix. */
struct tile_panel {
    const uint8_t *weights; /* from k = 0 on */
    const uint8_t *heads;   /* of types that have them, head_bytes each */
    size_t head_bytes;
    size_t stride;          /* bytes to the next panel */
    int k;                  /* of the matrix */
};

/* Weights as tiles: 16 rows of 64 bytes for each 32 k, row p holding k = 2p and 2p + 1 of every
 * column of a panel. */
struct tile_source {
    struct tile_panel (*panel)(const struct gemm_args *args, int index);
    /* Writes the tile of k on, a multiple of TILE_K. Called for one after the other, some time
     * before they are needed: what it reads two panels further on will be next. */
    void (*fill)(uint8_t *tile, const struct tile_panel *panel, int k);
    bool in_place; /* the packed weights are tiles; `fill` only has them fetched */
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
