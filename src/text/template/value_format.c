/* The two ways of Python to format text: "%s of %d" % args, and "{} of {name}".format(args).
 * https://docs.python.org/3/library/stdtypes.html#printf-style-string-formatting */
#include "text/template/value.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct conversion {
    bool zero;
    size_t width;
    int precision;
    char kind;
};

static size_t read_digits(struct str s, size_t *at)
{
    size_t value = 0;
    for (; *at < s.len && s.data[*at] >= '0' && s.data[*at] <= '9'; ++*at)
        value = value < 1000 ? value * 10 + (size_t)(s.data[*at] - '0') : value;
    return value;
}

/* After the '%'; leaves `*at` behind the conversion. */
static struct conversion read_conversion(struct str s, size_t *at)
{
    struct conversion c = {.precision = 6};
    c.zero = *at < s.len && s.data[*at] == '0';
    c.width = read_digits(s, at);
    if (*at < s.len && s.data[*at] == '.') {
        ++*at;
        c.precision = (int)read_digits(s, at);
    }
    if (*at < s.len)
        c.kind = s.data[(*at)++];
    return c;
}

static struct str convert(struct machine *m, struct conversion c, struct value v)
{
    char number[400];
    if (c.kind == 's')
        return value_text(m, v);
    bool known = c.kind == 'd' || c.kind == 'i' || c.kind == 'f' || c.kind == 'x';
    if (!known || c.precision > 60)
        machine_fail(m, "unsupported conversion '%%%c' in a format", c.kind ? c.kind : ' ');
    if (!value_is_number(v) || (c.kind == 'x' && v.kind == VALUE_FLOAT))
        machine_fail(m, "%%%c format: a number is required, not %s", c.kind, value_type(v));
    bool fits = v.kind != VALUE_FLOAT || (v.real > -9e18 && v.real < 9e18);
    if (c.kind != 'f' && !fits)
        machine_fail(m, "%%%c format: the number is too large", c.kind);
    int64_t integer = v.kind != VALUE_FLOAT ? value_integer(v) : fits ? (int64_t)v.real : 0;
    if (c.kind == 'f')
        snprintf(number, sizeof number, "%.*f", c.precision, value_real(v));
    else
        snprintf(number, sizeof number, c.kind == 'x' ? "%" PRIx64 : "%" PRId64, integer);
    struct buffer text = {0};
    buffer_text(m, &text, number);
    return buffer_str(&text);
}

struct value format_percent(struct machine *m, struct str format, const struct list *args)
{
    struct buffer out = {0};
    size_t used = 0;
    for (size_t at = 0, next; at < format.len; at = next) {
        next = text_find(m, format, str_of("%"), at);
        if (next >= format.len)
            next = format.len;
        buffer_add(m, &out, str_sub(format, at, next));
        if (next == format.len)
            break;
        next++;
        struct conversion c = read_conversion(format, &next);
        if (c.kind == '%') {
            buffer_char(m, &out, '%');
            continue;
        }
        if (used >= args->n)
            machine_fail(m, "not enough arguments for format '%.*s'", QUOTE(format));
        struct str text = convert(m, c, args->items[used++]);
        size_t len = text_length(m, text);
        bool sign = c.zero && text.len && text.data[0] == '-';
        buffer_text(m, &out, sign ? "-" : "");
        for (; len < c.width; len++)
            buffer_char(m, &out, c.zero && c.kind != 's' ? '0' : ' ');
        buffer_add(m, &out, str_sub(text, sign, text.len));
    }
    if (used < args->n)
        machine_fail(m, "too many arguments for format '%.*s'", QUOTE(format));
    return value_str(buffer_str(&out));
}

/* The value that a field, the text between braces, stands for. */
static struct value field_value(struct machine *m, struct str field, size_t *next,
                                const struct list *args, const struct dict *keywords)
{
    int64_t index;
    const struct value *found = NULL;
    if (field.len == 0)
        found = *next < args->n ? &args->items[(*next)++] : NULL;
    else if (text_to_int(field, &index))
        found = index >= 0 && (uint64_t)index < args->n ? &args->items[index] : NULL;
    else
        found = dict_find(m, keywords, value_str(field));
    if (!found)
        machine_fail(m, "no argument for the field '{%.*s}' of a format", QUOTE(field));
    return *found;
}

struct value format_braces(struct machine *m, struct str format, const struct list *args,
                           const struct dict *keywords)
{
    struct buffer out = {0};
    size_t next = 0;
    for (size_t at = 0; at < format.len; at++) {
        char c = format.data[at];
        bool doubled = at + 1 < format.len && format.data[at + 1] == c;
        if (c != '{' && c != '}') {
            buffer_char(m, &out, c);
        } else if (doubled) {
            buffer_char(m, &out, c);
            at++;
        } else {
            size_t end = c == '{' ? text_find(m, format, str_of("}"), at) : format.len;
            if (end >= format.len)
                machine_fail(m, "a single '%c' in format '%.*s'", c, QUOTE(format));
            struct str field = str_sub(format, at + 1, end);
            value_print(m, &out, field_value(m, field, &next, args, keywords));
            at = end;
        }
    }
    return value_str(buffer_str(&out));
}
