/* Roles of tensors, after the names of the GGUF converters:
 * https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py */
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/params.h"

/* Dimensions that tensor shapes are made of. */
enum dim { DIM_ONE, DIM_EMBD, DIM_VOCAB, DIM_Q, DIM_K, DIM_V, DIM_OUT, DIM_D_K, DIM_ROT_HALF,
           DIM_FF, DIM_EXPERTS, DIM_FF_EXPERT };

/* When a role must be there. `needs`: condition on the model; 0: always. */
enum need { NEED_ALWAYS, NEED_NEVER, NEED_QK_NORM, NEED_QKV_BIAS, NEED_DENSE, NEED_MOE };

struct role_shape {
    const char *name; /* with ".weight" or ".bias"; of a layer: after "blk.N." */
    bool of_layer;
    bool matrix;
    bool experts; /* a third dimension, one matrix for each expert */
    enum dim n, k;
    enum need need;
};

static const struct role_shape roles[ROLE_COUNT] = {
    [ROLE_TOKEN_EMBD] = {"token_embd.weight", false, false, false, DIM_VOCAB, DIM_EMBD, NEED_ALWAYS},
    [ROLE_OUTPUT_NORM] = {"output_norm.weight", false, false, false, DIM_ONE, DIM_EMBD, NEED_ALWAYS},
    [ROLE_OUTPUT] = {"output.weight", false, true, false, DIM_VOCAB, DIM_EMBD, NEED_NEVER},
    [ROLE_ROPE_FREQS] = {"rope_freqs.weight", false, false, false, DIM_ONE, DIM_ROT_HALF, NEED_NEVER},
    [ROLE_ATTN_NORM] = {"attn_norm.weight", true, false, false, DIM_ONE, DIM_EMBD, NEED_ALWAYS},
    [ROLE_ATTN_Q] = {"attn_q.weight", true, true, false, DIM_Q, DIM_EMBD, NEED_ALWAYS},
    [ROLE_ATTN_K] = {"attn_k.weight", true, true, false, DIM_K, DIM_EMBD, NEED_ALWAYS},
    [ROLE_ATTN_V] = {"attn_v.weight", true, true, false, DIM_V, DIM_EMBD, NEED_ALWAYS},
    [ROLE_ATTN_OUTPUT] = {"attn_output.weight", true, true, false, DIM_EMBD, DIM_OUT, NEED_ALWAYS},
    [ROLE_ATTN_Q_BIAS] = {"attn_q.bias", true, false, false, DIM_ONE, DIM_Q, NEED_QKV_BIAS},
    [ROLE_ATTN_K_BIAS] = {"attn_k.bias", true, false, false, DIM_ONE, DIM_K, NEED_QKV_BIAS},
    [ROLE_ATTN_V_BIAS] = {"attn_v.bias", true, false, false, DIM_ONE, DIM_V, NEED_QKV_BIAS},
    [ROLE_ATTN_Q_NORM] = {"attn_q_norm.weight", true, false, false, DIM_ONE, DIM_D_K, NEED_QK_NORM},
    [ROLE_ATTN_K_NORM] = {"attn_k_norm.weight", true, false, false, DIM_ONE, DIM_D_K, NEED_QK_NORM},
    [ROLE_FFN_NORM] = {"ffn_norm.weight", true, false, false, DIM_ONE, DIM_EMBD, NEED_ALWAYS},
    [ROLE_FFN_GATE] = {"ffn_gate.weight", true, true, false, DIM_FF, DIM_EMBD, NEED_DENSE},
    [ROLE_FFN_UP] = {"ffn_up.weight", true, true, false, DIM_FF, DIM_EMBD, NEED_DENSE},
    [ROLE_FFN_DOWN] = {"ffn_down.weight", true, true, false, DIM_EMBD, DIM_FF, NEED_DENSE},
    [ROLE_ROUTER] = {"ffn_gate_inp.weight", true, true, false, DIM_EXPERTS, DIM_EMBD, NEED_MOE},
    [ROLE_GATE_EXPERTS] = {"ffn_gate_exps.weight", true, true, true, DIM_FF_EXPERT, DIM_EMBD,
                           NEED_MOE},
    [ROLE_UP_EXPERTS] = {"ffn_up_exps.weight", true, true, true, DIM_FF_EXPERT, DIM_EMBD, NEED_MOE},
    [ROLE_DOWN_EXPERTS] = {"ffn_down_exps.weight", true, true, true, DIM_EMBD, DIM_FF_EXPERT,
                           NEED_MOE},
};

const char *model_role_name(enum model_role role)
{
    return roles[role].name;
}

bool model_role_is_matrix(enum model_role role)
{
    return roles[role].matrix;
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
    case DIM_ROT_HALF: return params->rope.n_rot / 2;
    case DIM_FF: return params->n_ff;
    case DIM_EXPERTS: return params->n_expert;
    case DIM_FF_EXPERT: return params->n_ff_expert;
    case DIM_ONE: break;
    }
    return 1;
}

static bool role_needed(const struct model *model, enum need need)
{
    switch (need) {
    case NEED_ALWAYS: return true;
    case NEED_NEVER: return false;
    case NEED_QK_NORM: return model->arch->switches & ARCH_QK_NORM;
    case NEED_QKV_BIAS: return model->arch->switches & ARCH_QKV_BIAS;
    case NEED_DENSE: return model->params.n_expert == 0;
    case NEED_MOE: return model->params.n_expert > 0;
    }
    return false;
}

/* A role that this family knows, needed or optional. */
static bool role_known(const struct model *model, enum model_role role)
{
    return roles[role].need == NEED_NEVER || role_needed(model, roles[role].need);
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
            role_known(model, (enum model_role)role))
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
    tensor->n_expert = shape->experts ? model->params.n_expert : 1;
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
            if (shape->of_layer != (layer >= 0) || !role_needed(model, shape->need) ||
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

/* A file without an output matrix uses the embedding for both. */
static void tie_output(struct model *model)
{
    const struct model_tensor *embedding = model_find(model, -1, ROLE_TOKEN_EMBD);
    if (model_find(model, -1, ROLE_OUTPUT))
        return;
    model->tied_output = true;
    model->tensors[model->n_tensors] = *embedding;
    model->tensors[model->n_tensors].role = ROLE_OUTPUT;
    *role_slot(model, -1, ROLE_OUTPUT) = (int32_t)model->n_tensors++;
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
    model->tensors = mem_alloc(n_tensors + 1, sizeof *model->tensors);
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
