#include "tests/support/divergence.h"

#include <math.h>

static double log_sum_exp(const float *row, size_t n)
{
    double max = row[0], sum = 0.0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, row[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp(row[i] - max);
    return max + log(sum);
}

double kl_divergence(const float *p, const float *q, size_t n)
{
    double norm_p = log_sum_exp(p, n), norm_q = log_sum_exp(q, n), kl = 0.0;
    for (size_t i = 0; i < n; i++)
        kl += exp(p[i] - norm_p) * ((p[i] - norm_p) - (q[i] - norm_q));
    return kl;
}

double mean_kl_divergence(const float *p, const float *q, size_t n_rows, size_t n)
{
    double total = 0.0;
    for (size_t row = 0; row < n_rows; row++)
        total += kl_divergence(p + row * n, q + row * n, n);
    return total / (double)n_rows;
}
