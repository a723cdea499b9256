/* Products with tiles being filled between them, some quarters of a tile after each product: the
 * tile unit and the vector units work at the same time only where a few dozen instructions of one
 * follow as many of the other. What is filled is where the products just had their tiles from:
 * stores that miss L1 cost more than the instructions that make the weights.
 *
 * A is loaded with the hint that it will not be used again soon, which leaves L1 to B. */
#ifndef TESSERA_AMX_STEPS_H
#define TESSERA_AMX_STEPS_H

#include "kernels/amx/dequantize.h"
#include "kernels/amx/gemm.h"
#include "kernels/amx/tile.h"

/* A type's way of filling a tile: it is opened, then its quarters come in order. */
typedef struct open_tile open_tile_fn(uint8_t *tile, const struct tile_panel *panel, unsigned k);
typedef void quarter_fn(const struct open_tile *t, int quarter);

AMX_INLINE void fill_tile(uint8_t *tile, const struct tile_panel *panel, unsigned k,
                          open_tile_fn *open, quarter_fn *fill_quarter)
{
    struct open_tile t = open(tile, panel, k);
#pragma GCC unroll 4
    for (int i = 0; i < QUARTERS; i++)
        fill_quarter(&t, i);
}

/* Into L2. The address may lie behind the matrix: nothing is read there. */
AMX_INLINE void prefetch(const uint8_t *data, uintptr_t ahead, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += CACHE_LINE)
        _mm_prefetch((const char *)((uintptr_t)data + ahead + at), _MM_HINT_T1);
}

AMX_INLINE void fetch_lines(struct tile_lines *l, bool written)
{
    for (int i = 0; i < l->per_step && l->rows > 0; i++) {
        const uint8_t *line = l->row + (size_t)l->done * CACHE_LINE;
        if (written)
            __builtin_prefetch(line, 1);
        else
            _mm_prefetch((const char *)line, _MM_HINT_T1);
        if (++l->done < l->row_lines)
            continue;
        l->done = 0;
        l->row += l->stride;
        l->rows--;
    }
}

/* After a step of products. */
AMX_INLINE void fetch_some(struct tile_fetch *f)
{
    fetch_lines(&f->weights, false);
    fetch_lines(&f->heads, false);
    fetch_lines(&f->results, true);
    fetch_lines(&f->kept, true);
}

/* What is filled after a product of a step. */
AMX_INLINE void fill_after(int product, int products, struct open_tile tiles[2],
                           const struct tile_steps *s, int step, int panels, open_tile_fn *open,
                           quarter_fn *fill_quarter)
{
    const int all = panels * QUARTERS;
    const int first = product * all / products, end = (product + 1) * all / products;
#pragma GCC unroll 4
    for (int i = 0; i < QUARTERS; i++) {
        const int quarter = (first + i) % QUARTERS, panel = (first + i) / QUARTERS;
        if (first + i >= end)
            continue;
        if (quarter == 0) {
            struct tile_panel from = s->from;
            from.weights += panel ? from.stride : 0;
            tiles[panel] = open(s->to + (panels * step + panel) * TILE_BYTES, &from,
                                s->from_k + (unsigned)step * TILE_K);
        }
        fill_quarter(&tiles[panel], quarter);
    }
}

/* A tile_steps_run for so many tiles of A and panels, and a type's way of filling; with none
 * nothing is filled. A tile of B is loaded before it is filled again.
 *
 *     C 0 1    A 4    B 6 7       C 0    A 4               B 6
 *       2 3      5                  1      5
 *                                   2      4, or the last
 *                                   3      7                     */
AMX_INLINE void run_steps(const struct tile_steps *steps, int tiles_of_a, int panels,
                          open_tile_fn *open, quarter_fn *fill_quarter)
{
#define FILL_AFTER(product)                                                                      \
    if (open)                                                                                    \
    fill_after(product, tiles_of_a * panels, tiles, &s, step, panels, open, fill_quarter)
#define LOAD_B(tile, b)                                                                          \
    if (open) /* and store there soon */                                                         \
        TILE_LOAD(tile, b, TILE_ROW_BYTES);                                                      \
    else                                                                                         \
        TILE_LOAD_ONCE(tile, b, TILE_ROW_BYTES)
    const struct tile_steps s = *steps; /* a copy, which stores to tiles leave alone */
    const ptrdiff_t below = TILE_ROWS * s.a_stride;
    const uint8_t *a = s.a, *b0 = s.b[0], *b1 = s.b[1];
    struct open_tile tiles[2];
    for (int step = 0; step < s.steps; step++) {
        TILE_LOAD_ONCE(4, a, s.a_stride);
        LOAD_B(6, b0);
        TILE_DPBF16(0, 4, 6);
        FILL_AFTER(0);
        if (panels == 2) {
            LOAD_B(7, b1);
            TILE_DPBF16(1, 4, 7);
            FILL_AFTER(1);
        }
        if (tiles_of_a > 1)
            TILE_LOAD_ONCE(5, a + below, s.a_stride);
        if (tiles_of_a > 1 && panels == 2) {
            TILE_DPBF16(2, 5, 6);
            FILL_AFTER(2);
            TILE_DPBF16(3, 5, 7);
            FILL_AFTER(3);
        } else if (tiles_of_a > 1) {
            TILE_DPBF16(1, 5, 6);
            FILL_AFTER(1);
        }
        if (tiles_of_a == 3) {
            TILE_LOAD_ONCE(7, a + 2 * below, s.a_stride);
            TILE_DPBF16(2, 7, 6);
            FILL_AFTER(2);
        } else if (tiles_of_a == 4) {
            TILE_LOAD_ONCE(4, a + 2 * below, s.a_stride);
            TILE_DPBF16(2, 4, 6);
            FILL_AFTER(2);
            TILE_LOAD_ONCE(7, a + 3 * below, s.a_stride);
            TILE_DPBF16(3, 7, 6);
            FILL_AFTER(3);
        }
        a += TILE_ROW_BYTES;
        b0 += s.b_stride;
        b1 += s.b_stride;
        fetch_some(s.fetch);
    }
#undef FILL_AFTER
#undef LOAD_B
}

#endif
