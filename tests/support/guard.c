#include "tests/support/guard.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <sys/mman.h>
#include <unistd.h>

enum { MAX_MAPS = 256 };

static struct {
    void *base;
    size_t size;
} maps[MAX_MAPS];
static int n_maps;

/* n_bytes between two guard pages, at the first of them or at the last. */
static void *map(size_t n_bytes, bool at_first)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t used = (n_bytes + page - 1) / page * page, size = used + 2 * page;
    char *base = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || n_maps == MAX_MAPS ||
        (used > 0 && mprotect(base + page, used, PROT_READ | PROT_WRITE))) {
        perror("guarded memory");
        exit(1);
    }
    maps[n_maps].base = base;
    maps[n_maps++].size = size;
    return at_first ? base + page : base + page + used - n_bytes;
}

void *guarded(size_t n_bytes)
{
    return map(n_bytes, false);
}

void *guarded_after(size_t n_bytes)
{
    return map(n_bytes, true);
}

void guarded_free_all(void)
{
    while (n_maps > 0) {
        n_maps--;
        munmap(maps[n_maps].base, maps[n_maps].size);
    }
}
