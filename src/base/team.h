/* A team of threads that runs one function together (SPMD): the engine's only parallelism.
 *
 * Inside team_run every worker executes the same code. Between two barriers lies a *phase*; within
 * a phase the workers share out items 0, 1, 2, ... by taking the next one, so that a slow worker
 * takes fewer. Items come from queues, one for each NUMA node whose memory the team divides work
 * by. Waiting is spinning first (the next phase is microseconds away), then sleeping.
 */
#ifndef TESSERA_BASE_TEAM_H
#define TESSERA_BASE_TEAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum { TEAM_QUEUES_MAX = 16 };

struct team;

/* Where a worker sits. */
struct seat {
    int cpu;  /* -1: not pinned */
    int node; /* its queue, 0 .. TEAM_QUEUES_MAX - 1 */
};

struct worker {
    struct team *team;
    int index; /* 0 is the thread that called team_run */
    int count; /* workers of this run */
    int node;  /* of its seat */
};

typedef void team_fn(struct worker *worker, void *arg);

/* `seats` has one for each worker, [n_threads]; NULL: none is pinned, all are on node 0. Worker 0
 * is the caller of team_run: where it runs elsewhere, it is pinned to its seat during the run and
 * gets its affinity back after.
 * Errors: TSR_EINVAL, TSR_ENOMEM, TSR_ESYSTEM. */
int team_create(int n_threads, const struct seat *seats, struct team **team,
                struct tsr_error *error);
void team_destroy(struct team *team);
int team_size(const struct team *team);

/* Runs fn on the first n_workers workers and returns when all are done; the others stay asleep.
 * One run at a time. */
void team_run(struct team *team, int n_workers, team_fn *fn, void *arg);

/* Waits until every worker of the run has come here; what was written before is seen after.
 * Starts a new phase. */
void team_barrier(struct worker *worker);

/* The same in two steps, between which a worker may do what others do not wait for, until
 * team_passed tells that all have come. An arrival is the number of the phase that ends. */
uint32_t team_arrive(struct worker *worker);
bool team_passed(const struct worker *worker, uint32_t arrival);
void team_wait(struct worker *worker, uint32_t arrival);

/* The next item of this phase; items count from 0 and never end: stop at your own limit. */
int team_take(struct worker *worker);

/* The same from the queue of a node; team_take is queue 0. */
int team_take_from(struct worker *worker, int node);

/* Nodes that the team's seats are on: 1 + the highest. */
int team_nodes(const struct worker *worker);

/* Whether a worker of this run sits on the node. */
bool team_serves(const struct worker *worker, int node);

/* Waits until *count is `value`, which other workers bring it to without waiting for this one. What
 * they wrote before (with a release) is seen after. */
void team_await(const _Atomic uint32_t *count, uint32_t value);

/* The share [*begin, *end) of n items of this worker: contiguous, equal to within `align`. */
void team_share(const struct worker *worker, int n, int align, int *begin, int *end);

#endif
