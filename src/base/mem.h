/* Allocation with checked sizes. Plain malloc/free is used for small things. */
#ifndef TESSERA_BASE_MEM_H
#define TESSERA_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False when a * b does not fit. */
static inline bool mul_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool add_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

/* count * size bytes, zeroed, aligned to 64; NULL when out of memory or too large. Free: free(). */
void *mem_alloc(size_t count, size_t size);

/* The same of `bytes` on huge pages, where the system gives them: for buffers of which many rows
 * are read at once, each on pages of its own. */
void *mem_alloc_huge(size_t bytes);

#endif
