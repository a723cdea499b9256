/* Contexts saved and loaded: what is evaluated after them, and files that are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "session.h"
#include "tests/support/files.h"

enum { N_IDS = 40 };

static tsr_engine *open_engine(const char *path)
{
    struct tsr_settings settings = tsr_settings_default();
    settings.model_path = path;
    settings.n_threads = 2;
    struct tsr_error error = {0};
    tsr_engine *engine;
    if (tsr_engine_open(&settings, &engine, &error))
        fail_msg("%s", error.text);
    return engine;
}

static tsr_session *open_session(tsr_engine *engine, uint32_t n_ctx, enum tsr_kv_type kv_type)
{
    struct tsr_session_settings settings = tsr_session_settings_default();
    settings.n_ctx = n_ctx;
    settings.kv_type = kv_type;
    tsr_session *session;
    if (tsr_session_open(engine, &settings, &session))
        fail_msg("%s", tsr_engine_message(engine));
    return session;
}

static int setup(void **state)
{
    *state = open_engine(TSR_TEST_MODEL);
    return 0;
}

static int teardown(void **state)
{
    tsr_engine_close(*state);
    return 0;
}

static void fill_ids(int32_t *ids)
{
    for (int i = 0; i < N_IDS; i++)
        ids[i] = 3 + 7 * i % 500;
}

/* A session of N_IDS tokens that is saved as `path`. */
static tsr_session *save_session(tsr_engine *engine, enum tsr_kv_type kv_type, const char *path)
{
    int32_t ids[N_IDS];
    fill_ids(ids);
    tsr_session *session = open_session(engine, 64, kv_type);
    assert_int_equal(tsr_session_eval(session, ids, N_IDS, NULL), 0);
    assert_int_equal(tsr_session_save(session, path), 0);
    return session;
}

static void loaded_contexts_go_on_alike(void **state)
{
    tsr_engine *engine = *state;
    const char *path = temp_path("context");
    size_t row = engine->model->params.n_vocab * sizeof(float);
    for (int type = TSR_KV_F16; type <= TSR_KV_Q8_0; type++) {
        tsr_session *saved = save_session(engine, (enum tsr_kv_type)type, path);
        tsr_session *loaded = open_session(engine, 50, (enum tsr_kv_type)type);
        assert_int_equal(tsr_session_load(loaded, path), 0);
        assert_null(tsr_session_logits(loaded));
        struct tsr_stats stats = {.struct_size = sizeof stats};
        tsr_session_stats(loaded, &stats);
        assert_int_equal(stats.n_past, N_IDS);
        int32_t next = 77;
        assert_int_equal(tsr_session_eval(saved, &next, 1, NULL), 0);
        assert_int_equal(tsr_session_eval(loaded, &next, 1, NULL), 0);
        assert_memory_equal(tsr_session_logits(saved), tsr_session_logits(loaded), row);
        tsr_session_close(saved);
        tsr_session_close(loaded);
    }
}

static void prefixes_of_loaded_contexts_are_reused(void **state)
{
    tsr_engine *engine = *state;
    const char *path = temp_path("context");
    int32_t ids[N_IDS];
    fill_ids(ids);
    ids[25]++;
    tsr_session_close(save_session(engine, TSR_KV_F16, path));
    tsr_session *session = open_session(engine, 64, TSR_KV_F16);
    assert_int_equal(tsr_session_load(session, path), 0);
    assert_int_equal(tsr_session_sync(session, ids, N_IDS), 0);
    struct tsr_stats stats = {.struct_size = sizeof stats};
    tsr_session_stats(session, &stats);
    assert_int_equal(stats.n_reused, 25);
    assert_int_equal(stats.n_prompt, N_IDS - 25);
    tsr_session_close(session);
}

static void empty_contexts_are_kept_too(void **state)
{
    const char *path = temp_path("context");
    tsr_session *session = open_session(*state, 8, TSR_KV_F16);
    assert_int_equal(tsr_session_save(session, path), 0);
    assert_int_equal(tsr_session_load(session, path), 0);
    assert_int_equal(session->n_past, 0);
    tsr_session_close(session);
}

static void expect_refusal(tsr_session *session, const char *path, int code, const char *text)
{
    int32_t id = 5;
    assert_int_equal(tsr_session_eval(session, &id, 1, NULL), 0);
    assert_int_equal(tsr_session_load(session, path), code);
    assert_non_null(strstr(tsr_engine_message(session->engine), text));
    assert_non_null(strstr(tsr_engine_message(session->engine), path));
    assert_int_equal(session->n_past, 0);
    assert_null(tsr_session_logits(session));
}

static void what_does_not_fit_is_refused(void **state)
{
    tsr_engine *engine = *state, *other = open_engine(TSR_TEST_F32_MODEL);
    const char *path = temp_path("context");
    tsr_session_close(save_session(engine, TSR_KV_F16, path));
    tsr_session *q8_0 = open_session(engine, 64, TSR_KV_Q8_0);
    tsr_session *small = open_session(engine, N_IDS - 1, TSR_KV_F16);
    tsr_session *of_other = open_session(other, 64, TSR_KV_F16);
    expect_refusal(q8_0, path, TSR_ESTALE, "in F16, this session keeps Q8_0");
    expect_refusal(small, path, TSR_ECONTEXT, "has 40 tokens, the context holds 39");
    expect_refusal(of_other, path, TSR_ESTALE, "another model");
    expect_refusal(small, "/nonexistent/context", TSR_EIO, "No such file");
    assert_int_equal(tsr_session_save(small, "/nonexistent/context"), TSR_EIO);
    tsr_session_close(q8_0);
    tsr_session_close(small);
    tsr_session_close(of_other);
    tsr_engine_close(other);
}

/* A model of the same shape, one of whose weights is another. */
static void other_weights_are_another_model(void **state)
{
    tsr_engine *engine = *state;
    const struct gguf_tensor *tensor = gguf_find_tensor(engine->gguf, "blk.1.attn_k.weight");
    size_t size;
    uint8_t *model = read_file(TSR_TEST_MODEL, &size);
    assert_non_null(tensor);
    assert_true(tensor->offset < size && tensor->file == 0);
    tsr_session_close(save_session(engine, TSR_KV_F16, temp_path("context")));
    model[tensor->offset + 5] ^= 1;
    write_file(temp_path("other.gguf"), model, size);
    tsr_engine *other = open_engine(temp_path("other.gguf"));
    tsr_session *session = open_session(other, 64, TSR_KV_F16);
    expect_refusal(session, temp_path("context"), TSR_ESTALE, "another model");
    tsr_session_close(session);
    tsr_engine_close(other);
    free(model);
}

/* Any changed byte, and any end that is not the file's own. */
static void damaged_files_are_refused(void **state)
{
    const char *path = temp_path("context");
    tsr_session *session = save_session(*state, TSR_KV_F16, path);
    size_t size;
    uint8_t *bytes = read_file(path, &size);
    for (size_t at = 0; at < size; at += at < 64 ? 1 : size / 300) {
        bytes[at] ^= 0x40;
        write_file(path, bytes, size);
        bytes[at] ^= 0x40;
        assert_true(tsr_session_load(session, path) < 0);
        assert_int_equal(session->n_past, 0);
    }
    for (size_t end = 0; end < size; end += end < 64 ? 1 : size / 50) {
        write_file(path, bytes, end);
        expect_refusal(session, path, TSR_EFORMAT, end < 24 ? "no saved context" : "cut short");
    }
    uint8_t *longer = malloc(size + 1);
    assert_non_null(longer);
    memcpy(longer, bytes, size);
    longer[size] = 0;
    write_file(path, longer, size + 1);
    expect_refusal(session, path, TSR_EFORMAT, "cut short or damaged");
    write_file(path, bytes, size);
    assert_int_equal(tsr_session_load(session, path), 0);
    free(longer);
    free(bytes);
    tsr_session_close(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loaded_contexts_go_on_alike),
        cmocka_unit_test(prefixes_of_loaded_contexts_are_reused),
        cmocka_unit_test(empty_contexts_are_kept_too),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(other_weights_are_another_model),
        cmocka_unit_test(damaged_files_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
