/* Writes a GGUF file of a named shape with random weights:
 *
 *     tessera-make-model SHAPE:TYPE FILE [LAYERS]
 *
 * TYPE is that of the projections and experts; as usual quantizers do, norms and the router are
 * F32 and, for the 4-bit types, the output matrix is Q6_K. Every block has random codes and a scale
 * that keeps activations near one, so that no value overflows and routing is spread over the
 * experts. The vocabulary is made up: ids, not text, are what such a model is for.
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/float16.h"
#include "kernels/kernel.h"
#include "shape.h"

enum { ALIGNMENT = 32, MAX_TENSORS = 4096, CHUNK_BLOCKS = 4096, TYPE_U32 = 4, TYPE_F32 = 6,
       TYPE_STRING = 8, TYPE_ARRAY = 9 };

struct tensor {
    char name[64];
    uint32_t type;
    int n_dims;
    uint64_t dims[3];
};

struct writer {
    FILE *file;
    const struct shape *shape;
    uint32_t type; /* of the matrices */
    uint32_t n_values;
    struct tensor *tensors; /* [MAX_TENSORS] */
    size_t n_tensors;
    uint64_t random;
    bool counting; /* the first pass only counts metadata values */
};

/* ---- Primitive writes ---- */

static void put(struct writer *w, const void *data, size_t size)
{
    if (!w->counting)
        fwrite(data, 1, size, w->file);
}

static void put_u32(struct writer *w, uint32_t value) { put(w, &value, sizeof value); }
static void put_u64(struct writer *w, uint64_t value) { put(w, &value, sizeof value); }

static void put_string(struct writer *w, const char *text)
{
    put_u64(w, strlen(text));
    put(w, text, strlen(text));
}

static void put_key(struct writer *w, const char *key, uint32_t type)
{
    w->n_values++;
    put_string(w, key);
    put_u32(w, type);
}

static void put_own_key(struct writer *w, const char *name, uint32_t type)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", w->shape->arch, name);
    put_key(w, key, type);
}

static void put_u32_value(struct writer *w, const char *name, uint32_t value)
{
    put_own_key(w, name, TYPE_U32);
    put_u32(w, value);
}

static void put_f32_value(struct writer *w, const char *name, float value)
{
    put_own_key(w, name, TYPE_F32);
    put(w, &value, sizeof value);
}

static void put_string_value(struct writer *w, const char *key, const char *text)
{
    put_key(w, key, TYPE_STRING);
    put_string(w, text);
}

/* ---- Metadata ---- */

/* A byte-level vocabulary must hold the 256 byte characters; the rest are made-up words. */
static void token_text(uint32_t id, char *text, size_t size)
{
    snprintf(text, size, "t%u", id);
    if (id >= 256)
        return;
    bool printable = (id >= 33 && id <= 126) || (id >= 161 && id != 173);
    uint32_t code = id;
    if (!printable) { /* the n-th other byte is the character 256 + n */
        code = 256;
        for (uint32_t b = 0; b < id; b++)
            code += !((b >= 33 && b <= 126) || (b >= 161 && b != 173));
    }
    if (code < 0x80)
        snprintf(text, size, "%c", (int)code);
    else
        snprintf(text, size, "%c%c", (int)(0xc0 | code >> 6), (int)(0x80 | (code & 0x3f)));
}

static void put_vocabulary(struct writer *w)
{
    put_string_value(w, "tokenizer.ggml.model", "gpt2");
    put_string_value(w, "tokenizer.ggml.pre", "qwen2");
    put_key(w, "tokenizer.ggml.tokens", TYPE_ARRAY);
    put_u32(w, TYPE_STRING);
    put_u64(w, w->shape->n_vocab);
    for (uint32_t id = 0; id < w->shape->n_vocab; id++) {
        char text[32];
        token_text(id, text, sizeof text);
        put_string(w, text);
    }
    put_key(w, "tokenizer.ggml.merges", TYPE_ARRAY);
    put_u32(w, TYPE_STRING);
    put_u64(w, 0);
}

static void put_metadata(struct writer *w)
{
    const struct shape *s = w->shape;
    put_string_value(w, "general.architecture", s->arch);
    put_string_value(w, "general.name", s->name);
    put_u32_value(w, "block_count", s->n_layer);
    put_u32_value(w, "context_length", s->n_ctx);
    put_u32_value(w, "embedding_length", s->n_embd);
    put_u32_value(w, "attention.head_count", s->n_head);
    put_u32_value(w, "attention.head_count_kv", s->n_head_kv);
    put_u32_value(w, "attention.key_length", s->d_head);
    put_u32_value(w, "attention.value_length", s->d_head);
    put_f32_value(w, "attention.layer_norm_rms_epsilon", 1e-6f);
    put_f32_value(w, "rope.freq_base", s->rope_base);
    put_u32_value(w, "feed_forward_length", s->n_ff ? s->n_ff : s->n_ff_expert);
    if (s->n_expert) {
        put_u32_value(w, "expert_count", s->n_expert);
        put_u32_value(w, "expert_used_count", s->n_expert_used);
        put_u32_value(w, "expert_feed_forward_length", s->n_ff_expert);
    }
    put_vocabulary(w);
}

/* ---- Tensors ---- */

static void add(struct writer *w, int layer, const char *name, uint32_t type, uint64_t k, uint64_t n,
                uint64_t n_expert)
{
    if (w->n_tensors == MAX_TENSORS)
        return;
    struct tensor *tensor = &w->tensors[w->n_tensors++];
    *tensor = (struct tensor){.type = type,
                              .n_dims = n_expert > 1 ? 3 : n > 1 ? 2 : 1,
                              .dims = {k, n, n_expert}};
    if (layer < 0)
        snprintf(tensor->name, sizeof tensor->name, "%s", name);
    else
        snprintf(tensor->name, sizeof tensor->name, "blk.%d.%s", layer, name);
}

static void add_layer(struct writer *w, int i)
{
    const struct shape *s = w->shape;
    uint64_t q = (uint64_t)s->n_head * s->d_head, kv = (uint64_t)s->n_head_kv * s->d_head;
    add(w, i, "attn_norm.weight", BLOCK_F32, s->n_embd, 1, 1);
    add(w, i, "attn_q.weight", w->type, s->n_embd, q, 1);
    add(w, i, "attn_k.weight", w->type, s->n_embd, kv, 1);
    add(w, i, "attn_v.weight", w->type, s->n_embd, kv, 1);
    add(w, i, "attn_output.weight", w->type, q, s->n_embd, 1);
    if (s->qk_norm) {
        add(w, i, "attn_q_norm.weight", BLOCK_F32, s->d_head, 1, 1);
        add(w, i, "attn_k_norm.weight", BLOCK_F32, s->d_head, 1, 1);
    }
    add(w, i, "ffn_norm.weight", BLOCK_F32, s->n_embd, 1, 1);
    if (!s->n_expert) {
        add(w, i, "ffn_gate.weight", w->type, s->n_embd, s->n_ff, 1);
        add(w, i, "ffn_up.weight", w->type, s->n_embd, s->n_ff, 1);
        add(w, i, "ffn_down.weight", w->type, s->n_ff, s->n_embd, 1);
        return;
    }
    add(w, i, "ffn_gate_inp.weight", BLOCK_F32, s->n_embd, s->n_expert, 1);
    add(w, i, "ffn_gate_exps.weight", w->type, s->n_embd, s->n_ff_expert, s->n_expert);
    add(w, i, "ffn_up_exps.weight", w->type, s->n_embd, s->n_ff_expert, s->n_expert);
    add(w, i, "ffn_down_exps.weight", w->type, s->n_ff_expert, s->n_embd, s->n_expert);
}

static uint32_t output_type(uint32_t type)
{
    return type == BLOCK_Q4_0 || type == BLOCK_Q4_K ? (uint32_t)BLOCK_Q6_K : type;
}

static void list_tensors(struct writer *w)
{
    const struct shape *s = w->shape;
    add(w, -1, "token_embd.weight", w->type, s->n_embd, s->n_vocab, 1);
    add(w, -1, "output_norm.weight", BLOCK_F32, s->n_embd, 1, 1);
    add(w, -1, "output.weight", output_type(w->type), s->n_embd, s->n_vocab, 1);
    for (int i = 0; i < (int)s->n_layer; i++)
        add_layer(w, i);
}

static uint64_t tensor_bytes(const struct tensor *tensor)
{
    const struct block_type *type = block_type_find(tensor->type);
    return tensor->dims[0] / type->n_elems * type->n_bytes * tensor->dims[1] * tensor->dims[2];
}

static uint64_t padded(uint64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void put_directory(struct writer *w)
{
    uint64_t offset = 0;
    for (size_t i = 0; i < w->n_tensors; i++) {
        const struct tensor *tensor = &w->tensors[i];
        put_string(w, tensor->name);
        put_u32(w, (uint32_t)tensor->n_dims);
        for (int d = 0; d < tensor->n_dims; d++)
            put_u64(w, tensor->dims[d]);
        put_u32(w, tensor->type);
        put_u64(w, offset);
        offset += padded(tensor_bytes(tensor));
    }
}

/* ---- Random weights ---- */

static uint64_t next_random(struct writer *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

/* Offset of a block's f16 scale, -1 for the float types. With random codes this scale gives weights
 * of about `spread`. A second f16 (the minimum of Q4_1, Q5_1, Q2_K, Q4_K, Q5_K) follows directly or
 * is `minimum` bytes on; it is set so that weights centre on zero. */
static void set_scale(uint8_t *block, uint32_t type, float spread)
{
    static const struct { int scale, minimum; float codes, offset; } fields[BLOCK_ID_COUNT] = {
        [BLOCK_Q4_0] = {0, -1, 4.6f, 0},           [BLOCK_Q4_1] = {0, 2, 4.6f, -7.5f},
        [BLOCK_Q5_0] = {0, -1, 9.2f, 0},           [BLOCK_Q5_1] = {0, 2, 9.2f, -15.5f},
        [BLOCK_Q8_0] = {0, -1, 73.9f, 0},          [BLOCK_Q2_K] = {80, 82, 9.8f, 1.5f},
        [BLOCK_Q3_K] = {108, -1, 41.0f, 0},        [BLOCK_Q4_K] = {0, 2, 180.0f, 7.5f},
        [BLOCK_Q5_K] = {0, 2, 360.0f, 15.5f},      [BLOCK_Q6_K] = {208, -1, 1365.0f, 0},
        [BLOCK_IQ4_NL] = {0, -1, 69.0f, 0},        [BLOCK_IQ4_XS] = {0, -1, 1270.0f, 0},
    };
    float scale = spread / fields[type].codes;
    uint16_t half = f32_to_f16(scale);
    memcpy(block + fields[type].scale, &half, sizeof half);
    if (fields[type].minimum >= 0) {
        half = f32_to_f16(scale * fields[type].offset);
        memcpy(block + fields[type].minimum, &half, sizeof half);
    }
}

/* Bytes of one block with weights of standard deviation about `spread`. */
static void random_block(struct writer *w, uint8_t *block, const struct block_type *type,
                         float spread)
{
    for (uint32_t at = 0; at < type->n_bytes; at += 8) {
        uint64_t bits = next_random(w);
        memcpy(block + at, &bits, type->n_bytes - at < 8 ? type->n_bytes - at : 8);
    }
    uint32_t bits;
    memcpy(&bits, block, type->n_bytes < 4 ? 2 : 4);
    float uniform = ((float)(bits & 0xffff) / 32768.0f - 1.0f) * 1.73f * spread;
    uint16_t half = type->id == BLOCK_BF16 ? f32_to_bf16(uniform) : f32_to_f16(uniform);
    if (type->id == BLOCK_F32)
        memcpy(block, &uniform, sizeof uniform);
    else if (type->id == BLOCK_F16 || type->id == BLOCK_BF16)
        memcpy(block, &half, sizeof half);
    else if (type->id == BLOCK_MXFP4)
        block[0] = (uint8_t)(127 + (int)log2f(spread / 5.0f)); /* its scale is an exponent */
    else
        set_scale(block, type->id, spread);
}

/* A stretch of random blocks is written again and again: making each afresh would take minutes. */
static void put_tensor(struct writer *w, const struct tensor *tensor)
{
    const struct block_type *type = block_type_find(tensor->type);
    uint64_t n_blocks = tensor_bytes(tensor) / type->n_bytes;
    uint8_t *blocks = malloc((size_t)CHUNK_BLOCKS * type->n_bytes);
    bool norm = tensor->n_dims == 1;
    for (size_t i = 0; blocks && i < CHUNK_BLOCKS; i++) {
        random_block(w, blocks + i * type->n_bytes, type, 1.0f / sqrtf((float)tensor->dims[0]));
        float one = 1.0f;
        if (norm)
            memcpy(blocks + i * type->n_bytes, &one, sizeof one);
    }
    for (uint64_t at = 0; blocks && at < n_blocks;) {
        /* Rows and experts start at different places of the stretch, so that they differ. */
        uint64_t first = norm ? 0 : next_random(w) % (CHUNK_BLOCKS / 2);
        uint64_t count = CHUNK_BLOCKS - first;
        count = count < n_blocks - at ? count : n_blocks - at;
        put(w, blocks + first * type->n_bytes, (size_t)(count * type->n_bytes));
        at += count;
    }
    free(blocks);
    static const uint8_t zeros[ALIGNMENT];
    put(w, zeros, (size_t)(padded(tensor_bytes(tensor)) - tensor_bytes(tensor)));
}

static void put_header(struct writer *w)
{
    w->counting = true;
    put_metadata(w);
    w->counting = false;
    put(w, "GGUF", 4);
    put_u32(w, 3);
    put_u64(w, w->n_tensors);
    put_u64(w, w->n_values);
    put_metadata(w);
    put_directory(w);
    static const uint8_t zeros[ALIGNMENT];
    uint64_t at = (uint64_t)ftell(w->file);
    put(w, zeros, (size_t)(padded(at) - at));
}

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
    char *colon = argc == 3 || argc == 4 ? strchr(argv[1], ':') : NULL;
    if (!colon) {
        fprintf(stderr, "usage: %s SHAPE:TYPE FILE [LAYERS]\nshapes:\n", argv[0]);
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
    struct writer w = {.shape = &shape, .type = type, .random = 0x9e3779b97f4a7c15u};
    w.tensors = calloc(MAX_TENSORS, sizeof *w.tensors);
    w.file = fopen(argv[2], "wb");
    if (!w.tensors || !w.file) {
        perror(argv[2]);
        return 1;
    }
    list_tensors(&w);
    put_header(&w);
    for (size_t i = 0; i < w.n_tensors; i++)
        put_tensor(&w, &w.tensors[i]);
    bool failed = ferror(w.file) != 0;
    failed |= fclose(w.file) != 0;
    if (failed)
        perror(argv[2]);
    free(w.tensors);
    return failed;
}
