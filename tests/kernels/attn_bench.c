/* Speed of attention on all threads, each with heads of its own: d 128, 8 query rows a token.
 *
 *     attn_bench [-t THREADS] [-m MILLISECONDS] [-n TOKENS] [-k DEPTH,..] [-c f16|bf16]
 *
 * Prompts: TOKENS tokens (512) behind DEPTH keys, in calls of as many rows as the kernel asks for.
 * Rows: calls of few rows to a prompt, for the number from which tiles pay.
 * Generation: one token with 1, 4, 8 or 16 rows, keys and values streaming from memory.
 *
 * The levels are measured in turn, several times, the roofs just before; medians count. Operations
 * are 4 * d for each key that a row sees. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "kernels/kernel.h"
#include "bench/roofs.h"

enum { D = 128, GROUP = 8, MAX_LEVELS = 4, MAX_DEPTHS = 8, REPEATS = 3, ROW_KEYS = 2048 };

static struct {
    double seconds;
    int n_threads, n_tokens;
    int depths[MAX_DEPTHS], n_depths;
    enum kv_type cache;
} options = {0.2, 0, 512, {0, 2048, 8192}, 3, KV_F16};

static struct kernel_set levels[MAX_LEVELS];
static int n_levels;

/* What the threads do: `m` rows of tokens that stand behind `depth` keys. */
static struct {
    const struct row_ops *ops;
    int m, m_max, depth;
    int32_t *n_keys; /* [m_max] */
    size_t scratch_bytes;
    size_t head_bytes; /* of a head's keys, and of its values */
} job;

static size_t rows_bytes(void)
{
    return (size_t)job.m_max * D * sizeof(float);
}

/* ---- On the threads -------------------------------------------------------------------------- */

/* A thread's memory: queries, output, scratch, then keys and values of one head after another. */
static uint8_t *heads_of(const struct bench_thread *thread)
{
    return thread->memory + 2 * rows_bytes() + job.scratch_bytes;
}

static void fill(struct bench_thread *thread, long round)
{
    float *q = (float *)thread->memory;
    uint16_t *heads = (uint16_t *)heads_of(thread);
    size_t n = (size_t)((thread->memory + thread->memory_bytes) - heads_of(thread)) / sizeof *heads;
    uint32_t state = 1;
    for (size_t i = 0; i < (size_t)job.m_max * D; i++, state = state * 1664525u + 1013904223u)
        q[i] = (float)(state >> 8) * 0x1p-23f - 1.0f;
    for (size_t i = 0; i < n; i++, state = state * 1664525u + 1013904223u)
        heads[i] = (uint16_t)(0x3000 | (state >> 16 & 0x8bff)); /* small in all types */
}

static void attend(struct bench_thread *thread, long round)
{
    size_t room = (size_t)(thread->memory + thread->memory_bytes - heads_of(thread));
    const uint8_t *head =
        heads_of(thread) + (size_t)round % (room / (2 * job.head_bytes)) * 2 * job.head_bytes;
    for (int row = 0; row < job.m; row += job.ops->attn_rows) {
        int left = job.m - row;
        struct attn_args args = {
            .q = (const float *)thread->memory + (size_t)row * D,
            .q_stride = D,
            .m = left < job.ops->attn_rows ? left : job.ops->attn_rows,
            .n_keys = job.n_keys + row,
            .key1 = job.n_keys[job.m - 1],
            .kv_type = options.cache,
            .k = head,
            .v = head + job.head_bytes,
            .k_stride = kv_row_bytes(options.cache, D),
            .v_stride = kv_row_bytes(options.cache, D),
            .d_k = D,
            .d_v = D,
            .scale = 1.0f / sqrtf(D),
            .out = (float *)(thread->memory + rows_bytes()) + (size_t)row * D,
            .out_stride = D,
            .scratch = thread->memory + 2 * rows_bytes(),
        };
        job.ops->attention(&args);
    }
}

/* ---- Measurements ---------------------------------------------------------------------------- */

static void *reserve(size_t n_bytes)
{
    void *memory = malloc(n_bytes);
    if (!memory) {
        fprintf(stderr, "no memory for %zu bytes\n", n_bytes);
        exit(1);
    }
    return memory;
}

static void prepare(void)
{
    int deepest = ROW_KEYS;
    for (int i = 0; i < options.n_depths; i++)
        deepest = options.depths[i] > deepest ? options.depths[i] : deepest;
    job.m_max = options.n_tokens * GROUP > 512 ? options.n_tokens * GROUP : 512;
    job.n_keys = reserve((size_t)job.m_max * sizeof *job.n_keys);
    for (int i = 0; i < n_levels; i++) {
        size_t bytes = levels[i].rows.attn_scratch_bytes(D, D);
        job.scratch_bytes = bytes > job.scratch_bytes ? bytes : job.scratch_bytes;
    }
    size_t keys = (size_t)deepest + (size_t)job.m_max;
    bench_reserve(2 * rows_bytes() + job.scratch_bytes + 4 * keys * D * sizeof(uint16_t));
    bench_each(fill);
}

/* m rows behind `depth` keys, `group` to a token; a line for each level. */
static void measure(const char *what, int m, int group, int depth, const struct roofs *roofs)
{
    double rates[MAX_LEVELS][REPEATS], n_pairs = 0.0;
    job.m = m;
    for (int row = 0; row < m; row++) {
        job.n_keys[row] = depth + row / group + 1;
        n_pairs += job.n_keys[row];
    }
    job.head_bytes = (size_t)job.n_keys[m - 1] * kv_row_bytes(options.cache, D);
    for (int r = 0; r < REPEATS; r++)
        for (int i = 0; i < n_levels; i++) {
            job.ops = &levels[i].rows;
            rates[i][r] = bench_rate(attend, NULL, NULL, options.seconds);
        }
    for (int i = 0; i < n_levels; i++) {
        double rate = bench_median(rates[i], REPEATS), ops = rate * 4.0 * D * n_pairs;
        double bytes = rate * 2.0 * (double)job.head_bytes;
        printf("%-10s %-8s %5d %6d %9.1f %8.2f %6.1f", what, levels[i].rows.name, m, depth,
               ops * 1e-9, bytes * 1e-9, 100.0 * bytes / roofs->read);
        if (roofs->bf16.alone > 0.0)
            printf(" %7.1f", 100.0 * ops / roofs->bf16.l2);
        printf("\n");
        fflush(stdout);
    }
}

static void measure_all(bool tiles)
{
    static const int rows[] = {1, 4, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512};
    struct roofs roofs = roofs_measure(tiles, options.seconds);
    roofs_print(&roofs);
    printf("%-10s %-8s %5s %6s %9s %8s %6s%s\n", "", "", "rows", "depth", "GFLOP/s", "GB/s",
           "% read", tiles ? "    % L2" : "");
    for (int i = 0; i < options.n_depths; i++)
        measure("prompt", options.n_tokens * GROUP, GROUP, options.depths[i], &roofs);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        measure("rows", rows[i], GROUP, ROW_KEYS, &roofs);
    for (int i = 0; i < options.n_depths; i++)
        for (int m = 1; m <= 16 && options.depths[i] > 0; m = m == 1 ? 4 : 2 * m)
            measure("generation", m, m, options.depths[i], &roofs);
}

/* ---- Start ----------------------------------------------------------------------------------- */

static void usage(void)
{
    fputs("usage: attn_bench [-t THREADS] [-m MILLISECONDS] [-n TOKENS] [-k DEPTH,..] "
          "[-c F16|BF16|Q8_0]\n", stderr);
    exit(2);
}

static void parse_depths(const char *text)
{
    int used = 0;
    for (options.n_depths = 0; *text && options.n_depths < MAX_DEPTHS; options.n_depths++) {
        int *depth = &options.depths[options.n_depths];
        if (sscanf(text, "%d%n", depth, &used) != 1 || *depth < 0 || *depth > 1 << 20)
            usage();
        text += used + (text[used] == ',');
    }
    if (*text)
        usage();
}

static void parse_cache(const char *name)
{
    static const enum kv_type types[] = {KV_F16, KV_BF16, KV_Q8_0};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(block_type_find(types[i])->name, name) == 0) {
            options.cache = types[i];
            return;
        }
    usage();
}

static void parse(int argc, char **argv)
{
    for (int c; (c = getopt(argc, argv, "t:m:n:k:c:")) != -1;) {
        if (c == 't')
            options.n_threads = atoi(optarg);
        else if (c == 'm')
            options.seconds = atof(optarg) * 1e-3;
        else if (c == 'n')
            options.n_tokens = atoi(optarg);
        else if (c == 'k')
            parse_depths(optarg);
        else if (c == 'c')
            parse_cache(optarg);
        else
            usage();
    }
    if (options.n_tokens < 1 || options.n_tokens > 1 << 16 || options.seconds <= 0.0)
        usage();
}

/* The levels of this machine, from AVX2 on: each adds to the one before. */
static void find_levels(uint32_t flags)
{
    static const uint32_t steps[MAX_LEVELS] = {
        CPU_AVX2,
        CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI,
        CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI | CPU_AMX_TILE | CPU_AMX_BF16,
    };
    for (int i = 0; i < MAX_LEVELS && steps[i]; i++)
        if (!(steps[i] & ~flags))
            kernel_set_init(&levels[n_levels++], steps[i]);
}

int main(int argc, char **argv)
{
    struct cpu_info info;
    uint32_t flags;
    parse(argc, argv);
    cpu_detect(&info);
    if (cpu_select(&info, TSR_ISA_AUTO, TSR_AUTO, false, &flags, NULL))
        return 1;
    find_levels(flags);
    if (n_levels == 0) {
        fputs("this CPU has no AVX2\n", stderr);
        return 77;
    }
    int n_threads = bench_start(options.n_threads);
    printf("%s, %d threads, d %d, %d rows a token, cache in %s\n", info.model, n_threads, D, GROUP,
           block_type_find(options.cache)->name);
    prepare();
    measure_all(flags & CPU_AMX_TILE);
    bench_stop();
    free(job.n_keys);
    return 0;
}
