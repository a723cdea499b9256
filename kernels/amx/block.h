/* The product of a block of 2 x 2, 2 x 1 or 1 x 2 full tiles of floats (rows x columns), from bf16
 * operands in memory. All tiles must be configured at full size (tile_config_full).
 *
 * C00 C01 C10 C11 are tiles 0 to 3, A0 A1 4 and 5, B0 B1 6 and 7. */
#ifndef TESSERA_AMX_BLOCK_H
#define TESSERA_AMX_BLOCK_H

#include <stdbool.h>

#include "kernels/amx/tile.h"

#define BLOCK_INLINE static inline __attribute__((always_inline))

/* Rows and columns in tiles; always known where a product is called. */
enum block_shape { BLOCK_2X2, BLOCK_2X1, BLOCK_1X2 };

enum { BLOCK_SIDE = 2 * TILE_ROWS, BLOCK_STEP = 32 /* k of a tile */ };

struct tile_block {
    const uint8_t *a; /* [32 or 16] rows of bf16, a_stride bytes apart */
    ptrdiff_t a_stride;
    const uint8_t *b[2]; /* [steps] tiles of 16 columns; one column of tiles: the first only */
    int steps;           /* of BLOCK_STEP k */
    float *c;            /* [rows, columns], rows ldc floats apart */
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
#define BLOCK_PRODUCTS_2X1(d)                                                                    \
    "tileloadd 1024*" #d "(%[b0],%[bs],1), %%tmm6\n\t"                                           \
    "tileloadd 64*" #d "(%[a0],%[as],1), %%tmm4\n\t"                                             \
    "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n\t"                                                       \
    "tileloadd 64*" #d "(%[a1],%[as],1), %%tmm5\n\t"                                             \
    "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n\t"
#define BLOCK_PRODUCTS_1X2(d)                                                                    \
    "tileloadd 64*" #d "(%[a0],%[as],1), %%tmm4\n\t"                                             \
    "tileloadd 1024*" #d "(%[b0],%[bs],1), %%tmm6\n\t"                                           \
    "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n\t"                                                       \
    "tileloadd 1024*" #d "(%[b1],%[bs],1), %%tmm7\n\t"                                           \
    "tdpbf16ps %%tmm7, %%tmm4, %%tmm1\n\t"
#define BLOCK_RUN(text, a0_, a1_, b0_, b1_, as_)                                                 \
    __asm__ volatile(text                                                                        \
                     :                                                                           \
                     : [a0] "r"(a0_), [a1] "r"(a1_), [as] "r"(as_), [b0] "r"(b0_),               \
                       [b1] "r"(b1_), [bs] "r"((ptrdiff_t)TILE_ROW_BYTES)                        \
                     : "memory")

BLOCK_INLINE void block_load_c(const struct tile_block *t, enum block_shape shape)
{
    ptrdiff_t stride = (ptrdiff_t)(t->ldc * sizeof(float));
    const float *below = t->c + TILE_ROWS * t->ldc;
    if (!t->accumulate) {
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
        return;
    }
    TILE_LOAD(0, t->c, stride);
    if (shape != BLOCK_2X1)
        TILE_LOAD(1, t->c + TILE_ROWS, stride);
    if (shape != BLOCK_1X2)
        TILE_LOAD(2, below, stride);
    if (shape == BLOCK_2X2)
        TILE_LOAD(3, below + TILE_ROWS, stride);
}

BLOCK_INLINE void block_store_c(const struct tile_block *t, enum block_shape shape)
{
    ptrdiff_t stride = (ptrdiff_t)(t->ldc * sizeof(float));
    float *below = t->c + TILE_ROWS * t->ldc;
    TILE_STORE(0, t->c, stride);
    if (shape != BLOCK_2X1)
        TILE_STORE(1, t->c + TILE_ROWS, stride);
    if (shape != BLOCK_1X2)
        TILE_STORE(2, below, stride);
    if (shape == BLOCK_2X2)
        TILE_STORE(3, below + TILE_ROWS, stride);
}

/* The products of n (1, 2 or 4) steps. */
#define BLOCK_STEPS_1(products) products(0)
#define BLOCK_STEPS_2(products) products(0) products(1)
#define BLOCK_STEPS_4(products) products(0) products(1) products(2) products(3)
#define BLOCK_RUN_STEPS(n)                                                                       \
    do {                                                                                         \
        if (shape == BLOCK_2X2)                                                                  \
            BLOCK_RUN(BLOCK_STEPS_##n(BLOCK_PRODUCTS), a, below, b0, b1, t->a_stride);           \
        else if (shape == BLOCK_2X1)                                                             \
            BLOCK_RUN(BLOCK_STEPS_##n(BLOCK_PRODUCTS_2X1), a, below, b0, b1, t->a_stride);       \
        else                                                                                     \
            BLOCK_RUN(BLOCK_STEPS_##n(BLOCK_PRODUCTS_1X2), a, below, b0, b1, t->a_stride);       \
        a += n * TILE_ROW_BYTES;                                                                 \
        below += n * TILE_ROW_BYTES;                                                             \
        b0 += n * TILE_BYTES;                                                                    \
        b1 += n * TILE_BYTES;                                                                    \
    } while (0)

BLOCK_INLINE void block_product(const struct tile_block *t, enum block_shape shape)
{
    const uint8_t *a = t->a, *below = shape == BLOCK_1X2 ? a : a + TILE_ROWS * t->a_stride;
    const uint8_t *b0 = t->b[0], *b1 = shape == BLOCK_2X1 ? b0 : t->b[1];
    int steps = t->steps;
    block_load_c(t, shape);
    for (; steps >= 4; steps -= 4)
        BLOCK_RUN_STEPS(4);
    for (; steps >= 2; steps -= 2)
        BLOCK_RUN_STEPS(2);
    if (steps)
        BLOCK_RUN_STEPS(1);
    block_store_c(t, shape);
}

#endif
