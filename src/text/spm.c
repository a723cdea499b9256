/* SentencePiece BPE.
 *
 * Method: https://github.com/google/sentencepiece/blob/master/src/bpe_model.cc. SentencePiece
 * writes a space as U+2581; here both are a plain space, in tokens and in text, which gives the
 * same ids. Characters that are no token, and bytes that are no character, become byte tokens.
 */
#include "text/spm.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/utf8.h"

/* Maps floats to integers so that the highest comes first. */
static uint32_t rank_of_score(float score)
{
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    return bits & 0x80000000u ? bits : 0x7fffffffu - bits;
}

static int read_scores(struct spm *spm, const struct gguf *gguf, struct tsr_error *error)
{
    static const char key[] = "tokenizer.ggml.scores";
    struct gguf_array scores;
    uint32_t n_tokens = spm->vocab->n_tokens;
    if (!gguf_find(gguf, key))
        return error_set(error, TSR_EFORMAT, "%s: no %s", gguf_path(gguf), key);
    if (!gguf_get_array(gguf, key, GGUF_F32, &scores, error))
        return TSR_EFORMAT;
    if (scores.count != n_tokens)
        return error_set(error, TSR_EFORMAT, "%s: %s has %llu elements for %u tokens",
                         gguf_path(gguf), key, (unsigned long long)scores.count, n_tokens);
    spm->ranks = mem_alloc(n_tokens, sizeof *spm->ranks);
    if (!spm->ranks)
        return error_set(error, TSR_ENOMEM, "%s: out of memory for %u scores", gguf_path(gguf),
                         n_tokens);
    for (uint32_t id = 0; id < n_tokens; id++)
        spm->ranks[id] = rank_of_score((float)gguf_array_float(&scores, id));
    return 0;
}

static bool has_inner_space(const char *bytes, size_t len)
{
    for (size_t i = 1; i < len; i++) {
        if (bytes[i] == ' ' && bytes[i - 1] != ' ')
            return true;
    }
    return false;
}

int spm_open(struct spm *spm, const struct vocab *vocab, const struct gguf *gguf,
             struct tsr_error *error)
{
    static const char key[] = "tokenizer.ggml.add_space_prefix";
    *spm = (struct spm){.vocab = vocab, .space_prefix = true, .words_are_apart = true};
    if (gguf_find(gguf, key) && !gguf_get_bool(gguf, key, &spm->space_prefix, error))
        return TSR_EFORMAT;
    for (uint32_t id = 0; id < vocab->n_tokens && spm->words_are_apart; id++) {
        const struct token *token = &vocab->tokens[id];
        spm->words_are_apart = token_is_control(token) ||
                               !has_inner_space(vocab->bytes + token->offset, token->len);
    }
    int code = read_scores(spm, gguf, error);
    if (code)
        spm_close(spm);
    return code;
}

void spm_close(struct spm *spm)
{
    free(spm->ranks);
    *spm = (struct spm){0};
}

/* ---- Encoding -------------------------------------------------------------------------------- */

static bool score_rule(const void *rules, const char *word, const struct symbol *left,
                       const struct symbol *right, struct merge *merge)
{
    const struct spm *spm = rules;
    int32_t id = vocab_find(spm->vocab, word + left->start, (size_t)left->len + right->len);
    if (id < 0)
        return false;
    *merge = (struct merge){spm->ranks[id], id};
    return true;
}

static int put_bytes(const struct spm *spm, const char *bytes, size_t len, struct id_sink *sink,
                     struct tsr_error *error)
{
    for (size_t i = 0; i < len; i++) {
        int32_t id = spm->vocab->byte_ids[(unsigned char)bytes[i]];
        if (id < 0)
            id = spm->vocab->unknown;
        if (id < 0)
            return error_set(error, TSR_EFORMAT, "the vocabulary has no token for the byte 0x%02x",
                             (unsigned char)bytes[i]);
        id_sink_put(sink, id);
    }
    return 0;
}

static int encode_word(const struct spm *spm, const char *word, size_t len, struct merger *merger,
                       struct id_sink *sink, struct tsr_error *error)
{
    if (merger_reserve(merger, len))
        return error_set(error, TSR_ENOMEM, "out of memory for a word of %zu bytes", len);
    size_t n = 0;
    for (size_t i = 0; i < len; n++) {
        int n_char = utf8_char(word + i, len - i);
        struct symbol *symbol = &merger->symbols[n];
        *symbol = (struct symbol){.start = (uint32_t)i, .len = n_char > 0 ? (uint32_t)n_char : 1};
        symbol->id = vocab_find(spm->vocab, word + i, symbol->len);
        i += symbol->len;
    }
    merger_run(merger, n, word, score_rule, spm);
    for (int32_t i = 0; i >= 0; i = merger->symbols[i].next) {
        const struct symbol *symbol = &merger->symbols[i];
        if (symbol->id >= 0) {
            id_sink_put(sink, symbol->id);
            continue;
        }
        int code = put_bytes(spm, word + symbol->start, symbol->len, sink, error);
        if (code)
            return code;
    }
    return 0;
}

/* The space prefix, and U+2581 as a space. `out` has room for len + 1 bytes. */
static size_t normalise(const struct spm *spm, const char *text, size_t len, char *out)
{
    size_t n = 0;
    if (spm->space_prefix)
        out[n++] = ' ';
    return n + piece_decode(text, len, out + n);
}

int spm_encode(const struct spm *spm, const char *text, size_t len, struct merger *merger,
               struct id_sink *sink, struct tsr_error *error)
{
    char *normal = malloc(len + 1);
    if (!normal)
        return error_set(error, TSR_ENOMEM, "out of memory for a text of %zu bytes", len);
    size_t n = normalise(spm, text, len, normal);
    int code = 0;
    /* No merge crosses from a word to the space before the next, so words can go one by one. */
    for (size_t start = 0, end; start < n && !code; start = end) {
        end = spm->words_are_apart ? start + 1 : n;
        while (end < n && !(normal[end] == ' ' && normal[end - 1] != ' '))
            end++;
        code = encode_word(spm, normal + start, end - start, merger, sink, error);
    }
    free(normal);
    return code;
}
