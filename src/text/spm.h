/* SentencePiece BPE: pairs merge by the score of the token that they make
 * (tokenizer.ggml.model "llama"). */
#ifndef TESSERA_TEXT_SPM_H
#define TESSERA_TEXT_SPM_H

#include "text/merge.h"
#include "text/vocab.h"

struct spm {
    const struct vocab *vocab;
    uint32_t *ranks;      /* [n_tokens]: the higher the score, the lower the rank */
    bool space_prefix;    /* text is encoded as if a space stood before it */
    bool words_are_apart; /* no token has a space after another character */
};

/* `vocab` must outlive `spm`. */
int spm_open(struct spm *spm, const struct vocab *vocab, const struct gguf *gguf,
             struct tsr_error *error);
void spm_close(struct spm *spm);

/* Ids of a text without special tokens; any bytes. */
int spm_encode(const struct spm *spm, const char *text, size_t len, struct merger *merger,
               struct id_sink *sink, struct tsr_error *error);

#endif
