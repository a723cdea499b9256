/* How fast a model is loaded, beside what the memory of this machine allows:
 *
 *     tessera-bench-load FILE [THREADS [ROUNDS]]
 *
 * Each round opens the model and then copies memory, with the same number of threads. Three copies:
 * between buffers that exist (the copy rate), from the file's mapping (in the page cache) into
 * memory that exists, and from there into new memory in huge pages, as a loader has to. Rates are in
 * bytes of the file per second; the best round counts. On a machine with other work, compare the CPU time
 * of the threads, which the columns "cpu" do. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <tessera/tessera.h>

#include "bench/process.h"

enum { MAX_THREADS = 256 };

struct share {
    pthread_t thread;
    char *to;
    const char *from;
    size_t bytes;
};

struct rate {
    const char *name;
    double wall, cpu; /* bytes per second: of time, and of CPU time of a thread times threads */
};

static double wall_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static double cpu_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void note_rate(struct rate *rate, size_t bytes, int n_threads, double wall, double cpu)
{
    wall = (double)bytes / (wall_now() - wall);
    cpu = (double)bytes * n_threads / (cpu_now() - cpu);
    rate->wall = wall > rate->wall ? wall : rate->wall;
    rate->cpu = cpu > rate->cpu ? cpu : rate->cpu;
}

static void *copy_share(void *arg)
{
    const struct share *share = arg;
    memcpy(share->to, share->from, share->bytes);
    return NULL;
}

static void copy(struct rate *rate, char *to, const char *from, size_t bytes, int n_threads)
{
    static struct share shares[MAX_THREADS];
    double wall = wall_now(), cpu = cpu_now();
    size_t each = bytes / (size_t)n_threads / 4096 * 4096;
    for (int i = 0; i < n_threads; i++) {
        size_t begin = each * (size_t)i;
        shares[i] = (struct share){.to = to + begin, .from = from + begin, .bytes = each};
        if (pthread_create(&shares[i].thread, NULL, copy_share, &shares[i]))
            exit(1);
    }
    for (int i = 0; i < n_threads; i++)
        pthread_join(shares[i].thread, NULL);
    note_rate(rate, each * (size_t)n_threads, n_threads, wall, cpu);
}

static char *new_memory(size_t bytes)
{
    char *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
}

/* The three copies: two of the first `bytes` of the file, which recycle memory, and one of all. */
static void copies(struct rate rates[3], int file, size_t bytes, size_t all, int n_threads)
{
    char *mapped = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, file, 0);
    if (mapped == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    char *to = new_memory(bytes), *from = new_memory(bytes);
    memset(to, 1, bytes);
    memset(from, 2, bytes);
    copy(&rates[0], to, from, bytes, n_threads);
    munmap(from, bytes);
    copy(&rates[1], to, mapped, bytes, n_threads);
    munmap(to, bytes);
    munmap(mapped, bytes);
    mapped = mmap(NULL, all, PROT_READ, MAP_PRIVATE, file, 0);
    if (mapped == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    to = new_memory(all);
    copy(&rates[2], to, mapped, all, n_threads);
    munmap(to, all);
    munmap(mapped, all);
}

/* `held`: memory of the process once it is loaded, to the bytes of the packed weights. */
static void load(struct rate *rate, const char *path, size_t bytes, int n_threads, double *held)
{
    struct tsr_settings settings = tsr_settings_default();
    struct tsr_error error;
    tsr_engine *engine;
    settings.model_path = path;
    settings.n_threads = n_threads;
    double wall = wall_now(), cpu = cpu_now();
    if (tsr_engine_open(&settings, &engine, &error)) {
        fprintf(stderr, "%s\n", error.text);
        exit(1);
    }
    note_rate(rate, bytes, n_threads, wall, cpu);
    struct tsr_engine_info info = {.struct_size = sizeof info};
    tsr_engine_info(engine, &info);
    *held = (double)process_bytes("RssAnon") / (double)info.packed_bytes;
    tsr_engine_close(engine);
}

int main(int argc, char **argv)
{
    int n_threads = argc > 2 ? atoi(argv[2]) : 2, rounds = argc > 3 ? atoi(argv[3]) : 5;
    struct stat status;
    int file = argc > 1 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0 || fstat(file, &status) || n_threads < 1 || n_threads > MAX_THREADS) {
        fprintf(stderr, "usage: tessera-bench-load FILE [THREADS [ROUNDS]]\n");
        return 2;
    }
    size_t bytes = (size_t)status.st_size, sample = bytes < 1u << 30 ? bytes : 1u << 30;
    struct rate rates[4] = {{.name = "copy in memory"},
                            {.name = "copy from the mapping"},
                            {.name = "the same into new pages"},
                            {.name = "load"}};
    double held = 0;
    struct rusage usage = {0};
    for (int i = 0; i < rounds; i++) {
        load(&rates[3], argv[1], bytes, n_threads, &held);
        if (i == 0) /* before the copies take as much */
            getrusage(RUSAGE_SELF, &usage);
        copies(rates, file, sample, bytes, n_threads);
    }
    printf("%.2f GB, %d threads, best of %d\n%-26s%10s%8s%10s%8s\n", (double)bytes / 1e9, n_threads,
           rounds, "", "GB/s", "%", "cpu GB/s", "%");
    for (int i = 0; i < 4; i++)
        printf("%-26s%10.2f%8.0f%10.2f%8.0f\n", rates[i].name, rates[i].wall / 1e9,
               100 * rates[i].wall / rates[0].wall, rates[i].cpu / 1e9,
               100 * rates[i].cpu / rates[0].cpu);
    printf("resident memory: peak %.3f of the file; then %.3f of the packed weights\n",
           (double)usage.ru_maxrss * 1024 / (double)bytes, held);
    return 0;
}
