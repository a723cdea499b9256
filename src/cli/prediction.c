#include "cli/prediction.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* ---- One row --------------------------------------------------------------------------------- */

static int likeliest(const float *logits, int n_vocab)
{
    int best = 0;
    for (int i = 1; i < n_vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* The logarithm of the sum of all exponentials. */
static double log_sum_exp(const float *logits, int n_vocab, float max)
{
    double sum = 0;
    for (int i = 0; i < n_vocab; i++)
        sum += (double)expf(logits[i] - max);
    return max + log(sum);
}

void log_row_write(const float *logits, int n_vocab, uint16_t *row)
{
    enum { RANGE = 16, CODES = 65535 };
    float max = logits[likeliest(logits, n_vocab)], min = max;
    for (int i = 0; i < n_vocab; i++)
        min = fminf(min, logits[i]);
    min = fmaxf(min, max - RANGE);
    float scale = (max - min) / CODES;
    float least = (float)(min - log_sum_exp(logits, n_vocab, max));
    memset(row, 0, log_row_codes(n_vocab) * sizeof *row);
    memcpy(row, &scale, sizeof scale);
    memcpy(row + 2, &least, sizeof least);
    for (int i = 0; i < n_vocab && scale > 0; i++)
        row[4 + i] = logits[i] > min ? (uint16_t)lrintf((logits[i] - min) / scale) : 0;
}

static double log_row_read(const uint16_t *row, int token)
{
    float scale, least;
    memcpy(&scale, row, sizeof scale);
    memcpy(&least, row + 2, sizeof least);
    return (double)scale * row[4 + token] + (double)least;
}

/* Tokens that have code 0 are too unlikely to count. */
static void compare(const float *logits, int n_vocab, double log_sum, const uint16_t *base,
                    struct prediction *out)
{
    int best = 0;
    out->kl = 0;
    for (int i = 0; i < n_vocab; i++) {
        if (base[4 + i] > base[4 + best])
            best = i;
        if (!base[4 + i])
            continue;
        double log_p = log_row_read(base, i);
        out->kl += exp(log_p) * (log_p - ((double)logits[i] - log_sum));
    }
    out->same_top = best == likeliest(logits, n_vocab);
}

static void predict_row(const struct predictions *rows, int row)
{
    const int n_vocab = rows->n_vocab;
    const float *logits = rows->logits + (size_t)row * (size_t)n_vocab;
    const size_t at = (size_t)row * log_row_codes(n_vocab);
    struct prediction *out = &rows->out[row];
    double log_sum = log_sum_exp(logits, n_vocab, logits[likeliest(logits, n_vocab)]);
    *out = (struct prediction){.nll = log_sum - (double)logits[rows->next[row]]};
    if (rows->base) {
        out->nll_base = -log_row_read(rows->base + at, rows->next[row]);
        compare(logits, n_vocab, log_sum, rows->base + at, out);
    }
    if (rows->save)
        log_row_write(logits, n_vocab, rows->save + at);
}

/* ---- All rows -------------------------------------------------------------------------------- */

struct work {
    const struct predictions *rows;
    atomic_int next_row;
};

static void *take_rows(void *arg)
{
    struct work *work = arg;
    int row;
    while ((row = atomic_fetch_add(&work->next_row, 1)) < work->rows->n)
        predict_row(work->rows, row);
    return NULL;
}

void predict(const struct predictions *rows, int n_threads)
{
    enum { MOST = 256 };
    struct work work = {.rows = rows};
    pthread_t threads[MOST];
    int n = 0; /* others than the caller: fewer, where the system has no more */
    while (n < n_threads - 1 && n < MOST && n < rows->n - 1 &&
           pthread_create(&threads[n], NULL, take_rows, &work) == 0)
        n++;
    take_rows(&work);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}
