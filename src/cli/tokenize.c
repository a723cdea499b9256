/* tessera tokenize and detokenize: a text's ids, and the text of ids. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/common.h"

static int print_ids(const struct options *options, const int32_t *ids, size_t n_ids)
{
    if (!options->json) {
        for (size_t i = 0; i < n_ids; i++)
            output_format(i ? " %d" : "%d", ids[i]);
        output_bytes("\n", 1);
        return EXIT_DONE;
    }
    json_t *array = json_array();
    for (size_t i = 0; i < n_ids; i++)
        json_array_append_new(array, json_integer(ids[i]));
    json_t *object = json_pack("{s:o}", "ids", array);
    if (!object)
        return fail(options->command, "out of memory");
    output_json(object);
    json_decref(object);
    return EXIT_DONE;
}

int command_tokenize(const struct options *options)
{
    int status;
    size_t len, n_ids;
    char *text = read_input(options, &len, &status);
    if (!text)
        return status;
    tsr_engine *engine = NULL;
    status = open_engine(options, true, &engine);
    if (status == EXIT_DONE) {
        unsigned flags = (options->no_bos ? 0 : TSR_TOKENIZE_BOS) |
                         (options->no_special ? 0 : TSR_TOKENIZE_SPECIAL);
        int32_t *ids = tokenize_text(options, engine, text, len, flags, &n_ids);
        status = ids ? print_ids(options, ids, n_ids) : EXIT_FAILED;
        free(ids);
    }
    tsr_engine_close(engine);
    free(text);
    return status;
}

struct detokenize {
    const struct options *options;
    tsr_engine *engine;
    tsr_detokenizer *stream;
    char *text; /* gathered for --json only */
    size_t len;
};

static int take(struct detokenize *job, const char *bytes, size_t len)
{
    if (!job->options->json) {
        output_bytes(bytes, len);
        return EXIT_DONE;
    }
    if (!len)
        return EXIT_DONE;
    char *larger = realloc(job->text, job->len + len);
    if (!larger)
        return fail(job->options->command, "out of memory");
    memcpy(larger + job->len, bytes, len);
    job->text = larger;
    job->len += len;
    return EXIT_DONE;
}

/* Ids separated by white space or commas; brackets around the list are allowed, as in JSON. */
static int detokenize_list(struct detokenize *job, const char *list)
{
    static const char separators[] = " \t\r\n,[]";
    for (list += strspn(list, separators); *list; list += strspn(list, separators)) {
        char *end;
        errno = 0;
        long id = strtol(list, &end, 10);
        if (end == list || (*end && !strchr(separators, *end)))
            return fail(job->options->command, "'%.*s' is not a token id",
                        (int)strcspn(list, separators), list);
        const char *text;
        size_t len;
        struct tsr_engine_info info = {.struct_size = sizeof info};
        tsr_engine_info(job->engine, &info);
        if (errno || id < 0 || (unsigned long)id >= info.n_vocab)
            return fail(job->options->command, "token id %.*s is not in the vocabulary (0 to %u)",
                        (int)(end - list), list, info.n_vocab - 1);
        int code = tsr_detokenizer_push(job->stream, (int32_t)id, &text, &len);
        if (code < 0)
            return engine_failed(job->options, job->engine, code);
        int status = take(job, text, len);
        if (status != EXIT_DONE)
            return status;
        list = end;
    }
    return EXIT_DONE;
}

static int detokenize_all(struct detokenize *job)
{
    const struct options *options = job->options;
    int status = EXIT_DONE;
    if (options->n_operands) {
        for (int i = 0; i < options->n_operands && status == EXIT_DONE; i++)
            status = detokenize_list(job, options->operands[i]);
    } else {
        size_t len;
        char *list = read_input(options, &len, &status);
        if (list)
            status = detokenize_list(job, list);
        free(list);
    }
    const char *text;
    size_t len;
    if (status == EXIT_DONE && tsr_detokenizer_flush(job->stream, &text, &len) == TSR_OK)
        status = take(job, text, len);
    if (status != EXIT_DONE || !options->json)
        return status;
    json_t *object = json_pack("{s:o}", "text", json_text(job->text, job->len));
    if (!object)
        return fail(options->command, "out of memory");
    output_json(object);
    json_decref(object);
    return EXIT_DONE;
}

int command_detokenize(const struct options *options)
{
    if (options->n_operands && options->file)
        return usage_error(options->command, "-f and ids on the command line exclude each other");
    struct detokenize job = {.options = options};
    int status = open_engine(options, true, &job.engine);
    if (status != EXIT_DONE)
        return status;
    int code = tsr_detokenizer_open(job.engine, !options->no_special, &job.stream);
    status = code < 0 ? engine_failed(options, job.engine, code) : detokenize_all(&job);
    tsr_detokenizer_close(job.stream);
    tsr_engine_close(job.engine);
    free(job.text);
    return status;
}
