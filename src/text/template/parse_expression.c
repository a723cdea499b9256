/* Expressions of the template language, in Jinja's order of precedence: if-else, or, and, not,
 * comparisons, + -, ~, * / // %, **, unary, then `.name [item] (call)`, then filters and tests.
 * https://jinja.palletsprojects.com/en/stable/templates/#expressions */
#include "text/template/parser.h"

struct node *parser_node(struct parser *p, enum node_kind kind)
{
    struct node *node = machine_alloc(p->m, 1, sizeof *node);
    node->kind = kind;
    node->line = p->at->line;
    return node;
}

void parser_append(struct node_list *list, struct node *node)
{
    if (!list->last)
        list->last = &list->first;
    *list->last = node;
    list->last = &node->next;
}

void parser_unexpected(struct parser *p, const char *wanted)
{
    p->m->line = p->at->line;
    machine_fail(p->m, "unexpected '%.*s' where %s should be", QUOTE(p->at->text), wanted);
}

bool parser_is(const struct parser *p, const char *operator)
{
    return p->at->kind == TOKEN_OPERATOR && str_is(p->at->text, operator);
}

bool parser_accept(struct parser *p, const char *operator)
{
    bool is = parser_is(p, operator);
    p->at += is;
    return is;
}

void parser_expect(struct parser *p, const char *operator)
{
    if (!parser_accept(p, operator))
        parser_unexpected(p, operator);
}

bool parser_is_name(const struct parser *p, const char *name)
{
    return p->at->kind == TOKEN_NAME && str_is(p->at->text, name);
}

bool parser_accept_name(struct parser *p, const char *name)
{
    bool is = parser_is_name(p, name);
    p->at += is;
    return is;
}

struct str parser_name(struct parser *p, const char *wanted)
{
    if (p->at->kind != TOKEN_NAME)
        parser_unexpected(p, wanted);
    return p->at++->text;
}

static bool is_keyword(const struct parser *p)
{
    static const char *const keywords[] = {"and", "or", "not", "if", "else", "in", "is"};
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
        if (parser_is_name(p, keywords[i]))
            return true;
    return false;
}

static struct node *constant(struct parser *p, struct value v)
{
    struct node *node = parser_node(p, NODE_CONSTANT);
    node->value = v;
    return node;
}

/* Any node with operands; it takes the line of the current token. */
static struct node *operation(struct parser *p, enum node_kind kind, struct str text,
                              struct node *a, struct node *b)
{
    struct node *node = parser_node(p, kind);
    node->text = text;
    node->a = a;
    node->b = b;
    return node;
}

static struct node *parse_name(struct parser *p)
{
    static const struct {
        const char *name;
        struct value value;
    } constants[] = {
        {"true", {.kind = VALUE_BOOL, .boolean = true}},
        {"True", {.kind = VALUE_BOOL, .boolean = true}},
        {"false", {.kind = VALUE_BOOL, .boolean = false}},
        {"False", {.kind = VALUE_BOOL, .boolean = false}},
        {"none", {.kind = VALUE_NONE}},
        {"None", {.kind = VALUE_NONE}},
    };
    if (is_keyword(p))
        parser_unexpected(p, "a value");
    struct node *node = parser_node(p, NODE_NAME);
    node->text = p->at++->text;
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (str_is(node->text, constants[i].name)) {
            node->kind = NODE_CONSTANT;
            node->value = constants[i].value;
        }
    }
    return node;
}

static struct node *parse_number(struct parser *p)
{
    struct str text = p->at->text;
    struct value v = value_int(0);
    p->m->line = p->at->line;
    if (p->at->kind == TOKEN_INT && !text_to_int(text, &v.integer))
        machine_fail(p->m, "integer %.*s does not fit 64 bits", QUOTE(text));
    if (p->at->kind == TOKEN_FLOAT) {
        v.kind = VALUE_FLOAT;
        if (!text_to_float(text, &v.real))
            machine_fail(p->m, "number %.*s is out of range", QUOTE(text));
    }
    struct node *node = constant(p, v);
    p->at++;
    return node;
}

/* Strings side by side are one string. */
static struct node *parse_string(struct parser *p)
{
    struct node *node = constant(p, value_str(p->at->text));
    if (p->at[1].kind != TOKEN_STRING) {
        p->at++;
        return node;
    }
    struct buffer text = {0};
    for (; p->at->kind == TOKEN_STRING; p->at++)
        buffer_add(p->m, &text, p->at->text);
    node->value.string = buffer_str(&text);
    return node;
}

static struct node *parse_list(struct parser *p)
{
    struct node *node = parser_node(p, NODE_LIST);
    struct node_list items = {0};
    parser_expect(p, "[");
    while (!parser_accept(p, "]")) {
        if (items.first)
            parser_expect(p, ",");
        if (parser_accept(p, "]"))
            break;
        parser_append(&items, parse_expression(p));
    }
    node->args = items.first;
    return node;
}

static struct node *parse_dict(struct parser *p)
{
    struct node *node = parser_node(p, NODE_DICT);
    struct node_list items = {0};
    parser_expect(p, "{");
    while (!parser_accept(p, "}")) {
        if (items.first)
            parser_expect(p, ",");
        if (parser_accept(p, "}"))
            break;
        parser_append(&items, parse_expression(p));
        parser_expect(p, ":");
        parser_append(&items, parse_expression(p));
    }
    node->args = items.first;
    return node;
}

static struct node *parse_parenthesis(struct parser *p)
{
    struct node *empty = parser_node(p, NODE_TUPLE);
    parser_expect(p, "(");
    if (parser_accept(p, ")"))
        return empty;
    struct node *node = parse_tuple(p, true);
    parser_expect(p, ")");
    return node;
}

struct node *parse_primary(struct parser *p)
{
    switch (p->at->kind) {
    case TOKEN_NAME:
        return parse_name(p);
    case TOKEN_INT:
    case TOKEN_FLOAT:
        return parse_number(p);
    case TOKEN_STRING:
        return parse_string(p);
    default:
        break;
    }
    if (parser_is(p, "("))
        return parse_parenthesis(p);
    if (parser_is(p, "["))
        return parse_list(p);
    if (parser_is(p, "{"))
        return parse_dict(p);
    parser_unexpected(p, "a value");
}

struct node *parse_arguments(struct parser *p)
{
    struct node_list args = {0};
    while (!parser_accept(p, ")")) {
        if (args.first)
            parser_expect(p, ",");
        if (parser_accept(p, ")"))
            break;
        if (p->at->kind == TOKEN_NAME && p->at[1].kind == TOKEN_OPERATOR &&
            str_is(p->at[1].text, "=")) {
            struct node *keyword = parser_node(p, NODE_KEYWORD);
            keyword->text = p->at->text;
            p->at += 2;
            keyword->a = parse_expression(p);
            parser_append(&args, keyword);
        } else {
            parser_append(&args, parse_expression(p));
        }
    }
    return args.first;
}

/* After "[": an index or a slice, up to and with "]". */
static struct node *parse_subscript(struct parser *p, struct node *container)
{
    struct node *node = operation(p, NODE_ITEM, (struct str){0}, container, NULL);
    struct node_list bounds = {0};
    size_t colons = 0;
    for (bool more = true; more && colons < 3; colons += more) {
        bool open = parser_is(p, ":") || (colons > 0 && parser_is(p, "]"));
        parser_append(&bounds, open ? constant(p, value_none()) : parse_expression(p));
        more = parser_accept(p, ":");
    }
    parser_expect(p, "]");
    if (colons == 0) {
        node->b = bounds.first;
        return node;
    }
    if (colons == 1)
        parser_append(&bounds, constant(p, value_none()));
    node->kind = NODE_SLICE;
    node->args = bounds.first;
    return node;
}

static struct node *parse_postfix(struct parser *p, struct node *node)
{
    for (;;) {
        if (parser_accept(p, ".")) {
            if (p->at->kind == TOKEN_INT) {
                node = operation(p, NODE_ITEM, (struct str){0}, node, parse_number(p));
            } else {
                node = operation(p, NODE_ATTRIBUTE, p->at->text, node, NULL);
                parser_name(p, "a name after '.'");
            }
        } else if (parser_accept(p, "[")) {
            node = parse_subscript(p, node);
        } else if (parser_is(p, "(")) {
            node = operation(p, NODE_CALL, (struct str){0}, node, NULL);
            p->at++;
            node->args = parse_arguments(p);
        } else {
            return node;
        }
    }
}

struct node *parse_filters(struct parser *p, struct node *operand)
{
    do {
        operand = operation(p, NODE_FILTER, p->at->text, operand, NULL);
        parser_name(p, "the name of a filter");
        if (parser_accept(p, "("))
            operand->args = parse_arguments(p);
    } while (parser_accept(p, "|"));
    return operand;
}

/* After "is". A test may take one argument without parentheses: `x is divisibleby 3`. */
static struct node *parse_test(struct parser *p, struct node *operand)
{
    struct node *node = parser_node(p, NODE_TEST);
    node->a = operand;
    node->negated = parser_accept_name(p, "not");
    if (parser_accept_name(p, "in")) {
        node->text = str_of("in");
    } else if (parser_is(p, "==")) {
        node->text = p->at++->text;
    } else {
        node->text = parser_name(p, "the name of a test");
    }
    bool value = p->at->kind == TOKEN_INT || p->at->kind == TOKEN_FLOAT ||
                 p->at->kind == TOKEN_STRING || (p->at->kind == TOKEN_NAME && !is_keyword(p)) ||
                 parser_is(p, "[") || parser_is(p, "{");
    if (parser_accept(p, "("))
        node->args = parse_arguments(p);
    else if (value)
        node->args = parse_postfix(p, parse_primary(p));
    return node;
}

static struct node *parse_filters_and_tests(struct parser *p, struct node *node)
{
    for (;;) {
        if (parser_accept(p, "|")) {
            node = parse_filters(p, node);
        } else if (parser_accept_name(p, "is")) {
            node = parse_test(p, node);
        } else {
            return node;
        }
    }
}

static struct node *parse_unary(struct parser *p, bool filters)
{
    struct node *node;
    machine_enter(p->m);
    if (parser_is(p, "-")) {
        node = operation(p, NODE_NEGATE, p->at->text, NULL, NULL);
        p->at++;
        node->a = parse_unary(p, false);
    } else if (parser_accept(p, "+")) {
        node = parse_unary(p, false);
    } else {
        node = parse_postfix(p, parse_primary(p));
    }
    machine_leave(p->m);
    return filters ? parse_filters_and_tests(p, node) : node;
}

/* The left-associative operators, loosest first. */
static struct node *parse_binary(struct parser *p, size_t level)
{
    static const char *const operators[][4] = {{"+", "-"}, {"~"}, {"*", "/", "//", "%"}, {"**"}};
    enum { LEVELS = sizeof operators / sizeof *operators };
    if (level == LEVELS)
        return parse_unary(p, true);
    struct node *node = parse_binary(p, level + 1);
    for (;;) {
        bool found = false;
        for (size_t i = 0; i < 4 && operators[level][i]; i++)
            found |= parser_is(p, operators[level][i]);
        if (!found)
            return node;
        node = operation(p, NODE_BINARY, p->at->text, node, NULL);
        p->at++;
        node->b = parse_binary(p, level + 1);
    }
}

static bool accept_comparison(struct parser *p, struct str *operator)
{
    static const char *const operators[] = {"==", "!=", "<", "<=", ">", ">="};
    *operator= p->at->text;
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (parser_accept(p, operators[i]))
            return true;
    if (parser_accept_name(p, "in"))
        return true;
    if (parser_is_name(p, "not") && p->at[1].kind == TOKEN_NAME && str_is(p->at[1].text, "in")) {
        p->at += 2;
        *operator= str_of("not in");
        return true;
    }
    return false;
}

static struct node *parse_comparison(struct parser *p)
{
    struct node *first = parse_binary(p, 0);
    struct node_list chain = {0};
    struct str operator;
    while (accept_comparison(p, &operator))
        parser_append(&chain, operation(p, NODE_COMPARAND, operator, parse_binary(p, 0), NULL));
    if (!chain.first)
        return first;
    struct node *node = operation(p, NODE_COMPARE, chain.first->text, first, NULL);
    node->args = chain.first;
    return node;
}

static struct node *parse_not(struct parser *p)
{
    if (!parser_is_name(p, "not"))
        return parse_comparison(p);
    struct node *node = operation(p, NODE_NOT, p->at->text, NULL, NULL);
    p->at++;
    machine_enter(p->m);
    node->a = parse_not(p);
    machine_leave(p->m);
    return node;
}

static struct node *parse_and(struct parser *p)
{
    struct node *node = parse_not(p);
    while (parser_accept_name(p, "and"))
        node = operation(p, NODE_AND, (struct str){0}, node, parse_not(p));
    return node;
}

struct node *parse_or(struct parser *p)
{
    struct node *node = parse_and(p);
    while (parser_accept_name(p, "or"))
        node = operation(p, NODE_OR, (struct str){0}, node, parse_and(p));
    return node;
}

struct node *parse_expression(struct parser *p)
{
    machine_enter(p->m);
    struct node *node = parse_or(p);
    while (parser_accept_name(p, "if")) {
        node = operation(p, NODE_CONDITION, (struct str){0}, node, parse_or(p));
        if (parser_accept_name(p, "else"))
            node->c = parse_expression(p);
    }
    machine_leave(p->m);
    return node;
}

struct node *parse_tuple(struct parser *p, bool conditions)
{
    struct node *tuple = parser_node(p, NODE_TUPLE);
    struct node_list items = {0};
    bool comma = false;
    do {
        if (comma &&
            (parser_is(p, ")") || p->at->kind == TOKEN_BLOCK_END || p->at->kind == TOKEN_PRINT_END))
            break;
        parser_append(&items, conditions ? parse_expression(p) : parse_or(p));
        comma = parser_accept(p, ",");
    } while (comma);
    tuple->args = items.first;
    return comma || items.first->next ? tuple : items.first;
}
