#include "base/cgroup.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { PATH_CAP = 4096 };

/* ---- Files of a group ------------------------------------------------------------------------ */

static FILE *open_file(const char *dir, const char *name)
{
    char path[PATH_CAP + 64];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return fopen(path, "re");
}

int cgroup_read(const char *dir, const char *name, int64_t *values, int n)
{
    FILE *file = open_file(dir, name);
    if (!file)
        return 0;
    int count = 0;
    while (count < n && fscanf(file, "%" SCNd64, &values[count]) == 1)
        count++;
    fclose(file);
    return count;
}

uint64_t cgroup_read_key(const char *dir, const char *name, const char *key)
{
    FILE *file = open_file(dir, name);
    if (!file)
        return 0;
    char line[256], word[128];
    uint64_t value = 0, number;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "%127s %" SCNu64, word, &number) == 2 && !strcmp(word, key))
            value = number;
    fclose(file);
    return value;
}

/* ---- Groups ---------------------------------------------------------------------------------- */

/* Whether `word` is one of the comma-separated `list`. */
static bool list_has(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, word, n) && (p[n] == ',' || p[n] == '\0'))
            return true;
    return false;
}

/* Where the cgroup file system of version 2, or the v1 hierarchy with the controller, is. */
static bool find_mount(const char *root, const char *controller, bool v2, char *mount,
                       size_t capacity)
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
                   : !strcmp(type, "cgroup") && list_has(options, controller);
        if (found && snprintf(mount, capacity, "%s%s", root, point) >= (int)capacity)
            found = false;
    }
    fclose(file);
    return found;
}

/* From the group up to the mount point. A container may not see its own group's path: then only
 * the mount point has files. */
static void visit_upwards(const char *mount, const char *group, bool v2, cgroup_visit_fn *visit,
                          void *user)
{
    char dir[PATH_CAP];
    if (snprintf(dir, sizeof dir, "%s%s", mount, group) >= (int)sizeof dir)
        return;
    for (;;) {
        visit(user, dir, v2);
        char *slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < strlen(mount))
            return;
        *slash = '\0';
    }
}

void cgroup_walk(const char *root, const char *controller, cgroup_visit_fn *visit, void *user)
{
    char path[PATH_CAP], line[2 * PATH_CAP], mount[PATH_CAP];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':'); /* "id:controllers:path" */
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        bool v2 = !controllers[1];
        if ((v2 || list_has(controllers + 1, controller)) &&
            find_mount(root, controller, v2, mount, sizeof mount))
            visit_upwards(mount, strcmp(group, "/") ? group : "", v2, visit, user);
    }
    fclose(file);
}
