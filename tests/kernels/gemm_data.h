/* Weights and activations that are hard on a product: what check_gemm multiplies. */
#ifndef TESSERA_TESTS_GEMM_DATA_H
#define TESSERA_TESTS_GEMM_DATA_H

#include "kernels/kernel.h"

enum weights_kind {
    WEIGHTS_RANDOM,   /* as a model has them */
    WEIGHTS_BITS,     /* any bit pattern whose scales are finite */
    WEIGHTS_ZERO,     /* all bytes zero */
    WEIGHTS_EXTREME,  /* codes and sub-block scales at their ends, block by block */
    WEIGHTS_TINY,     /* scales are subnormal */
    WEIGHTS_NEGATIVE, /* scales and mins are negative */
    WEIGHTS_EXACT,    /* integers: with ACTS_EXACT a product of floats has no rounding */
    WEIGHTS_KINDS
};

enum acts_kind {
    ACTS_RANDOM,    /* uniform in -1 .. 1 */
    ACTS_OUTLIERS,  /* one of 64 is 10,000 times larger */
    ACTS_ZERO,
    ACTS_SATURATED, /* all of one size: rows of plus, of minus, of both */
    ACTS_TINY,      /* 1e-42 .. 1e-28: around subnormal floats and the least scale */
    ACTS_EXACT,     /* a +-127 in every 32, the rest -1, 0 and 1 */
    ACTS_KINDS
};

extern const char *const weights_names[WEIGHTS_KINDS], *const acts_names[ACTS_KINDS];

/* n_bytes of whole blocks. */
void fill_weights(enum weights_kind kind, const struct block_type *type, void *blocks,
                  size_t n_bytes, uint64_t *seed);

/* x [m, k] */
void fill_acts(enum acts_kind kind, float *x, int m, int k, uint64_t *seed);

/* quantize_rows of m rows of k floats, ldx floats apart, into rows a_stride bytes apart. */
void quantize_whole_rows(const struct gemm_kernel *kernel, void *a, size_t a_stride, const float *x,
                         size_t ldx, int m, int k);

/* What a weight could be with other codes and the scales as they are: kernels that offset codes, or
 * keep minimums apart, add terms of this size, whatever the weight itself is. */
struct weight_range {
    float step;    /* from code to code */
    float spread;  /* from the least to the largest */
    float largest; /* of magnitudes */
};

/* Of each weight of a block [n_elems]; for floats the step and the spread are 0. */
void weight_ranges(const struct block_type *type, const void *block, struct weight_range *ranges);

#endif
