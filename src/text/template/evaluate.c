/* Evaluates expressions. */
#include "text/template/evaluate.h"

struct scope *scope_new(struct machine *m, struct scope *outer)
{
    struct scope *scope = machine_alloc(m, 1, sizeof *scope);
    scope->outer = outer;
    scope->captured = outer ? outer->captured : NULL;
    return scope;
}

void scope_set(struct machine *m, struct scope *scope, struct str name, struct value v)
{
    struct binding **at = &scope->bindings;
    for (; *at && !str_equal((*at)->name, name); at = &(*at)->next)
        machine_work(m, 1);
    if (!*at) {
        *at = machine_alloc(m, 1, sizeof **at);
        (*at)->name = name;
    }
    (*at)->value = v;
}

static struct value lookup(struct machine *m, const struct scope *scope, struct str name)
{
    for (; scope; scope = scope->outer) {
        machine_work(m, 1);
        for (const struct binding *b = scope->bindings; b; b = b->next) {
            machine_work(m, 1);
            if (str_equal(b->name, name))
                return b->value;
        }
    }
    const struct builtin *builtin = function_find(m, name);
    if (!builtin)
        return value_undefined(name);
    struct function *function = machine_alloc(m, 1, sizeof *function);
    *function = (struct function){.name = name, .builtin = builtin};
    return (struct value){.kind = VALUE_FUNCTION, .function = function};
}

struct arguments evaluate_arguments(struct machine *m, struct scope *scope, const struct node *args)
{
    struct list *items = list_new(m);
    struct dict *keywords = dict_new(m);
    for (; args; args = args->next) {
        if (args->kind == NODE_KEYWORD)
            dict_set(m, keywords, value_str(args->text), evaluate(m, scope, args->a));
        else if (keywords->n)
            machine_fail(m, "an argument without a name after one with a name");
        else
            list_add(m, items, evaluate(m, scope, args));
    }
    return (struct arguments){items, keywords};
}

static struct value call_function(struct machine *m, const struct function *function,
                                  struct arguments args)
{
    if (function->builtin)
        return builtin_call(m, "function", function->builtin, (struct value){0}, args);
    return call_macro(m, function, args);
}

/* a.name(args): a method, or the function that the attribute holds. */
static struct value call_attribute(struct machine *m, struct scope *scope, const struct node *node)
{
    struct value self = evaluate(m, scope, node->a->a);
    struct str name = node->a->text;
    m->line = node->a->line;
    const struct builtin *method = method_find(self, name);
    struct value callee = method ? value_none() : value_attribute(m, self, name);
    if (!method && callee.kind != VALUE_FUNCTION)
        machine_fail(m, "'%s' has no method '%.*s'", value_type(self), QUOTE(name));
    struct arguments args = evaluate_arguments(m, scope, node->args);
    m->line = node->a->line;
    return method ? builtin_call(m, "method", method, self, args)
                  : call_function(m, callee.function, args);
}

static struct value evaluate_call(struct machine *m, struct scope *scope, const struct node *node)
{
    if (node->a->kind == NODE_ATTRIBUTE)
        return call_attribute(m, scope, node);
    struct value callee = evaluate(m, scope, node->a);
    if (callee.kind == VALUE_UNDEFINED)
        machine_fail(m, "unknown function '%.*s'", QUOTE(callee.string));
    if (callee.kind != VALUE_FUNCTION)
        machine_fail(m, "'%s' object is not callable", value_type(callee));
    struct arguments args = evaluate_arguments(m, scope, node->args);
    m->line = node->line;
    return call_function(m, callee.function, args);
}

static struct value evaluate_filter(struct machine *m, struct scope *scope, const struct node *node)
{
    struct value self = evaluate(m, scope, node->a);
    struct arguments args = evaluate_arguments(m, scope, node->args);
    const struct builtin *filter = filter_find(node->text);
    m->line = node->line;
    if (!filter)
        machine_fail(m, "unknown filter '%.*s'", QUOTE(node->text));
    return builtin_call(m, "filter", filter, self, args);
}

static struct value evaluate_test(struct machine *m, struct scope *scope, const struct node *node)
{
    struct value self = evaluate(m, scope, node->a);
    struct arguments args = evaluate_arguments(m, scope, node->args);
    const struct builtin *test = test_find(node->text);
    m->line = node->line;
    if (!test)
        machine_fail(m, "unknown test '%.*s'", QUOTE(node->text));
    struct value result = builtin_call(m, "test", test, self, args);
    return value_bool(result.boolean != node->negated);
}

static bool compare(struct machine *m, struct str op, struct value a, struct value b)
{
    if (str_is(op, "=="))
        return value_equal(m, a, b);
    if (str_is(op, "!="))
        return !value_equal(m, a, b);
    if (str_is(op, "in"))
        return value_contains(m, b, a);
    if (str_is(op, "not in"))
        return !value_contains(m, b, a);
    int order = value_compare(m, a, b);
    bool or_equal = op.len == 2;
    return (or_equal && order == 0) || (op.data[0] == '<' ? order < 0 : order > 0);
}

static struct value evaluate_compare(struct machine *m, struct scope *scope,
                                     const struct node *node)
{
    struct value left = evaluate(m, scope, node->a);
    for (const struct node *next = node->args; next; next = next->next) {
        struct value right = evaluate(m, scope, next->a);
        m->line = next->line;
        if (!compare(m, next->text, left, right))
            return value_bool(false);
        left = right;
    }
    return value_bool(true);
}

static struct value evaluate_binary(struct machine *m, struct scope *scope, const struct node *node)
{
    struct value a = evaluate(m, scope, node->a), b = evaluate(m, scope, node->b);
    m->line = node->line;
    if (!str_is(node->text, "~"))
        return value_arithmetic(m, node->text, a, b);
    struct buffer text = {0};
    value_print(m, &text, a);
    value_print(m, &text, b);
    return value_str(buffer_str(&text));
}

static struct value evaluate_list(struct machine *m, struct scope *scope, const struct node *node)
{
    struct list *list = list_new(m);
    for (const struct node *item = node->args; item; item = item->next)
        list_add(m, list, evaluate(m, scope, item));
    return (struct value){.kind = node->kind == NODE_TUPLE ? VALUE_TUPLE : VALUE_LIST,
                          .list = list};
}

static struct value evaluate_dict(struct machine *m, struct scope *scope, const struct node *node)
{
    struct dict *dict = dict_new(m);
    for (const struct node *key = node->args; key; key = key->next->next) {
        struct value name = evaluate(m, scope, key);
        dict_set(m, dict, name, evaluate(m, scope, key->next));
    }
    return (struct value){.kind = VALUE_DICT, .dict = dict};
}

static struct value evaluate_slice(struct machine *m, struct scope *scope, const struct node *node)
{
    struct value v = evaluate(m, scope, node->a), bounds[3];
    const struct node *bound = node->args;
    for (size_t i = 0; i < 3; i++, bound = bound->next)
        bounds[i] = evaluate(m, scope, bound);
    m->line = node->line;
    return value_slice(m, v, bounds);
}

/* `and` and `or` give the operand that decided. */
static struct value evaluate_logic(struct machine *m, struct scope *scope, const struct node *node)
{
    struct value a = evaluate(m, scope, node->a);
    bool decided = value_true(m, a) == (node->kind == NODE_OR);
    return decided ? a : evaluate(m, scope, node->b);
}

static struct value evaluate_condition(struct machine *m, struct scope *scope,
                                       const struct node *node)
{
    if (value_true(m, evaluate(m, scope, node->b)))
        return evaluate(m, scope, node->a);
    return node->c ? evaluate(m, scope, node->c) : value_undefined(str_of("if without else"));
}

static struct value evaluate_item(struct machine *m, struct scope *scope, const struct node *node)
{
    struct value container = evaluate(m, scope, node->a), key = evaluate(m, scope, node->b);
    m->line = node->line;
    return value_item(m, container, key);
}

static struct value evaluate_attribute(struct machine *m, struct scope *scope,
                                       const struct node *node)
{
    struct value container = evaluate(m, scope, node->a);
    m->line = node->line;
    return value_attribute(m, container, node->text);
}

static struct value dispatch(struct machine *m, struct scope *scope, const struct node *node)
{
    switch (node->kind) {
    case NODE_CONSTANT:
        return node->value;
    case NODE_NAME:
        return lookup(m, scope, node->text);
    case NODE_LIST:
    case NODE_TUPLE:
        return evaluate_list(m, scope, node);
    case NODE_DICT:
        return evaluate_dict(m, scope, node);
    case NODE_ATTRIBUTE:
        return evaluate_attribute(m, scope, node);
    case NODE_ITEM:
        return evaluate_item(m, scope, node);
    case NODE_SLICE:
        return evaluate_slice(m, scope, node);
    case NODE_CALL:
        return evaluate_call(m, scope, node);
    case NODE_FILTER:
        return evaluate_filter(m, scope, node);
    case NODE_TEST:
        return evaluate_test(m, scope, node);
    case NODE_BINARY:
        return evaluate_binary(m, scope, node);
    case NODE_COMPARE:
        return evaluate_compare(m, scope, node);
    case NODE_AND:
    case NODE_OR:
        return evaluate_logic(m, scope, node);
    case NODE_NOT:
        return value_bool(!value_true(m, evaluate(m, scope, node->a)));
    case NODE_NEGATE:
        return value_negate(m, evaluate(m, scope, node->a));
    case NODE_CONDITION:
        return evaluate_condition(m, scope, node);
    case NODE_CAPTURED:
        return *scope->captured;
    default:
        machine_fail(m, "a statement stands where a value should be");
    }
}

struct value evaluate(struct machine *m, struct scope *scope, const struct node *node)
{
    machine_enter(m);
    m->line = node->line;
    struct value v = dispatch(m, scope, node);
    machine_leave(m);
    return v;
}
