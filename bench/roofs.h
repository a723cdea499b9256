/* Threads that measure together, and with them what the machine can do at most: the roofs that
 * kernels are held against. */
#ifndef TESSERA_BENCH_ROOFS_H
#define TESSERA_BENCH_ROOFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Threads --------------------------------------------------------------------------------- */

/* A thread on a CPU of its own. */
struct bench_thread {
    int index;
    uint8_t *memory; /* first touched by this thread, aligned to 64 bytes */
    size_t memory_bytes;
    uint64_t sum; /* keeps what was read from being dropped */
};

typedef void bench_call(struct bench_thread *thread, long round);

/* Starts n threads, no more than there are CPUs; 0: one for each core. Returns how many. The memory
 * of all of them together is larger than the caches. Ends the program where it cannot. */
int bench_start(int n_threads);
void bench_stop(void);

/* Gives every thread at least that much memory; what was in it is lost. */
void bench_reserve(size_t memory_bytes);

/* One call on every thread, with round 0. */
void bench_each(bench_call *call);

/* Calls per second, summed over the threads: each repeats `call` for `seconds` with rounds from 1
 * on, after one that does not count. `begin` and `end`, where not NULL, come before and after. */
double bench_rate(bench_call *call, void (*begin)(void), void (*end)(void), double seconds);

/* Sorts. */
double bench_median(double *values, int n);

/* ---- Roofs ----------------------------------------------------------------------------------- */

/* Operations per second: of tile instructions alone; of a product of 2 x 2 tiles whose packed
 * operands come from L1, L2 and memory. */
struct tile_roofs {
    double alone, l1, l2, memory;
};

struct roofs {
    double read; /* bytes per second: each thread reads memory of its own, a part of what is
                    much larger than the caches, as several streams with prefetch */
    struct tile_roofs bf16, int8; /* zeros where there are no tiles */
};

/* Whether this machine has AMX tiles; asks for the permission to use them, so that it must come
 * before bench_start. */
bool roofs_have_tiles(void);

/* Medians of some measurements of `seconds` each. */
struct roofs roofs_measure(bool tiles, double seconds);

/* One measurement of a roof, to be had in turn with what is compared to it: of the streaming read,
 * bytes per second, and of packed bf16 tiles from L2, operations per second. */
double roofs_read_once(double seconds);
double roofs_packed_l2_once(double seconds);

void roofs_print(const struct roofs *roofs);

#endif
