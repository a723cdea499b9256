#include "plan/plan.h"

#include <stdlib.h>

#include "base/mem.h"

const char *plan_pool_name(enum plan_pool pool)
{
    static const char *const names[POOL_COUNT] = {
        [POOL_AMX] = "amx", [POOL_CPU] = "cpu", [POOL_MAPPED] = "mapped"};
    return names[pool];
}

static const struct gemm_kernel *pool_kernel(enum plan_pool pool, const struct kernel_set *kernels,
                                             const struct model_tensor *tensor)
{
    const struct gemm_kernel *const tables[POOL_COUNT] = {
        [POOL_AMX] = kernels->tiles, [POOL_CPU] = kernels->packed, [POOL_MAPPED] = kernels->mapped};
    return &tables[pool][tensor->source->type->id];
}

/* NULL where the pool takes the tensor, else why not. */
static const char *pool_refuses(enum plan_pool pool, const struct kernel_set *kernels,
                                const struct model_tensor *tensor)
{
    static const char *const no_kernel[POOL_COUNT] = {
        [POOL_AMX] = "no tile kernel for this type",
        [POOL_CPU] = "no packed kernel for this type",
        [POOL_MAPPED] = "no kernel for this type",
    };
    bool is_matrix = model_role_is_matrix(tensor->role);
    if (pool != POOL_MAPPED && !is_matrix)
        return "not a matrix of a product";
    /* Packing pads columns to whole panels; the router is small and read as it is. */
    if (pool != POOL_MAPPED && tensor->role == ROLE_ROUTER)
        return "the router stays in its file precision";
    if (is_matrix && !pool_kernel(pool, kernels, tensor)->gemm)
        return no_kernel[pool];
    return NULL;
}

/* Matrices of equal n are divided alike, whatever their kernels: gate and up share work items. */
enum { ROWS_ALIGN = 32 };

/* The part of the node in its arena of packed matrices. */
static bool place_packed(const struct placement *place, struct plan *plan, int node,
                         struct placement_part *part)
{
    const struct model_tensor *tensor = place->tensor;
    uint64_t *arena = &plan->arena_bytes[place->pool][node];
    size_t matrix = place->kernel->packed_bytes(part->n1 - part->n0, (int)tensor->k);
    part->matrix_bytes = act_round_up(matrix, 64);
    part->offset = *arena;
    return mul_size(part->matrix_bytes, tensor->n_expert, &part->bytes) &&
           add_size(*arena, part->bytes, arena);
}

static int place(struct placement *place, const struct kernel_set *kernels,
                 const struct node_shares *shares, struct plan *plan, const char *path,
                 struct tsr_error *error)
{
    const struct model_tensor *tensor = place->tensor;
    enum plan_pool pool = POOL_AMX;
    while (pool < POOL_COUNT && (place->refusals[pool] = pool_refuses(pool, kernels, tensor)))
        pool++;
    if (pool == POOL_COUNT)
        return error_set(error, TSR_EUNSUPPORTED, "%s: tensor %s: no kernel for type %s", path,
                         tensor->source->name, tensor->source->type->name);
    place->pool = pool;
    if (!model_role_is_matrix(tensor->role))
        return 0;
    place->kernel = pool_kernel(pool, kernels, tensor);
    for (int node = 0; node < shares->n_nodes; node++) {
        struct placement_part *part = &place->parts[node];
        node_rows(shares, node, (int)tensor->n, ROWS_ALIGN, &part->n0, &part->n1);
        if (place->pool == POOL_MAPPED)
            part->matrix_bytes = tensor->source->n_bytes / tensor->n_expert;
        else if (part->n1 > part->n0 && !place_packed(place, plan, node, part))
            return error_set(error, TSR_EFORMAT, "%s: tensor %s is too large", path,
                             tensor->source->name);
    }
    return 0;
}

void plan_free(struct plan *plan)
{
    if (!plan)
        return;
    free(plan->placements);
    free(plan);
}

int plan_create(const struct model *model, const struct kernel_set *kernels,
                const struct node_shares *shares, struct plan **out, struct tsr_error *error)
{
    *out = NULL;
    struct plan *plan = mem_alloc(1, sizeof *plan);
    struct placement *placements = mem_alloc(model->n_tensors, sizeof *placements);
    if (!plan || !placements) {
        free(plan);
        free(placements);
        return error_set(error, TSR_ENOMEM, "out of memory for a plan");
    }
    plan->placements = placements;
    plan->n_placements = model->n_tensors;
    plan->n_nodes = shares->n_nodes;
    for (size_t i = 0; i < model->n_tensors; i++) {
        placements[i].tensor = &model->tensors[i];
        int status = place(&placements[i], kernels, shares, plan, gguf_path(model->gguf), error);
        if (status) {
            plan_free(plan);
            return status;
        }
    }
    *out = plan;
    return 0;
}
