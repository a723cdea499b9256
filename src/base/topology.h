/* NUMA nodes: which CPUs and how much memory each has, memory policies for arenas, and where pages
 * really are.
 *
 * The source is libnuma, loaded at run time (https://github.com/numactl/numactl, numa(3)): where it
 * is missing, or the kernel knows no nodes, the machine is one node, and that just works.
 */
#ifndef TESSERA_BASE_TOPOLOGY_H
#define TESSERA_BASE_TOPOLOGY_H

#include "base/cpu.h"

enum { NODES_MAX = 8 };

struct topology_node {
    int id;                   /* the kernel's number; -1 where nothing is known of nodes */
    uint64_t total_bytes;
    uint64_t available_bytes; /* free, or held by pages of files that can be dropped */
};

/* Only nodes with memory that this process may use. The CPUs of other nodes belong to the nearest
 * one. */
struct topology {
    int n_nodes; /* at least 1 */
    struct topology_node nodes[NODES_MAX];
    uint8_t node_of_cpu[CPU_CORES_MAX]; /* index into nodes */
    struct numa_library *library; /* NULL: memory cannot be bound nor found */
};

/* What a machine says of itself, before nodes without memory are left out. */
struct raw_topology {
    int n_nodes;
    struct topology_node nodes[64];      /* total_bytes 0: no memory, or none for this process */
    uint8_t distance[64][64];
    uint8_t node_of_cpu[CPU_CORES_MAX];  /* index into nodes */
};

/* Asks the machine. Errors: TSR_ENOMEM. */
int topology_open(struct topology **topology, struct tsr_error *error);
/* A copy that can neither bind nor find memory. */
int topology_copy(const struct topology *from, struct topology **topology,
                  struct tsr_error *error);
void topology_close(struct topology *topology);

/* Pure: the first NODES_MAX nodes with memory, and the CPUs of the others with the nearest. */
void topology_reduce(const struct raw_topology *raw, struct topology *topology);

/* The node that the calling thread runs on: an index into nodes. */
int topology_here(const struct topology *topology);

/* Policies for memory that has not been touched yet: pages come from one node (an index), or from
 * all of them in turn. 0, or an errno: the kernel, a container's filter or a missing libnuma
 * refused; then pages come from the node of the thread that touches them first. */
int topology_bind(const struct topology *topology, void *memory, size_t bytes, int node);
int topology_interleave(const struct topology *topology, void *memory, size_t bytes);

/* Adds to node_bytes[n_nodes] how many bytes of `memory`, which has been written to, lie on each
 * node: in proportion to pages that are looked up in the kernel, some thousands at most. False where
 * the kernel does not say. */
bool topology_residency(const struct topology *topology, const void *memory, size_t bytes,
                        uint64_t *node_bytes);

#endif
