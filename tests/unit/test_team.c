/* The thread team with real threads: phases, items, shares, sleeping workers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/team.h"

enum { N_PHASES = 200, N_ITEMS = 37, MAX_WORKERS = 4 };

struct phases {
    _Atomic int taken[N_PHASES][N_ITEMS];
    int sums[MAX_WORKERS]; /* of what each worker saw of the phase before */
    _Atomic int wrong;
};

/* Relaxed, as what is seen of it is the barrier's business. */
static void take_items(struct worker *worker, struct phases *p, int phase)
{
    for (int i = team_take(worker); i < N_ITEMS; i = team_take(worker))
        atomic_fetch_add_explicit(&p->taken[phase][i], 1, memory_order_relaxed);
}

static void sum_items(const struct worker *worker, struct phases *p, int phase)
{
    for (int i = 0; i < N_ITEMS; i++)
        p->sums[worker->index] += atomic_load_explicit(&p->taken[phase][i], memory_order_relaxed);
}

static void walk_phases(struct worker *worker, void *arg)
{
    struct phases *p = arg;
    for (int phase = 0; phase < N_PHASES; phase++) {
        take_items(worker, p, phase);
        team_barrier(worker);
        sum_items(worker, p, phase);
        team_barrier(worker);
    }
}

static void every_item_is_taken_once(void **state)
{
    (void)state;
    for (int n = 1; n <= MAX_WORKERS; n++) {
        struct team *team;
        assert_int_equal(team_create(n, NULL, &team, NULL), 0);
        static struct phases p;
        memset(&p, 0, sizeof p);
        team_run(team, n, walk_phases, &p);
        for (int phase = 0; phase < N_PHASES; phase++)
            for (int i = 0; i < N_ITEMS; i++)
                assert_int_equal(p.taken[phase][i], 1);
        for (int w = 0; w < n; w++)
            assert_int_equal(p.sums[w], N_PHASES * N_ITEMS);
        team_destroy(team);
    }
}

static void add_index(struct worker *worker, void *arg)
{
    atomic_fetch_add((_Atomic int *)arg, 1 << (8 * worker->index));
}

static void runs_with_fewer_workers_and_after_sleeping(void **state)
{
    (void)state;
    struct team *team;
    assert_int_equal(team_create(3, NULL, &team, NULL), 0);
    for (int round = 0; round < 20; round++) {
        _Atomic int seen = 0;
        int n = round % 3 + 1;
        team_run(team, n, add_index, &seen);
        assert_int_equal(seen, 0x010101 & ((1 << (8 * n)) - 1));
        if (round % 5 == 0)
            usleep(20000); /* longer than workers spin */
    }
    team_destroy(team);
}

static void note_thread(struct worker *worker, void *arg)
{
    ((pid_t *)arg)[worker->index] = gettid();
}

/* How often a thread of this process has gone to sleep. */
static long sleeps_of(pid_t tid)
{
    char path[64], line[128];
    long count = -1;
    snprintf(path, sizeof path, "/proc/self/task/%d/status", (int)tid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        sscanf(line, "voluntary_ctxt_switches: %ld", &count);
    fclose(file);
    assert_true(count >= 0);
    return count;
}

static void workers_beyond_a_run_stay_asleep(void **state)
{
    (void)state;
    struct team *team;
    pid_t tids[4], few[4];
    assert_int_equal(team_create(4, NULL, &team, NULL), 0);
    team_run(team, 4, note_thread, tids);
    usleep(50000); /* all asleep */
    long before[4];
    for (int i = 2; i < 4; i++)
        before[i] = sleeps_of(tids[i]);
    for (int round = 0; round < 20; round++) {
        team_run(team, 2, note_thread, few);
        usleep(1000);
    }
    for (int i = 2; i < 4; i++)
        assert_int_equal(sleeps_of(tids[i]), before[i]);
    team_run(team, 4, note_thread, few);
    assert_memory_equal(few, tids, sizeof tids);
    team_destroy(team);
}

/* What the team does to the affinity of its caller lasts for the run. */
static void note_cpus(struct worker *worker, void *arg)
{
    cpu_set_t *sets = arg;
    sched_getaffinity(0, sizeof *sets, &sets[worker->index]);
}

static void seats_hold_for_the_run(void **state)
{
    (void)state;
    struct cpu_cores cores;
    assert_int_equal(cpu_cores(&cores, NULL), 0);
    if (cores.n < 2)
        skip();
    struct seat seats[2] = {{.cpu = cores.list[1].id}, {.cpu = cores.list[0].id, .node = 3}};
    cpu_set_t before, after, sets[2];
    struct team *team;
    assert_int_equal(team_create(2, seats, &team, NULL), 0);
    /* The caller is elsewhere. */
    cpu_set_t all;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&before);
    CPU_SET((size_t)seats[1].cpu, &before);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    team_run(team, 2, note_cpus, sets);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_memory_equal(&after, &before, sizeof before);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(CPU_COUNT(&sets[i]), 1);
        assert_true(CPU_ISSET((size_t)seats[i].cpu, &sets[i]));
    }
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    team_destroy(team);
}

struct node_items {
    _Atomic int taken[2][N_ITEMS];
    _Atomic bool serves[2][3];
};

static void take_by_node(struct worker *worker, void *arg)
{
    struct node_items *items = arg;
    for (int round = 0; round < 2; round++) {
        for (int node = 0; node < 3; node++)
            items->serves[worker->index][node] = team_serves(worker, node);
        for (int i = team_take_from(worker, worker->node); i < N_ITEMS;
             i = team_take_from(worker, worker->node))
            atomic_fetch_add(&items->taken[worker->node][i], 1);
        team_barrier(worker);
    }
}

static void each_node_has_its_queue(void **state)
{
    (void)state;
    struct seat seats[2] = {{.cpu = -1, .node = 1}, {.cpu = -1, .node = 0}};
    static struct node_items items;
    struct team *team;
    assert_int_equal(team_create(2, seats, &team, NULL), 0);
    team_run(team, 2, take_by_node, &items);
    for (int node = 0; node < 2; node++)
        for (int i = 0; i < N_ITEMS; i++)
            assert_int_equal(items.taken[node][i], 2);
    for (int index = 0; index < 2; index++)
        assert_true(items.serves[index][0] && items.serves[index][1] && !items.serves[index][2]);
    team_run(team, 1, take_by_node, &items); /* worker 1 is not of this run, nor is its node */
    assert_true(items.serves[0][1] && !items.serves[0][0]);
    team_destroy(team);
}

enum { N_STAGES = 500 };

/* Each stage has two items, the second of which waits for the first: no barrier passes anything. */
struct stages {
    _Atomic uint32_t done[N_STAGES];
    int written[N_STAGES];
    _Atomic int sum; /* of what the second items saw */
};

static void take_stages(struct worker *worker, void *arg)
{
    struct stages *stages = arg;
    for (int i = team_take(worker); i < 2 * N_STAGES; i = team_take(worker)) {
        int stage = i / 2;
        if (i % 2) {
            team_await(&stages->done[stage], 1);
            atomic_fetch_add(&stages->sum, stages->written[stage]);
            continue;
        }
        if (stage % 100 == 99)
            usleep(1000); /* longer than waiters spin */
        stages->written[stage] = stage;
        atomic_store_explicit(&stages->done[stage], 1, memory_order_release);
    }
    team_barrier(worker);
}

static void an_item_waits_for_one_before_it(void **state)
{
    (void)state;
    for (int n = 1; n <= MAX_WORKERS; n++) {
        struct team *team;
        assert_int_equal(team_create(n, NULL, &team, NULL), 0);
        static struct stages stages;
        memset(&stages, 0, sizeof stages);
        team_run(team, n, take_stages, &stages);
        assert_int_equal(stages.sum, N_STAGES * (N_STAGES - 1) / 2);
        team_destroy(team);
    }
}

/* What a worker did before it arrived is seen by all who waited. */
static void arrive_and_wait(struct worker *worker, void *arg)
{
    struct phases *p = arg;
    for (int phase = 0; phase < N_PHASES; phase++) {
        take_items(worker, p, phase);
        uint32_t arrival = team_arrive(worker);
        bool passed = team_passed(worker, arrival);
        team_wait(worker, arrival);
        sum_items(worker, p, phase);
        if (!team_passed(worker, arrival) || (worker->count == 1 && !passed))
            p->wrong++;
        team_barrier(worker);
    }
}

static void a_barrier_in_two_steps(void **state)
{
    (void)state;
    for (int n = 1; n <= MAX_WORKERS; n++) {
        struct team *team;
        assert_int_equal(team_create(n, NULL, &team, NULL), 0);
        static struct phases p;
        memset(&p, 0, sizeof p);
        team_run(team, n, arrive_and_wait, &p);
        assert_int_equal(p.wrong, 0);
        for (int w = 0; w < n; w++)
            assert_int_equal(p.sums[w], N_PHASES * N_ITEMS);
        team_destroy(team);
    }
}

static void shares_cover_everything(void **state)
{
    (void)state;
    for (int n = 0; n < 70; n++) {
        for (int count = 1; count < 6; count++) {
            int at = 0;
            for (int index = 0; index < count; index++) {
                struct worker worker = {.index = index, .count = count};
                int begin, end;
                team_share(&worker, n, 16, &begin, &end);
                assert_int_equal(begin, at);
                assert_true(end >= begin && (end % 16 == 0 || end == n));
                at = end;
            }
            assert_int_equal(at, n);
        }
    }
}

static void bad_sizes_are_refused(void **state)
{
    (void)state;
    struct team *team;
    struct tsr_error error;
    assert_int_equal(team_create(0, NULL, &team, &error), TSR_EINVAL);
    assert_null(team);
    assert_int_equal(team_create(1 << 20, NULL, &team, &error), TSR_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_is_taken_once),
        cmocka_unit_test(runs_with_fewer_workers_and_after_sleeping),
        cmocka_unit_test(workers_beyond_a_run_stay_asleep),
        cmocka_unit_test(seats_hold_for_the_run),
        cmocka_unit_test(each_node_has_its_queue),
        cmocka_unit_test(an_item_waits_for_one_before_it),
        cmocka_unit_test(a_barrier_in_two_steps),
        cmocka_unit_test(shares_cover_everything),
        cmocka_unit_test(bad_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
