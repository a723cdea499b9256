/* The entry of the template interpreter: variables in, text out. */
#include "text/template.h"

#include <stdlib.h>
#include <string.h>

#include "text/template/evaluate.h"

static struct value value_of_json(struct machine *m, const json_t *json);

static struct value list_of_json(struct machine *m, const json_t *json)
{
    struct list *list = list_new(m);
    for (size_t i = 0; i < json_array_size(json); i++)
        list_add(m, list, value_of_json(m, json_array_get(json, i)));
    return value_list(list);
}

/* Keys of JSON are unique, so this need not look for each as dict_set does. */
static struct value dict_of_json(struct machine *m, const json_t *json)
{
    struct dict *dict = dict_new(m);
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)json, key, member)
    {
        dict->entries =
            machine_grow(m, dict->entries, dict->n, &dict->capacity, sizeof *dict->entries);
        dict->entries[dict->n++] =
            (struct dict_entry){value_str(str_of(key)), value_of_json(m, member)};
    }
    return (struct value){.kind = VALUE_DICT, .dict = dict};
}

/* Strings are not copied: the variables outlive the rendering. */
static struct value value_of_json(struct machine *m, const json_t *json)
{
    struct value v = value_none();
    machine_enter(m);
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        v = dict_of_json(m, json);
        break;
    case JSON_ARRAY:
        v = list_of_json(m, json);
        break;
    case JSON_STRING:
        v = value_str((struct str){json_string_value(json), json_string_length(json)});
        break;
    case JSON_INTEGER:
        v = value_int(json_integer_value(json));
        break;
    case JSON_REAL:
        v = value_float(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        v = value_bool(json_is_true(json));
        break;
    case JSON_NULL:
        break;
    }
    machine_leave(m);
    return v;
}

/* False when it failed; then m->code and the error are set. */
static bool render(struct machine *m, struct str source, const json_t *variables)
{
    if (setjmp(m->failure))
        return false;
    struct scope *globals = scope_new(m, NULL);
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)variables, key, member)
        scope_set(m, globals, str_of(key), value_of_json(m, member));
    const json_t *now = json_object_get(variables, "now");
    m->has_now = json_is_integer(now);
    m->now = json_integer_value(now);
    execute(m, scope_new(m, globals), parse(m, source));
    return true;
}

int template_render(const char *source, size_t source_len, const json_t *variables, char **text,
                    size_t *len, struct tsr_error *error)
{
    struct buffer out = {0};
    struct machine machine = {.error = error, .out = &out, .line = 1};
    *text = NULL;
    *len = 0;
    if (!render(&machine, (struct str){source, source_len}, variables)) {
        machine_free(&machine);
        return machine.code;
    }
    struct str rendered = buffer_str(&out);
    char *copy = malloc(rendered.len + 1);
    if (copy) {
        memcpy(copy, rendered.data, rendered.len);
        copy[rendered.len] = '\0';
        *text = copy;
        *len = rendered.len;
    }
    machine_free(&machine);
    return copy ? TSR_OK : error_set(error, TSR_ENOMEM, "chat template: out of memory");
}
