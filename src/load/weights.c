#include "load/weights.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "load/cache.h"
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
    [ROLE_ATTN_Q_A] = offsetof(struct layer_weights, mla.q_a),
    [ROLE_ATTN_Q_A_NORM] = offsetof(struct layer_weights, mla.q_a_norm),
    [ROLE_ATTN_Q_B] = offsetof(struct layer_weights, q),
    [ROLE_ATTN_KV_A] = offsetof(struct layer_weights, mla.kv_a),
    [ROLE_ATTN_KV_A_NORM] = offsetof(struct layer_weights, mla.kv_a_norm),
    [ROLE_ATTN_K_B] = offsetof(struct layer_weights, mla.k_b),
    [ROLE_ATTN_V_B] = offsetof(struct layer_weights, mla.v_b),
    [ROLE_ATTN_K_UP] = offsetof(struct layer_weights, mla.k_up),
    [ROLE_FFN_GATE] = offsetof(struct layer_weights, ffn.gate),
    [ROLE_FFN_UP] = offsetof(struct layer_weights, ffn.up),
    [ROLE_FFN_DOWN] = offsetof(struct layer_weights, ffn.down),
    [ROLE_ROUTER] = offsetof(struct layer_weights, router),
    [ROLE_GATE_EXPERTS] = offsetof(struct layer_weights, ffn.gate),
    [ROLE_UP_EXPERTS] = offsetof(struct layer_weights, ffn.up),
    [ROLE_ROUTER_BIAS] = offsetof(struct layer_weights, router_bias),
    [ROLE_DOWN_EXPERTS] = offsetof(struct layer_weights, ffn.down),
    [ROLE_SHARED_GATE] = offsetof(struct layer_weights, shared.gate),
    [ROLE_SHARED_UP] = offsetof(struct layer_weights, shared.up),
    [ROLE_SHARED_DOWN] = offsetof(struct layer_weights, shared.down),
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

static void connect_matrix(struct weights *weights, const struct plan *plan,
                           const struct placement *place, struct matrix *matrix)
{
    const struct model_tensor *tensor = place->tensor;
    int *min_rows = &weights->min_rows[tensor->type->id];
    if (place->kernel->min_rows) /* others of the type may lie in another pool */
        *min_rows = place->kernel->min_rows;
    *matrix = (struct matrix){
        .kernel = place->kernel, .n = (int)tensor->n, .k = (int)tensor->k, .min_rows = min_rows};
    const struct block_type *type = tensor->type;
    size_t row_bytes = tensor->k / type->n_elems * type->n_bytes;
    for (int node = 0; node < plan->n_nodes; node++) {
        const struct placement_part *part = &place->parts[node];
        const uint8_t *data = place->pool == POOL_MAPPED
                                  ? (const uint8_t *)tensor->source->data +
                                        (size_t)(tensor->row0 + (uint32_t)part->n0) * row_bytes
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

/* What is used from the file must stay in memory too. */
static int lock_mapped(const struct plan *plan, struct tsr_error *error)
{
    int status = 0;
    for (size_t i = 0; i < plan->n_placements && !status; i++) {
        const struct placement *place = &plan->placements[i];
        if (place->pool == POOL_MAPPED && !is_vector(place->tensor))
            status = arena_lock(place->tensor->source->data, place->tensor->source->n_bytes, error);
    }
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
    arenas_free(weights->arenas);
    free(weights->vectors);
    free(weights->layers);
    free(weights);
}

/* ---- Packed now, or before ------------------------------------------------------------------- */

static void log_cache(const struct load_settings *settings, enum tsr_log_level level,
                      const struct cache *cache, const char *what)
{
    char line[512];
    snprintf(line, sizeof line, "pack cache %s: %s", cache_path(cache), what);
    settings->log(settings->user, level, line);
}

static int pack(struct weights *weights, const struct plan *plan, struct team *team,
                const struct load_settings *settings, struct tsr_error *error)
{
    int status = arenas_create(plan, &settings->memory, weights->arenas, error);
    return status ? status
                  : pack_tensors(plan, team, weights, settings->progress, settings->user, error);
}

static bool go_on(void *user)
{
    const struct load_settings *settings = user;
    return settings->progress(settings->user, 1, 1);
}

static int pack_and_keep(struct weights *weights, const struct plan *plan, struct team *team,
                         struct cache *cache, const struct load_settings *settings,
                         struct tsr_error *error)
{
    bool busy;
    int status = cache_begin(cache, &busy, error);
    if (!status)
        status = pack(weights, plan, team, settings, error);
    if (!status && !busy)
        status = cache_write(cache, weights->arenas, go_on, (void *)(uintptr_t)settings, error);
    if (!status)
        log_cache(settings, TSR_LOG_INFO, cache,
                  busy ? "another process is writing it" : "written");
    return status;
}

/* The arenas of the cache, where it is good; otherwise it is made anew. */
static int load_cached(struct weights *weights, const struct plan *plan, struct team *team,
                       const struct load_settings *settings, struct tsr_error *error)
{
    struct cache *cache;
    int status = cache_create(settings->cache_dir, plan, &cache, error);
    if (status)
        return status;
    const char *problem = cache_map(cache, weights->arenas);
    weights->mapped_cache = !problem;
    if (problem) {
        char line[128];
        snprintf(line, sizeof line, "%s: packing", problem);
        log_cache(settings, access(cache_path(cache), F_OK) ? TSR_LOG_INFO : TSR_LOG_WARN, cache,
                  line);
        status = pack_and_keep(weights, plan, team, cache, settings, error);
    } else {
        log_cache(settings, TSR_LOG_INFO, cache, "mapped");
        if (settings->memory.lock)
            status = arenas_lock(weights->arenas, error);
    }
    cache_free(cache);
    return status;
}

static int load_arenas(struct weights *weights, const struct plan *plan, struct team *team,
                       const struct load_settings *settings, struct tsr_error *error)
{
    if (!settings->cache_dir)
        return pack(weights, plan, team, settings, error);
    if (settings->memory.numa != TSR_NUMA_NONE) {
        settings->log(settings->user, TSR_LOG_WARN,
                      "--pack-cache is not used with --numa on several nodes: a file's pages do not "
                      "lie on the node that reads them");
        return pack(weights, plan, team, settings, error);
    }
    return load_cached(weights, plan, team, settings, error);
}

int weights_load(const struct plan *plan, struct team *team, const struct load_settings *settings,
                 struct weights **out, struct tsr_error *error)
{
    *out = NULL;
    struct weights *weights = mem_alloc(1, sizeof *weights);
    if (!weights)
        return error_set(error, TSR_ENOMEM, "out of memory");
    int status = 0;
    weights->huge_pages = !settings->memory.no_huge_pages;
    weights->layers = mem_alloc(plan->model->params.n_layer, sizeof *weights->layers);
    weights->vectors = mem_alloc(plan->vector_bytes, 1);
    if (!weights->layers || !weights->vectors)
        status = error_set(error, TSR_ENOMEM, "%s: out of memory", gguf_path(plan->model->gguf));
    if (!status && settings->memory.lock)
        status = lock_mapped(plan, error);
    if (!status)
        status = load_arenas(weights, plan, team, settings, error);
    if (status) {
        weights_free(weights);
        return status;
    }
    connect(weights, plan);
    *out = weights;
    return 0;
}
