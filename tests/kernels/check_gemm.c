/* Every GEMM record of every instruction set that this machine has, tiles by the emulator where the
 * machine has none, against double precision on the weights and activations that the kernel was
 * given, in memory that ends at guard pages. With --bench: their speed, tiles aside. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cpu.h"
#include "kernels/amx/emulate.h"
#include "kernels/amx/tile.h"
#include "kernels/float16.h"
#include "kernels/kernel.h"
#include "tests/support/guard.h"
#include "tests/support/random_weights.h"

static uint64_t seed = 1;
static long n_records, n_failed;

/* A matrix with a kernel and the activations for it. */
struct problem {
    const struct gemm_kernel *kernel;
    const struct block_type *type;
    int m, n, k;
    size_t row_bytes;
    void *rows;   /* [n, k] in the file's blocks */
    void *packed; /* or the rows */
    float *x;     /* [m, k] */
    void *a;      /* [m] activation rows */
    size_t a_stride;
    float *c; /* [m, n] */
    void *scratch;
};

static void fail(const struct problem *p, const char *what, int row, int column)
{
    if (n_failed++ < 20)
        printf("%s, m %d, n %d, k %d: %s at %d, %d\n", p->kernel->name, p->m, p->n, p->k, what, row,
               column);
}

static void make_problem(struct problem *p, const struct gemm_kernel *kernel, int m, int n, int k,
                         float limit)
{
    *p = (struct problem){.kernel = kernel, .m = m, .n = n, .k = k};
    p->type = block_type_find(kernel->block_id);
    p->row_bytes = (size_t)k / p->type->n_elems * p->type->n_bytes;
    p->rows = guarded((size_t)n * p->row_bytes);
    random_weights(p->type, p->rows, (size_t)n * p->row_bytes, 1.0f, &seed);
    p->packed = p->rows;
    if (kernel->pack) {
        int panels = (n + kernel->nr - 1) / kernel->nr, middle = panels / 2 * kernel->nr;
        const char *rest = (const char *)p->rows + (size_t)middle * p->row_bytes;
        p->packed = guarded(kernel->packed_bytes(n, k));
        kernel->pack(p->packed, p->rows, n, k, 0, middle);
        kernel->pack(p->packed, rest, n, k, middle, n);
    }
    p->x = guarded((size_t)m * (size_t)k * sizeof(float));
    for (int i = 0; i < m * k; i++)
        p->x[i] = ((float)(random_next(&seed) >> 40) * 0x1p-23f - 1.0f) * limit;
    p->a_stride = act_row_bytes(kernel->act_format, (size_t)k);
    p->a = guarded((size_t)m * p->a_stride);
    kernel->quantize_rows(p->a, p->a_stride, p->x, (size_t)k, m, k);
    p->c = guarded((size_t)m * (size_t)n * sizeof(float));
    p->scratch = guarded(act_round_up(kernel->scratch_bytes(k), 64));
}

static void run(const struct problem *p, int n0, int n1)
{
    struct gemm_args args = {
        .w = p->packed,
        .n = p->n,
        .k = p->k,
        .n0 = n0,
        .n1 = n1,
        .a = p->a,
        .a_stride = p->a_stride,
        .m = p->m,
        .c = p->c + n0,
        .ldc = (size_t)p->n,
        .scratch = p->scratch,
    };
    if (p->kernel->begin)
        p->kernel->begin();
    p->kernel->gemm(&args);
    if (p->kernel->end)
        p->kernel->end();
    if (p->kernel->cpu_flags & CPU_AMX_TILE) {
        struct tile_config config, released = {0};
        tile_store_config(&config);
        if (memcmp(&config, &released, sizeof config) != 0)
            fail(p, "tiles are not released", 0, 0);
    }
}

static void check_unpack(const struct problem *p)
{
    size_t bytes = (size_t)p->n * p->row_bytes;
    void *rows = guarded(bytes);
    p->kernel->unpack(rows, p->packed, p->n, p->k, 0, p->n);
    if (memcmp(rows, p->rows, bytes) != 0)
        fail(p, "unpack differs", 0, 0);
}

static bool on_tiles(const struct problem *p)
{
    enum act_format format = p->kernel->act_format;
    return format == ACT_BF16 || (format == ACT_BF16_Q8 && p->m >= p->kernel->min_rows);
}

/* The activations as the kernel sees them. */
static double activation(const struct problem *p, int row, int i)
{
    const char *a = (const char *)p->a + (size_t)row * p->a_stride;
    if (p->kernel->act_format == ACT_F32)
        return ((const float *)a)[i];
    if (on_tiles(p))
        return bf16_to_f32(((const uint16_t *)a)[i]);
    if (p->kernel->act_format == ACT_BF16_Q8)
        a += act_content_bytes(ACT_BF16, (size_t)p->k);
    const float *scales = (const float *)(a + act_q8_scale_offset((size_t)p->k));
    return (double)scales[i / 32] * ((const int8_t *)a)[i];
}

/* As tiles hold weights: rounded to bf16, halves away from zero. */
static void round_weights(float *w, int k)
{
    for (int i = 0; i < k; i++)
        w[i] = f32_from_bits((f32_bits(w[i]) + 0x8000) & 0xffff0000);
}

static void check_product(const struct problem *p)
{
    float *w = guarded((size_t)p->k * sizeof *w);
    for (int column = 0; column < p->n; column++) {
        p->type->dequantize((const char *)p->rows + (size_t)column * p->row_bytes, w, (size_t)p->k);
        if (on_tiles(p))
            round_weights(w, p->k);
        for (int row = 0; row < p->m; row++) {
            double want = 0.0, magnitude = 0.0, largest = 0.0;
            for (int i = 0; i < p->k; i++) {
                double product = activation(p, row, i) * w[i];
                want += product;
                magnitude += fabs(product);
                largest = fmax(largest, fabs(product));
            }
            /* Weights between two bf16 may round to the other one, by the kernel's last float bit;
             * of k there are few. */
            double slack = on_tiles(p) ? largest * 0x1p-6 : 0.0;
            /* Types with a minimum sum large terms that cancel: twice the weights' size. */
            double got = p->c[row * p->n + column];
            if (!(fabs(got - want) <= 4e-6 * magnitude + slack + 1e-30))
                fail(p, "wrong product", row, column);
        }
    }
}

static void check(const struct gemm_kernel *kernel, int m, int n, int k, float limit)
{
    struct problem p;
    make_problem(&p, kernel, m, n, k, limit);
    if (kernel->pack)
        check_unpack(&p);
    memset(p.c, 0xff, (size_t)m * (size_t)n * sizeof(float));
    int middle = n / 2 / kernel->nr * kernel->nr;
    run(&p, middle, n);
    run(&p, 0, middle);
    check_product(&p);
    guarded_free_all();
}

static void check_kernel(const struct gemm_kernel *kernel)
{
    static const int rows[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 31, 32, 33, 64, 97};
    int elems = (int)block_type_find(kernel->block_id)->n_elems;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        check(kernel, rows[r], 33, elems == 1 ? 172 : elems == 32 ? 160 : 512, 1.0f);
        check(kernel, rows[r], 50, elems == 1 ? 7 : elems, 1.0f);
    }
    for (int n = 1; n <= 34; n++)
        check(kernel, n % 9, n, elems == 1 ? n : elems, 100.0f);
    check(kernel, 20, 17, elems == 1 ? 300 : 768, 1.0f);
    check(kernel, 5, 16, 256, 0.0f);
    n_records++;
}

/* ---- Speed ----------------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void bench_kernel(const struct gemm_kernel *kernel, int m, int n, int k)
{
    struct problem p;
    double best = INFINITY, start = seconds();
    make_problem(&p, kernel, m, n, k, 1.0f);
    for (int i = 0; i < 3 || seconds() - start < 0.1; i++) {
        double before = seconds();
        run(&p, 0, n);
        best = fmin(best, seconds() - before);
    }
    printf("%-22s m %3d  n %5d  k %4d %8.2f GFLOP/s %8.2f GB/s\n", kernel->name, m, n, k,
           2.0 * m * n * k / best * 1e-9, (double)n * (double)p.row_bytes / best * 1e-9);
    guarded_free_all();
}

static void bench(const struct gemm_kernel *kernel)
{
    bench_kernel(kernel, 1, 16384, 2048);
    bench_kernel(kernel, 4, 2048, 2048);
    bench_kernel(kernel, 8, 2048, 2048);
    bench_kernel(kernel, 64, 512, 2048);
    bench_kernel(kernel, 512, 512, 2048);
    n_records++;
}

int main(int argc, char **argv)
{
    enum { flags_amx = CPU_AMX_TILE | CPU_AMX_INT8 | CPU_AMX_BF16 };
    static const uint32_t levels[] = {
        0,
        CPU_AVX2,
        CPU_AVX2 | CPU_AVX_VNNI,
        CPU_AVX2 | CPU_AVX512,
        CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI,
        CPU_AVX2 | flags_amx,
        CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI | flags_amx,
    };
    static struct kernel_set set, below;
    bool measure = argc > 1 && strcmp(argv[1], "--bench") == 0;
    const char *filter = argc > 2 ? argv[2] : "";
    struct cpu_info info;
    uint32_t present = 0;
    cpu_detect(&info);
    for (int i = 0; i < CPU_FEATURE_COUNT; i++)
        present |= info.features[i].present ? info.features[i].flag : 0;
    if (!measure && present & CPU_AVX2 && tile_emulator_install() == 0)
        present |= flags_amx;
    for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++) {
        if (levels[l] & ~present)
            continue;
        kernel_set_init(&set, levels[l]);
        for (int i = 0; i < 2 * BLOCK_ID_COUNT; i++) {
            bool packed = i < BLOCK_ID_COUNT;
            int id = i % BLOCK_ID_COUNT;
            const struct gemm_kernel *kernel = packed ? &set.packed[id] : &set.mapped[id];
            const struct gemm_kernel *last = packed ? &below.packed[id] : &below.mapped[id];
            if (kernel->gemm == last->gemm || !strstr(kernel->name, filter))
                continue; /* no such record, or the level adds nothing to the one before */
            (measure ? bench : check_kernel)(kernel);
        }
        below = set;
    }
    if (!measure && present & CPU_AVX2)
        tile_emulator_uninstall();
    printf("%ld records, %ld wrong values\n", n_records, n_failed);
    return n_failed || !n_records;
}
