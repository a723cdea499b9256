/* Models of random weights: names and types are what was asked for, activations stay finite, and
 * routing is spread over the experts, as in a real model. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/random_weights.h"
#include "bench/shape.h"
#include "engine.h"
#include "forward/pass.h"
#include "tests/support/check.h"

enum { N_TOKENS = 512 };

static int parse(const char *text, struct shape_model *model, struct tsr_error *error)
{
    *error = (struct tsr_error){.code = 0};
    return shape_parse(text, model, error);
}

static void test_parse(void **state)
{
    struct shape_model model;
    struct tsr_error error;
    assert_int_equal(parse("qwen3-30b-a3b:Q4_0", &model, &error), 0);
    assert_int_equal(model.shape.n_layer, 48);
    assert_int_equal(model.type, BLOCK_Q4_0);
    assert_false(model.mix);
    assert_int_equal(parse("qwen3-235b-a22b:q4_k_m,8", &model, &error), 0);
    assert_int_equal(model.shape.n_layer, 8);
    assert_int_equal(model.type, BLOCK_Q4_K);
    assert_true(model.mix);
    assert_int_equal(parse("mixtral-8x7b", &model, &error), TSR_EINVAL);
    assert_int_equal(parse("mixtral-8x7b:q4_0,33", &model, &error), TSR_EINVAL);
    assert_int_equal(parse("mixtral-8x7b:q4_0,", &model, &error), TSR_EINVAL);
    assert_int_equal(parse("mixtral-8x7b:int4", &model, &error), TSR_EINVAL);
    assert_int_equal(parse("qwen3:q4_0", &model, &error), TSR_EINVAL);
    assert_non_null(strstr(error.text, "qwen3-8b"));
    assert_int_equal(parse("deepseek-v2-lite:q4_0,2", &model, &error), 0);
    assert_int_equal(model.shape.n_layer, 2);
}

static void open_shape(const struct shape_model *model, tsr_engine **engine)
{
    struct tsr_error error = {0};
    char path[64];
    int fd;
    assert_int_equal(shape_make(model, NULL, &fd, &error), 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct tsr_settings settings = tsr_settings_default();
    settings.model_path = path;
    settings.n_threads = 2;
    if (tsr_engine_open(&settings, engine, &error))
        fail_msg("%s", error.text);
    close(fd); /* the engine keeps the memory */
}

/* Types as llama.cpp's Q4_K_M has them, of 8 layers: the first eighth, the last, every third. */
static void test_mix(void **state)
{
    struct shape_model model;
    struct tsr_error error;
    tsr_engine *engine;
    static const bool more[8] = {true, false, false, true, false, false, true, true};
    assert_int_equal(parse("tiny-moe:q4_k_m", &model, &error), 0);
    model.shape.n_layer = 8;
    open_shape(&model, &engine);
    for (int i = 0; i < 8; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.ffn_down_exps.weight", i);
        const struct gguf_tensor *down = gguf_find_tensor(engine->gguf, name);
        assert_int_equal(down->type->id, more[i] ? BLOCK_Q6_K : BLOCK_Q4_K);
        snprintf(name, sizeof name, "blk.%d.attn_v.weight", i);
        assert_int_equal(gguf_find_tensor(engine->gguf, name)->type->id, down->type->id);
        snprintf(name, sizeof name, "blk.%d.attn_k.weight", i);
        assert_int_equal(gguf_find_tensor(engine->gguf, name)->type->id, BLOCK_Q4_K);
    }
    assert_int_equal(gguf_find_tensor(engine->gguf, "output.weight")->type->id, BLOCK_Q6_K);
    tsr_engine_close(engine);
}

/* Every expert of the last layer gets some of 512 random tokens, none more than four times the
 * mean. */
static void check_routing(const struct forward *f)
{
    int n_expert = (int)f->params->n_expert;
    int mean = N_TOKENS * (int)f->params->n_expert_used / n_expert;
    for (int expert = 0; expert < n_expert; expert++) {
        int rows = f->routing.first_slot[expert + 1] - f->routing.first_slot[expert];
        if (rows == 0 || rows > 4 * mean)
            fail_msg("expert %d has %d rows, the mean is %d", expert, rows, mean);
    }
}

static void run_shape(const char *text, uint32_t n_layer)
{
    struct shape_model shape;
    struct tsr_error error;
    tsr_engine *engine;
    struct forward *forward;
    struct kv_cache kv;
    uint64_t random = 1;
    int32_t ids[N_TOKENS];
    assert_int_equal(parse(text, &shape, &error), 0);
    shape.shape.n_layer = n_layer;
    open_shape(&shape, &engine);
    uint32_t n_vocab = engine->model->params.n_vocab;
    float *logits = malloc(n_vocab * sizeof *logits); /* [n_vocab] */
    assert_non_null(logits);
    for (int i = 0; i < N_TOKENS; i++)
        ids[i] = (int32_t)(random_next(&random) % n_vocab);
    assert_int_equal(forward_create(engine->plan, engine->weights, N_TOKENS, 2, &forward, &error),
                     0);
    assert_int_equal(kv_init(&kv, &engine->model->params, N_TOKENS, KV_F16, &error), 0);
    struct forward_batch batch = {.ids = ids, .n_tokens = N_TOKENS, .kv = &kv, .logits = logits};
    assert_true(forward_run(forward, engine->team, 2, &batch));
    for (uint32_t i = 0; i < n_vocab; i++)
        if (!(fabsf(logits[i]) < 1e3f))
            fail_msg("%s: logit %u is %g", text, i, (double)logits[i]);
    check_routing(forward);
    kv_free(&kv);
    forward_free(forward);
    free(logits);
    tsr_engine_close(engine);
}

static void test_routing(void **state)
{
    run_shape("tiny-moe:q4_0", 4);
    run_shape("tiny-moe:q8_0", 24);
    run_shape("tiny-mla:q4_k_m", 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_mix),
        cmocka_unit_test(test_routing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
