/* Metadata and tensor directory as JSON. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf/internal.h"

/* Length of the UTF-8 character at text[0..len), 0 where there is none (RFC 3629). */
static size_t utf8_length(const unsigned char *text, size_t len)
{
    unsigned char lead = text[0], low = 0x80, high = 0xbf;
    size_t n = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3
               : lead < 0xf5 ? 4 : 0;
    if (n > len)
        return 0;
    /* The second byte: no overlong forms, no surrogates, nothing above U+10FFFF. */
    if (lead == 0xe0)
        low = 0xa0;
    if (lead == 0xed)
        high = 0x9f;
    if (lead == 0xf0)
        low = 0x90;
    if (lead == 0xf4)
        high = 0x8f;
    if (n > 1 && (text[1] < low || text[1] > high))
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

/* A terminated copy with U+FFFD for each byte that is not UTF-8; free(). */
static char *valid_utf8(const char *data, size_t len, size_t *out_len)
{
    static const char replacement[] = "\xef\xbf\xbd";
    char *out = len <= (SIZE_MAX - 1) / 3 ? malloc(3 * len + 1) : NULL;
    if (!out)
        return NULL;
    char *end = out;
    for (size_t i = 0; i < len;) {
        size_t n = utf8_length((const unsigned char *)data + i, len - i);
        memcpy(end, n ? data + i : replacement, n ? n : 3);
        end += n ? n : 3;
        i += n ? n : 1;
    }
    *end = 0;
    *out_len = (size_t)(end - out);
    return out;
}

static json_t *string_json(struct gguf_string string)
{
    size_t len;
    char *text = valid_utf8(string.data, string.len, &len);
    json_t *json = text ? json_stringn_nocheck(text, len) : NULL;
    free(text);
    return json;
}

/* A float by its shortest decimal form: 1e-06 rather than 9.9999999747524271e-07. */
static json_t *float_json(enum gguf_value_type type, double value)
{
    char text[32];
    if (!isfinite(value))
        return json_null();
    if (type == GGUF_F32)
        for (int digits = 6; digits <= 9; digits++) {
            snprintf(text, sizeof text, "%.*g", digits, value);
            if (strtof(text, NULL) == (float)value)
                return json_real(strtod(text, NULL));
        }
    return json_real(value);
}

static json_t *number_json(enum gguf_value_type type, int64_t integer, double real)
{
    if (type == GGUF_F32 || type == GGUF_F64)
        return float_json(type, real);
    if (type == GGUF_BOOL)
        return json_boolean(integer);
    if (type == GGUF_U64 && integer < 0) /* beyond what the JSON library's integers hold */
        return json_real((double)(uint64_t)integer);
    return json_integer(integer);
}

static json_t *array_json(const struct gguf_array *array, size_t max_array);

static json_t *element_json(const struct gguf_array *array, uint64_t i, size_t max_array)
{
    if (array->type == GGUF_STRING)
        return string_json(array->strings[i]);
    if (array->type == GGUF_ARRAY)
        return array_json(&array->arrays[i], max_array);
    if (array->type == GGUF_F32 || array->type == GGUF_F64)
        return float_json(array->type, gguf_array_float(array, i));
    return number_json(array->type, gguf_array_int(array, i), 0);
}

/* {"type": "array", "of": "string", "length": 3, "value": [...]} */
static json_t *array_json(const struct gguf_array *array, size_t max_array)
{
    uint64_t n = array->count;
    if (max_array && n > max_array)
        n = max_array;
    json_t *elements = json_array();
    for (uint64_t i = 0; i < n && elements; i++)
        if (json_array_append_new(elements, element_json(array, i, max_array))) {
            json_decref(elements);
            elements = NULL;
        }
    return json_pack("{s:s, s:s, s:I, s:o}", "type", gguf_value_type_name(GGUF_ARRAY), "of",
                     gguf_value_type_name(array->type), "length", (json_int_t)array->count,
                     "value", elements);
}

static json_t *value_json(const struct gguf_value *value, size_t max_array)
{
    if (value->type == GGUF_ARRAY)
        return array_json(&value->array, max_array);
    json_t *json = value->type == GGUF_STRING
                       ? string_json(value->string)
                       : number_json(value->type, value->i, value->f);
    return json_pack("{s:s, s:o}", "type", gguf_value_type_name(value->type), "value", json);
}

/* Adds `json`, which it takes over, under a name that may be anything. */
static bool object_add(json_t *object, struct gguf_string name, json_t *json)
{
    size_t len;
    char *key = valid_utf8(name.data, name.len, &len);
    if (!key) {
        json_decref(json);
        return false;
    }
    bool done = json_object_set_new_nocheck(object, key, json) == 0;
    free(key);
    return done;
}

static json_t *metadata_json(const struct gguf *gguf, size_t max_array)
{
    json_t *object = json_object();
    for (size_t i = 0; i < gguf_n_values(gguf) && object; i++) {
        const struct gguf_value *value = gguf_value_at(gguf, i);
        if (!object_add(object, value->key, value_json(value, max_array))) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

static json_t *tensor_json(const struct gguf *gguf, const struct gguf_tensor *tensor)
{
    json_t *shape = json_array();
    for (int d = 0; d < tensor->n_dims && shape; d++)
        if (json_array_append_new(shape, json_integer((json_int_t)tensor->dims[d]))) {
            json_decref(shape);
            shape = NULL;
        }
    /* Which part of a split model the offset is in; left out where there is one file. */
    json_t *part = gguf->n_files > 1 ? json_integer(tensor->file + 1) : NULL;
    struct gguf_string name = {.data = tensor->name, .len = strlen(tensor->name)};
    return json_pack("{s:o, s:s, s:o, s:o*, s:I, s:I}", "name", string_json(name), "type",
                     tensor->type->name, "shape", shape, "part", part, "offset",
                     (json_int_t)tensor->offset, "bytes", (json_int_t)tensor->n_bytes);
}

static json_t *tensors_json(const struct gguf *gguf)
{
    json_t *list = json_array();
    for (size_t i = 0; i < gguf_n_tensors(gguf) && list; i++)
        if (json_array_append_new(list, tensor_json(gguf, gguf_tensor_at(gguf, i)))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

int gguf_describe(const struct gguf *gguf, size_t max_array, char **json, struct tsr_error *error)
{
    struct gguf_string path = {.data = gguf_path(gguf), .len = strlen(gguf_path(gguf))};
    json_t *object = json_pack("{s:o, s:I, s:o, s:o}", "file", string_json(path), "version",
                               (json_int_t)gguf_version(gguf), "metadata",
                               metadata_json(gguf, max_array), "tensors", tensors_json(gguf));
    *json = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
    json_decref(object);
    return *json ? 0 : error_set(error, TSR_ENOMEM, "%s: out of memory", gguf_path(gguf));
}
