/* Speed of GEMM records beside the roofs of the same process. */
#ifndef TESSERA_TESTS_GEMM_BENCH_H
#define TESSERA_TESTS_GEMM_BENCH_H

#include <stdbool.h>

#include "kernels/kernel.h"

enum { BENCH_MAX_ROWS = 2048, BENCH_LIST = 16 };

struct bench_shape {
    int n, k;
};

struct bench_options {
    int n_threads;     /* 0: one for each core */
    double seconds;    /* of a measurement */
    const char *types; /* "Q4_0,Q4_K"; "" for all */
    int rows[BENCH_LIST], n_rows;
    struct bench_shape shapes[BENCH_LIST];
    int n_shapes;
    bool tiles; /* this machine has them */
};

/* Measures and prints the roofs, then a line for every shape, record and number of rows. */
void bench_kernels(const struct gemm_kernel *kernels, int n, const struct bench_options *options);

/* "1,16" and "768x2048,2048x768"; false where it cannot be read, or a number is out of range. */
bool bench_parse_rows(const char *text, struct bench_options *options);
bool bench_parse_shapes(const char *text, struct bench_options *options);

#endif
