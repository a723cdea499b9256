/* Sessions: a context of tokens with its KV cache, on top of a shared engine. */
#include "session.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"

enum { DEFAULT_BATCH = 2048, DEFAULT_MOST_CTX = 4096 };

struct tsr_session_settings tsr_session_settings_default(void)
{
    return (struct tsr_session_settings){.struct_size = sizeof(struct tsr_session_settings),
                                         .n_batch = DEFAULT_BATCH};
}

struct tsr_sampling tsr_sampling_default(void)
{
    return (struct tsr_sampling){.struct_size = sizeof(struct tsr_sampling),
                                 .temperature = 0.8f,
                                 .top_k = 40,
                                 .top_p = 0.95f,
                                 .min_p = 0.05f,
                                 .repeat_penalty = 1.0f,
                                 .repeat_last_n = 64};
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* ---- Opening ---- */

void tsr_session_close(tsr_session *session)
{
    if (!session)
        return;
    forward_free(session->forward);
    sampler_free(session->sampler);
    kv_free(&session->kv);
    free(session->ids);
    free(session->logits);
    free(session);
}

static const enum kv_type kv_types[] = {
    [TSR_KV_F16] = KV_F16,
    [TSR_KV_F32] = KV_F32,
    [TSR_KV_BF16] = KV_BF16,
    [TSR_KV_Q8_0] = KV_Q8_0,
};

int session_shape(const struct model_params *params, const struct tsr_session_settings *settings,
                  struct session_shape *shape, struct tsr_error *error)
{
    if (settings->struct_size != sizeof *settings)
        return error_set(error, TSR_EINVAL, "session settings of another version");
    uint32_t trained = params->n_ctx_train;
    shape->n_ctx = settings->n_ctx;
    if (shape->n_ctx == 0)
        shape->n_ctx = trained < DEFAULT_MOST_CTX ? trained : DEFAULT_MOST_CTX;
    shape->n_batch = settings->n_batch < shape->n_ctx ? settings->n_batch : shape->n_ctx;
    if (shape->n_batch == 0 || shape->n_ctx > INT32_MAX)
        return error_set(error, TSR_EINVAL, "n_batch %u and n_ctx %u: must be 1 to 2^31 - 1",
                         settings->n_batch, settings->n_ctx);
    if ((size_t)settings->kv_type >= sizeof kv_types / sizeof kv_types[0])
        return error_set(error, TSR_EINVAL, "kv_type %d is none of enum tsr_kv_type",
                         (int)settings->kv_type);
    shape->kv_type = kv_types[settings->kv_type];
    return 0;
}

static int fill_session(tsr_session *session, const struct tsr_session_settings *settings,
                        struct tsr_error *error)
{
    tsr_engine *engine = session->engine;
    struct session_shape shape;
    if (!engine->model)
        return error_set(error, TSR_EINVAL, "the engine was opened for its vocabulary only");
    int status = session_shape(&engine->model->params, settings, &shape, error);
    if (status)
        return status;
    session->n_ctx = shape.n_ctx;
    session->n_batch = shape.n_batch;
    status = kv_init(&session->kv, &engine->model->params, shape.n_ctx, shape.kv_type, error);
    if (status)
        return status;
    session->ids = mem_alloc(session->n_ctx, sizeof *session->ids);
    session->logits = mem_alloc(engine->model->params.n_vocab, sizeof *session->logits);
    if (!session->ids || !session->logits)
        status = error_set(error, TSR_ENOMEM, "out of memory for a context of %u", session->n_ctx);
    if (!status)
        status = sampler_create(engine->model->params.n_vocab, &session->sampler, error);
    if (!status)
        status = forward_create(engine->plan, engine->weights, (int)session->n_batch,
                                team_size(engine->team), &session->forward, error);
    if (!status && settings->profile)
        status = forward_profile(session->forward, error);
    return status;
}

int tsr_session_open(tsr_engine *engine, const struct tsr_session_settings *settings,
                     tsr_session **out)
{
    struct tsr_error error = {0};
    const struct tsr_session_settings defaults = tsr_session_settings_default();
    *out = NULL;
    tsr_session *session = mem_alloc(1, sizeof *session);
    if (!session) {
        error_set(&error, TSR_ENOMEM, "out of memory");
        return engine_fail(engine, &error);
    }
    session->engine = engine;
    if (fill_session(session, settings ? settings : &defaults, &error)) {
        tsr_session_close(session);
        return engine_fail(engine, &error);
    }
    uint32_t trained = engine->model->params.n_ctx_train;
    if (session->n_ctx > trained)
        engine_log(engine, TSR_LOG_WARN,
                   "a context of %u is longer than the %u that the model was trained with",
                   session->n_ctx, trained);
    *out = session;
    return 0;
}

/* ---- Evaluating ---- */

static int check_ids(const tsr_session *session, const int32_t *ids, size_t n, uint32_t n_past,
                     struct tsr_error *error)
{
    uint32_t n_vocab = session->engine->model->params.n_vocab;
    if (n == 0)
        return error_set(error, TSR_EINVAL, "no tokens to evaluate");
    if (n > session->n_ctx - n_past)
        return error_set(error, TSR_ECONTEXT,
                         "%zu tokens after %u do not fit into the context of %u: use a larger -c "
                         "or a shorter text", n, n_past, session->n_ctx);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= n_vocab)
            return error_set(error, TSR_EINVAL, "token id %d is outside the vocabulary of %u",
                             ids[i], n_vocab);
    return 0;
}

/* A text that is evaluated. */
struct text {
    const tsr_session *session;
    size_t n, done;   /* tokens in all, and those of the batches before */
    uint32_t n_batch; /* of the batch at hand */
    bool prompt;      /* no token that was generated: counted as part of a prompt */
};

static bool report(const struct text *text, size_t done)
{
    const tsr_engine *engine = text->session->engine;
    bool told = text->n > 1 && !text->session->silent;
    return !told || !engine->progress ||
           engine->progress(engine->user, "prompt", done, text->n);
}

static bool report_layer(void *user, int layer, int n_layer)
{
    const struct text *text = user;
    return report(text, text->done + text->n_batch * (size_t)layer / (size_t)n_layer);
}

/* One batch; `logits` receives every position's where not NULL. False when cancelled. */
static bool eval_batch(tsr_session *session, struct text *text, const int32_t *ids, float *logits)
{
    const uint32_t n = text->n_batch;
    tsr_engine *engine = session->engine;
    struct forward_batch batch = {
        .ids = ids,
        .n_tokens = (int)n,
        .position = session->n_past,
        .kv = &session->kv,
        .logits = logits ? logits : session->logits,
        .all_logits = logits != NULL,
        .cancel = &session->cancel,
        .progress = report_layer,
        .user = text,
    };
    double start = now();
    pthread_mutex_lock(&engine->run_lock);
    bool done = forward_run(session->forward, engine->team,
                            n > 1 ? engine->n_threads_batch : engine->n_threads, &batch);
    pthread_mutex_unlock(&engine->run_lock);
    if (!done)
        return false;
    memcpy(session->ids + session->n_past, ids, n * sizeof *ids);
    session->n_past += n;
    *(text->prompt ? &session->stats.n_prompt : &session->stats.n_decode) += n;
    *(text->prompt ? &session->stats.prompt_seconds : &session->stats.decode_seconds) += now() - start;
    return true;
}

static int eval(tsr_session *session, const int32_t *ids, size_t n, bool prompt, float *logits,
                struct tsr_error *error)
{
    size_t n_vocab = session->engine->model->params.n_vocab;
    session->has_logits = false;
    struct text text = {.session = session, .n = n, .prompt = prompt};
    for (; text.done < n; text.done += text.n_batch) {
        size_t left = n - text.done;
        text.n_batch = left < session->n_batch ? (uint32_t)left : session->n_batch;
        float *rows = logits ? logits + text.done * n_vocab : NULL;
        if (!eval_batch(session, &text, ids + text.done, rows)) {
            atomic_store(&session->cancel, false);
            return error_set(error, TSR_ECANCELED, "cancelled after %zu of %zu tokens", text.done,
                             n);
        }
    }
    report(&text, n);
    if (logits)
        memcpy(session->logits, logits + (n - 1) * n_vocab, n_vocab * sizeof *logits);
    session->has_logits = true;
    return 0;
}

int tsr_session_eval(tsr_session *session, const int32_t *ids, size_t n, float *logits)
{
    struct tsr_error error = {0};
    int status = check_ids(session, ids, n, session->n_past, &error);
    if (!status)
        status = eval(session, ids, n, n > 1, logits, &error);
    return status ? engine_fail(session->engine, &error) : 0;
}

int tsr_session_sync(tsr_session *session, const int32_t *ids, size_t n)
{
    struct tsr_error error = {0};
    int status = check_ids(session, ids, n, 0, &error);
    if (status)
        return engine_fail(session->engine, &error);
    uint32_t common = 0;
    while (common < session->n_past && common + 1 < n && session->ids[common] == ids[common])
        common++;
    session->n_past = common;
    session->stats.n_reused += common;
    status = eval(session, ids + common, n - common, true, NULL, &error);
    return status ? engine_fail(session->engine, &error) : 0;
}

int tsr_session_rewind(tsr_session *session, uint32_t n_past)
{
    if (n_past > session->n_past) {
        struct tsr_error error;
        error_set(&error, TSR_EINVAL, "cannot rewind to %u: the context holds %u tokens", n_past,
                  session->n_past);
        return engine_fail(session->engine, &error);
    }
    session->n_past = n_past;
    session->has_logits = false;
    return 0;
}

/* ---- Results ---- */

const float *tsr_session_logits(const tsr_session *session)
{
    return session->has_logits ? session->logits : NULL;
}

int32_t tsr_session_sample(tsr_session *session, const struct tsr_sampling *sampling)
{
    struct tsr_error error;
    if (!session->has_logits || sampling->struct_size != sizeof *sampling) {
        error_set(&error, TSR_EINVAL, session->has_logits
                                          ? "a struct tsr_sampling of another version"
                                          : "nothing to sample from: evaluate a token first");
        return engine_fail(session->engine, &error);
    }
    double start = now();
    size_t n_recent = session->n_past;
    if (sampling->repeat_last_n >= 0 && n_recent > (size_t)sampling->repeat_last_n)
        n_recent = (size_t)sampling->repeat_last_n;
    int32_t id = sampler_draw(session->sampler, sampling, session->logits,
                              session->ids + session->n_past - n_recent, n_recent);
    session->stats.sample_seconds += now() - start;
    return id;
}

void tsr_session_stats(const tsr_session *session, struct tsr_stats *stats)
{
    struct tsr_stats full = session->stats;
    full.struct_size = stats->struct_size;
    full.n_past = session->n_past;
    full.n_ctx = session->n_ctx;
    full.kv_bytes = session->kv.bytes;
    full.scratch_bytes = forward_scratch_bytes(session->forward);
    memcpy(stats, &full, stats->struct_size < sizeof full ? stats->struct_size : sizeof full);
}

size_t tsr_session_profile(tsr_session *session, struct tsr_phase_time *phases, size_t capacity)
{
    struct phase_time times[PHASE_COUNT];
    size_t n = (size_t)forward_take_profile(session->forward, times);
    for (size_t i = 0; i < n && i < capacity; i++)
        phases[i] = (struct tsr_phase_time){
            .name = phase_name((enum phase)i),
            .work_seconds = 1e-9 * (double)times[i].work,
            .wait_seconds = 1e-9 * (double)times[i].wait,
        };
    return n;
}

void tsr_session_cancel(tsr_session *session)
{
    atomic_store(&session->cancel, true);
}
