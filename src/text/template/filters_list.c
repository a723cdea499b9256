/* The filters of the template language that work on lists and dicts.
 * https://jinja.palletsprojects.com/en/stable/templates/#builtin-filters */
#include "text/template/filters.h"

#include <stdlib.h>
#include <string.h>

/* value.a.b.0 for the path "a.b.0"; a path may be an integer. */
static struct value follow(struct machine *m, struct value v, struct value path)
{
    if (path.kind != VALUE_STRING)
        return value_item(m, v, path);
    struct str rest = path.string;
    for (;;) {
        size_t dot = text_find(m, rest, str_of("."), 0);
        struct str name = str_sub(rest, 0, dot < rest.len ? dot : rest.len);
        int64_t index;
        bool numeric = text_to_int(name, &index);
        v = value_item(m, v, numeric ? value_int(index) : value_str(name));
        if (dot >= rest.len)
            return v;
        rest = str_sub(rest, dot + 1, rest.len);
    }
}

static bool given(const struct call *c, size_t parameter)
{
    return c->argv[parameter].kind != VALUE_ABSENT && c->argv[parameter].kind != VALUE_NONE;
}

static struct value filter_first(struct call *c)
{
    const struct list *items = value_iterate(c->m, c->self);
    return items->n ? items->items[0] : value_undefined(str_of("first item of an empty list"));
}

static struct value filter_last(struct call *c)
{
    const struct list *items = value_iterate(c->m, c->self);
    return items->n ? items->items[items->n - 1]
                    : value_undefined(str_of("last item of an empty list"));
}

static struct value filter_length(struct call *c)
{
    return value_int((int64_t)value_length(c->m, c->self));
}

static struct value filter_list(struct call *c)
{
    const struct list *items = value_iterate(c->m, c->self);
    struct list *copy = list_new(c->m);
    for (size_t i = 0; i < items->n; i++)
        list_add(c->m, copy, items->items[i]);
    return value_list(copy);
}

static struct value filter_join(struct call *c)
{
    const struct list *items = value_iterate(c->m, c->self);
    struct buffer out = {0};
    struct str by = call_str(c, 0, "");
    for (size_t i = 0; i < items->n; i++) {
        struct value item = items->items[i];
        buffer_add(c->m, &out, i ? by : str_of(""));
        value_print(c->m, &out, given(c, 1) ? follow(c->m, item, c->argv[1]) : item);
    }
    return value_str(buffer_str(&out));
}

static struct value filter_reverse(struct call *c)
{
    const struct list *items = value_iterate(c->m, c->self);
    struct list *reversed = list_new(c->m);
    struct buffer text = {0};
    for (size_t i = items->n; i-- > 0;) {
        if (c->self.kind == VALUE_STRING)
            buffer_add(c->m, &text, items->items[i].string);
        else
            list_add(c->m, reversed, items->items[i]);
    }
    return c->self.kind == VALUE_STRING ? value_str(buffer_str(&text)) : value_list(reversed);
}

/* An item and what it is sorted by. */
struct keyed {
    struct value key, item;
};

/* Merge sort, stable as Python's: qsort could not be left by a failing comparison. */
static void sort_keyed(struct machine *m, struct keyed *items, struct keyed *spare, size_t n,
                       bool case_sensitive, int sign)
{
    if (n < 2)
        return;
    size_t half = n / 2, a = 0, b = half;
    sort_keyed(m, items, spare, half, case_sensitive, sign);
    sort_keyed(m, items + half, spare, n - half, case_sensitive, sign);
    for (size_t i = 0; i < n; i++) {
        machine_work(m, 1);
        bool take_a =
            a < half &&
            (b == n ||
             sign * value_compare_case(m, items[a].key, items[b].key, case_sensitive) <= 0);
        spare[i] = items[take_a ? a++ : b++];
    }
    memcpy(items, spare, n * sizeof *items);
}

static struct value sorted(struct call *c, const struct list *items, struct value path,
                           bool case_sensitive, bool reverse)
{
    struct keyed *keyed = machine_alloc(c->m, items->n, sizeof *keyed);
    struct keyed *spare = machine_alloc(c->m, items->n, sizeof *spare);
    bool by_path = path.kind != VALUE_ABSENT && path.kind != VALUE_NONE;
    for (size_t i = 0; i < items->n; i++) {
        struct value item = items->items[i];
        keyed[i] = (struct keyed){by_path ? follow(c->m, item, path) : item, item};
    }
    sort_keyed(c->m, keyed, spare, items->n, case_sensitive, reverse ? -1 : 1);
    struct list *list = list_new(c->m);
    for (size_t i = 0; i < items->n; i++)
        list_add(c->m, list, keyed[i].item);
    return value_list(list);
}

static struct value filter_sort(struct call *c)
{
    return sorted(c, value_iterate(c->m, c->self), c->argv[2], call_bool(c, 1, false),
                  call_bool(c, 0, false));
}

static const struct list *pairs(struct call *c)
{
    if (c->self.kind != VALUE_DICT && c->self.kind != VALUE_UNDEFINED)
        machine_fail(c->m, "items of a '%s': a dict is needed", value_type(c->self));
    struct list *list = list_new(c->m);
    for (size_t i = 0; c->self.kind == VALUE_DICT && i < c->self.dict->n; i++)
        list_add(c->m, list,
                 value_pair(c->m, c->self.dict->entries[i].key, c->self.dict->entries[i].value));
    return list;
}

static struct value filter_items(struct call *c)
{
    return value_list((struct list *)pairs(c));
}

static struct value filter_dictsort(struct call *c)
{
    bool by_value = str_is(call_str(c, 1, "key"), "value");
    return sorted(c, pairs(c), value_int(by_value), call_bool(c, 0, false), call_bool(c, 2, false));
}

static struct value filter_unique(struct call *c)
{
    const struct list *items = value_iterate(c->m, c->self);
    struct list *seen = list_new(c->m), *unique = list_new(c->m);
    for (size_t i = 0; i < items->n; i++) {
        struct value key = items->items[i];
        if (given(c, 1))
            key = follow(c->m, key, c->argv[1]);
        if (key.kind == VALUE_STRING && !call_bool(c, 0, false))
            key.string = text_case(c->m, key.string, CASE_LOWER);
        if (value_contains(c->m, value_list(seen), key))
            continue;
        list_add(c->m, seen, key);
        list_add(c->m, unique, items->items[i]);
    }
    return value_list(unique);
}

static struct value extreme(struct call *c, int sign)
{
    const struct list *items = value_iterate(c->m, c->self);
    if (items->n == 0)
        return value_undefined(str_of("extreme of an empty list"));
    struct value best = items->items[0], best_key = best;
    for (size_t i = 0; i < items->n; i++) {
        struct value item = items->items[i];
        struct value key = given(c, 1) ? follow(c->m, item, c->argv[1]) : item;
        bool better =
            i == 0 || sign * value_compare_case(c->m, key, best_key, call_bool(c, 0, false)) > 0;
        best = better ? item : best;
        best_key = better ? key : best_key;
    }
    return best;
}

static struct value filter_min(struct call *c)
{
    return extreme(c, -1);
}

static struct value filter_max(struct call *c)
{
    return extreme(c, 1);
}

static struct value filter_sum(struct call *c)
{
    const struct list *items = value_iterate(c->m, c->self);
    struct value sum = c->argv[1].kind == VALUE_ABSENT ? value_int(0) : c->argv[1];
    for (size_t i = 0; i < items->n; i++) {
        struct value item = items->items[i];
        sum = value_arithmetic(c->m, str_of("+"), sum,
                               given(c, 0) ? follow(c->m, item, c->argv[0]) : item);
    }
    return sum;
}

/* The arguments that were given, without the first `skip`. */
static struct arguments rest_of(struct call *c, size_t skip)
{
    struct list *rest = list_new(c->m);
    for (size_t i = skip; i < c->args.items->n; i++)
        list_add(c->m, rest, c->args.items->items[i]);
    return (struct arguments){rest, c->args.keywords};
}

static const struct builtin *named(struct call *c, size_t at, const char *what,
                                   const struct builtin *(*find)(struct str name))
{
    struct value name = c->args.items->items[at];
    if (name.kind != VALUE_STRING)
        machine_fail(c->m, "the name of a %s must be a string", what);
    const struct builtin *found = find(name.string);
    if (!found)
        machine_fail(c->m, "unknown %s '%.*s'", what, QUOTE(name.string));
    return found;
}

static struct value filter_map(struct call *c)
{
    const struct list *items = value_iterate(c->m, c->self);
    const struct value *path = dict_find_text(c->m, c->args.keywords, "attribute");
    const struct value *fallback = dict_find_text(c->m, c->args.keywords, "default");
    struct list *mapped = list_new(c->m);
    if (!path && c->args.items->n == 0)
        machine_fail(c->m, "filter 'map' needs the name of a filter or attribute=");
    const struct builtin *filter = path ? NULL : named(c, 0, "filter", filter_find);
    struct arguments args = rest_of(c, 1);
    for (size_t i = 0; i < items->n; i++) {
        struct value v = items->items[i];
        v = path ? follow(c->m, v, *path) : builtin_call(c->m, "filter", filter, v, args);
        list_add(c->m, mapped, path && fallback && v.kind == VALUE_UNDEFINED ? *fallback : v);
    }
    return value_list(mapped);
}

/* select and its kin: `by_attribute` when the first argument is an attribute, then optionally a
 * test and its arguments; keeps what gives `wanted`. */
static struct value choose(struct call *c, bool by_attribute, bool wanted)
{
    const struct list *items = value_iterate(c->m, c->self);
    struct list *chosen = list_new(c->m);
    size_t n = c->args.items->n, at = by_attribute;
    if (n < at)
        machine_fail(c->m, "filters 'selectattr' and 'rejectattr' need an attribute");
    const struct builtin *test = n > at ? named(c, at, "test", test_find) : NULL;
    struct arguments args = rest_of(c, at + 1);
    for (size_t i = 0; i < items->n; i++) {
        struct value v = items->items[i];
        if (by_attribute)
            v = follow(c->m, v, c->args.items->items[0]);
        if (test)
            v = builtin_call(c->m, "test", test, v, args);
        if (value_true(c->m, v) == wanted)
            list_add(c->m, chosen, items->items[i]);
    }
    return value_list(chosen);
}

static struct value filter_select(struct call *c)
{
    return choose(c, false, true);
}

static struct value filter_reject(struct call *c)
{
    return choose(c, false, false);
}

static struct value filter_selectattr(struct call *c)
{
    return choose(c, true, true);
}

static struct value filter_rejectattr(struct call *c)
{
    return choose(c, true, false);
}

const struct builtin list_filters[] = {
    {"first", NO_PARAMETERS, 0, filter_first},
    {"last", NO_PARAMETERS, 0, filter_last},
    {"length", NO_PARAMETERS, 0, filter_length},
    {"count", NO_PARAMETERS, 0, filter_length},
    {"list", NO_PARAMETERS, 0, filter_list},
    {"join", PARAMETERS("d", "attribute"), 0, filter_join},
    {"reverse", NO_PARAMETERS, 0, filter_reverse},
    {"sort", PARAMETERS("reverse", "case_sensitive", "attribute"), 0, filter_sort},
    {"items", NO_PARAMETERS, 0, filter_items},
    {"dictsort", PARAMETERS("case_sensitive", "by", "reverse"), 0, filter_dictsort},
    {"unique", PARAMETERS("case_sensitive", "attribute"), 0, filter_unique},
    {"min", PARAMETERS("case_sensitive", "attribute"), 0, filter_min},
    {"max", PARAMETERS("case_sensitive", "attribute"), 0, filter_max},
    {"sum", PARAMETERS("attribute", "start"), 0, filter_sum},
    {"map", ANY_ARGUMENTS, 0, filter_map},
    {"select", ANY_ARGUMENTS, 0, filter_select},
    {"reject", ANY_ARGUMENTS, 0, filter_reject},
    {"selectattr", ANY_ARGUMENTS, 0, filter_selectattr},
    {"rejectattr", ANY_ARGUMENTS, 0, filter_rejectattr},
    {0},
};
