/* The tests of the template language: `value is [not] NAME`.
 * https://jinja.palletsprojects.com/en/stable/templates/#builtin-tests */
#include "text/template/builtin.h"

static struct value is_kind(const struct call *c, enum value_kind kind)
{
    return value_bool(c->self.kind == kind);
}

static struct value test_defined(struct call *c)
{
    return value_bool(c->self.kind != VALUE_UNDEFINED);
}

static struct value test_undefined(struct call *c)
{
    return is_kind(c, VALUE_UNDEFINED);
}

static struct value test_none(struct call *c)
{
    return is_kind(c, VALUE_NONE);
}

static struct value test_string(struct call *c)
{
    return is_kind(c, VALUE_STRING);
}

static struct value test_number(struct call *c)
{
    return value_bool(value_is_number(c->self));
}

static struct value test_integer(struct call *c)
{
    return is_kind(c, VALUE_INT);
}

static struct value test_float(struct call *c)
{
    return is_kind(c, VALUE_FLOAT);
}

static struct value test_boolean(struct call *c)
{
    return is_kind(c, VALUE_BOOL);
}

static struct value test_true(struct call *c)
{
    return value_bool(c->self.kind == VALUE_BOOL && c->self.boolean);
}

static struct value test_false(struct call *c)
{
    return value_bool(c->self.kind == VALUE_BOOL && !c->self.boolean);
}

static struct value test_mapping(struct call *c)
{
    return is_kind(c, VALUE_DICT);
}

/* Jinja asks for a length and for items, which strings, dicts and undefined values have too. */
static struct value test_sequence(struct call *c)
{
    return value_bool(value_is_sequence(c->self) || c->self.kind == VALUE_STRING ||
                      c->self.kind == VALUE_DICT || c->self.kind == VALUE_UNDEFINED);
}

static struct value test_callable(struct call *c)
{
    return is_kind(c, VALUE_FUNCTION);
}

static struct value remainder_is(struct call *c, int64_t divisor, int64_t wanted)
{
    struct value rest = value_arithmetic(c->m, str_of("%"), c->self, value_int(divisor));
    return value_bool(value_equal(c->m, rest, value_int(wanted)));
}

static struct value test_even(struct call *c)
{
    return remainder_is(c, 2, 0);
}

static struct value test_odd(struct call *c)
{
    return remainder_is(c, 2, 1);
}

static struct value test_divisibleby(struct call *c)
{
    return remainder_is(c, call_int(c, 0, 1), 0);
}

static struct value test_eq(struct call *c)
{
    return value_bool(value_equal(c->m, c->self, c->argv[0]));
}

static struct value test_ne(struct call *c)
{
    return value_bool(!value_equal(c->m, c->self, c->argv[0]));
}

static struct value test_lt(struct call *c)
{
    return value_bool(value_compare(c->m, c->self, c->argv[0]) < 0);
}

static struct value test_le(struct call *c)
{
    return value_bool(value_compare(c->m, c->self, c->argv[0]) <= 0);
}

static struct value test_gt(struct call *c)
{
    return value_bool(value_compare(c->m, c->self, c->argv[0]) > 0);
}

static struct value test_ge(struct call *c)
{
    return value_bool(value_compare(c->m, c->self, c->argv[0]) >= 0);
}

static struct value test_in(struct call *c)
{
    return value_bool(value_contains(c->m, c->argv[0], c->self));
}

static struct value test_lower(struct call *c)
{
    return value_bool(str_equal(call_text(c), text_case(c->m, call_text(c), CASE_LOWER)));
}

static struct value test_upper(struct call *c)
{
    return value_bool(str_equal(call_text(c), text_case(c->m, call_text(c), CASE_UPPER)));
}

static const struct builtin tests[] = {
    {"defined", NO_PARAMETERS, 0, test_defined},
    {"undefined", NO_PARAMETERS, 0, test_undefined},
    {"none", NO_PARAMETERS, 0, test_none},
    {"string", NO_PARAMETERS, 0, test_string},
    {"number", NO_PARAMETERS, 0, test_number},
    {"integer", NO_PARAMETERS, 0, test_integer},
    {"float", NO_PARAMETERS, 0, test_float},
    {"boolean", NO_PARAMETERS, 0, test_boolean},
    {"true", NO_PARAMETERS, 0, test_true},
    {"false", NO_PARAMETERS, 0, test_false},
    {"mapping", NO_PARAMETERS, 0, test_mapping},
    {"sequence", NO_PARAMETERS, 0, test_sequence},
    {"iterable", NO_PARAMETERS, 0, test_sequence},
    {"callable", NO_PARAMETERS, 0, test_callable},
    {"lower", NO_PARAMETERS, 0, test_lower},
    {"upper", NO_PARAMETERS, 0, test_upper},
    {"even", NO_PARAMETERS, 0, test_even},
    {"odd", NO_PARAMETERS, 0, test_odd},
    {"divisibleby", PARAMETERS("num"), 1, test_divisibleby},
    {"==", PARAMETERS("other"), 1, test_eq},
    {"eq", PARAMETERS("other"), 1, test_eq},
    {"equalto", PARAMETERS("other"), 1, test_eq},
    {"sameas", PARAMETERS("other"), 1, test_eq},
    {"!=", PARAMETERS("other"), 1, test_ne},
    {"ne", PARAMETERS("other"), 1, test_ne},
    {"<", PARAMETERS("other"), 1, test_lt},
    {"lt", PARAMETERS("other"), 1, test_lt},
    {"lessthan", PARAMETERS("other"), 1, test_lt},
    {"<=", PARAMETERS("other"), 1, test_le},
    {"le", PARAMETERS("other"), 1, test_le},
    {">", PARAMETERS("other"), 1, test_gt},
    {"gt", PARAMETERS("other"), 1, test_gt},
    {"greaterthan", PARAMETERS("other"), 1, test_gt},
    {">=", PARAMETERS("other"), 1, test_ge},
    {"ge", PARAMETERS("other"), 1, test_ge},
    {"in", PARAMETERS("seq"), 1, test_in},
    {0},
};

const struct builtin *test_find(struct str name)
{
    return builtin_find(tests, name);
}
