/* Family deepseek2. Latent attention: prompts expand keys and values, a range at a time, while
 * generation and short continuations absorb. Both give the same logits, whatever the batches,
 * threads and sessions. And its router: sigmoid, bias and groups. */
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/random_weights.h"
#include "bench/shape.h"
#include "engine.h"
#include "forward/pass.h"
#include "tests/support/check.h"

/* Tokens beyond MLA_KEYS, so that a prompt has several ranges, and the keys of a single token. */
enum { N_IDS = MLA_KEYS + 200, N_LAST = 24 };

/* Float arithmetic in another order; the logits' deviation is about 0.3. */
static const float MAX_DIFFERENCE = 2e-5f;

/* Random queries and keys are nearly orthogonal: so much larger, their scores make a difference. */
static const float SHARPER = 100.0f;

/* With the matrices used from the file, or packed. */
static tsr_engine *open_mapped(int n_threads, struct shape_model *model, bool mapped)
{
    static const char *const all[] = {".=mapped"};
    struct tsr_error error = {0};
    char path[64];
    int fd;
    assert_int_equal(shape_parse("tiny-mla:f32", model, &error), 0);
    assert_int_equal(shape_make(model, NULL, &fd, &error), 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct tsr_settings settings = tsr_settings_default();
    settings.model_path = path;
    settings.n_threads = n_threads;
    settings.overrides = all;
    settings.n_overrides = mapped;
    tsr_engine *engine;
    if (tsr_engine_open(&settings, &engine, &error))
        fail_msg("%s", error.text);
    close(fd); /* the engine keeps the memory */
    engine->model->params.attn_scale *= SHARPER;
    return engine;
}

static tsr_engine *open_engine(int n_threads, struct shape_model *model)
{
    return open_mapped(n_threads, model, false);
}

static tsr_session *open_session(tsr_engine *engine, uint32_t n_batch, enum tsr_kv_type kv_type)
{
    struct tsr_session_settings settings = tsr_session_settings_default();
    settings.n_ctx = N_IDS;
    settings.n_batch = n_batch;
    settings.kv_type = kv_type;
    tsr_session *session;
    if (tsr_session_open(engine, &settings, &session))
        fail_msg("%s", tsr_engine_message(engine));
    return session;
}

static void make_ids(int32_t *ids, uint32_t n_vocab)
{
    uint64_t random = 7;
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (int32_t)(random_next(&random) % n_vocab);
}

/* Logits [N_IDS, n_vocab]; the last tokens come `step` at a time, those before in batches. */
static float *all_logits(tsr_session *session, const int32_t *ids, uint32_t n_vocab, int step)
{
    float *logits = malloc((size_t)N_IDS * n_vocab * sizeof *logits);
    assert_non_null(logits);
    assert_int_equal(tsr_session_eval(session, ids, N_IDS - N_LAST, logits), 0);
    for (int i = N_IDS - N_LAST; i < N_IDS; i += step)
        assert_int_equal(
            tsr_session_eval(session, ids + i, (size_t)step, logits + (size_t)i * n_vocab), 0);
    return logits;
}

static float difference(const float *a, const float *b, size_t n)
{
    float max = 0.0f;
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= max))
            max = fabsf(a[i] - b[i]);
    return max;
}

static void both_forms_agree(void **state)
{
    (void)state;
    static const struct {
        int n_threads;
        uint32_t n_batch;
        int step;
        bool mapped;
    } cases[] = {
        {1, N_IDS, N_LAST, false}, /* expanded, in two ranges; then absorbed, several tokens */
        {1, 7, 1, false},          /* absorbed but for the first; then single tokens */
        {2, 333, 1, false},        /* expanded behind other tokens; single tokens, keys split */
        {3, N_IDS, 3, false},
        {2, N_IDS, 2, true}, /* all but what is transposed */
    };
    struct shape_model shape;
    int32_t ids[N_IDS];
    float *expected = NULL;
    uint32_t n_vocab = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tsr_engine *engine = open_mapped(cases[i].n_threads, &shape, cases[i].mapped);
        n_vocab = shape.shape.n_vocab;
        make_ids(ids, n_vocab);
        tsr_session *session = open_session(engine, cases[i].n_batch, TSR_KV_F32);
        float *logits = all_logits(session, ids, n_vocab, cases[i].step);
        float max = expected ? difference(expected, logits, (size_t)N_IDS * n_vocab) : 0.0f;
        if (!(max <= MAX_DIFFERENCE))
            fail_msg("case %zu differs by %g", i, (double)max);
        if (expected)
            free(logits);
        else
            expected = logits;
        tsr_session_close(session);
        tsr_engine_close(engine);
    }
    free(expected);
}

/* One latent and one rotated key for each token and layer. */
static void the_cache_is_small(void **state)
{
    (void)state;
    struct shape_model shape;
    tsr_engine *engine = open_engine(1, &shape);
    static const unsigned bytes_of_32[] = {
        [TSR_KV_F16] = 64, [TSR_KV_F32] = 128, [TSR_KV_BF16] = 64, [TSR_KV_Q8_0] = 34};
    for (int type = TSR_KV_F16; type <= TSR_KV_Q8_0; type++) {
        tsr_session *session = open_session(engine, 64, (enum tsr_kv_type)type);
        struct tsr_stats stats = {.struct_size = sizeof stats};
        tsr_session_stats(session, &stats);
        uint64_t width = shape.shape.kv_rank + shape.shape.n_rot;
        assert_int_equal(stats.kv_bytes,
                         (uint64_t)shape.shape.n_layer * N_IDS * (width / 32) * bytes_of_32[type]);
        tsr_session_close(session);
    }
    tsr_engine_close(engine);
}

/* Rewinding, the common prefix, and another session that works in between. */
static void sessions_do_not_disturb_each_other(void **state)
{
    (void)state;
    enum { N = 60, PREFIX = 25 };
    struct shape_model shape;
    tsr_engine *engine = open_engine(2, &shape);
    int32_t ids[N_IDS], others[N];
    make_ids(ids, shape.shape.n_vocab);
    for (int i = 0; i < N; i++)
        others[i] = i < PREFIX ? ids[i] : ids[N_IDS - 1 - i];
    size_t row = shape.shape.n_vocab * sizeof(float);
    tsr_session *one = open_session(engine, 64, TSR_KV_F16);
    tsr_session *two = open_session(engine, 64, TSR_KV_F16);
    float *expected = malloc(row);
    assert_non_null(expected);
    assert_int_equal(tsr_session_sync(one, ids, N), 0);
    memcpy(expected, tsr_session_logits(one), row);
    assert_int_equal(tsr_session_sync(two, others, N), 0);
    assert_int_equal(tsr_session_sync(one, others, N), 0);
    assert_true(difference(tsr_session_logits(one), tsr_session_logits(two),
                           shape.shape.n_vocab) < 0.05f);
    assert_true(difference(tsr_session_logits(one), expected, shape.shape.n_vocab) > 0.05f);
    assert_int_equal(tsr_session_rewind(one, PREFIX), 0);
    assert_int_equal(tsr_session_eval(one, ids + PREFIX, N - PREFIX, NULL), 0);
    assert_true(difference(tsr_session_logits(one), expected, shape.shape.n_vocab) < 0.05f);
    free(expected);
    tsr_session_close(one);
    tsr_session_close(two);
    tsr_engine_close(engine);
}

/* ---- The router of the family ---- */

enum { N_ROUTED = 40, N_EXPERT = 16, N_USED = 4, GROUP = 4, N_GROUPS_USED = 2 };

/* With its bias; -INFINITY in groups that are not chosen from. By sorting, unlike the router. */
static void score_experts(const float *probability, const float *bias, float scores[N_EXPERT])
{
    float groups[N_EXPERT / GROUP];
    for (int e = 0; e < N_EXPERT; e++)
        scores[e] = probability[e] + (bias ? bias[e] : 0.0f);
    for (int g = 0; g < N_EXPERT / GROUP; g++) {
        groups[g] = -INFINITY;
        for (int i = g * GROUP; i < (g + 1) * GROUP; i++)
            for (int j = i + 1; bias && j < (g + 1) * GROUP; j++)
                groups[g] = fmaxf(groups[g], scores[i] + scores[j]);
        for (int i = g * GROUP; !bias && i < (g + 1) * GROUP; i++)
            groups[g] = fmaxf(groups[g], scores[i]);
    }
    for (int e = 0; e < N_EXPERT; e++) {
        int better = 0;
        for (int g = 0; g < N_EXPERT / GROUP; g++)
            better += groups[g] > groups[e / GROUP];
        if (better >= N_GROUPS_USED)
            scores[e] = -INFINITY;
    }
}

/* What the last layer chose for a token, in the order of the experts' numbers. */
static void check_choice(const struct forward *f, const float *bias, int token)
{
    const struct router_params *router = &f->params->router;
    const float *probability = f->routing.logits + token * N_EXPERT;
    float scores[N_EXPERT], sum = 0.0f;
    score_experts(probability, bias, scores);
    int n = 0;
    for (int e = 0; e < N_EXPERT; e++) {
        int better = 0;
        for (int other = 0; other < N_EXPERT; other++)
            better += scores[other] > scores[e];
        if (better >= N_USED)
            continue;
        assert_int_equal(f->routing.expert_of[token * N_USED + n], e);
        sum += probability[e];
        n++;
    }
    assert_int_equal(n, N_USED);
    for (int u = 0; u < N_USED; u++) {
        float p = probability[f->routing.expert_of[token * N_USED + u]];
        float wanted = (router->normalized ? p / sum : p) * router->scale;
        assert_true(fabsf(f->routing.weight_of[token * N_USED + u] - wanted) < 1e-6f);
    }
}

static void check_router(const struct router_params *router, const float *bias)
{
    struct shape_model shape;
    struct tsr_error error = {0};
    struct forward *forward;
    struct kv_cache kv;
    int32_t ids[N_IDS];
    tsr_engine *engine = open_engine(2, &shape);
    float *logits = malloc(shape.shape.n_vocab * sizeof *logits);
    assert_non_null(logits);
    make_ids(ids, shape.shape.n_vocab);
    engine->model->params.router = *router;
    for (uint32_t i = shape.shape.n_layer_dense; i < shape.shape.n_layer; i++)
        engine->weights->layers[i].router_bias = bias;
    assert_int_equal(
        forward_create(engine->plan, engine->weights, N_ROUTED, 2, &forward, &error), 0);
    assert_int_equal(kv_init(&kv, &engine->model->params, N_ROUTED, KV_F32, &error), 0);
    struct forward_batch batch = {.ids = ids, .n_tokens = N_ROUTED, .kv = &kv, .logits = logits};
    assert_true(forward_run(forward, engine->team, 2, &batch));
    for (int token = 0; token < N_ROUTED; token++)
        check_choice(forward, bias, token);
    kv_free(&kv);
    forward_free(forward);
    free(logits);
    tsr_engine_close(engine);
}

static void experts_are_chosen_as_described(void **state)
{
    (void)state;
    static const struct router_params routers[] = {
        {.scale = 1.0f, .n_group = N_EXPERT / GROUP, .n_group_used = N_GROUPS_USED},
        {.sigmoid = true, .normalized = true, .scale = 2.5f, .n_group = N_EXPERT / GROUP,
         .n_group_used = N_GROUPS_USED},
    };
    float bias[N_EXPERT];
    for (int e = 0; e < N_EXPERT; e++)
        bias[e] = 0.02f * (float)(e * 7 % 5) - 0.03f;
    check_router(&routers[0], NULL);
    check_router(&routers[1], bias);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_forms_agree),
        cmocka_unit_test(the_cache_is_small),
        cmocka_unit_test(sessions_do_not_disturb_each_other),
        cmocka_unit_test(experts_are_chosen_as_described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
