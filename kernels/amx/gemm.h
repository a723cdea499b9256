/* Products on bf16 tiles, for any type of weights that can be brought into tiles. */
#ifndef TESSERA_AMX_GEMM_H
#define TESSERA_AMX_GEMM_H

#include <stdbool.h>

#include "kernels/amx/width.h"
#include "kernels/kernel.h"

enum { TILE_K = 32, CACHE_LINE = 64 };

/* A panel (16 columns) of a packed matrix. */
struct tile_panel {
    const uint8_t *weights; /* from k = 0 on */
    size_t heads;           /* bytes from there to the heads, of types that have them */
    size_t head_bytes;      /* of each */
    size_t stride;          /* bytes to the next panel */
    size_t step_bytes, step_head_bytes; /* weights and heads of TILE_K, about */
    uintptr_t ahead;        /* bytes from what is made tiles to what is fetched meanwhile; or 0 */
    int k;                  /* of the matrix */
};

/* Writes the tile of k on, a multiple of TILE_K. */
typedef void tile_fill(uint8_t *tile, const struct tile_panel *panel, unsigned k);

/* Cache lines to be fetched, rows of them. */
struct tile_lines {
    const uint8_t *row; /* the present one, */
    size_t stride;      /* bytes to the next */
    int rows, row_lines;
    int done; /* lines of the present row */
    int per_step;
};

/* What is fetched during steps of products, some lines after each: more at once would keep their
 * loads waiting, which go through the same few buffers of L1. */
struct tile_fetch {
    struct tile_lines weights, heads; /* of a later job, into L2 */
    struct tile_lines results;        /* what the products are stored to, */
    struct tile_lines kept;           /* and what those of the next rows are added to */
};

/* Products of tiles of A and of B for each step of depth, TILE_K: one or two of A and two of B or
 * up to four of A and one of B. The tiles of B that a step is done with are filled again, from as
 * many other panels. */
struct tile_steps {
    const uint8_t *a; /* rows of A at the first k, a_stride bytes apart */
    ptrdiff_t a_stride;
    const uint8_t *b[2]; /* the tiles of B at the first k, of either panel, */
    ptrdiff_t b_stride;  /* and bytes to those of the next step */
    int steps;
    struct tile_panel from; /* the first of the panels to fill from, which are neighbours, */
    unsigned from_k;        /* from this k on */
    uint8_t *to;            /* [steps, panels] tiles to fill, those of B */
    struct tile_fetch *fetch;
};

/* C, in tiles 0 1 2 3, row by row, += A * B. */
typedef void tile_steps_run(const struct tile_steps *s);

/* Weights as tiles, 16 rows of 64 bytes for each 32 k, row p holding k = 2p and 2p + 1 of every
 * column of a panel. */
struct tile_source {
    struct tile_panel (*first_panel)(const struct gemm_args *args);
    tile_fill *fill;
    tile_steps_run *run[4]; /* one and two tiles of A by two of B, three and four by one */
    bool in_place;          /* the packed weights are tiles, which nothing fills */
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
