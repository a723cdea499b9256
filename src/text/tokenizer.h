/* Vocabulary and tokenizer of a model file: byte-level BPE ("gpt2") and SentencePiece BPE
 * ("llama"). Immutable after opening; any number of threads may use one at once. */
#ifndef TESSERA_TEXT_TOKENIZER_H
#define TESSERA_TEXT_TOKENIZER_H

#include "gguf/gguf.h"

struct tokenizer;

/* Copies what it needs: the gguf may be closed afterwards.
 * Errors: TSR_EUNSUPPORTED (unknown tokenizer model or pre-tokenizer, named in the message),
 * TSR_EFORMAT, TSR_ENOMEM. */
int tokenizer_open(const struct gguf *gguf, struct tokenizer **tokenizer, struct tsr_error *error);
void tokenizer_close(struct tokenizer *tokenizer);

uint32_t tokenizer_n_tokens(const struct tokenizer *tokenizer);
int32_t tokenizer_bos(const struct tokenizer *tokenizer); /* -1: none */
int32_t tokenizer_eos(const struct tokenizer *tokenizer);
int32_t tokenizer_eot(const struct tokenizer *tokenizer);
bool tokenizer_add_bos(const struct tokenizer *tokenizer);
/* Whether encoding puts a space in front of the text (SentencePiece), which decoding takes off. */
bool tokenizer_space_prefix(const struct tokenizer *tokenizer);
uint32_t tokenizer_max_bytes(const struct tokenizer *tokenizer); /* of the longest token */
/* EOS, EOT, EOM and tokens whose text is a known end of turn (<|im_end|>, <|eot_id|>, ...). */
bool tokenizer_is_end(const struct tokenizer *tokenizer, int32_t id);

/* As tsr_tokenize of the public API; flags are enum tsr_tokenize_flags. */
int64_t tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t len,
                         unsigned flags, int32_t *ids, size_t capacity, struct tsr_error *error);

/* The bytes of a token as they appear in text, valid while the tokenizer is open. Control tokens
 * have none unless `special`. False for an id outside the vocabulary. */
bool tokenizer_token_bytes(const struct tokenizer *tokenizer, int32_t id, bool special,
                           const char **bytes, size_t *len);

/* A stream of tokens to text in whole UTF-8 characters. Where encoding puts a space in front of a
 * text, the stream takes it off at its start: to continue a prompt, push the prompt's ids first and
 * drop what they give. Bytes that cannot belong to a character are given out as they are. A push
 * fails only for an id outside the vocabulary (TSR_EINVAL). */
struct detokenizer;
int detokenizer_open(const struct tokenizer *tokenizer, bool special, struct detokenizer **stream);
int detokenizer_push(struct detokenizer *stream, int32_t id, const char **text, size_t *len);
int detokenizer_flush(struct detokenizer *stream, const char **text, size_t *len);
void detokenizer_close(struct detokenizer *stream);

#endif
