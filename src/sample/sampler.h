/* The next token from a row of logits: repetition penalty, top-k, top-p, min-p, temperature, in
 * this order, then one draw. The same seed, settings and logits give the same token. */
#ifndef TESSERA_SAMPLE_H
#define TESSERA_SAMPLE_H

#include "base/error.h"

struct sampler;

/* Errors: TSR_ENOMEM. */
int sampler_create(uint32_t n_vocab, struct sampler **sampler, struct tsr_error *error);
void sampler_free(struct sampler *sampler);

/* `recent` [n_recent]: the ids that the penalty looks at, oldest first. */
int32_t sampler_draw(struct sampler *sampler, const struct tsr_sampling *sampling,
                     const float *logits, const int32_t *recent, size_t n_recent);

#endif
