/* NUMA nodes and seats on machines that the test makes up, and on the one it runs on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/mman.h>

#include "base/seats.h"

/* A machine whose node i has n_cpus[i] CPUs, numbered through, and memory where memory[i]. */
static struct topology machine(int n_nodes, const int *n_cpus, const int *memory)
{
    static struct raw_topology raw;
    struct topology topology = {0};
    memset(&raw, 0, sizeof raw);
    raw.n_nodes = n_nodes;
    int cpu = 0;
    for (int i = 0; i < n_nodes; i++) {
        raw.nodes[i] = (struct topology_node){i, (uint64_t)memory[i] << 30, 1 << 30};
        for (int j = 0; j < n_nodes; j++)
            raw.distance[i][j] = (uint8_t)(10 + 10 * abs(i - j));
        for (int end = cpu + n_cpus[i]; cpu < end; cpu++)
            raw.node_of_cpu[cpu] = (uint8_t)i;
    }
    topology_reduce(&raw, &topology);
    return topology;
}

/* n CPUs in order, the last n_second of them second threads of cores. */
static struct cpu_cores cpus(int n, int n_second)
{
    struct cpu_cores cores = {.n = n, .n_usable = n, .n_physical = n - n_second};
    for (int i = 0; i < n; i++)
        cores.list[i] = (struct cpu_core){.id = i, .rank = i >= n - n_second};
    return cores;
}

static void check_seats(const struct topology *topology, const struct cpu_cores *cores,
                        enum tsr_numa mode, int n, const int *expected_cpus,
                        const int *expected_nodes)
{
    struct seat seats[64];
    assert_int_equal(seats_choose(cores, topology, mode, n, seats, NULL), 0);
    for (int i = 0; i < n; i++) {
        assert_int_equal(seats[i].cpu, expected_cpus[i]);
        assert_int_equal(seats[i].node, expected_nodes[i]);
    }
}

#define INTS(...) ((const int[]){__VA_ARGS__})

static void two_nodes_of_four(void **state)
{
    (void)state;
    struct topology two = machine(2, INTS(4, 4), INTS(8, 8));
    struct cpu_cores cores = cpus(8, 0);
    assert_int_equal(two.n_nodes, 2);
    check_seats(&two, &cores, TSR_NUMA_NONE, 6, INTS(0, 1, 2, 3, 4, 5), INTS(0, 0, 0, 0, 0, 0));
    check_seats(&two, &cores, TSR_NUMA_SHARD, 8, INTS(0, 4, 1, 5, 2, 6, 3, 7),
                INTS(0, 1, 0, 1, 0, 1, 0, 1));
    check_seats(&two, &cores, TSR_NUMA_SHARD, 3, INTS(0, 4, 1), INTS(0, 1, 0));
    check_seats(&two, &cores, TSR_NUMA_SHARD, 1, INTS(0), INTS(0));
    check_seats(&two, &cores, TSR_NUMA_INTERLEAVE, 4, INTS(0, 4, 1, 5), INTS(0, 0, 0, 0));
    check_seats(&two, &cores, TSR_NUMA_NONE, 1, INTS(-1), INTS(0));
    check_seats(&two, &cores, TSR_NUMA_NONE, 9, INTS(-1, -1, -1, -1, -1, -1, -1, -1, -1),
                INTS(0, 0, 0, 0, 0, 0, 0, 0, 0));

    seats_isolate(&cores, &two, 1);
    assert_int_equal(cores.n, 4);
    assert_int_equal(cores.n_physical, 4);
    check_seats(&two, &cores, TSR_NUMA_ISOLATE, 4, INTS(4, 5, 6, 7), INTS(0, 0, 0, 0));
    check_seats(&two, &cores, TSR_NUMA_ISOLATE, 1, INTS(4), INTS(0));
    struct seat seats[5];
    struct tsr_error error;
    assert_int_equal(seats_choose(&cores, &two, TSR_NUMA_ISOLATE, 5, seats, &error), TSR_EINVAL);
    assert_non_null(strstr(error.text, "5 threads on 4 CPUs"));
}

static void second_threads_come_last(void **state)
{
    (void)state;
    /* Cores 0-3, their second threads 4-7; node 0 has cores 0 and 1. */
    struct topology two = machine(2, INTS(4, 4), INTS(8, 8));
    for (int cpu = 0; cpu < 8; cpu++)
        two.node_of_cpu[cpu] = cpu % 4 >= 2;
    struct cpu_cores cores = cpus(8, 4);
    check_seats(&two, &cores, TSR_NUMA_SHARD, 6, INTS(0, 2, 1, 3, 4, 6), INTS(0, 1, 0, 1, 0, 1));
    seats_isolate(&cores, &two, 1);
    assert_int_equal(cores.n, 4);
    assert_int_equal(cores.n_physical, 2);
    check_seats(&two, &cores, TSR_NUMA_ISOLATE, 3, INTS(2, 3, 6), INTS(0, 0, 0));
}

static void quota_limits_an_isolated_team(void **state)
{
    (void)state;
    struct topology two = machine(2, INTS(4, 4), INTS(8, 8));
    struct cpu_cores cores = cpus(8, 0);
    cores.n_usable = cores.n_physical = 3;
    seats_isolate(&cores, &two, 0);
    assert_int_equal(cores.n_usable, 3);
    assert_int_equal(cores.n_physical, 3);
}

static void uneven_nodes(void **state)
{
    (void)state;
    struct topology uneven = machine(3, INTS(4, 1, 2), INTS(8, 8, 8));
    struct cpu_cores cores = cpus(7, 0);
    check_seats(&uneven, &cores, TSR_NUMA_SHARD, 7, INTS(0, 4, 5, 1, 6, 2, 3),
                INTS(0, 1, 2, 0, 2, 0, 0));
}

static void nodes_without_memory(void **state)
{
    (void)state;
    /* Node 1's CPUs belong to the nearest node with memory, which is now node 1 of 2. */
    struct topology t = machine(4, INTS(2, 2, 2, 0), INTS(8, 0, 8, 0));
    assert_int_equal(t.n_nodes, 2);
    assert_int_equal(t.nodes[0].id, 0);
    assert_int_equal(t.nodes[1].id, 2);
    const int expected[] = {0, 0, 0, 0, 1, 1}; /* nodes 0 and 2 are equally far from 1 */
    for (int cpu = 0; cpu < 6; cpu++)
        assert_int_equal(t.node_of_cpu[cpu], expected[cpu]);

    struct topology none = machine(2, INTS(2, 2), INTS(0, 0));
    assert_int_equal(none.n_nodes, 1);
    assert_int_equal(none.node_of_cpu[3], 0);

    /* More nodes than there are queues: the rest works with its neighbours' memory. */
    int n_cpus[20], memory[20];
    for (int i = 0; i < 20; i++)
        n_cpus[i] = memory[i] = 1;
    struct topology many = machine(20, n_cpus, memory);
    assert_int_equal(many.n_nodes, NODES_MAX);
    assert_int_equal(many.node_of_cpu[19], NODES_MAX - 1);
}

static void rows_are_divided_by_workers(void **state)
{
    (void)state;
    const struct node_shares shares[] = {
        {1, {5}}, {2, {4, 4}}, {2, {3, 1}}, {3, {1, 0, 2}}, {8, {1, 2, 3, 4, 5, 6, 7, 8}}};
    for (size_t s = 0; s < sizeof shares / sizeof shares[0]; s++) {
        int workers = 0;
        for (int node = 0; node < shares[s].n_nodes; node++)
            workers += shares[s].workers[node];
        for (int n = 0; n < 700; n += 3) {
            int at = 0;
            for (int node = 0; node < shares[s].n_nodes; node++) {
                int n0, n1, fair = n * shares[s].workers[node] / workers;
                node_rows(&shares[s], node, n, 32, &n0, &n1);
                assert_int_equal(n0, at);
                assert_true(n1 >= n0 && (n1 % 32 == 0 || n1 == n));
                assert_in_range(n1 - n0 + 32, fair >= 32 ? fair - 32 : 0, fair + 96);
                assert_true(shares[s].workers[node] || n1 == n0);
                at = n1;
            }
            assert_int_equal(at, n);
        }
    }
}

static void this_machine(void **state)
{
    (void)state;
    struct topology *topology, *copy;
    struct tsr_error error;
    assert_int_equal(topology_open(&topology, &error), 0);
    assert_in_range(topology->n_nodes, 1, NODES_MAX);
    assert_in_range(topology_here(topology), 0, topology->n_nodes - 1);
    size_t bytes = 1 << 20;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    int last = topology->n_nodes - 1;
    bool bound = topology_bind(topology, memory, bytes, last) == 0;
    memset(memory, 1, bytes);
    uint64_t node_bytes[NODES_MAX] = {0};
    if (topology_residency(topology, memory, bytes, node_bytes)) {
        uint64_t sum = 0;
        for (int i = 0; i < topology->n_nodes; i++)
            sum += node_bytes[i];
        assert_in_range(sum, bytes - NODES_MAX, bytes);
        assert_true(!bound || node_bytes[last] >= bytes - 1);
    }
    assert_int_equal(munmap(memory, bytes), 0);

    assert_int_equal(topology_copy(topology, &copy, &error), 0);
    assert_int_equal(copy->n_nodes, topology->n_nodes);
    assert_int_not_equal(topology_bind(copy, &bytes, sizeof bytes, 0), 0);
    assert_false(topology_residency(copy, &bytes, sizeof bytes, node_bytes));
    topology_close(copy);
    topology_close(topology);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_nodes_of_four),
        cmocka_unit_test(second_threads_come_last),
        cmocka_unit_test(quota_limits_an_isolated_team),
        cmocka_unit_test(uneven_nodes),
        cmocka_unit_test(nodes_without_memory),
        cmocka_unit_test(rows_are_divided_by_workers),
        cmocka_unit_test(this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
