/* Byte-pair merging, shared by both kinds of tokenizer: a word is a list of symbols; the best pair
 * of neighbours by the tokenizer's own rule becomes one symbol, until no pair can be merged. */
#ifndef TESSERA_TEXT_MERGE_H
#define TESSERA_TEXT_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct symbol {
    uint32_t start, len; /* bytes of the word */
    int32_t id;          /* the token, -1: none */
    int32_t prev, next;  /* neighbours, -1: none */
};

struct merge {
    uint32_t rank; /* lowest first; of equal ones the leftmost */
    int32_t id;    /* the token that the pair becomes */
};

/* Whether two neighbours can be merged. Depends on nothing but the symbols and their bytes. */
typedef bool merge_rule(const void *rules, const char *word, const struct symbol *left,
                        const struct symbol *right, struct merge *merge);

/* Work space, grown to the longest word. Starts as {0}. */
struct merger {
    struct symbol *symbols;
    size_t capacity;
    uint64_t *heap; /* pairs that can be merged: rank << 32 | index of the left symbol */
    size_t n_heap;
};

/* Room for n symbols. 0 or TSR_ENOMEM. */
int merger_reserve(struct merger *merger, size_t n);
void merger_free(struct merger *merger);

/* Links and merges symbols[0..n), n >= 1, whose start, len and id the caller has set. The result
 * is the list from symbols[0] along `next`. */
void merger_run(struct merger *merger, size_t n, const char *word, merge_rule *rule,
                const void *rules);

/* Where ids go: counts on past the capacity, as tsr_tokenize does. */
struct id_sink {
    int32_t *ids;
    size_t capacity;
    size_t n;
};

static inline void id_sink_put(struct id_sink *sink, int32_t id)
{
    if (sink->n < sink->capacity)
        sink->ids[sink->n] = id;
    sink->n++;
}

#endif
