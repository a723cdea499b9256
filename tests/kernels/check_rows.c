/* Row operations and attention of every instruction set that this machine has, against double
 * precision, in memory that ends at guard pages; what is infinite or NaN is near nothing. With
 * --bench: their speed. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cpu.h"
#include "kernels/float16.h"
#include "kernels/kernel.h"
#include "tests/support/guard.h"
#include "tests/support/random_weights.h"

static const size_t sizes[] = {1, 2, 7, 8, 15, 16, 17, 33, 64, 100, 172, 256};
enum { N_SIZES = sizeof sizes / sizeof sizes[0] };

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

static float *random_row(size_t n, float limit)
{
    float *row = guarded(n * sizeof *row);
    for (size_t i = 0; i < n; i++)
        row[i] = random_value(limit);
    return row;
}

static void expect_near(const char *what, size_t n, size_t i, double got, double want, double limit)
{
    n_checked++;
    if (fabs(got - want) <= limit)
        return;
    if (n_failed++ < 20)
        printf("%s: %s, n %zu, element %zu: %.9g instead of %.9g\n", isa, what, n, i, got, want);
}

/* ---- Row operations -------------------------------------------------------------------------- */

static void check_rms_norm(const struct row_ops *ops, size_t n, float limit)
{
    float *x = random_row(n, limit), *w = random_row(n, 2.0f), *y = guarded(n * sizeof *y);
    ops->rms_norm(y, x, w, n, 1e-6f);
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    double scale = 1.0 / sqrt(sum / (double)n + (double)1e-6f);
    for (size_t i = 0; i < n; i++) {
        double want = x[i] * scale * w[i];
        expect_near("rms_norm", n, i, y[i], want, 1e-6 * fabs(want) + 3e-45);
    }
    ops->rms_norm(x, x, w, n, 1e-6f);
    n_failed += memcmp(x, y, n * sizeof *x) != 0;
}

static void check_rope(const struct row_ops *ops, size_t n, float limit, bool halves)
{
    float *x = random_row(n, limit), *cosines = random_row(n / 2, 1.0f);
    float *sines = random_row(n / 2, 1.0f), *y = guarded(n * sizeof *y);
    memcpy(y, x, n * sizeof *y);
    (halves ? ops->rope_halves : ops->rope_adjacent)(y, cosines, sines, n);
    for (size_t i = 0; i < n / 2; i++) {
        size_t a = halves ? i : 2 * i, b = halves ? i + n / 2 : 2 * i + 1;
        double c = cosines[i], s = sines[i], error = 3e-7 * (fabs(x[a]) + fabs(x[b])) + 3e-45;
        expect_near("rope", n, a, y[a], x[a] * c - x[b] * s, error);
        expect_near("rope", n, b, y[b], x[a] * s + x[b] * c, error);
    }
}

static void expect_softmax(const struct row_ops *ops, const float *x, size_t n)
{
    float *y = guarded(n * sizeof *y);
    memcpy(y, x, n * sizeof *y);
    ops->softmax(y, n);
    double max = -INFINITY, sum = 0.0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, x[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp(x[i] - max);
    for (size_t i = 0; i < n; i++) {
        /* The difference to the maximum is rounded before exp; from 1000 on the result is 0. */
        double want = exp(x[i] - max) / sum, error = 1e-6 + 6e-8 * fmin(max - x[i], 1000.0);
        expect_near("softmax", n, i, y[i], want, error * want + 2e-45);
    }
}

static void check_softmax(const struct row_ops *ops, size_t n, float limit)
{
    expect_softmax(ops, random_row(n, limit), n);
}

static void check_silu_mul(const struct row_ops *ops, size_t n, float limit)
{
    float *gate = random_row(n, limit), *up = random_row(n, 2.0f), *y = guarded(n * sizeof *y);
    ops->silu_mul(y, gate, up, n);
    for (size_t i = 0; i < n; i++) {
        double want = gate[i] / (1.0 + exp(-(double)gate[i])) * up[i];
        /* Past -88 exp(-gate) is infinite as a float, and the result 0. */
        expect_near("silu_mul", n, i, y[i], want, 5e-7 * fabs(want) + 1e-36);
    }
    ops->silu_mul(gate, gate, up, n);
    n_failed += memcmp(gate, y, n * sizeof *y) != 0;
}

static void check_adds(const struct row_ops *ops, size_t n, float limit)
{
    float *x = random_row(n, limit), *y = random_row(n, limit), *sum = guarded(n * sizeof *sum);
    memcpy(sum, y, n * sizeof *sum);
    ops->add(sum, x, n);
    for (size_t i = 0; i < n; i++)
        expect_near("add", n, i, sum[i], y[i] + x[i], 0.0);
    memcpy(sum, y, n * sizeof *sum);
    ops->add_scaled(sum, x, 0.3f, n);
    for (size_t i = 0; i < n; i++) {
        double product = (double)0.3f * x[i];
        expect_near("add_scaled", n, i, sum[i], y[i] + product,
                    2e-7 * (fabs(product) + fabs(y[i])) + 3e-45);
    }
}

static void check_f16(const struct row_ops *ops, size_t n, float limit)
{
    float *x = random_row(n, limit);
    uint16_t *y = guarded(n * sizeof *y);
    ops->f32_to_f16(y, x, n);
    for (size_t i = 0; i < n; i++)
        expect_near("f32_to_f16", n, i, y[i], f32_to_f16(x[i]), 0.0);
}

/* Where squares, exponentials or differences leave the range of floats, or nearly. */
static void check_extremes(const struct row_ops *ops, size_t n)
{
    static const float limits[] = {1e-42f, 1e-30f, 1e4f, 1e18f, 1e20f, 1e30f, 1.7e38f};
    for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++) {
        check_rms_norm(ops, n, limits[l]);
        check_rope(ops, n / 2 * 2, limits[l], false);
        check_rope(ops, n / 2 * 2, limits[l], true);
        check_softmax(ops, n, limits[l]);
        check_silu_mul(ops, n, limits[l]);
        check_adds(ops, n, limits[l]);
        float *equal = guarded(n * sizeof *equal), *masked = random_row(n, limits[l]);
        for (size_t i = 0; i < n; i++)
            equal[i] = limits[l];
        expect_softmax(ops, equal, n);
        for (size_t i = 0; i < n; i++)
            masked[i] = i % 3 == n % 3 ? -INFINITY : masked[i];
        expect_softmax(ops, masked, n);
        guarded_free_all();
    }
}

static void check_row_ops(const struct row_ops *ops)
{
    /* Zeros, subnormal halves, ordinary values, and values where exp and f16 overflow. */
    static const float limits[] = {0.0f, 1e-6f, 1.0f, 12.0f, 150.0f, 1e5f};
    for (size_t s = 0; s < N_SIZES; s++)
        for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++) {
            size_t n = sizes[s];
            check_rms_norm(ops, n, limits[l]);
            check_rope(ops, n / 2 * 2, limits[l], false);
            check_rope(ops, n / 2 * 2, limits[l], true);
            check_softmax(ops, n, limits[l]);
            check_silu_mul(ops, n, limits[l]);
            check_adds(ops, n, limits[l]);
            check_f16(ops, n, limits[l]);
            guarded_free_all();
        }
    for (size_t s = 0; s < N_SIZES; s++)
        check_extremes(ops, sizes[s]);
}

/* ---- Attention ------------------------------------------------------------------------------- */

/* A problem with random contents; the caller's scratch included. */
static struct attn_args random_attention(const struct row_ops *ops, int m, int n_positions, int d_k,
                                         int d_v, enum kv_type type, float limit)
{
    size_t size = type == KV_F16 ? 2 : 4;
    struct attn_args args = {
        .q_stride = (size_t)d_k + 3,
        .m = m,
        .key1 = n_positions,
        .kv_type = type,
        .k_stride = ((size_t)d_k + 5) * size,
        .v_stride = ((size_t)d_v + 1) * size,
        .d_k = d_k,
        .d_v = d_v,
        .scale = 1.0f / sqrtf((float)d_k),
        .out_stride = (size_t)d_v + 2,
    };
    size_t rows = (size_t)m - 1, last = (size_t)(n_positions ? n_positions - 1 : 0);
    args.q = random_row(rows * args.q_stride + (size_t)d_k, limit);
    args.out = guarded((rows * args.out_stride + (size_t)d_v) * sizeof(float));
    size_t k_bytes = last * args.k_stride + (size_t)d_k * size;
    size_t v_bytes = last * args.v_stride + (size_t)d_v * size;
    char *k = guarded(k_bytes), *v = guarded(v_bytes);
    random_weights(block_type_find(type == KV_F16 ? BLOCK_F16 : BLOCK_F32), k, k_bytes, limit,
                   &seed);
    random_weights(block_type_find(type == KV_F16 ? BLOCK_F16 : BLOCK_F32), v, v_bytes, 1.0f,
                   &seed);
    args.k = k;
    args.v = v;
    int32_t *n_keys = guarded((size_t)m * sizeof *n_keys);
    for (int i = 0; i < m; i++)
        n_keys[i] = random_int(0, 3) ? random_int(0, n_positions) : n_positions;
    args.n_keys = n_keys;
    args.scratch = guarded(ops->attn_scratch_bytes(d_k, d_v));
    return args;
}

static double element(const void *base, size_t stride, enum kv_type type, int row, int i)
{
    const char *at = (const char *)base + (size_t)row * stride;
    return type == KV_F16 ? f16_to_f32(((const uint16_t *)at)[i]) : ((const float *)at)[i];
}

/* The weights of row `row`, exp(score - maximum); returns their sum. */
static double reference_weights(const struct attn_args *args, int row, double *weights)
{
    double max = -INFINITY, sum = 0.0;
    for (int key = 0; key < args->n_keys[row]; key++) {
        weights[key] = 0.0;
        for (int i = 0; i < args->d_k; i++)
            weights[key] += args->q[(size_t)row * args->q_stride + (size_t)i] *
                            element(args->k, args->k_stride, args->kv_type, key, i);
        weights[key] *= args->scale;
        max = fmax(max, weights[key]);
    }
    for (int key = 0; key < args->n_keys[row]; key++)
        sum += weights[key] = exp(weights[key] - max);
    return sum;
}

static void compare_attention(const struct attn_args *args, const float *out, size_t out_stride,
                              double tolerance)
{
    double weights[1024];
    for (int row = 0; row < args->m; row++) {
        double sum = reference_weights(args, row, weights);
        for (int i = 0; i < args->d_v; i++) {
            double want = 0.0;
            for (int key = 0; key < args->n_keys[row]; key++)
                want += weights[key] * element(args->v, args->v_stride, args->kv_type, key, i);
            want = sum > 0.0 ? want / sum : 0.0;
            expect_near("attention", (size_t)args->m, (size_t)(row * args->d_v + i),
                        out[(size_t)row * out_stride + (size_t)i], want, tolerance);
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
            bool none = part[p].row_sum[row] == 0.0f;
            float scale = none ? 0.0f : expf(part[p].row_max[row] - max);
            expect_near("row_max of no key", m, row, none && part[p].row_max[row] != -INFINITY, 0,
                        0);
            sum += scale * part[p].row_sum[row];
            for (size_t i = 0; i < d_v; i++)
                merged[row * d_v + i] += scale * part[p].out[row * d_v + i];
        }
        for (size_t i = 0; i < d_v && sum > 0.0f; i++)
            merged[row * d_v + i] /= sum;
    }
}

static void check_attention(const struct row_ops *ops, int m, int n_positions, int d_k, int d_v,
                            enum kv_type type, float limit)
{
    struct attn_args args = random_attention(ops, m, n_positions, d_k, d_v, type, limit);
    /* Scores of magnitude s are off by about 1e-7 s, and so are their weights. */
    double tolerance = 4e-6 * (1.0 + limit * limit * sqrt(d_k) * 0.2);
    ops->attention(&args);
    compare_attention(&args, args.out, args.out_stride, tolerance);
    float *merged = guarded((size_t)m * (size_t)d_v * sizeof *merged);
    run_split(ops, &args, random_int(0, n_positions), merged);
    compare_attention(&args, merged, (size_t)d_v, tolerance);
    guarded_free_all();
}

/* Scores as large as they get: all of one size, so that the result is the mean of the values, or
 * opposite but for the first key's, whose value it is. */
static void check_saturated(const struct row_ops *ops, int m, int n_keys, int d, enum kv_type type,
                            float limit, bool opposite)
{
    struct attn_args args = random_attention(ops, m, n_keys, d, d, type, 1.0f);
    for (int row = 0; row < m; row++)
        for (int i = 0; i < d; i++)
            ((float *)args.q)[(size_t)row * args.q_stride + (size_t)i] = limit;
    for (int key = 0; key < n_keys; key++)
        for (int i = 0; i < d; i++) {
            float x = opposite && key > 0 ? -limit : limit;
            void *at = (char *)args.k + (size_t)key * args.k_stride;
            if (type == KV_F16)
                ((uint16_t *)at)[i] = f32_to_f16(x);
            else
                ((float *)at)[i] = x;
        }
    ops->attention(&args);
    compare_attention(&args, args.out, args.out_stride, 4e-6);
    guarded_free_all();
}

static void check_attentions(const struct row_ops *ops)
{
    static const int widths[] = {8, 12, 17, 64, 72, 100, 128};
    for (int m = 1; m <= 40; m++)
        for (int w = 0; w < 7; w++)
            check_attention(ops, m, random_int(0, 200), widths[w], widths[random_int(0, 6)],
                            (m + w) % 2 ? KV_F16 : KV_F32, 1.0f);
    static const int edges[] = {0, 1, 7, 16, 63, 64, 65, 128, 129};
    for (int e = 0; e < 9; e++)
        for (int m = 1; m <= 70; m += 23) {
            check_attention(ops, m, edges[e], 64, 64, KV_F16, 0.0f);
            check_attention(ops, m, edges[e], 256, 172, KV_F32, 30.0f);
            check_attention(ops, m, edges[e], 300, 33, KV_F16, 8.0f);
        }
    check_attention(ops, 150, 200, 128, 128, KV_F16, 1.0f);
    for (int m = 1; m <= 33; m += 8)
        for (int opposite = 0; opposite < 2; opposite++) {
            check_saturated(ops, m, 100, 128, KV_F16, 65504.0f, opposite);
            check_saturated(ops, m, 70, 64, KV_F32, 1e15f, opposite);
            check_saturated(ops, m, 130, 64, KV_F32, 1e-20f, opposite);
        }
}

/* ---- Speed ----------------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Seconds of the fastest of some runs. */
static double time_attention(const struct row_ops *ops, const struct attn_args *args)
{
    double best = INFINITY, start = seconds();
    for (int run = 0; run < 5 || seconds() - start < 0.2; run++) {
        double before = seconds();
        ops->attention(args);
        best = fmin(best, seconds() - before);
    }
    return best;
}

static void bench_attention(const struct row_ops *ops, int m, int n_keys, int d, enum kv_type type)
{
    struct attn_args args = random_attention(ops, m, n_keys, d, d, type, 1.0f);
    for (int i = 0; i < m; i++)
        ((int32_t *)args.n_keys)[i] = n_keys;
    double time = time_attention(ops, &args), bytes = (type == KV_F16 ? 4.0 : 8.0) * d * n_keys;
    printf("%-8s attention m %3d  keys %6d  d %3d  %s %8.2f GFLOP/s %8.2f GB/s\n", isa, m, n_keys,
           d, type == KV_F16 ? "f16" : "f32", 4.0 * m * n_keys * d / time * 1e-9,
           bytes / time * 1e-9);
    guarded_free_all();
}

static void bench_row_op(const struct row_ops *ops, const char *name)
{
    enum { N = 2048, REPEATS = 64 };
    float *x = random_row(N, 1.0f), *w = random_row(N, 1.0f), *y = guarded(N * sizeof *y);
    double best = INFINITY;
    for (int run = 0; run < 20; run++) {
        double before = seconds();
        for (int r = 0; r < REPEATS; r++) {
            if (!strcmp(name, "rms_norm"))
                ops->rms_norm(y, x, w, N, 1e-6f);
            else if (!strcmp(name, "softmax"))
                ops->softmax(x, N);
            else
                ops->silu_mul(y, x, w, N);
        }
        best = fmin(best, seconds() - before);
    }
    printf("%-8s %-10s n %d %8.3f elements/ns\n", isa, name, N, N * REPEATS / best * 1e-9);
    guarded_free_all();
}

static void bench(const struct row_ops *ops)
{
    static const int rows[] = {1, 4, 8, 16, 64};
    for (int r = 0; r < 5; r++)
        for (int d = 64; d <= 128; d += 64) {
            bench_attention(ops, rows[r], 512, d, KV_F16);
            bench_attention(ops, rows[r], 512, d, KV_F32);
        }
    bench_attention(ops, 1, 65536, 128, KV_F16);
    bench_attention(ops, 4, 65536, 128, KV_F16);
    bench_attention(ops, 8, 65536, 128, KV_F16);
    bench_row_op(ops, "rms_norm");
    bench_row_op(ops, "softmax");
    bench_row_op(ops, "silu_mul");
}

int main(int argc, char **argv)
{
    static const uint32_t levels[] = {0, CPU_AVX2, CPU_AVX2 | CPU_AVX512};
    static struct kernel_set set;
    struct cpu_info info;
    uint32_t present = 0;
    cpu_detect(&info);
    for (int i = 0; i < CPU_FEATURE_COUNT; i++)
        present |= info.features[i].present ? info.features[i].flag : 0;
    for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++) {
        if (levels[l] & ~present)
            continue;
        kernel_set_init(&set, levels[l]);
        isa = set.rows.name;
        long checked = n_checked;
        if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
            bench(&set.rows);
            n_checked++;
            continue;
        }
        check_row_ops(&set.rows);
        check_attentions(&set.rows);
        printf("%s: %ld values checked\n", isa, n_checked - checked);
    }
    if (n_failed)
        printf("%ld of %ld wrong\n", n_failed, n_checked);
    return n_failed || !n_checked;
}
