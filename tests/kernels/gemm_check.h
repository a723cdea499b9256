/* Checks of one GEMM record. */
#ifndef TESSERA_TESTS_GEMM_CHECK_H
#define TESSERA_TESTS_GEMM_CHECK_H

#include <stdbool.h>

#include "kernels/kernel.h"

struct report {
    const struct gemm_kernel *kernel;
    long n_checks, n_failed; /* the first few failures are printed as they happen */
};

__attribute__((format(printf, 2, 3))) void report_failure(struct report *report,
                                                          const char *format, ...);

/* Packing, unpacking and the product over a grid of shapes and data, in memory that ends at guard
 * pages and in memory that begins at them. `all`: the large grid. */
void check_products(struct report *report, bool all);

/* quantize_rows, on any bit patterns, against `reference`, the scalar one of ACT_Q8. */
void check_quantize(struct report *report, const struct gemm_kernel *reference);

#endif
