/* tessera inspect: what a GGUF file holds. */
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/common.h"

enum { SHOWN_ELEMENTS = 8, SHOWN_BYTES = 120 };

/* A value as one line of JSON, cut where it is long unless it is to be `whole`. */
static void print_value(const json_t *value, bool whole)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    size_t len = text ? strlen(text) : 0;
    if (len > SHOWN_BYTES && !whole) {
        /* Before a whole character. */
        for (len = SHOWN_BYTES; len && ((unsigned char)text[len] & 0xc0) == 0x80;)
            len--;
        output_format("%.*s...", (int)len, text);
    } else {
        output_bytes(text, len);
    }
    free(text);
}

/* Names are the file's: control characters in them are not for the terminal. */
static void print_name(const char *name)
{
    enum { WIDTH = 45 };
    int len = 0;
    output_bytes("  ", 2);
    for (; name[len]; len++)
        output_bytes((unsigned char)name[len] < ' ' || name[len] == 127 ? "?" : name + len, 1);
    output_format("%*s", len < WIDTH ? WIDTH - len : 1, "");
}

static void print_metadata(const json_t *metadata, bool whole)
{
    const char *key;
    json_t *entry;
    output_format("metadata (%zu)\n", json_object_size(metadata));
    json_object_foreach((json_t *)(uintptr_t)metadata, key, entry)
    {
        const json_t *value = json_object_get(entry, "value");
        const json_t *length = json_object_get(entry, "length");
        const char *type = json_string_value(json_object_get(entry, "type"));
        print_name(key);
        output_format("%-10s ", type ? type : "");
        print_value(value, whole);
        if (length && json_is_array(value) &&
            (size_t)json_integer_value(length) > json_array_size(value))
            output_format(" of %lld", (long long)json_integer_value(length));
        output_bytes("\n", 1);
    }
}

static void print_tensors(const json_t *tensors)
{
    size_t i;
    json_t *tensor;
    output_format("tensors (%zu)\n", json_array_size(tensors));
    json_array_foreach((json_t *)(uintptr_t)tensors, i, tensor)
    {
        const char *name = json_string_value(json_object_get(tensor, "name"));
        const char *type = json_string_value(json_object_get(tensor, "type"));
        char shape[96];
        size_t len = json_dumpb(json_object_get(tensor, "shape"), shape, sizeof shape - 1, 0);
        shape[len < sizeof shape ? len : sizeof shape - 1] = 0;
        print_name(name ? name : "");
        output_format("%-8s %-22s %14lld bytes\n", type ? type : "", shape,
                      (long long)json_integer_value(json_object_get(tensor, "bytes")));
    }
}

int command_inspect(const struct options *options)
{
    if (options->n_operands > 1 || (options->n_operands && options->model))
        return usage_error(options->command, "one file at a time");
    struct options with_model = *options;
    if (options->n_operands)
        with_model.model = options->operands[0];
    char path[4096], *text;
    if (!model_path(&with_model, path, sizeof path))
        return EXIT_FAILED;
    struct tsr_error error = {0};
    int code = tsr_file_describe(path, options->verbose ? 0 : SHOWN_ELEMENTS, &text, &error);
    if (code < 0)
        return fail(options->command, "%s", error.text[0] ? error.text : tsr_strerror(code));
    if (options->json) {
        output_format("%s\n", text);
        tsr_free(text);
        return EXIT_DONE;
    }
    json_t *object = json_loads(text, JSON_ALLOW_NUL, NULL);
    tsr_free(text);
    if (!object)
        return fail(options->command, "out of memory");
    output_format("%s: GGUF version %lld\n", path,
                  (long long)json_integer_value(json_object_get(object, "version")));
    print_metadata(json_object_get(object, "metadata"), options->verbose);
    print_tensors(json_object_get(object, "tensors"));
    json_decref(object);
    return EXIT_DONE;
}
