/* tessera logits: token ids in, the logits of every position out; both raw little-endian. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/interrupt.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "ids and logits are copied as they are");

/* Evaluates batch by batch and writes the rows as they come. */
static int write_rows(const struct options *options, tsr_engine *engine, tsr_session *session,
                      const int32_t *ids, size_t n_ids, FILE *out)
{
    struct tsr_engine_info info = {.struct_size = sizeof info};
    tsr_engine_info(engine, &info);
    size_t n_batch = (size_t)options->n_batch < n_ids ? (size_t)options->n_batch : n_ids;
    float *rows = malloc(n_batch * info.n_vocab * sizeof *rows); /* [n_batch, n_vocab] */
    if (!rows)
        return fail(options->command, "out of memory");
    int status = EXIT_DONE;
    for (size_t at = 0; at < n_ids && status == EXIT_DONE; at += n_batch) {
        size_t n = n_ids - at < n_batch ? n_ids - at : n_batch;
        int code = tsr_session_eval(session, ids + at, n, rows);
        if (code < 0)
            status = engine_failed(options, engine, code);
        else if (fwrite(rows, sizeof *rows * info.n_vocab, n, out) != n)
            status = fail(options->command, "%s: %s", options->output, strerror(errno));
    }
    free(rows);
    return status;
}

/* The output is opened once there is something to write: a wrong model leaves an old file alone. */
static int write_logits(const struct options *options, tsr_engine *engine, tsr_session *session,
                        const int32_t *ids, size_t n_ids)
{
    bool to_stdout = !strcmp(options->output, "-");
    FILE *out = to_stdout ? stdout : fopen(options->output, "wb");
    if (!out)
        return fail(options->command, "%s: %s", options->output, strerror(errno));
    interrupt_watch(session);
    int status = write_rows(options, engine, session, ids, n_ids, out);
    interrupt_watch(NULL);
    if (!to_stdout && fclose(out) && status == EXIT_DONE)
        status = fail(options->command, "%s: %s", options->output, strerror(errno));
    return status;
}

static int evaluate(const struct options *options, const int32_t *ids, size_t n_ids)
{
    tsr_engine *engine;
    int status = open_engine(options, false, &engine);
    if (status != EXIT_DONE)
        return status;
    /* Without -c the context is as long as the ids need. */
    struct options sized = *options;
    if (!option_given(options, OPT_CTX_SIZE) && n_ids <= INT32_MAX)
        sized.n_ctx = (int)n_ids;
    if (sized.n_ctx && n_ids > (size_t)sized.n_ctx) {
        tsr_engine_close(engine);
        return fail(options->command, "%zu ids do not fit into the context of %d: use a larger -c",
                    n_ids, sized.n_ctx);
    }
    tsr_session *session = NULL;
    status = open_session(&sized, engine, &session);
    if (session)
        status = write_logits(options, engine, session, ids, n_ids);
    tsr_session_close(session);
    tsr_engine_close(engine);
    return status;
}

int command_logits(const struct options *options)
{
    if (!options->tokens)
        return usage_error(options->command, "--tokens FILE is missing");
    if (!options->output)
        return usage_error(options->command, "-o FILE is missing");
    interrupt_catch();
    size_t len;
    char *bytes = read_file(options, options->tokens, &len);
    if (!bytes)
        return interrupted() ? EXIT_INTERRUPTED : EXIT_FAILED;
    int status;
    if (!len || len % sizeof(int32_t))
        status = fail(options->command, "%s: %zu bytes are no list of int32 ids", options->tokens,
                      len);
    else
        status = evaluate(options, (const int32_t *)(const void *)bytes, len / sizeof(int32_t));
    free(bytes);
    return status;
}
