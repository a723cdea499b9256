/* Random weights in any block type, for models that need to be run but not to make sense. */
#ifndef TESSERA_BENCH_RANDOM_WEIGHTS_H
#define TESSERA_BENCH_RANDOM_WEIGHTS_H

#include "kernels/kernel.h"

/* splitmix64 (https://prng.di.unimi.it/splitmix64.c): the next number of the stream. */
uint64_t random_next(uint64_t *state);

/* n_bytes (a multiple of the type's block) of weights with mean about 0 and deviation about
 * `sigma`. Types without de-quantization get random bytes. */
void random_weights(const struct block_type *type, void *blocks, size_t n_bytes, float sigma,
                    uint64_t *state);

#endif
