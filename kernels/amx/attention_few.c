/* Attention of up to 16 query rows, those of one token mostly, to keys and values of 8 or 16 bits
 * on bf16 tiles. Each key and value is read once, for all rows, as it comes from memory:
 *
 *   for each block of MAX_KEYS keys
 *     scores   S^T = K Q^T   [keys, 16], keys as rows of A, so that they need not be turned
 *     weights  P = 2^(S - max), a lane for each query row, turned to [16, keys] as bf16
 *     values   out += P V    [16, d_v], values as B, pairs of keys that are 16 apart
 *
 * For 32 keys with d 128 in F16, 16 KiB of cache, products take 2 x 128 cycles, and all around them
 * (rounding to bf16 most of all) 420 ns on a Zen 5 core, whatever the number of rows. Vectors take
 * 490 ns for 4 rows and 915 for 8. */
#include "kernels/amx/attention.h"

enum {
    STEP = 32, /* k of a tile */
    ROWS = ATTN_TILE_FEW_ROWS,
    MAX_KEYS = 64, /* keys of a block, and how far ahead they are prefetched */
    WEIGHT_STRIDE = 2 * MAX_KEYS + 64, /* bytes */
};

/* All rows and a block of keys, in the caller's scratch memory. */
struct pass {
    const struct attn_args *args;
    int end;           /* one past the last key that any row sees */
    int key0;          /* of the block of keys */
    int n_padded;      /* its keys, rounded up to STEP: behind `end` the last is repeated */
    int k_steps;       /* d_k in tiles of STEP */
    int width;         /* d_v rounded up to 32 */
    size_t key_stride; /* bytes, an odd number of cache lines */
    float *q;          /* scaled, [ROWS, d_k] */
    uint8_t *q_tiles;  /* [k_steps] tiles of ROWS columns */
    uint8_t *keys;     /* bf16 [MAX_KEYS, k_steps * STEP] */
    uint8_t *v_tiles;  /* [width / 16][MAX_KEYS / STEP] tiles of 16 columns */
    float *scores;     /* [MAX_KEYS, ROWS] */
    uint8_t *weights;  /* bf16 [ROWS, MAX_KEYS] */
    float *out;        /* [ROWS, width] */
    float *max, *sum;  /* [ROWS] */
};

static size_t lay_out(struct pass *p, void *scratch, int d_k, int d_v)
{
    size_t used = 0;
    p->k_steps = attn_round_up(d_k, STEP) / STEP;
    p->width = attn_round_up(d_v, 32);
    p->key_stride = act_row_bytes(ACT_BF16, (size_t)d_k);
    p->q = attn_take(scratch, &used, ROWS * (size_t)d_k * sizeof(float));
    p->q_tiles = attn_take(scratch, &used, (size_t)p->k_steps * TILE_BYTES);
    p->keys = attn_take(scratch, &used, MAX_KEYS * p->key_stride);
    p->v_tiles = attn_take(scratch, &used, (size_t)(MAX_KEYS * p->width) * 2);
    p->scores = attn_take(scratch, &used, MAX_KEYS * ROWS * sizeof(float));
    p->weights = attn_take(scratch, &used, ROWS * WEIGHT_STRIDE);
    p->out = attn_take(scratch, &used, ROWS * (size_t)p->width * sizeof(float));
    p->max = attn_take(scratch, &used, ROWS * sizeof(float));
    p->sum = attn_take(scratch, &used, ROWS * sizeof(float));
    return used;
}

size_t AMX_NAME(amx_attn_few_bytes)(int d_k, int d_v)
{
    struct pass p;
    return lay_out(&p, NULL, d_k, d_v);
}

/* One past the last key that a row sees. */
static int end_key(const struct pass *p, int row)
{
    int n_keys = p->args->n_keys[row];
    return n_keys < p->args->key1 ? n_keys : p->args->key1;
}

/* ---- Operands -------------------------------------------------------------------------------- */

/* The queries as columns of B; those behind the last are zeros. */
static void write_queries(struct pass *p)
{
    const struct attn_args *args = p->args;
    const void *rows[ROWS];
    for (int row = 0; row < ROWS; row++) {
        float *to = p->q + row * args->d_k;
        rows[row] = to;
        for (int i = 0; i < args->d_k; i++)
            to[i] = row < args->m ? args->q[(size_t)row * args->q_stride + (size_t)i] *
                                        (args->scale * attn_log2_e)
                                  : 0.0f;
    }
    for (int step = 0; step < p->k_steps; step++) {
        int k = step * STEP;
        attn_write_key_tile(p->q_tiles + step * TILE_BYTES, BLOCK_F32, rows, k, args->d_k - k);
    }
}

/* A key or value; where `key` is behind the last one that is seen, that one. */
static const uint8_t *cache_row(const struct pass *p, const void *cache, size_t stride, int key)
{
    return (const uint8_t *)cache + (size_t)(key < p->end ? key : p->end - 1) * stride;
}

/* The block's keys as bf16; asks for the same elements of the block to come, as by itself the CPU
 * looks ahead no further than to the end of a page. */
static ALWAYS_INLINE void write_keys(const struct pass *p, enum block_id type)
{
    const struct attn_args *args = p->args;
    for (int key = 0; key < p->n_padded; key++) {
        const uint8_t *from = cache_row(p, args->k, args->k_stride, p->key0 + key);
        const uint8_t *ahead = cache_row(p, args->k, args->k_stride, p->key0 + key + MAX_KEYS);
        uint8_t *to = p->keys + (size_t)key * p->key_stride;
        for (int k = 0; k < args->d_k; k += STEP) {
            _mm_prefetch((const char *)ahead + kv_row_bytes(args->kv_type, (size_t)k), _MM_HINT_T0);
            vec scale = row_scale(from, type, k);
            for (int i = 0; i < 16; i += VEC) {
                int left = args->d_k - k - i;
                vec x = attn_load_padded(from, type, k + i, left, scale);
                vec y = attn_load_padded(from, type, k + i + 16, left - 16, scale);
                vi_store(to + 2 * k + 4 * i, attn_pack_pairs(x, y, type));
            }
        }
    }
}

/* A tile of 32 keys: row r holds 16 columns of keys r and r + 16. */
static ALWAYS_INLINE void write_values(const struct pass *p, enum block_id type)
{
    const struct attn_args *args = p->args;
    for (int unit = 0; unit < p->n_padded / STEP; unit++)
        for (int r = 0; r < 16; r++) {
            int key = p->key0 + unit * STEP + r;
            const uint8_t *from[2], *ahead[2];
            for (int j = 0; j < 2; j++) {
                from[j] = cache_row(p, args->v, args->v_stride, key + 16 * j);
                ahead[j] = cache_row(p, args->v, args->v_stride, key + 16 * j + MAX_KEYS);
            }
            uint8_t *to = p->v_tiles + unit * TILE_BYTES + TILE_ROW_BYTES * r;
            for (int i = 0; i < args->d_v; i += STEP) {
                size_t at = kv_row_bytes(args->kv_type, (size_t)i);
                _mm_prefetch((const char *)ahead[0] + at, _MM_HINT_T0);
                _mm_prefetch((const char *)ahead[1] + at, _MM_HINT_T0);
            }
            attn_write_value_row(to, MAX_KEYS / STEP * TILE_BYTES, type, from[0], from[1],
                                 args->d_v);
        }
}

static void write_operands(const struct pass *p)
{
    switch (p->args->kv_type) {
    case KV_F16:
        write_keys(p, BLOCK_F16);
        write_values(p, BLOCK_F16);
        break;
    case KV_Q8_0:
        write_keys(p, BLOCK_Q8_0);
        write_values(p, BLOCK_Q8_0);
        break;
    default:
        write_keys(p, BLOCK_BF16);
        write_values(p, BLOCK_BF16);
    }
}

/* ---- The stages ------------------------------------------------------------------------------ */

/* Tiles 0 and 1: scores; 4 and 5: keys; 6: queries. */
static void multiply_keys(const struct pass *p)
{
    const ptrdiff_t stride = (ptrdiff_t)p->key_stride;
    for (int key = 0; key < p->n_padded; key += 2 * TILE_ROWS) {
        const uint8_t *keys = p->keys + (size_t)key * p->key_stride, *queries = p->q_tiles;
        float *scores = p->scores + key * ROWS;
        TILE_ZERO(0);
        TILE_ZERO(1);
        for (int step = 0; step < p->k_steps; step++) {
            TILE_LOAD(6, queries, TILE_ROW_BYTES);
            TILE_LOAD(4, keys, stride);
            TILE_DPBF16(0, 4, 6);
            TILE_LOAD(5, keys + TILE_ROWS * stride, stride);
            TILE_DPBF16(1, 5, 6);
            keys += TILE_ROW_BYTES;
            queries += TILE_BYTES;
        }
        TILE_STORE(0, scores, TILE_ROW_BYTES);
        TILE_STORE(1, scores + TILE_ROWS * ROWS, TILE_ROW_BYTES);
    }
}

/* Tiles 0 and 1: sums; 4: weights; 6 and 7: values. */
static void multiply_values(const struct pass *p)
{
    const int panel = MAX_KEYS / STEP * TILE_BYTES;
    const ptrdiff_t stride = p->width * (ptrdiff_t)sizeof(float);
    for (int i = 0; i < p->width; i += 32) {
        const uint8_t *weights = p->weights, *values = p->v_tiles + i / 16 * panel;
        float *out = p->out + i;
        TILE_LOAD(0, out, stride);
        TILE_LOAD(1, out + 16, stride);
        for (int step = 0; step < p->n_padded / STEP; step++) {
            TILE_LOAD(4, weights, WEIGHT_STRIDE);
            TILE_LOAD(6, values, TILE_ROW_BYTES);
            TILE_DPBF16(0, 4, 6);
            TILE_LOAD(7, values + panel, TILE_ROW_BYTES);
            TILE_DPBF16(1, 4, 7);
            weights += TILE_ROW_BYTES;
            values += TILE_BYTES;
        }
        TILE_STORE(0, out, stride);
        TILE_STORE(1, out + 16, stride);
    }
}

/* Keys that a row does not see, those that pad the block among them. */
static void hide_keys(const struct pass *p)
{
    for (int row = 0; row < p->args->m; row++) {
        int count = end_key(p, row) - p->key0;
        for (int key = count < 0 ? 0 : count; key < p->n_padded; key++)
            p->scores[key * ROWS + row] = -INFINITY;
    }
}

/* Takes the block's scores into the maxima and scales what was gathered before to them. */
static void raise_max(struct pass *p)
{
    float raised[ROWS];
    for (int c = 0; c < ROWS; c += VEC) {
        vec max[4];
        for (int j = 0; j < 4; j++)
            max[j] = vec_load(p->max + c);
        for (int key = 0; key < p->n_padded; key += 4)
            for (int j = 0; j < 4; j++)
                max[j] = vec_max(max[j], vec_load(p->scores + (key + j) * ROWS + c));
        vec_store(raised + c, vec_max(vec_max(max[0], max[1]), vec_max(max[2], max[3])));
    }
    for (int row = 0; row < p->args->m; row++) {
        if (!(raised[row] > p->max[row]))
            continue;
        float keep = exp2f(p->max[row] - raised[row]), *out = p->out + row * p->width;
        for (int i = 0; i < p->width; i += VEC)
            vec_store(out + i, vec_load(out + i) * vec_set1(keep));
        p->sum[row] *= keep;
        p->max[row] = raised[row];
    }
}

/* The weights of VEC query rows, from c on. */
static void weigh_rows(struct pass *p, int c)
{
    /* Rows without a score above -INFINITY get weights of zero: no infinities are subtracted. */
    vec base = vec_max(vec_set1(-0x1p100f), vec_load(p->max + c)), sum = vec_load(p->sum + c);
    for (int key = 0; key < p->n_padded; key += STEP)
        for (int i = 0; i < 16; i += VEC) {
            const float *scores = p->scores + (key + i) * ROWS + c;
            vec square[VEC];
            for (int j = 0; j < VEC; j++) {
                vec x = attn_power_of_two(vec_load(scores + j * ROWS) - base);
                vec y = attn_power_of_two(vec_load(scores + (j + 16) * ROWS) - base);
                vec_i32 pair = vf_pack_bf16(x, y);
                square[j] = vf_of_bits(pair);
                sum = vf_add_bf16(sum, pair);
            }
            vec_transpose(square);
            for (int j = 0; j < VEC; j++)
                vi_store(p->weights + (c + j) * WEIGHT_STRIDE + 2 * key + 4 * i,
                         vf_bits(square[j]));
        }
    vec_store(p->sum + c, sum);
}

/* ---- A pass ---------------------------------------------------------------------------------- */

static void start(struct pass *p)
{
    memset(p->out, 0, ROWS * (size_t)p->width * sizeof(float));
    p->end = 0;
    for (int row = 0; row < ROWS; row++) {
        p->max[row] = row < p->args->m ? -INFINITY : 0.0f;
        p->sum[row] = 0.0f;
        if (row < p->args->m && end_key(p, row) > p->end)
            p->end = end_key(p, row);
    }
    write_queries(p);
}

static void finish(const struct pass *p)
{
    for (int row = 0; row < p->args->m; row++)
        attn_write_row(p->args, row, p->out + row * p->width, p->max[row], p->sum[row], 1.0f);
}

void AMX_NAME(amx_attention_few)(const struct attn_args *args)
{
    struct pass p = {.args = args};
    lay_out(&p, args->scratch, args->d_k, args->d_v);
    start(&p);
    tile_config_full();
    for (p.key0 = args->key0; p.key0 < p.end; p.key0 += MAX_KEYS) {
        int left = p.end - p.key0;
        p.n_padded = left < MAX_KEYS ? attn_round_up(left, STEP) : MAX_KEYS;
        write_operands(&p);
        multiply_keys(&p);
        hide_keys(&p);
        raise_max(&p);
        for (int c = 0; c < ROWS; c += VEC)
            weigh_rows(&p, c);
        multiply_values(&p);
    }
    tile_release();
    finish(&p);
}
