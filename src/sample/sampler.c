#include "sample/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct candidate {
    int32_t id;
    float logit;
    float probability;
};

struct sampler {
    uint32_t n_vocab;
    bool seeded;
    uint64_t seed;
    uint64_t state[4];            /* of the random numbers */
    float *logits;                /* [n_vocab] after the penalty */
    struct candidate *candidates; /* [n_vocab], of which the first n_candidates are left */
    size_t n_candidates;
};

/* ---- Random numbers: xoshiro256** seeded by splitmix64 (https://prng.di.unimi.it) ---- */

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t rotate_left(uint64_t x, int bits)
{
    return (x << bits) | (x >> (64 - bits));
}

static uint64_t next_random(uint64_t s[4])
{
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

/* In [0, 1). */
static double next_uniform(struct sampler *sampler)
{
    return (double)(next_random(sampler->state) >> 11) * 0x1p-53;
}

static void reseed(struct sampler *sampler, uint64_t seed)
{
    if (sampler->seeded && sampler->seed == seed)
        return;
    sampler->seeded = true;
    sampler->seed = seed;
    uint64_t mix = seed;
    for (int i = 0; i < 4; i++)
        sampler->state[i] = splitmix64(&mix);
}

/* ---- The steps ---- */

/* Once for each id that occurs, as in CTRL (arXiv 1909.05858, section 4.1). */
static void penalize(struct sampler *sampler, float penalty, const int32_t *recent, size_t n_recent,
                     const float *original)
{
    for (size_t i = 0; i < n_recent; i++) {
        float logit = original[recent[i]];
        sampler->logits[recent[i]] = logit > 0.0f ? logit / penalty : logit * penalty;
    }
}

static int32_t largest(const float *logits, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

/* Larger first; of equals the smaller id, so that the order does not depend on the sort. */
static bool comes_before(const struct candidate *a, const struct candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static int compare_candidates(const void *a, const void *b)
{
    return comes_before(a, b) ? -1 : 1;
}

/* Restores the heap property (the last of the kept candidates on top) below `at`. */
static void sift_down(struct candidate *heap, size_t n, size_t at)
{
    for (;;) {
        size_t worst = at, left = 2 * at + 1, right = left + 1;
        if (left < n && comes_before(&heap[worst], &heap[left]))
            worst = left;
        if (right < n && comes_before(&heap[worst], &heap[right]))
            worst = right;
        if (worst == at)
            return;
        struct candidate swap = heap[at];
        heap[at] = heap[worst];
        heap[worst] = swap;
        at = worst;
    }
}

/* The k best candidates, in order; all of them for k = 0. A heap of k: the vocabulary is passed
 * over once. */
static void keep_top_k(struct sampler *sampler, size_t k)
{
    struct candidate *heap = sampler->candidates;
    size_t n = sampler->n_vocab;
    k = k == 0 || k > n ? n : k;
    for (size_t i = 0; i < k; i++)
        heap[i] = (struct candidate){.id = (int32_t)i, .logit = sampler->logits[i]};
    if (k < n)
        for (size_t i = k / 2; i-- > 0;)
            sift_down(heap, k, i);
    for (size_t i = k; i < n; i++) {
        struct candidate candidate = {.id = (int32_t)i, .logit = sampler->logits[i]};
        if (!comes_before(&candidate, &heap[0]))
            continue;
        heap[0] = candidate;
        sift_down(heap, k, 0);
    }
    qsort(heap, k, sizeof *heap, compare_candidates);
    sampler->n_candidates = k;
}

static void set_probabilities(struct sampler *sampler, float temperature)
{
    double sum = 0.0;
    struct candidate *c = sampler->candidates;
    for (size_t i = 0; i < sampler->n_candidates; i++)
        sum += c[i].probability = expf((c[i].logit - c[0].logit) / temperature);
    for (size_t i = 0; i < sampler->n_candidates; i++)
        c[i].probability = (float)(c[i].probability / sum);
}

/* The smallest set of best candidates that holds probability top_p. */
static void keep_top_p(struct sampler *sampler, float top_p)
{
    double sum = 0.0;
    set_probabilities(sampler, 1.0f);
    for (size_t i = 0; i < sampler->n_candidates; i++) {
        sum += sampler->candidates[i].probability;
        if (sum >= top_p) {
            sampler->n_candidates = i + 1;
            return;
        }
    }
}

/* Candidates of at least min_p times the probability of the best. */
static void keep_min_p(struct sampler *sampler, float min_p)
{
    float least = sampler->candidates[0].logit + logf(min_p);
    size_t n = 1;
    while (n < sampler->n_candidates && sampler->candidates[n].logit >= least)
        n++;
    sampler->n_candidates = n;
}

static int32_t draw(struct sampler *sampler)
{
    double at = next_uniform(sampler), sum = 0.0;
    for (size_t i = 0; i < sampler->n_candidates; i++) {
        sum += sampler->candidates[i].probability;
        if (at < sum)
            return sampler->candidates[i].id;
    }
    return sampler->candidates[sampler->n_candidates - 1].id;
}

int32_t sampler_draw(struct sampler *sampler, const struct tsr_sampling *sampling,
                     const float *logits, const int32_t *recent, size_t n_recent)
{
    memcpy(sampler->logits, logits, sampler->n_vocab * sizeof *logits);
    if (sampling->repeat_penalty != 1.0f)
        penalize(sampler, sampling->repeat_penalty, recent, n_recent, logits);
    if (sampling->temperature <= 0.0f)
        return largest(sampler->logits, sampler->n_vocab);
    reseed(sampler, sampling->seed);
    keep_top_k(sampler, sampling->top_k > 0 ? (size_t)sampling->top_k : 0);
    if (sampling->top_p < 1.0f)
        keep_top_p(sampler, sampling->top_p);
    if (sampling->min_p > 0.0f)
        keep_min_p(sampler, sampling->min_p);
    set_probabilities(sampler, sampling->temperature);
    return draw(sampler);
}

void sampler_free(struct sampler *sampler)
{
    if (!sampler)
        return;
    free(sampler->logits);
    free(sampler->candidates);
    free(sampler);
}

int sampler_create(uint32_t n_vocab, struct sampler **out, struct tsr_error *error)
{
    *out = NULL;
    struct sampler *sampler = mem_alloc(1, sizeof *sampler);
    if (!sampler)
        return error_set(error, TSR_ENOMEM, "out of memory");
    sampler->n_vocab = n_vocab;
    sampler->logits = mem_alloc(n_vocab, sizeof *sampler->logits);
    sampler->candidates = mem_alloc(n_vocab, sizeof *sampler->candidates);
    if (!sampler->logits || !sampler->candidates) {
        sampler_free(sampler);
        return error_set(error, TSR_ENOMEM, "out of memory for %u logits", n_vocab);
    }
    *out = sampler;
    return 0;
}
