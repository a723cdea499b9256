/* Opening GGUF files, split ones included, and looking things up in them. */
#include "gguf/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf/internal.h"

enum { DEFAULT_ALIGNMENT = 32, LARGEST_ALIGNMENT = 1 << 20 };

static int check_magic(struct gguf_reader *reader)
{
    static const char lfs[] = "version https://git-lfs";
    const struct gguf_file *file = reader->file;
    if (file->size >= 4 && memcmp(file->data, "GGUF", 4) == 0) {
        reader->pos = 4;
        return 0;
    }
    if (file->size >= sizeof lfs && memcmp(file->data, lfs, sizeof lfs - 1) == 0)
        return gguf_fail(reader, TSR_EFORMAT,
                         "this is a Git LFS pointer; fetch the file itself with 'git lfs pull'");
    return gguf_fail(reader, TSR_EFORMAT, "this is not a GGUF file (it does not start with GGUF)");
}

static int read_version(struct gguf_reader *reader, uint32_t *version)
{
    struct gguf_reader start = *reader;
    int code = gguf_read_u32(reader, version);
    if (code)
        return code;
    if (*version != 0 && (*version & 0xffff) == 0)
        return gguf_fail(&start, TSR_EUNSUPPORTED,
                         "this is a big-endian GGUF file; convert it to little-endian");
    if (*version != 2 && *version != 3)
        return gguf_fail(&start, TSR_EUNSUPPORTED,
                         "GGUF version %u cannot be read, only 2 and 3; convert the model anew",
                         *version);
    return 0;
}

static int read_alignment(const struct gguf_metadata *metadata, const struct gguf_reader *reader,
                          uint32_t *alignment)
{
    const struct gguf_value *value = gguf_metadata_find(metadata, "general.alignment");
    *alignment = DEFAULT_ALIGNMENT;
    if (!value)
        return 0;
    if (!gguf_value_u32(value, alignment) || *alignment < 8 || *alignment > LARGEST_ALIGNMENT ||
        (*alignment & (*alignment - 1)))
        return gguf_fail(reader, TSR_EFORMAT,
                         "general.alignment is not a power of two from 8 to %d", LARGEST_ALIGNMENT);
    return 0;
}

/* Reads header, metadata and tensors of file number `number`. */
static int read_file(struct gguf *gguf, size_t number, struct gguf_metadata *metadata,
                     struct tsr_error *error)
{
    struct gguf_reader reader = {.file = &gguf->files[number], .error = error};
    uint32_t version, alignment;
    uint64_t n_tensors, n_pairs;
    int code = check_magic(&reader);
    if (code == 0)
        code = read_version(&reader, &version);
    if (code == 0)
        code = gguf_read_u64(&reader, &n_tensors);
    if (code == 0)
        code = gguf_read_u64(&reader, &n_pairs);
    if (code == 0)
        code = gguf_metadata_read(metadata, &reader, n_pairs);
    if (code == 0)
        code = read_alignment(metadata, &reader, &alignment);
    if (code)
        return code;
    if (number == 0)
        gguf->version = version;
    return gguf_directory_read(&gguf->directory, &reader, n_tensors, alignment, (int)number);
}

/* split.no and split.count of one file: 0 of 1 where it is not split. */
static int read_split(const struct gguf_metadata *metadata, const char *path, uint32_t *number,
                      uint32_t *count, struct tsr_error *error)
{
    const struct gguf_value *count_value = gguf_metadata_find(metadata, "split.count");
    const struct gguf_value *number_value = gguf_metadata_find(metadata, "split.no");
    *number = 0;
    *count = 1;
    if (!count_value)
        return 0;
    if (!gguf_value_u32(count_value, count) || *count > UINT16_MAX ||
        (number_value && !gguf_value_u32(number_value, number)))
        return error_set(error, TSR_EFORMAT, "%s: split.no or split.count is not a u16", path);
    if (*count == 0)
        *count = 1;
    return 0;
}

/* Path of part `number` (from 0) of a model whose first file is `first`; NULL when out of memory or
 * where the name of the first does not end as it must. */
static char *part_path(const char *first, uint32_t number, uint32_t count)
{
    char suffix[48], *path;
    int n = snprintf(suffix, sizeof suffix, "-00001-of-%05u.gguf", count);
    size_t len = strlen(first);
    if (len < (size_t)n || strcmp(first + len - n, suffix) != 0)
        return NULL;
    n = asprintf(&path, "%.*s-%05u-of-%05u.gguf", (int)(len - n), first, number + 1, count);
    return n < 0 ? NULL : path;
}

static int open_part(struct gguf *gguf, uint32_t part, uint32_t count, struct tsr_error *error)
{
    struct gguf_metadata metadata = {0};
    uint32_t number = 0, part_count = 0;
    char *path = part_path(gguf_path(gguf), part, count);
    if (!path)
        return error_set(error, TSR_EFORMAT,
                         "%s: this is the first of %u parts, and must be named "
                         "...-00001-of-%05u.gguf so that the others are found",
                         gguf_path(gguf), count, count);
    int code = gguf_file_map(&gguf->files[part], path, error);
    if (code == 0) {
        gguf->n_files++;
        code = read_file(gguf, part, &metadata, error);
    }
    if (code == 0)
        code = read_split(&metadata, path, &number, &part_count, error);
    if (code == 0 && (number != part || part_count != count))
        code = error_set(error, TSR_EFORMAT,
                         "%s: is part %u of %u by its metadata, not %u of %u; it belongs to "
                         "another model",
                         path, number + 1, part_count, part + 1, count);
    gguf_metadata_free(&metadata);
    free(path);
    return code;
}

static int open_parts(struct gguf *gguf, struct tsr_error *error)
{
    uint32_t number, count, n_tensors;
    int code = read_split(&gguf->metadata, gguf_path(gguf), &number, &count, error);
    if (code || count == 1)
        return code;
    if (number != 0)
        return error_set(error, TSR_EFORMAT,
                         "%s: is part %u of %u of a split model; give the path of the first",
                         gguf_path(gguf), number + 1, count);
    if (!gguf->files[0].mapped)
        return error_set(error, TSR_EUNSUPPORTED,
                         "%s: is a part of a split model, which can be opened by its path only",
                         gguf_path(gguf));
    struct gguf_file *files = realloc(gguf->files, count * sizeof *files);
    if (!files)
        return error_set(error, TSR_ENOMEM, "%s: out of memory", gguf_path(gguf));
    gguf->files = files;
    for (uint32_t part = 1; part < count && code == 0; part++)
        code = open_part(gguf, part, count, error);
    const struct gguf_value *value = gguf_metadata_find(&gguf->metadata, "split.tensors.count");
    if (code == 0 && value &&
        (!gguf_value_u32(value, &n_tensors) || n_tensors != gguf_n_tensors(gguf)))
        code = error_set(error, TSR_EFORMAT,
                         "%s: the %u parts hold %zu tensors, not as many as split.tensors.count "
                         "says; fetch them again",
                         gguf_path(gguf), count, gguf_n_tensors(gguf));
    return code;
}

/* Takes ownership of `file`, on failure too. */
static int open_first(struct gguf_file file, struct gguf **out, struct tsr_error *error)
{
    struct gguf *gguf = calloc(1, sizeof *gguf);
    struct gguf_file *files = malloc(sizeof *files);
    *out = NULL;
    if (!gguf || !files) {
        int code = error_set(error, TSR_ENOMEM, "%s: out of memory", file.path);
        gguf_file_close(&file);
        free(gguf);
        free(files);
        return code;
    }
    *files = file;
    gguf->files = files;
    gguf->n_files = 1;
    int code = read_file(gguf, 0, &gguf->metadata, error);
    if (code == 0)
        code = open_parts(gguf, error);
    if (code) {
        gguf_close(gguf);
        return code;
    }
    *out = gguf;
    return 0;
}

int gguf_open(const char *path, struct gguf **gguf, struct tsr_error *error)
{
    struct gguf_file file;
    *gguf = NULL;
    int code = gguf_file_map(&file, path, error);
    return code ? code : open_first(file, gguf, error);
}

int gguf_open_memory(const void *data, size_t size, struct gguf **gguf, struct tsr_error *error)
{
    struct gguf_file file = {.path = strdup("(memory)"), .data = data, .size = size};
    *gguf = NULL;
    if (!file.path)
        return error_set(error, TSR_ENOMEM, "out of memory");
    return open_first(file, gguf, error);
}

void gguf_close(struct gguf *gguf)
{
    if (!gguf)
        return;
    gguf_metadata_free(&gguf->metadata);
    gguf_directory_free(&gguf->directory);
    for (size_t i = 0; i < gguf->n_files; i++)
        gguf_file_close(&gguf->files[i]);
    free(gguf->files);
    free(gguf);
}

size_t gguf_n_files(const struct gguf *gguf)
{
    return gguf->n_files;
}

struct gguf_identity gguf_identity_at(const struct gguf *gguf, size_t i)
{
    return gguf->files[i].identity;
}

const char *gguf_path(const struct gguf *gguf)
{
    return gguf->files[0].path;
}

uint32_t gguf_version(const struct gguf *gguf)
{
    return gguf->version;
}

uint64_t gguf_file_bytes(const struct gguf *gguf)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < gguf->n_files; i++)
        bytes += gguf->files[i].size;
    return bytes;
}

size_t gguf_n_values(const struct gguf *gguf)
{
    return gguf->metadata.n_values;
}

const struct gguf_value *gguf_value_at(const struct gguf *gguf, size_t index)
{
    return &gguf->metadata.values[index];
}

size_t gguf_n_tensors(const struct gguf *gguf)
{
    return gguf->directory.n_tensors;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, size_t index)
{
    return &gguf->directory.tensors[index];
}

const struct gguf_value *gguf_find(const struct gguf *gguf, const char *key)
{
    return gguf_metadata_find(&gguf->metadata, key);
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *gguf, const char *name)
{
    size_t item;
    struct gguf_string key = {.data = name, .len = strlen(name)};
    return gguf_index_find(&gguf->directory.index, key, &item) ? gguf_tensor_at(gguf, item) : NULL;
}
