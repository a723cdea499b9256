/* Every thread has weights of its own, as many copies of the matrix as do not fit the caches, and
 * takes them in turn, so that they stream from memory; m tokens are multiplied with each. A round
 * lasts until the last thread is done; the median of some rounds counts. */
#include "tests/kernels/gemm_bench.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/kernels/gemm_data.h"

enum { ROUNDS = 7, MAX_COPIES = 256, MIN_ARENA = 64 << 20, SCALAR_MAX_ROWS = 16 };

#define ROUND_SECONDS 0.02

struct worker {
    pthread_t thread;
    uint8_t *arena; /* arena_bytes: the copies */
    void *a, *scratch;
    float *c;
    uint64_t sum;
};

/* What all threads do in a round: `steps` matrices, or the arena read once where kernel is NULL. */
static struct {
    const struct gemm_kernel *kernel;
    int m, n, k;
    size_t matrix_bytes;
    int n_copies, steps;
    bool stop;
} job;

static struct worker workers[BENCH_MAX_THREADS];
static int n_workers;
static size_t arena_bytes;
static double roof; /* bytes per second, of all threads */
static pthread_barrier_t barrier;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void *reserve(size_t n_bytes)
{
    void *memory = aligned_alloc(4096, (n_bytes + 4095) / 4096 * 4096);
    if (!memory) {
        fprintf(stderr, "no memory for %zu bytes\n", n_bytes);
        exit(1);
    }
    memset(memory, 0, n_bytes);
    return memory;
}

/* ---- Threads --------------------------------------------------------------------------------- */

static uint64_t read_arena(const uint8_t *arena)
{
    const uint64_t *words = (const uint64_t *)arena;
    uint64_t sum = 0;
    for (size_t i = 0; i < arena_bytes / sizeof *words; i++)
        sum += words[i];
    return sum;
}

static void multiply(const struct worker *w)
{
    if (job.kernel->begin)
        job.kernel->begin();
    for (int i = 0; i < job.steps; i++) {
        struct gemm_args args = {
            .w = w->arena + (size_t)(i % job.n_copies) * job.matrix_bytes,
            .n = job.n,
            .k = job.k,
            .n1 = job.n,
            .a = w->a,
            .a_stride = act_row_bytes(job.kernel->act_format, (size_t)job.k),
            .m = job.m,
            .c = w->c,
            .ldc = (size_t)job.n,
            .scratch = w->scratch,
        };
        job.kernel->gemm(&args);
    }
    if (job.kernel->end)
        job.kernel->end();
}

static void *worker_main(void *argument)
{
    struct worker *w = argument;
    w->arena = reserve(arena_bytes); /* touched by the thread that reads it */
    for (;;) {
        pthread_barrier_wait(&barrier);
        if (job.stop)
            break;
        if (job.kernel)
            multiply(w);
        else
            w->sum += read_arena(w->arena);
        pthread_barrier_wait(&barrier);
    }
    free(w->arena);
    return NULL;
}

static double round_seconds(void)
{
    double start = now();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return now() - start;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_seconds(void)
{
    double seconds[ROUNDS];
    for (int i = 0; i < ROUNDS; i++)
        seconds[i] = round_seconds();
    qsort(seconds, ROUNDS, sizeof *seconds, compare_doubles);
    return seconds[ROUNDS / 2];
}

void bench_start(int n_threads)
{
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    size_t beyond_cache = cache > 0 ? 4 * (size_t)cache / (size_t)n_threads : 0;
    n_workers = n_threads;
    arena_bytes = beyond_cache > MIN_ARENA ? beyond_cache / 4096 * 4096 : MIN_ARENA;
    pthread_barrier_init(&barrier, NULL, (unsigned)n_threads + 1);
    for (int i = 0; i < n_threads; i++)
        if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i])) {
            fprintf(stderr, "cannot start thread %d\n", i);
            exit(1);
        }
    round_seconds(); /* the threads have touched their memory */
    roof = (double)arena_bytes * n_threads / median_seconds();
    printf("streaming read, %d threads: %.1f GB/s\n", n_threads, roof * 1e-9);
    printf("%-24s %5s %5s %5s %9s %6s %10s\n", "", "n", "k", "m", "GB/s", "%", "GOP/s");
}

void bench_stop(void)
{
    job.stop = true;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < n_workers; i++)
        pthread_join(workers[i].thread, NULL);
    pthread_barrier_destroy(&barrier);
}

/* ---- Shapes ---------------------------------------------------------------------------------- */

/* One random matrix, as often as it goes into the arena of every thread. */
static void load_weights(const struct gemm_kernel *kernel, int n, int k)
{
    const struct block_type *type = block_type_find(kernel->block_id);
    size_t file_bytes = (size_t)n * (size_t)k / type->n_elems * type->n_bytes;
    uint64_t seed = 1;
    uint8_t *rows = reserve(file_bytes), *matrix = rows;
    fill_weights(WEIGHTS_RANDOM, type, rows, file_bytes, &seed);
    job.matrix_bytes = file_bytes;
    if (kernel->pack) {
        job.matrix_bytes = kernel->packed_bytes(n, k);
        matrix = reserve(job.matrix_bytes);
        kernel->pack(matrix, rows, n, k, 0, n);
    }
    job.n_copies = (int)(arena_bytes / job.matrix_bytes);
    if (job.n_copies > MAX_COPIES)
        job.n_copies = MAX_COPIES;
    for (int i = 0; i < n_workers * job.n_copies; i++)
        memcpy(workers[i / job.n_copies].arena + (size_t)(i % job.n_copies) * job.matrix_bytes,
               matrix, job.matrix_bytes);
    if (matrix != rows)
        free(matrix);
    free(rows);
}

static void load_acts(const struct gemm_kernel *kernel, int m, int n, int k)
{
    size_t stride = act_row_bytes(kernel->act_format, (size_t)k);
    float *x = reserve((size_t)m * (size_t)k * sizeof *x);
    uint64_t seed = 2;
    fill_acts(ACTS_RANDOM, x, m, k, &seed);
    for (int i = 0; i < n_workers; i++) {
        workers[i].a = reserve((size_t)m * stride);
        workers[i].c = reserve((size_t)m * (size_t)n * sizeof(float));
        workers[i].scratch = reserve(kernel->scratch_bytes(k) + 64);
        kernel->quantize_rows(workers[i].a, stride, x, (size_t)k, m, k);
    }
    free(x);
}

static void free_acts(void)
{
    for (int i = 0; i < n_workers; i++) {
        free(workers[i].a);
        free(workers[i].c);
        free(workers[i].scratch);
    }
}

static void bench_rows(const struct gemm_kernel *kernel, int m, int n, int k)
{
    load_acts(kernel, m, n, k);
    job.kernel = kernel;
    job.m = m;
    job.n = n;
    job.k = k;
    job.steps = 1;
    double step = round_seconds();
    if (step < ROUND_SECONDS)
        job.steps = 1 + (int)(ROUND_SECONDS / step);
    double matrices = (double)job.steps * n_workers / median_seconds();
    double bytes = matrices * (double)job.matrix_bytes;
    printf("%-24s %5d %5d %5d %9.2f %6.1f %10.1f\n", kernel->name, n, k, m, bytes * 1e-9,
           100.0 * bytes / roof, matrices * 2.0 * m * n * k * 1e-9);
    fflush(stdout);
    free_acts();
}

void bench_kernel(const struct gemm_kernel *kernel)
{
    static const int shapes[][2] = {{768, 2048}, {2048, 768}, {4096, 4096}};
    static const int rows[] = {1, 4, 16, 32, 128, 512};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        load_weights(kernel, shapes[s][0], shapes[s][1]);
        for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++)
            /* Many rows take the reference minutes. */
            if (kernel->cpu_flags || rows[r] <= SCALAR_MAX_ROWS)
                bench_rows(kernel, rows[r], shapes[s][0], shapes[s][1]);
    }
}
