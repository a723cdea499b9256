/* Dot products with rows as they lie in memory: keys, values, and the rows of a file. */
#ifndef TESSERA_VECTOR_DOT_H
#define TESSERA_VECTOR_DOT_H

#include "kernels/vec.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* The block of BLOCK_Q8_0 (scalar/blocks.h) that has element i: its scale, then its codes. */
static ALWAYS_INLINE const uint8_t *q8_0_block(const void *row, int i)
{
    return (const uint8_t *)row + i / KV_Q8_0_ELEMS * KV_Q8_0_BYTES;
}

static ALWAYS_INLINE float q8_0_scale(const void *row, int i)
{
    uint16_t scale;
    memcpy(&scale, q8_0_block(row, i), sizeof scale);
    return _cvtsh_ss(scale);
}

static ALWAYS_INLINE const int8_t *q8_0_codes(const void *row, int i)
{
    return (const int8_t *)q8_0_block(row, i) + sizeof(uint16_t) + i % KV_Q8_0_ELEMS;
}

/* What the codes of the block with element i are multiplied by; of types without scales, any. */
static ALWAYS_INLINE vec row_scale(const void *row, enum block_id type, int i)
{
    return vec_set1(type == BLOCK_Q8_0 ? q8_0_scale(row, i) : 1.0f);
}

/* Elements i, i + 1, .. of a row of one of enum kv_type, i a multiple of VEC, with their scale. */
static ALWAYS_INLINE vec row_load_scaled(const void *row, enum block_id type, int i, vec scale)
{
    if (type == BLOCK_F32)
        return vec_load((const float *)row + i);
    if (type == BLOCK_Q8_0)
        return vec_load_i8(q8_0_codes(row, i)) * scale;
    const uint16_t *halves = (const uint16_t *)row + i;
    return type == BLOCK_F16 ? vec_load_f16(halves) : vec_load_bf16(halves);
}

static ALWAYS_INLINE vec row_load(const void *row, enum block_id type, int i)
{
    return row_load_scaled(row, type, i, row_scale(row, type, i));
}

/* Elements that have a scale in common, VEC at least. */
static ALWAYS_INLINE int row_step(enum block_id type)
{
    return type == BLOCK_Q8_0 ? KV_Q8_0_ELEMS : VEC;
}

/* Those that are there, n < VEC; of BLOCK_Q8_0, whose rows are whole blocks, none. */
static ALWAYS_INLINE vec row_load_n(const void *row, enum block_id type, int i, int n)
{
    if (type == BLOCK_F32)
        return vec_load_n((const float *)row + i, (size_t)n);
    if (type == BLOCK_Q8_0)
        return vec_set1(0.0f);
    const uint16_t *halves = (const uint16_t *)row + i;
    if (type == BLOCK_F16)
        return vec_load_f16_n(halves, (size_t)n);
    uint16_t padded[VEC] = {0};
    memcpy(padded, halves, (size_t)n * sizeof *padded);
    return vec_load_bf16(padded);
}

/* Sums of products that fit the registers beside what they are made of. */
enum { DOT_SUMS = VEC == 16 ? 16 : 8 };

/* The products of n_rows rows of floats, `stride` floats apart, with n_others other rows, all of n
 * elements: of row r and `other` j at [r * n_others + j]. There are 8 or DOT_SUMS of them. */
static ALWAYS_INLINE void dot_products(float *products, const float *rows, size_t stride,
                                       int n_rows, const void *const *others, int n_others,
                                       enum block_id type, int n)
{
    vec sums[DOT_SUMS];
    int i = 0;
    for (int s = 0; s < n_rows * n_others; s++)
        sums[s] = vec_set1(0.0f);
    for (; i + row_step(type) <= n; i += row_step(type))
        for (int j = 0; j < n_others; j++) {
            vec scale = row_scale(others[j], type, i);
            for (int l = i; l < i + row_step(type); l += VEC) {
                vec x = row_load_scaled(others[j], type, l, scale);
                for (int r = 0; r < n_rows; r++)
                    sums[r * n_others + j] = vec_fma(vec_load(rows + (size_t)r * stride + l), x,
                                                     sums[r * n_others + j]);
            }
        }
    if (i < n)
        for (int j = 0; j < n_others; j++) {
            vec x = row_load_n(others[j], type, i, n - i);
            for (int r = 0; r < n_rows; r++) {
                vec last = vec_load_n(rows + (size_t)r * stride + i, (size_t)(n - i));
                sums[r * n_others + j] = vec_fma(last, x, sums[r * n_others + j]);
            }
        }
    for (int s = 0; s < n_rows * n_others; s += 8)
        _mm256_storeu_ps(products + s, vec_sum8(sums + s));
}

#endif
