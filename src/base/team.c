#include "base/team.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/mem.h"

/* Ticks of the time stamp counter, 2 to 4 of which are a nanosecond. Spinning covers the usual gap
 * between phases, which is some hundred microseconds where the items of a prompt end unevenly, and
 * between tokens; after that a waiter gives its core back. To sleep and be woken takes 50
 * microseconds or more on a virtual machine. A spinner that was taken off its core finds its time
 * spent when it returns, and sleeps at once: somebody else wants the core, and who sleeps is put
 * first when it is woken. */
enum { SPIN_TICKS = 1000000 };

enum { CACHE_LINE = 64, SPINS_PER_LOOK = 16 };

/* A worker that is not part of a run hears nothing of it: each has a ticket of its own. */
struct thread_slot {
    /* A number in the high bits, workers of the run in the low 16; zero workers: the team ends. */
    _Alignas(CACHE_LINE) _Atomic uint32_t ticket;
    _Atomic int sleepers; /* on the ticket */
    pthread_t thread;
    struct worker worker;
    int cpu; /* -1: not pinned */
};

struct queue {
    _Alignas(CACHE_LINE) _Atomic int next_item;
};

/* The words that different threads write live on cache lines of their own. */
struct team {
    int n_threads;
    int n_queues;
    int first_thread, end_thread; /* slots with a thread of their own */
    int first_on_node[TEAM_QUEUES_MAX]; /* lowest index of a worker; n_threads: none */
    struct thread_slot *slots;          /* [n_threads] */
    team_fn *fn;
    void *arg;
    _Alignas(CACHE_LINE) _Atomic uint32_t phase;
    _Atomic int phase_sleepers;
    _Alignas(CACHE_LINE) _Atomic int arrived;
    struct queue queues[TEAM_QUEUES_MAX];
};

enum { TICKET_WORKERS = 0xffff, TICKET_STEP = 0x10000 };

/* ---- Waiting --------------------------------------------------------------------------------- */

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* The word's new value, or `value` still when spinning has lasted long enough. */
static uint32_t spin(const _Atomic uint32_t *word, uint32_t value)
{
    uint64_t start = __builtin_ia32_rdtsc();
    do {
        for (int i = 0; i < SPINS_PER_LOOK; i++) {
            uint32_t now = atomic_load_explicit(word, memory_order_acquire);
            if (now != value)
                return now;
            __builtin_ia32_pause();
        }
    } while (__builtin_ia32_rdtsc() - start < SPIN_TICKS);
    return value;
}

static uint32_t sleep_until_changed(_Atomic uint32_t *word, _Atomic int *sleepers, uint32_t value)
{
    uint32_t now;
    atomic_fetch_add(sleepers, 1);
    while ((now = atomic_load(word)) == value)
        futex_wait(word, value);
    atomic_fetch_sub(sleepers, 1);
    return now;
}

/* Returns when *word differs from `value`. */
static uint32_t wait_change(_Atomic uint32_t *word, _Atomic int *sleepers, uint32_t value)
{
    uint32_t now = spin(word, value);
    return now != value ? now : sleep_until_changed(word, sleepers, value);
}

/* The sequentially consistent store and load pair with wait_change: either the sleeper sees the new
 * value before it sleeps, or we see that it sleeps. */
static void publish(_Atomic uint32_t *word, _Atomic int *sleepers, uint32_t value)
{
    atomic_store(word, value);
    if (atomic_load(sleepers) > 0)
        futex_wake_all(word);
}

/* ---- Inside a run ---------------------------------------------------------------------------- */

uint32_t team_arrive(struct worker *worker)
{
    struct team *team = worker->team;
    uint32_t phase = atomic_load_explicit(&team->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) + 1 < worker->count)
        return phase;
    atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
    for (int i = 0; i < team->n_queues; i++)
        atomic_store_explicit(&team->queues[i].next_item, 0, memory_order_relaxed);
    publish(&team->phase, &team->phase_sleepers, phase + 1);
    return phase;
}

bool team_passed(const struct worker *worker, uint32_t arrival)
{
    return atomic_load_explicit(&worker->team->phase, memory_order_acquire) != arrival;
}

void team_wait(struct worker *worker, uint32_t arrival)
{
    wait_change(&worker->team->phase, &worker->team->phase_sleepers, arrival);
}

void team_barrier(struct worker *worker)
{
    team_wait(worker, team_arrive(worker));
}

int team_take_from(struct worker *worker, int node)
{
    return atomic_fetch_add_explicit(&worker->team->queues[node].next_item, 1,
                                     memory_order_relaxed);
}

int team_take(struct worker *worker)
{
    return team_take_from(worker, 0);
}

void team_await(const _Atomic uint32_t *count, uint32_t value)
{
    uint32_t now = atomic_load_explicit(count, memory_order_acquire);
    while (now != value) {
        uint32_t before = now;
        now = spin(count, before);
        if (now == before)
            sched_yield(); /* somebody else may want the core that the work waits for */
    }
}

int team_nodes(const struct worker *worker)
{
    return worker->team->n_queues;
}

bool team_serves(const struct worker *worker, int node)
{
    return worker->team->first_on_node[node] < worker->count;
}

void team_share(const struct worker *worker, int n, int align, int *begin, int *end)
{
    int64_t units = (n + (int64_t)align - 1) / align;
    int64_t first = units * worker->index / worker->count * align;
    int64_t last = units * (worker->index + 1) / worker->count * align;
    *begin = first < n ? (int)first : n;
    *end = last < n ? (int)last : n;
}

/* ---- Runs ------------------------------------------------------------------------------------ */

/* A new ticket for a worker: never its last one again. */
static void call_worker(struct thread_slot *slot, int n_workers)
{
    uint32_t last = atomic_load_explicit(&slot->ticket, memory_order_relaxed) & ~TICKET_WORKERS;
    publish(&slot->ticket, &slot->sleepers, (last + TICKET_STEP) | (uint32_t)n_workers);
}

/* Hands the run on to the two workers below: the team wakes in log2(n) steps, and no worker has to
 * wake all others. */
static void call_children(struct team *team, int index, int n_workers)
{
    for (int child = 2 * index + 1; child <= 2 * index + 2 && child < n_workers; child++)
        call_worker(&team->slots[child], n_workers);
}

static void *thread_main(void *arg)
{
    struct thread_slot *slot = arg;
    struct team *team = slot->worker.team;
    for (uint32_t seen = TICKET_WORKERS;;) {
        seen = wait_change(&slot->ticket, &slot->sleepers, seen);
        int n_workers = (int)(seen & TICKET_WORKERS);
        if (n_workers == 0)
            return NULL;
        call_children(team, slot->worker.index, n_workers);
        slot->worker.count = n_workers;
        team->fn(&slot->worker, team->arg);
        team_barrier(&slot->worker);
    }
}

/* A refusal (a mask that changed since) costs speed only. */
static void sit_down(int cpu)
{
    struct cpu_mask seat = {0};
    CPU_SET_S((size_t)cpu, sizeof seat, seat.sets);
    sched_setaffinity(0, sizeof seat, seat.sets);
}

void team_run(struct team *team, int n_workers, team_fn *fn, void *arg)
{
    struct thread_slot *self = &team->slots[0];
    struct cpu_mask before;
    /* Who sits there already mostly stays there; pinning would take 10 microseconds of each run. */
    bool seated = self->cpu >= 0 && sched_getcpu() != self->cpu &&
                  sched_getaffinity(0, sizeof before, before.sets) == 0;
    if (seated)
        sit_down(self->cpu);
    self->worker.count = n_workers;
    team->fn = fn;
    team->arg = arg;
    call_children(team, 0, n_workers);
    fn(&self->worker, arg);
    team_barrier(&self->worker);
    if (seated)
        sched_setaffinity(0, sizeof before, before.sets);
}

int team_size(const struct team *team)
{
    return team->n_threads;
}

/* ---- Creation -------------------------------------------------------------------------------- */

void team_destroy(struct team *team)
{
    if (!team)
        return;
    for (int i = team->first_thread; i < team->end_thread; i++) {
        call_worker(&team->slots[i], 0);
        pthread_join(team->slots[i].thread, NULL);
    }
    free(team->slots);
    free(team);
}

static void seat_workers(struct team *team, const struct seat *seats)
{
    team->n_queues = 1;
    for (int node = 0; node < TEAM_QUEUES_MAX; node++)
        team->first_on_node[node] = team->n_threads;
    for (int i = team->n_threads - 1; i >= 0; i--) {
        struct seat seat = seats ? seats[i] : (struct seat){.cpu = -1};
        struct thread_slot *slot = &team->slots[i];
        slot->worker = (struct worker){
            .team = team, .index = i, .count = team->n_threads, .node = seat.node};
        slot->cpu = seat.cpu;
        atomic_store(&slot->ticket, TICKET_WORKERS);
        team->first_on_node[seat.node] = i;
        if (seat.node >= team->n_queues)
            team->n_queues = seat.node + 1;
    }
}

/* On its seat from its first instruction on, so that who looks next finds it taken. Without, where
 * that is refused. */
static int start_thread(struct thread_slot *slot)
{
    int status = EINVAL;
    pthread_attr_t attributes;
    if (slot->cpu >= 0 && pthread_attr_init(&attributes) == 0) {
        struct cpu_mask seat = {0};
        CPU_SET_S((size_t)slot->cpu, sizeof seat, seat.sets);
        if (pthread_attr_setaffinity_np(&attributes, sizeof seat, seat.sets) == 0)
            status = pthread_create(&slot->thread, &attributes, thread_main, slot);
        pthread_attr_destroy(&attributes);
    }
    return status ? pthread_create(&slot->thread, NULL, thread_main, slot) : 0;
}

/* The caller does worker 0's work. Where it has a seat, a thread that never wakes keeps it: other
 * teams of the process learn from the kernel which cores are taken (cpu_cores). */
static int start_threads(struct team *team, struct tsr_error *error)
{
    team->first_thread = team->end_thread = team->slots[0].cpu >= 0 ? 0 : 1;
    for (int i = team->first_thread; i < team->n_threads; i++) {
        if (start_thread(&team->slots[i]))
            return error_set(error, TSR_ESYSTEM, "cannot start thread %d of %d: use fewer (-t)",
                             i + 1, team->n_threads);
        team->end_thread = i + 1;
    }
    return 0;
}

int team_create(int n_threads, const struct seat *seats, struct team **out,
                struct tsr_error *error)
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
    seat_workers(team, seats);
    int status = start_threads(team, error);
    if (status) {
        team_destroy(team);
        return status;
    }
    *out = team;
    return 0;
}
