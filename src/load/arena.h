/* Memory for packed weights: one arena for each pool and node, of exactly the planned bytes. */
#ifndef TESSERA_LOAD_ARENA_H
#define TESSERA_LOAD_ARENA_H

#include "base/topology.h"
#include "plan/plan.h"

/* Packed matrices of a pool on a node. */
struct arena {
    uint8_t *data; /* NULL: none */
    size_t bytes;
};

/* Where the memory of arenas comes from and how it is held. */
struct memory_policy {
    const struct topology *topology;
    enum tsr_numa numa;
    int home_node;      /* for TSR_NUMA_ISOLATE */
    bool lock;          /* keep all weights in memory */
    bool no_huge_pages; /* do not ask for huge pages */
};

/* Maps the arenas of a plan. Pages come when they are written; where they are to be locked, the
 * right to lock that many is checked now. Refuses what will not fit: TSR_ENOMEM, TSR_ESYSTEM. On
 * failure too, arenas_free. */
int arenas_create(const struct plan *plan, const struct memory_policy *policy,
                  struct arena arenas[POOL_COUNT][NODES_MAX], struct tsr_error *error);
void arenas_free(struct arena arenas[POOL_COUNT][NODES_MAX]);

/* Keeps `bytes` that are there, or will be, in memory. Errors: TSR_ESYSTEM, with the limit. */
int arena_lock(const void *data, size_t bytes, struct tsr_error *error);
int arenas_lock(struct arena arenas[POOL_COUNT][NODES_MAX], struct tsr_error *error);

#endif
