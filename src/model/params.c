#include "model/params.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* No model comes near; beyond, products of two dimensions would not fit an int. */
enum { MAX_DIM = 1 << 20, MAX_LAYERS = 4096, MAX_HEADS = 4096, MAX_EXPERTS = 4096,
       MAX_MLA_HEAD = 512 };

/* Reads keys "ARCH.name"; the first fault stays in `error` and later reads do nothing. */
struct key_reader {
    const struct gguf *gguf;
    const struct model_arch *arch;
    struct tsr_error *error;
    char key[128];
};

static const char *full_key(struct key_reader *reader, const char *name)
{
    snprintf(reader->key, sizeof reader->key, "%s.%s", reader->arch->name, name);
    return reader->key;
}

/* A key that is there must be of the type asked for; the text of the error is set already. */
static void refuse_mismatch(struct key_reader *reader, const char *key)
{
    if (gguf_find(reader->gguf, key))
        reader->error->code = TSR_EFORMAT;
}

static uint32_t read_u32(struct key_reader *reader, const char *name, uint32_t fallback,
                         uint32_t max)
{
    uint32_t value = fallback;
    struct tsr_error *error = reader->error;
    if (error->code)
        return fallback;
    const char *key = full_key(reader, name);
    if (!gguf_get_u32(reader->gguf, key, &value, error))
        refuse_mismatch(reader, key);
    else if (value > max)
        error_set(error, TSR_EFORMAT, "%s: %s is %u: at most %u is supported",
                  gguf_path(reader->gguf), key, value, max);
    return value;
}

static uint32_t require_u32(struct key_reader *reader, const char *name, uint32_t max)
{
    uint32_t value = read_u32(reader, name, 0, max);
    if (!reader->error->code && value == 0)
        error_set(reader->error, TSR_EFORMAT, "%s: %s is missing or zero", gguf_path(reader->gguf),
                  full_key(reader, name));
    return value;
}

static bool read_bool(struct key_reader *reader, const char *name, bool fallback)
{
    bool value = fallback;
    const char *key = full_key(reader, name);
    if (!reader->error->code && !gguf_get_bool(reader->gguf, key, &value, reader->error))
        refuse_mismatch(reader, key);
    return value;
}

static float read_f32(struct key_reader *reader, const char *name, float fallback)
{
    float value = fallback;
    const char *key = full_key(reader, name);
    if (!reader->error->code && !gguf_get_f32(reader->gguf, key, &value, reader->error))
        refuse_mismatch(reader, key);
    return value;
}

/* Some files give one value for each layer; only files in which all are equal are supported. */
static uint32_t read_per_layer(struct key_reader *reader, const char *name, uint32_t fallback,
                               uint32_t max)
{
    const char *key = full_key(reader, name);
    const struct gguf_value *value = gguf_find(reader->gguf, key);
    if (!value || value->type != GGUF_ARRAY)
        return read_u32(reader, name, fallback, max);
    struct gguf_array array;
    if (!gguf_get_array(reader->gguf, key, GGUF_I32, &array, reader->error))
        return 0;
    for (uint64_t i = 0; i < array.count; i++) {
        int64_t element = gguf_array_int(&array, i);
        if (element <= 0 || element > max || element != gguf_array_int(&array, 0)) {
            error_set(reader->error, TSR_EUNSUPPORTED,
                      "%s: %s differs from layer to layer: not supported", gguf_path(reader->gguf),
                      key);
            return 0;
        }
    }
    return array.count ? (uint32_t)gguf_array_int(&array, 0) : fallback;
}

static bool string_is(struct gguf_string string, const char *text)
{
    return string.len == strlen(text) && memcmp(string.data, text, string.len) == 0;
}

/* YaRN as in the paper (arXiv 2309.00071) and the keys rope.scaling.* of the GGUF format. */
static void read_rope(struct key_reader *reader, struct model_params *params)
{
    struct rope_params *rope = &params->rope;
    rope->base = read_f32(reader, "rope.freq_base", 10000.0f);
    rope->n_rot = read_u32(reader, "rope.dimension_count", params->d_k, MAX_DIM);
    rope->n_ctx_orig = read_u32(reader, "rope.scaling.original_context_length",
                                params->n_ctx_train, UINT32_MAX);
    rope->scale = 1.0f;
    rope->attention_factor = 1.0f;
    float factor = read_f32(reader, "rope.scaling.factor", 0.0f);
    if (factor == 0.0f)
        factor = read_f32(reader, "rope.scale_linear", 1.0f);
    struct gguf_string type = {"linear", 6};
    const char *key = full_key(reader, "rope.scaling.type");
    if (!reader->error->code && !gguf_get_string(reader->gguf, key, &type, reader->error))
        refuse_mismatch(reader, key);
    rope->yarn = string_is(type, "yarn");
    if (!reader->error->code && !rope->yarn && !string_is(type, "linear") &&
        !string_is(type, "none")) {
        error_set(reader->error, TSR_EUNSUPPORTED, "%s: rope.scaling.type '%.*s' is not supported",
                  gguf_path(reader->gguf), (int)(type.len < 40 ? type.len : 40), type.data);
        return;
    }
    if (factor > 0.0f && !string_is(type, "none"))
        rope->scale = 1.0f / factor;
    if (rope->yarn) {
        rope->yarn_beta_fast = read_f32(reader, "rope.scaling.yarn_beta_fast", 32.0f);
        rope->yarn_beta_slow = read_f32(reader, "rope.scaling.yarn_beta_slow", 1.0f);
        rope->attention_factor = read_f32(reader, "rope.scaling.attn_factor", 1.0f) *
                                 (1.0f + 0.1f * logf(1.0f / rope->scale));
    }
    params->attn_scale = 1.0f / sqrtf((float)params->d_k);
    if (!reader->error->code &&
        (rope->n_rot == 0 || rope->n_rot % 2 || rope->n_rot > params->d_k || !(rope->base > 0.0f)))
        error_set(reader->error, TSR_EFORMAT,
                  "%s: rope with %u of %u elements and base %g: must be even, at most the head, "
                  "and positive", gguf_path(reader->gguf), rope->n_rot, params->d_k,
                  (double)rope->base);
}

static void read_heads(struct key_reader *reader, struct model_params *params)
{
    params->n_head = read_per_layer(reader, "attention.head_count", 0, MAX_HEADS);
    params->n_head_kv = read_per_layer(reader, "attention.head_count_kv", params->n_head, MAX_HEADS);
    if (reader->error->code)
        return;
    if (!params->n_head || !params->n_head_kv || params->n_head % params->n_head_kv) {
        error_set(reader->error, TSR_EFORMAT,
                  "%s: %u query heads and %u key/value heads: the first must be a multiple",
                  gguf_path(reader->gguf), params->n_head, params->n_head_kv);
        return;
    }
    uint32_t d_head = params->n_embd / params->n_head;
    params->d_k = read_u32(reader, "attention.key_length", d_head, MAX_DIM / 4);
    params->d_v = read_u32(reader, "attention.value_length", params->d_k, MAX_DIM / 4);
    if (!reader->error->code && (!params->d_k || params->d_k % 2 || !params->d_v ||
                                 (uint64_t)params->n_head * params->d_k > MAX_DIM ||
                                 (uint64_t)params->n_head * params->d_v > MAX_DIM))
        error_set(reader->error, TSR_EFORMAT, "%s: heads of %u and %u elements are not supported",
                  gguf_path(reader->gguf), params->d_k, params->d_v);
}

/* Heads of latent attention. Newer files describe what is cached as one key/value head, and the
 * heads themselves by keys that end in _mla; older ones have no such keys. */
static void read_mla_heads(struct key_reader *reader, struct model_params *params)
{
    struct mla_params *mla = &params->mla;
    params->n_head = require_u32(reader, "attention.head_count", MAX_HEADS);
    params->n_head_kv = 1;
    mla->kv_rank = require_u32(reader, "attention.kv_lora_rank", MAX_DIM / 4);
    mla->q_rank = read_u32(reader, "attention.q_lora_rank", 0, MAX_DIM / 4);
    uint32_t d_k = read_u32(reader, "attention.key_length", 0, MAX_DIM / 4);
    uint32_t d_v = read_u32(reader, "attention.value_length", 0, MAX_DIM / 4);
    params->d_k = read_u32(reader, "attention.key_length_mla", d_k, MAX_DIM / 4);
    params->d_v = read_u32(reader, "attention.value_length_mla", d_v, MAX_DIM / 4);
    uint32_t n_rot = require_u32(reader, "rope.dimension_count", MAX_DIM / 4);
    if (reader->error->code)
        return;
    /* Keys and values of a head fit a worker's block of columns; values are quantized by head. */
    if (params->d_k <= n_rot || params->d_k - n_rot > MAX_MLA_HEAD || params->d_v > MAX_MLA_HEAD ||
        !params->d_v || params->d_v % 32 ||
        (uint64_t)params->n_head * (params->d_k + params->d_v) > MAX_DIM)
        error_set(reader->error, TSR_EUNSUPPORTED,
                  "%s: heads of %u (%u of them rotated) and %u elements are not supported",
                  gguf_path(reader->gguf), params->d_k, n_rot, params->d_v);
    mla->d_nope = params->d_k - n_rot;
}

/* Here what YaRN does to the scores is a factor of their scale, and no part of the rotation. */
static void scale_mla_scores(struct key_reader *reader, struct model_params *params)
{
    struct rope_params *rope = &params->rope;
    float factor = read_f32(reader, "rope.scaling.yarn_log_multiplier", 0.0f);
    float magnitude = 1.0f + factor * logf(1.0f / rope->scale);
    rope->attention_factor = 1.0f;
    params->attn_scale *= magnitude * magnitude;
}

static void read_groups(struct key_reader *reader, struct model_params *params)
{
    struct router_params *router = &params->router;
    uint32_t n_group = read_u32(reader, "expert_group_count", 1, ROUTER_MAX_GROUPS);
    if (reader->error->code || n_group <= 1)
        return;
    router->n_group = n_group;
    router->n_group_used = require_u32(reader, "expert_group_used_count", n_group);
    if (!reader->error->code &&
        (params->n_expert % n_group ||
         params->n_expert / n_group * router->n_group_used < params->n_expert_used))
        error_set(reader->error, TSR_EFORMAT,
                  "%s: %s.expert_group_count: %u experts of %u, from %u of %u groups, cannot be",
                  gguf_path(reader->gguf), reader->arch->name, params->n_expert_used,
                  params->n_expert, router->n_group_used, n_group);
}

/* What the families with shared experts say of their router and of layers without one. */
static void read_router(struct key_reader *reader, struct model_params *params)
{
    enum { SOFTMAX = 1, SIGMOID = 2 };
    params->n_layer_dense = read_u32(reader, "leading_dense_block_count", 0, params->n_layer);
    uint32_t n_shared = read_u32(reader, "expert_shared_count", 0, MAX_EXPERTS);
    uint32_t gating = read_u32(reader, "expert_gating_func", SOFTMAX, UINT32_MAX);
    float scale = read_f32(reader, "expert_weights_scale", 1.0f);
    params->router.sigmoid = gating == SIGMOID;
    params->router.normalized = read_bool(reader, "expert_weights_norm", false);
    params->router.scale = scale == 0.0f ? 1.0f : scale; /* converters write 0 for none */
    params->n_ff_shared = n_shared * params->n_ff_expert;
    read_groups(reader, params);
    if (reader->error->code)
        return;
    if (gating != SOFTMAX && gating != SIGMOID)
        error_set(reader->error, TSR_EUNSUPPORTED, "%s: %s.expert_gating_func %u is not supported",
                  gguf_path(reader->gguf), reader->arch->name, gating);
    else if ((uint64_t)n_shared * params->n_ff_expert > MAX_DIM)
        error_set(reader->error, TSR_EFORMAT, "%s: %u shared experts of width %u are not supported",
                  gguf_path(reader->gguf), n_shared, params->n_ff_expert);
}

/* The feed-forward of layers without experts. */
static void read_dense(struct key_reader *reader, struct model_params *params)
{
    params->n_ff = read_per_layer(reader, "feed_forward_length", 0, MAX_DIM);
    if (!reader->error->code && params->n_ff == 0)
        require_u32(reader, "feed_forward_length", MAX_DIM);
}

static void read_experts(struct key_reader *reader, struct model_params *params)
{
    unsigned switches = reader->arch->switches;
    params->router = (struct router_params){
        .normalized = true, .scale = 1.0f, .n_group = 1, .n_group_used = 1};
    if (switches & (ARCH_MOE | ARCH_MOE_OPTIONAL))
        params->n_expert = read_u32(reader, "expert_count", 0, MAX_EXPERTS);
    if (params->n_expert == 0) {
        if (switches & ARCH_MOE)
            require_u32(reader, "expert_count", MAX_EXPERTS);
        params->n_layer_dense = params->n_layer;
        read_dense(reader, params);
        return;
    }
    params->n_expert_used = require_u32(reader, "expert_used_count", MAX_EXPERTS);
    params->n_ff_expert = read_u32(reader, "expert_feed_forward_length", 0, MAX_DIM);
    if (params->n_ff_expert == 0)
        params->n_ff_expert = read_per_layer(reader, "feed_forward_length", 0, MAX_DIM);
    if (!reader->error->code &&
        (params->n_expert_used > params->n_expert || params->n_ff_expert == 0))
        error_set(reader->error, TSR_EFORMAT, "%s: %u of %u experts of width %u cannot be",
                  gguf_path(reader->gguf), params->n_expert_used, params->n_expert,
                  params->n_ff_expert);
    if (switches & ARCH_SHARED_EXPERTS)
        read_router(reader, params);
    if (params->n_layer_dense > 0)
        read_dense(reader, params);
}

int params_read(const struct gguf *gguf, const struct model_arch *arch, struct model_params *params,
                struct tsr_error *error)
{
    struct tsr_error fault = {0};
    struct key_reader reader = {.gguf = gguf, .arch = arch, .error = &fault};
    *params = (struct model_params){0};
    params->n_layer = require_u32(&reader, "block_count", MAX_LAYERS);
    params->n_embd = require_u32(&reader, "embedding_length", MAX_DIM);
    params->n_ctx_train = require_u32(&reader, "context_length", INT32_MAX);
    params->rms_eps = read_f32(&reader, "attention.layer_norm_rms_epsilon", 1e-5f);
    if (!fault.code)
        (arch->switches & ARCH_MLA ? read_mla_heads : read_heads)(&reader, params);
    if (!fault.code)
        read_experts(&reader, params);
    if (!fault.code)
        read_rope(&reader, params);
    if (!fault.code && arch->switches & ARCH_MLA)
        scale_mla_scores(&reader, params);
    if (fault.code && error)
        *error = fault;
    return fault.code;
}
