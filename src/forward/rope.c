#include "forward/rope.h"

#include <math.h>

/* YaRN (arXiv 2309.00071, section 3.2): the pair whose wave makes `turns` turns within the original
 * context. */
static double yarn_pair(const struct rope_params *rope, double turns)
{
    const double two_pi = 6.283185307179586;
    return rope->n_rot * log(rope->n_ctx_orig / (turns * two_pi)) / (2.0 * log(rope->base));
}

/* 1 where the frequency is kept, 0 where it is interpolated, linear between. */
static double yarn_keep(const struct rope_params *rope, uint32_t pair)
{
    double low = fmax(0.0, floor(yarn_pair(rope, rope->yarn_beta_fast)));
    double high = fmin(rope->n_rot - 1.0, ceil(yarn_pair(rope, rope->yarn_beta_slow)));
    double ramp = (pair - low) / fmax(0.001, high - low);
    return 1.0 - fmin(1.0, fmax(0.0, ramp));
}

void rope_frequencies(const struct rope_params *rope, const float *factors, double *frequencies)
{
    for (uint32_t i = 0; i < rope->n_rot / 2; i++) {
        double own = pow(rope->base, -2.0 * i / rope->n_rot) / (factors ? factors[i] : 1.0);
        double keep = rope->yarn ? yarn_keep(rope, i) : 0.0;
        frequencies[i] = own * (rope->scale * (1.0 - keep) + keep);
    }
}

void rope_angles(const struct rope_params *rope, const double *frequencies, uint32_t position,
                 float *cos_out, float *sin_out)
{
    for (uint32_t i = 0; i < rope->n_rot / 2; i++) {
        double theta = position * frequencies[i];
        cos_out[i] = (float)cos(theta) * rope->attention_factor;
        sin_out[i] = (float)sin(theta) * rope->attention_factor;
    }
}
