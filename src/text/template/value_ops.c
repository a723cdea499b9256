/* Operators of the template language on values, with Python's meaning. */
#include "text/template/value.h"

#include <math.h>
#include <string.h>

bool value_true(struct machine *m, struct value v)
{
    switch (v.kind) {
    case VALUE_ABSENT:
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return false;
    case VALUE_BOOL:
    case VALUE_INT:
        return value_integer(v) != 0;
    case VALUE_FLOAT:
        return v.real != 0;
    case VALUE_STRING:
        return v.string.len != 0;
    case VALUE_LIST:
    case VALUE_TUPLE:
    case VALUE_DICT:
        return value_length(m, v) != 0;
    default:
        return true;
    }
}

static bool equal_lists(struct machine *m, const struct list *a, const struct list *b)
{
    bool equal = a->n == b->n;
    for (size_t i = 0; equal && i < a->n; i++)
        equal = value_equal(m, a->items[i], b->items[i]);
    return equal;
}

static bool equal_dicts(struct machine *m, const struct dict *a, const struct dict *b)
{
    bool equal = a->n == b->n;
    for (size_t i = 0; equal && i < a->n; i++) {
        const struct value *other = dict_find(m, b, a->entries[i].key);
        equal = other && value_equal(m, a->entries[i].value, *other);
    }
    return equal;
}

bool value_equal(struct machine *m, struct value a, struct value b)
{
    if (value_is_number(a) && value_is_number(b)) {
        if (value_is_integral(a) && value_is_integral(b))
            return value_integer(a) == value_integer(b);
        return value_real(a) == value_real(b);
    }
    if (a.kind != b.kind)
        return false;
    bool equal;
    switch (a.kind) {
    case VALUE_STRING:
        machine_work(m, a.string.len / 8);
        return str_equal(a.string, b.string);
    case VALUE_LIST:
    case VALUE_TUPLE:
        machine_enter(m);
        equal = equal_lists(m, a.list, b.list);
        machine_leave(m);
        return equal;
    case VALUE_DICT:
        machine_enter(m);
        equal = equal_dicts(m, a.dict, b.dict);
        machine_leave(m);
        return equal;
    case VALUE_NAMESPACE:
        return a.dict == b.dict;
    case VALUE_LOOP:
        return a.loop == b.loop;
    case VALUE_FUNCTION:
        return a.function == b.function;
    default:
        return true;
    }
}

static int compare_lists(struct machine *m, const struct list *a, const struct list *b)
{
    size_t n = a->n < b->n ? a->n : b->n;
    int order = 0;
    machine_enter(m);
    for (size_t i = 0; order == 0 && i < n; i++)
        order = value_compare(m, a->items[i], b->items[i]);
    machine_leave(m);
    return order ? order : (a->n > b->n) - (a->n < b->n);
}

int value_compare(struct machine *m, struct value a, struct value b)
{
    if (value_is_integral(a) && value_is_integral(b)) {
        int64_t x = value_integer(a), y = value_integer(b);
        return (x > y) - (x < y);
    }
    if (value_is_number(a) && value_is_number(b)) {
        double x = value_real(a), y = value_real(b);
        return (x > y) - (x < y);
    }
    if (a.kind == VALUE_STRING && b.kind == VALUE_STRING) {
        size_t n = a.string.len < b.string.len ? a.string.len : b.string.len;
        machine_work(m, n / 8);
        int order = n ? memcmp(a.string.data, b.string.data, n) : 0;
        return order ? order : (a.string.len > b.string.len) - (a.string.len < b.string.len);
    }
    if (value_is_sequence(a) && a.kind == b.kind)
        return compare_lists(m, a.list, b.list);
    machine_fail(m, "'%s' and '%s' cannot be ordered", value_type(a), value_type(b));
}

int value_compare_case(struct machine *m, struct value a, struct value b, bool case_sensitive)
{
    if (!case_sensitive && a.kind == VALUE_STRING && b.kind == VALUE_STRING) {
        a.string = text_case(m, a.string, CASE_LOWER);
        b.string = text_case(m, b.string, CASE_LOWER);
    }
    return value_compare(m, a, b);
}

bool value_contains(struct machine *m, struct value container, struct value item)
{
    switch (container.kind) {
    case VALUE_DICT:
        return dict_find(m, container.dict, item) != NULL;
    case VALUE_STRING:
        if (item.kind != VALUE_STRING)
            machine_fail(m, "'in <string>' requires a string, not '%s'", value_type(item));
        return text_find(m, container.string, item.string, 0) <= container.string.len;
    case VALUE_LIST:
    case VALUE_TUPLE:
        for (size_t i = 0; i < container.list->n; i++) {
            machine_work(m, 1);
            if (value_equal(m, container.list->items[i], item))
                return true;
        }
        return false;
    case VALUE_UNDEFINED:
        return false;
    default:
        machine_fail(m, "'%s' object cannot be searched with 'in'", value_type(container));
    }
}

static _Noreturn void wrong_operands(struct machine *m, struct str op, struct value a,
                                     struct value b)
{
    struct value undefined = a.kind == VALUE_UNDEFINED ? a : b;
    if (undefined.kind == VALUE_UNDEFINED)
        machine_fail(m, "'%.*s' is undefined, an operand of '%.*s'", QUOTE(undefined.string),
                     QUOTE(op));
    if (a.kind == VALUE_STRING && str_is(op, "+"))
        machine_fail(m, "can only concatenate str (not \"%s\") to str", value_type(b));
    machine_fail(m, "unsupported operands of '%.*s': '%s' and '%s'", QUOTE(op), value_type(a),
                 value_type(b));
}

static int64_t integer_power(int64_t base, int64_t exponent, bool *overflow)
{
    int64_t result = 1;
    for (; exponent > 0 && !*overflow; exponent >>= 1) {
        if (exponent & 1)
            *overflow |= __builtin_mul_overflow(result, base, &result);
        if (exponent > 1)
            *overflow |= __builtin_mul_overflow(base, base, &base);
    }
    return result;
}

/* Division rounds down, the remainder has the sign of the divisor. */
static int64_t floor_divide(int64_t a, int64_t b, bool remainder, bool *overflow)
{
    if (b == -1) {
        int64_t negated;
        *overflow = __builtin_sub_overflow((int64_t)0, a, &negated) && !remainder;
        return remainder ? 0 : negated;
    }
    int64_t quotient = a / b, rest = a % b;
    bool adjust = rest != 0 && (rest < 0) != (b < 0);
    return remainder ? rest + (adjust ? b : 0) : quotient - adjust;
}

static struct value integer_arithmetic(struct machine *m, struct str op, int64_t a, int64_t b)
{
    int64_t result = 0;
    bool overflow = false;
    if (str_is(op, "+"))
        overflow = __builtin_add_overflow(a, b, &result);
    else if (str_is(op, "-"))
        overflow = __builtin_sub_overflow(a, b, &result);
    else if (str_is(op, "*"))
        overflow = __builtin_mul_overflow(a, b, &result);
    else if (str_is(op, "**"))
        result = integer_power(a, b, &overflow);
    else
        result = floor_divide(a, b, str_is(op, "%"), &overflow);
    if (overflow)
        machine_fail(m, "integer overflow in %lld %.*s %lld", (long long)a, QUOTE(op),
                     (long long)b);
    return value_int(result);
}

static struct value real_arithmetic(struct str op, double a, double b)
{
    if (str_is(op, "+"))
        return value_float(a + b);
    if (str_is(op, "-"))
        return value_float(a - b);
    if (str_is(op, "*"))
        return value_float(a * b);
    if (str_is(op, "**"))
        return value_float(pow(a, b));
    if (str_is(op, "/"))
        return value_float(a / b);
    if (str_is(op, "//"))
        return value_float(floor(a / b));
    double rest = fmod(a, b);
    return value_float(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
}

static struct value repeat(struct machine *m, struct value v, int64_t times)
{
    struct buffer text = {0};
    struct list *list = list_new(m);
    size_t size = v.kind == VALUE_STRING ? v.string.len : v.list->n;
    for (int64_t i = 0; size > 0 && i < times; i++) {
        if (v.kind == VALUE_STRING)
            buffer_add(m, &text, v.string);
        for (size_t j = 0; v.kind != VALUE_STRING && j < size; j++)
            list_add(m, list, v.list->items[j]);
    }
    if (v.kind == VALUE_STRING)
        return value_str(buffer_str(&text));
    return (struct value){.kind = v.kind, .list = list};
}

static struct value concatenate(struct machine *m, struct value a, struct value b)
{
    if (a.kind == VALUE_STRING) {
        size_t len = a.string.len + b.string.len;
        struct buffer text = {machine_alloc(m, len, 1), 0, len};
        buffer_add(m, &text, a.string);
        buffer_add(m, &text, b.string);
        return value_str(buffer_str(&text));
    }
    struct list *list = list_new(m);
    for (size_t i = 0; i < a.list->n; i++)
        list_add(m, list, a.list->items[i]);
    for (size_t i = 0; i < b.list->n; i++)
        list_add(m, list, b.list->items[i]);
    return (struct value){.kind = a.kind, .list = list};
}

struct value value_arithmetic(struct machine *m, struct str op, struct value a, struct value b)
{
    if (value_is_number(a) && value_is_number(b)) {
        bool divides = op.data[0] == '/' || str_is(op, "%");
        if (divides && value_real(b) == 0)
            machine_fail(m, "division by zero");
        bool integral = value_is_integral(a) && value_is_integral(b) && !str_is(op, "/") &&
                        !(str_is(op, "**") && value_integer(b) < 0);
        return integral ? integer_arithmetic(m, op, value_integer(a), value_integer(b))
                        : real_arithmetic(op, value_real(a), value_real(b));
    }
    bool a_repeats = a.kind == VALUE_STRING || value_is_sequence(a);
    bool b_repeats = b.kind == VALUE_STRING || value_is_sequence(b);
    if (str_is(op, "*") && a_repeats && value_is_integral(b))
        return repeat(m, a, value_integer(b));
    if (str_is(op, "*") && b_repeats && value_is_integral(a))
        return repeat(m, b, value_integer(a));
    if (str_is(op, "+") && a_repeats && a.kind == b.kind)
        return concatenate(m, a, b);
    if (str_is(op, "%") && a.kind == VALUE_STRING) {
        struct list *single = list_new(m);
        list_add(m, single, b);
        return format_percent(m, a.string, b.kind == VALUE_TUPLE ? b.list : single);
    }
    wrong_operands(m, op, a, b);
}

struct value value_negate(struct machine *m, struct value v)
{
    if (v.kind == VALUE_FLOAT)
        return value_float(-v.real);
    if (!value_is_integral(v))
        machine_fail(m, "bad operand of unary -: '%s'", value_type(v));
    return integer_arithmetic(m, str_of("-"), 0, value_integer(v));
}
