/* A plan of the public API: the engine that would be, and the memory of a session of it. */
#ifndef TESSERA_ENGINE_PLAN_H
#define TESSERA_ENGINE_PLAN_H

#include "engine.h"
#include "forward/forward.h"

struct tsr_plan {
    tsr_engine *engine; /* without weights, vocabulary and threads */
    struct session_shape session;
    uint64_t kv_bytes, scratch_bytes;
};

#endif
