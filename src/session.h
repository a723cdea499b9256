/* A session behind the public API. */
#ifndef TESSERA_SESSION_H
#define TESSERA_SESSION_H

#include <stdatomic.h>

#include "engine.h"
#include "forward/forward.h"
#include "sample/sampler.h"

struct tsr_session {
    tsr_engine *engine;
    struct forward *forward;
    struct sampler *sampler;
    struct kv_cache kv;
    uint32_t n_ctx, n_batch;
    int32_t *ids;   /* [n_ctx]; the first n_past are in the cache */
    uint32_t n_past;
    float *logits;  /* [n_vocab] of the last position */
    bool has_logits;
    atomic_bool cancel;
    bool silent; /* tells no progress: something longer does */
    struct tsr_stats stats;
};

#endif
