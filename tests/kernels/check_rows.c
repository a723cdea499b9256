/* Row operations of every instruction set that this machine has, against double
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
#include "bench/random_weights.h"

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
    for (size_t i = 0; i < n; i++)
        expect_near("rms_norm in place", n, i, x[i], y[i], 0.0);
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
    for (size_t i = 0; i < n; i++)
        expect_near("silu_mul in place", n, i, gate[i], y[i], 0.0);
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

/* Rows that begin at multiples of a vector and those that do not. */
static void check_store_late(const struct row_ops *ops, size_t n)
{
    enum { ROWS = 3 };
    const size_t strides[] = {(n + 15) / 16 * 16, n + 1};
    for (int i = 0; i < 2; i++) {
        const size_t ldy = strides[i], ldx = n + 3;
        float *x = random_row(ROWS * ldx, 1.0f), *y = guarded((2 * ldy + n) * sizeof *y);
        memset(y, 0, (2 * ldy + n) * sizeof *y);
        ops->store_late(y, ldy, x, ldx, ROWS, n);
        for (size_t row = 0; row < ROWS; row++) {
            for (size_t j = 0; j < n; j++)
                expect_near("store_late", n, j, y[row * ldy + j], x[row * ldx + j], 0.0);
            for (size_t j = n; j < ldy && row < ROWS - 1; j++)
                expect_near("store_late between rows", n, j, y[row * ldy + j], 0.0, 0.0);
        }
    }
}

static void check_halves(const struct row_ops *ops, size_t n, float limit)
{
    float *x = random_row(n, limit);
    uint16_t *y = guarded(n * sizeof *y);
    ops->f32_to_f16(y, x, n);
    for (size_t i = 0; i < n; i++)
        expect_near("f32_to_f16", n, i, y[i], f32_to_f16(x[i]), 0.0);
    ops->f32_to_bf16(y, x, n);
    for (size_t i = 0; i < n; i++)
        expect_near("f32_to_bf16", n, i, y[i], f32_to_bf16(x[i]), 0.0);
}

static void check_q8_0(const struct row_ops *ops, size_t n, float limit)
{
    static struct kernel_set reference;
    size_t bytes = kv_row_bytes(KV_Q8_0, n);
    float *x = random_row(n, limit), *back = guarded(n * sizeof *back);
    uint8_t *y = guarded(bytes), *expected = guarded(bytes);
    kernel_set_init(&reference, 0);
    reference.rows.f32_to_q8_0(expected, x, n);
    ops->f32_to_q8_0(y, x, n);
    for (size_t i = 0; i < bytes; i++)
        expect_near("f32_to_q8_0", n, i, y[i], expected[i], 0.0);
    /* Half a step of the largest of the block, that of a scale that is a subnormal half among them;
     * beyond the largest scale values are cut. */
    block_type_find(BLOCK_Q8_0)->dequantize(y, back, n);
    for (size_t i = 0; i < n; i++) {
        float max = 0.0f, most = 127.0f * 65504.0f, *block = x + i / KV_Q8_0_ELEMS * KV_Q8_0_ELEMS;
        for (int j = 0; j < KV_Q8_0_ELEMS; j++)
            max = fmaxf(max, fabsf(block[j]));
        float want = fminf(fmaxf(x[i], -most), most);
        expect_near("f32_to_q8_0 and back", n, i, back[i], want,
                    fminf(max, most) * (0.5 / 127.0 + 0x1p-10) + 127.0 * 0x1p-25);
    }
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
    static const float limits[] = {0.0f, 1e-6f, 1e-4f, 1.0f, 12.0f, 150.0f, 1e5f, 1e8f};
    for (size_t s = 0; s < N_SIZES; s++)
        for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++) {
            size_t n = sizes[s];
            check_rms_norm(ops, n, limits[l]);
            check_rope(ops, n / 2 * 2, limits[l], false);
            check_rope(ops, n / 2 * 2, limits[l], true);
            check_softmax(ops, n, limits[l]);
            check_silu_mul(ops, n, limits[l]);
            check_adds(ops, n, limits[l]);
            check_halves(ops, n, limits[l]);
            check_q8_0(ops, n / KV_Q8_0_ELEMS * KV_Q8_0_ELEMS, limits[l]);
            guarded_free_all();
        }
    for (size_t s = 0; s < N_SIZES; s++) {
        check_extremes(ops, sizes[s]);
        check_store_late(ops, sizes[s]);
        guarded_free_all();
    }
}

/* ---- Speed ----------------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
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
    bench_row_op(ops, "rms_norm");
    bench_row_op(ops, "softmax");
    bench_row_op(ops, "silu_mul");
}

int main(int argc, char **argv)
{
    static const uint32_t levels[] = {0, CPU_AVX2, CPU_AVX2 | CPU_AVX512};
    static struct kernel_set set;
    struct cpu_info info;
    cpu_detect(&info);
    uint32_t present = cpu_present_flags(&info);
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
        printf("%s: %ld values checked\n", isa, n_checked - checked);
    }
    if (n_failed)
        printf("%ld of %ld wrong\n", n_failed, n_checked);
    return n_failed || !n_checked;
}
