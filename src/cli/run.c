/* tessera run: continues a text. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/generate.h"
#include "cli/interrupt.h"

/* Ids of the prompt; where it has none, generation starts from BOS. NULL after reporting. */
static int32_t *prompt_ids(const struct options *options, const tsr_engine *engine, size_t *n_ids,
                           int *status)
{
    size_t len;
    char *text = read_input(options, &len, status);
    if (!text)
        return NULL;
    /* As llama.cpp does: the newline that ends a file or a pipe is no part of the prompt. */
    bool is_argument = options->prompt && strcmp(options->prompt, "-") != 0;
    if (!is_argument && len && text[len - 1] == '\n')
        len--;
    unsigned flags =
        (options->no_bos ? 0 : TSR_TOKENIZE_BOS) | (options->no_special ? 0 : TSR_TOKENIZE_SPECIAL);
    int32_t *ids = tokenize_text(options, engine, text, len, flags, n_ids);
    free(text);
    *status = ids ? EXIT_DONE : EXIT_FAILED;
    if (ids && *n_ids == 0) {
        struct tsr_engine_info info = {.struct_size = sizeof info};
        tsr_engine_info(engine, &info);
        if (info.bos < 0) {
            *status = fail(options->command, "the prompt is empty and the model has no BOS token");
            free(ids);
            return NULL;
        }
        ids[0] = info.bos; /* tokenize_text leaves room */
        *n_ids = 1;
    }
    return ids;
}

static double per_second(uint64_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

static json_t *ids_json(const int32_t *ids, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(array, json_integer(ids[i]));
    return array;
}

static int print_json(const struct options *options, const struct generation *generation,
                      const int32_t *prompt, size_t n_prompt, const struct tsr_stats *stats)
{
    json_t *object = json_pack(
        "{s:o, s:o, s:o, s:s, s:I, s:{s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f}}", "text",
        json_text(generation->text.bytes, generation->text.len), "ids",
        ids_json(generation->ids, generation->n_ids), "prompt_ids", ids_json(prompt, n_prompt),
        "stop", stop_name(generation->stop), "seed", (json_int_t)generation->sampling.seed,
        "timings", "reused_tokens", (int)stats->n_reused, "prompt_tokens", (int)stats->n_prompt,
        "decode_tokens", (int)stats->n_decode,
        "prompt_seconds", stats->prompt_seconds, "decode_seconds", stats->decode_seconds,
        "sample_seconds", stats->sample_seconds, "prompt_per_second",
        per_second(stats->n_prompt, stats->prompt_seconds), "decode_per_second",
        per_second(stats->n_decode, stats->decode_seconds));
    if (!object)
        return fail(options->command, "out of memory");
    output_json(object);
    json_decref(object);
    return EXIT_DONE;
}

static void print_timings(const struct generation *generation, const struct tsr_stats *stats)
{
    if (stats->n_reused)
        note("%llu tokens of the prompt were in the cache", (unsigned long long)stats->n_reused);
    note("prompt %llu tokens, %.1f/s; generated %zu tokens, %.1f/s; stopped: %s; seed %llu",
         (unsigned long long)stats->n_prompt, per_second(stats->n_prompt, stats->prompt_seconds),
         generation->n_ids, per_second(stats->n_decode, stats->decode_seconds),
         stop_name(generation->stop), (unsigned long long)generation->sampling.seed);
}

/* The results, and the exit status of the outcome. */
static int report(const struct options *options, const struct generation *generation,
                  const int32_t *prompt, size_t n_prompt)
{
    struct tsr_stats stats = {.struct_size = sizeof stats};
    tsr_session_stats(generation->session, &stats);
    bool on_terminal = isatty(STDOUT_FILENO);
    if (!options->json && on_terminal && generation->n_ids)
        output_bytes("\n", 1);
    if (generation->stop == STOP_FAILED && !output_failed())
        return engine_failed(options, generation->engine, generation->code);
    int status = EXIT_DONE;
    if (options->json)
        status = print_json(options, generation, prompt, n_prompt, &stats);
    if (options->verbose || (!options->quiet && on_terminal && isatty(STDERR_FILENO)))
        print_timings(generation, &stats);
    return generation->stop == STOP_INTERRUPTED ? EXIT_INTERRUPTED : status;
}

/* A context of another model or --kv-type will be replaced; what is no saved context, or has more
 * tokens than -c, is left alone. */
static int load_prompt_cache(const struct options *options, tsr_engine *engine,
                             tsr_session *session)
{
    const char *path = options->prompt_cache;
    if (!path || access(path, F_OK) != 0)
        return EXIT_DONE;
    int code = tsr_session_load(session, path);
    if (code != TSR_ESTALE)
        return code ? engine_failed(options, engine, code) : EXIT_DONE;
    if (!options->quiet)
        note("%s: it will be replaced", tsr_engine_message(engine));
    return EXIT_DONE;
}

/* The prompt, where it was evaluated to its end and the file had not all that can be used again. */
static int save_prompt_cache(const struct options *options, tsr_engine *engine,
                             tsr_session *session, size_t n_ids)
{
    struct tsr_stats stats = {.struct_size = sizeof stats};
    tsr_session_stats(session, &stats);
    if (!options->prompt_cache || stats.n_reused + 1 >= n_ids || stats.n_past < n_ids)
        return EXIT_DONE;
    tsr_session_rewind(session, (uint32_t)n_ids);
    int code = tsr_session_save(session, options->prompt_cache);
    return code ? engine_failed(options, engine, code) : EXIT_DONE;
}

static int run_prompt(const struct options *options, tsr_engine *engine, tsr_session *session,
                      const int32_t *ids, size_t n_ids)
{
    struct tsr_stats stats = {.struct_size = sizeof stats};
    tsr_session_stats(session, &stats);
    if (n_ids > stats.n_ctx)
        return fail(options->command,
                    "the prompt has %zu tokens, the context holds %u: shorten it or raise -c",
                    n_ids, stats.n_ctx);
    struct generation generation = {
        .engine = engine,
        .session = session,
        .sampling = sampling_from(options),
        .limit = options->n_predict,
        .ignore_end = options->ignore_eos,
        .print = !options->json,
    };
    int status = load_prompt_cache(options, engine, session);
    if (status != EXIT_DONE)
        return status;
    generate(&generation, ids, n_ids);
    status = report(options, &generation, ids, n_ids);
    generation_free(&generation);
    int saved = save_prompt_cache(options, engine, session, n_ids);
    return status == EXIT_DONE ? saved : status;
}

int command_run(const struct options *options)
{
    interrupt_catch();
    tsr_engine *engine;
    int status = open_engine(options, false, &engine);
    if (status != EXIT_DONE)
        return status;
    size_t n_ids;
    tsr_session *session = NULL;
    int32_t *ids = prompt_ids(options, engine, &n_ids, &status);
    if (ids)
        status = open_session(options, engine, &session);
    if (session)
        status = run_prompt(options, engine, session, ids, n_ids);
    tsr_session_close(session);
    free(ids);
    tsr_engine_close(engine);
    return status;
}
