#include "base/memory.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cgroup.h"

static void lower(struct memory_limit *limit, uint64_t total, uint64_t used, const char *name,
                  const char *where)
{
    uint64_t left = total > used ? total - used : 0;
    if (left >= limit->bytes)
        return;
    limit->bytes = left;
    snprintf(limit->name, sizeof limit->name, "%s%s", name, where);
}

/* ---- The machine ----------------------------------------------------------------------------- */

static void ask_machine(const char *root, struct memory_limit *limit)
{
    char path[512];
    snprintf(path, sizeof path, "%s/proc", root);
    uint64_t kib = cgroup_read_key(path, "meminfo", "MemAvailable:");
    if (kib)
        lower(limit, kib << 10, 0, "the memory of the machine", "");
}

/* ---- Control groups -------------------------------------------------------------------------- */

static void ask_group(void *user, const char *dir, bool v2)
{
    struct memory_limit *limit = user;
    static const char *const files[2][2] = {{"memory.limit_in_bytes", NULL},
                                            {"memory.max", "memory.high"}};
    int64_t used, most;
    if (cgroup_read(dir, v2 ? "memory.current" : "memory.usage_in_bytes", &used, 1) != 1)
        return;
    /* Pages of files can be dropped or written back; v1 counts those of groups below only in the
     * total_ rows. */
    uint64_t cache =
        cgroup_read_key(dir, "memory.stat", v2 ? "inactive_file" : "total_inactive_file") +
        cgroup_read_key(dir, "memory.stat", v2 ? "active_file" : "total_active_file");
    uint64_t held = (uint64_t)used > cache ? (uint64_t)used - cache : 0;
    char where[128];
    for (int i = 0; i < 2 && files[v2][i]; i++) {
        if (cgroup_read(dir, files[v2][i], &most, 1) != 1 || most < 0)
            continue;
        snprintf(where, sizeof where, " of %.100s", dir);
        lower(limit, (uint64_t)most, held, files[v2][i], where);
    }
}

/* ---- Limits of the process ------------------------------------------------------------------- */

static void ask_process(struct memory_limit *limit)
{
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return;
    uint64_t size, data, page = (uint64_t)sysconf(_SC_PAGESIZE);
    int n = fscanf(file, "%" SCNu64 " %*u %*u %*u %*u %" SCNu64, &size, &data);
    fclose(file);
    if (n != 2)
        return;
    struct rlimit rlimit;
    if (!getrlimit(RLIMIT_AS, &rlimit) && rlimit.rlim_cur != RLIM_INFINITY)
        lower(limit, rlimit.rlim_cur, size * page, "RLIMIT_AS", " (ulimit -v)");
    if (!getrlimit(RLIMIT_DATA, &rlimit) && rlimit.rlim_cur != RLIM_INFINITY)
        lower(limit, rlimit.rlim_cur, data * page, "RLIMIT_DATA", " (ulimit -d)");
}

/* ---- Together -------------------------------------------------------------------------------- */

void memory_available(const char *root, struct memory_limit *limit)
{
    *limit = (struct memory_limit){.bytes = UINT64_MAX, .name = "nothing known"};
    ask_machine(root, limit);
    cgroup_walk(root, "memory", ask_group, limit);
    if (!*root)
        ask_process(limit);
}

int memory_require(const char *root, uint64_t need, const char *what, const char *advice,
                   struct tsr_error *error)
{
    struct memory_limit limit;
    memory_available(root, &limit);
    if (need <= limit.bytes)
        return 0;
    return error_set(error, TSR_ENOMEM, "%s: %" PRIu64 " MiB needed, %" PRIu64
                     " MiB available (%s): %s", what, (need + (1 << 20) - 1) >> 20, limit.bytes >> 20,
                     limit.name, advice);
}

/* ---- Huge pages ------------------------------------------------------------------------------ */

/* Reads "always [madvise] never". With "always" they come unasked. */
static bool given_on_request(void)
{
    char line[64];
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
    if (!file)
        return false;
    bool found = fgets(line, sizeof line, file) && strstr(line, "[madvise]");
    fclose(file);
    return found;
}

void memory_ask_huge(void *data, size_t bytes)
{
    if (bytes >= HUGE_PAGE && given_on_request())
        madvise(data, bytes, MADV_HUGEPAGE);
}

uint64_t memory_huge_bytes(const void *data, size_t bytes)
{
    uintptr_t begin = (uintptr_t)data, end = begin + bytes, first, last;
    uint64_t huge = 0, kib;
    bool inside = false;
    char line[512];
    FILE *file = fopen("/proc/self/smaps", "re");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &first, &last) == 2)
            inside = first < end && last > begin;
        else if (inside && sscanf(line, "AnonHugePages: %" SCNu64, &kib) == 1)
            huge += kib << 10;
    }
    fclose(file);
    return huge < bytes ? huge : bytes; /* a neighbour may share the kernel's record */
}
