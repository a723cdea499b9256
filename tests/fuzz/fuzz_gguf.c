/* Any bytes as a GGUF file: opened, described, and looked up in. What is accepted must lie within
 * the input, which the reads at both ends of each tensor let a sanitizer see. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gguf/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_tensors(const struct gguf *gguf)
{
    unsigned sum = 0;
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        const uint8_t *bytes = tensor->data;
        check(gguf_find_tensor(gguf, tensor->name) == tensor);
        sum += bytes[0] + (unsigned)bytes[tensor->n_bytes - 1];
    }
    check(sum <= 510 * gguf_n_tensors(gguf));
}

static void check_values(const struct gguf *gguf)
{
    for (size_t i = 0; i < gguf_n_values(gguf); i++) {
        const struct gguf_value *value = gguf_value_at(gguf, i);
        char *key = strndup(value->key.data, value->key.len);
        uint32_t number;
        float real;
        bool flag;
        struct gguf_string string;
        struct gguf_array array;
        check(key && gguf_find(gguf, key) == value);
        gguf_get_u32(gguf, key, &number, NULL);
        gguf_get_f32(gguf, key, &real, NULL);
        gguf_get_bool(gguf, key, &flag, NULL);
        gguf_get_string(gguf, key, &string, NULL);
        if (gguf_get_array(gguf, key, GGUF_I32, &array, NULL) && array.count)
            gguf_array_int(&array, array.count - 1);
        free(key);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tsr_error error = {0};
    struct gguf *gguf;
    char *json;
    int code = gguf_open_memory(data, size, &gguf, &error);
    if (code) {
        check(!gguf && error.code == code && *error.text && !strchr(error.text, '\n'));
        return 0;
    }
    check_tensors(gguf);
    check_values(gguf);
    check(gguf_describe(gguf, 4, &json, &error) == 0);
    free(json);
    gguf_close(gguf);
    return 0;
}
