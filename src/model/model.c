/* Roles of tensors, after the names of the GGUF converters:
 * https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py */
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/params.h"

/* Dimensions that tensor shapes are made of. */
enum dim { DIM_ONE, DIM_EMBD, DIM_VOCAB, DIM_Q, DIM_K, DIM_V, DIM_OUT, DIM_D_K, DIM_D_V,
           DIM_ROT_HALF, DIM_HEADS, DIM_Q_RANK, DIM_KV_RANK, DIM_LATENT, DIM_NOPE, DIM_KV_B,
           DIM_FF, DIM_EXPERTS, DIM_FF_EXPERT, DIM_FF_SHARED };

/* When a role must be there; MAY: a role that can be absent. */
enum need { NEED_ALWAYS, MAY_ALWAYS, NEED_QK_NORM, NEED_QKV_BIAS, NEED_PLAIN_Q, NEED_PLAIN_KV,
            NEED_MLA, MAY_MLA, NEVER_IN_FILE, NEED_Q_RANK, NEED_DENSE, NEED_MOE, MAY_ROUTER_BIAS,
            NEED_SHARED };

enum kind { TABLE, VECTOR, MATRIX };

struct role_shape {
    const char *name; /* with ".weight" or ".bias"; of a layer: after "blk.N." */
    bool of_layer;
    enum kind kind;
    enum dim k, n, count; /* the order of the file; count: one matrix for each expert or head */
    enum need need;
};

static const struct role_shape roles[ROLE_COUNT] = {
    [ROLE_TOKEN_EMBD] = {"token_embd.weight", false, TABLE, DIM_EMBD, DIM_VOCAB, DIM_ONE,
                         NEED_ALWAYS},
    [ROLE_OUTPUT_NORM] = {"output_norm.weight", false, VECTOR, DIM_EMBD, DIM_ONE, DIM_ONE,
                          NEED_ALWAYS},
    [ROLE_OUTPUT] = {"output.weight", false, MATRIX, DIM_EMBD, DIM_VOCAB, DIM_ONE, MAY_ALWAYS},
    [ROLE_ROPE_FREQS] = {"rope_freqs.weight", false, VECTOR, DIM_ROT_HALF, DIM_ONE, DIM_ONE,
                         MAY_ALWAYS},
    [ROLE_ATTN_NORM] = {"attn_norm.weight", true, VECTOR, DIM_EMBD, DIM_ONE, DIM_ONE, NEED_ALWAYS},
    [ROLE_ATTN_Q] = {"attn_q.weight", true, MATRIX, DIM_EMBD, DIM_Q, DIM_ONE, NEED_PLAIN_Q},
    [ROLE_ATTN_K] = {"attn_k.weight", true, MATRIX, DIM_EMBD, DIM_K, DIM_ONE, NEED_PLAIN_KV},
    [ROLE_ATTN_V] = {"attn_v.weight", true, MATRIX, DIM_EMBD, DIM_V, DIM_ONE, NEED_PLAIN_KV},
    [ROLE_ATTN_OUTPUT] = {"attn_output.weight", true, MATRIX, DIM_OUT, DIM_EMBD, DIM_ONE,
                          NEED_ALWAYS},
    [ROLE_ATTN_Q_BIAS] = {"attn_q.bias", true, VECTOR, DIM_Q, DIM_ONE, DIM_ONE, NEED_QKV_BIAS},
    [ROLE_ATTN_K_BIAS] = {"attn_k.bias", true, VECTOR, DIM_K, DIM_ONE, DIM_ONE, NEED_QKV_BIAS},
    [ROLE_ATTN_V_BIAS] = {"attn_v.bias", true, VECTOR, DIM_V, DIM_ONE, DIM_ONE, NEED_QKV_BIAS},
    [ROLE_ATTN_Q_NORM] = {"attn_q_norm.weight", true, VECTOR, DIM_D_K, DIM_ONE, DIM_ONE,
                          NEED_QK_NORM},
    [ROLE_ATTN_K_NORM] = {"attn_k_norm.weight", true, VECTOR, DIM_D_K, DIM_ONE, DIM_ONE,
                          NEED_QK_NORM},
    [ROLE_ATTN_Q_A] = {"attn_q_a.weight", true, MATRIX, DIM_EMBD, DIM_Q_RANK, DIM_ONE, NEED_Q_RANK},
    [ROLE_ATTN_Q_A_NORM] = {"attn_q_a_norm.weight", true, VECTOR, DIM_Q_RANK, DIM_ONE, DIM_ONE,
                            NEED_Q_RANK},
    [ROLE_ATTN_Q_B] = {"attn_q_b.weight", true, MATRIX, DIM_Q_RANK, DIM_Q, DIM_ONE, NEED_Q_RANK},
    [ROLE_ATTN_KV_A] = {"attn_kv_a_mqa.weight", true, MATRIX, DIM_EMBD, DIM_LATENT, DIM_ONE,
                        NEED_MLA},
    [ROLE_ATTN_KV_A_NORM] = {"attn_kv_a_norm.weight", true, VECTOR, DIM_KV_RANK, DIM_ONE, DIM_ONE,
                             NEED_MLA},
    [ROLE_ATTN_KV_B] = {"attn_kv_b.weight", true, MATRIX, DIM_KV_RANK, DIM_KV_B, DIM_ONE, MAY_MLA},
    [ROLE_ATTN_K_B] = {"attn_k_b.weight", true, MATRIX, DIM_NOPE, DIM_KV_RANK, DIM_HEADS, MAY_MLA},
    [ROLE_ATTN_V_B] = {"attn_v_b.weight", true, MATRIX, DIM_KV_RANK, DIM_D_V, DIM_HEADS, MAY_MLA},
    [ROLE_ATTN_K_UP] = {"attn_k_up", true, MATRIX, DIM_KV_RANK, DIM_NOPE, DIM_HEADS, NEVER_IN_FILE},
    [ROLE_FFN_NORM] = {"ffn_norm.weight", true, VECTOR, DIM_EMBD, DIM_ONE, DIM_ONE, NEED_ALWAYS},
    [ROLE_FFN_GATE] = {"ffn_gate.weight", true, MATRIX, DIM_EMBD, DIM_FF, DIM_ONE, NEED_DENSE},
    [ROLE_FFN_UP] = {"ffn_up.weight", true, MATRIX, DIM_EMBD, DIM_FF, DIM_ONE, NEED_DENSE},
    [ROLE_FFN_DOWN] = {"ffn_down.weight", true, MATRIX, DIM_FF, DIM_EMBD, DIM_ONE, NEED_DENSE},
    [ROLE_ROUTER] = {"ffn_gate_inp.weight", true, MATRIX, DIM_EMBD, DIM_EXPERTS, DIM_ONE, NEED_MOE},
    [ROLE_ROUTER_BIAS] = {"exp_probs_b.bias", true, VECTOR, DIM_EXPERTS, DIM_ONE, DIM_ONE,
                          MAY_ROUTER_BIAS},
    [ROLE_GATE_EXPERTS] = {"ffn_gate_exps.weight", true, MATRIX, DIM_EMBD, DIM_FF_EXPERT,
                           DIM_EXPERTS, NEED_MOE},
    [ROLE_UP_EXPERTS] = {"ffn_up_exps.weight", true, MATRIX, DIM_EMBD, DIM_FF_EXPERT, DIM_EXPERTS,
                         NEED_MOE},
    [ROLE_DOWN_EXPERTS] = {"ffn_down_exps.weight", true, MATRIX, DIM_FF_EXPERT, DIM_EMBD,
                           DIM_EXPERTS, NEED_MOE},
    [ROLE_SHARED_GATE] = {"ffn_gate_shexp.weight", true, MATRIX, DIM_EMBD, DIM_FF_SHARED, DIM_ONE,
                          NEED_SHARED},
    [ROLE_SHARED_UP] = {"ffn_up_shexp.weight", true, MATRIX, DIM_EMBD, DIM_FF_SHARED, DIM_ONE,
                        NEED_SHARED},
    [ROLE_SHARED_DOWN] = {"ffn_down_shexp.weight", true, MATRIX, DIM_FF_SHARED, DIM_EMBD, DIM_ONE,
                          NEED_SHARED},
};

const char *model_role_name(enum model_role role)
{
    return roles[role].name;
}

bool model_role_is_matrix(enum model_role role)
{
    return roles[role].kind == MATRIX;
}

static uint32_t dim_size(const struct model_params *params, enum dim dim)
{
    switch (dim) {
    case DIM_EMBD: return params->n_embd;
    case DIM_VOCAB: return params->n_vocab;
    case DIM_Q: return params->n_head * params->d_k;
    case DIM_K: return params->n_head_kv * params->d_k;
    case DIM_V: return params->n_head_kv * params->d_v;
    case DIM_OUT: return params->n_head * params->d_v;
    case DIM_D_K: return params->d_k;
    case DIM_D_V: return params->d_v;
    case DIM_ROT_HALF: return params->rope.n_rot / 2;
    case DIM_HEADS: return params->n_head;
    case DIM_Q_RANK: return params->mla.q_rank;
    case DIM_KV_RANK: return params->mla.kv_rank;
    case DIM_LATENT: return params->mla.kv_rank + params->rope.n_rot;
    case DIM_NOPE: return params->mla.d_nope;
    case DIM_KV_B: return params->n_head * (params->mla.d_nope + params->d_v);
    case DIM_FF: return params->n_ff;
    case DIM_EXPERTS: return params->n_expert;
    case DIM_FF_EXPERT: return params->n_ff_expert;
    case DIM_FF_SHARED: return params->n_ff_shared;
    case DIM_ONE: break;
    }
    return 1;
}

/* Whether a model of this family can have the role in this layer. */
static bool role_known(const struct model *model, int layer, enum need need)
{
    const struct model_params *params = &model->params;
    unsigned switches = model->arch->switches;
    bool mla = switches & ARCH_MLA, moe = layer >= (int)params->n_layer_dense;
    switch (need) {
    case NEED_ALWAYS: return true;
    case MAY_ALWAYS: return true;
    case NEED_QK_NORM: return switches & ARCH_QK_NORM;
    case NEED_QKV_BIAS: return switches & ARCH_QKV_BIAS;
    case NEED_PLAIN_Q: return params->mla.q_rank == 0;
    case NEED_PLAIN_KV: return !mla;
    case NEED_MLA: return mla;
    case MAY_MLA: return mla;
    case NEED_Q_RANK: return params->mla.q_rank > 0;
    case NEED_DENSE: return !moe;
    case NEED_MOE: return moe;
    case MAY_ROUTER_BIAS: return moe && switches & ARCH_SHARED_EXPERTS;
    case NEED_SHARED: return moe && params->n_ff_shared > 0;
    case NEVER_IN_FILE: break;
    }
    return false;
}

static bool role_needed(const struct model *model, int layer, enum need need)
{
    bool may = need == MAY_ALWAYS || need == MAY_MLA || need == MAY_ROUTER_BIAS;
    return !may && role_known(model, layer, need);
}

static int32_t *role_slot(const struct model *model, int layer, enum model_role role)
{
    size_t row = layer < 0 ? model->params.n_layer : (size_t)layer;
    return &model->by_role[row * ROLE_COUNT + role];
}

const struct model_tensor *model_find(const struct model *model, int layer, enum model_role role)
{
    int32_t index = *role_slot(model, layer, role);
    return index < 0 ? NULL : &model->tensors[index];
}

/* "blk.12.attn_q.weight" -> layer 12 and the rest of the name; false where it is malformed. */
static bool split_layer(const char *name, int *layer, const char **rest)
{
    *layer = -1;
    *rest = name;
    if (strncmp(name, "blk.", 4) != 0)
        return true;
    char *end;
    if (name[4] < '0' || name[4] > '9')
        return false;
    long number = strtol(name + 4, &end, 10);
    if (*end != '.' || number > INT32_MAX)
        return false;
    *layer = (int)number;
    *rest = end + 1;
    return true;
}

static int find_role(const struct model *model, const char *name, int *layer)
{
    const char *rest;
    if (!split_layer(name, layer, &rest) || *layer >= (int)model->params.n_layer)
        return -1;
    for (int role = 0; role < ROLE_COUNT; role++)
        if (roles[role].of_layer == (*layer >= 0) && strcmp(rest, roles[role].name) == 0 &&
            role_known(model, *layer, roles[role].need))
            return role;
    return -1;
}

static int check_shape(const struct model *model, struct model_tensor *tensor,
                       struct tsr_error *error)
{
    const struct role_shape *shape = &roles[tensor->role];
    const struct gguf_tensor *source = tensor->source;
    tensor->k = dim_size(&model->params, shape->k);
    tensor->n = dim_size(&model->params, shape->n);
    tensor->n_expert = dim_size(&model->params, shape->count);
    tensor->type = source->type;
    tensor->expert_rows = tensor->n;
    if (source->dims[0] != tensor->k || source->dims[1] != tensor->n ||
        source->dims[2] != tensor->n_expert || source->dims[3] != 1)
        return error_set(error, TSR_EFORMAT,
                         "%s: tensor %s has shape [%llu, %llu, %llu]: the metadata asks for "
                         "[%u, %u, %u]", gguf_path(model->gguf), source->name,
                         (unsigned long long)source->dims[0], (unsigned long long)source->dims[1],
                         (unsigned long long)source->dims[2], tensor->k, tensor->n,
                         tensor->n_expert);
    if (!source->type->dequantize)
        return error_set(error, TSR_EUNSUPPORTED,
                         "%s: tensor %s has type %s, for which there is no kernel",
                         gguf_path(model->gguf), source->name, source->type->name);
    return 0;
}

static int add_tensor(struct model *model, const struct gguf_tensor *source,
                      struct tsr_error *error)
{
    int layer;
    int role = find_role(model, source->name, &layer);
    if (role < 0)
        return error_set(error, TSR_EUNSUPPORTED,
                         "%s: tensor %s is not part of a %s model as this version knows it",
                         gguf_path(model->gguf), source->name, model->arch->name);
    struct model_tensor *tensor = &model->tensors[model->n_tensors];
    *tensor = (struct model_tensor){.role = (enum model_role)role, .layer = layer, .source = source};
    int status = check_shape(model, tensor, error);
    if (status)
        return status;
    *role_slot(model, layer, tensor->role) = (int32_t)model->n_tensors++;
    model->n_params += source->n_elems;
    return 0;
}

static int check_missing(const struct model *model, struct tsr_error *error)
{
    for (int layer = -1; layer < (int)model->params.n_layer; layer++) {
        for (int role = 0; role < ROLE_COUNT; role++) {
            const struct role_shape *shape = &roles[role];
            if (shape->of_layer != (layer >= 0) || !role_needed(model, layer, shape->need) ||
                model_find(model, layer, (enum model_role)role))
                continue;
            char prefix[32] = "";
            if (layer >= 0)
                snprintf(prefix, sizeof prefix, "blk.%d.", layer);
            return error_set(error, TSR_EFORMAT, "%s: tensor %s%s is missing",
                             gguf_path(model->gguf), prefix, shape->name);
        }
    }
    return 0;
}

/* ---- Tensors that share a source ------------------------------------------------------------- */

/* A tensor of a role that is made from another one's source. */
static struct model_tensor *add_shared(struct model *model, const struct model_tensor *from,
                                       enum model_role role)
{
    struct model_tensor *tensor = &model->tensors[model->n_tensors];
    *tensor = *from;
    tensor->role = role;
    tensor->shares_source = true;
    tensor->k = dim_size(&model->params, roles[role].k);
    tensor->n = dim_size(&model->params, roles[role].n);
    tensor->n_expert = dim_size(&model->params, roles[role].count);
    *role_slot(model, tensor->layer, role) = (int32_t)model->n_tensors++;
    return tensor;
}

/* Its rows are columns of the source, whose elements lie in as many blocks: floats have none. */
static void transpose(struct model_tensor *tensor)
{
    uint32_t id = tensor->source->type->id;
    tensor->transposed = true;
    tensor->type = block_type_find(id == BLOCK_F32 || id == BLOCK_F16 ? id : BLOCK_BF16);
}

/* A file without an output matrix uses the embedding for both. */
static void tie_output(struct model *model)
{
    if (model_find(model, -1, ROLE_OUTPUT))
        return;
    model->tied_output = true;
    add_shared(model, model_find(model, -1, ROLE_TOKEN_EMBD), ROLE_OUTPUT);
}

/* attn_kv_b has for each head d_nope rows of keys and d_v of values. It becomes K_UP. */
static void split_kv_b(struct model *model, int layer)
{
    uint32_t d_nope = model->params.mla.d_nope, d_v = model->params.d_v;
    int32_t index = *role_slot(model, layer, ROLE_ATTN_KV_B);
    struct model_tensor *keys = &model->tensors[index];
    keys->role = ROLE_ATTN_K_UP;
    keys->n = d_nope;
    keys->n_expert = model->params.n_head;
    keys->expert_rows = d_nope + d_v;
    *role_slot(model, layer, ROLE_ATTN_K_UP) = index;
    *role_slot(model, layer, ROLE_ATTN_KV_B) = -1;
    if (!model_find(model, layer, ROLE_ATTN_V_B))
        add_shared(model, keys, ROLE_ATTN_V_B)->row0 = d_nope;
    if (!model_find(model, layer, ROLE_ATTN_K_B))
        transpose(add_shared(model, keys, ROLE_ATTN_K_B));
}

/* Files have attn_kv_b, or attn_k_b and attn_v_b, or all of them. Attention to the latent needs
 * the latter, keys and values of their own the former. */
static int complete_mla(struct model *model, struct tsr_error *error)
{
    for (int layer = 0; layer < (int)model->params.n_layer; layer++) {
        const struct model_tensor *k_b = model_find(model, layer, ROLE_ATTN_K_B);
        if (model_find(model, layer, ROLE_ATTN_KV_B))
            split_kv_b(model, layer);
        else if (k_b && model_find(model, layer, ROLE_ATTN_V_B))
            transpose(add_shared(model, k_b, ROLE_ATTN_K_UP));
        else
            return error_set(error, TSR_EFORMAT,
                             "%s: tensor blk.%d.attn_%s_b.weight is missing (and so is "
                             "attn_kv_b.weight, which has both)",
                             gguf_path(model->gguf), layer, k_b ? "v" : "k");
    }
    return 0;
}

static int read_tensors(struct model *model, struct tsr_error *error)
{
    const struct gguf_tensor *embedding = gguf_find_tensor(model->gguf, "token_embd.weight");
    if (!embedding || embedding->dims[1] > INT32_MAX)
        return error_set(error, TSR_EFORMAT, "%s: tensor token_embd.weight is missing",
                         gguf_path(model->gguf));
    model->params.n_vocab = (uint32_t)embedding->dims[1];
    size_t n_tensors = gguf_n_tensors(model->gguf);
    size_t n_slots = ((size_t)model->params.n_layer + 1) * ROLE_COUNT;
    /* At most an output, and two of three in each layer, share another's source. */
    size_t n_shared = 1 + 2 * (size_t)model->params.n_layer;
    model->tensors = mem_alloc(n_tensors + n_shared, sizeof *model->tensors);
    model->by_role = mem_alloc(n_slots, sizeof *model->by_role);
    if (!model->tensors || !model->by_role)
        return error_set(error, TSR_ENOMEM, "out of memory for %zu tensors", n_tensors);
    memset(model->by_role, 0xff, n_slots * sizeof *model->by_role);
    for (size_t i = 0; i < n_tensors; i++) {
        int status = add_tensor(model, gguf_tensor_at(model->gguf, i), error);
        if (status)
            return status;
    }
    int status = check_missing(model, error);
    if (!status && model->arch->switches & ARCH_MLA)
        status = complete_mla(model, error);
    if (!status)
        tie_output(model);
    return status;
}

void model_close(struct model *model)
{
    if (!model)
        return;
    free(model->tensors);
    free(model->by_role);
    free(model);
}

static int fill_model(struct model *model, struct tsr_error *error)
{
    struct gguf_string name = {"", 0};
    struct tsr_error fault = {0};
    const char *path = gguf_path(model->gguf);
    if (!gguf_get_string(model->gguf, "general.architecture", &name, &fault))
        return error_set(error, TSR_EFORMAT, "%s: general.architecture is missing", path);
    model->arch = model_arch_find(name);
    if (!model->arch) {
        char known[256];
        model_arch_list(known, sizeof known);
        return error_set(error, TSR_EUNSUPPORTED,
                         "%s: architecture '%.*s' is not supported (supported: %s)", path,
                         (int)(name.len < 40 ? name.len : 40), name.data, known);
    }
    int status = params_read(model->gguf, model->arch, &model->params, error);
    return status ? status : read_tensors(model, error);
}

int model_open(const struct gguf *gguf, struct model **out, struct tsr_error *error)
{
    *out = NULL;
    struct model *model = mem_alloc(1, sizeof *model);
    if (!model)
        return error_set(error, TSR_ENOMEM, "out of memory");
    model->gguf = gguf;
    int status = fill_model(model, error);
    if (status) {
        model_close(model);
        return status;
    }
    *out = model;
    return 0;
}
