#include "tests/support/guard.h"

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

void *guarded(size_t n_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t used = (n_bytes + page - 1) / page * page;
    char *base =
        mmap(NULL, used + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || n_maps == MAX_MAPS || mprotect(base + used, page, PROT_NONE)) {
        perror("guarded memory");
        exit(1);
    }
    maps[n_maps].base = base;
    maps[n_maps++].size = used + page;
    return base + used - n_bytes;
}

void guarded_free_all(void)
{
    while (n_maps > 0) {
        n_maps--;
        munmap(maps[n_maps].base, maps[n_maps].size);
    }
}
