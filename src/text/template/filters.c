/* The filters of the template language that work on strings, numbers and any value.
 * https://jinja.palletsprojects.com/en/stable/templates/#builtin-filters; tojson is that of Hugging
 * Face's transformers: json.dumps with ensure_ascii=False and no HTML escapes. */
#include "text/template/filters.h"

#include <math.h>

static struct value filter_trim(struct call *c)
{
    struct str set = call_str(c, 0, "");
    bool given = c->argv[0].kind != VALUE_ABSENT;
    return value_str(text_strip(c->m, call_text(c), given ? &set : NULL, STRIP_LEFT | STRIP_RIGHT));
}

static struct value filter_upper(struct call *c)
{
    return value_str(text_case(c->m, call_text(c), CASE_UPPER));
}

static struct value filter_lower(struct call *c)
{
    return value_str(text_case(c->m, call_text(c), CASE_LOWER));
}

static struct value filter_title(struct call *c)
{
    return value_str(text_case(c->m, call_text(c), CASE_TITLE));
}

static struct value filter_capitalize(struct call *c)
{
    return value_str(text_case(c->m, call_text(c), CASE_CAPITALIZE));
}

static struct value filter_replace(struct call *c)
{
    return value_str(text_replace(c->m, call_text(c), call_str(c, 0, ""), call_str(c, 1, ""),
                                  call_int(c, 2, -1)));
}

static struct value filter_default(struct call *c)
{
    bool missing =
        c->self.kind == VALUE_UNDEFINED || (call_bool(c, 1, false) && !value_true(c->m, c->self));
    if (!missing)
        return c->self;
    return c->argv[0].kind == VALUE_ABSENT ? value_str(str_of("")) : c->argv[0];
}

static struct value filter_string(struct call *c)
{
    return value_str(call_text(c));
}

static struct value filter_safe(struct call *c)
{
    return c->self;
}

static struct value filter_escape(struct call *c)
{
    struct buffer out = {0};
    struct str s = call_text(c);
    for (size_t i = 0; i < s.len; i++) {
        switch (s.data[i]) {
        case '&':
            buffer_text(c->m, &out, "&amp;");
            break;
        case '<':
            buffer_text(c->m, &out, "&lt;");
            break;
        case '>':
            buffer_text(c->m, &out, "&gt;");
            break;
        case '"':
            buffer_text(c->m, &out, "&#34;");
            break;
        case '\'':
            buffer_text(c->m, &out, "&#39;");
            break;
        default:
            buffer_char(c->m, &out, s.data[i]);
        }
    }
    return value_str(buffer_str(&out));
}

static struct value filter_format(struct call *c)
{
    if (c->args.keywords->n)
        machine_fail(c->m, "filter 'format' with keywords is not supported");
    return format_percent(c->m, call_text(c), c->args.items);
}

/* indent(width=4, first=false, blank=false); width may be the text to indent with. */
static struct value filter_indent(struct call *c)
{
    struct machine *m = c->m;
    struct buffer indentation = {0}, out = {0};
    bool first = call_bool(c, 1, false), blank = call_bool(c, 2, false);
    if (c->argv[0].kind == VALUE_STRING)
        buffer_add(m, &indentation, c->argv[0].string);
    else
        for (int64_t i = call_int(c, 0, 4); i > 0; i--)
            buffer_char(m, &indentation, ' ');
    struct str s = call_text(c);
    for (size_t begin = 0, line = 0; begin <= s.len; line++) {
        size_t end = text_find(m, s, str_of("\n"), begin);
        end = end < s.len ? end : s.len;
        if (line ? blank || end > begin : first)
            buffer_add(m, &out, buffer_str(&indentation));
        buffer_add(m, &out, str_sub(s, begin, end));
        buffer_text(m, &out, end < s.len ? "\n" : "");
        begin = end + 1;
    }
    return value_str(buffer_str(&out));
}

static struct value filter_tojson(struct call *c)
{
    struct buffer out = {0};
    struct json_style style = {.indent = call_int(c, 0, -1),
                               .item_separator = str_of(", "),
                               .key_separator = str_of(": "),
                               .sort_keys = call_bool(c, 2, false),
                               .ensure_ascii = call_bool(c, 3, false)};
    if (style.indent >= 0)
        style.item_separator = str_of(",");
    if (style.indent > 64)
        machine_fail(c->m, "filter 'tojson' indents by at most 64");
    if (c->argv[1].kind == VALUE_LIST || c->argv[1].kind == VALUE_TUPLE) {
        const struct list *pair = c->argv[1].list;
        if (pair->n != 2 || pair->items[0].kind != VALUE_STRING ||
            pair->items[1].kind != VALUE_STRING)
            machine_fail(c->m, "filter 'tojson': separators must be two strings");
        style.item_separator = pair->items[0].string;
        style.key_separator = pair->items[1].string;
    }
    value_json(c->m, &out, c->self, &style);
    return value_str(buffer_str(&out));
}

static struct value truncated(struct call *c, double f)
{
    if (!(f > -9.2e18 && f < 9.2e18))
        machine_fail(c->m, "a number does not fit an integer of 64 bits");
    return value_int((int64_t)f);
}

/* int(default=0): what is not a number gives the default. */
static struct value filter_int(struct call *c)
{
    int64_t integer, fallback = call_int(c, 0, 0);
    double real;
    if (value_is_integral(c->self))
        return value_int(value_integer(c->self));
    if (c->self.kind == VALUE_FLOAT)
        return isfinite(c->self.real) ? truncated(c, c->self.real) : value_int(fallback);
    if (c->self.kind != VALUE_STRING)
        return value_int(fallback);
    struct str s = text_strip(c->m, c->self.string, NULL, STRIP_LEFT | STRIP_RIGHT);
    if (text_to_int(s, &integer))
        return value_int(integer);
    return text_to_float(s, &real) ? truncated(c, real) : value_int(fallback);
}

static struct value filter_float(struct call *c)
{
    double real;
    if (value_is_number(c->self))
        return value_float(value_real(c->self));
    if (c->self.kind == VALUE_STRING) {
        struct str s = text_strip(c->m, c->self.string, NULL, STRIP_LEFT | STRIP_RIGHT);
        if (text_to_float(s, &real))
            return value_float(real);
    }
    return c->argv[0].kind == VALUE_ABSENT ? value_float(0) : c->argv[0];
}

static double number(struct call *c)
{
    if (!value_is_number(c->self))
        machine_fail(c->m, "a number is needed, not '%s'", value_type(c->self));
    return value_real(c->self);
}

static struct value filter_abs(struct call *c)
{
    return number(c) < 0 ? value_negate(c->m, c->self) : c->self;
}

static struct value filter_round(struct call *c)
{
    double value = number(c), scale = pow(10, (double)call_int(c, 0, 0));
    struct str method = call_str(c, 1, "common");
    if (!isfinite(value * scale) || scale == 0)
        machine_fail(c->m, "filter 'round' with a precision out of range");
    if (str_is(method, "common"))
        return value_float(nearbyint(value * scale) / scale);
    if (str_is(method, "ceil"))
        return value_float(ceil(value * scale) / scale);
    if (str_is(method, "floor"))
        return value_float(floor(value * scale) / scale);
    machine_fail(c->m, "filter 'round': unknown method '%.*s'", QUOTE(method));
}

static const struct builtin value_filters[] = {
    {"trim", PARAMETERS("chars"), 0, filter_trim},
    {"upper", NO_PARAMETERS, 0, filter_upper},
    {"lower", NO_PARAMETERS, 0, filter_lower},
    {"title", NO_PARAMETERS, 0, filter_title},
    {"capitalize", NO_PARAMETERS, 0, filter_capitalize},
    {"replace", PARAMETERS("old", "new", "count"), 2, filter_replace},
    {"default", PARAMETERS("default_value", "boolean"), 0, filter_default},
    {"d", PARAMETERS("default_value", "boolean"), 0, filter_default},
    {"string", NO_PARAMETERS, 0, filter_string},
    {"safe", NO_PARAMETERS, 0, filter_safe},
    {"escape", NO_PARAMETERS, 0, filter_escape},
    {"e", NO_PARAMETERS, 0, filter_escape},
    {"format", ANY_ARGUMENTS, 0, filter_format},
    {"indent", PARAMETERS("width", "first", "blank"), 0, filter_indent},
    {"tojson", PARAMETERS("indent", "separators", "sort_keys", "ensure_ascii"), 0, filter_tojson},
    {"int", PARAMETERS("default"), 0, filter_int},
    {"float", PARAMETERS("default"), 0, filter_float},
    {"abs", NO_PARAMETERS, 0, filter_abs},
    {"round", PARAMETERS("precision", "method"), 0, filter_round},
    {0},
};

const struct builtin *filter_find(struct str name)
{
    const struct builtin *found = builtin_find(value_filters, name);
    return found ? found : builtin_find(list_filters, name);
}
