/* Calibrations: what is chosen of measured speeds, what engines do with it, and who may use it. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "calibrate.h"
#include "tests/support/divergence.h"

enum { N_IDS = 40 };

/* What rounding activations to 8 bits costs, 1e-4 at most positions, and near ties between two experts
 * that are decided otherwise, a few of the 40 positions with 3e-3 to 9e-3 each. */
static const double MAX_MEAN_KL = 1.5e-3;
static const double SHORT = 0.02; /* seconds: the fewest rounds */

static struct tsr_settings make_settings(bool tiles, int n_threads, const char *calibration)
{
    struct tsr_settings settings = tsr_settings_default();
    settings.model_path = TSR_TEST_MODEL;
    settings.n_threads = n_threads;
    settings.amx = tiles ? TSR_ON : TSR_OFF;
    settings.emulate_tiles = tiles;
    settings.calibration = calibration;
    return settings;
}

static tsr_engine *open_engine(bool tiles, int n_threads, const char *calibration)
{
    struct tsr_settings settings = make_settings(tiles, n_threads, calibration);
    struct tsr_error error = {0};
    tsr_engine *engine;
    if (tsr_engine_open(&settings, &engine, &error))
        fail_msg("%s", error.text);
    return engine;
}

static char *calibrate(tsr_engine *engine)
{
    struct tsr_error error = {0};
    char *json;
    if (tsr_engine_calibrate(engine, SHORT, &json, &error))
        fail_msg("%s", error.text);
    return json;
}

static tsr_session *open_session(tsr_engine *engine)
{
    struct tsr_session_settings settings = tsr_session_settings_default();
    settings.n_ctx = settings.n_batch = 64;
    tsr_session *session;
    assert_int_equal(tsr_session_open(engine, &settings, &session), 0);
    return session;
}

static struct tsr_engine_info info_of(const tsr_engine *engine)
{
    struct tsr_engine_info info = {.struct_size = sizeof info};
    tsr_engine_info(engine, &info);
    return info;
}

/* [N_IDS, n_vocab] of a story, evaluated in pieces of `step`; freed by the caller. */
static float *logits_of(const tsr_engine *engine, tsr_session *session, size_t step)
{
    static const char text[] = "Once upon a time there was a small boat that wanted to see the sea."
                               " Every morning it asked the wind to carry it over the blue hills,"
                               " and every evening the wind said: not today, little one.";
    int32_t ids[N_IDS];
    size_t n_vocab = info_of(engine).n_vocab;
    float *logits = malloc(N_IDS * n_vocab * sizeof *logits);
    assert_non_null(logits);
    assert_true(tsr_tokenize(engine, text, strlen(text), 0, ids, N_IDS) >= N_IDS);
    assert_int_equal(tsr_session_rewind(session, 0), 0);
    for (size_t i = 0; i < N_IDS; i += step)
        assert_int_equal(tsr_session_eval(session, ids + i, step, logits + i * n_vocab), 0);
    return logits;
}

/* ---- Choosing -------------------------------------------------------------------------------- */

static void thresholds_lose_least(void **state)
{
    (void)state;
    struct kernel_rates rates = {0};
    for (int i = 0; i < CALIBRATION_ROWS; i++) {
        rates.of[i].rows = i + 1;
        rates.of[i].first = 10.0 * (i + 1);
        rates.of[i].second = 35.0;
    }
    assert_int_equal(calibrate_min_rows(&rates), 4);
    rates.of[8].second = 500.0; /* a measurement that went wrong among many */
    rates.of[8].first = 400.0;
    assert_int_equal(calibrate_min_rows(&rates), 4);
    for (int i = 0; i < CALIBRATION_ROWS; i++)
        rates.of[i].second = rates.of[i].first + 1;
    assert_int_equal(calibrate_min_rows(&rates), INT_MAX);
    for (int i = 0; i < CALIBRATION_ROWS; i++)
        rates.of[i].second = rates.of[i].first;
    assert_int_equal(calibrate_min_rows(&rates), 1);
}

static void threads_within_the_noise_are_the_first(void **state)
{
    (void)state;
    const struct thread_rate alike[] = {{16, 98.5, 3}, {32, 100.0, 3}, {12, 90.0, 2}};
    assert_int_equal(calibrate_threads(alike, 3, 0.98), 0);
    const struct thread_rate fewer[] = {{16, 80.0, 3}, {32, 70.0, 1}, {12, 87.0, 3}, {8, 88.0, 3}};
    assert_int_equal(calibrate_threads(fewer, 4, 0.98), 2);
    assert_int_equal(calibrate_threads(fewer, 4, 0.9), 0);
    const struct thread_rate more[] = {{16, 80.0, 3}, {32, 83.0, 3}, {12, 85.0, 3}};
    assert_int_equal(calibrate_threads(more, 3, 0.9), 1);
}

/* ---- Round trip ------------------------------------------------------------------------------ */

static void check_rates(const json_t *part, int chosen)
{
    const json_t *rates = json_object_get(part, "threads");
    bool found = false;
    assert_true(json_array_size(rates) >= 1);
    for (size_t i = 0; i < json_array_size(rates); i++) {
        const json_t *rate = json_array_get(rates, i);
        assert_true(json_number_value(json_object_get(rate, "tokens_per_second")) > 0);
        assert_true(json_integer_value(json_object_get(rate, "samples")) >= 1);
        found = found || json_integer_value(json_object_get(rate, "threads")) == chosen;
    }
    assert_true(found);
}

/* What is measured is used, by this engine and by one that reads it; but given numbers win. */
static void choices_are_used(void **state)
{
    (void)state;
    tsr_engine *engine = open_engine(true, 0, NULL);
    char *json = calibrate(engine);
    struct tsr_engine_info info = info_of(engine);
    json_t *root = json_loads(json, 0, NULL);
    check_rates(json_object_get(root, "prompt"), info.n_threads_batch);
    check_rates(json_object_get(root, "generation"), info.n_threads);
    json_t *choice = json_object_get(root, "choice");
    json_t *rows = json_object_get(json_object_get(choice, "min_rows"), "Q4_0");
    assert_true(json_is_integer(rows) || json_is_null(rows));

    json_object_set_new(choice, "n_threads", json_integer(info.n_threads));
    json_object_set_new(choice, "n_threads_batch", json_integer(1));
    json_object_set_new(json_object_get(choice, "min_rows"), "Q4_0", json_integer(23));
    json_object_set_new(json_object_get(choice, "min_rows"), "Q8_0", json_null());
    char *edited = json_dumps(root, 0);
    tsr_engine *other = open_engine(true, 0, edited), *given = open_engine(true, 2, edited);
    assert_int_equal(info_of(other).n_threads, info.n_threads);
    assert_int_equal(info_of(other).n_threads_batch, 1);
    assert_int_equal(info_of(given).n_threads, 2);
    assert_int_equal(info_of(given).n_threads_batch, 1);
    assert_int_equal(other->weights->min_rows[BLOCK_Q4_0], 23);
    assert_int_equal(other->weights->min_rows[BLOCK_Q8_0], INT_MAX);
    char *again = calibrate(given);
    assert_int_equal(info_of(given).n_threads, 2);
    tsr_free(again);
    tsr_engine_close(other);
    tsr_engine_close(given);
    tsr_engine_close(engine);
    json_decref(root);
    free(edited);
    tsr_free(json);
}

/* ---- Thresholds ------------------------------------------------------------------------------ */

static void set_thresholds(tsr_engine *engine, int q4_0, int q8_0)
{
    struct calibration_choice choice = {0};
    choice.min_rows[BLOCK_Q4_0] = q4_0;
    choice.min_rows[BLOCK_Q8_0] = q8_0;
    engine_apply(engine, &choice);
}

/* Evaluated in pieces of `step`, which makes other numbers of rows. */
static void compare_thresholds(tsr_engine *engine, tsr_session *session, size_t step)
{
    const int thresholds[] = {1, 3, 17, INT_MAX};
    enum { N = sizeof thresholds / sizeof thresholds[0] };
    const struct gemm_kernel *tiles = engine->kernels->tiles;
    size_t n_vocab = info_of(engine).n_vocab, bytes = N_IDS * n_vocab * sizeof(float);
    float *usual = logits_of(engine, session, step), *logits[N];
    for (int i = 0; i < N; i++) {
        set_thresholds(engine, thresholds[i], thresholds[i]);
        logits[i] = logits_of(engine, session, step);
        double kl = mean_kl_divergence(usual, logits[i], N_IDS, n_vocab);
        if (!(kl <= MAX_MEAN_KL))
            fail_msg("from %d rows: mean KL divergence %g", thresholds[i], kl);
    }
    assert_memory_not_equal(logits[0], logits[N - 1], bytes); /* tiles only, and none */
    set_thresholds(engine, tiles[BLOCK_Q4_0].min_rows, tiles[BLOCK_Q8_0].min_rows);
    float *again = logits_of(engine, session, step);
    assert_memory_equal(usual, again, bytes);
    for (int i = 0; i < N; i++)
        free(logits[i]);
    free(again);
    free(usual);
}

static void thresholds_keep_the_result(void **state)
{
    (void)state;
    tsr_engine *engine = open_engine(true, 2, NULL);
    tsr_session *session = open_session(engine);
    compare_thresholds(engine, session, N_IDS);
    compare_thresholds(engine, session, 4);
    tsr_session_close(session);
    tsr_engine_close(engine);
}

/* ---- Teams ----------------------------------------------------------------------------------- */

/* A session that is open stays good, also where the engine gets a larger team than it was opened
 * with. */
static void open_sessions_go_on(void **state)
{
    (void)state;
    tsr_engine *engine = open_engine(false, 1, NULL);
    tsr_session *session = open_session(engine);
    size_t n_vocab = info_of(engine).n_vocab;
    float *before = logits_of(engine, session, N_IDS);
    engine->given_threads = 0;
    tsr_free(calibrate(engine));
    assert_true(info_of(engine).n_threads <= team_size(engine->team));
    assert_true(info_of(engine).n_threads_batch <= team_size(engine->team));
    float *after = logits_of(engine, session, N_IDS);
    assert_memory_equal(before, after, N_IDS * n_vocab * sizeof *before);
    tsr_session *fresh = open_session(engine);
    float *others = logits_of(engine, fresh, N_IDS);
    assert_true(mean_kl_divergence(before, others, N_IDS, n_vocab) <= MAX_MEAN_KL);
    free(before);
    free(after);
    free(others);
    tsr_session_close(session);
    tsr_session_close(fresh);
    tsr_engine_close(engine);
}

static bool count_down(void *user, const char *stage, uint64_t done, uint64_t total)
{
    int *calls_left = user;
    assert_true(done <= total);
    return strcmp(stage, "calibrating") != 0 || (*calls_left)-- > 0;
}

/* Among the kernels of the two types (three rounds of twelve row counts each), then the threads. */
static void cancelled_ones_change_nothing(void **state)
{
    (void)state;
    const int calls[] = {0, 5, 40, 72, 73, 75};
    int calls_left = INT_MAX;
    struct tsr_settings settings = make_settings(true, 1, NULL);
    struct tsr_error error = {0};
    settings.progress = count_down;
    settings.user = &calls_left;
    tsr_engine *engine;
    assert_int_equal(tsr_engine_open(&settings, &engine, &error), 0);
    int rows = engine->weights->min_rows[BLOCK_Q4_0];
    char *json;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        calls_left = calls[i];
        assert_int_equal(tsr_engine_calibrate(engine, SHORT, &json, &error), TSR_ECANCELED);
        assert_null(json);
        assert_int_equal(engine->weights->min_rows[BLOCK_Q4_0], rows);
        assert_int_equal(team_size(engine->team), 1);
        assert_int_equal(engine->n_threads, 1);
        assert_int_equal(engine->n_threads_batch, 1);
    }
    calls_left = INT_MAX;
    tsr_free(calibrate(engine));
    tsr_engine_close(engine);
}

/* ---- Refusals -------------------------------------------------------------------------------- */

static void expect_refusal(const struct tsr_settings *settings, int code, const char *text)
{
    struct tsr_error error = {0};
    tsr_engine *engine;
    assert_int_equal(tsr_engine_open(settings, &engine, &error), code);
    assert_null(engine);
    if (!strstr(error.text, text) || strchr(error.text, '\n'))
        fail_msg("'%s' does not say '%s'", error.text, text);
}

/* The calibration with one value replaced. */
static void expect_refused_value(const char *json, const char *object, const char *key,
                                 json_t *value, int code, const char *text)
{
    json_t *root = json_loads(json, 0, NULL);
    json_object_set_new(object ? json_object_get(root, object) : root, key, value);
    char *edited = json_dumps(root, 0);
    struct tsr_settings settings = make_settings(true, 1, edited);
    expect_refusal(&settings, code, text);
    free(edited);
    json_decref(root);
}

static void others_are_refused(void **state)
{
    (void)state;
    tsr_engine *engine = open_engine(true, 0, NULL);
    char *json = calibrate(engine);
    tsr_engine_close(engine);
    const int stale = TSR_ESTALE, bad = TSR_EFORMAT;
    expect_refused_value(json, NULL, "calibration", json_string("0.0.1"), stale, "tessera 0.0.1");
    expect_refused_value(json, "machine", "cpu", json_string("A Z80"), stale, "CPUs of A Z80");
    expect_refused_value(json, "machine", "cpus", json_integer(999), stale, "999 CPUs");
    expect_refused_value(json, "machine", "isa", json_string("avx9"), stale, "made with avx9");
    expect_refused_value(json, "machine", "emulated", json_false(), stale, "not amx (emulated)");
    expect_refused_value(json, "machine", "numa", json_string("shard"), stale, "--numa shard");
    expect_refused_value(json, "model", "tensors", json_string("0"), stale, "another model");
    expect_refused_value(json, "model", "kernels", json_string("0"), stale, "other kernels");
    expect_refused_value(json, "model", "kernels", json_string("z"), bad, "\"kernels\"");
    expect_refused_value(json, "choice", "n_threads", json_integer(0), bad, "threads");
    expect_refused_value(json, "choice", "n_threads_batch", json_integer(9999), bad, "threads");
    expect_refused_value(json, "choice", "n_threads", json_string("2"), bad, "nteger");
    json_t *no_rows = json_pack("{s:i}", "Q4_0", 0);
    expect_refused_value(json, "choice", "min_rows", no_rows, bad, "min_rows");
    expect_refused_value(json, NULL, "machine", json_null(), bad, "--calibration: ");

    struct tsr_settings settings = make_settings(true, 1, json);
    settings.overrides = (const char *const[]){"attn_q=mapped"};
    settings.n_overrides = 1;
    expect_refusal(&settings, stale, "other kernels");
    settings = make_settings(true, 1, json);
    settings.model_path = TSR_TEST_F32_MODEL;
    expect_refusal(&settings, stale, "another model");
    settings = make_settings(true, 1, "{\"calibration\": ");
    expect_refusal(&settings, bad, "line 1");
    tsr_free(json);
}

static void vocabularies_are_refused(void **state)
{
    (void)state;
    struct tsr_settings settings = make_settings(false, 1, "nonsense that nobody reads");
    struct tsr_error error = {0};
    char *json;
    settings.vocab_only = true;
    tsr_engine *engine;
    assert_int_equal(tsr_engine_open(&settings, &engine, &error), 0);
    assert_int_equal(tsr_engine_calibrate(engine, SHORT, &json, &error), TSR_EINVAL);
    assert_null(json);
    tsr_engine_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thresholds_lose_least),
        cmocka_unit_test(threads_within_the_noise_are_the_first),
        cmocka_unit_test(choices_are_used),
        cmocka_unit_test(thresholds_keep_the_result),
        cmocka_unit_test(open_sessions_go_on),
        cmocka_unit_test(cancelled_ones_change_nothing),
        cmocka_unit_test(others_are_refused),
        cmocka_unit_test(vocabularies_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
