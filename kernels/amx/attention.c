/* Attention of many query rows to keys and values of 8 or 16 bits on bf16 tiles, with the online
 * softmax over blocks of keys.
 *
 *   for each block of MAX_KEYS keys: keys and values become tiles in scratch
 *     for each block of 32 query rows
 *       for each unit of 64 keys
 *         scores   S = Q K^T    [32, 64], tiles
 *         weights  P = 2^(S - base), cut to bf16, vectors
 *       values   out += P V   [32, d_v], tiles
 *
 * While vectors have the weights of a unit, a row after each product, tiles have some columns of
 * the values of the block of rows before, and then the scores of the next unit, in place of those
 * that are weighed: as little as can be comes from beyond L1, which stores above all have to hit
 * for both to go on at the same time.
 *
 * A row's base is near the largest of its scores, not equal to it: as long as none is above it by
 * more than HEADROOM nothing has to be scaled, and units need not wait for each other's maxima.
 *
 * Queries are scaled by log2(e) too, so that weights are powers of two. The two k of queries and
 * keys that share a lane of a tile are 16 apart, which makes their pairs without shuffles. */
#include "kernels/amx/attention.h"

#include <stdbool.h>

#include "kernels/amx/block.h"
#include "kernels/registry.h"
#include "kernels/vector/attention.h"

enum {
    MAX_ROWS = 512, /* query rows taken at once */
    MAX_KEYS = 256, /* keys of a block */
    MAX_BLOCKS = MAX_ROWS / BLOCK_SIDE,
    HALF = BLOCK_SIDE, /* keys of a half of a unit */
    UNIT = 2 * HALF,
    WEIGHT_STRIDE = 2 * MAX_KEYS + 64, /* bytes, an odd number of cache lines: see act_row_bytes */
};

/* The binary logarithm of the largest weight; the base of rows that have seen no score yet. */
static const float HEADROOM = 8.0f, NO_BASE = -0x1p120f;

/* Weights are kept times 2^-72: 6 bits of an exponent reach from the largest down to 0. */
static const float WEIGHT_BIAS = 127.0f - 72.0f, WEIGHT_UNIT = 0x1p72f;

/* Up to MAX_ROWS query rows and a block of keys, in the caller's scratch memory. */
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
    float *scores[2];    /* [BLOCK_SIDE, HALF] of the unit at hand, then of the next */
    uint8_t *weights[2]; /* bf16 [BLOCK_SIDE, MAX_KEYS], of blocks of rows in turn */
    float *out;          /* [MAX_ROWS, width] */
    float *base;         /* [MAX_ROWS] whole numbers */
    float *sum;          /* [MAX_ROWS, VEC] of the weights; lanes are added in the end */
    /* Of the keys of the block, for each block of rows: units that any of them sees, keys that all
     * of them see, and which buffer has its weights: the other one than before, where any are seen. */
    int n_units[MAX_BLOCKS], n_open[MAX_BLOCKS], turn[MAX_BLOCKS];
};

/* UNIT keys for a block of rows. */
struct unit {
    int block, index; /* of rows; of the block of keys */
};

/* Lays the buffers out; returns the bytes that they take. */
static size_t lay_out(struct pass *p, void *scratch, int d_k, int d_v)
{
    size_t used = 0;
    p->k_steps = attn_round_up(d_k, BLOCK_STEP) / BLOCK_STEP;
    p->width = attn_round_up(d_v, BLOCK_SIDE);
    p->q_stride = act_row_bytes(ACT_BF16, (size_t)d_k);
    p->out_stride = (size_t)p->width + 16;
    p->q = attn_take(scratch, &used, MAX_ROWS * p->q_stride);
    p->k_tiles = attn_take(scratch, &used, (size_t)(MAX_KEYS / 16 * p->k_steps) * TILE_BYTES);
    p->v_tiles = attn_take(scratch, &used, (size_t)(MAX_KEYS * p->width) * 2);
    for (int i = 0; i < 2; i++) {
        p->scores[i] = attn_take(scratch, &used, BLOCK_SIDE * HALF * sizeof(float));
        p->weights[i] = attn_take(scratch, &used, BLOCK_SIDE * WEIGHT_STRIDE);
    }
    p->out = attn_take(scratch, &used, MAX_ROWS * p->out_stride * sizeof(float));
    p->base = attn_take(scratch, &used, MAX_ROWS * sizeof(float));
    p->sum = attn_take(scratch, &used, MAX_ROWS * VEC * sizeof(float));
    return used;
}

/* ---- Operands -------------------------------------------------------------------------------- */

/* The rows as bf16, up to whole blocks. */
static void write_queries(struct pass *p)
{
    const struct attn_args *args = p->args;
    vec scale = vec_set1(args->scale * attn_log2_e);
    for (int row = 0; row < p->count; row++) {
        const float *from = args->q + (size_t)(p->first + row) * args->q_stride;
        uint8_t *to = p->q + (size_t)row * p->q_stride;
        for (int k = 0; k < args->d_k; k += BLOCK_STEP)
            for (int i = k; i < k + 16; i += VEC) {
                vec x = attn_load_padded(from, BLOCK_F32, i, args->d_k - i, scale);
                vec y = attn_load_padded(from, BLOCK_F32, i + 16, args->d_k - i - 16, scale);
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

static ALWAYS_INLINE void write_key_tiles(const struct pass *p, enum block_id type)
{
    const struct attn_args *args = p->args;
    uint8_t *tile = p->k_tiles;
    for (int key = 0; key < attn_round_up(p->n_keys, UNIT); key += 16) {
        const void *keys[16];
        int k = 0;
        for (int j = 0; j < 16; j++)
            keys[j] = cache_row(p, args->k, args->k_stride, key + j);
        for (; k + BLOCK_STEP <= args->d_k; k += BLOCK_STEP, tile += TILE_BYTES)
            attn_write_key_tile(tile, type, keys, k, BLOCK_STEP);
        if (k < args->d_k) {
            attn_write_key_tile(tile, type, keys, k, args->d_k - k);
            tile += TILE_BYTES;
        }
    }
}

/* The first of the two keys of pair r of 32, as vw_pack puts the weights of 16 beside those of the
 * 16 after them. */
static int pair_key(int r)
{
    return r / 4 * 4 + r / 2 % 2 * 16 + r % 2 * 2;
}

/* A tile of 32 keys: row r holds 16 columns of pair r. */
static ALWAYS_INLINE void write_value_tiles(const struct pass *p, enum block_id type)
{
    const struct attn_args *args = p->args;
    const int panel = MAX_KEYS / BLOCK_STEP * TILE_BYTES;
    for (int key = 0; key < attn_round_up(p->n_keys, UNIT); key += BLOCK_STEP)
        for (int r = 0; r < 16; r++) {
            int pair = key + pair_key(r);
            const void *first = cache_row(p, args->v, args->v_stride, pair);
            const void *second = cache_row(p, args->v, args->v_stride, pair + 1);
            uint8_t *to = p->v_tiles + key / BLOCK_STEP * TILE_BYTES + TILE_ROW_BYTES * r;
            attn_write_value_row(to, panel, type, first, second, args->d_v);
        }
}

static void write_tiles(const struct pass *p)
{
    switch (p->args->kv_type) {
    case KV_F16:
        write_key_tiles(p, BLOCK_F16);
        write_value_tiles(p, BLOCK_F16);
        break;
    case KV_Q8_0:
        write_key_tiles(p, BLOCK_Q8_0);
        write_value_tiles(p, BLOCK_Q8_0);
        break;
    default:
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

static void count_units(struct pass *p)
{
    int n_seeing = 0;
    for (int block = 0; block < p->n_blocks; block++) {
        int most = 0, least = MAX_KEYS;
        for (int row = block * BLOCK_SIDE; row < (block + 1) * BLOCK_SIDE; row++) {
            int count = visible_keys(p, row);
            most = count > most ? count : most;
            least = count < least ? count : least;
        }
        p->n_units[block] = attn_round_up(most, UNIT) / UNIT;
        p->n_open[block] = least;
        p->turn[block] = n_seeing % 2;
        n_seeing += most > 0;
    }
}

/* ---- Scores and values ----------------------------------------------------------------------- */

static struct tile_block scores_of(const struct pass *p, const struct unit *unit, int half)
{
    const uint8_t *tiles = p->k_tiles + 2 * (2 * unit->index + half) * p->k_steps * TILE_BYTES;
    return (struct tile_block){
        .a = p->q + (size_t)(unit->block * BLOCK_SIDE) * p->q_stride,
        .a_stride = (ptrdiff_t)p->q_stride,
        .b = {tiles, tiles + p->k_steps * TILE_BYTES},
        .steps = p->k_steps,
        .c = p->scores[half],
        .ldc = HALF,
    };
}

/* The weighted sums of BLOCK_SIDE columns of the values. */
static struct tile_block values_of(const struct pass *p, int block, int column)
{
    const int panel = MAX_KEYS / BLOCK_STEP * TILE_BYTES;
    const uint8_t *tiles = p->v_tiles + 2 * column * panel;
    return (struct tile_block){
        .a = p->weights[p->turn[block]],
        .a_stride = WEIGHT_STRIDE,
        .b = {tiles, tiles + panel},
        .steps = p->n_units[block] * UNIT / BLOCK_STEP,
        .c = p->out + (size_t)(block * BLOCK_SIDE) * p->out_stride + column * BLOCK_SIDE,
        .ldc = p->out_stride,
        .accumulate = true,
    };
}

/* What tiles do while vectors have the weights of a unit: some columns of the values of the block
 * of rows before, then the scores of the next unit. None of these are stored before the first half
 * of the steps is over, during which vectors need the first half of the scores that they replace. */
struct tile_work {
    int before, column, end; /* block; columns in BLOCK_SIDE, none where `column` is `end` */
    struct unit next;
    bool has_next;
    int half;                  /* whose scores come next */
    struct tile_block product; /* the one at hand, and its step */
    int step;
};

static int count_steps(const struct pass *p, const struct tile_work *work)
{
    int steps = work->has_next ? 2 * p->k_steps : 0;
    if (work->column < work->end)
        steps += (work->end - work->column) * p->n_units[work->before] * UNIT / BLOCK_STEP;
    return steps;
}

static ALWAYS_INLINE void begin_step(const struct pass *p, struct tile_work *work)
{
    if (work->step > 0)
        return;
    work->product = work->column < work->end ? values_of(p, work->before, work->column++)
                                             : scores_of(p, &work->next, work->half++);
    block_load_c(&work->product);
}

static ALWAYS_INLINE void end_step(struct tile_work *work)
{
    if (++work->step < work->product.steps)
        return;
    block_store_c(&work->product);
    work->step = 0;
}

/* ---- Weights --------------------------------------------------------------------------------- */

/* Keys of the block before a half of a unit. */
static int first_key(const struct unit *unit, int half)
{
    return unit->index * UNIT + half * HALF;
}

/* Hides what the rows of a block do not see of half a unit. */
static void hide_keys(const struct pass *p, const struct unit *unit, int half)
{
    float *scores = p->scores[half];
    for (int row = 0; row < BLOCK_SIDE; row++, scores += HALF) {
        int count = visible_keys(p, unit->block * BLOCK_SIDE + row) - first_key(unit, half);
        for (int i = 0; count < HALF && i < HALF; i += VEC) {
            size_t n = count <= i ? 0 : count - i < VEC ? (size_t)(count - i) : VEC;
            vec_store(scores + i, vec_first_n(vec_load(scores + i), vec_set1(-INFINITY), n));
        }
    }
}

/* The larger lanes; those of `most` where a score is NaN. */
static ALWAYS_INLINE vec largest(vec most, const float *scores, float base)
{
    for (int i = 0; i < HALF; i += VEC)
        most = vec_max(vec_load(scores + i) - vec_set1(base), most);
    return most;
}

/* A new base of a row, to which all that it has so far is scaled: by a power of two, exactly. */
static void raise_base(struct pass *p, const struct unit *unit, int half, int row, float base)
{
    int index = unit->block * BLOCK_SIDE + row;
    vec keep = vec_set1(exp2f(p->base[index] - base));
    float *out = p->out + (size_t)index * p->out_stride, *sum = p->sum + index * VEC;
    uint8_t *weights = p->weights[p->turn[unit->block]] + row * WEIGHT_STRIDE;
    for (int i = 0; i < p->width; i += VEC)
        vec_store(out + i, vec_load(out + i) * keep);
    vec_store(sum, vec_load(sum) * keep);
    for (int i = 0; i < 2 * first_key(unit, half); i += 4 * VEC) {
        vec_i32 pairs = vi_load(weights + i);
        vec x = vf_of_bits(vi_shl(pairs, 16)) * keep, y = vf_of_bits(pairs) * keep;
        vi_store(weights + i, vi_upper_words(vf_bits(x), vf_bits(y)));
    }
    p->base[index] = base;
}

/* For rows that have a score too far above their base. */
static void raise_bases(struct pass *p, const struct unit *unit, int half)
{
    enum { CHAINS = 4 }; /* that do not wait for each other */
    const float *scores = p->scores[half], *base = p->base + unit->block * BLOCK_SIDE;
    const vec least = vec_set1(-INFINITY), limit = vec_set1(HEADROOM);
    vec most[CHAINS] = {least, least, least, least};
    for (int row = 0; row < BLOCK_SIDE; row += CHAINS)
        for (int i = 0; i < CHAINS; i++)
            most[i] = largest(most[i], scores + (row + i) * HALF, base[row + i]);
    most[0] = vec_max(vec_max(most[0], most[1]), vec_max(most[2], most[3]));
    if (!vec_any_greater(most[0], limit))
        return;
    for (int row = 0; row < BLOCK_SIDE; row++, scores += HALF)
        if (vec_any_greater(largest(least, scores, base[row]), limit))
            raise_base(p, unit, half, row, ceilf(vec_max_lane(largest(least, scores, 0.0f))));
}

/* bf16 of 2^x for words of x * 1024, the bias of exponents in it; 0 stays 0. The bits of such a
 * word are an exponent of 6 and a fraction f of 10, which stands for 1 + f where 2^f should be. What
 * that is too large by is f (1 - f) times nearly a line, from 1 - ln 2 at 0 to 2 ln 2 - 1 at 1: its
 * constants are times 1024, and such that with the bits that are cut off the error is least. */
static ALWAYS_INLINE vec_i32 powers_of_two(vec_i32 words)
{
    vec_i32 f = vw_shl(words, 6), rest = vi_xor(f, vw_set1(0xffff)); /* times 65536 */
    vec_i32 line = vw_add(vw_mul_high(f, vw_set1(92)), vw_set1(306));
    vec_i32 excess = vw_mul_high(vw_mul_high(f, rest), line);
    return vw_shr(vw_sub(words, excess), 3);
}

/* Where the weights of half a unit come from and go to, from a row on. */
struct weighing {
    const float *scores, *base;
    float *sum;
    uint8_t *weights;
};

static ALWAYS_INLINE void weigh_row(struct weighing *w)
{
    const vec scale = vec_set1(1024.0f), bias = vec_set1(1024.0f * WEIGHT_BIAS);
    vec base = vec_set1(*w->base), sum = vec_load(w->sum);
    for (int i = 0; i < HALF / 2; i += VEC) {
        vec_i32 x = vf_to_i32(vec_fma(vec_load(w->scores + i) - base, scale, bias));
        vec_i32 y = vf_to_i32(vec_fma(vec_load(w->scores + HALF / 2 + i) - base, scale, bias));
        vec_i32 pairs = powers_of_two(vw_pack(x, y));
        vi_store(w->weights + 4 * i, pairs);
        sum = vf_add_bf16(sum, pairs);
    }
    vec_store(w->sum, sum);
    w->scores += HALF;
    w->base++;
    w->sum += VEC;
    w->weights += WEIGHT_STRIDE;
}

/* ---- Blocks of rows -------------------------------------------------------------------------- */

/* The weights of half a unit whose scores are there, and so many steps of the tiles' work, with
 * rows of weights evenly after the parts of these. */
static void run_half(struct pass *p, const struct unit *unit, int half, struct tile_work *works,
                     int n_steps)
{
    struct tile_work work = *works; /* in registers, between memory that instructions write */
    struct weighing w = {
        .scores = p->scores[half],
        .base = p->base + unit->block * BLOCK_SIDE,
        .sum = p->sum + unit->block * BLOCK_SIDE * VEC,
        .weights = p->weights[p->turn[unit->block]] + 2 * first_key(unit, half),
    };
    if (p->n_open[unit->block] < first_key(unit, half) + HALF)
        hide_keys(p, unit, half);
    raise_bases(p, unit, half);
    for (int row = 0; n_steps == 0 && row < BLOCK_SIDE; row++)
        weigh_row(&w);
    for (int step = 0, due = 0; step < n_steps; step++) {
        begin_step(p, &work);
        for (int part = 0; part < BLOCK_PARTS; part++) {
            block_part(&work.product, work.step, part);
            for (due += BLOCK_SIDE; due >= n_steps * BLOCK_PARTS; due -= n_steps * BLOCK_PARTS)
                weigh_row(&w);
        }
        end_step(&work);
    }
    *works = work;
}

static void run_unit(struct pass *p, const struct unit *unit, struct tile_work *work)
{
    int n_steps = count_steps(p, work);
    run_half(p, unit, 0, work, n_steps / 2);
    run_half(p, unit, 1, work, n_steps - n_steps / 2);
}

/* The next block of rows that sees any of the keys. */
static int next_block(const struct pass *p, int block)
{
    while (block < p->n_blocks && p->n_units[block] == 0)
        block++;
    return block;
}

static struct tile_work work_beside(const struct pass *p, const struct unit *unit, int before)
{
    int n_units = p->n_units[unit->block], columns = before < 0 ? 0 : p->width / BLOCK_SIDE;
    bool last = unit->index + 1 == n_units;
    struct tile_work work = {
        .next = {last ? next_block(p, unit->block + 1) : unit->block, last ? 0 : unit->index + 1},
        .before = before,
        .column = columns * unit->index / n_units,
        .end = columns * (unit->index + 1) / n_units,
    };
    work.has_next = work.next.block < p->n_blocks;
    return work;
}

static void run_blocks(struct pass *p)
{
    struct unit unit = {next_block(p, 0), 0};
    int before = -1;
    if (unit.block == p->n_blocks)
        return;
    struct tile_block product;
    for (int half = 0; half < 2; half++) {
        product = scores_of(p, &unit, half);
        block_product(&product);
    }
    while (unit.block < p->n_blocks) {
        struct tile_work work = work_beside(p, &unit, before);
        run_unit(p, &unit, &work);
        if (work.next.block != unit.block)
            before = unit.block;
        unit = work.next;
    }
    for (int column = 0; column < p->width / BLOCK_SIDE; column++) {
        product = values_of(p, before, column);
        block_product(&product);
    }
}

/* ---- A pass ---------------------------------------------------------------------------------- */

static void start(struct pass *p)
{
    size_t rows = (size_t)(p->n_blocks * BLOCK_SIDE);
    memset(p->out, 0, rows * p->out_stride * sizeof(float));
    for (size_t row = 0; row < rows; row++) {
        p->base[row] = NO_BASE;
        vec_store(p->sum + row * VEC, vec_set1(0.0f));
    }
    write_queries(p);
}

static void finish(const struct pass *p)
{
    for (int row = 0; row < p->count; row++)
        attn_write_row(p->args, p->first + row, p->out + (size_t)row * p->out_stride, p->base[row],
                       vec_sum(vec_load(p->sum + row * VEC)), WEIGHT_UNIT);
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
        count_units(p);
        run_blocks(p);
    }
    finish(p);
}

/* Too few rows, or few rows and a context so short that it is no work to speak of. */
static bool is_small(const struct attn_args *args)
{
    bool few_keys = args->key1 - args->key0 < ATTN_TILE_MIN_KEYS;
    return args->m < ATTN_TILE_MIN_ROWS || (args->m <= ATTN_FEW_ROWS && few_keys);
}

static void attention(const struct attn_args *args)
{
    /* Who keeps keys in F32 does not want them rounded. */
    if (is_small(args) || args->exact || args->kv_type == KV_F32) {
        VEC_NAME(attention)(args);
        return;
    }
    if (args->m <= ATTN_TILE_FEW_ROWS) {
        AMX_NAME(amx_attention_few)(args);
        return;
    }
    struct pass p = {.args = args};
    lay_out(&p, args->scratch, args->d_k, args->d_v);
    tile_config_full();
    for (p.first = 0; p.first < args->m; p.first += MAX_ROWS) {
        p.count = args->m - p.first < MAX_ROWS ? args->m - p.first : MAX_ROWS;
        p.n_blocks = attn_round_up(p.count, BLOCK_SIDE) / BLOCK_SIDE;
        run_pass(&p);
    }
    tile_release();
}

static size_t attn_scratch_bytes(int d_k, int d_v)
{
    struct pass p;
    size_t bytes[] = {lay_out(&p, NULL, d_k, d_v), VEC_NAME(attn_scratch_bytes)(d_k, d_v),
                      AMX_NAME(amx_attn_few_bytes)(d_k, d_v)};
    size_t most = bytes[0] > bytes[1] ? bytes[0] : bytes[1];
    return most > bytes[2] ? most : bytes[2];
}

void AMX_NAME(amx_row_ops)(struct row_ops *ops)
{
    ops->name = VEC == 16 ? "amx" : "amx+avx2";
    ops->cpu_flags |= CPU_AMX_TILE | CPU_AMX_BF16;
    ops->attn_rows = MAX_ROWS;
    ops->attn_few_rows = ATTN_TILE_FEW_ROWS;
    ops->attn_scratch_bytes = attn_scratch_bytes;
    ops->attention = attention;
}
