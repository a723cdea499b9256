/* Attention in two ways, both with the online softmax over blocks of keys.
 *
 * Many query rows (prompts): the keys and values of a block become F32 panels, and scores and
 * outputs are products of register blocks. Few rows (generation): keys and values are read as they
 * lie, once, and the products are dot products and sums of rows.
 */
#include "kernels/vector/attention.h"

#include <math.h>

#include "kernels/transpose.h"
#include "kernels/vector/dot.h"
#include "kernels/vector/tile.h"

enum {
    MAX_ROWS = ATTN_ROWS,
    MAX_KEYS = 64, /* keys of a block, <= CHUNK_K */
    SUM_ROWS = VEC == 16 ? 4 : 2, /* rows that values are added to at once */
};

/* The state of up to MAX_ROWS query rows, in the caller's scratch memory. */
struct rows {
    const struct attn_args *args;
    int first, count; /* rows [first, first + count) of the arguments */
    int width;        /* d_v rounded up to whole panels */
    float *q;         /* scaled: [chunk of d_k][row][CHUNK_STRIDE]; few rows: [row][d_k] */
    float *scores;    /* [row][CHUNK_STRIDE], weights after the softmax */
    float *out;       /* [row][width] */
    float *k_panels;  /* [MAX_KEYS / 16][d_k][16] */
    float *v_panels;  /* [width / 16][MAX_KEYS][16] */
    float *max, *sum; /* [row] */
};

static int round_up(int n, int to)
{
    return (n + to - 1) / to * to;
}

static int chunk_count(int d_k)
{
    return (d_k + CHUNK_K - 1) / CHUNK_K;
}

/* The next n floats of the scratch memory; NULL where only their number is asked for. */
static float *take(float *scratch, size_t *used, size_t n)
{
    float *at = scratch ? scratch + *used : NULL;
    *used += n;
    return at;
}

/* Lays the buffers out; returns the floats that they take. */
static size_t lay_out(struct rows *rows, float *scratch, int d_k, int d_v)
{
    size_t used = 0;
    rows->width = round_up(d_v, PANEL_COLUMNS);
    rows->q = take(scratch, &used, (size_t)chunk_count(d_k) * MAX_ROWS * CHUNK_STRIDE);
    rows->scores = take(scratch, &used, MAX_ROWS * CHUNK_STRIDE);
    rows->out = take(scratch, &used, MAX_ROWS * (size_t)rows->width);
    rows->k_panels = take(scratch, &used, MAX_KEYS * (size_t)round_up(d_k, PANEL_COLUMNS));
    rows->v_panels = take(scratch, &used, MAX_KEYS * (size_t)rows->width);
    rows->max = take(scratch, &used, MAX_ROWS);
    rows->sum = take(scratch, &used, MAX_ROWS);
    return used;
}

size_t VEC_NAME(attn_scratch_bytes)(int d_k, int d_v)
{
    struct rows rows;
    return act_round_up(lay_out(&rows, NULL, d_k, d_v) * sizeof(float), 64);
}

static const void *key_row(const struct attn_args *args, int key)
{
    return (const char *)args->k + (size_t)key * args->k_stride;
}

static const void *value_row(const struct attn_args *args, int key)
{
    return (const char *)args->v + (size_t)key * args->v_stride;
}

/* Keys that a row sees. */
static int visible_keys(const struct rows *rows, int row)
{
    int n_keys = rows->args->n_keys[rows->first + row];
    return n_keys < rows->args->key1 ? n_keys : rows->args->key1;
}

static int last_visible_key(const struct rows *rows)
{
    int last = 0;
    for (int row = 0; row < rows->count; row++)
        last = visible_keys(rows, row) > last ? visible_keys(rows, row) : last;
    return last;
}

/* ---- The online softmax ---------------------------------------------------------------------- */

/* Turns the scores of `count` keys, padded to whole panels, into weights exp(score - max), zero
 * behind them, and scales what was gathered before to the new maximum. */
static void weigh_row(struct rows *rows, int row, int count, int padded)
{
    float *scores = rows->scores + row * CHUNK_STRIDE;
    vec zero = vec_set1(0.0f), none = vec_set1(-INFINITY), max = vec_set1(rows->max[row]);
    for (int i = 0; i < count; i += VEC)
        max = vec_max(max, vec_first_n(vec_load(scores + i), none,
                                       (size_t)(count - i < VEC ? count - i : VEC)));
    float new_max = vec_max_lane(max), keep = 1.0f;
    if (new_max == -INFINITY)
        count = 0; /* the difference of scores to it would be no number */
    if (new_max > rows->max[row]) {
        keep = expf(rows->max[row] - new_max);
        float *out = rows->out + (size_t)row * (size_t)rows->width;
        for (int i = 0; i < rows->width; i += VEC)
            vec_store(out + i, vec_load(out + i) * vec_set1(keep));
        rows->max[row] = new_max;
    }
    vec sum = zero;
    int i = 0;
    for (; i < count; i += VEC) {
        vec weights = vec_exp(vec_load(scores + i) - vec_set1(new_max));
        if (count - i < VEC)
            weights = vec_first_n(weights, zero, (size_t)(count - i));
        vec_store(scores + i, weights);
        sum = sum + weights;
    }
    for (; i < padded; i += VEC)
        vec_store(scores + i, zero);
    rows->sum[row] = rows->sum[row] * keep + vec_sum(sum);
}

static void weigh(struct rows *rows, int key0, int n_keys)
{
    for (int row = 0; row < rows->count; row++) {
        int count = visible_keys(rows, row) - key0;
        count = count < 0 ? 0 : count > n_keys ? n_keys : count;
        weigh_row(rows, row, count, round_up(n_keys, PANEL_COLUMNS));
    }
}

static void start(struct rows *rows)
{
    memset(rows->out, 0, (size_t)rows->count * (size_t)rows->width * sizeof(float));
    for (int row = 0; row < rows->count; row++) {
        rows->max[row] = -INFINITY;
        rows->sum[row] = 0.0f;
    }
}

static void finish(const struct rows *rows)
{
    const struct attn_args *args = rows->args;
    for (int row = 0; row < rows->count; row++) {
        size_t index = (size_t)(rows->first + row);
        const float *from = rows->out + (size_t)row * (size_t)rows->width;
        float *to = args->out + index * args->out_stride;
        float scale = 1.0f;
        if (args->row_max) {
            args->row_max[index] = rows->max[row];
            args->row_sum[index] = rows->sum[row];
        } else if (rows->sum[row] > 0.0f) {
            scale = 1.0f / rows->sum[row];
        }
        int i = 0;
        for (; i + VEC <= args->d_v; i += VEC)
            vec_store(to + i, vec_load(from + i) * vec_set1(scale));
        if (i < args->d_v)
            vec_store_n(to + i, vec_load(from + i) * vec_set1(scale), (size_t)(args->d_v - i));
    }
}

/* ---- Many rows: panels ----------------------------------------------------------------------- */

static void scale_queries(struct rows *rows)
{
    const struct attn_args *args = rows->args;
    for (int row = 0; row < rows->count; row++) {
        const float *q = args->q + (size_t)(rows->first + row) * args->q_stride;
        for (int i = 0; i < args->d_k; i++)
            rows->q[(i / CHUNK_K * MAX_ROWS + row) * CHUNK_STRIDE + i % CHUNK_K] =
                q[i] * args->scale;
    }
}

/* Eight elements of a key, `n` of which exist. */
static ALWAYS_INLINE __m256 load_8(const void *row, enum block_id type, int i, int n)
{
    if (type == BLOCK_Q8_0) {
        __m128i codes = _mm_loadl_epi64((const __m128i *)q8_0_codes(row, i));
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)) * _mm256_set1_ps(q8_0_scale(row, i));
    }
    float padded[8] = {0};
    const char *from = (const char *)row + (size_t)i * (type == BLOCK_F32 ? 4 : 2);
    if (n < 8)
        from = memcpy(padded, from, (size_t)n * (type == BLOCK_F32 ? 4 : 2));
    if (type == BLOCK_F32)
        return _mm256_loadu_ps((const float *)from);
    __m128i halves = _mm_loadu_si128((const __m128i *)from);
    return type == BLOCK_F16
               ? _mm256_cvtph_ps(halves)
               : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

/* Keys [key0, key0 + n_keys) as panels [d_k][16]; columns past the last key repeat it. */
static ALWAYS_INLINE void pack_keys(struct rows *rows, enum block_id type, int key0, int n_keys)
{
    const struct attn_args *args = rows->args;
    int d_k = args->d_k, panel_k = round_up(d_k, 8);
    for (int key = 0; key < round_up(n_keys, PANEL_COLUMNS); key += 8) {
        float *to =
            rows->k_panels + key / PANEL_COLUMNS * PANEL_COLUMNS * panel_k + key % PANEL_COLUMNS;
        const void *from[8];
        for (int j = 0; j < 8; j++)
            from[j] = key_row(args, key0 + (key + j < n_keys ? key + j : n_keys - 1));
        for (int i = 0; i < d_k; i += 8) {
            __m256 block[8];
            for (int j = 0; j < 8; j++)
                block[j] = load_8(from[j], type, i, d_k - i);
            transpose_8x8(block);
            for (int j = 0; j < 8; j++)
                _mm256_storeu_ps(to + (i + j) * PANEL_COLUMNS, block[j]);
        }
    }
}

/* Values as panels [n_keys][16] of d_v columns. */
static ALWAYS_INLINE void pack_values(struct rows *rows, enum block_id type, int key0, int n_keys)
{
    const struct attn_args *args = rows->args;
    for (int key = 0; key < n_keys; key++) {
        const void *from = value_row(args, key0 + key);
        for (int i = 0; i < rows->width; i += VEC) {
            int left = args->d_v - i;
            vec x = left >= VEC ? row_load(from, type, i)
                                : row_load_n(from, type, i, left < 0 ? 0 : left);
            vec_store(rows->v_panels + (i / PANEL_COLUMNS * MAX_KEYS + key) * PANEL_COLUMNS +
                          i % PANEL_COLUMNS,
                      x);
        }
    }
}

static ALWAYS_INLINE void pack_block_of(struct rows *rows, enum block_id type, int key0, int n_keys)
{
    pack_keys(rows, type, key0, n_keys);
    pack_values(rows, type, key0, n_keys);
}

static void pack_block(struct rows *rows, int key0, int n_keys)
{
    switch (rows->args->kv_type) {
    case KV_F32:
        pack_block_of(rows, BLOCK_F32, key0, n_keys);
        break;
    case KV_F16:
        pack_block_of(rows, BLOCK_F16, key0, n_keys);
        break;
    case KV_BF16:
        pack_block_of(rows, BLOCK_BF16, key0, n_keys);
        break;
    case KV_Q8_0:
        pack_block_of(rows, BLOCK_Q8_0, key0, n_keys);
        break;
    }
}

static void score_block(struct rows *rows, int n_keys)
{
    int d_k = rows->args->d_k, panel_k = round_up(d_k, 8);
    for (int k0 = 0; k0 < d_k; k0 += CHUNK_K) {
        struct tile tile = {
            .a = rows->q + k0 * MAX_ROWS / CHUNK_K * CHUNK_STRIDE,
            .b = rows->k_panels + k0 * PANEL_COLUMNS,
            .b_next = (size_t)panel_k * PANEL_COLUMNS,
            .k = d_k - k0 < CHUNK_K ? d_k - k0 : CHUNK_K,
            .c = rows->scores,
            .ldc = CHUNK_STRIDE,
            .accumulate = k0 > 0,
        };
        tile_product(tile, rows->count, round_up(n_keys, PANEL_COLUMNS));
    }
}

static void add_values(struct rows *rows, int n_keys)
{
    struct tile tile = {
        .a = rows->scores,
        .b = rows->v_panels,
        .b_next = MAX_KEYS * PANEL_COLUMNS,
        .k = n_keys,
        .c = rows->out,
        .ldc = (size_t)rows->width,
        .accumulate = true,
    };
    tile_product(tile, rows->count, rows->width);
}

static void attend_many(struct rows *rows)
{
    const struct attn_args *args = rows->args;
    scale_queries(rows);
    int end = last_visible_key(rows);
    for (int key = args->key0; key < end; key += MAX_KEYS) {
        int n_keys = end - key < MAX_KEYS ? end - key : MAX_KEYS;
        pack_block(rows, key, n_keys);
        score_block(rows, n_keys);
        weigh(rows, key, n_keys);
        add_values(rows, n_keys);
    }
}

/* ---- Few rows: dot products and sums of rows ------------------------------------------------- */

/* Scores of `n_rows` rows against DOT_SUMS / n_rows keys. */
static ALWAYS_INLINE void score_few(struct rows *rows, enum block_id type, int row, int n_rows,
                                    int key0, int key, int n_keys)
{
    const struct attn_args *args = rows->args;
    const int count = DOT_SUMS / n_rows;
    const void *keys[DOT_SUMS];
    for (int j = 0; j < count; j++)
        keys[j] = key_row(args, key0 + (key + j < n_keys ? key + j : n_keys - 1));
    float scores[DOT_SUMS];
    const float *q = rows->q + row * args->d_k;
    dot_products(scores, q, (size_t)args->d_k, n_rows, keys, count, type, args->d_k);
    for (int r = 0; r < n_rows; r++)
        memcpy(rows->scores + (row + r) * CHUNK_STRIDE + key, scores + r * count,
               (size_t)count * sizeof(float));
}

static ALWAYS_INLINE void add_weighted(float *to, const vec weights[4], const vec v[4])
{
    vec sum = vec_load(to);
    for (int j = 0; j < 4; j++)
        sum = vec_fma(weights[j], v[j], sum);
    vec_store(to, sum);
}

/* Adds weight * value of four keys to some rows, up to SUM_ROWS. */
static ALWAYS_INLINE void add_few(struct rows *rows, enum block_id type, int row, int n_rows,
                                  int key0, int key, int n_keys)
{
    const struct attn_args *args = rows->args;
    const void *from[4];
    vec weights[SUM_ROWS][4];
    for (int j = 0; j < 4; j++) {
        from[j] = value_row(args, key0 + (key + j < n_keys ? key + j : n_keys - 1));
        for (int r = 0; r < n_rows; r++)
            weights[r][j] = vec_set1(rows->scores[(row + r) * CHUNK_STRIDE + key + j]);
    }
    float *out = rows->out + (size_t)row * (size_t)rows->width;
    for (int begin = 0; begin < args->d_v; begin += row_step(type)) {
        vec scale[4], v[4];
        for (int j = 0; j < 4; j++)
            scale[j] = row_scale(from[j], type, begin);
        for (int i = begin; i < begin + row_step(type); i += VEC) {
            for (int j = 0; j < 4; j++)
                v[j] = args->d_v - i >= VEC ? row_load_scaled(from[j], type, i, scale[j])
                                            : row_load_n(from[j], type, i, args->d_v - i);
            for (int r = 0; r < n_rows; r++)
                add_weighted(out + r * rows->width + i, weights[r], v);
        }
    }
}

/* Asks for some keys and values of the block to come: by itself the CPU looks ahead no further than
 * to the end of a page. */
static ALWAYS_INLINE void prefetch(const struct rows *rows, int key, int count)
{
    const struct attn_args *args = rows->args;
    size_t k_bytes = kv_row_bytes(args->kv_type, (size_t)args->d_k);
    size_t v_bytes = kv_row_bytes(args->kv_type, (size_t)args->d_v);
    int end = key + count < args->key1 ? key + count : args->key1;
    for (; key < end; key++) {
        for (size_t i = 0; i < k_bytes; i += 64)
            _mm_prefetch((const char *)key_row(args, key) + i, _MM_HINT_T0);
        for (size_t i = 0; i < v_bytes; i += 64)
            _mm_prefetch((const char *)value_row(args, key) + i, _MM_HINT_T0);
    }
}

static ALWAYS_INLINE void score_rows(struct rows *rows, enum block_id type, int row, int n_rows,
                                     int key0, int n_keys)
{
    const int count = DOT_SUMS / n_rows;
    for (int key = 0; key < n_keys; key += count) {
        if (row == 0)
            prefetch(rows, key0 + MAX_KEYS + key, count);
        score_few(rows, type, row, n_rows, key0, key, n_keys);
    }
}

static ALWAYS_INLINE void attend_block_of(struct rows *rows, enum block_id type, int key0,
                                          int n_keys)
{
    int row = 0;
    for (; row + 4 <= rows->count; row += 4)
        score_rows(rows, type, row, 4, key0, n_keys);
    for (; row + 2 <= rows->count; row += 2)
        score_rows(rows, type, row, 2, key0, n_keys);
    for (; row < rows->count; row++)
        score_rows(rows, type, row, 1, key0, n_keys);
    weigh(rows, key0, n_keys);
    for (row = 0; row + SUM_ROWS <= rows->count; row += SUM_ROWS)
        for (int key = 0; key < n_keys; key += 4)
            add_few(rows, type, row, SUM_ROWS, key0, key, n_keys);
    for (; row + 2 <= rows->count; row += 2)
        for (int key = 0; key < n_keys; key += 4)
            add_few(rows, type, row, 2, key0, key, n_keys);
    for (; row < rows->count; row++)
        for (int key = 0; key < n_keys; key += 4)
            add_few(rows, type, row, 1, key0, key, n_keys);
}

static void attend_block(struct rows *rows, int key0, int n_keys)
{
    switch (rows->args->kv_type) {
    case KV_F32:
        attend_block_of(rows, BLOCK_F32, key0, n_keys);
        break;
    case KV_F16:
        attend_block_of(rows, BLOCK_F16, key0, n_keys);
        break;
    case KV_BF16:
        attend_block_of(rows, BLOCK_BF16, key0, n_keys);
        break;
    case KV_Q8_0:
        attend_block_of(rows, BLOCK_Q8_0, key0, n_keys);
        break;
    }
}

static void attend_few(struct rows *rows)
{
    const struct attn_args *args = rows->args;
    for (int row = 0; row < rows->count; row++) {
        const float *q = args->q + (size_t)(rows->first + row) * args->q_stride;
        for (int i = 0; i < args->d_k; i++)
            rows->q[row * args->d_k + i] = q[i] * args->scale;
    }
    int end = last_visible_key(rows);
    for (int key = args->key0; key < end; key += MAX_KEYS) {
        int n_keys = end - key < MAX_KEYS ? end - key : MAX_KEYS;
        attend_block(rows, key, n_keys);
    }
}

void VEC_NAME(attention)(const struct attn_args *args)
{
    struct rows rows = {.args = args};
    lay_out(&rows, args->scratch, args->d_k, args->d_v);
    for (int row = 0; row < args->m; row += MAX_ROWS) {
        rows.first = row;
        rows.count = args->m - row < MAX_ROWS ? args->m - row : MAX_ROWS;
        start(&rows);
        if (rows.count <= ATTN_FEW_ROWS)
            attend_few(&rows);
        else
            attend_many(&rows);
        finish(&rows);
    }
}
