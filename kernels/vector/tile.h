/* The register block: up to TILE_ROWS rows of A times TILE_COLUMNS columns of F32 panels
 * (layout.h), two vectors wide and with FMA throughout.
 *
 * A lies in a buffer of its own with rows CHUNK_STRIDE floats apart: a fixed distance makes every
 * address of the inner loop a constant offset, and an odd number of cache lines spreads the rows
 * over the sets of the cache. */
#ifndef TESSERA_VECTOR_TILE_H
#define TESSERA_VECTOR_TILE_H

#include "kernels/layout.h"
#include "kernels/vec.h"

#define TILE_COLUMNS (2 * VEC)

enum {
    CHUNK_K = 128,                  /* k taken at once: an F32 panel of them is 8 KB */
    CHUNK_STRIDE = CHUNK_K + 16,    /* floats */
    TILE_ROWS = VEC == 16 ? 12 : 6, /* 2 * TILE_ROWS sums and what feeds them fill the registers */
};

struct tile {
    const float *a; /* [rows, k], CHUNK_STRIDE floats from row to row */
    const float *b; /* panel [k][16] */
    size_t b_next;  /* floats from panel to panel */
    int k;
    float *c; /* [rows, columns] */
    size_t ldc;
    int columns;     /* 1..TILE_COLUMNS */
    bool accumulate; /* add to c */
};

static inline void tile_store(float *c, vec sum, int columns, bool accumulate)
{
    if (columns >= VEC) {
        if (accumulate)
            sum = sum + vec_load(c);
        vec_store(c, sum);
    } else {
        if (accumulate)
            sum = sum + vec_load_n(c, (size_t)columns);
        vec_store_n(c, sum, (size_t)columns);
    }
}

/* `rows` and `vectors` are constants where this is inlined. */
static inline __attribute__((always_inline)) void tile_multiply(const struct tile *t, int rows,
                                                                int vectors)
{
    const size_t second = TILE_COLUMNS > 16 ? t->b_next : VEC;
    const float *a = t->a, *b = t->b;
    vec sums[TILE_ROWS][2];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++)
            sums[i][v] = vec_set1(0.0f);
    for (int k = 0; k < t->k; k++, a++, b += PANEL_COLUMNS) {
        vec w[2] = {vec_load(b), vectors > 1 ? vec_load(b + second) : vec_set1(0.0f)};
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++) {
            vec x = vec_set1(a[i * CHUNK_STRIDE]);
            for (int v = 0; v < vectors; v++)
                sums[i][v] = vec_fma(x, w[v], sums[i][v]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++)
            tile_store(t->c + (size_t)i * t->ldc + v * VEC, sums[i][v], t->columns - v * VEC,
                       t->accumulate);
}

/* Multiplies as many of `rows` rows as a register block takes; returns how many. */
static inline int tile_run(const struct tile *t, int rows)
{
#define TILE_CASE(count)                                                                           \
    if (rows >= (count)) {                                                                         \
        if (t->columns > VEC)                                                                      \
            tile_multiply(t, count, 2);                                                            \
        else                                                                                       \
            tile_multiply(t, count, 1);                                                            \
        return count;                                                                              \
    }
#if defined(__AVX512F__)
    TILE_CASE(12)
    TILE_CASE(8)
#else
    TILE_CASE(6)
#endif
    TILE_CASE(4)
    TILE_CASE(2)
    TILE_CASE(1)
#undef TILE_CASE
    return 0;
}

/* c [rows, columns] = or += a [rows, k] times the panels of b, with k <= CHUNK_K: the columns in
 * the outer loop, so that their panels stay in the L1 cache for all rows. */
static inline void tile_product(struct tile t, int rows, int columns)
{
    struct tile first = t;
    for (int column = 0; column < columns; column += TILE_COLUMNS) {
        t = first;
        t.b += (size_t)(column / PANEL_COLUMNS) * t.b_next;
        t.c += column;
        t.columns = columns - column < TILE_COLUMNS ? columns - column : TILE_COLUMNS;
        for (int row = 0, count; row < rows; row += count) {
            count = tile_run(&t, rows - row);
            t.a += count * CHUNK_STRIDE;
            t.c += (size_t)count * t.ldc;
        }
    }
}

#endif
