/* A team of threads that runs one function together (SPMD): the engine's only parallelism.
 *
 * Inside team_run every worker executes the same code. Between two barriers lies a *phase*; within
 * a phase the workers share out items 0, 1, 2, ... by taking the next one, so that a slow worker
 * takes fewer. Waiting is spinning first (the next phase is microseconds away), then sleeping.
 */
#ifndef TESSERA_BASE_TEAM_H
#define TESSERA_BASE_TEAM_H

#include "base/error.h"

struct team;

struct worker {
    struct team *team;
    int index; /* 0 is the thread that called team_run */
    int count; /* workers of this run */
};

typedef void team_fn(struct worker *worker, void *arg);

/* `cpus` lists the CPU for each worker, [n_threads]; NULL: not pinned. Worker 0 is the caller of
 * team_run, whose affinity is left alone. Errors: TSR_ENOMEM, TSR_ESYSTEM. */
int team_create(int n_threads, const int *cpus, struct team **team, struct tsr_error *error);
void team_destroy(struct team *team);
int team_size(const struct team *team);

/* Runs fn on the first n_workers workers and returns when all are done. One run at a time. */
void team_run(struct team *team, int n_workers, team_fn *fn, void *arg);

/* Waits until every worker of the run has come here; what was written before is seen after.
 * Starts a new phase. */
void team_barrier(struct worker *worker);

/* The next item of this phase; items count from 0 and never end: stop at your own limit. */
int team_take(struct worker *worker);

/* The share [*begin, *end) of n items of this worker: contiguous, equal to within `align`. */
void team_share(const struct worker *worker, int n, int align, int *begin, int *end);

#endif
