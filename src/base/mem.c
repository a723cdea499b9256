#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { CACHE_LINE = 64 };

void *mem_alloc(size_t count, size_t size)
{
    size_t bytes;
    if (!mul_size(count, size, &bytes) || !add_size(bytes, CACHE_LINE - 1, &bytes))
        return NULL;
    bytes = bytes / CACHE_LINE * CACHE_LINE;
    void *memory = aligned_alloc(CACHE_LINE, bytes ? bytes : CACHE_LINE);
    if (memory)
        memset(memory, 0, bytes);
    return memory;
}
