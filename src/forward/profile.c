#include "forward/profile.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"

/* Each worker writes to cache lines of its own. */
struct worker_times {
    _Alignas(64) uint64_t last; /* mark or barrier */
    struct phase_time phases[PHASE_COUNT];
};

struct profile {
    int n_workers;
    uint64_t called;
    struct worker_times *workers; /* [n_workers] */
};

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

void profile_free(struct profile *profile)
{
    if (!profile)
        return;
    free(profile->workers);
    free(profile);
}

struct profile *profile_create(int n_workers)
{
    struct profile *profile = mem_alloc(1, sizeof *profile);
    if (!profile)
        return NULL;
    profile->n_workers = n_workers;
    profile->workers = mem_alloc((size_t)n_workers, sizeof *profile->workers);
    if (profile->workers)
        return profile;
    profile_free(profile);
    return NULL;
}

void profile_call(struct profile *profile)
{
    profile->called = now();
}

void profile_start(struct profile *profile, const struct worker *worker)
{
    struct worker_times *times = &profile->workers[worker->index];
    times->last = now();
    times->phases[PHASE_START].wait += times->last - profile->called;
}

void profile_mark(struct profile *profile, const struct worker *worker, enum phase phase)
{
    struct worker_times *times = &profile->workers[worker->index];
    uint64_t time = now();
    times->phases[phase].work += time - times->last;
    times->last = time;
}

void profile_waited(struct profile *profile, const struct worker *worker, enum phase phase)
{
    struct worker_times *times = &profile->workers[worker->index];
    uint64_t time = now();
    times->phases[phase].wait += time - times->last;
    times->last = time;
}

void profile_take(struct profile *profile, struct phase_time *times)
{
    memset(times, 0, PHASE_COUNT * sizeof *times);
    for (int i = 0; i < profile->n_workers; i++) {
        struct phase_time *own = profile->workers[i].phases;
        for (int phase = 0; phase < PHASE_COUNT; phase++) {
            times[phase].work += own[phase].work;
            times[phase].wait += own[phase].wait;
        }
        memset(own, 0, sizeof profile->workers[i].phases);
    }
}

const char *phase_name(enum phase phase)
{
    static const char *const names[PHASE_COUNT] = {
#define PHASE_NAME(id, name) [PHASE_##id] = (name),
        PHASE_MAP(PHASE_NAME)
#undef PHASE_NAME
    };
    return names[phase];
}
