/* Hyperparameters from a file's metadata. */
#ifndef TESSERA_MODEL_PARAMS_H
#define TESSERA_MODEL_PARAMS_H

#include "model/model.h"

/* Everything but n_vocab, which is a tensor's shape. Values are checked to be usable: non-zero,
 * divisible where heads share, small enough that products of any two fit 32 bits or are checked. */
int params_read(const struct gguf *gguf, const struct model_arch *arch, struct model_params *params,
                struct tsr_error *error);

#endif
