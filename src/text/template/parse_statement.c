/* Statements of the template language.
 * https://jinja.palletsprojects.com/en/stable/templates/#list-of-control-structures, and
 * {% generation %} of Hugging Face's transformers, which marks text and changes none. */
#include "text/template/parser.h"

static struct node *parse_block(struct parser *p, const char *const *ends);

static void end_tag(struct parser *p)
{
    if (p->at->kind != TOKEN_BLOCK_END)
        parser_unexpected(p, "%}");
    p->at++;
}

/* The statements up to {% end %}, that tag included. */
static struct node *parse_body(struct parser *p, const char *end)
{
    const char *const ends[] = {end, NULL};
    struct node *body = parse_block(p, ends);
    p->at++;
    return body;
}

/* The body of a block whose text is captured, and both tag ends. It cannot break a loop outside. */
static struct node *parse_detached_body(struct parser *p, const char *end)
{
    size_t loops = p->loops;
    end_tag(p);
    p->loops = 0;
    struct node *body = parse_body(p, end);
    p->loops = loops;
    end_tag(p);
    return body;
}

static struct node *parse_if(struct parser *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct node *first = parser_node(p, NODE_IF), *node = first;
    for (;;) {
        node->a = parse_tuple(p, true);
        end_tag(p);
        node->body = parse_block(p, ends);
        if (!parser_accept_name(p, "elif"))
            break;
        node->otherwise = parser_node(p, NODE_IF);
        node = node->otherwise;
        node->elif = true;
    }
    if (parser_accept_name(p, "else")) {
        end_tag(p);
        node->otherwise = parse_body(p, "endif");
    } else {
        p->at++;
    }
    end_tag(p);
    return first;
}

/* A name, name.attribute, or several of them with commas, in parentheses or not. */
static struct node *parse_target(struct parser *p)
{
    struct node *tuple = parser_node(p, NODE_TUPLE);
    struct node_list names = {0};
    bool parenthesis = parser_accept(p, "("), comma;
    do {
        struct node *name = parser_node(p, NODE_NAME);
        name->text = parser_name(p, "the name of a variable");
        if (parser_accept(p, ".")) {
            struct node *attribute = parser_node(p, NODE_ATTRIBUTE);
            attribute->a = name;
            attribute->text = parser_name(p, "a name after '.'");
            name = attribute;
        }
        parser_append(&names, name);
        comma = parser_accept(p, ",");
    } while (comma);
    if (parenthesis)
        parser_expect(p, ")");
    tuple->args = names.first;
    return names.first->next ? tuple : names.first;
}

static struct node *parse_for(struct parser *p)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    struct node *node = parser_node(p, NODE_FOR);
    node->a = parse_target(p);
    if (!parser_accept_name(p, "in"))
        parser_unexpected(p, "'in'");
    node->b = parse_tuple(p, false);
    if (parser_accept_name(p, "if"))
        node->c = parse_expression(p);
    if (parser_is_name(p, "recursive"))
        parser_unexpected(p, "%} (recursive loops are not supported)");
    end_tag(p);
    p->loops++;
    node->body = parse_block(p, ends);
    p->loops--;
    if (parser_accept_name(p, "else")) {
        end_tag(p);
        node->otherwise = parse_body(p, "endfor");
    } else {
        p->at++;
    }
    end_tag(p);
    return node;
}

static struct node *parse_captured(struct parser *p)
{
    return parse_filters(p, parser_node(p, NODE_CAPTURED));
}

static struct node *parse_set(struct parser *p)
{
    struct node *node = parser_node(p, NODE_SET);
    node->a = parse_target(p);
    if (parser_accept(p, "=")) {
        node->b = parse_tuple(p, true);
        end_tag(p);
        return node;
    }
    if (parser_accept(p, "|"))
        node->c = parse_captured(p);
    node->body = parse_detached_body(p, "endset");
    return node;
}

static struct node *parse_parameters(struct parser *p)
{
    struct node_list parameters = {0};
    while (!parser_accept(p, ")")) {
        if (parameters.first)
            parser_expect(p, ",");
        if (parser_accept(p, ")"))
            break;
        struct node *parameter = parser_node(p, NODE_PARAMETER);
        parameter->text = parser_name(p, "the name of a parameter");
        if (parser_accept(p, "="))
            parameter->a = parse_expression(p);
        parser_append(&parameters, parameter);
    }
    return parameters.first;
}

static struct node *parse_macro(struct parser *p)
{
    struct node *node = parser_node(p, NODE_MACRO);
    node->text = parser_name(p, "the name of a macro");
    parser_expect(p, "(");
    node->args = parse_parameters(p);
    node->body = parse_detached_body(p, "endmacro");
    return node;
}

static struct node *parse_call_block(struct parser *p)
{
    struct node *node = parser_node(p, NODE_CALLER);
    node->text = str_of("caller");
    if (parser_accept(p, "("))
        node->args = parse_parameters(p);
    node->a = parse_expression(p);
    if (node->a->kind != NODE_CALL)
        parser_unexpected(p, "the call of a macro");
    node->body = parse_detached_body(p, "endcall");
    return node;
}

static struct node *parse_filter_block(struct parser *p)
{
    struct node *node = parser_node(p, NODE_FILTERED);
    node->a = parse_captured(p);
    node->body = parse_detached_body(p, "endfilter");
    return node;
}

static struct node *parse_generation(struct parser *p)
{
    struct node *node = parser_node(p, NODE_SCOPE);
    end_tag(p);
    node->body = parse_body(p, "endgeneration");
    end_tag(p);
    return node;
}

static struct node *parse_do(struct parser *p)
{
    struct node *node = parser_node(p, NODE_DO);
    node->a = parse_tuple(p, true);
    end_tag(p);
    return node;
}

static struct node *parse_jump(struct parser *p)
{
    struct str word = p->at[-1].text;
    if (p->loops == 0)
        machine_fail(p->m, "'%.*s' outside of a loop", QUOTE(word));
    struct node *node = parser_node(p, str_is(word, "break") ? NODE_BREAK : NODE_CONTINUE);
    end_tag(p);
    return node;
}

/* At the first word of a {% tag %}. */
static struct node *parse_statement(struct parser *p)
{
    static const struct {
        const char *word;
        struct node *(*parse)(struct parser *p);
    } statements[] = {
        {"if", parse_if},           {"for", parse_for},
        {"set", parse_set},         {"macro", parse_macro},
        {"call", parse_call_block}, {"filter", parse_filter_block},
        {"do", parse_do},           {"generation", parse_generation},
        {"break", parse_jump},      {"continue", parse_jump},
    };
    p->m->line = p->at->line;
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        if (parser_accept_name(p, statements[i].word))
            return statements[i].parse(p);
    machine_fail(p->m, "unknown statement {%% %.*s %%}", QUOTE(p->at->text));
}

static struct node *parse_print(struct parser *p)
{
    struct node *node = parser_node(p, NODE_PRINT);
    node->a = parse_tuple(p, true);
    if (p->at->kind != TOKEN_PRINT_END)
        parser_unexpected(p, "}}");
    p->at++;
    return node;
}

/* Statements up to a tag whose first word is among `ends`, the last of which the block must have;
 * stops at that word. With no ends: up to the end of the template. */
static struct node *parse_block(struct parser *p, const char *const *ends)
{
    size_t begin_line = p->at->line;
    struct node_list body = {0};
    machine_enter(p->m);
    for (;;) {
        const struct token *token = p->at++;
        if (token->kind == TOKEN_DATA) {
            struct node *text = parser_node(p, NODE_TEXT);
            text->text = token->text;
            parser_append(&body, text);
        } else if (token->kind == TOKEN_PRINT_BEGIN) {
            parser_append(&body, parse_print(p));
        } else if (token->kind == TOKEN_BLOCK_BEGIN) {
            for (size_t i = 0; ends[i]; i++) {
                if (parser_is_name(p, ends[i])) {
                    machine_leave(p->m);
                    return body.first;
                }
            }
            parser_append(&body, parse_statement(p));
        } else if (!ends[0]) {
            machine_leave(p->m);
            return body.first;
        } else {
            while (ends[1])
                ends++;
            p->m->line = begin_line;
            machine_fail(p->m, "a block has no {%% %s %%}", ends[0]);
        }
    }
}

struct node *parse(struct machine *m, struct str source)
{
    static const char *const no_ends[] = {NULL};
    struct parser p = {.m = m, .at = lex(m, source)};
    return parse_block(&p, no_ends);
}
