/* Where the time of the forward pass goes: for each phase, how long the workers worked and how long
 * they waited for each other at its end. */
#ifndef TESSERA_FORWARD_PROFILE_H
#define TESSERA_FORWARD_PROFILE_H

#include <stdint.h>

#include "base/team.h"

/* In the order of a pass. */
#define PHASE_MAP(X)                          \
    X(START, "start")                         \
    X(EMBED, "embedding")                     \
    X(NORM, "norms")                          \
    X(QUANTIZE, "quantization")               \
    X(QKV, "q, k, v")                         \
    X(ROTATE, "rotation, cache")              \
    X(ATTENTION, "attention")                 \
    X(ATTN_OUTPUT, "attention output")        \
    X(ROUTER, "router")                       \
    X(GATE_UP, "gate, up")                    \
    X(DOWN, "down")                           \
    X(SUM, "sum of experts")                  \
    X(OUTPUT, "output")

enum phase {
#define PHASE_ID(id, name) PHASE_##id,
    PHASE_MAP(PHASE_ID)
#undef PHASE_ID
    PHASE_COUNT
};

/* Nanoseconds, summed over the workers. */
struct phase_time {
    uint64_t work, wait;
};

struct profile;

/* NULL: out of memory. */
struct profile *profile_create(int n_workers);
void profile_free(struct profile *profile);

/* Before a run, by its caller; at its start, by each worker: waking up is waiting for START. */
void profile_call(struct profile *profile);
void profile_start(struct profile *profile, const struct worker *worker);

/* What the worker did since the last mark or barrier was work for `phase`. */
void profile_mark(struct profile *profile, const struct worker *worker, enum phase phase);
/* And that was waiting. */
void profile_waited(struct profile *profile, const struct worker *worker, enum phase phase);

/* The times since the last call, [PHASE_COUNT]; not during a run. */
void profile_take(struct profile *profile, struct phase_time *times);
const char *phase_name(enum phase phase);

#endif
