#include "tests/support/files.h"

#include <dirent.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char temp_dir[64];
static pid_t temp_owner;

static char *path_buffer(void)
{
    static char buffers[2][4096];
    static int turn;
    turn = !turn;
    return buffers[turn];
}

const char *source_path(const char *name)
{
    char *path = path_buffer();
    snprintf(path, 4096, "%s/%s", TSR_SOURCE_ROOT, name);
    return path;
}

const char *shared_path(const char *name)
{
    char *path = path_buffer();
    const char *shared = getenv("TSR_SHARED");
    if (shared)
        snprintf(path, 4096, "%s/%s", shared, name);
    else
        snprintf(path, 4096, "%s/../shared/%s", TSR_SOURCE_ROOT, name);
    return access(path, R_OK) ? NULL : path;
}

void *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    struct stat st;
    if (!file || fstat(fileno(file), &st))
        err(1, "%s", path);
    size_t n = (size_t)st.st_size;
    char *data = malloc(n + 1);
    if (!data || fread(data, 1, n, file) != n)
        err(1, "%s", path);
    fclose(file);
    data[n] = 0;
    if (size)
        *size = n;
    return data;
}

void *read_test_data(const char *name, size_t *size)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/tests/data/%s", TSR_SOURCE_ROOT, name);
    return read_file(path, size);
}

void write_file(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file))
        err(1, "%s", path);
}

void write_text_below(const char *root, const char *dir, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "mkdir -p '%s%s'", root, dir);
    if (system(path) != 0)
        errx(1, "%s%s: cannot be made", root, dir);
    snprintf(path, sizeof path, "%s%s/%s", root, dir, name);
    write_file(path, text, strlen(text));
}

static void remove_temp_dir(void)
{
    if (getpid() != temp_owner)
        return;
    DIR *dir = opendir(temp_dir);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));)
        unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    rmdir(temp_dir);
}

const char *temp_path(const char *name)
{
    if (!*temp_dir) {
        snprintf(temp_dir, sizeof temp_dir, "/tmp/tessera-test-XXXXXX");
        if (!mkdtemp(temp_dir))
            err(1, "%s", temp_dir);
        temp_owner = getpid();
        atexit(remove_temp_dir);
    }
    char *path = path_buffer();
    snprintf(path, 4096, "%s/%s", temp_dir, name);
    return path;
}
