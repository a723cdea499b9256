/* Splits text into words before byte-level BPE, with the model's own regular expressions. */
#ifndef TESSERA_TEXT_PRETOKENIZER_H
#define TESSERA_TEXT_PRETOKENIZER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* What a value of tokenizer.ggml.pre means. */
struct pretokenizer_kind {
    const char *name;
    bool nfc;           /* the model normalises text to NFC first */
    bool ignore_merges; /* a word that is a token as a whole is that token */
    bool add_bos;       /* unless the file says otherwise */
    const char *const *patterns; /* applied one after the other, ended by NULL */
};

/* NULL for a name not known. */
const struct pretokenizer_kind *pretokenizer_find(const char *name, size_t len);

/* Compiled patterns; immutable. */
struct pretokenizer;

int pretokenizer_open(const struct pretokenizer_kind *kind, struct pretokenizer **pretokenizer,
                      struct tsr_error *error);
void pretokenizer_close(struct pretokenizer *pretokenizer);

/* Called for each word in turn; together they are the text. Not 0 stops the splitting. */
typedef int pretokenizer_word(void *user, const char *word, size_t len);

/* text[0..len) must be valid UTF-8. Returns 0, what `word` returned, or an error. */
int pretokenizer_split(const struct pretokenizer *pretokenizer, const char *text, size_t len,
                       pretokenizer_word *word, void *user, struct tsr_error *error);

#endif
