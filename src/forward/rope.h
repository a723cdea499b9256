/* Rotary position embedding: the angles. The rotation itself is a row operation of the kernels. */
#ifndef TESSERA_FORWARD_ROPE_H
#define TESSERA_FORWARD_ROPE_H

#include "model/model.h"

/* Frequencies [n_rot / 2] of a model: base^(-2i / n_rot), divided by the model's own `factors`
 * where it has them (NULL: none), interpolated as rope.scale and YaRN say. */
void rope_frequencies(const struct rope_params *rope, const float *factors, double *frequencies);

/* cos and sin [n_rot / 2] of one position. */
void rope_angles(const struct rope_params *rope, const double *frequencies, uint32_t position,
                 float *cos_out, float *sin_out);

#endif
