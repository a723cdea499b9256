/* The model stage on files that are well-formed but wrong: each is refused with one line that names
 * the key or the tensor. */
#include "tests/support/check.h"

#include "model/model.h"
#include "bench/gguf_writer.h"

enum { N_EMBD = 64, N_FF = 96, N_EXPERT = 4, N_VOCAB = 40 };

/* What differs from a good model. */
struct edit {
    const char *key_or_tensor;
    enum { LEAVE_OUT, SET_VALUE, SET_DIM0, SET_DIM1, SET_TYPE, ADD, ADD_INT } action;
    uint64_t value;
};

static const struct edit *find_edit(const struct edit *edit, const char *name)
{
    return edit && strcmp(edit->key_or_tensor, name) == 0 ? edit : NULL;
}

static void put_value(struct gguf_writer *w, const struct edit *edit, const char *key, int64_t value)
{
    const struct edit *own = find_edit(edit, key);
    if (own && own->action == LEAVE_OUT)
        return;
    gguf_writer_int(w, key, GGUF_U32, own ? (int64_t)own->value : value);
}

static void put_tensor(struct gguf_writer *w, const struct edit *edit, const char *name, int n_dims,
                       uint64_t k, uint64_t n)
{
    uint64_t dims[] = {k, n, N_EXPERT};
    enum block_id type = BLOCK_F32;
    const struct edit *own = find_edit(edit, name);
    if (own && own->action == LEAVE_OUT)
        return;
    if (own && own->action == SET_DIM0)
        dims[0] = own->value;
    if (own && own->action == SET_DIM1)
        dims[1] = own->value;
    if (own && own->action == SET_TYPE)
        type = (enum block_id)own->value;
    gguf_writer_tensor(w, name, type, n_dims, dims, NULL);
}

static const char *write_model(const struct edit *edit)
{
    const char *path = temp_path("model.gguf");
    struct gguf_writer *w = gguf_writer_open(path);
    const struct edit *arch = find_edit(edit, "general.architecture");
    if (!arch)
        gguf_writer_string(w, "general.architecture", "qwen3moe");
    else if (arch->action != LEAVE_OUT)
        gguf_writer_string(w, "general.architecture", "elephant");
    if (edit && edit->action == ADD_INT)
        gguf_writer_int(w, edit->key_or_tensor, GGUF_U32, (int64_t)edit->value);
    put_value(w, edit, "qwen3moe.block_count", 1);
    put_value(w, edit, "qwen3moe.context_length", 128);
    put_value(w, edit, "qwen3moe.embedding_length", N_EMBD);
    put_value(w, edit, "qwen3moe.attention.head_count", 4);
    put_value(w, edit, "qwen3moe.attention.head_count_kv", 2);
    put_value(w, edit, "qwen3moe.expert_count", N_EXPERT);
    put_value(w, edit, "qwen3moe.expert_used_count", 2);
    put_value(w, edit, "qwen3moe.expert_feed_forward_length", N_FF);
    put_tensor(w, edit, "token_embd.weight", 2, N_EMBD, N_VOCAB);
    put_tensor(w, edit, "output_norm.weight", 1, N_EMBD, 1);
    put_tensor(w, edit, "blk.0.attn_norm.weight", 1, N_EMBD, 1);
    put_tensor(w, edit, "blk.0.attn_q.weight", 2, N_EMBD, 64);
    put_tensor(w, edit, "blk.0.attn_k.weight", 2, N_EMBD, 32);
    put_tensor(w, edit, "blk.0.attn_v.weight", 2, N_EMBD, 32);
    put_tensor(w, edit, "blk.0.attn_output.weight", 2, 64, N_EMBD);
    put_tensor(w, edit, "blk.0.attn_q_norm.weight", 1, 16, 1);
    put_tensor(w, edit, "blk.0.attn_k_norm.weight", 1, 16, 1);
    put_tensor(w, edit, "blk.0.ffn_norm.weight", 1, N_EMBD, 1);
    put_tensor(w, edit, "blk.0.ffn_gate_inp.weight", 2, N_EMBD, N_EXPERT);
    put_tensor(w, edit, "blk.0.ffn_gate_exps.weight", 3, N_EMBD, N_FF);
    put_tensor(w, edit, "blk.0.ffn_up_exps.weight", 3, N_EMBD, N_FF);
    put_tensor(w, edit, "blk.0.ffn_down_exps.weight", 3, N_FF, N_EMBD);
    if (edit && edit->action == ADD)
        gguf_writer_tensor(w, edit->key_or_tensor, BLOCK_F32, 1, (uint64_t[]){8}, NULL);
    gguf_writer_close(w);
    return path;
}

/* One dense layer and one with experts; heads of 48 + 16 elements and values of 32. */
static const char *write_latent_model(const struct edit *edit)
{
    const char *path = temp_path("model.gguf");
    struct gguf_writer *w = gguf_writer_open(path);
    gguf_writer_string(w, "general.architecture", "deepseek2");
    put_value(w, edit, "deepseek2.block_count", 2);
    put_value(w, edit, "deepseek2.context_length", 128);
    put_value(w, edit, "deepseek2.embedding_length", N_EMBD);
    put_value(w, edit, "deepseek2.attention.head_count", N_EXPERT);
    put_value(w, edit, "deepseek2.attention.kv_lora_rank", 24);
    put_value(w, edit, "deepseek2.attention.key_length_mla", 64);
    put_value(w, edit, "deepseek2.attention.value_length_mla", 32);
    put_value(w, edit, "deepseek2.rope.dimension_count", 16);
    put_value(w, edit, "deepseek2.feed_forward_length", N_FF);
    put_value(w, edit, "deepseek2.leading_dense_block_count", 1);
    put_value(w, edit, "deepseek2.expert_count", N_EXPERT);
    put_value(w, edit, "deepseek2.expert_used_count", 2);
    put_value(w, edit, "deepseek2.expert_shared_count", 2);
    put_value(w, edit, "deepseek2.expert_feed_forward_length", N_FF);
    put_value(w, edit, "deepseek2.expert_gating_func", 1);
    put_value(w, edit, "deepseek2.expert_group_count", 1);
    put_value(w, edit, "deepseek2.expert_group_used_count", 1);
    put_tensor(w, edit, "token_embd.weight", 2, N_EMBD, N_VOCAB);
    put_tensor(w, edit, "output_norm.weight", 1, N_EMBD, 1);
    static const struct {
        const char *name;
        int n_dims;
        uint64_t k, n;
        int layer; /* -1: both */
    } tensors[] = {
        {"attn_norm.weight", 1, N_EMBD, 1, -1},
        {"attn_q.weight", 2, N_EMBD, 256, -1},
        {"attn_kv_a_mqa.weight", 2, N_EMBD, 40, -1},
        {"attn_kv_a_norm.weight", 1, 24, 1, -1},
        {"attn_kv_b.weight", 2, 24, 320, 0},
        {"attn_k_b.weight", 3, 48, 24, 1},
        {"attn_v_b.weight", 3, 24, 32, 1},
        {"attn_output.weight", 2, 128, N_EMBD, -1},
        {"ffn_norm.weight", 1, N_EMBD, 1, -1},
        {"ffn_gate.weight", 2, N_EMBD, N_FF, 0},
        {"ffn_up.weight", 2, N_EMBD, N_FF, 0},
        {"ffn_down.weight", 2, N_FF, N_EMBD, 0},
        {"ffn_gate_inp.weight", 2, N_EMBD, N_EXPERT, 1},
        {"ffn_gate_exps.weight", 3, N_EMBD, N_FF, 1},
        {"ffn_up_exps.weight", 3, N_EMBD, N_FF, 1},
        {"ffn_down_exps.weight", 3, N_FF, N_EMBD, 1},
        {"ffn_gate_shexp.weight", 2, N_EMBD, 2 * N_FF, 1},
        {"ffn_up_shexp.weight", 2, N_EMBD, 2 * N_FF, 1},
        {"ffn_down_shexp.weight", 2, 2 * N_FF, N_EMBD, 1},
    };
    for (int layer = 0; layer < 2; layer++)
        for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%d.%s", layer, tensors[i].name);
            if (tensors[i].layer < 0 || tensors[i].layer == layer)
                put_tensor(w, edit, name, tensors[i].n_dims, tensors[i].k, tensors[i].n);
        }
    gguf_writer_close(w);
    return path;
}

static int open_path(const char *path, struct tsr_error *error)
{
    struct gguf *gguf;
    struct model *model;
    assert_int_equal(gguf_open(path, &gguf, error), 0);
    int status = model_open(gguf, &model, error);
    assert_true(status ? !model : model != NULL);
    model_close(model);
    gguf_close(gguf);
    return status;
}

static int open_model(const struct edit *edit, struct tsr_error *error)
{
    return open_path(write_model(edit), error);
}

static void a_good_model_opens(void **state)
{
    (void)state;
    struct tsr_error error = {0};
    if (open_model(NULL, &error))
        fail_msg("%s", error.text);
}

static void wrong_models_are_refused_by_name(void **state)
{
    (void)state;
    static const struct edit edits[] = {
        {"general.architecture", LEAVE_OUT, 0},
        {"general.architecture", SET_VALUE, 0},
        {"qwen3moe.block_count", LEAVE_OUT, 0},
        {"qwen3moe.block_count", SET_VALUE, 0},
        {"qwen3moe.block_count", SET_VALUE, 2},
        {"qwen3moe.block_count", SET_VALUE, UINT32_MAX},
        {"qwen3moe.context_length", LEAVE_OUT, 0},
        {"qwen3moe.embedding_length", SET_VALUE, 128},
        {"qwen3moe.embedding_length", SET_VALUE, UINT32_MAX},
        {"qwen3moe.attention.head_count", SET_VALUE, 3},
        {"qwen3moe.attention.head_count", SET_VALUE, 0},
        {"qwen3moe.attention.head_count_kv", SET_VALUE, 0},
        {"qwen3moe.expert_count", LEAVE_OUT, 0},
        {"qwen3moe.expert_count", SET_VALUE, 8},
        {"qwen3moe.expert_used_count", SET_VALUE, 5},
        {"qwen3moe.expert_feed_forward_length", SET_VALUE, 64},
        {"qwen3moe.rope.freq_base", ADD_INT, 1000000}, /* a float and a string by right */
        {"qwen3moe.attention.layer_norm_rms_epsilon", ADD_INT, 1},
        {"qwen3moe.rope.scaling.type", ADD_INT, 1},
        {"token_embd.weight", LEAVE_OUT, 0},
        {"token_embd.weight", SET_DIM0, 65},
        {"output_norm.weight", LEAVE_OUT, 0},
        {"blk.0.attn_q.weight", LEAVE_OUT, 0},
        {"blk.0.attn_q.weight", SET_DIM0, 32},
        {"blk.0.attn_q.weight", SET_DIM1, 63},
        {"blk.0.attn_q_norm.weight", LEAVE_OUT, 0},
        {"blk.0.attn_output.weight", SET_DIM1, 128},
        {"blk.0.ffn_gate_inp.weight", LEAVE_OUT, 0},
        {"blk.0.ffn_up_exps.weight", SET_DIM1, 97},
        {"blk.0.ffn_down_exps.weight", LEAVE_OUT, 0},
        {"blk.0.ffn_norm.weight", SET_TYPE, 24}, /* I8: known, but no number format of weights */
        {"blk.0.elephant.weight", ADD, 0},
        {"blk.1.attn_norm.weight", ADD, 0},
        {"blk.x.attn_norm.weight", ADD, 0},
        {"blk.99999999999999999999.attn_norm.weight", ADD, 0},
    };
    for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) {
        struct tsr_error error = {0};
        if (!open_model(&edits[i], &error))
            fail_msg("case %zu (%s) was not refused", i, edits[i].key_or_tensor);
        assert_non_null(strstr(error.text, "model.gguf"));
        assert_null(strchr(error.text, '\n'));
        if (edits[i].action != SET_VALUE && !strstr(error.text, edits[i].key_or_tensor))
            fail_msg("'%s' does not name %s", error.text, edits[i].key_or_tensor);
    }
}

static void wrong_latent_models_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        struct edit edit;
        const char *message;
    } cases[] = {
        {{"deepseek2.attention.kv_lora_rank", LEAVE_OUT, 0}, "attention.kv_lora_rank"},
        {{"deepseek2.attention.kv_lora_rank", SET_VALUE, 32}, "attn_kv_a_mqa.weight"},
        {{"deepseek2.context_length", SET_VALUE, 256}, NULL}, /* a good model */
        {{"deepseek2.attention.value_length_mla", SET_VALUE, 40}, "40 elements"},
        {{"deepseek2.rope.dimension_count", SET_VALUE, 64}, "64 of them rotated"},
        {{"deepseek2.rope.dimension_count", LEAVE_OUT, 0}, "rope.dimension_count"},
        {{"deepseek2.leading_dense_block_count", SET_VALUE, 3}, "leading_dense_block_count"},
        {{"deepseek2.leading_dense_block_count", SET_VALUE, 2}, "blk.1.ffn_gate_inp.weight"},
        {{"deepseek2.expert_shared_count", SET_VALUE, 1}, "ffn_gate_shexp.weight"},
        {{"deepseek2.expert_shared_count", LEAVE_OUT, 0}, "ffn_gate_shexp.weight"},
        {{"deepseek2.expert_gating_func", SET_VALUE, 3}, "expert_gating_func"},
        {{"deepseek2.expert_group_count", SET_VALUE, 65}, "expert_group_count"},
        {{"deepseek2.expert_group_count", SET_VALUE, 3}, "expert_group_count"},
        {{"deepseek2.expert_group_count", SET_VALUE, 4}, "expert_group_count"}, /* one of one */
        {{"deepseek2.expert_group_count", SET_VALUE, 2}, NULL},
        {{"blk.0.attn_kv_b.weight", LEAVE_OUT, 0}, "blk.0.attn_k_b.weight"},
        {{"blk.0.attn_kv_b.weight", SET_DIM1, 319}, "blk.0.attn_kv_b.weight"},
        {{"blk.1.attn_k_b.weight", LEAVE_OUT, 0}, "blk.1.attn_k_b.weight"},
        {{"blk.1.attn_v_b.weight", LEAVE_OUT, 0}, "blk.1.attn_v_b.weight"},
        {{"blk.1.attn_k_b.weight", SET_DIM0, 47}, "blk.1.attn_k_b.weight"},
        {{"blk.1.ffn_down_shexp.weight", LEAVE_OUT, 0}, "blk.1.ffn_down_shexp.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tsr_error error = {0};
        int status = open_path(write_latent_model(&cases[i].edit), &error);
        if (!status != !cases[i].message)
            fail_msg("case %zu: %s", i, status ? error.text : "was not refused");
        if (status && !strstr(error.text, cases[i].message))
            fail_msg("'%s' does not name %s", error.text, cases[i].message);
    }
}

/* attn_kv_b becomes three matrices, and of attn_k_b a transposed one is made: rows of which file
 * tensor they are. */
static void latent_projections_share_their_source(void **state)
{
    (void)state;
    struct tsr_error error = {0};
    struct gguf *gguf;
    struct model *model;
    assert_int_equal(gguf_open(write_latent_model(NULL), &gguf, &error), 0);
    if (model_open(gguf, &model, &error))
        fail_msg("%s", error.text);
    static const struct {
        int layer;
        enum model_role role;
        const char *source;
        uint32_t n, k, row0, expert_rows;
        bool transposed, shares_source;
    } expected[] = {
        {0, ROLE_ATTN_K_UP, "blk.0.attn_kv_b.weight", 48, 24, 0, 80, false, false},
        {0, ROLE_ATTN_V_B, "blk.0.attn_kv_b.weight", 32, 24, 48, 80, false, true},
        {0, ROLE_ATTN_K_B, "blk.0.attn_kv_b.weight", 24, 48, 0, 80, true, true},
        {1, ROLE_ATTN_K_UP, "blk.1.attn_k_b.weight", 48, 24, 0, 24, true, true},
        {1, ROLE_ATTN_V_B, "blk.1.attn_v_b.weight", 32, 24, 0, 32, false, false},
        {1, ROLE_ATTN_K_B, "blk.1.attn_k_b.weight", 24, 48, 0, 24, false, false},
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const struct model_tensor *tensor = model_find(model, expected[i].layer, expected[i].role);
        assert_non_null(tensor);
        assert_string_equal(tensor->source->name, expected[i].source);
        assert_int_equal(tensor->n, expected[i].n);
        assert_int_equal(tensor->k, expected[i].k);
        assert_int_equal(tensor->n_expert, N_EXPERT);
        assert_int_equal(tensor->row0, expected[i].row0);
        assert_int_equal(tensor->expert_rows, expected[i].expert_rows);
        assert_int_equal(tensor->transposed, expected[i].transposed);
        assert_int_equal(tensor->shares_source, expected[i].shares_source);
    }
    assert_null(model_find(model, 0, ROLE_ATTN_KV_B));
    assert_null(model_find(model, 0, ROLE_ROUTER));
    assert_non_null(model_find(model, 1, ROLE_SHARED_DOWN));
    model_close(model);
    gguf_close(gguf);
}

static void optional_tensors_are_taken(void **state)
{
    (void)state;
    struct tsr_error error = {0};
    const struct edit factors = {"rope_freqs.weight", ADD, 0};
    assert_int_equal(open_model(&factors, &error), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_model_opens),
        cmocka_unit_test(wrong_models_are_refused_by_name),
        cmocka_unit_test(wrong_latent_models_are_refused_by_name),
        cmocka_unit_test(latent_projections_share_their_source),
        cmocka_unit_test(optional_tensors_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
