/* Containers of the template language: lists, dicts, and what can be looked up in a value. */
#include "text/template/value.h"

#include <string.h>

int64_t value_integer(struct value v)
{
    return v.kind == VALUE_BOOL ? v.boolean : v.integer;
}

double value_real(struct value v)
{
    return v.kind == VALUE_FLOAT ? v.real : (double)value_integer(v);
}

const char *value_type(struct value v)
{
    static const char *const names[] = {
        [VALUE_ABSENT] = "nothing",
        [VALUE_UNDEFINED] = "Undefined",
        [VALUE_NONE] = "NoneType",
        [VALUE_BOOL] = "bool",
        [VALUE_INT] = "int",
        [VALUE_FLOAT] = "float",
        [VALUE_STRING] = "str",
        [VALUE_LIST] = "list",
        [VALUE_TUPLE] = "tuple",
        [VALUE_DICT] = "dict",
        [VALUE_NAMESPACE] = "Namespace",
        [VALUE_LOOP] = "LoopContext",
        [VALUE_FUNCTION] = "function",
    };
    return names[v.kind];
}

struct list *list_new(struct machine *m)
{
    return machine_alloc(m, 1, sizeof(struct list));
}

void list_add(struct machine *m, struct list *list, struct value v)
{
    list->items = machine_grow(m, list->items, list->n, &list->capacity, sizeof *list->items);
    list->items[list->n++] = v;
    machine_work(m, 1);
}

struct dict *dict_new(struct machine *m)
{
    return machine_alloc(m, 1, sizeof(struct dict));
}

struct value *dict_find(struct machine *m, const struct dict *dict, struct value key)
{
    machine_work(m, dict->n + 1);
    for (size_t i = 0; i < dict->n; i++)
        if (value_equal(m, dict->entries[i].key, key))
            return &dict->entries[i].value;
    return NULL;
}

struct value *dict_find_text(struct machine *m, const struct dict *dict, const char *key)
{
    return dict_find(m, dict, value_str(str_of(key)));
}

void dict_set(struct machine *m, struct dict *dict, struct value key, struct value v)
{
    if (key.kind == VALUE_LIST || key.kind == VALUE_DICT)
        machine_fail(m, "a %s cannot be the key of a dict", value_type(key));
    struct value *old = dict_find(m, dict, key);
    if (old) {
        *old = v;
        return;
    }
    dict->entries = machine_grow(m, dict->entries, dict->n, &dict->capacity, sizeof *dict->entries);
    dict->entries[dict->n++] = (struct dict_entry){key, v};
}

struct value value_pair(struct machine *m, struct value a, struct value b)
{
    struct list *pair = list_new(m);
    list_add(m, pair, a);
    list_add(m, pair, b);
    return (struct value){.kind = VALUE_TUPLE, .list = pair};
}

const struct list *value_iterate(struct machine *m, struct value v)
{
    struct list *items;
    switch (v.kind) {
    case VALUE_LIST:
    case VALUE_TUPLE:
        return v.list;
    case VALUE_UNDEFINED:
        return list_new(m);
    case VALUE_DICT:
        items = list_new(m);
        for (size_t i = 0; i < v.dict->n; i++)
            list_add(m, items, v.dict->entries[i].key);
        return items;
    case VALUE_STRING:
        items = list_new(m);
        for (size_t at = 0, n; at < v.string.len; at += n) {
            n = text_char(v.string, at);
            list_add(m, items, value_str(str_sub(v.string, at, at + n)));
        }
        return items;
    default:
        machine_fail(m, "'%s' object is not iterable", value_type(v));
    }
}

size_t value_length(struct machine *m, struct value v)
{
    switch (v.kind) {
    case VALUE_LIST:
    case VALUE_TUPLE:
        return v.list->n;
    case VALUE_DICT:
        return v.dict->n;
    case VALUE_STRING:
        return text_length(m, v.string);
    case VALUE_UNDEFINED:
        return 0;
    case VALUE_LOOP:
        return v.loop->items->n;
    default:
        machine_fail(m, "object of type '%s' has no len()", value_type(v));
    }
}

/* Byte position of character `index` of a string. */
static size_t char_position(struct machine *m, struct str s, size_t index)
{
    size_t at = 0;
    for (; index > 0 && at < s.len; index--)
        at += text_char(s, at);
    machine_work(m, at / 4 + 1);
    return at;
}

static struct value item_at(struct machine *m, struct value v, int64_t index)
{
    int64_t n = (int64_t)value_length(m, v);
    if (index < 0)
        index += n;
    if (index < 0 || index >= n)
        return value_undefined(str_of("item out of range"));
    if (v.kind != VALUE_STRING)
        return v.list->items[index];
    size_t at = char_position(m, v.string, (size_t)index);
    return value_str(str_sub(v.string, at, at + text_char(v.string, at)));
}

static struct value loop_attribute(const struct loop *loop, struct str name)
{
    const struct list *items = loop->items;
    int64_t index = (int64_t)loop->index, n = (int64_t)items->n;
    if (str_is(name, "index"))
        return value_int(index + 1);
    if (str_is(name, "index0"))
        return value_int(index);
    if (str_is(name, "revindex"))
        return value_int(n - index);
    if (str_is(name, "revindex0"))
        return value_int(n - index - 1);
    if (str_is(name, "first"))
        return value_bool(index == 0);
    if (str_is(name, "last"))
        return value_bool(index == n - 1);
    if (str_is(name, "length"))
        return value_int(n);
    if (str_is(name, "previtem") && index > 0)
        return items->items[index - 1];
    if (str_is(name, "nextitem") && index + 1 < n)
        return items->items[index + 1];
    return value_undefined(name);
}

struct value value_item(struct machine *m, struct value container, struct value key)
{
    switch (container.kind) {
    case VALUE_LIST:
    case VALUE_TUPLE:
    case VALUE_STRING:
        if (value_is_integral(key))
            return item_at(m, container, value_integer(key));
        return value_undefined(value_text(m, key));
    case VALUE_DICT: {
        struct value *found = dict_find(m, container.dict, key);
        return found ? *found : value_undefined(value_text(m, key));
    }
    default:
        return value_attribute(m, container, value_text(m, key));
    }
}

struct value value_attribute(struct machine *m, struct value container, struct str name)
{
    if (container.kind == VALUE_UNDEFINED)
        machine_fail(m, "'%.*s' is undefined, so it has no '%.*s'", QUOTE(container.string),
                     QUOTE(name));
    if (container.kind == VALUE_LOOP)
        return loop_attribute(container.loop, name);
    if (container.kind == VALUE_DICT || container.kind == VALUE_NAMESPACE) {
        struct value *found = dict_find(m, container.dict, value_str(name));
        if (found)
            return *found;
    }
    return value_undefined(name);
}

static int64_t slice_integer(struct machine *m, struct value v, int64_t open)
{
    if (v.kind == VALUE_NONE)
        return open;
    if (!value_is_integral(v))
        machine_fail(m, "slice indices must be integers, not '%s'", value_type(v));
    return value_integer(v);
}

/* Steps beyond the length are all the same, and shortened so that index + step cannot overflow. */
static int64_t slice_step(struct machine *m, struct value v, int64_t n)
{
    int64_t step = slice_integer(m, v, 1);
    if (step == 0)
        machine_fail(m, "slice step cannot be zero");
    return step < -n - 1 ? -n - 1 : step > n + 1 ? n + 1 : step;
}

/* A bound of a slice, as Python clips it to [low, high]. */
static int64_t slice_bound(struct machine *m, struct value v, int64_t n, int64_t low, int64_t high,
                           int64_t open)
{
    int64_t bound = slice_integer(m, v, open);
    if (v.kind == VALUE_NONE)
        return open;
    if (bound < 0)
        bound = bound < -n ? low : bound + n;
    return bound < low ? low : bound > high ? high : bound;
}

struct value value_slice(struct machine *m, struct value v, const struct value bounds[3])
{
    if (!value_is_sequence(v) && v.kind != VALUE_STRING)
        machine_fail(m, "'%s' object cannot be sliced", value_type(v));
    const struct list *items = value_iterate(m, v);
    int64_t n = (int64_t)items->n;
    int64_t step = slice_step(m, bounds[2], n);
    bool up = step > 0;
    int64_t low = up ? 0 : -1, high = up ? n : n - 1;
    int64_t start = slice_bound(m, bounds[0], n, low, high, up ? low : high);
    int64_t stop = slice_bound(m, bounds[1], n, low, high, up ? high : low);
    struct list *part = list_new(m);
    struct buffer text = {0};
    for (int64_t i = start; up ? i < stop : i > stop; i += step) {
        if (v.kind == VALUE_STRING)
            buffer_add(m, &text, items->items[i].string);
        else
            list_add(m, part, items->items[i]);
    }
    if (v.kind == VALUE_STRING)
        return value_str(buffer_str(&text));
    return (struct value){.kind = v.kind, .list = part};
}
