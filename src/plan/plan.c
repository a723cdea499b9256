#include "plan/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/overrides.h"
#include "plan/pools.h"

/* A plan in the making. */
struct planner {
    struct plan *plan;
    const struct plan_settings *settings;
    const struct override_matcher *matcher;
    struct tsr_error *error;
};

/* ---- Sizes ---- */

/* Matrices of equal n are divided alike, whatever their kernels: gate and up share work items. */
enum { ROWS_ALIGN = 32 };

/* The parts of a matrix in a pool, at the ends of its arenas; nothing is taken yet. */
static bool size_parts(const struct planner *planner, struct placement *place)
{
    const struct model_tensor *tensor = place->tensor;
    const struct node_shares *shares = &planner->settings->shares;
    place->bytes = 0;
    for (int node = 0; node < shares->n_nodes; node++) {
        struct placement_part *part = &place->parts[node];
        *part = (struct placement_part){0};
        node_rows(shares, node, (int)tensor->n, ROWS_ALIGN, &part->n0, &part->n1);
        if (place->pool == POOL_MAPPED) {
            const struct gguf_tensor *source = tensor->source;
            uint64_t row_bytes = source->dims[0] / source->type->n_elems * source->type->n_bytes;
            part->matrix_bytes = row_bytes * tensor->expert_rows;
        } else if (part->n1 > part->n0) {
            size_t matrix = place->kernel->packed_bytes(part->n1 - part->n0, (int)tensor->k);
            part->matrix_bytes = act_round_up(matrix, 64);
            part->offset = planner->plan->arena_bytes[place->pool][node];
            if (!mul_size(part->matrix_bytes, tensor->n_expert, &part->bytes) ||
                !add_size(place->bytes, part->bytes, &place->bytes))
                return false;
        }
    }
    if (place->pool == POOL_MAPPED && !place->tied)
        place->bytes = tensor->source->n_bytes;
    return true;
}

/* ---- Placement ---- */

/* Offers the tensor to place->pool. False where it refuses: place->refusals says why. */
static bool offer(const struct planner *planner, struct placement *place)
{
    const struct model_tensor *tensor = place->tensor;
    const struct pool_sum *sum = &planner->plan->pools[place->pool];
    struct pool_refusal *refusal = &place->refusals[place->pool];
    refusal->reason = pool_refuses(place->pool, planner->plan->kernels,
                                   planner->settings->no_tiles, tensor);
    if (refusal->reason)
        return false;
    if (model_role_is_matrix(tensor->role))
        place->kernel = pool_kernel(place->pool, planner->plan->kernels, tensor);
    if (!size_parts(planner, place)) {
        refusal->reason = "too large";
    } else if (place->bytes > sum->budget - sum->bytes) {
        refusal->reason = "the pool's budget is spent";
        refusal->wanted = place->bytes;
        refusal->left = sum->budget - sum->bytes;
    }
    return !refusal->reason;
}

/* The pool has it: its bytes are taken. */
static void settle(struct plan *plan, const struct placement *place)
{
    struct pool_sum *sum = &plan->pools[place->pool];
    sum->bytes += place->bytes;
    if (!place->tied) {
        sum->n_tensors++;
        sum->file_bytes += place->tensor->source->n_bytes;
    }
    for (int node = 0; node < plan->n_nodes; node++)
        plan->arena_bytes[place->pool][node] += place->parts[node].bytes;
    enum model_role role = place->tensor->role;
    if (!model_role_is_matrix(role) && role != ROLE_TOKEN_EMBD)
        plan->vector_bytes += place->tensor->k * sizeof(float);
}

/* No pool of the list took the tensor: one line with all that they said. */
static int refused(const struct planner *planner, const struct placement *place,
                   const struct pool_list *pools)
{
    char reasons[512] = "";
    size_t len = 0;
    bool budget = false;
    for (int i = 0; i < pools->n; i++) {
        const struct pool_refusal *refusal = &place->refusals[pools->pools[i]];
        char text[128];
        len += (size_t)snprintf(reasons + len, sizeof reasons - len, "%spool %s refuses: %s",
                                i ? "; " : "", plan_pool_name(pools->pools[i]),
                                plan_refusal_text(refusal, text, sizeof text));
        budget = budget || refusal->wanted;
    }
    const char *path = gguf_path(planner->plan->model->gguf);
    const char *type = place->tensor->source->type->name;
    if (place->override >= 0)
        return error_set(planner->error, TSR_EINVAL, "-ot '%s': tensor %s (%s): %s",
                         planner->settings->overrides[place->override], place->name, type, reasons);
    return error_set(planner->error, budget ? TSR_ENOMEM : TSR_EUNSUPPORTED,
                     "%s: tensor %s (%s): %s", path, place->name, type, reasons);
}

/* To the first pool of the list that takes it. */
static bool place_in(const struct planner *planner, struct placement *place,
                     const struct pool_list *pools)
{
    for (int i = 0; i < pools->n; i++) {
        place->pool = pools->pools[i];
        if (offer(planner, place)) {
            settle(planner->plan, place);
            return true;
        }
    }
    return false;
}

static int place_tensor(const struct planner *planner, struct placement *place)
{
    struct plan *plan = planner->plan;
    int status = overrides_find(planner->matcher, place->name, &place->override, planner->error);
    if (status)
        return status;
    struct pool_list usual = pool_priority(planner->settings->no_tiles), pools = usual;
    if (place->override >= 0) {
        pools = plan->overrides[place->override].pools;
        plan->overrides[place->override].n_tensors++;
    }
    if (place_in(planner, place, &pools))
        return 0;
    /* What the file has in another form cannot be used from it, whatever is asked of its name. */
    if (place->tensor->transposed && place_in(planner, place, &usual))
        return 0;
    return refused(planner, place, &pools);
}

static int place_all(const struct planner *planner)
{
    const struct model *model = planner->plan->model;
    for (size_t i = 0; i < model->n_tensors; i++) {
        struct placement *place = &planner->plan->placements[i];
        place->tensor = &model->tensors[i];
        const struct model_tensor *tensor = place->tensor;
        bool tied_output = model->tied_output && tensor->role == ROLE_OUTPUT;
        place->tied = tensor->shares_source;
        place->name = tied_output ? "output.weight" : tensor->source->name;
        int status = place_tensor(planner, place);
        if (status)
            return status;
    }
    return 0;
}

/* ---- Plans ---- */

void plan_free(struct plan *plan)
{
    if (!plan)
        return;
    for (size_t i = 0; i < plan->n_overrides; i++)
        free(plan->overrides[i].pattern);
    free(plan->overrides);
    free(plan->placements);
    free(plan);
}

static struct plan *allocate(const struct model *model, const struct kernel_set *kernels,
                             const struct plan_settings *settings)
{
    struct plan *plan = mem_alloc(1, sizeof *plan);
    if (!plan)
        return NULL;
    plan->model = model;
    plan->kernels = kernels;
    plan->n_nodes = settings->shares.n_nodes;
    plan->n_placements = model->n_tensors;
    plan->placements = mem_alloc(model->n_tensors, sizeof *plan->placements);
    plan->overrides = mem_alloc(settings->n_overrides, sizeof *plan->overrides);
    if (!plan->placements || !plan->overrides) {
        plan_free(plan);
        return NULL;
    }
    plan->n_overrides = settings->n_overrides;
    for (int pool = 0; pool < POOL_COUNT; pool++)
        plan->pools[pool].budget = settings->budgets[pool];
    return plan;
}

int plan_create(const struct model *model, const struct kernel_set *kernels,
                const struct plan_settings *settings, struct plan **out, struct tsr_error *error)
{
    *out = NULL;
    struct plan *plan = allocate(model, kernels, settings);
    if (!plan)
        return error_set(error, TSR_ENOMEM, "out of memory for a plan");
    struct override_matcher *matcher;
    int status = overrides_open(settings->overrides, settings->n_overrides, plan->overrides,
                                &matcher, error);
    if (!status) {
        struct planner planner = {plan, settings, matcher, error};
        status = place_all(&planner);
    }
    overrides_close(matcher);
    if (status) {
        plan_free(plan);
        return status;
    }
    *out = plan;
    return 0;
}
