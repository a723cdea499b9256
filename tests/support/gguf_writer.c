/* The order of a file: header, metadata, directory of tensors, padding, data. The first three are
 * kept in memory until their counts are known; random weights are made as they are written. */
#include "tests/support/gguf_writer.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/random_weights.h"

enum { VERSION = 3, CHUNK_BLOCKS = 4096 };

struct buffer {
    char *bytes;
    size_t n;
};

struct pending {
    const struct block_type *type;
    uint64_t n_bytes, seed;
    const void *data;
};

struct gguf_writer {
    FILE *file;
    char *path;
    struct buffer metadata, directory;
    uint64_t n_values, n_tensors, data_bytes;
    uint32_t alignment;
    struct pending *tensors;
    bool hole;
};

static void put(struct buffer *buffer, const void *bytes, size_t n)
{
    buffer->bytes = realloc(buffer->bytes, buffer->n + n + 1);
    if (!buffer->bytes)
        err(1, "gguf_writer");
    memcpy(buffer->bytes + buffer->n, bytes, n);
    buffer->n += n;
}

static void put_u32(struct buffer *buffer, uint32_t value)
{
    put(buffer, &value, sizeof value);
}

static void put_u64(struct buffer *buffer, uint64_t value)
{
    put(buffer, &value, sizeof value);
}

static void put_string(struct buffer *buffer, const char *string)
{
    put_u64(buffer, strlen(string));
    put(buffer, string, strlen(string));
}

/* Everything that a value holds behind its key and type comes with later puts. */
static struct buffer *start_value(struct gguf_writer *writer, const char *key,
                                  enum gguf_value_type type)
{
    put_string(&writer->metadata, key);
    put_u32(&writer->metadata, type);
    writer->n_values++;
    return &writer->metadata;
}

static size_t number_size(enum gguf_value_type type)
{
    switch (type) {
    case GGUF_U8: case GGUF_I8: case GGUF_BOOL:
        return 1;
    case GGUF_U16: case GGUF_I16:
        return 2;
    case GGUF_U32: case GGUF_I32: case GGUF_F32:
        return 4;
    case GGUF_U64: case GGUF_I64: case GGUF_F64:
        return 8;
    default:
        errx(1, "gguf_writer: value type %d is no number", type);
    }
}

struct gguf_writer *gguf_writer_open(const char *path)
{
    struct gguf_writer *writer = calloc(1, sizeof *writer);
    if (!writer || !(writer->path = strdup(path)) || !(writer->file = fopen(path, "wb")))
        err(1, "%s", path);
    writer->alignment = 32;
    return writer;
}

void gguf_writer_alignment(struct gguf_writer *writer, uint32_t alignment)
{
    gguf_writer_int(writer, "general.alignment", GGUF_U32, alignment);
    writer->alignment = alignment;
}

void gguf_writer_int(struct gguf_writer *writer, const char *key, enum gguf_value_type type,
                     int64_t value)
{
    put(start_value(writer, key, type), &value, number_size(type));
}

void gguf_writer_f32(struct gguf_writer *writer, const char *key, float value)
{
    put(start_value(writer, key, GGUF_F32), &value, sizeof value);
}

void gguf_writer_string(struct gguf_writer *writer, const char *key, const char *value)
{
    put_string(start_value(writer, key, GGUF_STRING), value);
}

void gguf_writer_strings(struct gguf_writer *writer, const char *key, const char *const *values,
                         size_t n)
{
    struct buffer *buffer = start_value(writer, key, GGUF_ARRAY);
    put_u32(buffer, GGUF_STRING);
    put_u64(buffer, n);
    for (size_t i = 0; i < n; i++)
        put_string(buffer, values[i]);
}

void gguf_writer_array(struct gguf_writer *writer, const char *key, enum gguf_value_type type,
                       const void *values, size_t n)
{
    struct buffer *buffer = start_value(writer, key, GGUF_ARRAY);
    put_u32(buffer, type);
    put_u64(buffer, n);
    put(buffer, values, n * number_size(type));
}

void gguf_writer_raw(struct gguf_writer *writer, const char *key, enum gguf_value_type type,
                     const void *bytes, size_t n_bytes)
{
    put(start_value(writer, key, type), bytes, n_bytes);
}

static uint64_t pad(const struct gguf_writer *writer, uint64_t n)
{
    return (n + writer->alignment - 1) / writer->alignment * writer->alignment;
}

void gguf_writer_tensor(struct gguf_writer *writer, const char *name, enum block_id type,
                        int n_dims, const uint64_t *dims, const void *data)
{
    const struct block_type *block = block_type_find(type);
    if (!block)
        errx(1, "gguf_writer: %s: block type %d", name, type);
    struct pending tensor = {.type = block, .data = data, .n_bytes = block->n_bytes};
    for (const char *c = name; *c; c++)
        tensor.seed = tensor.seed * 31 + (unsigned char)*c;

    put_string(&writer->directory, name);
    put_u32(&writer->directory, (uint32_t)n_dims);
    uint64_t n_elems = 1;
    for (int d = 0; d < n_dims; d++) {
        put_u64(&writer->directory, dims[d]);
        n_elems *= dims[d];
    }
    put_u32(&writer->directory, type);
    put_u64(&writer->directory, writer->data_bytes);

    tensor.n_bytes *= n_elems / block->n_elems;
    writer->data_bytes += pad(writer, tensor.n_bytes);
    writer->tensors = realloc(writer->tensors, (writer->n_tensors + 1) * sizeof tensor);
    if (!writer->tensors)
        err(1, "gguf_writer");
    writer->tensors[writer->n_tensors++] = tensor;
}

static void emit(struct gguf_writer *writer, const void *bytes, size_t n)
{
    if (n && fwrite(bytes, 1, n, writer->file) != n)
        err(1, "%s", writer->path);
}

static void emit_padding(struct gguf_writer *writer, uint64_t n)
{
    for (uint64_t i = n; i < pad(writer, n); i++)
        emit(writer, "", 1);
}

static void emit_tensor(struct gguf_writer *writer, const struct pending *tensor)
{
    if (tensor->data) {
        emit(writer, tensor->data, tensor->n_bytes);
        return;
    }
    size_t chunk = (size_t)CHUNK_BLOCKS * tensor->type->n_bytes;
    void *weights = malloc(chunk);
    if (!weights)
        err(1, "gguf_writer");
    uint64_t state = tensor->seed;
    for (uint64_t done = 0; done < tensor->n_bytes; done += chunk) {
        if (chunk > tensor->n_bytes - done)
            chunk = tensor->n_bytes - done;
        random_weights(tensor->type, weights, chunk, 0.02f, &state);
        emit(writer, weights, chunk);
    }
    free(weights);
}

void gguf_writer_hole(struct gguf_writer *writer)
{
    writer->hole = true;
}

static void extend(struct gguf_writer *writer)
{
    off_t header = ftello(writer->file);
    if (header < 0 || fflush(writer->file) ||
        ftruncate(fileno(writer->file), header + (off_t)writer->data_bytes))
        err(1, "%s", writer->path);
}

void gguf_writer_close(struct gguf_writer *writer)
{
    struct buffer header = {0};
    put(&header, "GGUF", 4);
    put_u32(&header, VERSION);
    put_u64(&header, writer->n_tensors);
    put_u64(&header, writer->n_values);
    emit(writer, header.bytes, header.n);
    emit(writer, writer->metadata.bytes, writer->metadata.n);
    emit(writer, writer->directory.bytes, writer->directory.n);
    if (writer->n_tensors)
        emit_padding(writer, header.n + writer->metadata.n + writer->directory.n);
    if (writer->hole)
        extend(writer);
    for (uint64_t i = 0; !writer->hole && i < writer->n_tensors; i++) {
        emit_tensor(writer, &writer->tensors[i]);
        emit_padding(writer, writer->tensors[i].n_bytes);
    }
    if (fclose(writer->file))
        err(1, "%s", writer->path);
    free(header.bytes);
    free(writer->metadata.bytes);
    free(writer->directory.bytes);
    free(writer->tensors);
    free(writer->path);
    free(writer);
}
