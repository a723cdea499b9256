/* Speed of the products of packed weights, in percent of roofs measured in the same run.
 *
 *   amx_bench [-t THREADS] [-m MS] [-r ROWS,..] [-k TYPE,..] [-s NxK,..]
 *
 * Roofs: tile instructions alone; packed bf16 tiles from L1, L2 and memory; streaming read. Then,
 * for every type and shape, the kernels of each instruction set for some counts of rows. Every
 * thread works on experts of its own, together larger than the caches, so that weights stream from
 * memory. Numbers are sums over the threads; "roof" is the packed product from L2. */
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"
#include "kernels/amx/tile.h"
#include "kernels/registry.h"

enum { MAX_THREADS = 512, EXPERT_SET = 64 << 20, MAX_ROWS = 512 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- Threads --------------------------------------------------------------------------------- */

/* One measurement: each thread calls `call` over and over for `seconds`; `work` units a call. */
struct measurement {
    void (*call)(void *thread_data, long round);
    void (*begin)(void), (*end)(void);
    double seconds;
};

struct worker {
    pthread_t thread;
    int cpu;
    void *data;
    double calls_per_second;
};

static struct worker workers[MAX_THREADS];
static int n_workers;
static pthread_barrier_t barrier;
static struct measurement current;
static bool finished;

static void *worker_main(void *argument)
{
    struct worker *w = argument;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)w->cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
    for (;;) {
        pthread_barrier_wait(&barrier);
        if (finished)
            return NULL;
        if (current.begin)
            current.begin();
        current.call(w->data, 0); /* warms caches and branches */
        double start = now(), end;
        long rounds = 0;
        do
            current.call(w->data, ++rounds);
        while ((end = now()) - start < current.seconds);
        if (current.end)
            current.end();
        w->calls_per_second = (double)rounds / (end - start);
        pthread_barrier_wait(&barrier);
    }
}

/* Calls per second, summed over the threads. */
static double measure(struct measurement m)
{
    current = m;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    double sum = 0;
    for (int i = 0; i < n_workers; i++)
        sum += workers[i].calls_per_second;
    return sum;
}

/* ---- Roofs ----------------------------------------------------------------------------------- */

struct arena {
    uint8_t *weights; /* EXPERT_SET bytes */
    uint8_t *a;       /* rows of activations */
    float *c;
    uint8_t *scratch;
    const struct gemm_kernel *kernel;
    int n, k, m;
    size_t matrix_bytes;
};

enum { TDP_ROUNDS = 256 };

#define FOUR(dp)                                                                                 \
    __asm__ volatile(dp " %%tmm6, %%tmm4, %%tmm0\n\t" dp " %%tmm7, %%tmm4, %%tmm1\n\t" dp        \
                        " %%tmm6, %%tmm5, %%tmm2\n\t" dp " %%tmm7, %%tmm5, %%tmm3" ::            \
                         : "memory")

static void call_tdp_bf16(void *data, long round)
{
    for (int i = 0; i < TDP_ROUNDS; i++)
        FOUR("tdpbf16ps");
}

static void call_tdp_int8(void *data, long round)
{
    for (int i = 0; i < TDP_ROUNDS; i++)
        FOUR("tdpbssd");
}

/* 2 x 2 tiles over `steps` steps of packed A and B. */
static void packed_product(const uint8_t *a, const uint8_t *b, int steps)
{
    for (int i = 0; i < steps; i++, a += 2 * TILE_BYTES, b += 2 * TILE_BYTES) {
        TILE_LOAD(4, a, 64);
        TILE_LOAD(6, b, 64);
        TILE_DPBF16(0, 4, 6);
        TILE_LOAD(7, b + TILE_BYTES, 64);
        TILE_DPBF16(1, 4, 7);
        TILE_LOAD(5, a + TILE_BYTES, 64);
        TILE_DPBF16(2, 5, 6);
        TILE_DPBF16(3, 5, 7);
    }
}

static const double packed_flop = 2.0 * 32 * 32 * 32; /* of a step */

enum { L1_STEPS = 8, L2_STEPS = 256, MEMORY_STEPS = 2048 };

static void call_packed_l1(void *data, long round)
{
    struct arena *w = data;
    for (int i = 0; i < 32; i++)
        packed_product(w->weights, w->weights + L1_STEPS * 2 * TILE_BYTES, L1_STEPS);
}

static void call_packed_l2(void *data, long round)
{
    struct arena *w = data;
    packed_product(w->weights, w->weights + L2_STEPS * 2 * TILE_BYTES, L2_STEPS);
}

static void call_packed_memory(void *data, long round)
{
    struct arena *w = data;
    size_t bytes = (size_t)MEMORY_STEPS * 2 * TILE_BYTES;
    size_t at = (size_t)round % (EXPERT_SET / (2 * bytes)) * 2 * bytes;
    packed_product(w->weights + at, w->weights + at + bytes, MEMORY_STEPS);
}

enum { READ_BYTES = 4 << 20 };

static void call_read(void *data, long round)
{
    struct arena *w = data;
    const uint8_t *from = w->weights + (size_t)round % (EXPERT_SET / READ_BYTES) * READ_BYTES;
    __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                      _mm256_setzero_si256()};
    for (size_t i = 0; i < READ_BYTES; i += 128)
        for (int j = 0; j < 4; j++)
            sum[j] = _mm256_xor_si256(
                sum[j], _mm256_load_si256((const __m256i *)(from + i + 32 * (size_t)j)));
    __m256i all = _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]),
                                   _mm256_xor_si256(sum[2], sum[3]));
    __asm__ volatile("" : : "x"(all));
}

struct roofs {
    double tdp, tdp_int8, l1, l2, memory; /* FLOP/s */
    double read;                          /* bytes/s */
};

static struct roofs measure_roofs(bool tiles, double seconds)
{
    struct roofs r = {0};
    r.read = measure((struct measurement){call_read, NULL, NULL, seconds}) * READ_BYTES;
    if (!tiles)
        return r;
    double tdp = TDP_ROUNDS * 4 * 2.0 * 16 * 16 * 32;
    struct measurement m = {NULL, tile_config_full, tile_release, seconds};
    m.call = call_tdp_bf16;
    r.tdp = measure(m) * tdp;
    m.call = call_tdp_int8;
    r.tdp_int8 = measure(m) * tdp * 2;
    m.call = call_packed_l1;
    r.l1 = measure(m) * packed_flop * L1_STEPS * 32;
    m.call = call_packed_l2;
    r.l2 = measure(m) * packed_flop * L2_STEPS;
    m.call = call_packed_memory;
    r.memory = measure(m) * packed_flop * MEMORY_STEPS;
    return r;
}

static void print_roofs(const struct roofs *r)
{
    printf("roofs, %d threads: read %.1f GB/s; tiles alone %.0f GFLOP/s bf16, %.0f GOP/s int8; "
           "packed bf16 from L1 %.0f (%.0f%%), L2 %.0f (%.0f%%), memory %.0f (%.0f%%)\n",
           n_workers, r->read * 1e-9, r->tdp * 1e-9, r->tdp_int8 * 1e-9, r->l1 * 1e-9,
           100 * r->l1 / r->tdp, r->l2 * 1e-9, 100 * r->l2 / r->tdp, r->memory * 1e-9,
           100 * r->memory / r->tdp);
}

/* ---- Kernels --------------------------------------------------------------------------------- */

static void call_gemm(void *data, long round)
{
    struct arena *w = data;
    size_t experts = EXPERT_SET / w->matrix_bytes;
    struct gemm_args args = {
        .w = w->weights + (size_t)round % (experts ? experts : 1) * w->matrix_bytes,
        .n = w->n,
        .k = w->k,
        .n1 = w->n,
        .a = w->a,
        .a_stride = act_row_bytes(w->kernel->act_format, (size_t)w->k),
        .m = w->m,
        .c = w->c,
        .ldc = (size_t)w->n,
        .scratch = w->scratch,
    };
    w->kernel->gemm(&args);
}

static const struct gemm_kernel *find(const struct gemm_kernel *(*table)(size_t *), uint32_t id)
{
    size_t n;
    const struct gemm_kernel *kernels = table(&n);
    for (size_t i = 0; i < n; i++)
        if (kernels[i].block_id == id)
            return &kernels[i];
    return NULL;
}

static void bench_kernel(const struct gemm_kernel *kernel, const struct kernel_set *packing, int n,
                         int k, int m, const struct roofs *r, double seconds)
{
    static float x[MAX_ROWS * 64];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++)
        x[i] = (float)(i * 2654435761u % 2001) / 1000 - 1;
    size_t stride = act_row_bytes(kernel->act_format, (size_t)k);
    size_t bytes = packing->packed[kernel->block_id].packed_bytes(n, k);
    for (int t = 0; t < n_workers; t++) {
        struct arena *w = workers[t].data;
        w->kernel = kernel;
        w->n = n, w->k = k, w->m = m;
        w->matrix_bytes = act_round_up(bytes, 64);
        for (int i = 0; i < m; i++) /* rows of a repeated pattern */
            kernel->quantize_rows(w->a + (size_t)i * stride, stride, x + i, 0, 1, k);
    }
    double calls = measure((struct measurement){call_gemm, kernel->begin, kernel->end, seconds});
    double flop = calls * 2.0 * n * k * m, traffic = calls * (double)bytes;
    printf("%-22s %5dx%-5d %4d rows %8.0f GFLOP/s %7.1f GB/s", kernel->name, n, k, m, flop * 1e-9,
           traffic * 1e-9);
    if (r->l2 > 0)
        printf(" %5.0f%% of roof, %3.0f%% of tiles,", 100 * flop / r->l2, 100 * flop / r->tdp);
    printf(" %3.0f%% of read\n", 100 * traffic / r->read);
    fflush(stdout);
}

static int parse_list(const char *text, int *values, int capacity)
{
    int n = 0;
    for (char *end; n < capacity && *text; text = *end ? end + 1 : end) {
        values[n++] = (int)strtol(text, &end, 10);
        if (end == text)
            exit(2);
    }
    return n;
}

/* "768x2048,2048x768" */
static int parse_shapes(const char *text, int shapes[][2], int capacity)
{
    int n = 0;
    int used;
    while (n < capacity && sscanf(text, "%dx%d%n", &shapes[n][0], &shapes[n][1], &used) == 2) {
        text += used + (text[used] == ',');
        n++;
    }
    return n;
}

struct options {
    int threads;
    double seconds;
    int rows[16], n_rows;
    int shapes[8][2], n_shapes;
    const char *types;
};

static struct options parse_options(int argc, char **argv)
{
    struct options o = {.seconds = 0.03, .types = "Q4_0,Q4_K,Q6_K,Q8_0,BF16"};
    o.n_rows = parse_list("1,4,8,16,32,128,512", o.rows, 16);
    o.n_shapes = parse_shapes("768x2048,2048x768", o.shapes, 8);
    for (int c; (c = getopt(argc, argv, "t:m:r:k:s:")) != -1;) {
        if (c == 't')
            o.threads = atoi(optarg);
        else if (c == 'm')
            o.seconds = atof(optarg) * 1e-3;
        else if (c == 'r')
            o.n_rows = parse_list(optarg, o.rows, 16);
        else if (c == 's')
            o.n_shapes = parse_shapes(optarg, o.shapes, 8);
        else if (c == 'k')
            o.types = optarg;
        else
            exit(2);
    }
    return o;
}

static void start_workers(int threads)
{
    struct cpu_cores cores;
    if (cpu_cores(&cores, NULL))
        exit(1);
    n_workers = threads > 0 && threads < cores.n_usable ? threads : cores.n_physical;
    n_workers = n_workers < MAX_THREADS ? n_workers : MAX_THREADS;
    pthread_barrier_init(&barrier, NULL, (unsigned)n_workers + 1);
    for (int t = 0; t < n_workers; t++) {
        struct arena *w = calloc(1, sizeof *w);
        /* Room for a matrix that is larger than the set. */
        w->weights = aligned_alloc(4096, (size_t)EXPERT_SET * 2);
        w->a = aligned_alloc(64, (size_t)MAX_ROWS * 16384 * 4);
        w->c = aligned_alloc(64, (size_t)MAX_ROWS * 16384 * sizeof(float));
        w->scratch = aligned_alloc(64, 4 << 20);
        if (!w->weights || !w->a || !w->c || !w->scratch)
            exit(1);
        /* Codes and scales of moderate size, whatever the type. */
        for (size_t i = 0; i < (size_t)EXPERT_SET * 2; i++)
            w->weights[i] = (uint8_t)(i * 2654435761u >> 13) & 0x37;
        workers[t] = (struct worker){.cpu = cores.list[t].id, .data = w};
        pthread_create(&workers[t].thread, NULL, worker_main, &workers[t]);
    }
}

static bool named(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = list; (p = strstr(p, name)); p += n)
        if ((p == list || p[-1] == ',') && (p[n] == ',' || !p[n]))
            return true;
    return false;
}

int main(int argc, char **argv)
{
    struct options o = parse_options(argc, argv);
    struct cpu_info info;
    uint32_t flags;
    cpu_detect(&info);
    if (cpu_select(&info, TSR_ISA_AUTO, TSR_AUTO, false, &flags, NULL) || !(flags & CPU_AVX2))
        return 77;
    start_workers(o.threads);
    static struct kernel_set packing;
    kernel_set_init(&packing, 0);
    printf("%s, %s\n", info.model, cpu_isa_name(flags));
    struct roofs roofs = measure_roofs(flags & CPU_AMX_TILE, 0.2);
    print_roofs(&roofs);
    const struct gemm_kernel *(*const tables[])(size_t *) = {
        avx2_q_kernels, avx_vnni_q_kernels, avx512_q_kernels, amx_tile_kernels_avx512};
    for (uint32_t id = 0; id < BLOCK_ID_COUNT; id++) {
        const struct block_type *type = block_type_find(id);
        if (!type || !named(o.types, type->name))
            continue;
        for (int s = 0; s < o.n_shapes; s++)
            for (int i = 0; i < o.n_rows; i++)
                for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
                    const struct gemm_kernel *kernel = find(tables[t], id);
                    if (kernel && !(kernel->cpu_flags & ~flags))
                        bench_kernel(kernel, &packing, o.shapes[s][0], o.shapes[s][1], o.rows[i],
                                     &roofs, o.seconds);
                }
    }
    roofs = measure_roofs(flags & CPU_AMX_TILE, 0.2);
    print_roofs(&roofs);
    finished = true;
    pthread_barrier_wait(&barrier);
    return 0;
}
