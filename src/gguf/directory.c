/* The directory of tensors: names, shapes, types and where the data lie. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "gguf/internal.h"

/* Length and a byte of name, number of dimensions and one, type, offset. */
enum { MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8 };

static int read_shape(struct gguf_reader *reader, struct gguf_tensor *tensor)
{
    struct gguf_reader start = *reader;
    uint32_t n_dims;
    int code = gguf_read_u32(reader, &n_dims);
    if (code)
        return code;
    if (n_dims < 1 || n_dims > GGUF_MAX_DIMS)
        return gguf_fail(&start, TSR_EFORMAT, "tensor '%s' has %u dimensions, not 1 to %d",
                         gguf_printable(tensor->name, strlen(tensor->name)).text, n_dims,
                         GGUF_MAX_DIMS);
    tensor->n_dims = (int)n_dims;
    tensor->n_elems = 1;
    for (int d = 0; d < GGUF_MAX_DIMS; d++) {
        tensor->dims[d] = 1;
        if (d >= tensor->n_dims)
            continue;
        start = *reader;
        code = gguf_read_u64(reader, &tensor->dims[d]);
        if (code)
            return code;
        if (tensor->dims[d] == 0 ||
            __builtin_mul_overflow(tensor->n_elems, tensor->dims[d], &tensor->n_elems) ||
            tensor->n_elems > INT64_MAX)
            return gguf_fail(&start, TSR_EFORMAT,
                             "dimension %d of tensor '%s' is %llu, which no tensor can have", d,
                             gguf_printable(tensor->name, strlen(tensor->name)).text,
                             (unsigned long long)tensor->dims[d]);
    }
    return 0;
}

static int read_block_type(struct gguf_reader *reader, struct gguf_tensor *tensor)
{
    struct gguf_reader start = *reader;
    uint32_t id;
    int code = gguf_read_u32(reader, &id);
    if (code)
        return code;
    struct gguf_printable name = gguf_printable(tensor->name, strlen(tensor->name));
    tensor->type = block_type_find(id);
    if (!tensor->type)
        return gguf_fail(&start, TSR_EUNSUPPORTED,
                         "tensor '%s' is of type %u, which is unknown; the file is damaged, or "
                         "newer than this version reads",
                         name.text, id);
    if (tensor->dims[0] % tensor->type->n_elems)
        return gguf_fail(&start, TSR_EFORMAT,
                         "rows of tensor '%s' have %llu elements, no multiple of the %u of a %s "
                         "block",
                         name.text, (unsigned long long)tensor->dims[0], tensor->type->n_elems,
                         tensor->type->name);
    if (__builtin_mul_overflow(tensor->n_elems / tensor->type->n_elems, tensor->type->n_bytes,
                               &tensor->n_bytes))
        return gguf_fail(&start, TSR_EFORMAT, "tensor '%s' has 2^64 bytes or more", name.text);
    return 0;
}

/* tensor->offset is still relative to the data, and their start not known, before locate(). */
static int read_tensor(struct gguf_directory *directory, struct gguf_reader *reader, int file)
{
    struct gguf_reader start = *reader;
    struct gguf_string name;
    int code = gguf_read_name(reader, "name of a tensor", &name);
    if (code)
        return code;
    code = gguf_index_add(&directory->index, name, directory->n_tensors);
    if (code == GGUF_INDEX_DUPLICATE)
        return gguf_fail(&start, TSR_EFORMAT, "the tensor '%s' is there twice; the file is damaged",
                         gguf_printable(name.data, name.len).text);
    if (code)
        return gguf_fail_memory(reader);
    struct gguf_tensor *tensor = &directory->tensors[directory->n_tensors];
    memset(tensor, 0, sizeof *tensor);
    tensor->file = file;
    tensor->name = strndup(name.data, name.len);
    if (!tensor->name)
        return gguf_fail_memory(reader);
    directory->n_tensors++;
    code = read_shape(reader, tensor);
    if (code == 0)
        code = read_block_type(reader, tensor);
    if (code == 0)
        code = gguf_read_u64(reader, &tensor->offset);
    return code;
}

/* Turns the offset of a tensor into one from the start of the file, and checks it. */
static int locate(struct gguf_tensor *tensor, const struct gguf_reader *data, uint32_t alignment)
{
    struct gguf_printable name = gguf_printable(tensor->name, strlen(tensor->name));
    if (tensor->offset % alignment)
        return gguf_fail(data, TSR_EFORMAT,
                         "the data of tensor '%s', at %llu from here, are not aligned to %u bytes",
                         name.text, (unsigned long long)tensor->offset, alignment);
    uint64_t space = gguf_remaining(data);
    if (tensor->offset > space || tensor->n_bytes > space - tensor->offset)
        return gguf_fail(data, TSR_EFORMAT,
                         "the data of tensor '%s', %llu bytes at %llu from here, end behind the "
                         "file (%zu bytes); it is damaged or incomplete, fetch it again",
                         name.text, (unsigned long long)tensor->n_bytes,
                         (unsigned long long)tensor->offset, data->file->size);
    tensor->offset += data->pos;
    tensor->data = data->file->data + tensor->offset;
    return 0;
}

static int by_offset(const void *left, const void *right)
{
    const struct gguf_tensor *a = *(const struct gguf_tensor *const *)left;
    const struct gguf_tensor *b = *(const struct gguf_tensor *const *)right;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

/* Tensors that share bytes would let a small file ask for any amount of memory in packing. */
static int check_overlap(const struct gguf_tensor *tensors, size_t n,
                         const struct gguf_reader *data)
{
    const struct gguf_tensor **sorted = mem_alloc(n, sizeof *sorted);
    if (!sorted)
        return gguf_fail_memory(data);
    for (size_t i = 0; i < n; i++)
        sorted[i] = &tensors[i];
    qsort(sorted, n, sizeof *sorted, by_offset);
    int code = 0;
    for (size_t i = 1; i < n && code == 0; i++) {
        struct gguf_reader at = *data;
        at.pos = sorted[i]->offset;
        if (sorted[i - 1]->offset + sorted[i - 1]->n_bytes > at.pos)
            code = gguf_fail(
                &at, TSR_EFORMAT, "the data of tensors '%s' and '%s' overlap; the file is damaged",
                gguf_printable(sorted[i - 1]->name, strlen(sorted[i - 1]->name)).text,
                gguf_printable(sorted[i]->name, strlen(sorted[i]->name)).text);
    }
    free(sorted);
    return code;
}

int gguf_directory_read(struct gguf_directory *directory, struct gguf_reader *reader,
                        uint64_t count, uint32_t alignment, int file)
{
    if (count > gguf_remaining(reader) / MIN_TENSOR_BYTES)
        return gguf_fail(reader, TSR_EFORMAT,
                         "%llu tensors do not fit into the rest of the file, %llu bytes; the file "
                         "is damaged or incomplete",
                         (unsigned long long)count, (unsigned long long)gguf_remaining(reader));
    size_t first = directory->n_tensors;
    for (uint64_t i = 0; i < count; i++) {
        void *tensors = directory->tensors;
        if (!gguf_grow(&tensors, &directory->capacity, directory->n_tensors,
                       sizeof *directory->tensors))
            return gguf_fail_memory(reader);
        directory->tensors = tensors;
        int code = read_tensor(directory, reader, file);
        if (code)
            return code;
    }
    if (count == 0)
        return 0;
    const void *padding;
    int code = gguf_read_bytes(reader, -reader->pos & (alignment - 1), &padding);
    for (size_t i = first; i < directory->n_tensors && code == 0; i++)
        code = locate(&directory->tensors[i], reader, alignment);
    if (code == 0)
        code = check_overlap(directory->tensors + first, directory->n_tensors - first, reader);
    return code;
}

void gguf_directory_free(struct gguf_directory *directory)
{
    for (size_t i = 0; i < directory->n_tensors; i++)
        free(directory->tensors[i].name);
    free(directory->tensors);
    free(directory->index.slots);
}
