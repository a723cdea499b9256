/* What logits say of the token that follows, alone or beside the log-probabilities of another
 * model. */
#ifndef TESSERA_CLI_PREDICTION_H
#define TESSERA_CLI_PREDICTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Log-probabilities of a position as llama.cpp's llama-perplexity keeps them
 * (tools/perplexity/perplexity.cpp): two floats, `scale` and `least`, then a 16-bit code for each
 * token, log p = scale * code + least, and one more where their number is odd. What is less likely
 * than the likeliest token by more than e^16 has code 0. */
static inline size_t log_row_codes(int n_vocab)
{
    return 4 + ((size_t)n_vocab + 1) / 2 * 2;
}

void log_row_write(const float *logits, int n_vocab, uint16_t *row);

struct prediction {
    double nll; /* -log of the probability of the token that follows */
    /* Beside a base: */
    double nll_base, kl; /* of the base's distribution from this one's */
    bool same_top;       /* both find the same token likeliest */
};

/* Rows that are dealt with together. */
struct predictions {
    const float *logits;    /* [n, n_vocab] */
    const int32_t *next;    /* [n]: the token that follows each row */
    const uint16_t *base;   /* [n, log_row_codes]; NULL: none */
    uint16_t *save;         /* the same, to be written; NULL: not */
    struct prediction *out; /* [n] */
    int n, n_vocab;
};

/* On up to n_threads threads, the caller's among them. */
void predict(const struct predictions *rows, int n_threads);

#endif
