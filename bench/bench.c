/* Prompt and generation speed of a model file, beside the streaming-read roof of the same run:
 *
 *     tessera-bench -m FILE [-p TOKENS] [-n TOKENS] [-r REPEATS] [-t THREADS] [-d DEPTH] [-b BATCH] [--isa ISA]
 *
 * Prompts are random ids, so that experts are chosen as widely as real text chooses them. Each
 * figure is the median of the repeats. */
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <tessera/tessera.h>

enum { MAX_REPEATS = 100, MAX_THREADS = 256, ROOF_BYTES = 256 << 20, ROOF_PASSES = 3 };

struct options {
    const char *model;
    int n_prompt, n_decode, repeats, threads, depth, batch;
    enum tsr_isa isa;
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* ---- The roof: every thread reads its own memory from end to end ---- */

struct reader {
    pthread_t thread;
    pthread_barrier_t *ready;
    uint64_t *memory;
    size_t n;
    uint64_t sum;
};

static void *read_memory(void *arg)
{
    struct reader *reader = arg;
    memset(reader->memory, 1, reader->n * sizeof *reader->memory);
    pthread_barrier_wait(reader->ready);
    for (int pass = 0; pass < ROOF_PASSES; pass++) {
        uint64_t sums[8] = {0}; /* independent chains, so that loads overlap */
        for (size_t i = 0; i + 8 <= reader->n; i += 8)
            for (size_t j = 0; j < 8; j++)
                sums[j] += reader->memory[i + j];
        for (size_t j = 0; j < 8; j++)
            reader->sum += sums[j];
    }
    pthread_barrier_wait(reader->ready);
    return NULL;
}

/* Bytes per second, or 0 when memory or threads are short. */
static double streaming_read_roof(int threads)
{
    static struct reader readers[MAX_THREADS];
    pthread_barrier_t ready;
    size_t bytes = ROOF_BYTES;
    uint8_t *memory = aligned_alloc(4096, bytes * (size_t)threads);
    if (!memory || pthread_barrier_init(&ready, NULL, (unsigned)threads + 1))
        return 0.0;
    for (int i = 0; i < threads; i++) {
        readers[i] = (struct reader){.ready = &ready,
                                     .memory = (uint64_t *)(memory + bytes * (size_t)i),
                                     .n = bytes / sizeof(uint64_t)};
        if (pthread_create(&readers[i].thread, NULL, read_memory, &readers[i]))
            exit(1);
    }
    pthread_barrier_wait(&ready);
    double start = now();
    pthread_barrier_wait(&ready);
    double seconds = now() - start;
    for (int i = 0; i < threads; i++)
        pthread_join(readers[i].thread, NULL);
    pthread_barrier_destroy(&ready);
    free(memory);
    return (double)bytes * threads * ROOF_PASSES / seconds;
}

/* ---- The model ---- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void fail(const tsr_engine *engine)
{
    fprintf(stderr, "tessera-bench: %s\n", tsr_engine_message(engine));
    exit(1);
}

static void random_ids(int32_t *ids, int n, uint32_t n_vocab)
{
    static uint64_t state = 88172645463325252u;
    for (int i = 0; i < n; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ids[i] = (int32_t)(state % n_vocab);
    }
}

/* Seconds for n tokens after `depth`, as one prompt or one by one. */
static double time_tokens(tsr_engine *engine, tsr_session *session, const struct options *o,
                          const int32_t *ids, int n, bool one_by_one)
{
    if (tsr_session_rewind(session, 0) ||
        (o->depth && tsr_session_eval(session, ids, (size_t)o->depth, NULL)))
        fail(engine);
    double start = now();
    int step = one_by_one ? 1 : n;
    for (int i = 0; i < n; i += step)
        if (tsr_session_eval(session, ids + o->depth + i, (size_t)step, NULL))
            fail(engine);
    return now() - start;
}

static void measure(tsr_engine *engine, const struct options *o, int n, bool one_by_one)
{
    if (n == 0)
        return;
    struct tsr_engine_info info = {.struct_size = sizeof info};
    tsr_engine_info(engine, &info);
    struct tsr_session_settings settings = tsr_session_settings_default();
    settings.n_ctx = (uint32_t)(o->depth + n);
    settings.n_batch = (uint32_t)o->batch;
    tsr_session *session;
    int32_t *ids = malloc((size_t)(o->depth + n) * sizeof *ids);
    if (!ids || tsr_session_open(engine, &settings, &session))
        fail(engine);
    double rates[MAX_REPEATS];
    for (int r = -1; r < o->repeats; r++) { /* the first warms up */
        random_ids(ids, o->depth + n, info.n_vocab);
        double seconds = time_tokens(engine, session, o, ids, n, one_by_one);
        if (r >= 0)
            rates[r] = n / seconds;
    }
    qsort(rates, (size_t)o->repeats, sizeof *rates, compare_doubles);
    printf("| %s%d @ %d | %d | %s | %.1f | %.1f - %.1f |\n", one_by_one ? "tg" : "pp", n, o->depth,
           o->threads, info.isa, rates[o->repeats / 2], rates[0], rates[o->repeats - 1]);
    fflush(stdout);
    tsr_session_close(session);
    free(ids);
}

/* ---- Options ---- */

static enum tsr_isa parse_isa(const char *name)
{
    static const char *const names[] = {"auto", "scalar", "avx2", "avx512", "amx"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum tsr_isa)i;
    fprintf(stderr, "tessera-bench: --isa %s: one of auto, scalar, avx2, avx512, amx\n", name);
    exit(2);
}

static int parse_count(const char *text, int least, int most)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*end || end == text || value < least || value > most) {
        fprintf(stderr, "tessera-bench: '%s': a number from %d to %d\n", text, least, most);
        exit(2);
    }
    return (int)value;
}

static struct options parse(int argc, char **argv)
{
    static const struct option names[] = {{"isa", required_argument, NULL, 'i'}, {0}};
    struct options o = {.n_prompt = 512, .n_decode = 128, .repeats = 5, .threads = 2, .batch = 512};
    for (int c; (c = getopt_long(argc, argv, "m:p:n:r:t:d:b:", names, NULL)) != -1;) {
        switch (c) {
        case 'm': o.model = optarg; break;
        case 'p': o.n_prompt = parse_count(optarg, 0, 1 << 20); break;
        case 'n': o.n_decode = parse_count(optarg, 0, 1 << 20); break;
        case 'r': o.repeats = parse_count(optarg, 1, MAX_REPEATS); break;
        case 't': o.threads = parse_count(optarg, 1, MAX_THREADS); break;
        case 'd': o.depth = parse_count(optarg, 0, 1 << 20); break;
        case 'b': o.batch = parse_count(optarg, 1, 1 << 20); break;
        case 'i': o.isa = parse_isa(optarg); break;
        default: exit(2);
        }
    }
    if (!o.model || optind != argc) {
        fprintf(stderr, "usage: tessera-bench -m FILE [-p N] [-n N] [-r N] [-t N] [-d N] "
                        "[-b N] [--isa NAME]\n");
        exit(2);
    }
    return o;
}

int main(int argc, char **argv)
{
    struct options o = parse(argc, argv);
    printf("streaming read, %d threads: %.1f GB/s\n\n", o.threads,
           streaming_read_roof(o.threads) / 1e9);
    struct tsr_settings settings = tsr_settings_default();
    settings.model_path = o.model;
    settings.n_threads = o.threads;
    settings.isa = o.isa;
    struct tsr_error error;
    tsr_engine *engine;
    double start = now();
    if (tsr_engine_open(&settings, &engine, &error)) {
        fprintf(stderr, "tessera-bench: %s\n", error.text);
        return 1;
    }
    printf("%s: opened in %.0f ms\n\n", o.model, 1e3 * (now() - start));
    printf("| test @ depth | threads | isa | tokens/s | range |\n|---|---|---|---|---|\n");
    measure(engine, &o, o.n_prompt, false);
    measure(engine, &o, o.n_decode, true);
    tsr_engine_close(engine);
    return 0;
}
