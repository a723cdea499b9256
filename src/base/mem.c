#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { CACHE_LINE = 64 };

/* Aligned to `align`, which its bytes are rounded up to; their contents are not set. */
static void *alloc_aligned(size_t align, size_t *bytes)
{
    if (!add_size(*bytes, align - 1, bytes))
        return NULL;
    *bytes = *bytes / align * align;
    return aligned_alloc(align, *bytes ? *bytes : align);
}

void *mem_alloc(size_t count, size_t size)
{
    size_t bytes;
    if (!mul_size(count, size, &bytes))
        return NULL;
    void *memory = alloc_aligned(CACHE_LINE, &bytes);
    return memory ? memset(memory, 0, bytes) : NULL;
}

void *mem_alloc_huge(size_t bytes)
{
    if (bytes < HUGE_PAGE)
        return mem_alloc(bytes, 1);
    void *memory = alloc_aligned(HUGE_PAGE, &bytes);
    if (!memory)
        return NULL;
    memory_ask_huge(memory, bytes);
    return memset(memory, 0, bytes);
}
