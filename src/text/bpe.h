/* Byte-level BPE: words by regular expression, merges by rank (tokenizer.ggml.model "gpt2"). */
#ifndef TESSERA_TEXT_BPE_H
#define TESSERA_TEXT_BPE_H

#include "text/merge.h"
#include "text/pretokenizer.h"
#include "text/vocab.h"

struct bpe {
    const struct vocab *vocab;
    const struct pretokenizer_kind *kind;
    struct pretokenizer *pretokenizer;
    struct bpe_slot *slots; /* open addressing: pair of ids -> merge */
    uint32_t slot_mask;
};

/* `vocab` must outlive `bpe`. */
int bpe_open(struct bpe *bpe, const struct vocab *vocab, const struct gguf *gguf,
             struct tsr_error *error);
void bpe_close(struct bpe *bpe);

/* Ids of a text without special tokens; any bytes. */
int bpe_encode(const struct bpe *bpe, const char *text, size_t len, struct merger *merger,
               struct id_sink *sink, struct tsr_error *error);

#endif
