/* The model stage on files that are well-formed but wrong: each is refused with one line that names
 * the key or the tensor. */
#include "tests/support/check.h"

#include "model/model.h"
#include "bench/gguf_writer.h"

enum { N_EMBD = 64, N_FF = 96, N_EXPERT = 4, N_VOCAB = 40 };

/* What differs from a good model. */
struct edit {
    const char *key_or_tensor;
    enum { LEAVE_OUT, SET_VALUE, SET_DIM0, SET_DIM1, SET_TYPE, ADD } action;
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

static int open_model(const struct edit *edit, struct tsr_error *error)
{
    struct gguf *gguf;
    struct model *model;
    assert_int_equal(gguf_open(write_model(edit), &gguf, error), 0);
    int status = model_open(gguf, &model, error);
    assert_true(status ? !model : model != NULL);
    model_close(model);
    gguf_close(gguf);
    return status;
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
        cmocka_unit_test(optional_tensors_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
