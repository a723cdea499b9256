/* Dot products with rows as they lie in memory: keys, values, and the rows of a file. */
#ifndef TESSERA_VECTOR_DOT_H
#define TESSERA_VECTOR_DOT_H

#include "kernels/vec.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Elements i, i + 1, .. of a row of BLOCK_F32, BLOCK_F16 or BLOCK_BF16. */
static ALWAYS_INLINE vec row_load(const void *row, enum block_id type, int i)
{
    if (type == BLOCK_F32)
        return vec_load((const float *)row + i);
    const uint16_t *halves = (const uint16_t *)row + i;
    return type == BLOCK_F16 ? vec_load_f16(halves) : vec_load_bf16(halves);
}

static ALWAYS_INLINE vec row_load_n(const void *row, enum block_id type, int i, int n)
{
    if (type == BLOCK_F32)
        return vec_load_n((const float *)row + i, (size_t)n);
    const uint16_t *halves = (const uint16_t *)row + i;
    if (type == BLOCK_F16)
        return vec_load_f16_n(halves, (size_t)n);
    uint16_t padded[VEC] = {0};
    memcpy(padded, halves, (size_t)n * sizeof *padded);
    return vec_load_bf16(padded);
}

/* The products of n_rows (1, 2, 4) rows of floats, `stride` floats apart, with 8 / n_rows other
 * rows, all of n elements: of row r and `other` j at [r * (8 / n_rows) + j]. Eight sums keep the
 * multipliers busy; more would not fit the registers. */
static ALWAYS_INLINE __m256 dot_8(const float *rows, size_t stride, int n_rows,
                                  const void *const *others, enum block_id type, int n)
{
    const int n_others = 8 / n_rows;
    vec sums[8];
    int i = 0;
    for (int s = 0; s < 8; s++)
        sums[s] = vec_set1(0.0f);
    for (; i + VEC <= n; i += VEC)
        for (int j = 0; j < n_others; j++) {
            vec x = row_load(others[j], type, i);
            for (int r = 0; r < n_rows; r++)
                sums[r * n_others + j] =
                    vec_fma(vec_load(rows + (size_t)r * stride + i), x, sums[r * n_others + j]);
        }
    if (i < n)
        for (int j = 0; j < n_others; j++) {
            vec x = row_load_n(others[j], type, i, n - i);
            for (int r = 0; r < n_rows; r++) {
                vec last = vec_load_n(rows + (size_t)r * stride + i, (size_t)(n - i));
                sums[r * n_others + j] = vec_fma(last, x, sums[r * n_others + j]);
            }
        }
    return vec_sum8(sums);
}

#endif
