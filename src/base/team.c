#include "base/team.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

/* Spinning covers the usual gap between phases and between tokens (tens of microseconds); after
 * about a fifth of a millisecond a waiter gives its core back. */
enum { SPIN_LIMIT = 8000, CACHE_LINE = 64 };

struct thread_slot {
    pthread_t thread;
    struct worker worker;
    int cpu; /* -1: not pinned */
};

/* The words that different threads write live on cache lines of their own. */
struct team {
    int n_threads;
    int n_started;
    struct thread_slot *slots; /* [n_threads]; slot 0 has no thread */
    team_fn *fn;
    void *arg;
    /* Run number in the high bits, workers of the run in the low 16: a worker that is not part of
     * a run reads nothing but this word. Zero workers: the team ends. */
    _Alignas(CACHE_LINE) _Atomic uint32_t ticket;
    _Atomic int ticket_sleepers;
    _Alignas(CACHE_LINE) _Atomic uint32_t phase;
    _Atomic int phase_sleepers;
    _Alignas(CACHE_LINE) _Atomic int arrived;
    _Alignas(CACHE_LINE) _Atomic int next_item;
};

enum { TICKET_WORKERS = 0xffff, TICKET_STEP = 0x10000 };

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* Returns when *word differs from `value`. */
static uint32_t wait_change(_Atomic uint32_t *word, _Atomic int *sleepers, uint32_t value)
{
    uint32_t now;
    for (int i = 0; i < SPIN_LIMIT; i++) {
        now = atomic_load_explicit(word, memory_order_acquire);
        if (now != value)
            return now;
        __builtin_ia32_pause();
    }
    atomic_fetch_add(sleepers, 1);
    while ((now = atomic_load(word)) == value)
        futex_wait(word, value);
    atomic_fetch_sub(sleepers, 1);
    return now;
}

/* The sequentially consistent store and load pair with wait_change: either the sleeper sees the new
 * value before it sleeps, or we see that it sleeps. */
static void publish(_Atomic uint32_t *word, _Atomic int *sleepers, uint32_t value)
{
    atomic_store(word, value);
    if (atomic_load(sleepers) > 0)
        futex_wake_all(word);
}

void team_barrier(struct worker *worker)
{
    struct team *team = worker->team;
    uint32_t phase = atomic_load_explicit(&team->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) + 1 < worker->count) {
        wait_change(&team->phase, &team->phase_sleepers, phase);
        return;
    }
    atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&team->next_item, 0, memory_order_relaxed);
    publish(&team->phase, &team->phase_sleepers, phase + 1);
}

int team_take(struct worker *worker)
{
    return atomic_fetch_add_explicit(&worker->team->next_item, 1, memory_order_relaxed);
}

void team_share(const struct worker *worker, int n, int align, int *begin, int *end)
{
    int64_t units = (n + (int64_t)align - 1) / align;
    int64_t first = units * worker->index / worker->count * align;
    int64_t last = units * (worker->index + 1) / worker->count * align;
    *begin = first < n ? (int)first : n;
    *end = last < n ? (int)last : n;
}

static void pin_to(int cpu)
{
    if (cpu < 0)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    /* A refusal (a mask that changed since) costs speed only. */
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

static void *thread_main(void *arg)
{
    struct thread_slot *slot = arg;
    struct team *team = slot->worker.team;
    pin_to(slot->cpu);
    for (uint32_t seen = TICKET_WORKERS;;) {
        seen = wait_change(&team->ticket, &team->ticket_sleepers, seen);
        int n_workers = (int)(seen & TICKET_WORKERS);
        if (n_workers == 0)
            return NULL;
        if (slot->worker.index >= n_workers)
            continue;
        slot->worker.count = n_workers;
        team->fn(&slot->worker, team->arg);
        team_barrier(&slot->worker);
    }
}

static void start_ticket(struct team *team, int n_workers)
{
    uint32_t run = (atomic_load_explicit(&team->ticket, memory_order_relaxed) & ~TICKET_WORKERS);
    publish(&team->ticket, &team->ticket_sleepers, (run + TICKET_STEP) | (uint32_t)n_workers);
}

void team_run(struct team *team, int n_workers, team_fn *fn, void *arg)
{
    struct worker *self = &team->slots[0].worker;
    self->count = n_workers;
    team->fn = fn;
    team->arg = arg;
    if (n_workers > 1)
        start_ticket(team, n_workers);
    fn(self, arg);
    team_barrier(self);
}

int team_size(const struct team *team)
{
    return team->n_threads;
}

void team_destroy(struct team *team)
{
    if (!team)
        return;
    start_ticket(team, 0);
    for (int i = 1; i <= team->n_started; i++)
        pthread_join(team->slots[i].thread, NULL);
    free(team->slots);
    free(team);
}

int team_create(int n_threads, const int *cpus, struct team **out, struct tsr_error *error)
{
    *out = NULL;
    if (n_threads < 1 || n_threads >= TICKET_WORKERS)
        return error_set(error, TSR_EINVAL, "%d threads: must be 1 to %d", n_threads,
                         TICKET_WORKERS - 1);
    struct team *team = mem_alloc(1, sizeof *team);
    struct thread_slot *slots = mem_alloc((size_t)n_threads, sizeof *slots);
    if (!team || !slots) {
        free(team);
        free(slots);
        return error_set(error, TSR_ENOMEM, "out of memory for a team of %d threads", n_threads);
    }
    team->n_threads = n_threads;
    team->slots = slots;
    atomic_store(&team->ticket, TICKET_WORKERS);
    for (int i = 0; i < n_threads; i++) {
        slots[i].worker = (struct worker){.team = team, .index = i, .count = n_threads};
        slots[i].cpu = cpus ? cpus[i] : -1;
    }
    for (int i = 1; i < n_threads; i++) {
        if (pthread_create(&slots[i].thread, NULL, thread_main, &slots[i]) != 0) {
            team_destroy(team);
            return error_set(error, TSR_ESYSTEM, "cannot start thread %d of %d: use fewer (-t)",
                             i + 1, n_threads);
        }
        team->n_started = i;
    }
    *out = team;
    return 0;
}
