#include "base/seats.h"

_Static_assert((int)NODES_MAX <= (int)TEAM_QUEUES_MAX, "a queue for each node");

void node_rows(const struct node_shares *shares, int node, int n, int align, int *n0, int *n1)
{
    int64_t before = 0, total = 0, units = (n + (int64_t)align - 1) / align;
    for (int i = 0; i < shares->n_nodes; i++) {
        total += shares->workers[i];
        before += i < node ? shares->workers[i] : 0;
    }
    int64_t first = units * before / total * align;
    int64_t last = units * (before + shares->workers[node]) / total * align;
    *n0 = first < n ? (int)first : n;
    *n1 = last < n ? (int)last : n;
}

static void count_cores(struct cpu_cores *cores)
{
    int n_physical = 0;
    for (int i = 0; i < cores->n; i++)
        n_physical += cores->list[i].rank == 0;
    cores->n_usable = cores->n < cores->n_usable ? cores->n : cores->n_usable;
    cores->n_physical = n_physical < cores->n_usable ? n_physical : cores->n_usable;
}

void seats_isolate(struct cpu_cores *cores, const struct topology *topology, int node)
{
    int n = 0;
    for (int i = 0; i < cores->n; i++)
        if (topology->node_of_cpu[cores->list[i].id] == node)
            cores->list[n++] = cores->list[i];
    cores->n = n;
    count_cores(cores);
}

/* The CPUs of all nodes in turn, each node's in the order of the list. */
static void choose_in_turn(const struct cpu_cores *cores, const struct topology *topology,
                           int n_threads, struct seat *seats)
{
    int next[NODES_MAX] = {0}; /* where in the list to look for the node's next CPU */
    for (int i = 0, node = 0; i < n_threads; node = (node + 1) % topology->n_nodes) {
        while (next[node] < cores->n &&
               topology->node_of_cpu[cores->list[next[node]].id] != node)
            next[node]++;
        if (next[node] < cores->n)
            seats[i++] = (struct seat){cores->list[next[node]++].id, node};
    }
}

int seats_choose(const struct cpu_cores *cores, const struct topology *topology,
                 enum tsr_numa mode, int n_threads, struct seat *seats, struct tsr_error *error)
{
    if (n_threads > cores->n && mode != TSR_NUMA_NONE)
        return error_set(error, TSR_EINVAL,
                         "%d threads on %d CPUs: with --numa each needs its own: use fewer (-t)",
                         n_threads, cores->n);
    bool anywhere = n_threads > cores->n || (n_threads == 1 && mode == TSR_NUMA_NONE);
    if (mode == TSR_NUMA_INTERLEAVE || mode == TSR_NUMA_SHARD)
        choose_in_turn(cores, topology, n_threads, seats);
    else
        for (int i = 0; i < n_threads; i++)
            seats[i] = (struct seat){anywhere ? -1 : cores->list[i].id, 0};
    for (int i = 0; mode == TSR_NUMA_INTERLEAVE && i < n_threads; i++)
        seats[i].node = 0;
    return 0;
}
