/* What attention on tiles shares between many and few query rows. Queries are scaled by log2(e)
 * too, so that weights are powers of two. The two k that share a lane of a tile are 16 apart in all
 * operands, which makes their pairs without shuffles. */
#ifndef TESSERA_AMX_ATTENTION_H
#define TESSERA_AMX_ATTENTION_H

#include <math.h>
#include <string.h>

#include "kernels/amx/tile.h"
#include "kernels/amx/width.h"
#include "kernels/transpose.h"
#include "kernels/vector/dot.h"

enum {
    ATTN_TILE_MIN_ROWS = 5,  /* fewer are bound by memory with vectors, too */
    ATTN_TILE_MIN_KEYS = 256, /* for so few rows that vectors need no panels */
    ATTN_TILE_FEW_ROWS = 16, /* up to these rows amx_attention_few takes */
};

static const float attn_log2_e = 0x1.715476p+0f, attn_ln_2 = 0x1.62e430p-1f;

/* Up to ATTN_TILE_FEW_ROWS rows; the scratch memory is args->scratch. */
void AMX_NAME(amx_attention_few)(const struct attn_args *args);
size_t AMX_NAME(amx_attn_few_bytes)(int d_k, int d_v);

static inline int attn_round_up(int n, int to)
{
    return (n + to - 1) / to * to;
}

/* The next bytes of the scratch memory; NULL where only their number is asked for. */
static inline void *attn_take(void *scratch, size_t *used, size_t bytes)
{
    void *at = scratch ? (uint8_t *)scratch + *used : NULL;
    *used += act_round_up(bytes, 64);
    return at;
}

/* ---- Operands -------------------------------------------------------------------------------- */

/* VEC elements of a row, from i on, where `left` are left, with the row_scale that they have; zeros
 * behind them. */
static ALWAYS_INLINE vec attn_load_padded(const void *row, enum block_id type, int i, int left,
                                          vec scale)
{
    return left >= VEC ? row_load_scaled(row, type, i, scale)
                       : row_load_n(row, type, i, left < 0 ? 0 : left);
}

/* Pairs (x, y) as bf16, which values that come from bf16 are already. */
static ALWAYS_INLINE vec_i32 attn_pack_pairs(vec x, vec y, enum block_id type)
{
    return type == BLOCK_BF16 ? vi_or(vi_shr(vf_bits(x), 16), vf_bits(y)) : vf_pack_bf16(x, y);
}

/* Pair r of each of 16 keys, from element k on, in row r of a tile; `left` elements are there. */
static ALWAYS_INLINE void attn_write_key_tile(uint8_t *tile, enum block_id type,
                                              const void *const keys[16], int k, int left)
{
    for (int c = 0; c < 16; c += VEC)
        for (int i = 0; i < 16; i += VEC) {
            vec square[VEC];
            for (int j = 0; j < VEC; j++) {
                vec scale = row_scale(keys[c + j], type, k);
                vec x = attn_load_padded(keys[c + j], type, k + i, left - i, scale);
                vec y = attn_load_padded(keys[c + j], type, k + i + 16, left - i - 16, scale);
                square[j] = vf_of_bits(attn_pack_pairs(x, y, type));
            }
            vec_transpose(square);
            for (int j = 0; j < VEC; j++)
                vi_store(tile + TILE_ROW_BYTES * (i + j) + 4 * c, vf_bits(square[j]));
        }
}

/* A row of tiles of values, each `panel` bytes after the one before: pairs of elements of two of
 * them, 16 in each tile. */
static ALWAYS_INLINE void attn_write_value_row(uint8_t *to, int panel, enum block_id type,
                                               const void *first, const void *second, int d_v)
{
    for (int i = 0; i < d_v; i += 32, to += 2 * panel) {
        vec x_scale = row_scale(first, type, i), y_scale = row_scale(second, type, i);
        for (int j = 0; j < 32; j += VEC) {
            vec x = attn_load_padded(first, type, i + j, d_v - i - j, x_scale);
            vec y = attn_load_padded(second, type, i + j, d_v - i - j, y_scale);
            vi_store(to + j / 16 * panel + 4 * (j % 16), attn_pack_pairs(x, y, type));
        }
    }
}

/* ---- The softmax ----------------------------------------------------------------------------- */

/* 2^x to 2^-10 of it, 0 where it is too small. x * 2^23 and the bias are the bits of a number with
 * its exponent, whose mantissa m (1 to 2) is a line in place of 2^(m - 1); the polynomial, of the
 * least largest relative error, is their ratio. */
static inline vec attn_power_of_two(vec x)
{
    vec bits = vec_fma(x, vec_set1(0x1p23f), vec_set1(127.0f * 0x1p23f));
    vec_i32 t = vf_to_i32(vec_max(bits, vec_set1(0.0f)));
    vec m = vf_of_bits(vi_and_or(t, vi_set1(0x7fffff), vi_set1(0x3f800000)));
    vec y = vec_fma(vec_set1(-0x1.b40066p-4f), m, vec_set1(0x1.6a3a46p-1f));
    y = vec_fma(vec_fma(y, m, vec_set1(-0x1.60973cp+0f)), m, vec_set1(0x1.c68eb0p+0f));
    return vf_of_bits(t) * y;
}

/* A row of the result, [d_v, padded to vectors], from its undivided sums: relative to 2^base they
 * are `unit` times as large. */
static inline void attn_write_row(const struct attn_args *args, int row, const float *from,
                                  float base, float sum, float unit)
{
    size_t index = (size_t)row;
    float *to = args->out + index * args->out_stride;
    float scale = unit;
    if (args->row_max) {
        args->row_max[index] = sum > 0.0f ? base * attn_ln_2 : -INFINITY;
        args->row_sum[index] = sum * unit;
    } else if (sum > 0.0f) {
        scale = 1.0f / sum;
    }
    int i = 0;
    for (; i + VEC <= args->d_v; i += VEC)
        vec_store(to + i, vec_load(from + i) * vec_set1(scale));
    if (i < args->d_v)
        vec_store_n(to + i, vec_load(from + i) * vec_set1(scale), (size_t)(args->d_v - i));
}

#endif
