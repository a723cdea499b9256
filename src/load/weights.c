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
            const uint8_t *mapped = tensor->source->data;
            const uint8_t *packed = (const uint8_t *)weights->arena + place->offset;
            *(struct matrix *)field_of(weights, tensor) = (struct matrix){
                .kernel = place->kernel,
                .n = (int)tensor->n,
                .k = (int)tensor->k,
                .parts = {{
                    .data = place->pool == POOL_MAPPED ? mapped : packed,
                    .matrix_bytes = place->matrix_bytes,
                    .n1 = (int)tensor->n,
                }},
            };
        }
    }
}

static int allocate(struct weights *weights, const struct model *model, const struct plan *plan,
                    struct tsr_error *error)
{
    size_t n_floats = 0;
    for (size_t i = 0; i < model->n_tensors; i++)
        if (is_vector(&model->tensors[i]))
            n_floats += model->tensors[i].k;
    weights->layers = mem_alloc(model->params.n_layer, sizeof *weights->layers);
    weights->vectors = mem_alloc(n_floats, sizeof(float));
    weights->arena_bytes = plan->pool_bytes[POOL_CPU];
    if (weights->arena_bytes) {
        void *arena = mmap(NULL, weights->arena_bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        weights->arena = arena == MAP_FAILED ? NULL : arena;
    }
    if (!weights->layers || !weights->vectors || (weights->arena_bytes && !weights->arena))
        return error_set(error, TSR_ENOMEM, "%s: out of memory: %llu MiB for packed weights",
                         gguf_path(model->gguf),
                         (unsigned long long)weights->arena_bytes >> 20);
    return 0;
}

void weights_free(struct weights *weights)
{
    if (!weights)
        return;
    if (weights->arena)
        munmap(weights->arena, weights->arena_bytes);
    free(weights->vectors);
    free(weights->layers);
    free(weights);
}

int weights_load(const struct model *model, const struct plan *plan, struct team *team,
                 weights_progress_fn *progress, void *user, struct weights **out,
                 struct tsr_error *error)
{
    *out = NULL;
    struct weights *weights = mem_alloc(1, sizeof *weights);
    if (!weights)
        return error_set(error, TSR_ENOMEM, "out of memory");
    int status = allocate(weights, model, plan, error);
    if (!status)
        status = pack_tensors(plan, team, weights->arena, progress, user, error);
    if (status) {
        weights_free(weights);
        return status;
    }
    connect(weights, plan);
    *out = weights;
    return 0;
}
