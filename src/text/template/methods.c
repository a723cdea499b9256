/* The methods that Python's str, dict and list have for templates, and those of `loop`.
 * https://docs.python.org/3/library/stdtypes.html#string-methods */
#include "text/template/builtin.h"

static struct value strip(struct call *c, int sides)
{
    struct str set = call_str(c, 0, "");
    bool given = c->argv[0].kind != VALUE_ABSENT;
    return value_str(text_strip(c->m, c->self.string, given ? &set : NULL, sides));
}

static struct value str_strip(struct call *c)
{
    return strip(c, STRIP_LEFT | STRIP_RIGHT);
}

static struct value str_lstrip(struct call *c)
{
    return strip(c, STRIP_LEFT);
}

static struct value str_rstrip(struct call *c)
{
    return strip(c, STRIP_RIGHT);
}

/* Words between white space, at most `limit` splits (-1: all). */
static struct value split_words(struct call *c, int64_t limit)
{
    struct list *words = list_new(c->m);
    struct str rest = text_strip(c->m, c->self.string, NULL, STRIP_LEFT);
    while (rest.len) {
        size_t end = 0, bytes = 0;
        while (end < rest.len && !text_is_space(text_decode(rest, end, &bytes)))
            end += bytes;
        if (limit == 0)
            end = text_strip(c->m, rest, NULL, STRIP_RIGHT).len;
        limit -= limit > 0;
        machine_work(c->m, end);
        list_add(c->m, words, value_str(str_sub(rest, 0, end)));
        rest = text_strip(c->m, str_sub(rest, end, rest.len), NULL, STRIP_LEFT);
    }
    return value_list(words);
}

static struct str separator(struct call *c)
{
    struct str by = call_str(c, 0, "");
    if (by.len == 0)
        machine_fail(c->m, "split() with an empty separator");
    return by;
}

static struct value str_split(struct call *c)
{
    int64_t limit = call_int(c, 1, -1);
    if (c->argv[0].kind == VALUE_ABSENT || c->argv[0].kind == VALUE_NONE)
        return split_words(c, limit);
    struct list *parts = list_new(c->m);
    struct str s = c->self.string, by = separator(c);
    size_t at = 0;
    for (; limit != 0; limit -= limit > 0) {
        size_t hit = text_find(c->m, s, by, at);
        if (hit > s.len)
            break;
        list_add(c->m, parts, value_str(str_sub(s, at, hit)));
        at = hit + by.len;
    }
    list_add(c->m, parts, value_str(str_sub(s, at, s.len)));
    return value_list(parts);
}

static struct value str_rsplit(struct call *c)
{
    int64_t limit = call_int(c, 1, -1);
    if (limit < 0)
        return str_split(c);
    struct list *parts = list_new(c->m);
    struct str s = c->self.string, by = separator(c);
    size_t end = s.len;
    for (size_t at = s.len; limit > 0 && at >= by.len; at--) {
        machine_work(c->m, 1);
        if (!str_equal(str_sub(s, at - by.len, at), by))
            continue;
        list_add(c->m, parts, value_str(str_sub(s, at, end)));
        end = at - by.len;
        at = end + 1;
        limit--;
    }
    list_add(c->m, parts, value_str(str_sub(s, 0, end)));
    for (size_t i = 0; i < parts->n / 2; i++) {
        struct value swap = parts->items[i];
        parts->items[i] = parts->items[parts->n - 1 - i];
        parts->items[parts->n - 1 - i] = swap;
    }
    return value_list(parts);
}

static struct value str_splitlines(struct call *c)
{
    struct list *lines = list_new(c->m);
    struct str s = c->self.string;
    bool keep = call_bool(c, 0, false);
    machine_work(c->m, s.len);
    for (size_t begin = 0, end; begin < s.len;) {
        for (end = begin; end < s.len && s.data[end] != '\n' && s.data[end] != '\r';)
            end++;
        bool crlf = end + 1 < s.len && s.data[end] == '\r' && s.data[end + 1] == '\n';
        size_t next = end + (end < s.len) + crlf;
        list_add(c->m, lines, value_str(str_sub(s, begin, keep ? next : end)));
        begin = next;
    }
    return value_list(lines);
}

static bool has_affix(struct str s, struct str affix, bool suffix)
{
    size_t at = suffix && affix.len <= s.len ? s.len - affix.len : 0;
    return affix.len <= s.len && str_equal(str_sub(s, at, at + affix.len), affix);
}

/* One string, or a tuple of which any will do. */
static struct value check_affix(struct call *c, bool suffix)
{
    if (c->argv[0].kind != VALUE_TUPLE)
        return value_bool(has_affix(c->self.string, call_str(c, 0, ""), suffix));
    const struct list *any = c->argv[0].list;
    for (size_t i = 0; i < any->n; i++)
        if (any->items[i].kind == VALUE_STRING &&
            has_affix(c->self.string, any->items[i].string, suffix))
            return value_bool(true);
    return value_bool(false);
}

static struct value str_startswith(struct call *c)
{
    return check_affix(c, false);
}

static struct value str_endswith(struct call *c)
{
    return check_affix(c, true);
}

static struct value str_upper(struct call *c)
{
    return value_str(text_case(c->m, c->self.string, CASE_UPPER));
}

static struct value str_lower(struct call *c)
{
    return value_str(text_case(c->m, c->self.string, CASE_LOWER));
}

static struct value str_title(struct call *c)
{
    return value_str(text_case(c->m, c->self.string, CASE_TITLE));
}

static struct value str_capitalize(struct call *c)
{
    return value_str(text_case(c->m, c->self.string, CASE_CAPITALIZE));
}

static struct value str_replace(struct call *c)
{
    return value_str(text_replace(c->m, c->self.string, call_str(c, 0, ""), call_str(c, 1, ""),
                                  call_int(c, 2, -1)));
}

static struct value str_find(struct call *c)
{
    struct str s = c->self.string;
    size_t hit = text_find(c->m, s, call_str(c, 0, ""), 0);
    return value_int(hit > s.len ? -1 : (int64_t)text_length(c->m, str_sub(s, 0, hit)));
}

static struct value str_count(struct call *c)
{
    struct str s = c->self.string, part = call_str(c, 0, "");
    if (part.len == 0)
        return value_int((int64_t)text_length(c->m, s) + 1);
    int64_t n = 0;
    for (size_t at = 0; (at = text_find(c->m, s, part, at)) <= s.len; at += part.len)
        n++;
    return value_int(n);
}

static struct value str_join(struct call *c)
{
    struct buffer out = {0};
    const struct list *items = value_iterate(c->m, c->argv[0]);
    for (size_t i = 0; i < items->n; i++) {
        if (items->items[i].kind != VALUE_STRING)
            machine_fail(c->m, "join(): item %zu is '%s', not a string", i,
                         value_type(items->items[i]));
        buffer_add(c->m, &out, i ? c->self.string : str_of(""));
        buffer_add(c->m, &out, items->items[i].string);
    }
    return value_str(buffer_str(&out));
}

static struct value str_format(struct call *c)
{
    return format_braces(c->m, c->self.string, c->args.items, c->args.keywords);
}

static struct value str_isdigit(struct call *c)
{
    struct str s = c->self.string;
    bool digits = s.len > 0;
    for (size_t i = 0; i < s.len; i++)
        digits &= s.data[i] >= '0' && s.data[i] <= '9';
    return value_bool(digits);
}

static struct value dict_get(struct call *c)
{
    struct value *found = dict_find(c->m, c->self.dict, c->argv[0]);
    return found ? *found : c->argv[1].kind == VALUE_ABSENT ? value_none() : c->argv[1];
}

static struct value dict_items(struct call *c)
{
    struct list *items = list_new(c->m);
    for (size_t i = 0; i < c->self.dict->n; i++)
        list_add(c->m, items,
                 value_pair(c->m, c->self.dict->entries[i].key, c->self.dict->entries[i].value));
    return value_list(items);
}

static struct value dict_keys(struct call *c)
{
    return value_list((struct list *)value_iterate(c->m, c->self));
}

static struct value dict_values(struct call *c)
{
    struct list *values = list_new(c->m);
    for (size_t i = 0; i < c->self.dict->n; i++)
        list_add(c->m, values, c->self.dict->entries[i].value);
    return value_list(values);
}

static struct value dict_update(struct call *c)
{
    if (c->argv[0].kind != VALUE_DICT)
        machine_fail(c->m, "update() needs a dict, not '%s'", value_type(c->argv[0]));
    const struct dict *from = c->argv[0].dict;
    for (size_t i = 0, n = from->n; i < n; i++)
        dict_set(c->m, c->self.dict, from->entries[i].key, from->entries[i].value);
    return value_none();
}

static struct value list_append(struct call *c)
{
    list_add(c->m, c->self.list, c->argv[0]);
    return value_none();
}

static struct value list_pop(struct call *c)
{
    struct list *list = c->self.list;
    int64_t n = (int64_t)list->n, at = call_int(c, 0, -1);
    at += at < 0 ? n : 0;
    if (at < 0 || at >= n)
        machine_fail(c->m, "pop() outside of a list of %zu", list->n);
    struct value popped = list->items[at];
    machine_work(c->m, list->n);
    for (list->n--; (size_t)at < list->n; at++)
        list->items[at] = list->items[at + 1];
    return popped;
}

static struct value list_index(struct call *c)
{
    for (size_t i = 0; i < c->self.list->n; i++)
        if (value_equal(c->m, c->self.list->items[i], c->argv[0]))
            return value_int((int64_t)i);
    machine_fail(c->m, "index(): the value is not in the list");
}

static struct value list_count(struct call *c)
{
    int64_t n = 0;
    for (size_t i = 0; i < c->self.list->n; i++)
        n += value_equal(c->m, c->self.list->items[i], c->argv[0]);
    return value_int(n);
}

static struct value loop_cycle(struct call *c)
{
    if (c->args.items->n == 0)
        machine_fail(c->m, "loop.cycle() needs values");
    return c->args.items->items[c->self.loop->index % c->args.items->n];
}

static const struct builtin str_methods[] = {
    {"strip", PARAMETERS("chars"), 0, str_strip},
    {"lstrip", PARAMETERS("chars"), 0, str_lstrip},
    {"rstrip", PARAMETERS("chars"), 0, str_rstrip},
    {"split", PARAMETERS("sep", "maxsplit"), 0, str_split},
    {"rsplit", PARAMETERS("sep", "maxsplit"), 0, str_rsplit},
    {"splitlines", PARAMETERS("keepends"), 0, str_splitlines},
    {"startswith", PARAMETERS("prefix"), 1, str_startswith},
    {"endswith", PARAMETERS("suffix"), 1, str_endswith},
    {"upper", NO_PARAMETERS, 0, str_upper},
    {"lower", NO_PARAMETERS, 0, str_lower},
    {"title", NO_PARAMETERS, 0, str_title},
    {"capitalize", NO_PARAMETERS, 0, str_capitalize},
    {"replace", PARAMETERS("old", "new", "count"), 2, str_replace},
    {"find", PARAMETERS("sub"), 1, str_find},
    {"count", PARAMETERS("sub"), 1, str_count},
    {"join", PARAMETERS("iterable"), 1, str_join},
    {"format", ANY_ARGUMENTS, 0, str_format},
    {"isdigit", NO_PARAMETERS, 0, str_isdigit},
    {0},
};

static const struct builtin dict_methods[] = {
    {"get", PARAMETERS("key", "default"), 1, dict_get},
    {"items", NO_PARAMETERS, 0, dict_items},
    {"keys", NO_PARAMETERS, 0, dict_keys},
    {"values", NO_PARAMETERS, 0, dict_values},
    {"update", PARAMETERS("other"), 1, dict_update},
    {0},
};

static const struct builtin list_methods[] = {
    {"append", PARAMETERS("object"), 1, list_append},
    {"pop", PARAMETERS("index"), 0, list_pop},
    {"index", PARAMETERS("value"), 1, list_index},
    {"count", PARAMETERS("value"), 1, list_count},
    {0},
};

static const struct builtin loop_methods[] = {
    {"cycle", ANY_ARGUMENTS, 0, loop_cycle},
    {0},
};

const struct builtin *method_find(struct value self, struct str name)
{
    switch (self.kind) {
    case VALUE_STRING:
        return builtin_find(str_methods, name);
    case VALUE_DICT:
        return builtin_find(dict_methods, name);
    case VALUE_LIST:
        return builtin_find(list_methods, name);
    case VALUE_LOOP:
        return builtin_find(loop_methods, name);
    default:
        return NULL;
    }
}
