/* Which CPUs this process may use: the affinity mask, the CPU quota of its cgroups
 * (https://docs.kernel.org/scheduler/sched-bwc.html) and the topology in /sys/devices/system/cpu. */
#include "base/cpu.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "base/error.h"

/* ---- Quota ----------------------------------------------------------------------------------- */

/* Takes the smallest quota of the groups. */
static void ask_group(void *user, const char *dir, bool v2)
{
    double *least = user;
    int64_t quota[2]; /* microseconds, of a period of microseconds; v2 without a limit says "max" */
    int n = v2 ? cgroup_read(dir, "cpu.max", quota, 2)
               : cgroup_read(dir, "cpu.cfs_quota_us", &quota[0], 1) +
                     cgroup_read(dir, "cpu.cfs_period_us", &quota[1], 1);
    if (n != 2 || quota[0] <= 0 || quota[1] <= 0)
        return;
    double cpus = (double)quota[0] / (double)quota[1];
    if (*least == 0 || cpus < *least)
        *least = cpus;
}

double cpu_quota(const char *root)
{
    double least = 0;
    cgroup_walk(root, "cpu", ask_group, &least);
    return least;
}

/* ---- Affinity and siblings ------------------------------------------------------------------- */

/* How many allowed CPUs with lower numbers share the core of `id`. */
static int rank_in_core(int id, const struct cpu_mask *allowed)
{
    char path[128], list[1024];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", id);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    if (!fgets(list, sizeof list, file))
        list[0] = '\0';
    fclose(file);
    int rank = 0;
    for (char *p = list; *p;) { /* "0,64" or "0-1" */
        char *end;
        long first = strtol(p, &end, 10);
        if (end == p)
            break;
        long last = *end == '-' ? strtol(end + 1, &end, 10) : first;
        for (long cpu = first; cpu <= last && cpu < id; cpu++)
            rank += CPU_ISSET_S((size_t)cpu, sizeof *allowed, allowed->sets) != 0;
        p = end + (*end == ',');
    }
    return rank;
}

/* CPUs that a thread of this process, other than the caller, is pinned to: the teams of other
 * engines. The kernel knows; no register of engines is needed. */
static void find_taken(struct cpu_mask *taken)
{
    *taken = (struct cpu_mask){0};
    DIR *tasks = opendir("/proc/self/task");
    if (!tasks)
        return;
    for (struct dirent *entry; (entry = readdir(tasks));) {
        pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
        struct cpu_mask mask = {0};
        if (tid <= 0 || tid == gettid() || sched_getaffinity(tid, sizeof mask, mask.sets) ||
            CPU_COUNT_S(sizeof mask, mask.sets) != 1)
            continue;
        CPU_OR_S(sizeof mask, taken->sets, taken->sets, mask.sets);
    }
    closedir(tasks);
}

static int compare_cores(const void *a, const void *b)
{
    const struct cpu_core *x = a, *y = b;
    if (x->taken != y->taken)
        return x->taken - y->taken;
    return x->rank != y->rank ? x->rank - y->rank : x->id - y->id;
}

int cpu_cores(struct cpu_cores *cores, struct tsr_error *error)
{
    struct cpu_mask allowed = {0}, taken;
    *cores = (struct cpu_cores){0};
    if (sched_getaffinity(0, sizeof allowed, allowed.sets))
        return error_set(error, TSR_ESYSTEM, "sched_getaffinity: %s", strerror(errno));
    find_taken(&taken);
    for (int id = 0; id < CPU_CORES_MAX; id++) {
        if (!CPU_ISSET_S((size_t)id, sizeof allowed, allowed.sets))
            continue;
        struct cpu_core *core = &cores->list[cores->n++];
        *core = (struct cpu_core){
            .id = id,
            .rank = rank_in_core(id, &allowed),
            .taken = CPU_ISSET_S((size_t)id, sizeof taken, taken.sets) != 0,
        };
        cores->n_physical += core->rank == 0;
    }
    qsort(cores->list, (size_t)cores->n, sizeof *cores->list, compare_cores);
    double quota = cpu_quota("");
    cores->n_usable = quota > 0 && cores->n > quota ? quota < 1 ? 1 : (int)quota : cores->n;
    if (cores->n_physical > cores->n_usable)
        cores->n_physical = cores->n_usable;
    return 0;
}
