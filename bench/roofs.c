#include "bench/roofs.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/memory.h"
#include "kernels/amx/tile.h"

enum { MAX_THREADS = 512, TILE_REPEATS = 3, READ_REPEATS = 5, MIN_MEMORY = 64 << 20 };

/* Of all threads together: far more than any last-level cache, also where the system tells the size
 * of one of several only. */
static const size_t total_memory = (size_t)2 << 30;

/* ---- Threads --------------------------------------------------------------------------------- */

struct worker {
    pthread_t id;
    int cpu;
    struct bench_thread thread;
    double calls_per_second;
};

/* What all threads do next; seconds 0: one call. */
static struct {
    bench_call *call;
    void (*begin)(void), (*end)(void);
    double seconds;
    bool stop;
} job;

static struct worker workers[MAX_THREADS];
static int n_workers;
static size_t wanted_bytes; /* of a thread's memory */
static pthread_barrier_t barrier;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void repeat_call(struct worker *w)
{
    job.call(&w->thread, 0);
    double start = now(), end = start;
    long rounds = 0;
    while (end - start < job.seconds) {
        job.call(&w->thread, ++rounds);
        end = now();
    }
    w->calls_per_second = rounds ? (double)rounds / (end - start) : 0.0;
}

static void *worker_main(void *argument)
{
    struct worker *w = argument;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)w->cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
    for (;;) {
        pthread_barrier_wait(&barrier);
        if (job.stop)
            break;
        if (job.begin)
            job.begin();
        repeat_call(w);
        if (job.end)
            job.end();
        pthread_barrier_wait(&barrier);
    }
    free(w->thread.memory);
    return NULL;
}

double bench_rate(bench_call *call, void (*begin)(void), void (*end)(void), double seconds)
{
    double sum = 0.0;
    job.call = call;
    job.begin = begin;
    job.end = end;
    job.seconds = seconds;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < n_workers; i++)
        sum += workers[i].calls_per_second;
    return sum;
}

void bench_each(bench_call *call)
{
    bench_rate(call, NULL, NULL, 0.0);
}

/* Random bf16 numbers of both signs, 2^-7 to 2: tile instructions take more power, and so time, on
 * such operands than on zeros or on equal numbers. */
static void fill_random(uint8_t *memory, size_t bytes, uint64_t random)
{
    const uint64_t any = 0x83ff83ff83ff83ffu, exponent = 0x3c003c003c003c00u;
    for (size_t i = 0; i < bytes; i += sizeof random) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        uint64_t word = (random & any) | exponent;
        memcpy(memory + i, &word, sizeof word);
    }
}

static void grow(struct bench_thread *thread, long round)
{
    if (thread->memory_bytes >= wanted_bytes)
        return;
    free(thread->memory);
    thread->memory_bytes = (wanted_bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    thread->memory = aligned_alloc(HUGE_PAGE, thread->memory_bytes);
    if (!thread->memory) {
        fprintf(stderr, "roofs: no memory for %zu bytes\n", thread->memory_bytes);
        exit(1);
    }
    memory_ask_huge(thread->memory, thread->memory_bytes);
    fill_random(thread->memory, thread->memory_bytes, (uint64_t)thread->index + 1);
}

void bench_reserve(size_t memory_bytes)
{
    wanted_bytes = memory_bytes;
    bench_each(grow);
}

/* Bytes for each thread: the caches together hold a quarter at most, where memory allows. */
static size_t share_of_memory(void)
{
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    size_t total = cache > 0 ? 4 * (size_t)cache : 0;
    struct memory_limit limit;
    memory_available("", &limit);
    total = total > total_memory ? total : total_memory;
    total = total < limit.bytes / 4 ? total : limit.bytes / 4;
    size_t share = total / (size_t)n_workers;
    return share > MIN_MEMORY ? share : MIN_MEMORY;
}

int bench_start(int n_threads)
{
    struct cpu_cores cores;
    if (cpu_cores(&cores, NULL)) {
        fprintf(stderr, "roofs: the CPUs of this process are not known\n");
        exit(1);
    }
    n_workers = n_threads == 0                ? cores.n_physical
                : n_threads < cores.n_usable ? n_threads
                                              : cores.n_usable;
    n_workers = n_workers < MAX_THREADS ? n_workers : MAX_THREADS;
    job.stop = false;
    pthread_barrier_init(&barrier, NULL, (unsigned)n_workers + 1);
    for (int i = 0; i < n_workers; i++) {
        workers[i] = (struct worker){.cpu = cores.list[i].id, .thread = {.index = i}};
        if (pthread_create(&workers[i].id, NULL, worker_main, &workers[i])) {
            fprintf(stderr, "roofs: cannot start thread %d\n", i);
            exit(1);
        }
    }
    bench_reserve(share_of_memory());
    return n_workers;
}

void bench_stop(void)
{
    job.stop = true;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < n_workers; i++)
        pthread_join(workers[i].id, NULL);
    pthread_barrier_destroy(&barrier);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, compare_doubles);
    return values[n / 2];
}

/* ---- Roofs ----------------------------------------------------------------------------------- */

/* Part `round` of the thread's memory, cut into parts of so many bytes. */
static uint8_t *part_at(const struct bench_thread *thread, long round, size_t bytes)
{
    return thread->memory + (size_t)round % (thread->memory_bytes / bytes) * bytes;
}

/* A thread reads its memory as READ_STREAMS streams at once, a slice of each in a call. */
enum { READ_STREAMS = 4, READ_SLICE = 128 << 10, READ_BYTES = READ_STREAMS * READ_SLICE };
enum { READ_AHEAD = 2048, LINE_BYTES = 64, LINE_WORDS = LINE_BYTES / sizeof(uint64_t) };

static void read_slices(struct bench_thread *thread, long round)
{
    size_t stream = thread->memory_bytes / READ_STREAMS;
    const uint8_t *slice = thread->memory + (size_t)round % (stream / READ_SLICE) * READ_SLICE;
    uint64_t sums[LINE_WORDS] = {0};
    for (size_t i = 0; i < READ_SLICE; i += LINE_BYTES)
        for (size_t s = 0; s < READ_STREAMS; s++) {
            const uint64_t *line = (const uint64_t *)(const void *)(slice + s * stream + i);
            __builtin_prefetch((const uint8_t *)line + READ_AHEAD);
            for (size_t j = 0; j < LINE_WORDS; j++)
                sums[j] += line[j];
        }
    for (size_t j = 0; j < LINE_WORDS; j++)
        thread->sum += sums[j];
}

static double median_rate(bench_call *call, bool tiles, double seconds)
{
    double rates[READ_REPEATS];
    int n = tiles ? TILE_REPEATS : READ_REPEATS;
    for (int i = 0; i < n; i++)
        rates[i] = bench_rate(call, tiles ? tile_config_full : NULL, tiles ? tile_release : NULL,
                              seconds);
    return bench_median(rates, n);
}

/* Steps of packed A and B, 4 KiB each; those that stay in 48 KiB of L1 and 2 MiB of L2. */
enum { ALONE_STEPS = 256, L1_STEPS = 8, L2_STEPS = 256, MEMORY_STEPS = 2048, L1_REPEATS = 32 };

/* 2 x 2 tiles over packed A and B. */
#define PACKED_PRODUCT(dp, a, b, steps)                                                           \
    for (int i = 0; i < (steps); i++) {                                                           \
        const uint8_t *a_tiles = (a) + i * 2 * TILE_BYTES, *b_tiles = (b) + i * 2 * TILE_BYTES;   \
        TILE_LOAD(4, a_tiles, TILE_ROW_BYTES);                                                    \
        TILE_LOAD(6, b_tiles, TILE_ROW_BYTES);                                                    \
        TILE_DP(dp, 0, 4, 6);                                                                     \
        TILE_LOAD(7, b_tiles + TILE_BYTES, TILE_ROW_BYTES);                                       \
        TILE_DP(dp, 1, 4, 7);                                                                     \
        TILE_LOAD(5, a_tiles + TILE_BYTES, TILE_ROW_BYTES);                                       \
        TILE_DP(dp, 2, 5, 6);                                                                     \
        TILE_DP(dp, 3, 5, 7);                                                                     \
    }

static void load_operands(const uint8_t *tiles)
{
    TILE_LOAD(4, tiles, TILE_ROW_BYTES);
    TILE_LOAD(5, tiles + TILE_BYTES, TILE_ROW_BYTES);
    TILE_LOAD(6, tiles + 2 * TILE_BYTES, TILE_ROW_BYTES);
    TILE_LOAD(7, tiles + 3 * TILE_BYTES, TILE_ROW_BYTES);
}

/* `depth`: k of a tile. */
#define DEFINE_TILE_ROOFS(name, dp, depth)                                                        \
    static void alone_##name(struct bench_thread *thread, long round)                             \
    {                                                                                             \
        load_operands(thread->memory);                                                            \
        for (int i = 0; i < ALONE_STEPS; i++)                                                     \
            __asm__ volatile(dp " %%tmm6, %%tmm4, %%tmm0\n\t" dp " %%tmm7, %%tmm4, %%tmm1\n\t" dp \
                                " %%tmm6, %%tmm5, %%tmm2\n\t" dp " %%tmm7, %%tmm5, %%tmm3" ::     \
                                 : "memory");                                                     \
    }                                                                                             \
    static void l1_##name(struct bench_thread *thread, long round)                                \
    {                                                                                             \
        const uint8_t *a = thread->memory, *b = a + L1_STEPS * 2 * TILE_BYTES;                    \
        for (int r = 0; r < L1_REPEATS; r++)                                                      \
            PACKED_PRODUCT(dp, a, b, L1_STEPS);                                                   \
    }                                                                                             \
    static void l2_##name(struct bench_thread *thread, long round)                                \
    {                                                                                             \
        const uint8_t *a = thread->memory, *b = a + L2_STEPS * 2 * TILE_BYTES;                    \
        PACKED_PRODUCT(dp, a, b, L2_STEPS);                                                       \
    }                                                                                             \
    static void memory_##name(struct bench_thread *thread, long round)                            \
    {                                                                                             \
        const uint8_t *a = part_at(thread, round, MEMORY_STEPS * 4 * TILE_BYTES);                 \
        const uint8_t *b = a + MEMORY_STEPS * 2 * TILE_BYTES;                                     \
        PACKED_PRODUCT(dp, a, b, MEMORY_STEPS);                                                   \
    }                                                                                             \
    static struct tile_roofs measure_##name(double seconds)                                       \
    {                                                                                             \
        const double step_ops = 2.0 * 32 * 32 * (depth);                                          \
        return (struct tile_roofs){                                                               \
            .alone = median_rate(alone_##name, true, seconds) * ALONE_STEPS * step_ops,           \
            .l1 = median_rate(l1_##name, true, seconds) * L1_STEPS * L1_REPEATS * step_ops,       \
            .l2 = median_rate(l2_##name, true, seconds) * L2_STEPS * step_ops,                    \
            .memory = median_rate(memory_##name, true, seconds) * MEMORY_STEPS * step_ops,        \
        };                                                                                        \
    }
DEFINE_TILE_ROOFS(bf16, "tdpbf16ps", 32)
DEFINE_TILE_ROOFS(int8, "tdpbssd", 64)

double roofs_read_once(double seconds)
{
    return bench_rate(read_slices, NULL, NULL, seconds) * READ_BYTES;
}

double roofs_packed_l2_once(double seconds)
{
    const double step_ops = 2.0 * 32 * 32 * 32;
    return bench_rate(l2_bf16, tile_config_full, tile_release, seconds) * L2_STEPS * step_ops;
}

bool roofs_have_tiles(void)
{
    const uint32_t needed = CPU_AMX_TILE | CPU_AMX_INT8 | CPU_AMX_BF16;
    struct cpu_info info;
    cpu_detect(&info);
    return (cpu_present_flags(&info) & needed) == needed;
}

struct roofs roofs_measure(bool tiles, double seconds)
{
    struct roofs roofs = {.read = median_rate(read_slices, false, seconds) * READ_BYTES};
    if (tiles) {
        roofs.bf16 = measure_bf16(seconds);
        roofs.int8 = measure_int8(seconds);
    }
    return roofs;
}

static void print_tiles(const char *name, const struct tile_roofs *r)
{
    printf(", %s tiles alone %.0f, packed from L1 %.0f, L2 %.0f, memory %.0f GOP/s", name,
           r->alone * 1e-9, r->l1 * 1e-9, r->l2 * 1e-9, r->memory * 1e-9);
}

void roofs_print(const struct roofs *roofs)
{
    printf("roofs, %d threads: read %.1f GB/s", n_workers, roofs->read * 1e-9);
    if (roofs->bf16.alone > 0.0) {
        print_tiles("bf16", &roofs->bf16);
        print_tiles("int8", &roofs->int8);
    } else {
        printf(", tiles absent");
    }
    printf("\n");
}
