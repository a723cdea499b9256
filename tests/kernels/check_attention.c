/* Attention of every instruction set that this machine has, tiles by the emulator where it has
 * none, against double precision, in memory that ends at guard pages.
 *
 * Bounds: with relative errors e of scores' terms, w of weights and v of values, the weight of a
 * key is off by a factor of at most 1 + exp(e * sum |q k| * scale) - 1 + w =: 1 + d, its share of
 * the output by d times the value, and the sum that the output is divided by by the mean of d. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "kernels/amx/emulate.h"
#include "kernels/float16.h"
#include "kernels/kernel.h"
#include "tests/support/guard.h"
#include "bench/random_weights.h"

enum {
    FLAGS_AVX512 = CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI,
    FLAGS_AMX = CPU_AMX_TILE | CPU_AMX_BF16,
    MAX_KEYS = 1024,
    MAX_WIDTH = 576,
    SHOWN_FAILURES = 20,
};

/* Relative errors: see above. */
struct precision {
    double score, weight, value;
};

static const struct precision exact = {0x1p-21, 0x1p-20, 0x1p-22};
/* Queries, keys, weights and values rounded to bf16, halves away from zero. */
static const struct precision tiles = {0x1.01p-8, 0x1.1p-9, 0x1p-9};

static const enum kv_type kv_types[] = {KV_F32, KV_F16, KV_BF16, KV_Q8_0};
enum { N_KV_TYPES = sizeof kv_types / sizeof kv_types[0] };

static struct kernel_set reference;
static uint64_t seed = 1;
static const char *isa;
static long n_checked, n_failed;

/* Uniform in -limit..limit. */
static float random_value(float limit)
{
    return ((float)(random_next(&seed) >> 40) * 0x1p-23f - 1.0f) * limit;
}

static int random_int(int from, int to)
{
    return from + (int)(random_next(&seed) % (uint64_t)(to - from + 1));
}

static void expect(bool good, const struct attn_args *args, int row, int i, double got, double want)
{
    n_checked++;
    if (good)
        return;
    if (n_failed++ < SHOWN_FAILURES)
        printf("%s: %d rows, keys %d..%d, d_k %d, d_v %d, %s: row %d (%d keys), element %d: %.9g "
               "instead of %.9g\n", isa, args->m, args->key0, args->key1, args->d_k, args->d_v,
               block_type_find(args->kv_type)->name, row, args->n_keys[row], i, got, want);
}

/* ---- Problems -------------------------------------------------------------------------------- */

/* What rows see: all keys, a random number of them, as the tokens of a prompt, `group` rows each, or
 * in turns of 32 rows all and a few of the first. */
enum sight { SEES_ALL, SEES_SOME, SEES_CAUSAL, SEES_HOLES };

struct problem {
    int m, n_keys, d_k, d_v;
    enum kv_type type;
    enum sight sight;
    int group;
    float limit; /* of queries and keys */
};

static void read_row(const void *base, size_t stride, enum kv_type type, int row, float *x, int d)
{
    block_type_find(type)->dequantize((const uint8_t *)base + (size_t)row * stride, x, (size_t)d);
}

static void write_row(const void *base, size_t stride, enum kv_type type, int row, const float *x,
                      int d)
{
    void *at = (uint8_t *)base + (size_t)row * stride;
    if (type == KV_F32)
        memcpy(at, x, (size_t)d * sizeof *x);
    else if (type == KV_F16)
        reference.rows.f32_to_f16(at, x, (size_t)d);
    else if (type == KV_BF16)
        reference.rows.f32_to_bf16(at, x, (size_t)d);
    else
        reference.rows.f32_to_q8_0(at, x, (size_t)d);
}

/* All elements of a row. */
static void fill_row(const void *base, size_t stride, enum kv_type type, int row, int d, float x)
{
    float values[MAX_WIDTH];
    for (int i = 0; i < d; i++)
        values[i] = x;
    write_row(base, stride, type, row, values, d);
}

static void random_row(const void *base, size_t stride, enum kv_type type, int row, int d,
                       float limit)
{
    float values[MAX_WIDTH];
    for (int i = 0; i < d; i++)
        values[i] = random_value(limit);
    write_row(base, stride, type, row, values, d);
}

/* [n_rows, d], rows stride bytes apart and nothing after the last. */
static const void *random_rows(int n_rows, int d, size_t stride, enum kv_type type, float limit)
{
    size_t last = n_rows ? (size_t)n_rows - 1 : 0;
    void *rows = guarded(last * stride + kv_row_bytes(type, (size_t)d));
    for (int row = 0; row < n_rows; row++)
        random_row(rows, stride, type, row, d, limit);
    return rows;
}

static int keys_seen(const struct problem *p, int row)
{
    int behind = (p->m - 1 - row) / p->group;
    if (p->sight == SEES_CAUSAL)
        return p->n_keys > behind ? p->n_keys - behind : 0;
    if (p->sight == SEES_HOLES)
        return row / 32 % 2 ? p->n_keys / 6 : p->n_keys;
    return p->sight == SEES_ALL || random_int(0, 3) == 0 ? p->n_keys : random_int(0, p->n_keys);
}

static struct attn_args make_args(const struct row_ops *ops, const struct problem *p)
{
    size_t element = p->type == KV_F32 ? 4 : 2, rows = (size_t)p->m - 1;
    struct attn_args args = {
        .q_stride = (size_t)p->d_k + 3,
        .m = p->m,
        .key1 = p->n_keys,
        .kv_type = p->type,
        .k_stride = kv_row_bytes(p->type, (size_t)p->d_k) + 5 * element,
        .v_stride = kv_row_bytes(p->type, (size_t)p->d_v) + element,
        .d_k = p->d_k,
        .d_v = p->d_v,
        .scale = 1.0f / sqrtf((float)p->d_k),
        .out_stride = (size_t)p->d_v + 2,
    };
    args.q = random_rows(p->m, p->d_k, args.q_stride * sizeof(float), KV_F32, p->limit);
    args.k = random_rows(p->n_keys, p->d_k, args.k_stride, p->type, p->limit);
    args.v = random_rows(p->n_keys, p->d_v, args.v_stride, p->type, 1.0f);
    args.out = guarded((rows * args.out_stride + (size_t)p->d_v) * sizeof(float));
    int32_t *n_keys = guarded((size_t)p->m * sizeof *n_keys);
    for (int row = 0; row < p->m; row++)
        n_keys[row] = keys_seen(p, row);
    args.n_keys = n_keys;
    args.scratch = guarded(ops->attn_scratch_bytes(p->d_k, p->d_v));
    return args;
}

/* ---- Comparison ------------------------------------------------------------------------------ */

/* Of one row: the exact weights, which sum to 1, and how far each may be off, relatively. */
struct reference {
    double weight[MAX_KEYS], error[MAX_KEYS];
    double mean_error;
};

static void find_weights(struct reference *r, const struct attn_args *a, int row,
                         const struct precision *precision)
{
    double max = -INFINITY, sum = 0.0;
    const float *q = a->q + (size_t)row * a->q_stride;
    for (int key = 0; key < a->n_keys[row]; key++) {
        double score = 0.0, magnitude = 0.0;
        float k[MAX_WIDTH];
        read_row(a->k, a->k_stride, a->kv_type, key, k, a->d_k);
        for (int i = 0; i < a->d_k; i++) {
            double term = (double)q[i] * k[i] * a->scale;
            score += term;
            magnitude += fabs(term);
        }
        r->weight[key] = score;
        r->error[key] = expm1(precision->score * magnitude) + precision->weight;
        max = fmax(max, score);
    }
    for (int key = 0; key < a->n_keys[row]; key++)
        sum += r->weight[key] = exp(r->weight[key] - max);
    r->mean_error = 0.0;
    for (int key = 0; key < a->n_keys[row]; key++) {
        r->weight[key] /= sum;
        r->mean_error += r->weight[key] * r->error[key];
    }
}

static void compare(const struct attn_args *a, const float *out, size_t out_stride,
                    const struct precision *precision)
{
    static struct reference r;
    for (int row = 0; row < a->m; row++) {
        double want[MAX_WIDTH] = {0}, slack[MAX_WIDTH] = {0};
        find_weights(&r, a, row, precision);
        for (int key = 0; key < a->n_keys[row]; key++) {
            float v[MAX_WIDTH];
            read_row(a->v, a->v_stride, a->kv_type, key, v, a->d_v);
            for (int i = 0; i < a->d_v; i++) {
                double share = r.weight[key] * v[i];
                want[i] += share;
                slack[i] += fabs(share) * (r.error[key] + precision->value);
            }
        }
        for (int i = 0; i < a->d_v; i++) {
            slack[i] += fabs(want[i]) * r.mean_error;
            if (r.mean_error < 1.0)
                slack[i] /= 1.0 - r.mean_error;
            double got = out[(size_t)row * out_stride + (size_t)i];
            expect(fabs(got - want[i]) <= slack[i] + 1e-30, a, row, i, got, want[i]);
        }
    }
}

/* The keys in two ranges, each into a part of its own, merged as a caller would. */
static void run_split(const struct row_ops *ops, const struct attn_args *whole, int split,
                      float *merged)
{
    size_t m = (size_t)whole->m, d_v = (size_t)whole->d_v;
    struct attn_args part[2] = {*whole, *whole};
    part[0].key1 = part[1].key0 = split;
    for (int p = 0; p < 2; p++) {
        part[p].out = guarded(m * d_v * sizeof(float));
        part[p].out_stride = d_v;
        part[p].row_max = guarded(m * sizeof(float));
        part[p].row_sum = guarded(m * sizeof(float));
        ops->attention(&part[p]);
    }
    for (size_t row = 0; row < m; row++) {
        float max = fmaxf(part[0].row_max[row], part[1].row_max[row]), sum = 0.0f;
        for (int p = 0; p < 2; p++) {
            bool none = whole->n_keys[row] <= part[p].key0 || part[p].key0 == part[p].key1;
            bool says_none = part[p].row_max[row] == -INFINITY && part[p].row_sum[row] == 0.0f;
            expect(none == says_none, &part[p], (int)row, 0, part[p].row_max[row], -INFINITY);
            float scale = none ? 0.0f : expf(part[p].row_max[row] - max);
            sum += scale * part[p].row_sum[row];
            for (size_t i = 0; i < d_v; i++)
                merged[row * d_v + i] += scale * part[p].out[row * d_v + i];
        }
        for (size_t i = 0; i < d_v && sum > 0.0f; i++)
            merged[row * d_v + i] /= sum;
    }
}

static const struct precision *precision_of(const struct row_ops *ops, const struct attn_args *args)
{
    return ops->cpu_flags & CPU_AMX_TILE && args->kv_type != KV_F32 && !args->exact ? &tiles
                                                                                    : &exact;
}

static void check_args(const struct row_ops *ops, const struct attn_args *args)
{
    const struct precision *precision = precision_of(ops, args);
    size_t m = (size_t)args->m, d_v = (size_t)args->d_v;
    ops->attention(args);
    compare(args, args->out, args->out_stride, precision);
    float *merged = guarded(m * d_v * sizeof *merged);
    run_split(ops, args, random_int(0, args->key1), merged);
    compare(args, merged, d_v, precision);
    guarded_free_all();
}

static void check(const struct row_ops *ops, struct problem problem)
{
    struct attn_args args = make_args(ops, &problem);
    check_args(ops, &args);
}

/* Asked not to round anything to bf16 on the way. */
static void check_exact(const struct row_ops *ops, struct problem problem)
{
    struct attn_args args = make_args(ops, &problem);
    args.exact = true;
    check_args(ops, &args);
}

/* ---- Cases ----------------------------------------------------------------------------------- */

/* Every number of rows, with widths and keys at random. */
static void check_shapes(const struct row_ops *ops)
{
    static const int widths[] = {8, 17, 32, 64, 72, 80, 96, 100, 128, 192, 256};
    static const int groups[] = {1, 4, 8};
    enum { N_WIDTHS = sizeof widths / sizeof widths[0] };
    for (int m = 1; m <= 70; m++)
        for (int repeat = 0; repeat < 2; repeat++) {
            struct problem problem = {
                .m = m,
                .n_keys = random_int(0, repeat ? 600 : 150),
                .d_k = widths[random_int(0, N_WIDTHS - 1)],
                .d_v = widths[random_int(0, N_WIDTHS - 1)],
                .type = kv_types[random_int(0, N_KV_TYPES - 1)],
                .sight = repeat ? SEES_CAUSAL : SEES_SOME,
                .group = groups[random_int(0, 2)],
                .limit = 1.0f,
            };
            if (problem.type == KV_Q8_0) {
                problem.d_k = (problem.d_k + 31) / 32 * 32;
                problem.d_v = (problem.d_v + 31) / 32 * 32;
            }
            check(ops, problem);
        }
    check(ops, (struct problem){530, 300, 64, 64, KV_F16, SEES_CAUSAL, 2, 1.0f});
    check(ops, (struct problem){128, 600, 64, 64, KV_F16, SEES_HOLES, 1, 1.0f});
    check_exact(ops, (struct problem){130, 300, 64, 64, KV_F16, SEES_CAUSAL, 2, 1.0f});
    check_exact(ops, (struct problem){12, 300, 64, 64, KV_BF16, SEES_CAUSAL, 4, 1.0f});
    check(ops, (struct problem){530, 300, 64, 64, KV_Q8_0, SEES_CAUSAL, 2, 1.0f});
}

/* Numbers of keys around the sizes of blocks, and the ends of the range of values. */
static void check_edges(const struct row_ops *ops)
{
    static const int edges[] = {0, 1, 7, 16, 31, 32, 33, 64, 65, 129, 255, 256, 257, 288, 513};
    for (size_t e = 0; e < sizeof edges / sizeof edges[0]; e++)
        for (int m = 1; m <= 70; m += 23) {
            check(ops, (struct problem){m, edges[e], 64, 64, KV_F16, SEES_ALL, 1, 0.0f});
            check(ops, (struct problem){m, edges[e], 64, 96, KV_F16, SEES_CAUSAL, 1, 1e-5f});
            check(ops, (struct problem){m, edges[e], 256, 172, KV_F32, SEES_SOME, 1, 30.0f});
            check(ops, (struct problem){m, edges[e], 300, 33, KV_BF16, SEES_SOME, 1, 8.0f});
            check(ops, (struct problem){m, edges[e], 96, 128, KV_Q8_0, SEES_CAUSAL, 1, 8.0f});
        }
}

/* Latent attention: the values are the first elements of the keys. */
static void check_latents(const struct row_ops *ops)
{
    static const int rows[] = {1, 4, 5, 8, 16, 17, 64};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (size_t t = 0; t < N_KV_TYPES; t++) {
            struct problem problem = {rows[i], 290, 576, 512, kv_types[t], SEES_CAUSAL, 1, 1.0f};
            struct attn_args args = make_args(ops, &problem);
            args.v = args.k;
            args.v_stride = args.k_stride;
            check_args(ops, &args);
        }
}

/* A few channels of the keys are large, as they are in models: scores far apart. */
static void check_outliers(const struct row_ops *ops, enum kv_type type)
{
    struct problem problem = {48, 400, 128, 64, type, SEES_CAUSAL, 4, 1.0f};
    struct attn_args args = make_args(ops, &problem);
    for (int key = 0; key < problem.n_keys; key++) {
        float values[MAX_WIDTH];
        for (int i = 0; i < problem.d_k; i++)
            values[i] = i % 61 ? random_value(1.0f) : 20.0f + random_value(20.0f);
        write_row(args.k, args.k_stride, type, key, values, problem.d_k);
    }
    check_args(ops, &args);
}

/* Scores as large as they get: all of one size, so that the result is the mean of the values, or
 * opposite but for the first key's, whose value it is. */
static void check_saturated(const struct row_ops *ops, int m, int n_keys, int d, enum kv_type type,
                            float limit, bool opposite)
{
    struct problem problem = {m, n_keys, d, d, type, SEES_SOME, 1, 1.0f};
    struct attn_args args = make_args(ops, &problem);
    struct precision precision = *precision_of(ops, &args);
    precision.score = 0.0; /* they are all the same, rounded or not */
    for (int row = 0; row < m; row++)
        for (int i = 0; i < d; i++)
            ((float *)args.q)[(size_t)row * args.q_stride + (size_t)i] = limit;
    for (int key = 0; key < n_keys; key++)
        fill_row(args.k, args.k_stride, type, key, d, opposite && key ? -limit : limit);
    ops->attention(&args);
    compare(&args, args.out, args.out_stride, &precision);
    guarded_free_all();
}

/* Infinite keys: scores of -INFINITY alone, or but for those of one key. */
static void check_infinite(const struct row_ops *ops, int m, int n_keys, int finite_key)
{
    struct problem problem = {m, n_keys, 64, 64, KV_F16, SEES_ALL, 1, 1.0f};
    struct attn_args args = make_args(ops, &problem);
    for (int row = 0; row < m; row++)
        for (int i = 0; i < 64; i++)
            ((float *)args.q)[(size_t)row * args.q_stride + (size_t)i] = 1.0f;
    for (int key = 0; key < n_keys; key++)
        if (key != finite_key)
            fill_row(args.k, args.k_stride, KV_F16, key, 64, -INFINITY);
    ops->attention(&args);
    float values[64] = {0};
    if (finite_key >= 0)
        read_row(args.v, args.v_stride, KV_F16, finite_key, values, 64);
    for (int row = 0; row < m; row++)
        for (int i = 0; i < 64; i++) {
            double got = args.out[(size_t)row * args.out_stride + (size_t)i], want = values[i];
            expect(fabs(got - want) <= 0x1.1p-8 * fabs(want), &args, row, i, got, want);
        }
    guarded_free_all();
}

static void check_level(const struct row_ops *ops)
{
    check_shapes(ops);
    check_edges(ops);
    check_latents(ops);
    check_outliers(ops, KV_F16);
    check_outliers(ops, KV_Q8_0);
    for (int m = 1; m <= 33; m += 8)
        for (int opposite = 0; opposite < 2; opposite++) {
            check_saturated(ops, m, 100, 128, KV_F16, 65504.0f, opposite);
            check_saturated(ops, m, 90, 96, KV_BF16, 1e15f, opposite);
            check_saturated(ops, m, 90, 96, KV_Q8_0, 127.0f * 65504.0f, opposite);
            check_saturated(ops, m, 70, 64, KV_F32, 1e15f, opposite);
            check_saturated(ops, m, 130, 64, KV_F32, 1e-20f, opposite);
        }
    for (int m = 1; m <= 40; m += 13) {
        check_infinite(ops, m, 300, -1);
        check_infinite(ops, m, 300, 0);
        check_infinite(ops, m, 300, 280);
    }
}

int main(void)
{
    static const uint32_t levels[] = {0, CPU_AVX2, FLAGS_AVX512, CPU_AVX2 | FLAGS_AMX,
                                      FLAGS_AVX512 | FLAGS_AMX};
    static struct kernel_set set;
    struct cpu_info info;
    cpu_detect(&info);
    kernel_set_init(&reference, 0);
    uint32_t present = cpu_present_flags(&info);
    bool emulated =
        !(present & CPU_AMX_TILE) && present & CPU_AVX2 && tile_emulator_install() == 0;
    if (emulated)
        present |= FLAGS_AMX;
    for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++) {
        if (levels[l] & ~present)
            continue;
        kernel_set_init(&set, levels[l]);
        isa = set.rows.name;
        long checked = n_checked;
        check_level(&set.rows);
        printf("%s: %ld values checked\n", isa, n_checked - checked);
    }
    if (emulated)
        tile_emulator_uninstall();
    if (n_failed)
        printf("%ld of %ld wrong\n", n_failed, n_checked);
    return n_failed || !n_checked;
}
