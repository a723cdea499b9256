/* The values of the template language, which are Python's: what they are, and what can be done
 * with them whatever the construct that asks. */
#ifndef TESSERA_TEXT_TEMPLATE_VALUE_H
#define TESSERA_TEXT_TEMPLATE_VALUE_H

#include "text/template/machine.h"

enum value_kind {
    VALUE_ABSENT, /* a parameter that was not given; never seen by a template */
    VALUE_UNDEFINED,
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_FLOAT,
    VALUE_STRING,
    VALUE_LIST,
    VALUE_TUPLE,
    VALUE_DICT,
    VALUE_NAMESPACE,
    VALUE_LOOP,
    VALUE_FUNCTION,
};

struct value {
    enum value_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double real;
        struct str string; /* text; of an undefined value: the name that was asked for */
        struct list *list; /* of a list or tuple */
        struct dict *dict; /* of a dict or namespace */
        const struct loop *loop;
        const struct function *function;
    };
};

struct list {
    struct value *items;
    size_t n, capacity;
};

struct dict_entry {
    struct value key, value;
};

/* In order of insertion; looked up from front to back, dicts of templates are small. */
struct dict {
    struct dict_entry *entries;
    size_t n, capacity;
};

/* The variable `loop`. */
struct loop {
    const struct list *items;
    size_t index;
};

/* A builtin function or a macro. */
struct function {
    struct str name;
    const struct builtin *builtin;
    const struct node *macro;
    struct scope *scope; /* where the macro was defined */
};

static inline struct value value_none(void)
{
    return (struct value){.kind = VALUE_NONE};
}

static inline struct value value_bool(bool b)
{
    return (struct value){.kind = VALUE_BOOL, .boolean = b};
}

static inline struct value value_int(int64_t i)
{
    return (struct value){.kind = VALUE_INT, .integer = i};
}

static inline struct value value_float(double f)
{
    return (struct value){.kind = VALUE_FLOAT, .real = f};
}

static inline struct value value_str(struct str s)
{
    return (struct value){.kind = VALUE_STRING, .string = s};
}

static inline struct value value_undefined(struct str name)
{
    return (struct value){.kind = VALUE_UNDEFINED, .string = name};
}

static inline struct value value_list(struct list *list)
{
    return (struct value){.kind = VALUE_LIST, .list = list};
}

static inline bool value_is_sequence(struct value v)
{
    return v.kind == VALUE_LIST || v.kind == VALUE_TUPLE;
}

static inline bool value_is_integral(struct value v)
{
    return v.kind == VALUE_INT || v.kind == VALUE_BOOL;
}

static inline bool value_is_number(struct value v)
{
    return value_is_integral(v) || v.kind == VALUE_FLOAT;
}

/* Value of a bool or int; of a number as a double. */
int64_t value_integer(struct value v);
double value_real(struct value v);

/* Python's name of the type: "str", "NoneType", ... */
const char *value_type(struct value v);

/* value.c: containers */
struct list *list_new(struct machine *m);
void list_add(struct machine *m, struct list *list, struct value v);
struct dict *dict_new(struct machine *m);
/* NULL when there is no such key. */
struct value *dict_find(struct machine *m, const struct dict *dict, struct value key);
struct value *dict_find_text(struct machine *m, const struct dict *dict, const char *key);
void dict_set(struct machine *m, struct dict *dict, struct value key, struct value v);
struct value value_pair(struct machine *m, struct value a, struct value b);

/* What a for loop sees: items of a list, keys of a dict, characters of a string. */
const struct list *value_iterate(struct machine *m, struct value v);
size_t value_length(struct machine *m, struct value v);
/* container[key]; undefined when there is no such thing. */
struct value value_item(struct machine *m, struct value container, struct value key);
/* container.name, as Jinja looks it up; fails on an undefined container. */
struct value value_attribute(struct machine *m, struct value container, struct str name);
/* container[start:stop:step]; bounds that are none are open. */
struct value value_slice(struct machine *m, struct value v, const struct value bounds[3]);

/* value_ops.c: operators */
bool value_true(struct machine *m, struct value v);
bool value_equal(struct machine *m, struct value a, struct value b);
/* <0, 0, >0; fails on values that have no order. Two strings: by code point. */
int value_compare(struct machine *m, struct value a, struct value b);
/* The same, strings without regard to case unless `case_sensitive`. */
int value_compare_case(struct machine *m, struct value a, struct value b, bool case_sensitive);
bool value_contains(struct machine *m, struct value container, struct value item);
/* `op` is the operator as written: + - * / // % ** */
struct value value_arithmetic(struct machine *m, struct str op, struct value a, struct value b);
struct value value_negate(struct machine *m, struct value v);

/* value_text.c: text of values */
/* str(v): a string as it is, anything else as Python prints it. */
struct str value_text(struct machine *m, struct value v);
void value_print(struct machine *m, struct buffer *b, struct value v);
struct json_style {
    int64_t indent; /* -1: all on one line */
    struct str item_separator, key_separator;
    bool sort_keys, ensure_ascii;
};
void value_json(struct machine *m, struct buffer *b, struct value v,
                const struct json_style *style);
/* A decimal number in Python's (and JSON's) notation; false when it is none. */
bool text_to_float(struct str s, double *out);
bool text_to_int(struct str s, int64_t *out);
/* format % args, and format.format(args). */
struct value format_percent(struct machine *m, struct str format, const struct list *args);
struct value format_braces(struct machine *m, struct str format, const struct list *args,
                           const struct dict *keywords);

/* value_string.c: strings are sequences of code points */
size_t text_length(struct machine *m, struct str s);
/* Bytes of the character at `at`: at least one, also in what is not UTF-8. */
size_t text_char(struct str s, size_t at);
uint32_t text_decode(struct str s, size_t at, size_t *bytes);
bool text_is_space(uint32_t c);
/* Position of `needle` at or after `from`; s.len + 1 when there is none. */
size_t text_find(struct machine *m, struct str s, struct str needle, size_t from);
enum { STRIP_LEFT = 1, STRIP_RIGHT = 2 };
/* `set` NULL: white space. */
struct str text_strip(struct machine *m, struct str s, const struct str *set, int sides);
enum text_case { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_CAPITALIZE };
struct str text_case(struct machine *m, struct str s, enum text_case how);
struct str text_replace(struct machine *m, struct str s, struct str from, struct str to,
                        int64_t limit);

#endif
