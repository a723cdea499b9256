/* The forward pass of one sequence: token ids in, logits out.
 *
 * One team run evaluates a whole batch (SPMD): every worker walks the layers together, phase by
 * phase. docs/architecture.md draws the phases of a layer.
 */
#ifndef TESSERA_FORWARD_H
#define TESSERA_FORWARD_H

#include <stdatomic.h>

#include "forward/kv.h"
#include "forward/profile.h"
#include "load/weights.h"

struct forward;

/* Buffers for batches of up to n_batch tokens and up to n_workers workers. The plan and its weights
 * outlive it. Errors: TSR_ENOMEM. */
int forward_create(const struct plan *plan, const struct weights *weights, int n_batch,
                   int n_workers, struct forward **forward, struct tsr_error *error);
/* The bytes that forward_create would take. */
int forward_plan(const struct plan *plan, int n_batch, int n_workers, uint64_t *bytes,
                 struct tsr_error *error);
void forward_free(struct forward *forward);
size_t forward_scratch_bytes(const struct forward *forward);

struct forward_batch {
    const int32_t *ids;   /* [n_tokens], checked by the caller against the vocabulary */
    int n_tokens;         /* 1 .. n_batch */
    uint32_t position;    /* of the first token: so many are in the cache */
    struct kv_cache *kv;  /* position + n_tokens <= n_ctx */
    float *logits;        /* [n_tokens, n_vocab], or [1, n_vocab] of the last token */
    bool all_logits;
    const atomic_bool *cancel; /* seen between layers */
    /* Called by the caller's thread before each layer; false cancels. NULL: not. */
    bool (*progress)(void *user, int layer, int n_layer);
    void *user;
};

/* On n_workers workers, or as many as there are buffers for. True when done, false when cancelled
 * (the cache then has rubbish from `position` on). */
bool forward_run(struct forward *forward, struct team *team, int n_workers,
                 const struct forward_batch *batch);

/* From now on the time of each phase is measured. Errors: TSR_ENOMEM. */
int forward_profile(struct forward *forward, struct tsr_error *error);
/* The times since the last call, [PHASE_COUNT]; returns how many: 0 where none are measured. */
int forward_take_profile(struct forward *forward, struct phase_time *times);

#endif
