/* Packing of all planned matrices, in parallel, in the order of the file. */
#ifndef TESSERA_LOAD_PACK_H
#define TESSERA_LOAD_PACK_H

#include "load/weights.h"

/* Fills the arenas. Errors: TSR_ENOMEM, TSR_ECANCELED. */
int pack_tensors(const struct plan *plan, struct team *team, const struct weights *weights,
                 weights_progress_fn *progress, void *user, struct tsr_error *error);

#endif
