/* The product of a block of 2 x 2 full tiles, 32 rows and 32 columns of floats, from bf16 operands
 * in memory: A from L1, B from beyond, which is loaded with the hint that it will not be used again
 * soon. All tiles must be configured at full size (tile_config_full).
 *
 * C00 C01 C10 C11 are tiles 0 to 3, A0 A1 4 and 5, B0 B1 6 and 7. */
#ifndef TESSERA_AMX_BLOCK_H
#define TESSERA_AMX_BLOCK_H

#include <stdbool.h>

#include "kernels/amx/tile.h"

enum { BLOCK_SIDE = 2 * TILE_ROWS, BLOCK_STEP = 32 /* k of a tile */ };

struct tile_block {
    const uint8_t *a; /* [32] rows of bf16, a_stride bytes apart */
    ptrdiff_t a_stride;
    const uint8_t *b[2]; /* [steps] tiles of 16 columns */
    int steps;           /* of BLOCK_STEP k */
    float *c;            /* [32, 32], rows ldc floats apart */
    size_t ldc;
    bool accumulate; /* add to c */
};

static inline void block_load_c(const struct tile_block *t)
{
    if (!t->accumulate) {
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
        return;
    }
    ptrdiff_t stride = (ptrdiff_t)(t->ldc * sizeof(float));
    const float *below = t->c + TILE_ROWS * t->ldc;
    TILE_LOAD(0, t->c, stride);
    TILE_LOAD(1, t->c + TILE_ROWS, stride);
    TILE_LOAD(2, below, stride);
    TILE_LOAD(3, below + TILE_ROWS, stride);
}

static inline void block_store_c(const struct tile_block *t)
{
    ptrdiff_t stride = (ptrdiff_t)(t->ldc * sizeof(float));
    float *below = t->c + TILE_ROWS * t->ldc;
    TILE_STORE(0, t->c, stride);
    TILE_STORE(1, t->c + TILE_ROWS, stride);
    TILE_STORE(2, below, stride);
    TILE_STORE(3, below + TILE_ROWS, stride);
}

/* A step in BLOCK_PARTS parts of a product each, for other work to come between: the CPU does both
 * at once only where no more than some dozens of instructions are between one part and the next. */
enum { BLOCK_PARTS = 4 };

static inline void block_part(const struct tile_block *t, int step, int part)
{
    const uint8_t *a = t->a + step * TILE_ROW_BYTES;
    switch (part) {
    case 0:
        TILE_LOAD(4, a, t->a_stride);
        TILE_LOAD_ONCE(6, t->b[0] + step * TILE_BYTES, TILE_ROW_BYTES);
        TILE_DPBF16(0, 4, 6);
        break;
    case 1:
        TILE_LOAD_ONCE(7, t->b[1] + step * TILE_BYTES, TILE_ROW_BYTES);
        TILE_DPBF16(1, 4, 7);
        break;
    case 2:
        TILE_LOAD(5, a + TILE_ROWS * t->a_stride, t->a_stride);
        TILE_DPBF16(2, 5, 6);
        break;
    default:
        TILE_DPBF16(3, 5, 7);
    }
}

static inline void block_product(const struct tile_block *t)
{
    block_load_c(t);
    for (int step = 0; step < t->steps; step++)
        for (int part = 0; part < BLOCK_PARTS; part++)
            block_part(t, step, part);
    block_store_c(t);
}

#endif
