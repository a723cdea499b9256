/* Speed of GEMM records, in percent of the streaming read of the same process. */
#ifndef TESSERA_TESTS_GEMM_BENCH_H
#define TESSERA_TESTS_GEMM_BENCH_H

#include "kernels/kernel.h"

enum { BENCH_MAX_THREADS = 512 };

/* Starts the threads, measures and prints the roof. Ends the program where it cannot. */
void bench_start(int n_threads);

/* A line for every shape: GB/s of packed weights, percent of the roof, GOP/s (2 * m * n * k). */
void bench_kernel(const struct gemm_kernel *kernel);

void bench_stop(void);

#endif
