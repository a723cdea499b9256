/* Engine and sessions on the shipped model, through the public API: batches against single steps,
 * threads, prefix reuse, several sessions at once, cancelling, limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "forward/kv.h"
#include "tests/support/divergence.h"

enum { N_IDS = 40 };

/* Two ways to the same sum differ in the last bits. Float arithmetic keeps that small... */
static const float MAX_F32_DIFFERENCE = 1e-4f;
/* ...but rounding activations to 8 bits makes steps of it. The divergence (nats) of two such results
 * is of the size of what the rounding itself costs, about 8e-4. */
static const double MAX_MEAN_KL = 8e-4;

static tsr_engine *open_model(const char *path, int n_threads)
{
    struct tsr_settings settings = tsr_settings_default();
    settings.model_path = path;
    settings.n_threads = n_threads;
    struct tsr_error error = {0};
    tsr_engine *engine;
    if (tsr_engine_open(&settings, &engine, &error))
        fail_msg("%s", error.text);
    return engine;
}

static tsr_engine *open_engine(int n_threads)
{
    return open_model(TSR_TEST_MODEL, n_threads);
}

static tsr_session *open_session(tsr_engine *engine, uint32_t n_ctx, uint32_t n_batch)
{
    struct tsr_session_settings settings = tsr_session_settings_default();
    settings.n_ctx = n_ctx;
    settings.n_batch = n_batch;
    settings.kv_type = TSR_KV_F32;
    tsr_session *session;
    if (tsr_session_open(engine, &settings, &session))
        fail_msg("%s", tsr_engine_message(engine));
    return session;
}

static int setup(void **state)
{
    *state = open_engine(2);
    return 0;
}

static int teardown(void **state)
{
    tsr_engine_close(*state);
    return 0;
}

static void story_ids(const tsr_engine *engine, int32_t *ids)
{
    static const char text[] = "Once upon a time there was a small boat that wanted to see the sea."
                               " Every morning it asked the wind to carry it over the blue hills,"
                               " and every evening the wind said: not today, little one.";
    assert_true(tsr_tokenize(engine, text, strlen(text), 0, ids, N_IDS) >= N_IDS);
}

static uint32_t n_vocab(const tsr_engine *engine)
{
    struct tsr_engine_info info = {.struct_size = sizeof info};
    tsr_engine_info(engine, &info);
    return info.n_vocab;
}

static void assert_close(const float *a, const float *b, size_t n_rows, size_t n)
{
    double kl = mean_kl_divergence(a, b, n_rows, n);
    if (!(kl <= MAX_MEAN_KL))
        fail_msg("mean KL divergence %g", kl);
}

static void assert_equal_digits(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= MAX_F32_DIFFERENCE))
            fail_msg("logit %zu: %g, not %g", i, (double)b[i], (double)a[i]);
}

/* Logits of every position, [N_IDS, n_vocab], evaluated in pieces of `step`. */
static float *all_logits(tsr_engine *engine, const int32_t *ids, uint32_t step)
{
    size_t width = n_vocab(engine);
    float *logits = malloc(N_IDS * width * sizeof *logits);
    assert_non_null(logits);
    tsr_session *session = open_session(engine, 64, 64);
    for (uint32_t i = 0; i < N_IDS; i += step) {
        uint32_t n = N_IDS - i < step ? N_IDS - i : step;
        assert_int_equal(tsr_session_eval(session, ids + i, n, logits + i * width), 0);
    }
    tsr_session_close(session);
    return logits;
}

static void batches_agree_with_single_steps(void **state)
{
    int32_t ids[N_IDS];
    story_ids(*state, ids);
    float *whole = all_logits(*state, ids, N_IDS);
    float *single = all_logits(*state, ids, 1), *uneven = all_logits(*state, ids, 7);
    assert_close(whole, single, N_IDS, n_vocab(*state));
    assert_close(whole, uneven, N_IDS, n_vocab(*state));
    free(whole);
    free(single);
    free(uneven);
}

static void float_models_agree_to_the_last_digits(void **state)
{
    (void)state;
    tsr_engine *one = open_model(TSR_TEST_F32_MODEL, 1), *two = open_model(TSR_TEST_F32_MODEL, 2);
    int32_t ids[N_IDS];
    for (int i = 0; i < N_IDS; i++)
        ids[i] = 7 * i % 300;
    float *whole = all_logits(one, ids, N_IDS);
    float *others[] = {all_logits(one, ids, 1), all_logits(one, ids, 7), all_logits(two, ids, N_IDS),
                       all_logits(two, ids, 1)};
    for (size_t o = 0; o < sizeof others / sizeof others[0]; o++) {
        assert_equal_digits(whole, others[o], N_IDS * (size_t)n_vocab(one));
        free(others[o]);
    }
    free(whole);
    tsr_engine_close(one);
    tsr_engine_close(two);
}

static void threads_do_not_change_the_result(void **state)
{
    int32_t ids[N_IDS];
    story_ids(*state, ids);
    float *two = all_logits(*state, ids, N_IDS);
    for (int n = 1; n <= 3; n += 2) {
        tsr_engine *other = open_engine(n);
        float *logits = all_logits(other, ids, N_IDS);
        assert_close(two, logits, N_IDS, n_vocab(*state));
        free(logits);
        tsr_engine_close(other);
    }
    free(two);
}

/* A machine whose CPUs are dealt out to n_nodes nodes in turn. */
static struct topology *fake_topology(int n_nodes)
{
    struct topology *topology = calloc(1, sizeof *topology);
    assert_non_null(topology);
    topology->n_nodes = n_nodes;
    for (int i = 0; i < n_nodes; i++)
        topology->nodes[i] = (struct topology_node){i, UINT64_C(1) << 40, UINT64_C(1) << 40};
    for (int cpu = 0; cpu < CPU_CORES_MAX; cpu++)
        topology->node_of_cpu[cpu] = (uint8_t)(cpu % n_nodes);
    return topology;
}

static tsr_engine *open_on(const struct topology *topology, const char *path, enum tsr_numa numa,
                           int n_threads, int n_threads_batch)
{
    struct tsr_settings settings = tsr_settings_default();
    settings.model_path = path;
    settings.numa = numa;
    settings.n_threads = n_threads;
    settings.n_threads_batch = n_threads_batch;
    struct tsr_error error = {0};
    tsr_engine *engine;
    if (engine_open_on(topology, &settings, &engine, &error))
        fail_msg("%s", error.text);
    return engine;
}

static const struct {
    enum tsr_numa numa;
    int n_threads, n_threads_batch;
} numa_cases[] = {
    {TSR_NUMA_NONE, 2, 2},       {TSR_NUMA_ISOLATE, 1, 1}, {TSR_NUMA_INTERLEAVE, 1, 2},
    {TSR_NUMA_INTERLEAVE, 2, 2}, {TSR_NUMA_SHARD, 2, 2},   {TSR_NUMA_SHARD, 1, 2},
    {TSR_NUMA_SHARD, 2, 1},      {TSR_NUMA_SHARD, 1, 1},
};

/* Every mode on a machine of two nodes against one thread. */
static void compare_numa_modes(const char *path, bool is_float)
{
    struct topology *two_nodes = fake_topology(2);
    tsr_engine *one = open_model(path, 1);
    size_t width = n_vocab(one);
    int32_t ids[N_IDS];
    for (int i = 0; i < N_IDS; i++)
        ids[i] = 7 * i % 300;
    float *expected = all_logits(one, ids, N_IDS);
    for (size_t i = 0; i < sizeof numa_cases / sizeof numa_cases[0]; i++) {
        tsr_engine *engine = open_on(two_nodes, path, numa_cases[i].numa, numa_cases[i].n_threads,
                                     numa_cases[i].n_threads_batch);
        for (uint32_t step = 1; step <= N_IDS; step += N_IDS - 1) {
            float *logits = all_logits(engine, ids, step);
            if (is_float)
                assert_equal_digits(expected, logits, N_IDS * width);
            else
                assert_close(expected, logits, N_IDS, width);
            free(logits);
        }
        tsr_engine_close(engine);
    }
    free(expected);
    tsr_engine_close(one);
    free(two_nodes);
}

/* With TSR_NUMA_SHARD and one thread of two, a worker takes the columns of a node that nobody sits
 * on. */
static void numa_modes_do_not_change_the_result(void **state)
{
    struct cpu_cores cores;
    assert_int_equal(cpu_cores(&cores, NULL), 0);
    if (cores.n_usable < 2)
        skip();
    compare_numa_modes(TSR_TEST_MODEL, false);
    compare_numa_modes(TSR_TEST_F32_MODEL, true);
    compare_numa_modes(TSR_TEST_GOLDEN "/logits/deepseek2_kvb.gguf", true);
    compare_numa_modes(TSR_TEST_GOLDEN "/quant/llama_q-q4_k.gguf", false);
    compare_numa_modes(TSR_TEST_GOLDEN "/quant/qwen3moe_q-q6_k.gguf", false);
}

/* The parts of a matrix are all of it, once, and take the bytes of the whole. */
static void shards_are_the_whole(void **state)
{
    struct cpu_cores cores;
    assert_int_equal(cpu_cores(&cores, NULL), 0);
    if (cores.n_usable < 2)
        skip();
    struct topology *two_nodes = fake_topology(2);
    tsr_engine *engine = open_on(two_nodes, TSR_TEST_MODEL, TSR_NUMA_SHARD, 2, 2);
    const struct plan *whole = ((tsr_engine *)*state)->plan, *sharded = engine->plan;
    assert_int_equal(sharded->n_nodes, 2);
    for (size_t i = 0; i < whole->n_placements; i++) {
        const struct placement_part *one = whole->placements[i].parts;
        const struct placement_part *parts = sharded->placements[i].parts;
        assert_int_equal(parts[0].n0, one->n0);
        assert_int_equal(parts[0].n1, parts[1].n0);
        assert_int_equal(parts[1].n1, one->n1);
        assert_int_equal(parts[0].bytes + parts[1].bytes, one->bytes);
    }
    for (int pool = 0; pool < POOL_COUNT; pool++) {
        const struct arena *arenas = engine->weights->arenas[pool];
        assert_int_equal(arenas[0].bytes > 0, whole->arena_bytes[pool][0] > 0);
        assert_int_equal(arenas[1].bytes > 0, whole->arena_bytes[pool][0] > 0);
        assert_int_equal(arenas[0].bytes + arenas[1].bytes, whole->arena_bytes[pool][0]);
    }
    tsr_engine_close(engine);
    free(two_nodes);
}

static tsr_engine *open_with_amx(const struct topology *topology, enum tsr_tristate amx)
{
    struct tsr_settings settings = tsr_settings_default();
    settings.model_path = TSR_TEST_MODEL;
    settings.n_threads = 2;
    settings.amx = amx;
    settings.emulate_tiles = amx == TSR_ON;
    settings.numa = topology ? TSR_NUMA_SHARD : TSR_NUMA_NONE;
    struct tsr_error error = {0};
    tsr_engine *engine;
    if (engine_open_on(topology, &settings, &engine, &error))
        fail_msg("%s", error.text);
    return engine;
}

static void shards_on_tiles_do_not_change_the_result(void **state)
{
    struct cpu_cores cores;
    assert_int_equal(cpu_cores(&cores, NULL), 0);
    if (cores.n_usable < 2)
        skip();
    struct topology *two_nodes = fake_topology(2);
    tsr_engine *plain = open_with_amx(NULL, TSR_ON), *sharded = open_with_amx(two_nodes, TSR_ON);
    assert_true(sharded->plan->arena_bytes[POOL_AMX][1] > 0);
    int32_t ids[N_IDS];
    story_ids(*state, ids);
    float *expected = all_logits(plain, ids, N_IDS), *logits = all_logits(sharded, ids, N_IDS);
    assert_close(expected, logits, N_IDS, n_vocab(plain));
    free(expected);
    free(logits);
    tsr_engine_close(plain);
    tsr_engine_close(sharded);
    free(two_nodes);
}

/* What is planned is allocated, pool by pool; matrices of products are on tiles where there are
 * tiles, the router and the vectors never. */
static void arenas_are_as_planned(void **state)
{
    (void)state;
    const enum tsr_tristate settings[] = {TSR_OFF, TSR_ON};
    uint64_t bytes[2][POOL_COUNT] = {0};
    for (int i = 0; i < 2; i++) {
        tsr_engine *engine = open_with_amx(NULL, settings[i]);
        const struct plan *plan = engine->plan;
        for (int pool = 0; pool < POOL_COUNT; pool++) {
            assert_int_equal(engine->weights->arenas[pool][0].bytes, plan->arena_bytes[pool][0]);
            bytes[i][pool] = plan->arena_bytes[pool][0];
        }
        for (size_t t = 0; t < plan->n_placements; t++) {
            enum model_role role = plan->placements[t].tensor->role;
            bool packs = model_role_is_matrix(role) && role != ROLE_ROUTER;
            enum plan_pool packed = settings[i] == TSR_ON ? POOL_AMX : POOL_CPU;
            assert_int_equal(plan->placements[t].pool, packs ? packed : POOL_MAPPED);
        }
        tsr_engine_close(engine);
    }
    assert_true(bytes[0][POOL_CPU] > 0);
    assert_int_equal(bytes[0][POOL_AMX], 0);
    assert_int_equal(bytes[1][POOL_CPU], 0);
    assert_int_equal(bytes[1][POOL_AMX], bytes[0][POOL_CPU]); /* the layouts are the same */
}

/* The plan of the public API has the very bytes that an engine and a session then take. */
static void plans_tell_what_is_taken(void **state)
{
    (void)state;
    struct tsr_settings settings = tsr_settings_default();
    struct tsr_session_settings session = tsr_session_settings_default();
    settings.model_path = TSR_TEST_MODEL;
    settings.n_threads = 2;
    settings.pool_budgets[TSR_POOL_CPU] = 8 << 20;
    settings.overrides = (const char *const[]){"down_exps=mapped"};
    settings.n_overrides = 1;
    session.n_ctx = 100;
    session.n_batch = 7;
    session.kv_type = TSR_KV_Q8_0;
    struct tsr_error error = {0};
    tsr_plan *plan;
    tsr_engine *engine = NULL;
    tsr_session *opened;
    if (tsr_plan_create(&settings, &session, &plan, &error) ||
        tsr_engine_open(&settings, &engine, &error))
        fail_msg("%s", error.text);
    assert_int_equal(tsr_session_open(engine, &session, &opened), 0);

    struct tsr_plan_info info = {.struct_size = sizeof info};
    struct tsr_engine_info engine_info = {.struct_size = sizeof engine_info};
    struct tsr_stats stats = {.struct_size = sizeof stats};
    tsr_plan_info(plan, &info);
    tsr_engine_info(engine, &engine_info);
    tsr_session_stats(opened, &stats);
    for (int pool = 0; pool < POOL_COUNT; pool++) {
        assert_int_equal(info.pools[pool].bytes, engine->plan->pools[pool].bytes);
        assert_int_equal(info.pools[pool].n_tensors, engine->plan->pools[pool].n_tensors);
        assert_int_equal(engine->weights->arenas[pool][0].bytes, info.pools[pool].node_bytes[0]);
    }
    assert_true(info.pools[TSR_POOL_AMX].bytes || info.pools[TSR_POOL_CPU].bytes);
    assert_true(info.pools[TSR_POOL_CPU].bytes <= 8 << 20);
    assert_int_equal(info.pools[TSR_POOL_AMX].bytes + info.pools[TSR_POOL_CPU].bytes,
                     engine_info.packed_bytes);
    assert_int_equal(info.kv_bytes, stats.kv_bytes);
    assert_int_equal(info.scratch_bytes, stats.scratch_bytes);
    assert_int_equal(info.file_bytes, engine_info.file_bytes);
    assert_string_equal(info.isa, engine_info.isa);
    tsr_session_close(opened);
    tsr_engine_close(engine);
    tsr_plan_free(plan);
}

/* A cache in q8_0 is half as large as one in f16, and for heads of whole blocks. */
static void caches_of_8_bits_have_blocks(void **state)
{
    (void)state;
    struct model_params params = {.n_layer = 3, .n_head_kv = 2, .d_k = 64, .d_v = 96};
    struct kv_cache kv;
    struct tsr_error error = {0};
    assert_int_equal(kv_plan(&kv, &params, 10, KV_Q8_0, &error), 0);
    assert_int_equal(kv.bytes, 3 * 2 * 10 * (64 + 96) / 32 * 34);
    params.d_v = 72;
    assert_int_equal(kv_plan(&kv, &params, 10, KV_Q8_0, &error), TSR_EUNSUPPORTED);
    assert_non_null(strstr(error.text, "72"));
    assert_int_equal(kv_plan(&kv, &params, 10, KV_F16, &error), 0);
    params.mla.kv_rank = 512;
    params.rope.n_rot = 64;
    assert_int_equal(kv_plan(&kv, &params, 10, KV_Q8_0, &error), 0);
    params.rope.n_rot = 48;
    assert_int_equal(kv_plan(&kv, &params, 10, KV_Q8_0, &error), TSR_EUNSUPPORTED);
    assert_non_null(strstr(error.text, "48"));
}

static void impossible_plans_are_refused(void **state)
{
    (void)state;
    struct tsr_settings settings = tsr_settings_default();
    struct tsr_error error = {0};
    tsr_plan *plan;
    assert_int_equal(tsr_plan_create(&settings, NULL, &plan, &error), TSR_EINVAL);
    assert_null(plan);
    settings.model_path = TSR_TEST_MODEL;
    settings.pool_budgets[TSR_POOL_MAPPED] = 100;
    tsr_engine *engine;
    assert_int_equal(tsr_plan_create(&settings, NULL, &plan, &error), TSR_ENOMEM);
    assert_non_null(strstr(error.text, "token_embd.weight"));
    assert_int_equal(tsr_engine_open(&settings, &engine, &error), TSR_ENOMEM);
    assert_null(engine);
    settings.pool_budgets[TSR_POOL_MAPPED] = UINT64_MAX;
    settings.struct_size = 8;
    assert_int_equal(tsr_plan_create(&settings, NULL, &plan, NULL), TSR_EINVAL);
    settings.struct_size = sizeof settings;
    assert_int_equal(tsr_plan_create(&settings, NULL, &plan, NULL), 0);
    tsr_plan_free(plan);
    tsr_plan_free(NULL);
}

/* Gate and up in pools of unlike kernels, whose blocks of columns differ: the logits stay. */
static void unlike_kernels_of_gate_and_up(void **state)
{
    (void)state;
    static const char *const overrides[] = {"gate_exps=cpu", "gate_exps=mapped", "up_exps=mapped"};
    int32_t ids[N_IDS];
    for (int i = 0; i < N_IDS; i++)
        ids[i] = 7 * i % 300;
    float *expected = NULL;
    for (int i = 0; i < 3; i++) {
        struct tsr_settings settings = tsr_settings_default();
        settings.model_path = TSR_TEST_F32_MODEL;
        settings.amx = TSR_OFF;
        settings.n_threads = 2;
        settings.overrides = &overrides[i];
        settings.n_overrides = 1;
        tsr_engine *engine;
        assert_int_equal(tsr_engine_open(&settings, &engine, NULL), 0);
        float *logits = all_logits(engine, ids, 16);
        if (expected)
            assert_equal_digits(expected, logits, N_IDS * n_vocab(engine));
        tsr_engine_close(engine);
        if (expected)
            free(logits);
        else
            expected = logits;
    }
    free(expected);
}

static void a_node_that_is_too_small_is_named(void **state)
{
    (void)state;
    struct topology *two_nodes = fake_topology(2);
    two_nodes->nodes[0].available_bytes = two_nodes->nodes[1].available_bytes = 1 << 20;
    struct tsr_settings settings = tsr_settings_default();
    settings.model_path = TSR_TEST_MODEL;
    settings.numa = TSR_NUMA_ISOLATE;
    settings.n_threads = 1;
    struct tsr_error error;
    tsr_engine *engine;
    assert_int_equal(engine_open_on(two_nodes, &settings, &engine, &error), TSR_ENOMEM);
    assert_null(engine);
    assert_non_null(strstr(error.text, "has 1 MiB of memory to give, its weights take 1"));
    free(two_nodes);
}

static void sync_reuses_the_common_prefix(void **state)
{
    tsr_engine *engine = *state;
    int32_t ids[N_IDS], changed[N_IDS];
    story_ids(engine, ids);
    memcpy(changed, ids, sizeof ids);
    changed[30] = ids[30] == 5 ? 6 : 5;
    tsr_session *session = open_session(engine, 64, 64), *fresh = open_session(engine, 64, 64);
    assert_int_equal(tsr_session_sync(session, ids, N_IDS), 0);
    assert_int_equal(tsr_session_sync(session, changed, N_IDS), 0);
    assert_int_equal(tsr_session_eval(fresh, changed, N_IDS, NULL), 0);
    assert_close(tsr_session_logits(session), tsr_session_logits(fresh), 1, n_vocab(engine));
    struct tsr_stats stats = {.struct_size = sizeof stats};
    tsr_session_stats(session, &stats);
    assert_int_equal(stats.n_reused, 30);
    assert_int_equal(stats.n_past, N_IDS);
    /* The same again: only the last token is evaluated, for its logits. */
    assert_int_equal(tsr_session_sync(session, changed, N_IDS), 0);
    tsr_session_stats(session, &stats);
    assert_int_equal(stats.n_reused, 30 + N_IDS - 1);
    assert_close(tsr_session_logits(session), tsr_session_logits(fresh), 1, n_vocab(engine));
    tsr_session_close(session);
    tsr_session_close(fresh);
}

static void rewinding_forgets(void **state)
{
    tsr_engine *engine = *state;
    int32_t ids[N_IDS];
    story_ids(engine, ids);
    tsr_session *session = open_session(engine, 64, 16);
    assert_int_equal(tsr_session_eval(session, ids, N_IDS, NULL), 0);
    float *before = malloc(n_vocab(engine) * sizeof *before);
    memcpy(before, tsr_session_logits(session), n_vocab(engine) * sizeof *before);
    assert_int_equal(tsr_session_rewind(session, 10), 0);
    assert_null(tsr_session_logits(session));
    assert_int_equal(tsr_session_eval(session, ids + 10, N_IDS - 10, NULL), 0);
    assert_close(before, tsr_session_logits(session), 1, n_vocab(engine));
    assert_int_equal(tsr_session_rewind(session, N_IDS + 1), TSR_EINVAL);
    free(before);
    tsr_session_close(session);
}

struct writer {
    tsr_engine *engine;
    int32_t ids[24];
};

static void *write_story(void *arg)
{
    struct writer *writer = arg;
    int32_t prompt[N_IDS];
    story_ids(writer->engine, prompt);
    tsr_session *session = open_session(writer->engine, 128, 32);
    struct tsr_sampling sampling = tsr_sampling_default();
    sampling.seed = 7;
    assert_int_equal(tsr_session_eval(session, prompt, N_IDS, NULL), 0);
    for (size_t i = 0; i < sizeof writer->ids / sizeof writer->ids[0]; i++) {
        writer->ids[i] = tsr_session_sample(session, &sampling);
        assert_int_equal(tsr_session_eval(session, &writer->ids[i], 1, NULL), 0);
    }
    tsr_session_close(session);
    return NULL;
}

static void sessions_share_an_engine_from_several_threads(void **state)
{
    struct writer writers[3];
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        writers[i].engine = *state;
        assert_int_equal(pthread_create(&threads[i], NULL, write_story, &writers[i]), 0);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_memory_equal(writers[0].ids, writers[1].ids, sizeof writers[0].ids);
    assert_memory_equal(writers[0].ids, writers[2].ids, sizeof writers[0].ids);
}

static void *cancel_soon(void *session)
{
    tsr_session_cancel(session);
    return NULL;
}

static void cancelling_stops_and_the_session_goes_on(void **state)
{
    int32_t ids[N_IDS];
    story_ids(*state, ids);
    tsr_session *session = open_session(*state, 64, 8);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, session), 0);
    pthread_join(thread, NULL);
    assert_int_equal(tsr_session_eval(session, ids, N_IDS, NULL), TSR_ECANCELED);
    assert_int_equal(tsr_session_sync(session, ids, N_IDS), 0);
    assert_non_null(tsr_session_logits(session));
    tsr_session_close(session);
}

static void limits_are_errors(void **state)
{
    tsr_engine *engine = *state;
    int32_t ids[N_IDS];
    story_ids(engine, ids);
    tsr_session *session = open_session(engine, 16, 16);
    assert_int_equal(tsr_session_eval(session, ids, 17, NULL), TSR_ECONTEXT);
    assert_non_null(strstr(tsr_engine_message(engine), "context of 16"));
    int32_t bad = (int32_t)n_vocab(engine);
    assert_int_equal(tsr_session_eval(session, &bad, 1, NULL), TSR_EINVAL);
    bad = -1;
    assert_int_equal(tsr_session_eval(session, &bad, 1, NULL), TSR_EINVAL);
    assert_int_equal(tsr_session_eval(session, ids, 0, NULL), TSR_EINVAL);
    struct tsr_sampling sampling = tsr_sampling_default();
    assert_int_equal(tsr_session_sample(session, &sampling), TSR_EINVAL);
    assert_int_equal(tsr_session_eval(session, ids, 16, NULL), 0);
    assert_int_equal(tsr_session_eval(session, ids, 1, NULL), TSR_ECONTEXT);
    tsr_session_close(session);
}

static bool refuse(void *user, const char *stage, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    return strcmp(stage, user) != 0;
}

static void loading_can_be_cancelled(void **state)
{
    (void)state;
    struct tsr_settings settings = tsr_settings_default();
    settings.model_path = TSR_TEST_MODEL;
    settings.progress = refuse;
    settings.user = "loading";
    struct tsr_error error;
    tsr_engine *engine;
    assert_int_equal(tsr_engine_open(&settings, &engine, &error), TSR_ECANCELED);
    assert_null(engine);
}

struct watch {
    int n_calls, stop_at; /* stops at that call; -1: never */
    uint64_t done, total;
};

/* Tokens never become fewer. */
static bool watch_prompt(void *user, const char *stage, uint64_t done, uint64_t total)
{
    struct watch *watch = user;
    if (strcmp(stage, "prompt") != 0)
        return true;
    assert_true(done >= watch->done && done <= total);
    watch->done = done;
    watch->total = total;
    return ++watch->n_calls != watch->stop_at;
}

static void prompts_tell_their_progress(void **state)
{
    (void)state;
    struct watch watch = {.stop_at = -1};
    struct tsr_settings settings = tsr_settings_default();
    settings.model_path = TSR_TEST_MODEL;
    settings.progress = watch_prompt;
    settings.user = &watch;
    struct tsr_error error;
    tsr_engine *engine;
    tsr_session *session;
    assert_int_equal(tsr_engine_open(&settings, &engine, &error), 0);
    assert_int_equal(tsr_session_open(engine, NULL, &session), 0);
    int32_t ids[40];
    for (int i = 0; i < 40; i++)
        ids[i] = 10 + i;
    assert_int_equal(tsr_session_eval(session, ids, 40, NULL), 0); /* a single batch */
    assert_true(watch.n_calls > 3 && watch.done == 40 && watch.total == 40);
    int n_calls = watch.n_calls;
    assert_int_equal(tsr_session_eval(session, ids, 1, NULL), 0);
    assert_int_equal(watch.n_calls, n_calls);
    watch = (struct watch){.stop_at = 3};
    assert_int_equal(tsr_session_eval(session, ids, 40, NULL), TSR_ECANCELED);
    watch = (struct watch){.stop_at = -1};
    assert_int_equal(tsr_session_eval(session, ids, 40, NULL), 0);
    struct tsr_stats stats = {.struct_size = sizeof stats};
    tsr_session_stats(session, &stats);
    assert_int_equal(stats.n_past, 81);
    tsr_session_close(session);
    tsr_engine_close(engine);
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    struct tsr_settings settings = tsr_settings_default();
    settings.model_path = "/nonexistent/model.gguf";
    struct tsr_error error;
    tsr_engine *engine;
    assert_int_equal(tsr_engine_open(&settings, &engine, &error), TSR_EIO);
    assert_non_null(strstr(error.text, "/nonexistent/model.gguf"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_agree_with_single_steps),
        cmocka_unit_test(float_models_agree_to_the_last_digits),
        cmocka_unit_test(threads_do_not_change_the_result),
        cmocka_unit_test(numa_modes_do_not_change_the_result),
        cmocka_unit_test(arenas_are_as_planned),
        cmocka_unit_test(plans_tell_what_is_taken),
        cmocka_unit_test(caches_of_8_bits_have_blocks),
        cmocka_unit_test(impossible_plans_are_refused),
        cmocka_unit_test(unlike_kernels_of_gate_and_up),
        cmocka_unit_test(shards_are_the_whole),
        cmocka_unit_test(shards_on_tiles_do_not_change_the_result),
        cmocka_unit_test(a_node_that_is_too_small_is_named),
        cmocka_unit_test(sync_reuses_the_common_prefix),
        cmocka_unit_test(rewinding_forgets),
        cmocka_unit_test(sessions_share_an_engine_from_several_threads),
        cmocka_unit_test(cancelling_stops_and_the_session_goes_on),
        cmocka_unit_test(limits_are_errors),
        cmocka_unit_test(loading_can_be_cancelled),
        cmocka_unit_test(prompts_tell_their_progress),
        cmocka_unit_test(a_missing_file_is_named),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
