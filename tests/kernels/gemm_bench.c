/* Every thread has weights of its own, as many copies of its matrix as its memory holds, and takes
 * them in turn, so that they stream from memory; m rows, shared by all threads, are multiplied with
 * each. Of a shape as large as DENSE the threads share the columns, as they do in a model; smaller
 * ones are experts, one for each thread.
 *
 * The records that read the same bytes are measured in turn, several times, and with them the two
 * roofs that they are compared to: all have had the same machine. Medians count. */
#include "tests/kernels/gemm_bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/gemm_data.h"
#include "bench/roofs.h"

enum { REPEATS = 7, MAX_GROUP = 32, SCALAR_MAX_ROWS = 16, SLICE_COLUMNS = 32, DENSE = 4096 * 4096 };

/* What the threads multiply. */
static struct {
    const struct gemm_kernel *kernel;
    int m, n, k;          /* n: columns of a thread */
    const uint8_t *matrix; /* packed, to be copied */
    size_t matrix_bytes;
    const void *a; /* [m] rows */
    size_t c_bytes, scratch_bytes;
} job;

static void *reserve(size_t n_bytes)
{
    void *memory = aligned_alloc(64, act_round_up(n_bytes, 64));
    if (!memory) {
        fprintf(stderr, "no memory for %zu bytes\n", n_bytes);
        exit(1);
    }
    return memory;
}

/* ---- On the threads -------------------------------------------------------------------------- */

/* A thread's memory: C, scratch, then copies of the matrix. */
static uint8_t *weights_of(const struct bench_thread *thread)
{
    return thread->memory + job.c_bytes + job.scratch_bytes;
}

static size_t copies_of(const struct bench_thread *thread)
{
    return (thread->memory_bytes - job.c_bytes - job.scratch_bytes) / job.matrix_bytes;
}

static void copy_weights(struct bench_thread *thread, long round)
{
    for (size_t i = 0; i < copies_of(thread); i++)
        memcpy(weights_of(thread) + i * job.matrix_bytes, job.matrix, job.matrix_bytes);
}

static void multiply(struct bench_thread *thread, long round)
{
    struct gemm_args args = {
        .w = weights_of(thread) + (size_t)round % copies_of(thread) * job.matrix_bytes,
        .n = job.n,
        .k = job.k,
        .n1 = job.n,
        .a = job.a,
        .a_stride = act_row_bytes(job.kernel->act_format, (size_t)job.k),
        .m = job.m,
        .min_rows = job.kernel->min_rows,
        .c = (float *)thread->memory,
        .ldc = (size_t)job.n,
        .scratch = thread->memory + job.c_bytes,
    };
    job.kernel->gemm(&args);
}

/* ---- Data ------------------------------------------------------------------------------------ */

/* The records of a type that read the same bytes: those with, or those without packing. */
struct group {
    const struct gemm_kernel *kernels[MAX_GROUP];
    int n;
};

static struct group find_group(const struct gemm_kernel *kernels, int n, uint32_t block_id,
                               bool packed)
{
    struct group group = {.n = 0};
    for (int i = 0; i < n && group.n < MAX_GROUP; i++)
        if (kernels[i].block_id == block_id && (kernels[i].pack != NULL) == packed)
            group.kernels[group.n++] = &kernels[i];
    return group;
}

static void load_weights(const struct group *group, int max_rows)
{
    const struct gemm_kernel *kernel = group->kernels[0];
    const struct block_type *type = block_type_find(kernel->block_id);
    size_t file_bytes = (size_t)job.n * (size_t)job.k / type->n_elems * type->n_bytes;
    uint64_t seed = 1;
    uint8_t *rows = reserve(file_bytes), *packed = rows;
    fill_weights(WEIGHTS_RANDOM, type, rows, file_bytes, &seed);
    job.matrix_bytes = act_round_up(file_bytes, 64);
    if (kernel->pack) {
        job.matrix_bytes = act_round_up(kernel->packed_bytes(job.n, job.k), 64);
        packed = reserve(job.matrix_bytes);
        kernel->pack(packed, rows, job.n, job.k, 0, job.n);
    }
    job.c_bytes = act_round_up((size_t)max_rows * (size_t)job.n * sizeof(float), 64);
    job.scratch_bytes = 64;
    for (int i = 0; i < group->n; i++) {
        size_t bytes = act_round_up(group->kernels[i]->scratch_bytes(job.k), 64);
        job.scratch_bytes = bytes > job.scratch_bytes ? bytes : job.scratch_bytes;
    }
    job.matrix = packed;
    bench_reserve(job.c_bytes + job.scratch_bytes + job.matrix_bytes);
    bench_each(copy_weights);
    if (packed != rows)
        free(packed);
    free(rows);
}

/* Rows of activations in the record's format; the caller frees them. */
static void *make_acts(const struct gemm_kernel *kernel, int m)
{
    size_t k = (size_t)job.k, stride = act_row_bytes(kernel->act_format, k);
    float *x = reserve((size_t)m * k * sizeof *x);
    void *a = reserve((size_t)m * stride);
    uint64_t seed = 2;
    fill_acts(ACTS_RANDOM, x, m, job.k, &seed);
    quantize_whole_rows(kernel, a, stride, x, k, m, job.k);
    free(x);
    return a;
}

/* ---- Measurements ---------------------------------------------------------------------------- */

static void print_line(const struct gemm_kernel *kernel, const struct bench_shape *shape, int m,
                       double rate, double read, double packed_l2, const struct roofs *roofs)
{
    double ops = rate * 2.0 * m * job.n * job.k, bytes = rate * (double)job.matrix_bytes;
    printf("%-24s %5d %5d %4d %9.1f %8.2f %6.1f", kernel->name, shape->n, shape->k, m, ops * 1e-9,
           bytes * 1e-9, 100.0 * bytes / read);
    if (packed_l2 > 0.0)
        printf(" %7.1f %7.1f\n", 100.0 * ops / packed_l2, 100.0 * ops / roofs->bf16.alone);
    else
        printf(" %7s %7s\n", "-", "-");
    fflush(stdout);
}

/* The reference would take minutes for many rows. */
static bool too_slow(const struct gemm_kernel *kernel, int m)
{
    return kernel->cpu_flags == 0 && m > SCALAR_MAX_ROWS;
}

static void bench_rows(const struct group *group, const struct bench_shape *shape, int m,
                       const struct bench_options *options, const struct roofs *roofs)
{
    double rates[MAX_GROUP][REPEATS], read[REPEATS], packed_l2[REPEATS] = {0};
    void *acts[MAX_GROUP];
    job.m = m;
    for (int i = 0; i < group->n; i++)
        acts[i] = too_slow(group->kernels[i], m) ? NULL : make_acts(group->kernels[i], m);
    for (int r = 0; r < REPEATS; r++) {
        read[r] = roofs_read_once(options->seconds);
        if (options->tiles)
            packed_l2[r] = roofs_packed_l2_once(options->seconds);
        for (int i = 0; i < group->n; i++) {
            if (!acts[i])
                continue;
            job.kernel = group->kernels[i];
            job.a = acts[i];
            rates[i][r] =
                bench_rate(multiply, job.kernel->begin, job.kernel->end, options->seconds);
        }
    }
    double read_roof = bench_median(read, REPEATS), l2_roof = bench_median(packed_l2, REPEATS);
    for (int i = 0; i < group->n; i++)
        if (acts[i])
            print_line(group->kernels[i], shape, m, bench_median(rates[i], REPEATS), read_roof,
                       l2_roof, roofs);
    for (int i = 0; i < group->n; i++)
        free(acts[i]);
}

static void bench_group(const struct group *group, const struct bench_shape *shape, int n_threads,
                        const struct bench_options *options)
{
    int most = 0;
    for (int i = 0; i < options->n_rows; i++)
        most = options->rows[i] > most ? options->rows[i] : most;
    bool dense = (long)shape->n * shape->k >= DENSE;
    int slices = dense ? n_threads * SLICE_COLUMNS : SLICE_COLUMNS;
    job.n = (shape->n + slices - 1) / slices * SLICE_COLUMNS;
    job.k = shape->k;
    load_weights(group, most);
    struct roofs roofs = roofs_measure(options->tiles, options->seconds);
    roofs_print(&roofs);
    printf("%-24s %5s %5s %4s %9s %8s %6s %7s %7s\n", "", "n", "k", "rows", "GFLOP/s", "GB/s",
           "% read", "% L2", "% tiles");
    for (int i = 0; i < options->n_rows; i++)
        bench_rows(group, shape, options->rows[i], options, &roofs);
}

/* Whether a list of names, separated by commas, has this one. */
static bool named(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list; (at = strstr(at, name)); at += length)
        if ((at == list || at[-1] == ',') && (at[length] == ',' || !at[length]))
            return true;
    return !*list;
}

void bench_kernels(const struct gemm_kernel *kernels, int n, const struct bench_options *options)
{
    int n_threads = bench_start(options->n_threads);
    for (int s = 0; s < options->n_shapes; s++)
        for (uint32_t id = 0; id < BLOCK_ID_COUNT; id++)
            for (int packed = 1; packed >= 0; packed--) {
                const struct block_type *type = block_type_find(id);
                struct group group = find_group(kernels, n, id, packed);
                if (group.n > 0 && named(options->types, type->name) &&
                    options->shapes[s].k % (int)type->n_elems == 0)
                    bench_group(&group, &options->shapes[s], n_threads, options);
            }
    bench_stop();
}

/* ---- Options --------------------------------------------------------------------------------- */

bool bench_parse_rows(const char *text, struct bench_options *options)
{
    int used = 0;
    for (options->n_rows = 0; *text && options->n_rows < BENCH_LIST; options->n_rows++) {
        int *m = &options->rows[options->n_rows];
        if (sscanf(text, "%d%n", m, &used) != 1 || *m < 1 || *m > BENCH_MAX_ROWS)
            return false;
        text += used + (text[used] == ',');
    }
    return !*text && options->n_rows > 0;
}

bool bench_parse_shapes(const char *text, struct bench_options *options)
{
    int used = 0;
    for (options->n_shapes = 0; *text && options->n_shapes < BENCH_LIST; options->n_shapes++) {
        struct bench_shape *shape = &options->shapes[options->n_shapes];
        if (sscanf(text, "%dx%d%n", &shape->n, &shape->k, &used) != 2 || shape->n < 1 ||
            shape->n > 1 << 17 || shape->k < 1 || shape->k > 1 << 15)
            return false;
        text += used + (text[used] == ',');
    }
    return !*text && options->n_shapes > 0;
}
