/* The placement planner: which pool and kernel every tensor gets, and how many bytes.
 *
 * Pure: (roles of tensors, kernels, settings) in, plan out. No weights are read. The loader
 * allocates exactly the bytes that the plan says.
 */
#ifndef TESSERA_PLAN_H
#define TESSERA_PLAN_H

#include "base/seats.h"
#include "model/model.h"

/* In the order in which a tensor is offered to them; the first that takes it has it. */
enum plan_pool {
    POOL_AMX = TSR_POOL_AMX,       /* packed for tiles */
    POOL_CPU = TSR_POOL_CPU,       /* packed for the vector kernels */
    POOL_MAPPED = TSR_POOL_MAPPED, /* used straight from the file mapping: always possible */
    POOL_COUNT = TSR_POOL_COUNT
};

/* Pools in the order in which they are asked. */
struct pool_list {
    enum plan_pool pools[POOL_COUNT];
    int n;
};

/* What a pool said that did not take a tensor. */
struct pool_refusal {
    const char *reason;    /* static, or of the settings; NULL: the pool was not asked or took it */
    uint64_t wanted, left; /* bytes, where the reason is the pool's budget; else 0 */
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
    const char *name; /* the tensor's; "output.weight" for a tied output */
    bool tied;        /* the file's bytes are those of another placement */
    enum plan_pool pool;
    const struct gemm_kernel *kernel; /* NULL for tensors that no product uses */
    struct placement_part parts[NODES_MAX];
    uint64_t bytes;   /* in the pool: of all parts, or of the file where mapped (0 if tied) */
    int override;     /* index of the one that chose the pools, -1 for none */
    struct pool_refusal refusals[POOL_COUNT];
};

struct plan_override {
    char *pattern;
    struct pool_list pools;
    size_t n_tensors; /* that it is the first to match */
};

struct pool_sum {
    uint64_t n_tensors;  /* of the file: a tied output is counted where the embedding is */
    uint64_t file_bytes; /* that they take in the file */
    uint64_t bytes;      /* that the pool takes: arenas, or the mapping */
    uint64_t budget;     /* UINT64_MAX: none */
};

struct plan {
    const struct model *model;
    const struct kernel_set *kernels;
    struct placement *placements; /* [model->n_tensors], in the order of model->tensors */
    size_t n_placements;
    int n_nodes; /* parts of each matrix */
    struct pool_sum pools[POOL_COUNT];
    uint64_t arena_bytes[POOL_COUNT][NODES_MAX];
    uint64_t vector_bytes; /* norms, biases and the like, as floats */
    struct plan_override *overrides;
    size_t n_overrides;
};

struct plan_settings {
    struct node_shares shares;    /* how matrices are divided among nodes */
    const char *const *overrides; /* [n_overrides] "REGEX=POOL[,POOL...]" */
    size_t n_overrides;
    uint64_t budgets[POOL_COUNT]; /* bytes; UINT64_MAX: as many as it takes */
    const char *no_tiles;         /* why tiles are not in use, for POOL_AMX; NULL where they are */
};

const char *plan_pool_name(enum plan_pool pool);

/* Model and kernels must outlive the plan, as must settings->no_tiles. Errors, with the tensor, the
 * pools and their reasons, or the override: TSR_EUNSUPPORTED (no kernel for a type), TSR_EINVAL (an
 * override that is none or that its pools cannot honour), TSR_ENOMEM (budgets that cannot be met,
 * or no memory for the plan). */
int plan_create(const struct model *model, const struct kernel_set *kernels,
                const struct plan_settings *settings, struct plan **plan, struct tsr_error *error);
void plan_free(struct plan *plan);

/* "no tile kernel for this type", or with the numbers of a budget; returns `text`. */
const char *plan_refusal_text(const struct pool_refusal *refusal, char *text, size_t size);

#endif
