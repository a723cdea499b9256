/* Merging with a binary heap: O(n log n) for a word of n symbols, whatever the word. */
#include "text/merge.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/mem.h"

/* Each symbol starts a pair once, and each of the n - 1 merges adds two pairs. */
enum { HEAP_PER_SYMBOL = 3 };

int merger_reserve(struct merger *merger, size_t n)
{
    if (n <= merger->capacity)
        return 0;
    size_t capacity = n < 64 ? 64 : n + n / 2;
    size_t n_heap;
    merger_free(merger);
    if (!mul_size(capacity, HEAP_PER_SYMBOL, &n_heap))
        return TSR_ENOMEM;
    merger->symbols = mem_alloc(capacity, sizeof *merger->symbols);
    merger->heap = mem_alloc(n_heap, sizeof *merger->heap);
    if (!merger->symbols || !merger->heap) {
        merger_free(merger);
        return TSR_ENOMEM;
    }
    merger->capacity = capacity;
    return 0;
}

void merger_free(struct merger *merger)
{
    free(merger->symbols);
    free(merger->heap);
    *merger = (struct merger){0};
}

static void heap_push(struct merger *merger, uint64_t item)
{
    uint64_t *heap = merger->heap;
    size_t i = merger->n_heap++;
    while (i > 0 && heap[(i - 1) / 2] > item) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = item;
}

static uint64_t heap_pop(struct merger *merger)
{
    uint64_t *heap = merger->heap;
    uint64_t top = heap[0], item = heap[--merger->n_heap];
    size_t n = merger->n_heap, i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= item)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = item;
    return top;
}

void merger_run(struct merger *merger, size_t n, const char *word, merge_rule *rule,
                const void *rules)
{
    struct symbol *symbols = merger->symbols; /* [n] */
    struct merge merge;
    merger->n_heap = 0;
    for (size_t i = 0; i < n; i++) {
        symbols[i].prev = (int32_t)i - 1;
        symbols[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
        if (i + 1 < n && rule(rules, word, &symbols[i], &symbols[i + 1], &merge))
            heap_push(merger, (uint64_t)merge.rank << 32 | i);
    }
    while (merger->n_heap > 0) {
        uint64_t item = heap_pop(merger);
        struct symbol *left = &symbols[(uint32_t)item];
        /* A merge nearby may have used up either symbol, or changed what the pair is; its present
         * form has an entry of its own. */
        if (left->len == 0 || left->next < 0)
            continue;
        struct symbol *right = &symbols[left->next];
        if (!rule(rules, word, left, right, &merge) || merge.rank != item >> 32)
            continue;
        left->len += right->len;
        left->id = merge.id;
        left->next = right->next;
        right->len = 0;
        if (left->next >= 0) {
            symbols[left->next].prev = (int32_t)(left - symbols);
            if (rule(rules, word, left, &symbols[left->next], &merge))
                heap_push(merger, (uint64_t)merge.rank << 32 | (uint32_t)(left - symbols));
        }
        if (left->prev >= 0 && rule(rules, word, &symbols[left->prev], left, &merge))
            heap_push(merger, (uint64_t)merge.rank << 32 | (uint32_t)left->prev);
    }
}
