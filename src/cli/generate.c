/* Prompt in, tokens out, one at a time, until something says stop. */
#include "cli/generate.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/progress.h"

struct tsr_sampling sampling_from(const struct options *options)
{
    struct tsr_sampling sampling = tsr_sampling_default();
    sampling.temperature = (float)options->temp;
    sampling.top_k = options->top_k;
    sampling.top_p = (float)options->top_p;
    sampling.min_p = (float)options->min_p;
    sampling.repeat_penalty = (float)options->repeat_penalty;
    sampling.repeat_last_n = options->repeat_last_n;
    sampling.seed = options->seed;
    if (option_given(options, OPT_SEED))
        return sampling;
    /* 32 bits: short enough to be typed again. */
    uint32_t seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = (uint32_t)time(NULL);
    sampling.seed = seed;
    return sampling;
}

static bool append_text(struct text_buffer *buffer, const char *bytes, size_t len)
{
    if (buffer->capacity - buffer->len < len) {
        size_t capacity = 2 * (buffer->capacity + len);
        char *larger = realloc(buffer->bytes, capacity);
        if (!larger)
            return false;
        buffer->bytes = larger;
        buffer->capacity = capacity;
    }
    if (len)
        memcpy(buffer->bytes + buffer->len, bytes, len);
    buffer->len += len;
    return true;
}

static bool append_id(struct generation *generation, int32_t id)
{
    if (generation->n_ids == generation->capacity) {
        size_t capacity = 2 * generation->capacity + 256;
        int32_t *larger = realloc(generation->ids, capacity * sizeof *larger);
        if (!larger)
            return false;
        generation->ids = larger;
        generation->capacity = capacity;
    }
    generation->ids[generation->n_ids++] = id;
    return true;
}

static bool emit(struct generation *generation, const char *bytes, size_t len)
{
    if (generation->print) {
        output_bytes(bytes, len);
        output_flush();
    }
    return append_text(&generation->text, bytes, len);
}

static void stop_with(struct generation *generation, int code)
{
    generation->stop = code == TSR_ECANCELED && interrupted() ? STOP_INTERRUPTED : STOP_FAILED;
    if (code == TSR_ECONTEXT)
        generation->stop = STOP_CONTEXT;
    generation->code = code;
}

static uint32_t room_left(const struct generation *generation)
{
    struct tsr_stats stats = {.struct_size = sizeof stats};
    tsr_session_stats(generation->session, &stats);
    return stats.n_ctx - stats.n_past;
}

/* Draws until the stop; `stream` turns ids into text. */
static void draw(struct generation *generation, tsr_detokenizer *stream)
{
    for (;;) {
        if (generation->limit >= 0 && generation->n_ids >= (size_t)generation->limit) {
            generation->stop = STOP_LIMIT;
            return;
        }
        int32_t id = tsr_session_sample(generation->session, &generation->sampling);
        if (id < 0) {
            stop_with(generation, id);
            return;
        }
        if (!generation->ignore_end && tsr_token_is_end(generation->engine, id)) {
            generation->stop = STOP_END;
            return;
        }
        const char *text;
        size_t len;
        int code = tsr_detokenizer_push(stream, id, &text, &len);
        if (code == TSR_OK && !(append_id(generation, id) && emit(generation, text, len)))
            code = TSR_ENOMEM;
        if (code == TSR_OK && room_left(generation) == 0)
            code = TSR_ECONTEXT;
        bool last = generation->limit >= 0 && generation->n_ids == (size_t)generation->limit;
        if (code == TSR_OK && !last && !output_failed())
            code = tsr_session_eval(generation->session, &id, 1, NULL);
        if (code < 0 || output_failed()) {
            stop_with(generation, code);
            return;
        }
    }
}

void generate(struct generation *generation, const int32_t *ids, size_t n)
{
    interrupt_watch(generation->session);
    int code = tsr_session_sync(generation->session, ids, n);
    /* A cancel that came after the last evaluation of an earlier turn is none of ours. */
    if (code == TSR_ECANCELED && !interrupted())
        code = tsr_session_sync(generation->session, ids, n);
    progress_clear();
    tsr_detokenizer *stream = NULL;
    if (code == TSR_OK)
        code = tsr_detokenizer_open(generation->engine, false, &stream);
    /* The text goes on from the prompt: a stream that has just begun would drop the space before
     * the first word of a SentencePiece model. */
    const char *seen;
    size_t seen_len;
    if (code == TSR_OK)
        code = tsr_detokenizer_push(stream, ids[n - 1], &seen, &seen_len);
    if (code == TSR_OK) {
        draw(generation, stream);
        const char *text;
        size_t len;
        if (tsr_detokenizer_flush(stream, &text, &len) == TSR_OK)
            emit(generation, text, len);
    } else {
        stop_with(generation, code);
    }
    tsr_detokenizer_close(stream);
    interrupt_watch(NULL);
}

const char *stop_name(enum stop_reason stop)
{
    static const char *const names[] = {"end", "limit", "context", "interrupted", "failed"};
    return names[stop];
}

void generation_free(struct generation *generation)
{
    free(generation->ids);
    free(generation->text.bytes);
}
