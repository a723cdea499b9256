/* The thread team with real threads: phases, items, shares, sleeping workers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <unistd.h>

#include "base/team.h"

enum { N_PHASES = 200, N_ITEMS = 37, MAX_WORKERS = 4 };

struct phases {
    _Atomic int taken[N_PHASES][N_ITEMS];
    int sums[MAX_WORKERS]; /* of what each worker saw of the phase before */
    int wrong;
};

static void walk_phases(struct worker *worker, void *arg)
{
    struct phases *p = arg;
    for (int phase = 0; phase < N_PHASES; phase++) {
        for (int i = team_take(worker); i < N_ITEMS; i = team_take(worker))
            atomic_fetch_add(&p->taken[phase][i], 1);
        team_barrier(worker);
        int sum = 0;
        for (int i = 0; i < N_ITEMS; i++)
            sum += atomic_load_explicit(&p->taken[phase][i], memory_order_relaxed);
        p->sums[worker->index] += sum;
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
        cmocka_unit_test(shares_cover_everything),
        cmocka_unit_test(bad_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
