/* Key-value pairs of a GGUF file. Numbers in arrays stay in the file; strings of arrays and nested
 * arrays are indexed once. */
#include <stdlib.h>
#include <string.h>

#include "gguf/internal.h"

enum { MAX_ARRAY_DEPTH = 8 };

/* Bytes that an entry takes in the file at least, against which counts are checked. */
enum {
    MIN_PAIR_BYTES = 8 + 1 + 4 + 1, /* length and a byte of key, type, value */
    MIN_STRING_BYTES = 8,
    MIN_ARRAY_BYTES = 4 + 8,
};

static const struct {
    const char *name;
    uint8_t size;
} value_types[] = {
    [GGUF_U8] = {"u8", 1},         [GGUF_I8] = {"i8", 1},       [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},       [GGUF_U32] = {"u32", 4},     [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},       [GGUF_BOOL] = {"bool", 1},   [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0},   [GGUF_U64] = {"u64", 8},     [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

enum { N_VALUE_TYPES = sizeof value_types / sizeof value_types[0] };

const char *gguf_value_type_name(enum gguf_value_type type)
{
    return value_types[type].name;
}

size_t gguf_value_type_size(enum gguf_value_type type)
{
    return value_types[type].size;
}

static bool is_signed(enum gguf_value_type type)
{
    return type == GGUF_I8 || type == GGUF_I16 || type == GGUF_I32 || type == GGUF_I64;
}

bool gguf_value_type_is_int(enum gguf_value_type type)
{
    return is_signed(type) || type == GGUF_U8 || type == GGUF_U16 || type == GGUF_U32 ||
           type == GGUF_U64;
}

int64_t gguf_array_int(const struct gguf_array *array, uint64_t i)
{
    size_t size = gguf_value_type_size(array->type);
    const char *element = (const char *)array->data + i * size;
    if (array->type == GGUF_F32 || array->type == GGUF_F64)
        return (int64_t)gguf_array_float(array, i);
    uint64_t bits = 0;
    memcpy(&bits, element, size);
    if (!is_signed(array->type) || size == 8)
        return (int64_t)bits;
    uint64_t sign = (uint64_t)1 << (8 * size - 1);
    return (int64_t)((bits ^ sign) - sign);
}

double gguf_array_float(const struct gguf_array *array, uint64_t i)
{
    const char *element = (const char *)array->data + i * gguf_value_type_size(array->type);
    float single;
    double value;
    switch (array->type) {
    case GGUF_F32:
        memcpy(&single, element, sizeof single);
        return (double)single;
    case GGUF_F64:
        memcpy(&value, element, sizeof value);
        return value;
    case GGUF_U64:
        return (double)(uint64_t)gguf_array_int(array, i);
    default:
        return (double)gguf_array_int(array, i);
    }
}

static int read_type(struct gguf_reader *reader, enum gguf_value_type *type)
{
    struct gguf_reader start = *reader;
    uint32_t number;
    int code = gguf_read_u32(reader, &number);
    if (code)
        return code;
    if (number >= N_VALUE_TYPES)
        return gguf_fail(&start, TSR_EFORMAT,
                         "the value type %u is unknown; the file is damaged, or newer than this "
                         "version reads",
                         number);
    *type = number;
    return 0;
}

/* `count` elements of fixed size. Booleans must be 0 or 1. */
static int read_numbers(struct gguf_reader *reader, enum gguf_value_type type, uint64_t count,
                        const void **data)
{
    struct gguf_reader start = *reader;
    int code = gguf_read_bytes(reader, count * gguf_value_type_size(type), data);
    if (code || type != GGUF_BOOL)
        return code;
    const uint8_t *flags = *data;
    for (; start.pos < reader->pos; start.pos++, flags++)
        if (*flags > 1)
            return gguf_fail(&start, TSR_EFORMAT, "a bool is %u, not 0 or 1", *flags);
    return 0;
}

static int read_array(struct gguf_reader *reader, struct gguf_array *array, int depth);

/* Strings and arrays, one after the other; array->count grows with them, so that a failure leaves
 * what free_array can free. */
static int read_strings(struct gguf_reader *reader, struct gguf_array *array, uint64_t count)
{
    void *items = NULL;
    size_t capacity = 0;
    int code = 0;
    for (array->count = 0; code == 0 && array->count < count;) {
        if (!gguf_grow(&items, &capacity, array->count, sizeof *array->strings)) {
            code = gguf_fail_memory(reader);
            break;
        }
        code = gguf_read_string(reader, (struct gguf_string *)items + array->count);
        array->count += code == 0;
    }
    array->strings = items;
    return code;
}

static int read_arrays(struct gguf_reader *reader, struct gguf_array *array, uint64_t count,
                       int depth)
{
    void *items = NULL;
    size_t capacity = 0;
    int code = 0;
    if (depth >= MAX_ARRAY_DEPTH)
        return gguf_fail(reader, TSR_EFORMAT, "arrays are nested more than %d deep",
                         MAX_ARRAY_DEPTH);
    for (array->count = 0; code == 0 && array->count < count;) {
        if (!gguf_grow(&items, &capacity, array->count, sizeof *array->arrays)) {
            code = gguf_fail_memory(reader);
            break;
        }
        struct gguf_array *nested = (struct gguf_array *)items + array->count++;
        code = read_array(reader, nested, depth + 1);
    }
    array->arrays = items;
    return code;
}

static int read_array(struct gguf_reader *reader, struct gguf_array *array, int depth)
{
    memset(array, 0, sizeof *array);
    int code = read_type(reader, &array->type);
    if (code)
        return code;
    struct gguf_reader start = *reader;
    uint64_t count;
    code = gguf_read_u64(reader, &count);
    if (code)
        return code;
    size_t size = gguf_value_type_size(array->type);
    if (size == 0)
        size = array->type == GGUF_STRING ? MIN_STRING_BYTES : MIN_ARRAY_BYTES;
    if (count > gguf_remaining(reader) / size)
        return gguf_fail(&start, TSR_EFORMAT,
                         "an array of %llu %s elements is larger than the rest of the file, %llu "
                         "bytes; the file is damaged or incomplete",
                         (unsigned long long)count, gguf_value_type_name(array->type),
                         (unsigned long long)gguf_remaining(reader));
    if (array->type == GGUF_STRING)
        return read_strings(reader, array, count);
    if (array->type == GGUF_ARRAY)
        return read_arrays(reader, array, count, depth);
    array->count = count;
    return read_numbers(reader, array->type, count, &array->data);
}

static void free_array(const struct gguf_array *array)
{
    if (array->type == GGUF_ARRAY && array->arrays)
        for (uint64_t i = 0; i < array->count; i++)
            free_array(&array->arrays[i]);
    free((void *)array->arrays);
    free((void *)array->strings);
}

static int read_scalar(struct gguf_reader *reader, struct gguf_value *value)
{
    struct gguf_array one = {.type = value->type, .count = 1};
    int code = read_numbers(reader, value->type, 1, &one.data);
    if (code)
        return code;
    if (value->type == GGUF_F32 || value->type == GGUF_F64)
        value->f = gguf_array_float(&one, 0);
    else
        value->i = gguf_array_int(&one, 0);
    return 0;
}

static int read_value(struct gguf_reader *reader, struct gguf_value *value)
{
    if (value->type == GGUF_STRING)
        return gguf_read_string(reader, &value->string);
    if (value->type == GGUF_ARRAY)
        return read_array(reader, &value->array, 1);
    return read_scalar(reader, value);
}

/* Adds the pair only when it is whole, or where its array has to be freed. */
static int read_pair(struct gguf_metadata *metadata, struct gguf_reader *reader)
{
    struct gguf_reader start = *reader;
    struct gguf_value *value = &metadata->values[metadata->n_values];
    memset(value, 0, sizeof *value);
    int code = gguf_read_name(reader, "key", &value->key);
    if (code)
        return code;
    code = gguf_index_add(&metadata->index, value->key, metadata->n_values);
    if (code == GGUF_INDEX_DUPLICATE)
        return gguf_fail(&start, TSR_EFORMAT, "the key '%s' is there twice; the file is damaged",
                         gguf_printable(value->key.data, value->key.len).text);
    if (code)
        return gguf_fail_memory(reader);
    code = read_type(reader, &value->type);
    if (code)
        return code;
    metadata->n_values++;
    return read_value(reader, value);
}

int gguf_metadata_read(struct gguf_metadata *metadata, struct gguf_reader *reader, uint64_t count)
{
    if (count > gguf_remaining(reader) / MIN_PAIR_BYTES)
        return gguf_fail(reader, TSR_EFORMAT,
                         "%llu keys do not fit into the rest of the file, %llu bytes; the file is "
                         "damaged or incomplete",
                         (unsigned long long)count, (unsigned long long)gguf_remaining(reader));
    for (uint64_t i = 0; i < count; i++) {
        void *values = metadata->values;
        if (!gguf_grow(&values, &metadata->capacity, metadata->n_values, sizeof *metadata->values))
            return gguf_fail_memory(reader);
        metadata->values = values;
        int code = read_pair(metadata, reader);
        if (code)
            return code;
    }
    return 0;
}

void gguf_metadata_free(struct gguf_metadata *metadata)
{
    for (size_t i = 0; i < metadata->n_values; i++)
        if (metadata->values[i].type == GGUF_ARRAY)
            free_array(&metadata->values[i].array);
    free(metadata->values);
    free(metadata->index.slots);
}

const struct gguf_value *gguf_metadata_find(const struct gguf_metadata *metadata, const char *key)
{
    size_t item;
    struct gguf_string name = {.data = key, .len = strlen(key)};
    return gguf_index_find(&metadata->index, name, &item) ? &metadata->values[item] : NULL;
}

bool gguf_value_u32(const struct gguf_value *value, uint32_t *out)
{
    if (!gguf_value_type_is_int(value->type))
        return false;
    if (value->u > UINT32_MAX) /* negative numbers too, in two's complement */
        return false;
    *out = (uint32_t)value->u;
    return true;
}
