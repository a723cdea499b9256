/* Hash table of names: open addressing, linear probing, FNV-1a
 * (https://datatracker.ietf.org/doc/draft-eastlake-fnv/). */
#include <stdlib.h>
#include <string.h>

#include "gguf/internal.h"

static uint64_t hash(struct gguf_string key)
{
    uint64_t h = 0xcbf29ce484222325;
    for (size_t i = 0; i < key.len; i++)
        h = (h ^ (uint8_t)key.data[i]) * 0x100000001b3;
    return h ^ h >> 32;
}

/* The slot that holds `key`, or the free one where it belongs. */
static struct gguf_index_slot *probe(const struct gguf_index *index, struct gguf_string key)
{
    size_t mask = index->capacity - 1;
    for (size_t i = hash(key) & mask;; i = (i + 1) & mask) {
        struct gguf_index_slot *slot = &index->slots[i];
        if (!slot->key.data ||
            (slot->key.len == key.len && memcmp(slot->key.data, key.data, key.len) == 0))
            return slot;
    }
}

static int rehash(struct gguf_index *index, size_t capacity)
{
    struct gguf_index grown = {.capacity = capacity, .used = index->used};
    grown.slots = calloc(capacity, sizeof *grown.slots);
    if (!grown.slots)
        return TSR_ENOMEM;
    for (size_t i = 0; i < index->capacity; i++)
        if (index->slots[i].key.data)
            *probe(&grown, index->slots[i].key) = index->slots[i];
    free(index->slots);
    *index = grown;
    return 0;
}

int gguf_index_add(struct gguf_index *index, struct gguf_string key, size_t item)
{
    if (2 * index->used >= index->capacity) {
        int code = rehash(index, index->capacity ? index->capacity * 2 : 64);
        if (code)
            return code;
    }
    struct gguf_index_slot *slot = probe(index, key);
    if (slot->key.data)
        return GGUF_INDEX_DUPLICATE;
    *slot = (struct gguf_index_slot){.key = key, .item = item};
    index->used++;
    return 0;
}

bool gguf_index_find(const struct gguf_index *index, struct gguf_string key, size_t *item)
{
    if (index->capacity == 0)
        return false;
    const struct gguf_index_slot *slot = probe(index, key);
    if (!slot->key.data)
        return false;
    *item = slot->item;
    return true;
}
