#include "load/weights.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "load/pack.h"

/* Where in struct layer_weights a role's matrix or vector pointer lies. */
static const size_t layer_field[ROLE_COUNT] = {
    [ROLE_ATTN_NORM] = offsetof(struct layer_weights, attn_norm),
    [ROLE_FFN_NORM] = offsetof(struct layer_weights, ffn_norm),
    [ROLE_ATTN_Q_NORM] = offsetof(struct layer_weights, q_norm),
    [ROLE_ATTN_K_NORM] = offsetof(struct layer_weights, k_norm),
    [ROLE_ATTN_Q_BIAS] = offsetof(struct layer_weights, q_bias),
    [ROLE_ATTN_K_BIAS] = offsetof(struct layer_weights, k_bias),
    [ROLE_ATTN_V_BIAS] = offsetof(struct layer_weights, v_bias),
    [ROLE_ATTN_Q] = offsetof(struct layer_weights, q),
    [ROLE_ATTN_K] = offsetof(struct layer_weights, k),
    [ROLE_ATTN_V] = offsetof(struct layer_weights, v),
    [ROLE_ATTN_OUTPUT] = offsetof(struct layer_weights, attn_output),
    [ROLE_FFN_GATE] = offsetof(struct layer_weights, gate),
    [ROLE_FFN_UP] = offsetof(struct layer_weights, up),
    [ROLE_FFN_DOWN] = offsetof(struct layer_weights, down),
    [ROLE_ROUTER] = offsetof(struct layer_weights, router),
    [ROLE_GATE_EXPERTS] = offsetof(struct layer_weights, gate),
    [ROLE_UP_EXPERTS] = offsetof(struct layer_weights, up),
    [ROLE_DOWN_EXPERTS] = offsetof(struct layer_weights, down),
};

static void *field_of(struct weights *weights, const struct model_tensor *tensor)
{
    switch (tensor->role) {
    case ROLE_OUTPUT: return &weights->output;
    case ROLE_OUTPUT_NORM: return &weights->output_norm;
    case ROLE_ROPE_FREQS: return &weights->rope_factors;
    default: return (char *)&weights->layers[tensor->layer] + layer_field[tensor->role];
    }
}

static bool is_vector(const struct model_tensor *tensor)
{
    return tensor->role != ROLE_TOKEN_EMBD && !model_role_is_matrix(tensor->role);
}

static void connect_matrix(const struct weights *weights, const struct plan *plan,
                           const struct placement *place, struct matrix *matrix)
{
    const struct model_tensor *tensor = place->tensor;
    *matrix = (struct matrix){.kernel = place->kernel, .n = (int)tensor->n, .k = (int)tensor->k};
    size_t row_bytes = tensor->source->n_bytes / tensor->n_expert / tensor->n;
    for (int node = 0; node < plan->n_nodes; node++) {
        const struct placement_part *part = &place->parts[node];
        const uint8_t *data = place->pool == POOL_MAPPED
                                  ? (const uint8_t *)tensor->source->data +
                                        (size_t)part->n0 * row_bytes
                                  : weights->arenas[place->pool][node].data + part->offset;
        matrix->parts[node] = (struct matrix_part){data, part->matrix_bytes, part->n0, part->n1};
    }
}

/* Points every field at its tensor: matrices into the arena or the file, vectors into `vectors`,
 * converted to float. */
static void connect(struct weights *weights, const struct plan *plan)
{
    float *vector = weights->vectors;
    for (size_t i = 0; i < plan->n_placements; i++) {
        const struct placement *place = &plan->placements[i];
        const struct model_tensor *tensor = place->tensor;
        if (tensor->role == ROLE_TOKEN_EMBD) {
            weights->token_embd = tensor->source;
        } else if (is_vector(tensor)) {
            tensor->source->type->dequantize(tensor->source->data, vector, tensor->k);
            *(const float **)field_of(weights, tensor) = vector;
            vector += tensor->k;
        } else {
            connect_matrix(weights, plan, place, field_of(weights, tensor));
        }
    }
}

/* A refusal leaves pages to the node that touches them first: the one that packs. */
static void apply_policy(const struct arena *arena, const struct memory_policy *policy, int node)
{
    if (policy->numa == TSR_NUMA_INTERLEAVE)
        topology_interleave(policy->topology, arena->data, arena->bytes);
    else if (policy->numa == TSR_NUMA_SHARD)
        topology_bind(policy->topology, arena->data, arena->bytes, node);
    else if (policy->numa == TSR_NUMA_ISOLATE)
        topology_bind(policy->topology, arena->data, arena->bytes, policy->home_node);
}

/* Memory that is bound to a node cannot come from another: too much of it would end the process. */
static int check_nodes(const struct plan *plan, const struct memory_policy *policy,
                       struct tsr_error *error)
{
    if (policy->numa != TSR_NUMA_ISOLATE && policy->numa != TSR_NUMA_SHARD)
        return 0;
    for (int part = 0; part < plan->n_nodes; part++) {
        int index = policy->numa == TSR_NUMA_SHARD ? part : policy->home_node;
        const struct topology_node *node = &policy->topology->nodes[index];
        uint64_t bytes = 0;
        for (int pool = 0; pool < POOL_COUNT; pool++)
            bytes += plan->arena_bytes[pool][part];
        if (bytes > node->available_bytes)
            return error_set(error, TSR_ENOMEM,
                             "node %d has %llu MiB of memory to give, its weights take %llu: use "
                             "--numa interleave or none",
                             node->id, (unsigned long long)node->available_bytes >> 20,
                             (unsigned long long)bytes >> 20);
    }
    return 0;
}

static int allocate_arena(struct arena *arena, uint64_t bytes, const struct memory_policy *policy,
                          int node, struct tsr_error *error)
{
    if (bytes == 0)
        return 0;
    void *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return error_set(error, TSR_ENOMEM, "out of memory: %llu MiB for packed weights",
                         (unsigned long long)bytes >> 20);
    *arena = (struct arena){memory, bytes};
    apply_policy(arena, policy, node);
    return 0;
}

static int allocate(struct weights *weights, const struct model *model, const struct plan *plan,
                    const struct memory_policy *policy, struct tsr_error *error)
{
    weights->layers = mem_alloc(model->params.n_layer, sizeof *weights->layers);
    weights->vectors = mem_alloc(plan->vector_bytes, 1);
    if (!weights->layers || !weights->vectors)
        return error_set(error, TSR_ENOMEM, "%s: out of memory", gguf_path(model->gguf));
    int status = check_nodes(plan, policy, error);
    for (int pool = 0; pool < POOL_COUNT; pool++)
        for (int node = 0; node < plan->n_nodes && !status; node++)
            status = allocate_arena(&weights->arenas[pool][node], plan->arena_bytes[pool][node],
                                    policy, node, error);
    return status;
}

uint64_t weights_packed_bytes(const struct weights *weights)
{
    uint64_t bytes = 0;
    for (int pool = 0; pool < POOL_COUNT; pool++)
        for (int node = 0; node < NODES_MAX; node++)
            bytes += weights->arenas[pool][node].bytes;
    return bytes;
}

void weights_free(struct weights *weights)
{
    if (!weights)
        return;
    for (int pool = 0; pool < POOL_COUNT; pool++)
        for (int node = 0; node < NODES_MAX; node++)
            if (weights->arenas[pool][node].data)
                munmap(weights->arenas[pool][node].data, weights->arenas[pool][node].bytes);
    free(weights->vectors);
    free(weights->layers);
    free(weights);
}

int weights_load(const struct model *model, const struct plan *plan, struct team *team,
                 const struct memory_policy *policy, weights_progress_fn *progress, void *user,
                 struct weights **out, struct tsr_error *error)
{
    *out = NULL;
    struct weights *weights = mem_alloc(1, sizeof *weights);
    if (!weights)
        return error_set(error, TSR_ENOMEM, "out of memory");
    int status = allocate(weights, model, plan, policy, error);
    if (!status)
        status = pack_tensors(plan, team, weights, progress, user, error);
    if (status) {
        weights_free(weights);
        return status;
    }
    connect(weights, plan);
    *out = weights;
    return 0;
}
