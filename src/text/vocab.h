/* The tokens of a model file: their bytes as they appear in text, their types, the ids with a role,
 * and the way back from bytes to ids. */
#ifndef TESSERA_TEXT_VOCAB_H
#define TESSERA_TEXT_VOCAB_H

#include "gguf/gguf.h"

/* tokenizer.ggml.token_type, numbers as in the file. */
enum token_type {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,      /* in text only where the caller lets special tokens be parsed */
    TOKEN_USER_DEFINED = 4, /* in text always, before any other splitting */
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6,         /* "<0x41>" of SentencePiece: one byte */
};

/* How the file spells bytes in the text of a token. */
enum vocab_spelling {
    VOCAB_BYTE_LEVEL, /* a printable character for each byte (GPT-2) */
    VOCAB_PIECES,     /* SentencePiece: UTF-8 with U+2581 for space, and byte tokens */
};

struct token {
    uint32_t offset; /* of its bytes in vocab.bytes */
    uint32_t len;
    uint8_t type;    /* enum token_type */
    bool end;        /* generation ends here */
};

struct vocab {
    uint32_t n_tokens;
    uint32_t max_len; /* bytes of the longest token */
    struct token *tokens;
    char *bytes;      /* of all tokens, one after the other */

    struct vocab_slot *slots; /* open addressing: bytes -> id */
    uint32_t slot_mask;

    int32_t byte_ids[256]; /* the token that is one byte; -1: none */
    int32_t *specials;     /* CONTROL, UNKNOWN, USER_DEFINED, sorted by their bytes */
    uint32_t n_specials;
    bool special_starts[256];

    int32_t bos, eos, eot, eom, unknown; /* -1: none */
};

int vocab_open(struct vocab *vocab, const struct gguf *gguf, enum vocab_spelling spelling,
               struct tsr_error *error);
void vocab_close(struct vocab *vocab);

static inline const char *vocab_bytes(const struct vocab *vocab, int32_t id)
{
    return vocab->bytes + vocab->tokens[id].offset;
}

/* The token, not CONTROL or UNKNOWN, with these bytes; -1: none. Of several the first NORMAL one,
 * else the first. */
int32_t vocab_find(const struct vocab *vocab, const char *bytes, size_t len);

/* The longest special token that text[0..len) starts with; -1: none. CONTROL and UNKNOWN tokens
 * count only with `control`. */
int32_t vocab_match_special(const struct vocab *vocab, const char *text, size_t len, bool control);

/* Whether text needs special permission to become this token. */
static inline bool token_is_control(const struct token *token)
{
    return token->type == TOKEN_CONTROL || token->type == TOKEN_UNKNOWN;
}

/* Bytes that `text`, in the byte-level spelling, stands for; characters outside that alphabet stay
 * as they are. `out` has room for len bytes. Returns how many were written. */
size_t byte_level_decode(const char *text, size_t len, char *out);

/* The same for SentencePiece: U+2581 stands for a space. */
size_t piece_decode(const char *text, size_t len, char *out);

#endif
