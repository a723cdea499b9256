/* The tokenizer of a model file: which kind it is, its settings, and special tokens in text. */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "text/bpe.h"
#include "text/spm.h"
#include "text/vocab.h"

struct tokenizer {
    struct vocab vocab;
    bool is_bpe; /* which of the two is open */
    struct bpe bpe;
    struct spm spm;
    bool add_bos, add_eos;
};

/* ---- Opening --------------------------------------------------------------------------------- */

static int open_kind(struct tokenizer *tokenizer, const struct gguf *gguf, struct tsr_error *error)
{
    static const char key[] = "tokenizer.ggml.model";
    struct gguf_string model;
    if (!gguf_find(gguf, key))
        return error_set(error, TSR_EFORMAT, "%s: no %s, so the file has no vocabulary",
                         gguf_path(gguf), key);
    if (!gguf_get_string(gguf, key, &model, error))
        return TSR_EFORMAT;
    tokenizer->is_bpe = model.len == 4 && memcmp(model.data, "gpt2", 4) == 0;
    bool is_spm = model.len == 5 && memcmp(model.data, "llama", 5) == 0;
    if (!tokenizer->is_bpe && !is_spm)
        return error_set(error, TSR_EUNSUPPORTED,
                         "%s: tokenizer \"%s\" is not supported (only gpt2 and llama are)",
                         gguf_path(gguf), gguf_printable(model.data, model.len).text);
    int code = vocab_open(&tokenizer->vocab, gguf,
                          tokenizer->is_bpe ? VOCAB_BYTE_LEVEL : VOCAB_PIECES, error);
    if (code)
        return code;
    return tokenizer->is_bpe ? bpe_open(&tokenizer->bpe, &tokenizer->vocab, gguf, error)
                             : spm_open(&tokenizer->spm, &tokenizer->vocab, gguf, error);
}

/* Whether `id` is added to a text; `normally` where the file does not say. */
static int read_add(const struct gguf *gguf, const char *key, int32_t id, bool normally, bool *add,
                    struct tsr_error *error)
{
    *add = normally && id >= 0;
    if (!gguf_find(gguf, key))
        return 0;
    if (!gguf_get_bool(gguf, key, add, error))
        return TSR_EFORMAT;
    if (*add && id < 0)
        return error_set(error, TSR_EFORMAT, "%s: %s is true, but the file names no such token",
                         gguf_path(gguf), key);
    return 0;
}

int tokenizer_open(const struct gguf *gguf, struct tokenizer **tokenizer, struct tsr_error *error)
{
    *tokenizer = NULL;
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return error_set(error, TSR_ENOMEM, "%s: out of memory", gguf_path(gguf));
    int code = open_kind(t, gguf, error);
    if (!code) {
        bool normally = t->is_bpe ? t->bpe.kind->add_bos : true;
        code = read_add(gguf, "tokenizer.ggml.add_bos_token", t->vocab.bos, normally, &t->add_bos,
                        error);
    }
    if (!code)
        code = read_add(gguf, "tokenizer.ggml.add_eos_token", t->vocab.eos, false, &t->add_eos,
                        error);
    if (code) {
        if (error)
            error->code = code; /* gguf_get_* leave it alone */
        tokenizer_close(t);
        return code;
    }
    *tokenizer = t;
    return 0;
}

void tokenizer_close(struct tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    bpe_close(&tokenizer->bpe);
    spm_close(&tokenizer->spm);
    vocab_close(&tokenizer->vocab);
    free(tokenizer);
}

/* ---- Facts ----------------------------------------------------------------------------------- */

uint32_t tokenizer_n_tokens(const struct tokenizer *tokenizer)
{
    return tokenizer->vocab.n_tokens;
}

int32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->vocab.bos;
}

int32_t tokenizer_eos(const struct tokenizer *tokenizer)
{
    return tokenizer->vocab.eos;
}

int32_t tokenizer_eot(const struct tokenizer *tokenizer)
{
    return tokenizer->vocab.eot;
}

bool tokenizer_add_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->add_bos;
}

bool tokenizer_space_prefix(const struct tokenizer *tokenizer)
{
    return !tokenizer->is_bpe && tokenizer->spm.space_prefix;
}

uint32_t tokenizer_max_bytes(const struct tokenizer *tokenizer)
{
    return tokenizer->vocab.max_len;
}

static bool id_is_valid(const struct tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && (uint32_t)id < tokenizer->vocab.n_tokens;
}

bool tokenizer_is_end(const struct tokenizer *tokenizer, int32_t id)
{
    return id_is_valid(tokenizer, id) && tokenizer->vocab.tokens[id].end;
}

bool tokenizer_token_bytes(const struct tokenizer *tokenizer, int32_t id, bool special,
                           const char **bytes, size_t *len)
{
    if (!id_is_valid(tokenizer, id))
        return false;
    const struct token *token = &tokenizer->vocab.tokens[id];
    *bytes = vocab_bytes(&tokenizer->vocab, id);
    *len = special || !token_is_control(token) ? token->len : 0;
    return true;
}

/* ---- Encoding -------------------------------------------------------------------------------- */

static int encode_plain(const struct tokenizer *tokenizer, const char *text, size_t len,
                        struct merger *merger, struct id_sink *sink, struct tsr_error *error)
{
    if (len == 0)
        return 0;
    return tokenizer->is_bpe ? bpe_encode(&tokenizer->bpe, text, len, merger, sink, error)
                             : spm_encode(&tokenizer->spm, text, len, merger, sink, error);
}

/* Special tokens first, the longest at each place; the text between them is encoded on its own. */
static int encode_text(const struct tokenizer *tokenizer, const char *text, size_t len,
                       bool control, struct merger *merger, struct id_sink *sink,
                       struct tsr_error *error)
{
    size_t start = 0;
    for (size_t i = 0; i < len;) {
        int32_t id = vocab_match_special(&tokenizer->vocab, text + i, len - i, control);
        if (id < 0) {
            i++;
            continue;
        }
        int code = encode_plain(tokenizer, text + start, i - start, merger, sink, error);
        if (code)
            return code;
        id_sink_put(sink, id);
        i += tokenizer->vocab.tokens[id].len;
        start = i;
    }
    return encode_plain(tokenizer, text + start, len - start, merger, sink, error);
}

int64_t tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t len,
                         unsigned flags, int32_t *ids, size_t capacity, struct tsr_error *error)
{
    if (len > INT32_MAX / 2) /* positions in a word are 32 bits */
        return error_set(error, TSR_EINVAL, "a text of %zu bytes is too long to tokenize at once",
                         len);
    struct id_sink sink = {ids, capacity, 0};
    struct merger merger = {0};
    if ((flags & TSR_TOKENIZE_BOS) && tokenizer->add_bos)
        id_sink_put(&sink, tokenizer->vocab.bos);
    int code = encode_text(tokenizer, text, len, flags & TSR_TOKENIZE_SPECIAL, &merger, &sink,
                           error);
    if ((flags & TSR_TOKENIZE_BOS) && tokenizer->add_eos)
        id_sink_put(&sink, tokenizer->vocab.eos);
    merger_free(&merger);
    return code ? code : (int64_t)sink.n;
}
