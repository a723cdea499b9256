/* How much memory this process may still take and what sets that limit; huge pages. */
#ifndef TESSERA_BASE_MEMORY_H
#define TESSERA_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct memory_limit {
    uint64_t bytes;  /* that can still be taken; UINT64_MAX where nothing is known */
    char name[160];  /* what limits it: "memory of the machine", "memory.max of /sys/fs/cgroup/a" */
};

/* The smallest of: MemAvailable of /proc/meminfo; for each control group of this process (v1 and
 * v2) its limit less what the group uses and cannot give back; RLIMIT_AS and RLIMIT_DATA less what
 * counts towards them (only where `root` is "": they belong to the real process). Page cache counts
 * as free: the kernel gives it back. `root` is put before /proc and the mount points: "" but in
 * tests. */
void memory_available(const char *root, struct memory_limit *limit);

/* Refuses `need` bytes that will not fit: TSR_ENOMEM with both numbers, what limits and `advice`
 * ("use a smaller -c"). `what` names what the bytes are for. */
int memory_require(const char *root, uint64_t need, const char *what, const char *advice,
                   struct tsr_error *error);

/* ---- Huge pages ---- */

enum { HUGE_PAGE = 2 << 20 };

/* Asks for transparent huge pages where the system gives them to those who ask; `data` is on a
 * HUGE_PAGE where it is to have many. Never fails: it is a wish. */
void memory_ask_huge(void *data, size_t bytes);

/* Bytes of [data, data + bytes) that lie in huge pages, as /proc/self/smaps tells. */
uint64_t memory_huge_bytes(const void *data, size_t bytes);

#endif
