/* Typed reading of metadata. */
#include <stdio.h>

#include "gguf/internal.h"

/* An error that leaves error->code alone, so that a caller who reads optional keys in a row can
 * look at the text once. */
static bool mismatch(const struct gguf *gguf, const struct gguf_value *value, const char *wanted,
                     struct tsr_error *error)
{
    if (!error)
        return false;
    int code = error->code;
    const char *type = gguf_value_type_name(value->type);
    const char *of = "", *element = "";
    if (value->type == GGUF_ARRAY) {
        of = " of ";
        element = gguf_value_type_name(value->array.type);
    }
    error_set(error, code, "%s: the key '%s' is %s%s%s, not %s; convert the model anew",
              gguf_path(gguf), gguf_printable(value->key.data, value->key.len).text, type, of,
              element, wanted);
    return false;
}

bool gguf_get_u32(const struct gguf *gguf, const char *key, uint32_t *out, struct tsr_error *error)
{
    const struct gguf_value *value = gguf_find(gguf, key);
    if (!value)
        return false;
    return gguf_value_u32(value, out) ||
           mismatch(gguf, value, "an integer from 0 to 4294967295", error);
}

bool gguf_get_f32(const struct gguf *gguf, const char *key, float *out, struct tsr_error *error)
{
    const struct gguf_value *value = gguf_find(gguf, key);
    if (!value)
        return false;
    if (value->type != GGUF_F32 && value->type != GGUF_F64)
        return mismatch(gguf, value, "f32", error);
    *out = (float)value->f;
    return true;
}

bool gguf_get_bool(const struct gguf *gguf, const char *key, bool *out, struct tsr_error *error)
{
    const struct gguf_value *value = gguf_find(gguf, key);
    if (!value)
        return false;
    if (value->type != GGUF_BOOL)
        return mismatch(gguf, value, "bool", error);
    *out = value->u != 0;
    return true;
}

bool gguf_get_string(const struct gguf *gguf, const char *key, struct gguf_string *out,
                     struct tsr_error *error)
{
    const struct gguf_value *value = gguf_find(gguf, key);
    if (!value)
        return false;
    if (value->type != GGUF_STRING)
        return mismatch(gguf, value, "string", error);
    *out = value->string;
    return true;
}

bool gguf_get_array(const struct gguf *gguf, const char *key, enum gguf_value_type type,
                    struct gguf_array *out, struct tsr_error *error)
{
    const struct gguf_value *value = gguf_find(gguf, key);
    if (!value)
        return false;
    if (value->type == GGUF_ARRAY &&
        (value->array.type == type ||
         (type == GGUF_I32 && gguf_value_type_is_int(value->array.type)))) {
        *out = value->array;
        return true;
    }
    char wanted[48];
    snprintf(wanted, sizeof wanted, "array of %s",
             type == GGUF_I32 ? "integers" : gguf_value_type_name(type));
    return mismatch(gguf, value, wanted, error);
}
