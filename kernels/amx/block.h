/* The product of a block of 2 x 2 full tiles, 32 rows and 32 columns of floats, from bf16 operands
 * in memory. All tiles must be configured at full size (tile_config_full).
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

/* The instructions of step d; several steps in one statement, so that under emulation they are
 * executed in one trap. */
#define BLOCK_PRODUCTS(d)                                                                        \
    "tileloadd 64*" #d "(%[a0],%[as],1), %%tmm4\n\t"                                             \
    "tileloadd 1024*" #d "(%[b0],%[bs],1), %%tmm6\n\t"                                           \
    "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n\t"                                                       \
    "tileloadd 1024*" #d "(%[b1],%[bs],1), %%tmm7\n\t"                                           \
    "tdpbf16ps %%tmm7, %%tmm4, %%tmm1\n\t"                                                       \
    "tileloadd 64*" #d "(%[a1],%[as],1), %%tmm5\n\t"                                             \
    "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n\t"                                                       \
    "tdpbf16ps %%tmm7, %%tmm5, %%tmm3\n\t"
#define BLOCK_RUN(text, a0_, a1_, b0_, b1_, as_)                                                 \
    __asm__ volatile(text                                                                        \
                     :                                                                           \
                     : [a0] "r"(a0_), [a1] "r"(a1_), [as] "r"(as_), [b0] "r"(b0_),               \
                       [b1] "r"(b1_), [bs] "r"((ptrdiff_t)TILE_ROW_BYTES)                        \
                     : "memory")

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

static inline void block_product(const struct tile_block *t)
{
    const uint8_t *a = t->a, *below = t->a + TILE_ROWS * t->a_stride;
    const uint8_t *b0 = t->b[0], *b1 = t->b[1];
    int steps = t->steps;
    block_load_c(t);
    for (; steps >= 4; steps -= 4) {
        BLOCK_RUN(BLOCK_PRODUCTS(0) BLOCK_PRODUCTS(1) BLOCK_PRODUCTS(2) BLOCK_PRODUCTS(3), a,
                  below, b0, b1, t->a_stride);
        a += 4 * TILE_ROW_BYTES;
        below += 4 * TILE_ROW_BYTES;
        b0 += 4 * TILE_BYTES;
        b1 += 4 * TILE_BYTES;
    }
    for (; steps > 0; steps--) {
        BLOCK_RUN(BLOCK_PRODUCTS(0), a, below, b0, b1, t->a_stride);
        a += TILE_ROW_BYTES;
        below += TILE_ROW_BYTES;
        b0 += TILE_BYTES;
        b1 += TILE_BYTES;
    }
    block_store_c(t);
}

#endif
