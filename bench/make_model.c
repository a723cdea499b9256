/* Writes a GGUF file of a named shape with random weights:
 *
 *     tessera-make-model [--hole] SHAPE:TYPE FILE [LAYERS]
 *
 * TYPE is that of the projections and experts; as usual quantizers do, norms and the router are
 * F32 and, for the 4-bit types, the output matrix is Q6_K. Activations stay near one, so that no
 * value overflows and routing is spread over the experts. With --hole the weights are a hole in the
 * file, for programs that read the directory only. The vocabulary is made up: ids, not text,
 * are what such a model is for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shape.h"
#include "tests/support/gguf_writer.h"

struct model_writer {
    struct gguf_writer *file;
    const struct shape *shape;
    enum block_id type; /* of the matrices */
    float *ones;        /* norms: [n_embd] */
};

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
    char(*texts)[16] = malloc(n * sizeof *texts);
    const char **tokens = malloc(n * sizeof *tokens);
    if (!texts || !tokens)
        exit(1);
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
    put_u32(w, "attention.key_length", s->d_head);
    put_u32(w, "attention.value_length", s->d_head);
    gguf_writer_f32(w->file, own_key(w, "attention.layer_norm_rms_epsilon"), 1e-6f);
    gguf_writer_f32(w->file, own_key(w, "rope.freq_base"), s->rope_base);
    put_u32(w, "feed_forward_length", s->n_ff ? s->n_ff : s->n_ff_expert);
    if (s->n_expert) {
        put_u32(w, "expert_count", s->n_expert);
        put_u32(w, "expert_used_count", s->n_expert_used);
        put_u32(w, "expert_feed_forward_length", s->n_ff_expert);
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

/* [n, k] random weights; n_expert of them, 0 for a tensor without that dimension. */
static void put_matrix(struct model_writer *w, int layer, const char *name, enum block_id type,
                       uint64_t k, uint64_t n, uint64_t n_expert)
{
    char full[64];
    tensor_name(full, sizeof full, layer, name);
    gguf_writer_tensor(w->file, full, type, n_expert ? 3 : 2, (uint64_t[]){k, n, n_expert}, NULL);
}

static void put_norm(struct model_writer *w, int layer, const char *name, uint64_t n)
{
    char full[64];
    tensor_name(full, sizeof full, layer, name);
    gguf_writer_tensor(w->file, full, BLOCK_F32, 1, &n, w->ones);
}

static void put_layer(struct model_writer *w, int i)
{
    const struct shape *s = w->shape;
    uint64_t q = (uint64_t)s->n_head * s->d_head, kv = (uint64_t)s->n_head_kv * s->d_head;
    put_norm(w, i, "attn_norm.weight", s->n_embd);
    put_matrix(w, i, "attn_q.weight", w->type, s->n_embd, q, 0);
    put_matrix(w, i, "attn_k.weight", w->type, s->n_embd, kv, 0);
    put_matrix(w, i, "attn_v.weight", w->type, s->n_embd, kv, 0);
    put_matrix(w, i, "attn_output.weight", w->type, q, s->n_embd, 0);
    if (s->qk_norm) {
        put_norm(w, i, "attn_q_norm.weight", s->d_head);
        put_norm(w, i, "attn_k_norm.weight", s->d_head);
    }
    put_norm(w, i, "ffn_norm.weight", s->n_embd);
    if (!s->n_expert) {
        put_matrix(w, i, "ffn_gate.weight", w->type, s->n_embd, s->n_ff, 0);
        put_matrix(w, i, "ffn_up.weight", w->type, s->n_embd, s->n_ff, 0);
        put_matrix(w, i, "ffn_down.weight", w->type, s->n_ff, s->n_embd, 0);
        return;
    }
    put_matrix(w, i, "ffn_gate_inp.weight", BLOCK_F32, s->n_embd, s->n_expert, 0);
    put_matrix(w, i, "ffn_gate_exps.weight", w->type, s->n_embd, s->n_ff_expert, s->n_expert);
    put_matrix(w, i, "ffn_up_exps.weight", w->type, s->n_embd, s->n_ff_expert, s->n_expert);
    put_matrix(w, i, "ffn_down_exps.weight", w->type, s->n_ff_expert, s->n_embd, s->n_expert);
}

static void put_tensors(struct model_writer *w)
{
    const struct shape *s = w->shape;
    bool four_bits = w->type == BLOCK_Q4_0 || w->type == BLOCK_Q4_K;
    put_matrix(w, -1, "token_embd.weight", w->type, s->n_embd, s->n_vocab, 0);
    put_norm(w, -1, "output_norm.weight", s->n_embd);
    put_matrix(w, -1, "output.weight", four_bits ? BLOCK_Q6_K : w->type, s->n_embd, s->n_vocab, 0);
    for (int i = 0; i < (int)s->n_layer; i++)
        put_layer(w, i);
}

/* ---- The program ---- */

static uint32_t find_type(const char *name)
{
    for (uint32_t id = 0; id < BLOCK_ID_COUNT; id++) {
        const struct block_type *type = block_type_find(id);
        if (type && type->dequantize && strcasecmp(type->name, name) == 0)
            return id;
    }
    return BLOCK_ID_COUNT;
}

int main(int argc, char **argv)
{
    bool hole = argc > 1 && strcmp(argv[1], "--hole") == 0;
    argv += hole;
    argc -= hole;
    char *colon = argc == 3 || argc == 4 ? strchr(argv[1], ':') : NULL;
    if (!colon) {
        fprintf(stderr, "usage: tessera-make-model [--hole] SHAPE:TYPE FILE [LAYERS]\nshapes:\n");
        shape_list();
        return 2;
    }
    *colon = '\0';
    const struct shape *named = shape_find(argv[1]);
    uint32_t type = find_type(colon + 1);
    if (!named || type == BLOCK_ID_COUNT) {
        fprintf(stderr, "%s: unknown shape or type %s\n", argv[1], colon + 1);
        return 2;
    }
    struct shape shape = *named;
    if (argc == 4 && atoi(argv[3]) > 0)
        shape.n_layer = (uint32_t)atoi(argv[3]);
    struct model_writer w = {.shape = &shape, .type = (enum block_id)type};
    w.ones = malloc(shape.n_embd * sizeof *w.ones);
    if (!w.ones)
        return 1;
    for (uint32_t i = 0; i < shape.n_embd; i++)
        w.ones[i] = 1.0f;
    w.file = gguf_writer_open(argv[2]);
    put_metadata(&w);
    put_tensors(&w);
    if (hole)
        gguf_writer_hole(w.file);
    gguf_writer_close(w.file);
    free(w.ones);
    return 0;
}
