/* How far one set of logits is from another. */
#ifndef TESSERA_TESTS_DIVERGENCE_H
#define TESSERA_TESTS_DIVERGENCE_H

#include <stddef.h>

/* KL(p || q) of two rows of n logits, in nats. */
double kl_divergence(const float *p, const float *q, size_t n);

/* Its mean over the rows of p and q, [n_rows, n]. */
double mean_kl_divergence(const float *p, const float *q, size_t n_rows, size_t n);

#endif
