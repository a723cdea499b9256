/* Shapes are from the config.json of each model's public repository. Norms and the router are F32.
 *
 * Types are as llama.cpp's quantizer chooses them
 * (https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp): the output matrix of
 * the 4-bit types is Q6_K; Q4_K_M gives Q6_K to attn_v and ffn_down of about half of the layers;
 * with eight experts attn_k and attn_v are Q8_0; rows that are no whole blocks of a type are of
 * another with smaller blocks.
 *
 * Weights have a deviation of 0.02, so that activations stay near one and nothing overflows. What
 * layers add to the residual stream is kept small beside the embedding, as by GPT-2's initial
 * weights (0.02 / sqrt(2 n_layer)): attention averages random values, so that otherwise all tokens
 * become alike after a few layers and go to the same experts. The vocabulary is made up: ids, not
 * text, are what such a model is for. */
#include "bench/shape.h"

#include <err.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "bench/gguf_writer.h"

static const struct shape shapes[] = {
    {"qwen3-30b-a3b", "qwen3moe", 48, 2048, 151936, 40960, 32, 4, 128, 0, 128, 8, 768, 1e6f, true,
     0, 0, 0, 0},
    {"qwen3-235b-a22b", "qwen3moe", 94, 4096, 151936, 40960, 64, 4, 128, 0, 128, 8, 1536, 1e6f,
     true, 0, 0, 0, 0},
    {"qwen3-8b", "qwen3", 36, 4096, 151936, 40960, 32, 8, 128, 12288, 0, 0, 0, 1e6f, true,
     0, 0, 0, 0},
    {"llama-3.1-8b", "llama", 32, 4096, 128256, 131072, 32, 8, 128, 14336, 0, 0, 0, 5e5f, false,
     0, 0, 0, 0},
    {"mixtral-8x7b", "llama", 32, 4096, 32000, 32768, 32, 8, 128, 0, 8, 2, 14336, 1e6f, false,
     0, 0, 0, 0},
    {"deepseek-v2-lite", "deepseek2", 27, 2048, 102400, 163840, 16, 1, 128, 10944, 64, 6, 1408,
     1e4f, false, 512, 64, 1, 2},
    /* Of no model: for tests. */
    {"tiny-moe", "qwen3moe", 4, 256, 1024, 4096, 4, 2, 64, 0, 128, 8, 256, 1e6f, true, 0, 0, 0, 0},
    {"tiny-mla", "deepseek2", 3, 256, 1024, 8192, 8, 1, 64, 512, 16, 4, 128, 1e4f, false,
     128, 32, 1, 2},
};

#define LENGTH(array) (sizeof(array) / sizeof(array)[0])

/* ---- NAME:TYPE,LAYERS ---- */

static int find_shape(const char *name, size_t len, struct shape *shape, struct tsr_error *error)
{
    for (size_t i = 0; i < LENGTH(shapes); i++)
        if (strlen(shapes[i].name) == len && !memcmp(shapes[i].name, name, len)) {
            *shape = shapes[i];
            return 0;
        }
    char known[256];
    size_t used = 0;
    for (size_t i = 0; i < LENGTH(shapes); i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "",
                                 shapes[i].name);
    return error_set(error, TSR_EINVAL, "no shape '%.*s' (there are %s)",
                     (int)(len < 40 ? len : 40), name, known);
}

static bool find_type(const char *name, size_t len, struct shape_model *model)
{
    model->mix = len == strlen("q4_k_m") && !strncasecmp(name, "q4_k_m", len);
    model->type = BLOCK_Q4_K;
    for (uint32_t id = 0; id < BLOCK_ID_COUNT && !model->mix; id++) {
        const struct block_type *type = block_type_find(id);
        model->type = id;
        if (type && type->dequantize && strlen(type->name) == len &&
            !strncasecmp(type->name, name, len))
            return true;
    }
    return model->mix;
}

int shape_parse(const char *text, struct shape_model *model, struct tsr_error *error)
{
    size_t name_len = strcspn(text, ":"), type_len;
    *model = (struct shape_model){.mix = false};
    int status = find_shape(text, name_len, &model->shape, error);
    if (status)
        return status;
    const char *type = text + name_len + (text[name_len] == ':');
    type_len = strcspn(type, ",");
    if (!find_type(type, type_len, model))
        return error_set(error, TSR_EINVAL,
                         "%s:%.*s: give a type: q4_0, q4_k_m, q6_k, q8_0, bf16, ...",
                         model->shape.name, (int)(type_len < 40 ? type_len : 40), type);
    if (!type[type_len])
        return 0;
    char *end;
    long layers = strtol(type + type_len + 1, &end, 10);
    if (*end || end == type + type_len + 1 || layers < 1 || layers > (long)model->shape.n_layer)
        return error_set(error, TSR_EINVAL, "%s: layers must be 1 to %u, not '%.40s'",
                         model->shape.name, model->shape.n_layer, type + type_len + 1);
    model->shape.n_layer = (uint32_t)layers;
    return 0;
}

struct model_writer {
    struct gguf_writer *file;
    const struct shape *shape;
    const struct shape_model *model;
    float *ones; /* norms: [n_embd] */
};

/* Q6_K layers of Q4_K_M: the first and the last eighth, and every third between. */
static bool more_bits(int layer, int n_layer)
{
    return layer < n_layer / 8 || layer >= 7 * n_layer / 8 || (layer - n_layer / 8) % 3 == 2;
}

/* Type of a matrix of a layer. */
static enum block_id matrix_type(const struct model_writer *w, int layer, const char *name)
{
    const struct shape *s = w->shape;
    bool is_v = !strcmp(name, "attn_v.weight"), is_k = !strcmp(name, "attn_k.weight");
    bool quantized = w->model->type != BLOCK_BF16 && w->model->type != BLOCK_F16 &&
                     w->model->type != BLOCK_F32;
    if (s->n_expert == 8 && quantized && (is_k || is_v))
        return BLOCK_Q8_0;
    if (w->model->mix && s->n_expert == 8 && !strcmp(name, "attn_output.weight"))
        return BLOCK_Q5_K;
    if (w->model->mix && (is_v || !strncmp(name, "ffn_down", strlen("ffn_down"))) &&
        more_bits(layer, (int)s->n_layer))
        return BLOCK_Q6_K;
    return (enum block_id)w->model->type;
}

static void *allocate(size_t n, size_t size)
{
    void *memory = calloc(n, size);
    if (!memory)
        err(1, "shape");
    return memory;
}

/* ---- Metadata ---- */

static const char *own_key(const struct model_writer *w, const char *name)
{
    static char key[128];
    snprintf(key, sizeof key, "%s.%s", w->shape->arch, name);
    return key;
}

static void put_u32(struct model_writer *w, const char *name, uint32_t value)
{
    gguf_writer_int(w->file, own_key(w, name), GGUF_U32, value);
}

/* The spelling of bytes in byte-level vocabularies: printable Latin-1 characters stand for
 * themselves, the n-th other byte for character 256 + n. */
static void token_text(uint32_t id, char text[16])
{
    snprintf(text, 16, "t%u", id);
    if (id >= 256)
        return;
    uint32_t code = id, n = 0;
    for (uint32_t b = 0; b <= id; b++) {
        bool printable = (b >= 33 && b <= 126) || (b >= 161 && b != 173);
        code = printable ? b : 256 + n;
        n += !printable;
    }
    if (code < 0x80)
        snprintf(text, 16, "%c", (int)code);
    else
        snprintf(text, 16, "%c%c", (int)(0xc0 | code >> 6), (int)(0x80 | (code & 0x3f)));
}

static void put_vocabulary(struct model_writer *w)
{
    uint32_t n = w->shape->n_vocab;
    char(*texts)[16] = allocate(n, sizeof *texts);
    const char **tokens = allocate(n, sizeof *tokens);
    for (uint32_t id = 0; id < n; id++) {
        token_text(id, texts[id]);
        tokens[id] = texts[id];
    }
    gguf_writer_string(w->file, "tokenizer.ggml.model", "gpt2");
    gguf_writer_string(w->file, "tokenizer.ggml.pre", "qwen2");
    gguf_writer_strings(w->file, "tokenizer.ggml.tokens", tokens, n);
    gguf_writer_strings(w->file, "tokenizer.ggml.merges", NULL, 0);
    free(tokens);
    free(texts);
}

static void put_metadata(struct model_writer *w)
{
    const struct shape *s = w->shape;
    gguf_writer_string(w->file, "general.architecture", s->arch);
    gguf_writer_string(w->file, "general.name", s->name);
    put_u32(w, "block_count", s->n_layer);
    put_u32(w, "context_length", s->n_ctx);
    put_u32(w, "embedding_length", s->n_embd);
    put_u32(w, "attention.head_count", s->n_head);
    put_u32(w, "attention.head_count_kv", s->n_head_kv);
    put_u32(w, "attention.key_length", s->kv_rank ? s->kv_rank + s->n_rot : s->d_head);
    put_u32(w, "attention.value_length", s->kv_rank ? s->kv_rank : s->d_head);
    if (s->kv_rank) {
        put_u32(w, "attention.key_length_mla", s->d_head + s->n_rot);
        put_u32(w, "attention.value_length_mla", s->d_head);
        put_u32(w, "attention.kv_lora_rank", s->kv_rank);
        put_u32(w, "rope.dimension_count", s->n_rot);
    }
    gguf_writer_f32(w->file, own_key(w, "attention.layer_norm_rms_epsilon"), 1e-6f);
    gguf_writer_f32(w->file, own_key(w, "rope.freq_base"), s->rope_base);
    put_u32(w, "feed_forward_length", s->n_ff ? s->n_ff : s->n_ff_expert);
    if (s->n_expert) {
        put_u32(w, "expert_count", s->n_expert);
        put_u32(w, "expert_used_count", s->n_expert_used);
        put_u32(w, "expert_feed_forward_length", s->n_ff_expert);
        put_u32(w, "expert_shared_count", s->n_shared);
        put_u32(w, "leading_dense_block_count", s->n_layer_dense);
    }
    put_vocabulary(w);
}

/* ---- Tensors ---- */

/* Layer -1: a tensor of no layer. */
static void tensor_name(char *full, size_t size, int layer, const char *name)
{
    if (layer < 0)
        snprintf(full, size, "%s", name);
    else
        snprintf(full, size, "blk.%d.%s", layer, name);
}

/* The type with smaller blocks where rows of k are no whole ones. */
static enum block_id type_for_rows(enum block_id type, uint64_t k)
{
    if (k % block_type_find(type)->n_elems == 0)
        return type;
    return type == BLOCK_Q4_K ? BLOCK_Q5_0 : type == BLOCK_Q5_K ? BLOCK_Q5_1 : BLOCK_Q8_0;
}

/* [n, k] random weights; n_expert of them, 0 for a tensor without that dimension. */
static void put_typed(struct model_writer *w, int layer, const char *name, enum block_id type,
                      uint64_t k, uint64_t n, uint64_t n_expert)
{
    char full[64];
    tensor_name(full, sizeof full, layer, name);
    type = type_for_rows(type, k);
    gguf_writer_tensor(w->file, full, type, n_expert ? 3 : 2, (uint64_t[]){k, n, n_expert}, NULL);
}

static void put_matrix(struct model_writer *w, int layer, const char *name, uint64_t k, uint64_t n,
                       uint64_t n_expert)
{
    put_typed(w, layer, name, matrix_type(w, layer, name), k, n, n_expert);
}

/* A matrix whose product is added to the residual stream. */
static void put_adding_matrix(struct model_writer *w, int layer, const char *name, uint64_t k,
                              uint64_t n, uint64_t n_expert)
{
    put_matrix(w, layer, name, k, n, n_expert);
    gguf_writer_deviation(w->file, 0.02f / sqrtf(2.0f * (float)w->shape->n_layer));
}

static void put_norm(struct model_writer *w, int layer, const char *name, uint64_t n)
{
    char full[64];
    tensor_name(full, sizeof full, layer, name);
    gguf_writer_tensor(w->file, full, BLOCK_F32, 1, &n, w->ones);
}

static void put_attention(struct model_writer *w, int i)
{
    const struct shape *s = w->shape;
    uint64_t q = (uint64_t)s->n_head * s->d_head, kv = (uint64_t)s->n_head_kv * s->d_head;
    put_matrix(w, i, "attn_q.weight", s->n_embd, q, 0);
    put_matrix(w, i, "attn_k.weight", s->n_embd, kv, 0);
    put_matrix(w, i, "attn_v.weight", s->n_embd, kv, 0);
    put_adding_matrix(w, i, "attn_output.weight", q, s->n_embd, 0);
    if (s->qk_norm) {
        put_norm(w, i, "attn_q_norm.weight", s->d_head);
        put_norm(w, i, "attn_k_norm.weight", s->d_head);
    }
}

static void put_latent_attention(struct model_writer *w, int i)
{
    const struct shape *s = w->shape;
    uint64_t d_k = s->d_head + s->n_rot;
    put_matrix(w, i, "attn_q.weight", s->n_embd, s->n_head * d_k, 0);
    put_matrix(w, i, "attn_kv_a_mqa.weight", s->n_embd, s->kv_rank + s->n_rot, 0);
    put_norm(w, i, "attn_kv_a_norm.weight", s->kv_rank);
    put_matrix(w, i, "attn_k_b.weight", s->d_head, s->kv_rank, s->n_head);
    put_matrix(w, i, "attn_v_b.weight", s->kv_rank, s->d_head, s->n_head);
    put_adding_matrix(w, i, "attn_output.weight", (uint64_t)s->n_head * s->d_head, s->n_embd, 0);
}

/* A feed-forward of width n_ff; n_expert of them, or 0 of the dense form. `kind` ends the names. */
static void put_ffn(struct model_writer *w, int i, const char *kind, uint64_t n_ff,
                    uint64_t n_expert)
{
    static const char *const names[] = {"ffn_gate", "ffn_up", "ffn_down"};
    uint64_t n_embd = w->shape->n_embd;
    for (int m = 0; m < 3; m++) {
        char name[64];
        snprintf(name, sizeof name, "%s%s.weight", names[m], kind);
        if (m < 2)
            put_matrix(w, i, name, n_embd, n_ff, n_expert);
        else
            put_adding_matrix(w, i, name, n_ff, n_embd, n_expert);
    }
}

static void put_layer(struct model_writer *w, int i)
{
    const struct shape *s = w->shape;
    put_norm(w, i, "attn_norm.weight", s->n_embd);
    if (s->kv_rank)
        put_latent_attention(w, i);
    else
        put_attention(w, i);
    put_norm(w, i, "ffn_norm.weight", s->n_embd);
    if (!s->n_expert || i < (int)s->n_layer_dense) {
        put_ffn(w, i, "", s->n_ff, 0);
        return;
    }
    put_typed(w, i, "ffn_gate_inp.weight", BLOCK_F32, s->n_embd, s->n_expert, 0);
    put_ffn(w, i, "_exps", s->n_ff_expert, s->n_expert);
    if (s->n_shared)
        put_ffn(w, i, "_shexp", (uint64_t)s->n_shared * s->n_ff_expert, 0);
}

static void put_tensors(struct model_writer *w)
{
    const struct shape *s = w->shape;
    enum block_id type = (enum block_id)w->model->type;
    bool four_bits = type == BLOCK_Q4_0 || type == BLOCK_Q4_K;
    put_typed(w, -1, "token_embd.weight", type, s->n_embd, s->n_vocab, 0);
    gguf_writer_deviation(w->file, 1.0f);
    put_norm(w, -1, "output_norm.weight", s->n_embd);
    put_typed(w, -1, "output.weight", four_bits ? BLOCK_Q6_K : type, s->n_embd, s->n_vocab, 0);
    for (int i = 0; i < (int)s->n_layer; i++)
        put_layer(w, i);
}

/* ---- Files ---- */

static void start_model(struct model_writer *w, const struct shape_model *model,
                        struct gguf_writer *file)
{
    *w = (struct model_writer){.file = file, .model = model, .shape = &model->shape};
    w->ones = allocate(w->shape->n_embd, sizeof *w->ones);
    for (uint32_t i = 0; i < w->shape->n_embd; i++)
        w->ones[i] = 1.0f;
    put_metadata(w);
    put_tensors(w);
}

static bool finish_model(struct model_writer *w)
{
    bool done = gguf_writer_close(w->file);
    free(w->ones);
    return done;
}

void shape_write(const struct shape_model *model, const char *path, bool hole)
{
    struct model_writer w;
    start_model(&w, model, gguf_writer_open(path));
    if (hole)
        gguf_writer_hole(w.file);
    finish_model(&w);
}

int shape_make(const struct shape_model *model, tsr_progress_fn *progress, int *fd,
               struct tsr_error *error)
{
    const char *name = model->shape.name;
    *fd = memfd_create(name, MFD_CLOEXEC);
    if (*fd < 0)
        return error_set(error, TSR_ESYSTEM, "%s: memfd_create: %s", name, strerror(errno));
    struct model_writer w;
    start_model(&w, model, gguf_writer_open_fd(*fd, name));
    uint64_t bytes = gguf_writer_bytes(w.file);
    char what[128];
    snprintf(what, sizeof what, "%s of %u layers: a file of %llu MiB in memory and as much packed",
             name, model->shape.n_layer, (unsigned long long)bytes >> 20);
    int status = memory_require("", 2 * bytes, what, "use fewer layers (NAME:TYPE,LAYERS)", error);
    if (status)
        gguf_writer_hole(w.file); /* no weights are made */
    gguf_writer_progress(w.file, progress, NULL);
    if (!finish_model(&w))
        status = error_set(error, TSR_ECANCELED, "making %s was cancelled", name);
    if (status) {
        close(*fd);
        *fd = -1;
    }
    return status;
}
