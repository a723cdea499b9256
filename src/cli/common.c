/* Opening models and reading input, for all commands alike. */
#include "cli/common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/shape.h"
#include "cli/calibrate.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "config.h"

static void log_line(void *user, enum tsr_log_level level, const char *line)
{
    const struct options *options = user;
    enum tsr_log_level shown = TSR_LOG_WARN;
    if (options->verbose)
        shown = TSR_LOG_DEBUG;
    else if (options->quiet)
        shown = TSR_LOG_ERROR;
    if (level <= shown)
        note("%s", line);
}

/* log_line reads the flags only. */
static void *as_user(const struct options *options)
{
    return (void *)(uintptr_t)options;
}

struct tsr_settings settings_from(const struct options *options)
{
    struct tsr_settings settings = tsr_settings_default();
    settings.n_threads = options->n_threads;
    settings.n_threads_batch = options->n_threads_batch;
    settings.isa = (enum tsr_isa)options->isa;
    settings.amx = (enum tsr_tristate)options->amx;
    settings.numa = (enum tsr_numa)options->numa;
    settings.emulate_tiles = options->emulate_tiles;
    settings.mlock = options->mlock;
    settings.pack_cache = options->pack_cache;
    settings.no_huge_pages = options->no_huge_pages;
    settings.overrides = options->overrides.items;
    settings.n_overrides = (size_t)options->overrides.n;
    memcpy(settings.pool_budgets, options->pool_budgets, sizeof settings.pool_budgets);
    settings.log = log_line;
    settings.progress = progress_report;
    settings.user = as_user(options);
    return settings;
}

struct tsr_session_settings session_settings_from(const struct options *options)
{
    struct tsr_session_settings settings = tsr_session_settings_default();
    settings.n_ctx = (uint32_t)options->n_ctx;
    settings.n_batch = (uint32_t)options->n_batch;
    settings.kv_type = (enum tsr_kv_type)options->kv_type;
    settings.profile = options->bench.profile;
    return settings;
}

/* Whether the program runs from the folder it was built in: then the source tree has the model. */
static bool runs_from_build(const char *program)
{
    size_t len = strlen(BUILD_ROOT);
    return !strncmp(program, BUILD_ROOT, len) && program[len] == '/';
}

static void default_model(char *path, size_t size)
{
    char program[4096];
    ssize_t len = readlink("/proc/self/exe", program, sizeof program - 1);
    program[len > 0 ? len : 0] = 0;
    if (runs_from_build(program)) {
        snprintf(path, size, "%s/models/" DEFAULT_MODEL, SOURCE_ROOT);
        return;
    }
    /* An installed tree may have been moved as a whole. */
    char *slash = strrchr(program, '/');
    if (slash) {
        *slash = 0;
        snprintf(path, size, "%s/" BINDIR_TO_DATADIR "/tessera/" DEFAULT_MODEL, program);
        if (access(path, F_OK) == 0)
            return;
    }
    snprintf(path, size, "%s/tessera/" DEFAULT_MODEL, DATADIR);
}

bool model_path(const struct options *options, char *path, size_t size)
{
    const char *given = options->model ? options->model : getenv("TESSERA_MODEL");
    if (given && (options->model || *given)) {
        if (strlen(given) >= size) {
            fail(options->command, "the model's path is longer than %zu bytes", size - 1);
            return false;
        }
        memcpy(path, given, strlen(given) + 1);
        return true;
    }
    default_model(path, size);
    if (access(path, F_OK) == 0)
        return true;
    fail(options->command, "the default model %s is not there: give one with -m FILE", path);
    return false;
}

/* Makes the model that --shape asks for; its path is that of a file without a name. */
static int make_shape(const struct options *options, char *path, size_t size, int *fd)
{
    struct shape_model shape;
    struct tsr_error error;
    if (shape_parse(options->shape, &shape, &error))
        return usage_error(options->command, "--shape: %s", error.text);
    int code = shape_make(&shape, progress_report, fd, &error);
    progress_clear();
    if (code == TSR_ECANCELED)
        return EXIT_INTERRUPTED;
    if (code)
        return fail(options->command, "--shape: %s", error.text);
    snprintf(path, size, "/proc/self/fd/%d", *fd);
    return EXIT_DONE;
}

int model_or_shape(const struct options *options, char *path, size_t size, int *fd)
{
    *fd = -1;
    if (options->shape && options->model)
        return usage_error(options->command, "-m and --shape exclude each other");
    if (options->shape && options->pack_cache)
        return usage_error(options->command,
                           "--pack-cache keeps nothing of a --shape, whose weights are made anew");
    if (options->shape)
        return make_shape(options, path, size, fd);
    return model_path(options, path, size) ? EXIT_DONE : EXIT_FAILED;
}

/* With the --calibration, where there is one. */
static int open_with(const struct options *options, struct tsr_settings *settings,
                     tsr_engine **engine, struct tsr_error *error)
{
    int code = options->calibration && !settings->vocab_only
                   ? calibration_open(options, settings, engine, error)
                   : tsr_engine_open(settings, engine, error);
    progress_clear();
    return code;
}

int open_engine(const struct options *options, bool vocab_only, tsr_engine **engine)
{
    char path[4096];
    if (!model_path(options, path, sizeof path))
        return EXIT_FAILED;
    struct tsr_settings settings = settings_from(options);
    struct tsr_session_settings session = session_settings_from(options);
    settings.model_path = path;
    settings.vocab_only = vocab_only;
    settings.session = &session;
    struct tsr_error error = {0};
    int code = open_with(options, &settings, engine, &error);
    if (code == TSR_ECANCELED && interrupted())
        return EXIT_INTERRUPTED;
    if (code < 0)
        return fail(options->command, "%s", error.text[0] ? error.text : tsr_strerror(code));
    return EXIT_DONE;
}

int engine_failed(const struct options *options, const tsr_engine *engine, int code)
{
    if (code == TSR_ECANCELED && interrupted())
        return EXIT_INTERRUPTED;
    const char *message = tsr_engine_message(engine);
    return fail(options->command, "%s", message[0] ? message : tsr_strerror(code));
}

int open_session(const struct options *options, tsr_engine *engine, tsr_session **session)
{
    struct tsr_session_settings settings = session_settings_from(options);
    int code = tsr_session_open(engine, &settings, session);
    return code < 0 ? engine_failed(options, engine, code) : EXIT_DONE;
}

/* Reads to the end; NULL with errno set. */
static char *read_all(FILE *file, size_t *len)
{
    size_t capacity = 65536, used = 0;
    char *text = malloc(capacity);
    while (text) {
        used += fread(text + used, 1, capacity - used - 1, file);
        if (ferror(file)) {
            int saved = errno;
            free(text);
            errno = saved;
            return NULL;
        }
        if (feof(file))
            break;
        if (used + 1 < capacity)
            continue;
        char *larger = realloc(text, 2 * capacity);
        if (!larger)
            free(text);
        text = larger;
        capacity *= 2;
    }
    if (text) {
        text[used] = 0;
        *len = used;
    }
    return text;
}

char *read_file(const struct options *options, const char *path, size_t *len)
{
    bool is_stdin = !strcmp(path, "-");
    FILE *file = is_stdin ? stdin : fopen(path, "rb");
    char *text = file ? read_all(file, len) : NULL;
    int saved = errno;
    if (file && !is_stdin)
        fclose(file);
    if (!text && interrupted())
        return NULL;
    if (!text)
        fail(options->command, "%s: %s", is_stdin ? "standard input" : path, strerror(saved));
    return text;
}

char *read_input(const struct options *options, size_t *len, int *status)
{
    const char *path = options->file ? options->file : "-";
    *status = EXIT_USAGE;
    if (options->prompt && options->file) {
        usage_error(options->command, "-p and -f exclude each other");
        return NULL;
    }
    char *text;
    if (options->prompt && strcmp(options->prompt, "-") != 0) {
        *len = strlen(options->prompt);
        text = strdup(options->prompt);
        if (!text)
            fail(options->command, "out of memory");
    } else {
        if (!options->prompt && !options->file && isatty(STDIN_FILENO)) {
            usage_error(options->command, options->command->options & OPT(PROMPT)
                                              ? "no text: give -p TEXT, -f FILE or standard input"
                                              : "no input: give it here, in -f FILE or standard "
                                                "input");
            return NULL;
        }
        text = read_file(options, path, len);
    }
    *status = text ? EXIT_DONE : interrupted() ? EXIT_INTERRUPTED : EXIT_FAILED;
    return text;
}

int32_t *tokenize_text(const struct options *options, const tsr_engine *engine, const char *text,
                       size_t len, unsigned flags, size_t *n_ids)
{
    size_t capacity = len / 2 + 16;
    for (;;) {
        int32_t *ids = malloc(capacity * sizeof *ids);
        if (!ids) {
            fail(options->command, "out of memory");
            return NULL;
        }
        int64_t n = tsr_tokenize(engine, text, len, flags, ids, capacity);
        if (n >= 0 && (size_t)n <= capacity) {
            *n_ids = (size_t)n;
            return ids;
        }
        free(ids);
        if (n < 0) {
            engine_failed(options, engine, (int)n);
            return NULL;
        }
        capacity = (size_t)n;
    }
}

char *variables_json(const struct options *options, int *status)
{
    json_t *object = json_object();
    *status = EXIT_DONE;
    for (int i = 0; object && i < options->variables.n; i++) {
        const char *variable = options->variables.items[i];
        size_t name_len = strcspn(variable, "=");
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)name_len, variable);
        json_error_t error;
        json_t *value = json_loads(variable + name_len + 1, JSON_DECODE_ANY, &error);
        if (!value)
            *status = usage_error(options->command, "--var %s: not JSON: %s", name, error.text);
        if (!value || json_object_set_new(object, name, value)) {
            json_decref(object);
            if (value)
                *status = fail(options->command, "--var %s: not UTF-8, or out of memory", name);
            return NULL;
        }
    }
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!text)
        *status = fail(options->command, "out of memory");
    return text;
}
