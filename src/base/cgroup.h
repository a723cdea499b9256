/* The control groups of this process, of version 1 or 2
 * (https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1/). */
#ifndef TESSERA_BASE_CGROUP_H
#define TESSERA_BASE_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

/* A folder of the cgroup file system; `v2` tells which files it may hold. */
typedef void cgroup_visit_fn(void *user, const char *dir, bool v2);

/* Calls `visit` for the group of this process and for each group above it, in the hierarchy of
 * version 2 and in that of version 1 that has `controller` ("cpu", "memory"): a limit of any of
 * them counts. `root` is put before /proc and the mount points: "" but in tests. */
void cgroup_walk(const char *root, const char *controller, cgroup_visit_fn *visit, void *user);

/* Integers at the start of dir/name, up to n; returns how many there are: 0 where the file is
 * missing or says "max". */
int cgroup_read(const char *dir, const char *name, int64_t *values, int n);

/* The value behind `key` at the start of a line of dir/name; 0 where there is none. */
uint64_t cgroup_read_key(const char *dir, const char *name, const char *key);

#endif
