/* The placement planner: which pool and kernel every tensor gets, and how many bytes.
 *
 * Pure: (roles of tensors, kernels) in, plan out. No weights are read. The loader allocates exactly
 * the bytes that the plan says.
 */
#ifndef TESSERA_PLAN_H
#define TESSERA_PLAN_H

#include "base/seats.h"
#include "model/model.h"

/* In the order in which a tensor is offered to them; the first that takes it has it. */
enum plan_pool {
    POOL_AMX,    /* packed for tiles */
    POOL_CPU,    /* packed for the vector kernels */
    POOL_MAPPED, /* used straight from the file mapping: always possible */
    POOL_COUNT
};

/* Rows [n0, n1) of a tensor, of each of its experts: what one NUMA node gets. */
struct placement_part {
    int n0, n1;
    uint64_t matrix_bytes; /* from expert to expert; where packed, a 64-byte multiple */
    uint64_t bytes;        /* in the arena of the pool on the node; 0 in POOL_MAPPED */
    uint64_t offset;       /* in that arena */
};

struct placement {
    const struct model_tensor *tensor;
    enum plan_pool pool;
    const struct gemm_kernel *kernel; /* NULL for tensors that no product uses */
    struct placement_part parts[NODES_MAX];
    const char *refusals[POOL_COUNT]; /* of the pools before `pool`: why it did not take it */
};

struct plan {
    struct placement *placements; /* [model->n_tensors], in the order of model->tensors */
    size_t n_placements;
    int n_nodes; /* parts of each matrix */
    uint64_t arena_bytes[POOL_COUNT][NODES_MAX];
};

const char *plan_pool_name(enum plan_pool pool);

/* `shares` says how matrices are divided among nodes. `kernels` must outlive the plan. Errors:
 * TSR_EUNSUPPORTED (a matrix that no pool can use, named), TSR_ENOMEM. */
int plan_create(const struct model *model, const struct kernel_set *kernels,
                const struct node_shares *shares, struct plan **plan, struct tsr_error *error);
void plan_free(struct plan *plan);

#endif
