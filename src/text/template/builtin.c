/* How builtins are found and called, and the global functions. */
#include "text/template/builtin.h"

#include <time.h>

const struct builtin *builtin_find(const struct builtin *table, struct str name)
{
    for (; table->name; table++)
        if (str_is(name, table->name))
            return table;
    return NULL;
}

static size_t parameter_index(struct machine *m, const char *what, const struct builtin *builtin,
                              struct value keyword)
{
    for (size_t i = 0; builtin->parameters[i]; i++)
        if (str_is(keyword.string, builtin->parameters[i]))
            return i;
    machine_fail(m, "%s '%s' has no parameter '%.*s'", what, builtin->name, QUOTE(keyword.string));
}

static void bind(struct call *c, const char *what, const struct builtin *builtin)
{
    size_t known = 0;
    while (builtin->parameters[known])
        known++;
    if (c->args.items->n > known)
        machine_fail(c->m, "%s '%s' takes at most %zu arguments", what, builtin->name, known);
    for (size_t i = 0; i < c->args.items->n; i++)
        c->argv[i] = c->args.items->items[i];
    for (size_t i = 0; i < c->args.keywords->n; i++) {
        const struct dict_entry *keyword = &c->args.keywords->entries[i];
        size_t at = parameter_index(c->m, what, builtin, keyword->key);
        if (c->argv[at].kind != VALUE_ABSENT)
            machine_fail(c->m, "%s '%s' got '%s' twice", what, builtin->name,
                         builtin->parameters[at]);
        c->argv[at] = keyword->value;
    }
    for (size_t i = 0; i < builtin->required; i++)
        if (c->argv[i].kind == VALUE_ABSENT)
            machine_fail(c->m, "%s '%s' needs its argument '%s'", what, builtin->name,
                         builtin->parameters[i]);
}

struct value builtin_call(struct machine *m, const char *what, const struct builtin *builtin,
                          struct value self, struct arguments args)
{
    struct call c = {.m = m, .self = self, .args = args};
    if (builtin->parameters)
        bind(&c, what, builtin);
    return builtin->call(&c);
}

bool call_bool(const struct call *c, size_t parameter, bool fallback)
{
    struct value v = c->argv[parameter];
    return v.kind == VALUE_ABSENT ? fallback : value_true(c->m, v);
}

int64_t call_int(const struct call *c, size_t parameter, int64_t fallback)
{
    struct value v = c->argv[parameter];
    if (v.kind == VALUE_ABSENT || v.kind == VALUE_NONE)
        return fallback;
    if (!value_is_integral(v))
        machine_fail(c->m, "an integer argument is needed, not '%s'", value_type(v));
    return value_integer(v);
}

struct str call_str(const struct call *c, size_t parameter, const char *fallback)
{
    struct value v = c->argv[parameter];
    if (v.kind == VALUE_ABSENT)
        return str_of(fallback);
    if (v.kind != VALUE_STRING)
        machine_fail(c->m, "a string argument is needed, not '%s'", value_type(v));
    return v.string;
}

struct str call_text(const struct call *c)
{
    return value_text(c->m, c->self);
}

static struct value function_range(struct call *c)
{
    bool one = c->argv[1].kind == VALUE_ABSENT;
    int64_t start = one ? 0 : call_int(c, 0, 0);
    int64_t stop = call_int(c, one ? 0 : 1, 0), step = call_int(c, 2, 1);
    if (step == 0)
        machine_fail(c->m, "range() step must not be zero");
    struct list *list = list_new(c->m);
    for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
        if (list->n == MAX_RANGE)
            machine_fail(c->m, "range() of more than %d numbers", MAX_RANGE);
        list_add(c->m, list, value_int(i));
        if (__builtin_add_overflow(i, step, &i))
            break;
    }
    return value_list(list);
}

/* dict() and namespace(): a copy of a dict, and keywords. */
static struct dict *dict_of_arguments(struct call *c)
{
    struct dict *dict = dict_new(c->m);
    for (size_t i = 0; i < c->args.items->n; i++) {
        struct value from = c->args.items->items[i];
        if (i > 0 || from.kind != VALUE_DICT)
            machine_fail(c->m, "dict() and namespace() take one dict and keywords");
        for (size_t j = 0; j < from.dict->n; j++)
            dict_set(c->m, dict, from.dict->entries[j].key, from.dict->entries[j].value);
    }
    for (size_t i = 0; i < c->args.keywords->n; i++)
        dict_set(c->m, dict, c->args.keywords->entries[i].key, c->args.keywords->entries[i].value);
    return dict;
}

static struct value function_dict(struct call *c)
{
    return (struct value){.kind = VALUE_DICT, .dict = dict_of_arguments(c)};
}

static struct value function_namespace(struct call *c)
{
    return (struct value){.kind = VALUE_NAMESPACE, .dict = dict_of_arguments(c)};
}

static struct value function_raise_exception(struct call *c)
{
    struct str message = value_text(c->m, c->argv[0]);
    machine_fail(c->m, "%.*s", (int)(message.len < 900 ? message.len : 900), message.data);
}

/* Rendering is deterministic: the time is the caller's variable `now`, in seconds since 1970, and
 * is printed in UTC. Without that variable the function is undefined, which templates test for. */
static struct value function_strftime_now(struct call *c)
{
    char text[256], format[256];
    struct str wanted = call_str(c, 0, "");
    time_t seconds = (time_t)c->m->now;
    struct tm parts;
    if (wanted.len == 0 || wanted.len >= sizeof format || !gmtime_r(&seconds, &parts))
        machine_fail(c->m, "strftime_now() cannot format '%.*s'", QUOTE(wanted));
    __builtin_memcpy(format, wanted.data, wanted.len);
    format[wanted.len] = '\0';
    size_t len = strftime(text, sizeof text, format, &parts);
    struct buffer out = {0};
    buffer_add(c->m, &out, (struct str){text, len});
    return value_str(buffer_str(&out));
}

static const struct builtin functions[] = {
    {"range", PARAMETERS("start", "stop", "step"), 1, function_range},
    {"dict", ANY_ARGUMENTS, 0, function_dict},
    {"namespace", ANY_ARGUMENTS, 0, function_namespace},
    {"raise_exception", PARAMETERS("message"), 1, function_raise_exception},
    {0},
};

static const struct builtin clock_functions[] = {
    {"strftime_now", PARAMETERS("format"), 1, function_strftime_now},
    {0},
};

const struct builtin *function_find(const struct machine *m, struct str name)
{
    const struct builtin *found = builtin_find(functions, name);
    return found || !m->has_now ? found : builtin_find(clock_functions, name);
}
