/* Opening and closing of engines, and the parts of the public API that need no session. */
#include "engine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "kernels/amx/emulate.h"

/* ---- Small things ---- */

const char *tsr_strerror(int code)
{
    switch (code) {
#define ERROR_TEXT(name, value, text)                                                              \
    case TSR_##name:                                                                               \
        return text;
        TSR_ERROR_MAP(ERROR_TEXT)
#undef ERROR_TEXT
    case TSR_OK:
        return "no error";
    default:
        return "unknown error";
    }
}

const char *tsr_version(void)
{
    return TSR_VERSION;
}

void tsr_free(void *memory)
{
    free(memory);
}

struct tsr_settings tsr_settings_default(void)
{
    struct tsr_settings settings = {.struct_size = sizeof settings};
    for (int pool = 0; pool < TSR_POOL_COUNT; pool++)
        settings.pool_budgets[pool] = UINT64_MAX;
    return settings;
}

void engine_log(const tsr_engine *engine, enum tsr_log_level level, const char *format, ...)
{
    char line[512];
    if (!engine->log)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    engine->log(engine->user, level, line);
}

int engine_fail(tsr_engine *engine, const struct tsr_error *error)
{
    pthread_mutex_lock(&engine->message_lock);
    memcpy(engine->message, error->text, sizeof engine->message);
    pthread_mutex_unlock(&engine->message_lock);
    return error->code;
}

const char *tsr_engine_message(const tsr_engine *engine)
{
    return engine->message;
}

/* ---- Files and machine ---- */

int tsr_file_describe(const char *path, size_t max_array, char **json, struct tsr_error *error)
{
    struct gguf *gguf;
    *json = NULL;
    int status = gguf_open(path, &gguf, error);
    if (status)
        return status;
    status = gguf_describe(gguf, max_array, json, error);
    gguf_close(gguf);
    return status;
}

int tsr_cpu_describe(const struct tsr_settings *settings, char **json, struct tsr_error *error)
{
    struct tsr_settings defaults = tsr_settings_default();
    return cpu_describe(settings ? settings : &defaults, json, error);
}

/* ---- Opening ---- */

static char *copy_string(const struct gguf *gguf, const char *key)
{
    struct gguf_string value = {"", 0};
    gguf_get_string(gguf, key, &value, NULL);
    return strndup(value.data, value.len);
}

static int open_vocabulary(tsr_engine *engine, const struct tsr_settings *settings,
                           struct tsr_error *error)
{
    int status = gguf_open(settings->model_path, &engine->gguf, error);
    if (!status)
        status = tokenizer_open(engine->gguf, &engine->tokenizer, error);
    if (status)
        return status;
    engine->name = copy_string(engine->gguf, "general.name");
    engine->arch = copy_string(engine->gguf, "general.architecture");
    bool has_template = gguf_find(engine->gguf, "tokenizer.chat_template") != NULL;
    if (has_template)
        engine->chat_template = copy_string(engine->gguf, "tokenizer.chat_template");
    if (!engine->name || !engine->arch || (has_template && !engine->chat_template))
        return error_set(error, TSR_ENOMEM, "out of memory");
    return 0;
}

static bool load_progress(void *user, uint64_t done, uint64_t total)
{
    const tsr_engine *engine = user;
    return !engine->progress || engine->progress(engine->user, "loading", done, total);
}

static void load_log(void *user, enum tsr_log_level level, const char *line)
{
    engine_log(user, level, "%s", line);
}

static void log_weights(const tsr_engine *engine, const struct tsr_settings *settings)
{
    const struct pool_sum *pools = engine->plan->pools;
    if (engine->no_tiles && settings->amx == TSR_AUTO && settings->isa == TSR_ISA_AUTO)
        engine_log(engine, TSR_LOG_INFO, "no AMX tiles: %s", engine->no_tiles);
    engine_log(engine, TSR_LOG_INFO, "kernels: %s; threads: %d, %d for prompts",
               cpu_isa_name(engine->cpu_flags), engine->n_threads, engine->n_threads_batch);
    for (int pool = 0; pool < POOL_COUNT; pool++)
        engine_log(engine, TSR_LOG_INFO, "pool %s: %llu tensors, %.1f MiB",
                   plan_pool_name((enum plan_pool)pool), (unsigned long long)pools[pool].n_tensors,
                   (double)pools[pool].bytes / (1 << 20));
}

static int check_vocabulary(const tsr_engine *engine, struct tsr_error *error)
{
    uint32_t n_tokens = tokenizer_n_tokens(engine->tokenizer);
    if (n_tokens > engine->model->params.n_vocab)
        return error_set(error, TSR_EFORMAT,
                         "%s: %u tokens in the vocabulary, but token_embd.weight has %u rows",
                         gguf_path(engine->gguf), n_tokens, engine->model->params.n_vocab);
    return 0;
}

static int open_weights(tsr_engine *engine, const struct tsr_settings *settings,
                        struct tsr_error *error)
{
    int status = engine_make_plan(engine, settings, error);
    if (!status)
        status = check_vocabulary(engine, error);
    if (!status && settings->emulate_tiles && engine->cpu_flags & CPU_AMX_TILE) {
        engine->emulates_tiles = tile_emulator_install() == 0;
        if (!engine->emulates_tiles)
            status = error_set(error, TSR_ESYSTEM, "--emulate-tiles: sigaction: %s", strerror(errno));
    }
    if (!status)
        status = engine_check_memory(engine, settings->session, error);
    if (!status)
        status = team_create(engine->n_seats, engine->seats, &engine->team, error);
    struct load_settings load = {.memory = {.topology = engine->topology,
                                            .numa = engine->numa,
                                            .home_node = engine->home_node,
                                            .lock = settings->mlock,
                                            .no_huge_pages = settings->no_huge_pages},
                                 .cache_dir = settings->pack_cache,
                                 .progress = load_progress,
                                 .log = load_log,
                                 .user = engine};
    if (!status)
        status = weights_load(engine->plan, engine->team, &load, &engine->weights, error);
    if (status)
        return status;
    engine_apply(engine, &engine->choice);
    log_weights(engine, settings);
    engine_log_residency(engine);
    engine_note_huge_pages(engine);
    return 0;
}

void tsr_engine_close(tsr_engine *engine)
{
    if (!engine)
        return;
    weights_free(engine->weights);
    team_destroy(engine->team);
    free(engine->seats);
    free(engine->usable_seats);
    topology_close(engine->topology);
    if (engine->emulates_tiles)
        tile_emulator_uninstall();
    plan_free(engine->plan);
    free(engine->kernels);
    model_close(engine->model);
    tokenizer_close(engine->tokenizer);
    gguf_close(engine->gguf);
    free(engine->name);
    free(engine->arch);
    free(engine->chat_template);
    pthread_mutex_destroy(&engine->run_lock);
    pthread_mutex_destroy(&engine->message_lock);
    free(engine);
}

/* An engine with nothing opened yet. */
static int create(const struct topology *topology, const struct tsr_settings *settings,
                  tsr_engine **out, struct tsr_error *error)
{
    *out = NULL;
    if (settings->struct_size != sizeof *settings)
        return error_set(error, TSR_EINVAL,
                         "settings of another version: start from tsr_settings_default()");
    if (!settings->model_path)
        return error_set(error, TSR_EINVAL, "no model_path in the settings");
    tsr_engine *engine = mem_alloc(1, sizeof *engine);
    if (!engine)
        return error_set(error, TSR_ENOMEM, "out of memory");
    pthread_mutex_init(&engine->run_lock, NULL);
    pthread_mutex_init(&engine->message_lock, NULL);
    engine->log = settings->log;
    engine->progress = settings->progress;
    engine->user = settings->user;
    *out = engine;
    if (settings->vocab_only)
        return 0;
    return topology ? topology_copy(topology, &engine->topology, error)
                    : topology_open(&engine->topology, error);
}

static int finish(tsr_engine **engine, int status)
{
    if (status) {
        tsr_engine_close(*engine);
        *engine = NULL;
    }
    return status;
}

int engine_open_on(const struct topology *topology, const struct tsr_settings *settings,
                   tsr_engine **engine, struct tsr_error *error)
{
    int status = create(topology, settings, engine, error);
    if (!status)
        status = open_vocabulary(*engine, settings, error);
    if (!status && !settings->vocab_only)
        status = open_weights(*engine, settings, error);
    return finish(engine, status);
}

int engine_plan(const struct tsr_settings *settings, tsr_engine **engine, struct tsr_error *error)
{
    struct tsr_settings all = *settings;
    all.vocab_only = false;
    int status = create(NULL, &all, engine, error);
    if (!status)
        status = gguf_open(settings->model_path, &(*engine)->gguf, error);
    if (!status)
        status = engine_make_plan(*engine, settings, error);
    return finish(engine, status);
}

int tsr_engine_open(const struct tsr_settings *settings, tsr_engine **engine,
                    struct tsr_error *error)
{
    return engine_open_on(NULL, settings, engine, error);
}

void tsr_engine_info(const tsr_engine *engine, struct tsr_engine_info *info)
{
    struct tsr_engine_info full = {
        .struct_size = info->struct_size,
        .arch = engine->arch,
        .name = engine->name,
        .isa = "none",
        .n_vocab = tokenizer_n_tokens(engine->tokenizer),
        .file_bytes = gguf_file_bytes(engine->gguf),
        .bos = tokenizer_bos(engine->tokenizer),
        .eos = tokenizer_eos(engine->tokenizer),
        .eot = tokenizer_eot(engine->tokenizer),
        .add_bos = tokenizer_add_bos(engine->tokenizer),
        .has_chat_template = engine->chat_template != NULL,
    };
    if (engine->model) {
        const struct model_params *p = &engine->model->params;
        full.isa = cpu_isa_name(engine->cpu_flags);
        full.n_vocab = p->n_vocab;
        full.n_ctx_train = p->n_ctx_train;
        full.n_embd = p->n_embd;
        full.n_layer = p->n_layer;
        full.n_expert = p->n_expert;
        full.n_expert_used = p->n_expert_used;
        full.n_params = engine->model->n_params;
        full.packed_bytes = weights_packed_bytes(engine->weights);
        full.packed_from_cache = engine->weights->mapped_cache;
        full.huge_page_bytes = engine->huge_page_bytes;
        full.n_threads = engine->n_threads;
        full.n_threads_batch = engine->n_threads_batch;
        engine_residency(engine, &full);
    }
    size_t size = info->struct_size < sizeof full ? info->struct_size : sizeof full;
    memcpy(info, &full, size);
}
