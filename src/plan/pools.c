#include "plan/pools.h"

#include <stdio.h>

const char *plan_pool_name(enum plan_pool pool)
{
    static const char *const names[POOL_COUNT] = {
        [POOL_AMX] = "amx", [POOL_CPU] = "cpu", [POOL_MAPPED] = "mapped"};
    return names[pool];
}

struct pool_list pool_priority(const char *no_tiles)
{
    static const struct pool_list with_tiles = {{POOL_AMX, POOL_CPU, POOL_MAPPED}, 3};
    static const struct pool_list without = {{POOL_CPU, POOL_MAPPED}, 2};
    return no_tiles ? without : with_tiles;
}

const struct gemm_kernel *pool_kernel(enum plan_pool pool, const struct kernel_set *kernels,
                                      const struct model_tensor *tensor)
{
    const struct gemm_kernel *const tables[POOL_COUNT] = {
        [POOL_AMX] = kernels->tiles, [POOL_CPU] = kernels->packed, [POOL_MAPPED] = kernels->mapped};
    return &tables[pool][tensor->type->id];
}

/* Packing pads columns to whole panels; the router is small and read as it is. */
static const char *packing_refuses(const struct model_tensor *tensor)
{
    switch (tensor->role) {
    case ROLE_ROUTER:
        return "the router stays in its file precision";
    case ROLE_TOKEN_EMBD:
        return "rows of the embedding are looked up, not multiplied";
    default:
        return model_role_is_matrix(tensor->role) ? NULL : "not a matrix of a product";
    }
}

const char *pool_refuses(enum plan_pool pool, const struct kernel_set *kernels,
                         const char *no_tiles, const struct model_tensor *tensor)
{
    static const char *const no_kernel[POOL_COUNT] = {
        [POOL_AMX] = "no tile kernel for this type",
        [POOL_CPU] = "no packed kernel for this type",
        [POOL_MAPPED] = "no kernel for this type",
    };
    const char *reason = pool != POOL_MAPPED  ? packing_refuses(tensor)
                         : tensor->transposed ? "its rows are columns in the file"
                                              : NULL;
    if (!reason && pool == POOL_AMX)
        reason = no_tiles;
    if (!reason && model_role_is_matrix(tensor->role) && !pool_kernel(pool, kernels, tensor)->gemm)
        reason = no_kernel[pool];
    return reason;
}

const char *plan_refusal_text(const struct pool_refusal *refusal, char *text, size_t size)
{
    if (refusal->wanted >= 10 << 20)
        snprintf(text, size, "%s: %.1f MiB wanted, %.1f left", refusal->reason,
                 (double)refusal->wanted / (1 << 20), (double)refusal->left / (1 << 20));
    else if (refusal->wanted)
        snprintf(text, size, "%s: %llu bytes wanted, %llu left", refusal->reason,
                 (unsigned long long)refusal->wanted, (unsigned long long)refusal->left);
    else
        snprintf(text, size, "%s", refusal->reason);
    return text;
}
