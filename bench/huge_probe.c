/* What huge pages do on this machine, step by step:
 *
 *     tessera-huge-probe [MIB [THREADS]]
 *
 * Maps memory without and with a wish for huge pages, writes it from all threads at once, reads it
 * back and measures how fast it is read. Each step is named before it is done, so that a crash can
 * be told from the last line. Exit status 1 when a byte read back is wrong. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"

enum { MAX_THREADS = 1024, PIECE = 256 << 10, ROUNDS = 5 };

struct work {
    uint64_t *data;
    size_t n_pieces;
    size_t index, count;
    bool write;
    uint64_t sum;
};

/* Pieces in turn: several threads meet in every huge page, as when it is first touched. */
static void *run_share(void *arg)
{
    struct work *work = arg;
    const size_t words = PIECE / sizeof(uint64_t);
    uint64_t sums[8] = {0};
    for (size_t piece = work->index; piece < work->n_pieces; piece += work->count) {
        uint64_t *at = work->data + piece * words;
        for (size_t i = 0; i < words; i += 8)
            for (size_t j = 0; j < 8; j++) {
                if (work->write)
                    at[i + j] = piece * words + i + j;
                else
                    sums[j] += at[i + j];
            }
    }
    for (int j = 0; j < 8; j++)
        work->sum += sums[j];
    return NULL;
}

/* Seconds; adds up what was read. */
static double run_all(uint64_t *data, size_t bytes, int n_threads, bool write, uint64_t *sum)
{
    static struct work works[MAX_THREADS];
    static pthread_t threads[MAX_THREADS];
    struct timespec begin, end;
    *sum = 0;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < n_threads; i++) {
        works[i] = (struct work){.data = data,
                                 .n_pieces = bytes / PIECE,
                                 .index = (size_t)i,
                                 .count = (size_t)n_threads,
                                 .write = write};
        if (pthread_create(&threads[i], NULL, run_share, &works[i])) {
            perror("pthread_create");
            exit(1);
        }
    }
    for (int i = 0; i < n_threads; i++) {
        pthread_join(threads[i], NULL);
        *sum += works[i].sum;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
}

static void step(const char *name)
{
    printf("  %s\n", name);
    fflush(stdout);
}

static bool probe(size_t bytes, int n_threads, int advice, const char *name)
{
    printf("%s:\n", name);
    step("map");
    uint8_t *memory = mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    uint64_t *data = (uint64_t *)(memory + (HUGE_PAGE - (uintptr_t)memory % HUGE_PAGE) % HUGE_PAGE);
    step("madvise");
    if (madvise(data, bytes, advice))
        printf("    refused: %s\n", strerror(errno));
    step("write from all threads");
    uint64_t sum, n = bytes / sizeof(uint64_t), right = n % 2 ? (n - 1) / 2 * n : n / 2 * (n - 1);
    double seconds = run_all(data, bytes, n_threads, true, &sum);
    printf("    %.2f GB/s, new pages included; %.1f of %.1f MiB in huge pages\n",
           (double)bytes / seconds / 1e9, (double)memory_huge_bytes(data, bytes) / (1 << 20),
           (double)bytes / (1 << 20));
    step("read back");
    double best = 0;
    bool good = true;
    for (int i = 0; i < ROUNDS; i++) {
        seconds = run_all(data, bytes, n_threads, false, &sum);
        good = good && sum == right;
        best = (double)bytes / seconds > best ? (double)bytes / seconds : best;
    }
    printf("    %s; %.2f GB/s, best of %d\n", good ? "right" : "WRONG", best / 1e9, ROUNDS);
    step("unmap");
    munmap(memory, bytes + HUGE_PAGE);
    return good;
}

static void print_setting(const char *name)
{
    char path[128], line[128] = "-\n";
    snprintf(path, sizeof path, "/sys/kernel/mm/transparent_hugepage/%s", name);
    FILE *file = fopen(path, "re");
    if (file && !fgets(line, sizeof line, file))
        line[0] = '\n';
    if (file)
        fclose(file);
    printf("%s: %s", name, line);
}

int main(int argc, char **argv)
{
    long mib = argc > 1 ? atol(argv[1]) : 1024;
    long n_threads = argc > 2 ? atol(argv[2]) : sysconf(_SC_NPROCESSORS_ONLN);
    if (argc > 3 || mib < 2 || n_threads < 1 || n_threads > MAX_THREADS) {
        fprintf(stderr, "usage: tessera-huge-probe [MIB [THREADS]]\n");
        return 2;
    }
    print_setting("enabled");
    print_setting("defrag");
    printf("%ld MiB, %ld threads\n", mib, n_threads);
    size_t bytes = (size_t)mib << 20;
    bool good = probe(bytes, (int)n_threads, MADV_NOHUGEPAGE, "without huge pages");
    good = probe(bytes, (int)n_threads, MADV_HUGEPAGE, "with huge pages") && good;
    return good ? 0 : 1;
}
