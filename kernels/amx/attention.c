/* Attention of many query rows to 16-bit keys and values on bf16 tiles, with the online softmax
 * over blocks of keys.
 *
 *   for each block of MAX_KEYS keys: keys and values become tiles in scratch
 *     for each block of 32 query rows, in three stages
 *       scores   S = Q K^T    [32, keys], tiles
 *       weights  P = 2^(S - max), rounded to bf16, vectors; the rows of `out` are scaled where the
 *                maximum moved
 *       values   out += P V   [32, d_v], tiles
 *
 * The stages of three neighbouring blocks of rows run together, a few tile products after every
 * few rows of weights, so that vector and tile units work at the same time.
 *
 * Queries are scaled by log2(e) too, so that weights are powers of two. The two k that share a lane
 * of a tile are 16 apart in all operands, which makes their pairs without shuffles. */
#include <math.h>
#include <string.h>

#include "kernels/amx/block.h"
#include "kernels/amx/width.h"
#include "kernels/layout.h"
#include "kernels/registry.h"
#include "kernels/transpose.h"
#include "kernels/vector/attention.h"
#include "kernels/vector/dot.h"

enum {
    MAX_ROWS = 512, /* query rows taken at once */
    MAX_KEYS = 256, /* keys of a block */
    MAX_BLOCKS = MAX_ROWS / BLOCK_SIDE,
    /* Odd numbers of cache lines from row to row, see act_row_bytes. */
    SCORE_STRIDE = MAX_KEYS + 16,       /* floats */
    WEIGHT_STRIDE = 2 * MAX_KEYS + 64,  /* bytes */
};

static const float log2_e = 0x1.715476p+0f, ln_2 = 0x1.62e430p-1f;

/* Up to MAX_ROWS query rows and a block of keys, in the caller's scratch memory. Buffers of two
 * alternate between blocks of rows. */
struct pass {
    const struct attn_args *args;
    int first, count;  /* rows [first, first + count) of the arguments */
    int n_blocks;      /* of BLOCK_SIDE rows */
    int key0, n_keys;  /* the block of keys */
    int k_steps;       /* d_k in tiles of BLOCK_STEP */
    int width;         /* d_v rounded up to BLOCK_SIDE */
    size_t q_stride;   /* bytes */
    size_t out_stride; /* floats */
    uint8_t *q;          /* bf16 [MAX_ROWS, k_steps * BLOCK_STEP] */
    uint8_t *k_tiles;    /* [MAX_KEYS / 16][k_steps] tiles of 16 keys */
    uint8_t *v_tiles;    /* [width / 16][MAX_KEYS / BLOCK_STEP] tiles of 16 columns */
    float *scores[2];    /* [BLOCK_SIDE, MAX_KEYS] */
    uint8_t *weights[2]; /* bf16 [BLOCK_SIDE, MAX_KEYS] */
    float *out;          /* [MAX_ROWS, width] */
    float *max, *sum;    /* [MAX_ROWS] */
    int n_visible[MAX_BLOCKS + 4]; /* of each block of rows, see block_keys */
};

static int round_up(int n, int to)
{
    return (n + to - 1) / to * to;
}

/* The next bytes of the scratch memory; NULL where only their number is asked for. */
static void *take(void *scratch, size_t *used, size_t bytes)
{
    void *at = scratch ? (uint8_t *)scratch + *used : NULL;
    *used += act_round_up(bytes, 64);
    return at;
}

/* Lays the buffers out; returns the bytes that they take. */
static size_t lay_out(struct pass *p, void *scratch, int d_k, int d_v)
{
    size_t used = 0;
    p->k_steps = round_up(d_k, BLOCK_STEP) / BLOCK_STEP;
    p->width = round_up(d_v, BLOCK_SIDE);
    p->q_stride = act_row_bytes(ACT_BF16, (size_t)d_k);
    p->out_stride = (size_t)p->width + 16;
    p->q = take(scratch, &used, MAX_ROWS * p->q_stride);
    p->k_tiles = take(scratch, &used, (size_t)(MAX_KEYS / 16 * p->k_steps) * TILE_BYTES);
    p->v_tiles = take(scratch, &used, (size_t)(MAX_KEYS * p->width) * 2);
    for (int i = 0; i < 2; i++) {
        p->scores[i] = take(scratch, &used, BLOCK_SIDE * SCORE_STRIDE * sizeof(float));
        p->weights[i] = take(scratch, &used, BLOCK_SIDE * WEIGHT_STRIDE);
    }
    p->out = take(scratch, &used, MAX_ROWS * p->out_stride * sizeof(float));
    p->max = take(scratch, &used, MAX_ROWS * sizeof(float));
    p->sum = take(scratch, &used, MAX_ROWS * sizeof(float));
    return used;
}

/* ---- Operands -------------------------------------------------------------------------------- */

/* VEC elements of a row, from i on, where `left` are left; zeros behind them. */
static ALWAYS_INLINE vec load_padded(const void *row, enum block_id type, int i, int left)
{
    return left >= VEC ? row_load(row, type, i) : row_load_n(row, type, i, left < 0 ? 0 : left);
}

/* The rows as bf16, up to whole blocks. */
static void write_queries(struct pass *p)
{
    const struct attn_args *args = p->args;
    vec scale = vec_set1(args->scale * log2_e);
    for (int row = 0; row < p->count; row++) {
        const float *from = args->q + (size_t)(p->first + row) * args->q_stride;
        uint8_t *to = p->q + (size_t)row * p->q_stride;
        for (int k = 0; k < args->d_k; k += BLOCK_STEP)
            for (int i = k; i < k + 16; i += VEC) {
                vec x = load_padded(from, BLOCK_F32, i, args->d_k - i);
                vec y = load_padded(from, BLOCK_F32, i + 16, args->d_k - i - 16);
                vi_store(to + 2 * k + 4 * (i - k), vf_pack_bf16(scale * x, scale * y));
            }
    }
    int behind = p->n_blocks * BLOCK_SIDE - p->count;
    memset(p->q + (size_t)p->count * p->q_stride, 0, (size_t)behind * p->q_stride);
}

/* Key or value `key` of the block; the last one is repeated behind it. */
static const uint8_t *cache_row(const struct pass *p, const void *cache, size_t stride, int key)
{
    int index = p->key0 + (key < p->n_keys ? key : p->n_keys - 1);
    return (const uint8_t *)cache + (size_t)index * stride;
}

/* Pairs (x, y) as bf16, which values that come from bf16 are already. */
static ALWAYS_INLINE vec_i32 pack_pairs(vec x, vec y, enum block_id type)
{
    return type == BLOCK_BF16 ? vi_or(vi_shr(vf_bits(x), 16), vf_bits(y)) : vf_pack_bf16(x, y);
}

/* Pair r of each of 16 keys, from element k on, in row r of a tile; `left` elements are there. */
static ALWAYS_INLINE void write_key_tile(uint8_t *tile, enum block_id type,
                                         const void *const keys[16], int k, int left)
{
    for (int c = 0; c < 16; c += VEC)
        for (int i = 0; i < 16; i += VEC) {
            vec square[VEC];
            for (int j = 0; j < VEC; j++)
                square[j] = vf_of_bits(
                    pack_pairs(load_padded(keys[c + j], type, k + i, left - i),
                               load_padded(keys[c + j], type, k + i + 16, left - i - 16), type));
            vec_transpose(square);
            for (int j = 0; j < VEC; j++)
                vi_store(tile + TILE_ROW_BYTES * (i + j) + 4 * c, vf_bits(square[j]));
        }
}

static ALWAYS_INLINE void write_key_tiles(const struct pass *p, enum block_id type)
{
    const struct attn_args *args = p->args;
    uint8_t *tile = p->k_tiles;
    for (int key = 0; key < round_up(p->n_keys, BLOCK_SIDE); key += 16) {
        const void *keys[16];
        int k = 0;
        for (int j = 0; j < 16; j++)
            keys[j] = cache_row(p, args->k, args->k_stride, key + j);
        for (; k + BLOCK_STEP <= args->d_k; k += BLOCK_STEP, tile += TILE_BYTES)
            write_key_tile(tile, type, keys, k, BLOCK_STEP);
        if (k < args->d_k) {
            write_key_tile(tile, type, keys, k, args->d_k - k);
            tile += TILE_BYTES;
        }
    }
}

/* A tile of 32 keys: row r holds 16 columns of keys r and r + 16. */
static ALWAYS_INLINE void write_value_tiles(const struct pass *p, enum block_id type)
{
    const struct attn_args *args = p->args;
    for (int key = 0; key < round_up(p->n_keys, BLOCK_STEP); key += BLOCK_STEP)
        for (int r = 0; r < 16; r++) {
            const void *first = cache_row(p, args->v, args->v_stride, key + r);
            const void *second = cache_row(p, args->v, args->v_stride, key + r + 16);
            uint8_t *to = p->v_tiles + key / BLOCK_STEP * TILE_BYTES + TILE_ROW_BYTES * r;
            for (int i = 0; i < p->width; i += VEC)
                vi_store(to + i / 16 * (MAX_KEYS / BLOCK_STEP) * TILE_BYTES + 4 * (i % 16),
                         pack_pairs(load_padded(first, type, i, args->d_v - i),
                                    load_padded(second, type, i, args->d_v - i), type));
        }
}

static void write_tiles(const struct pass *p)
{
    if (p->args->kv_type == KV_F16) {
        write_key_tiles(p, BLOCK_F16);
        write_value_tiles(p, BLOCK_F16);
    } else {
        write_key_tiles(p, BLOCK_BF16);
        write_value_tiles(p, BLOCK_BF16);
    }
}

/* ---- Which keys ------------------------------------------------------------------------------ */

/* One past the last key that a row sees. */
static int end_key(const struct pass *p, int row)
{
    int n_keys = p->args->n_keys[p->first + row];
    return n_keys < p->args->key1 ? n_keys : p->args->key1;
}

/* Keys of the block at hand that a row sees; rows behind the last see none. */
static int visible_keys(const struct pass *p, int row)
{
    int count = row < p->count ? end_key(p, row) - p->key0 : 0;
    return count < 0 ? 0 : count < p->n_keys ? count : p->n_keys;
}

/* Keys that a block of rows needs, a multiple of BLOCK_SIDE: none for the two blocks before the
 * first and behind the last, where the stages begin and end. */
static int *block_keys(struct pass *p, int block)
{
    return &p->n_visible[block + 2];
}

static void count_keys(struct pass *p)
{
    memset(p->n_visible, 0, sizeof p->n_visible);
    for (int block = 0; block < p->n_blocks; block++) {
        int most = 0;
        for (int row = block * BLOCK_SIDE; row < (block + 1) * BLOCK_SIDE; row++)
            most = visible_keys(p, row) > most ? visible_keys(p, row) : most;
        *block_keys(p, block) = round_up(most, BLOCK_SIDE);
    }
}

/* ---- The stages ------------------------------------------------------------------------------ */

/* The scores of a block of rows and 32 keys. */
static void multiply_keys(const struct pass *p, int block, int unit)
{
    const uint8_t *tiles = p->k_tiles + 2 * unit * p->k_steps * TILE_BYTES;
    block_product(&(struct tile_block){
        .a = p->q + (size_t)(block * BLOCK_SIDE) * p->q_stride,
        .a_stride = (ptrdiff_t)p->q_stride,
        .b = {tiles, tiles + p->k_steps * TILE_BYTES},
        .steps = p->k_steps,
        .c = p->scores[block % 2] + unit * BLOCK_SIDE,
        .ldc = SCORE_STRIDE,
    });
}

/* The weighted sums of 32 columns of the values, for a block of rows. */
static void multiply_values(const struct pass *p, int block, int unit, int n_keys)
{
    const int panel = MAX_KEYS / BLOCK_STEP * TILE_BYTES;
    const uint8_t *tiles = p->v_tiles + 2 * unit * panel;
    block_product(&(struct tile_block){
        .a = p->weights[block % 2],
        .a_stride = WEIGHT_STRIDE,
        .b = {tiles, tiles + panel},
        .steps = n_keys / BLOCK_STEP,
        .c = p->out + (size_t)(block * BLOCK_SIDE) * p->out_stride + unit * BLOCK_SIDE,
        .ldc = p->out_stride,
        .accumulate = true,
    });
}

/* 2^x for x <= 0, to 2^-13 of it, which bf16 does not show; 2^-126 for all that is smaller. */
static inline vec power_of_two(vec x)
{
    const vec to_integer = vec_set1(0x1.8p23f); /* floats of this size are whole numbers */
    x = vec_max(vec_set1(-126.0f), x);
    vec shifted = x + to_integer;
    vec f = x - (shifted - to_integer);
    vec y = vec_fma(vec_set1(0x1.c3f76p-5f), f, vec_set1(0x1.f0de1ap-3f));
    y = vec_fma(vec_fma(y, f, vec_set1(0x1.62f31ap-1f)), f, vec_set1(0x1.fff692p-1f));
    return vf_of_bits(vi_add(vf_bits(y), vi_shl(vf_bits(shifted), 23)));
}

/* Hides keys [count, n_keys) of a row. */
static void hide_keys(float *scores, int count, int n_keys)
{
    for (int i = count / VEC * VEC; i < n_keys; i += VEC) {
        size_t n = i < count ? (size_t)(count - i) : 0;
        vec_store(scores + i, vec_first_n(vec_load(scores + i), vec_set1(-INFINITY), n));
    }
}

static float largest(const float *scores, int n_keys, float start)
{
    vec max[2] = {vec_set1(start), vec_set1(start)};
    for (int i = 0; i < n_keys; i += 2 * VEC)
        for (int j = 0; j < 2; j++)
            max[j] = vec_max(max[j], vec_load(scores + i + j * VEC));
    return vec_max_lane(vec_max(max[0], max[1]));
}

/* Scales what was gathered before to a new maximum. */
static void raise_max(struct pass *p, int row, float max)
{
    float keep = exp2f(p->max[row] - max);
    float *out = p->out + (size_t)row * p->out_stride;
    for (int i = 0; i < p->width; i += VEC)
        vec_store(out + i, vec_load(out + i) * vec_set1(keep));
    p->sum[row] *= keep;
    p->max[row] = max;
}

/* Turns the scores of row `row` of a block into weights. */
static void weigh_row(struct pass *p, int block, int row, int n_keys)
{
    int index = block * BLOCK_SIDE + row, count = visible_keys(p, index);
    float *scores = p->scores[block % 2] + row * SCORE_STRIDE;
    uint8_t *weights = p->weights[block % 2] + row * WEIGHT_STRIDE;
    hide_keys(scores, count, n_keys);
    float max = largest(scores, n_keys, p->max[index]);
    if (count == 0 || max == -INFINITY) {
        memset(weights, 0, 2 * (size_t)n_keys);
        return;
    }
    if (max > p->max[index])
        raise_max(p, index, max);
    vec base = vec_set1(max), sum[2] = {vec_set1(0.0f), vec_set1(0.0f)};
    for (int key = 0; key < n_keys; key += BLOCK_STEP)
        for (int i = 0; i < 16; i += VEC) {
            vec x = power_of_two(vec_load(scores + key + i) - base);
            vec y = power_of_two(vec_load(scores + key + i + 16) - base);
            sum[0] = sum[0] + x;
            sum[1] = sum[1] + y;
            vi_store(weights + 2 * key + 4 * i, vf_pack_bf16(x, y));
        }
    p->sum[index] += vec_sum(sum[0] + sum[1]);
}

/* Weights of a block, scores of the next and values of the one before. */
static void run_stages(struct pass *p, int block)
{
    int n_keys = *block_keys(p, block), before = *block_keys(p, block - 1);
    int n_scores = *block_keys(p, block + 1) / BLOCK_SIDE;
    int total = n_scores + (before ? p->width / BLOCK_SIDE : 0), done = 0;
    for (int row = 0; row < BLOCK_SIDE; row++) {
        for (; done < total * (row + 1) / BLOCK_SIDE; done++) {
            if (done < n_scores)
                multiply_keys(p, block + 1, done);
            else
                multiply_values(p, block - 1, done - n_scores, before);
        }
        if (n_keys)
            weigh_row(p, block, row, n_keys);
    }
}

/* ---- A pass ---------------------------------------------------------------------------------- */

static void start(struct pass *p)
{
    size_t rows = (size_t)(p->n_blocks * BLOCK_SIDE);
    memset(p->out, 0, rows * p->out_stride * sizeof(float));
    for (size_t row = 0; row < rows; row++) {
        p->max[row] = -INFINITY;
        p->sum[row] = 0.0f;
    }
    write_queries(p);
}

static void finish(const struct pass *p)
{
    const struct attn_args *args = p->args;
    for (int row = 0; row < p->count; row++) {
        size_t index = (size_t)(p->first + row);
        const float *from = p->out + (size_t)row * p->out_stride;
        float *to = args->out + index * args->out_stride;
        float scale = 1.0f;
        if (args->row_max) {
            args->row_max[index] = p->max[row] * ln_2;
            args->row_sum[index] = p->sum[row];
        } else if (p->sum[row] > 0.0f) {
            scale = 1.0f / p->sum[row];
        }
        int i = 0;
        for (; i + VEC <= args->d_v; i += VEC)
            vec_store(to + i, vec_load(from + i) * vec_set1(scale));
        if (i < args->d_v)
            vec_store_n(to + i, vec_load(from + i) * vec_set1(scale), (size_t)(args->d_v - i));
    }
}

static void run_pass(struct pass *p)
{
    int end = 0;
    for (int row = 0; row < p->count; row++)
        end = end_key(p, row) > end ? end_key(p, row) : end;
    start(p);
    for (p->key0 = p->args->key0; p->key0 < end; p->key0 += MAX_KEYS) {
        p->n_keys = end - p->key0 < MAX_KEYS ? end - p->key0 : MAX_KEYS;
        write_tiles(p);
        count_keys(p);
        for (int block = -1; block <= p->n_blocks; block++)
            run_stages(p, block);
    }
    finish(p);
}

static void attention(const struct attn_args *args)
{
    /* Few rows are bound by memory, and vectors take keys as they lie there. Who keeps them in F32
     * does not want them rounded. */
    if (args->m <= ATTN_FEW_ROWS || args->exact || args->kv_type == KV_F32) {
        VEC_NAME(attention)(args);
        return;
    }
    struct pass p = {.args = args};
    lay_out(&p, args->scratch, args->d_k, args->d_v);
    tile_config_full();
    for (p.first = 0; p.first < args->m; p.first += MAX_ROWS) {
        p.count = args->m - p.first < MAX_ROWS ? args->m - p.first : MAX_ROWS;
        p.n_blocks = round_up(p.count, BLOCK_SIDE) / BLOCK_SIDE;
        run_pass(&p);
    }
    tile_release();
}

static size_t attn_scratch_bytes(int d_k, int d_v)
{
    struct pass p;
    size_t many = lay_out(&p, NULL, d_k, d_v), few = VEC_NAME(attn_scratch_bytes)(d_k, d_v);
    return many > few ? many : few;
}

void AMX_NAME(amx_row_ops)(struct row_ops *ops)
{
    ops->name = VEC == 16 ? "amx" : "amx+avx2";
    ops->cpu_flags |= CPU_AMX_TILE | CPU_AMX_BF16;
    ops->attn_rows = MAX_ROWS;
    ops->attn_scratch_bytes = attn_scratch_bytes;
    ops->attention = attention;
}
