#include "plan/plan.h"

#include <stdlib.h>

#include "base/mem.h"

const char *plan_pool_name(enum plan_pool pool)
{
    static const char *const names[POOL_COUNT] = {[POOL_CPU] = "cpu", [POOL_MAPPED] = "mapped"};
    return names[pool];
}

/* NULL where the pool takes the tensor, else why not. */
static const char *cpu_refuses(const struct model_tensor *tensor, const struct gemm_kernel *kernel)
{
    if (!model_role_is_matrix(tensor->role))
        return "not a matrix of a product";
    /* Packing pads columns to whole panels; the router is small and read as it is. */
    if (tensor->role == ROLE_ROUTER)
        return "the router stays in its file precision";
    if (!kernel->gemm)
        return "no packed kernel for this type";
    return NULL;
}

static int place(struct placement *place, const struct kernel_set *kernels, struct plan *plan,
                 const char *path, struct tsr_error *error)
{
    const struct model_tensor *tensor = place->tensor;
    uint32_t type = tensor->source->type->id;
    place->refusal = cpu_refuses(tensor, &kernels->packed[type]);
    if (!place->refusal) {
        place->pool = POOL_CPU;
        place->kernel = &kernels->packed[type];
        size_t matrix = place->kernel->packed_bytes((int)tensor->n, (int)tensor->k);
        place->matrix_bytes = act_round_up(matrix, 64);
        if (!mul_size(place->matrix_bytes, tensor->n_expert, &place->bytes))
            return error_set(error, TSR_EFORMAT, "%s: tensor %s is too large", path,
                             tensor->source->name);
        place->offset = plan->pool_bytes[POOL_CPU];
        plan->pool_bytes[POOL_CPU] += place->bytes;
        return 0;
    }
    place->pool = POOL_MAPPED;
    if (!model_role_is_matrix(tensor->role))
        return 0;
    place->kernel = &kernels->mapped[type];
    place->matrix_bytes = tensor->source->n_bytes / tensor->n_expert;
    if (!place->kernel->gemm)
        return error_set(error, TSR_EUNSUPPORTED, "%s: tensor %s: no kernel for type %s", path,
                         tensor->source->name, tensor->source->type->name);
    return 0;
}

void plan_free(struct plan *plan)
{
    if (!plan)
        return;
    free(plan->placements);
    free(plan);
}

int plan_create(const struct model *model, const struct kernel_set *kernels, struct plan **out,
                struct tsr_error *error)
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
    for (size_t i = 0; i < model->n_tensors; i++) {
        placements[i].tensor = &model->tensors[i];
        int status = place(&placements[i], kernels, plan, gguf_path(model->gguf), error);
        if (status) {
            plan_free(plan);
            return status;
        }
    }
    *out = plan;
    return 0;
}
