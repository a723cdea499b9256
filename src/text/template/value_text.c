/* Values as text: the way Python prints them, as JSON, and numbers from text.
 * https://docs.python.org/3/library/json.html#json.dumps */
#include "text/template/value.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

/* Python's repr of a float: the shortest digits that give the value back. Only the digits and the
 * exponent are taken from printf, so the locale's decimal point does not matter. */
static void print_float(struct machine *m, struct buffer *b, double f)
{
    char text[40], digits[24];
    if (!isfinite(f)) {
        buffer_text(m, b, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, f);
        if (strtod(text, NULL) == f)
            break;
    }
    char *e = strchr(text, 'e');
    int exponent = atoi(e + 1), n = 0;
    for (const char *c = text; c < e; c++)
        if (*c >= '0' && *c <= '9')
            digits[n++] = *c;
    if (signbit(f))
        buffer_char(m, b, '-');
    bool scientific = exponent < -4 || exponent >= 16;
    int point = scientific ? 1 : exponent + 1; /* digits before the point */
    if (point <= 0)
        buffer_char(m, b, '0');
    for (int i = point < 0 ? point : 0; i < point || i < n; i++) {
        if (i == (point < 0 ? point : 0) && point <= 0)
            buffer_char(m, b, '.');
        else if (i == point)
            buffer_char(m, b, '.');
        buffer_char(m, b, i < 0 || i >= n ? '0' : digits[i]);
    }
    if (!scientific && point >= n)
        buffer_text(m, b, ".0");
    if (scientific) {
        snprintf(text, sizeof text, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        buffer_text(m, b, text);
    }
}

static void print_int(struct machine *m, struct buffer *b, int64_t i)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, i);
    buffer_text(m, b, text);
}

/* repr of a string: in single quotes unless it has those and no double ones. */
static void print_quoted(struct machine *m, struct buffer *b, struct str s)
{
    bool single = s.len && memchr(s.data, '\'', s.len);
    char quote = single && !memchr(s.data, '"', s.len) ? '"' : '\'';
    buffer_char(m, b, quote);
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.data[i];
        char escape[8] = {'\\', (char)c};
        if (c == '\n' || c == '\r' || c == '\t')
            escape[1] = c == '\n' ? 'n' : c == '\r' ? 'r' : 't';
        else if (c < 0x20 || c == 0x7f)
            snprintf(escape, sizeof escape, "\\x%02x", c);
        else if (c != '\\' && c != (unsigned char)quote)
            escape[0] = (char)c, escape[1] = '\0';
        buffer_text(m, b, escape);
    }
    buffer_char(m, b, quote);
}

static void print_nested(struct machine *m, struct buffer *b, struct value v)
{
    if (v.kind == VALUE_STRING)
        print_quoted(m, b, v.string);
    else if (v.kind == VALUE_UNDEFINED)
        buffer_text(m, b, "Undefined");
    else
        value_print(m, b, v);
}

static void print_list(struct machine *m, struct buffer *b, struct value v)
{
    bool tuple = v.kind == VALUE_TUPLE;
    buffer_char(m, b, tuple ? '(' : '[');
    for (size_t i = 0; i < v.list->n; i++) {
        if (i)
            buffer_text(m, b, ", ");
        print_nested(m, b, v.list->items[i]);
    }
    buffer_text(m, b, tuple && v.list->n == 1 ? ",)" : tuple ? ")" : "]");
}

static void print_dict(struct machine *m, struct buffer *b, const struct dict *dict)
{
    buffer_char(m, b, '{');
    for (size_t i = 0; i < dict->n; i++) {
        if (i)
            buffer_text(m, b, ", ");
        print_nested(m, b, dict->entries[i].key);
        buffer_text(m, b, ": ");
        print_nested(m, b, dict->entries[i].value);
    }
    buffer_char(m, b, '}');
}

void value_print(struct machine *m, struct buffer *b, struct value v)
{
    machine_enter(m);
    switch (v.kind) {
    case VALUE_ABSENT:
    case VALUE_UNDEFINED:
        break;
    case VALUE_NONE:
        buffer_text(m, b, "None");
        break;
    case VALUE_BOOL:
        buffer_text(m, b, v.boolean ? "True" : "False");
        break;
    case VALUE_INT:
        print_int(m, b, v.integer);
        break;
    case VALUE_FLOAT:
        print_float(m, b, v.real);
        break;
    case VALUE_STRING:
        buffer_add(m, b, v.string);
        break;
    case VALUE_LIST:
    case VALUE_TUPLE:
        print_list(m, b, v);
        break;
    case VALUE_DICT:
        print_dict(m, b, v.dict);
        break;
    case VALUE_NAMESPACE:
        buffer_text(m, b, "<Namespace ");
        print_dict(m, b, v.dict);
        buffer_char(m, b, '>');
        break;
    case VALUE_LOOP:
    case VALUE_FUNCTION:
        machine_fail(m, "a %s cannot be printed", value_type(v));
    }
    machine_leave(m);
}

struct str value_text(struct machine *m, struct value v)
{
    struct buffer text = {0};
    if (v.kind == VALUE_STRING)
        return v.string;
    value_print(m, &text, v);
    return buffer_str(&text);
}

static void json_escape(struct machine *m, struct buffer *b, uint32_t c)
{
    char text[16];
    if (c > 0xffff)
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd7c0 + (c >> 10), 0xdc00 + (c & 0x3ff));
    else
        snprintf(text, sizeof text, "\\u%04x", c);
    buffer_text(m, b, text);
}

static void json_text(struct machine *m, struct buffer *b, struct str s, bool ensure_ascii)
{
    static const char escaped[] = "\"\\\n\r\t\f\b", letters[] = "\"\\nrtfb";
    buffer_char(m, b, '"');
    for (size_t at = 0, n; at < s.len; at += n) {
        uint32_t c = text_decode(s, at, &n);
        const char *short_form = c && c < 0x80 ? strchr(escaped, (int)c) : NULL;
        if (short_form) {
            buffer_char(m, b, '\\');
            buffer_char(m, b, letters[short_form - escaped]);
        } else if (c < 0x20 || (ensure_ascii && c > 0x7e)) {
            json_escape(m, b, c);
        } else {
            buffer_add(m, b, str_sub(s, at, at + n));
        }
    }
    buffer_char(m, b, '"');
}

static void json_new_line(struct machine *m, struct buffer *b, const struct json_style *style,
                          int64_t level)
{
    if (style->indent < 0)
        return;
    buffer_char(m, b, '\n');
    for (int64_t i = 0; i < level * style->indent; i++)
        buffer_char(m, b, ' ');
}

static void json_value(struct machine *m, struct buffer *b, struct value v,
                       const struct json_style *style, int64_t level);

static void json_list(struct machine *m, struct buffer *b, const struct list *list,
                      const struct json_style *style, int64_t level)
{
    buffer_char(m, b, '[');
    for (size_t i = 0; i < list->n; i++) {
        if (i)
            buffer_add(m, b, style->item_separator);
        json_new_line(m, b, style, level + 1);
        json_value(m, b, list->items[i], style, level + 1);
    }
    if (list->n)
        json_new_line(m, b, style, level);
    buffer_char(m, b, ']');
}

/* A key as text: json.dumps writes True as true, 1 as 1, ... */
static struct str json_key(struct machine *m, struct value key, const struct json_style *style)
{
    struct buffer text = {0};
    if (key.kind == VALUE_STRING)
        return key.string;
    json_value(m, &text, key, style, 0);
    return buffer_str(&text);
}

/* The entries of a dict, in the order of their keys. */
static const struct dict *sorted_entries(struct machine *m, const struct dict *dict)
{
    struct dict *sorted = dict_new(m);
    for (size_t i = 0; i < dict->n; i++) {
        dict_set(m, sorted, dict->entries[i].key, dict->entries[i].value);
        struct dict_entry *e = sorted->entries;
        for (size_t j = i; j > 0 && value_compare(m, e[j - 1].key, e[j].key) > 0; j--) {
            struct dict_entry swap = e[j];
            e[j] = e[j - 1];
            e[j - 1] = swap;
            machine_work(m, 1);
        }
    }
    return sorted;
}

static void json_dict(struct machine *m, struct buffer *b, const struct dict *dict,
                      const struct json_style *style, int64_t level)
{
    if (style->sort_keys)
        dict = sorted_entries(m, dict);
    buffer_char(m, b, '{');
    for (size_t i = 0; i < dict->n; i++) {
        if (i)
            buffer_add(m, b, style->item_separator);
        json_new_line(m, b, style, level + 1);
        json_text(m, b, json_key(m, dict->entries[i].key, style), style->ensure_ascii);
        buffer_add(m, b, style->key_separator);
        json_value(m, b, dict->entries[i].value, style, level + 1);
    }
    if (dict->n)
        json_new_line(m, b, style, level);
    buffer_char(m, b, '}');
}

static void json_value(struct machine *m, struct buffer *b, struct value v,
                       const struct json_style *style, int64_t level)
{
    machine_enter(m);
    switch (v.kind) {
    case VALUE_NONE:
        buffer_text(m, b, "null");
        break;
    case VALUE_BOOL:
        buffer_text(m, b, v.boolean ? "true" : "false");
        break;
    case VALUE_INT:
        print_int(m, b, v.integer);
        break;
    case VALUE_FLOAT:
        if (isfinite(v.real))
            print_float(m, b, v.real);
        else
            buffer_text(m, b, isnan(v.real) ? "NaN" : v.real < 0 ? "-Infinity" : "Infinity");
        break;
    case VALUE_STRING:
        json_text(m, b, v.string, style->ensure_ascii);
        break;
    case VALUE_LIST:
    case VALUE_TUPLE:
        json_list(m, b, v.list, style, level);
        break;
    case VALUE_DICT:
        json_dict(m, b, v.dict, style, level);
        break;
    case VALUE_UNDEFINED:
        machine_fail(m, "'%.*s' is undefined and cannot be written as JSON", QUOTE(v.string));
    default:
        machine_fail(m, "object of type %s is not JSON serializable", value_type(v));
    }
    machine_leave(m);
}

void value_json(struct machine *m, struct buffer *b, struct value v, const struct json_style *style)
{
    json_value(m, b, v, style, 0);
}

bool text_to_int(struct str s, int64_t *out)
{
    size_t i = 0;
    bool negative = s.len && s.data[0] == '-', any = false;
    int64_t value = 0;
    i += negative || (s.len && s.data[0] == '+');
    for (; i < s.len; i++) {
        if (s.data[i] == '_' && any)
            continue;
        int digit = s.data[i] - '0';
        if (digit < 0 || digit > 9 || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, negative ? -digit : digit, &value))
            return false;
        any = true;
    }
    *out = value;
    return any;
}

/* jansson reads numbers whatever the locale's decimal point is. */
bool text_to_float(struct str s, double *out)
{
    json_t *number = json_loadb(s.data, s.len, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
    bool is = json_is_real(number);
    if (is)
        *out = json_real_value(number);
    json_decref(number);
    return is;
}
