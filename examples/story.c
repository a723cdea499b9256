/* A small program that embeds tessera: it opens a model and prints a story.
 *
 * In the build folder it is built along. Against an installed library:
 *
 *     cc story.c -o story $(pkg-config --cflags --libs tessera)
 *     ./story MODEL.gguf "Once upon a time" */
#include <stdio.h>
#include <string.h>

#include <tessera/tessera.h>

enum { N_TOKENS = 120 };

/* Draws tokens and prints them until the story ends. 0 or a negative code. */
static int tell(tsr_engine *engine, tsr_session *session, tsr_detokenizer *stream)
{
    struct tsr_sampling sampling = tsr_sampling_default();
    sampling.seed = 1; /* always the same story */
    for (int i = 0; i < N_TOKENS; i++) {
        int32_t id = tsr_session_sample(session, &sampling);
        if (id < 0)
            return id;
        if (tsr_token_is_end(engine, id))
            return TSR_OK;
        const char *text;
        size_t len;
        int code = tsr_detokenizer_push(stream, id, &text, &len);
        if (code < 0)
            return code;
        fwrite(text, 1, len, stdout);
        fflush(stdout);
        code = tsr_session_eval(session, &id, 1, NULL);
        if (code < 0)
            return code;
    }
    return TSR_OK;
}

static int continue_text(tsr_engine *engine, const char *prompt, size_t len)
{
    int32_t ids[4096]; /* as many as the session's context holds by default */
    int64_t n = tsr_tokenize(engine, prompt, len, TSR_TOKENIZE_BOS, ids, 4096);
    if (n < 0 || n > 4096)
        return n < 0 ? (int)n : TSR_ECONTEXT;
    tsr_session *session;
    int code = tsr_session_open(engine, NULL, &session);
    if (code < 0)
        return code;
    tsr_detokenizer *stream = NULL;
    const char *text;
    size_t n_bytes;
    code = tsr_session_eval(session, ids, (size_t)n, NULL);
    if (code == TSR_OK)
        code = tsr_detokenizer_open(engine, false, &stream);
    if (code == TSR_OK) /* so that the first word keeps its space */
        code = tsr_detokenizer_push(stream, ids[n - 1], &text, &n_bytes);
    if (code == TSR_OK)
        code = tell(engine, session, stream);
    if (code == TSR_OK && tsr_detokenizer_flush(stream, &text, &n_bytes) == TSR_OK)
        fwrite(text, 1, n_bytes, stdout);
    putchar('\n');
    tsr_detokenizer_close(stream);
    tsr_session_close(session);
    return code;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: story MODEL.gguf PROMPT\n");
        return 2;
    }
    struct tsr_settings settings = tsr_settings_default();
    settings.model_path = argv[1];
    tsr_engine *engine;
    struct tsr_error error = {0};
    if (tsr_engine_open(&settings, &engine, &error) < 0) {
        fprintf(stderr, "story: %s\n", error.text);
        return 1;
    }
    int code = continue_text(engine, argv[2], strlen(argv[2]));
    if (code < 0)
        fprintf(stderr, "story: %s: %s\n", tsr_strerror(code), tsr_engine_message(engine));
    tsr_engine_close(engine);
    return code < 0;
}
