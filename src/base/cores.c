/* Which CPUs this process may use: the affinity mask, the CPU quota of its cgroups
 * (https://docs.kernel.org/admin-guide/cgroup-v2.html, .../scheduler/sched-bwc.html) and the
 * topology in /sys/devices/system/cpu. */
#include "base/cpu.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

/* ---- Quota ----------------------------------------------------------------------------------- */

enum { PATH_CAP = 4096 };

/* Two integers "quota period" of a cgroup's files; false where there are none or no limit. */
static bool read_quota(const char *dir, bool v2, long long *quota, long long *period)
{
    char path[PATH_CAP + 32];
    snprintf(path, sizeof path, "%s/%s", dir, v2 ? "cpu.max" : "cpu.cfs_quota_us");
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    int n = fscanf(file, "%lld %lld", quota, period); /* v2 without a limit says "max" */
    fclose(file);
    if (v2)
        return n == 2 && *quota > 0 && *period > 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
    file = fopen(path, "re");
    if (!file)
        return false;
    n += fscanf(file, "%lld", period);
    fclose(file);
    return n == 2 && *quota > 0 && *period > 0;
}

/* The smallest quota of the group `group` below `mount` and of all groups above it. A container
 * may not see its own group's path: then the mount point itself is asked. */
static double group_quota(const char *mount, const char *group, bool v2)
{
    double least = 0;
    char dir[PATH_CAP];
    if (snprintf(dir, sizeof dir, "%s%s", mount, group) >= (int)sizeof dir)
        return 0;
    for (;;) {
        long long quota, period;
        if (read_quota(dir, v2, &quota, &period)) {
            double cpus = (double)quota / (double)period;
            if (least == 0 || cpus < least)
                least = cpus;
        }
        char *slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < strlen(mount))
            return least;
        *slash = '\0';
    }
}

/* Whether `word` is one of the comma-separated `list`. */
static bool list_has(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, word, n) && (p[n] == ',' || p[n] == '\0'))
            return true;
    return false;
}

/* Where the cgroup file system of version 2, or the v1 hierarchy with the cpu controller, is. */
static bool find_mount(const char *root, bool v2, char *mount, size_t capacity)
{
    char path[PATH_CAP], line[2 * PATH_CAP];
    snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool found = false;
    while (!found && fgets(line, sizeof line, file)) {
        char point[PATH_CAP], type[64], options[PATH_CAP];
        const char *tail = strstr(line, " - ");
        if (!tail || sscanf(line, "%*s %*s %*s %*s %4095s", point) != 1 ||
            sscanf(tail, " - %63s %*s %4095s", type, options) != 2)
            continue;
        found = v2 ? !strcmp(type, "cgroup2")
                   : !strcmp(type, "cgroup") && list_has(options, "cpu");
        if (found && snprintf(mount, capacity, "%s%s", root, point) >= (int)capacity)
            found = false;
    }
    fclose(file);
    return found;
}

double cpu_quota(const char *root)
{
    char path[PATH_CAP], line[2 * PATH_CAP], mount[PATH_CAP];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    double least = 0;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':'); /* "id:controllers:path" */
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        bool v2 = !controllers[1];
        if ((!v2 && !list_has(controllers + 1, "cpu")) ||
            !find_mount(root, v2, mount, sizeof mount))
            continue;
        double cpus = group_quota(mount, strcmp(group, "/") ? group : "", v2);
        if (cpus > 0 && (least == 0 || cpus < least))
            least = cpus;
    }
    fclose(file);
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
