/* Parts of the GGUF reader: files, the cursor that checks every read, tables and the index. */
#ifndef TESSERA_GGUF_INTERNAL_H
#define TESSERA_GGUF_INTERNAL_H

#include "gguf/gguf.h"

struct gguf_file {
    char *path;
    const uint8_t *data;
    size_t size;
    struct gguf_identity identity;
    bool mapped; /* unmapped on closing; otherwise the memory is the caller's */
};

/* Maps a regular file for reading. On failure `file` needs no closing. */
int gguf_file_map(struct gguf_file *file, const char *path, struct tsr_error *error);
void gguf_file_close(struct gguf_file *file);

/* A position in a file. Reads fail, with an error that names file and offset, rather than pass the
 * end; the position is then that of the faulty field. */
struct gguf_reader {
    const struct gguf_file *file;
    uint64_t pos;
    struct tsr_error *error;
};

static inline uint64_t gguf_remaining(const struct gguf_reader *reader)
{
    return reader->file->size - reader->pos;
}

/* "FILE: offset N: ..." */
__attribute__((format(printf, 3, 4))) int gguf_fail(const struct gguf_reader *reader, int code,
                                                    const char *format, ...);
int gguf_fail_memory(const struct gguf_reader *reader);
int gguf_read_bytes(struct gguf_reader *reader, uint64_t n, const void **bytes);
int gguf_read_u32(struct gguf_reader *reader, uint32_t *value);
int gguf_read_u64(struct gguf_reader *reader, uint64_t *value);
int gguf_read_string(struct gguf_reader *reader, struct gguf_string *string);
/* A name or key: not empty, at most 65535 bytes, no NUL. `what` is for the message. */
int gguf_read_name(struct gguf_reader *reader, const char *what, struct gguf_string *name);

/* Makes room for item `n` of an array that grows as the file is read, so that no count in the file
 * sizes an allocation. False when out of memory. */
bool gguf_grow(void **items, size_t *capacity, size_t n, size_t item_size);

/* Hash table from names, which it does not copy, to numbers. */
struct gguf_index_slot {
    struct gguf_string key; /* data == NULL: free */
    size_t item;
};

struct gguf_index {
    struct gguf_index_slot *slots;
    size_t capacity; /* 0 or a power of two, at least twice the number of keys */
    size_t used;
};

enum { GGUF_INDEX_DUPLICATE = 1 };
/* 0, GGUF_INDEX_DUPLICATE or TSR_ENOMEM. */
int gguf_index_add(struct gguf_index *index, struct gguf_string key, size_t item);
bool gguf_index_find(const struct gguf_index *index, struct gguf_string key, size_t *item);

struct gguf_metadata {
    struct gguf_value *values;
    size_t n_values, capacity;
    struct gguf_index index;
};

/* Reads `count` key-value pairs. What was read before a failure is left for _free. */
int gguf_metadata_read(struct gguf_metadata *metadata, struct gguf_reader *reader, uint64_t count);
void gguf_metadata_free(struct gguf_metadata *metadata);
const struct gguf_value *gguf_metadata_find(const struct gguf_metadata *metadata, const char *key);

const char *gguf_value_type_name(enum gguf_value_type type);
size_t gguf_value_type_size(enum gguf_value_type type); /* 0 for strings and arrays */
bool gguf_value_type_is_int(enum gguf_value_type type);
/* False where the value is no integer or does not fit. */
bool gguf_value_u32(const struct gguf_value *value, uint32_t *out);

struct gguf_directory {
    struct gguf_tensor *tensors;
    size_t n_tensors, capacity;
    struct gguf_index index;
};

/* Appends the `count` tensors of file number `file`, whose data start at the next multiple of
 * `alignment` behind the directory. What was read before a failure is left for _free. */
int gguf_directory_read(struct gguf_directory *directory, struct gguf_reader *reader,
                        uint64_t count, uint32_t alignment, int file);
void gguf_directory_free(struct gguf_directory *directory);

struct gguf {
    struct gguf_file *files;
    size_t n_files;
    uint32_t version;
    struct gguf_metadata metadata; /* of the first file */
    struct gguf_directory directory;
};

#endif
