/* Mapping files, and the cursor through which every byte of a GGUF directory is read. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "gguf/internal.h"

/* Maps the open file; the caller closes `fd`. */
static int map_descriptor(struct gguf_file *file, const char *path, int fd, struct tsr_error *error)
{
    struct stat st;
    if (fstat(fd, &st))
        return error_set(error, TSR_EIO, "%s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return error_set(error, TSR_EIO, "%s: is a directory; give the path of a .gguf file", path);
    if (!S_ISREG(st.st_mode))
        return error_set(error, TSR_EIO, "%s: is not a regular file; give the path of a .gguf file",
                         path);
    if (st.st_size == 0)
        return error_set(error, TSR_EFORMAT, "%s: is empty; fetch the file again", path);
    size_t size = (size_t)st.st_size;
    void *data = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        return error_set(error, TSR_EIO, "%s: cannot be memory-mapped: %s", path, strerror(errno));
    char *copy = strdup(path);
    if (!copy) {
        munmap(data, size);
        return error_set(error, TSR_ENOMEM, "%s: out of memory", path);
    }
    *file = (struct gguf_file){.path = copy, .data = data, .size = size, .mapped = true};
    file->identity = (struct gguf_identity){.device = st.st_dev,
                                            .inode = st.st_ino,
                                            .size = size,
                                            .seconds = st.st_mtim.tv_sec,
                                            .nanoseconds = st.st_mtim.tv_nsec};
    return 0;
}

int gguf_file_map(struct gguf_file *file, const char *path, struct tsr_error *error)
{
    /* Without O_NONBLOCK opening a FIFO would wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(error, TSR_EIO, "%s: %s", path, strerror(errno));
    int code = map_descriptor(file, path, fd, error);
    close(fd);
    return code;
}

void gguf_file_close(struct gguf_file *file)
{
    if (file->mapped)
        munmap((void *)file->data, file->size);
    free(file->path);
}

int gguf_fail(const struct gguf_reader *reader, int code, const char *format, ...)
{
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return error_set(reader->error, code, "%.400s: offset %llu: %s", reader->file->path,
                     (unsigned long long)reader->pos, what);
}

int gguf_fail_memory(const struct gguf_reader *reader)
{
    return gguf_fail(reader, TSR_ENOMEM, "out of memory");
}

int gguf_read_bytes(struct gguf_reader *reader, uint64_t n, const void **bytes)
{
    *bytes = reader->file->data + reader->pos;
    if (n > gguf_remaining(reader))
        return gguf_fail(reader, TSR_EFORMAT,
                         "%llu more bytes are needed, %llu are left; the file is damaged or "
                         "incomplete, fetch it again",
                         (unsigned long long)n, (unsigned long long)gguf_remaining(reader));
    reader->pos += n;
    return 0;
}

int gguf_read_u32(struct gguf_reader *reader, uint32_t *value)
{
    const void *bytes;
    int code = gguf_read_bytes(reader, sizeof *value, &bytes);
    if (code == 0)
        memcpy(value, bytes, sizeof *value);
    return code;
}

int gguf_read_u64(struct gguf_reader *reader, uint64_t *value)
{
    const void *bytes;
    int code = gguf_read_bytes(reader, sizeof *value, &bytes);
    if (code == 0)
        memcpy(value, bytes, sizeof *value);
    return code;
}

int gguf_read_string(struct gguf_reader *reader, struct gguf_string *string)
{
    uint64_t len = 0;
    const void *bytes;
    int code = gguf_read_u64(reader, &len);
    if (code == 0)
        code = gguf_read_bytes(reader, len, &bytes);
    if (code)
        return code;
    *string = (struct gguf_string){.data = bytes, .len = len};
    return 0;
}

int gguf_read_name(struct gguf_reader *reader, const char *what, struct gguf_string *name)
{
    struct gguf_reader start = *reader;
    int code = gguf_read_string(reader, name);
    if (code)
        return code;
    if (name->len == 0 || name->len > UINT16_MAX)
        return gguf_fail(&start, TSR_EFORMAT, "the %s has %zu bytes, not 1 to 65535", what,
                         name->len);
    if (memchr(name->data, 0, name->len))
        return gguf_fail(&start, TSR_EFORMAT, "the %s '%s' has a NUL inside", what,
                         gguf_printable(name->data, name->len).text);
    return 0;
}

struct gguf_printable gguf_printable(const char *data, size_t len)
{
    enum { LONGEST = 64 };
    struct gguf_printable out;
    size_t n = len < LONGEST ? len : LONGEST;
    for (size_t i = 0; i < n; i++)
        out.text[i] = data[i] >= ' ' && data[i] <= '~' ? data[i] : '?';
    strcpy(out.text + n, n < len ? "..." : "");
    return out;
}

bool gguf_grow(void **items, size_t *capacity, size_t n, size_t item_size)
{
    if (n < *capacity)
        return true;
    size_t wanted = *capacity ? *capacity * 2 : 16, bytes;
    if (!mul_size(wanted, item_size, &bytes))
        return false;
    void *grown = realloc(*items, bytes);
    if (!grown)
        return false;
    *items = grown;
    *capacity = wanted;
    return true;
}
