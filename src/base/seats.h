/* Who sits where: the CPUs and nodes of a team's workers under a NUMA mode. Pure. */
#ifndef TESSERA_BASE_SEATS_H
#define TESSERA_BASE_SEATS_H

#include "base/team.h"
#include "base/topology.h"

/* How many workers sit on each node: the shares of weights that the nodes get. */
struct node_shares {
    int n_nodes; /* 1: weights are not divided */
    int workers[NODES_MAX];
};

/* Rows [*n0, *n1) of n that are a node's, a multiple of `align` or up to n: in proportion to its
 * workers. */
void node_rows(const struct node_shares *shares, int node, int n, int align, int *n0, int *n1);

/* Leaves only the CPUs of a node (an index). */
void seats_isolate(struct cpu_cores *cores, const struct topology *topology, int node);

/* Seats for n_threads workers, [n_threads], in the order of `cores`.
 *
 * TSR_NUMA_NONE, TSR_NUMA_ISOLATE: the first CPUs of the list, all on node 0 of the team.
 * TSR_NUMA_INTERLEAVE: the nodes' CPUs in turn, so that any number of threads uses the memory of
 * all nodes alike; all on node 0 of the team.
 * TSR_NUMA_SHARD: the same, each on its node of the topology.
 *
 * More threads than CPUs get no CPU of their own (cpu -1); where nodes matter that is TSR_EINVAL.
 * A single thread of TSR_NUMA_NONE may run anywhere. */
int seats_choose(const struct cpu_cores *cores, const struct topology *topology,
                 enum tsr_numa mode, int n_threads, struct seat *seats, struct tsr_error *error);

#endif
