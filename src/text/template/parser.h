/* The two halves of the parser: statements and expressions. */
#ifndef TESSERA_TEXT_TEMPLATE_PARSER_H
#define TESSERA_TEXT_TEMPLATE_PARSER_H

#include "text/template/ast.h"
#include "text/template/lexer.h"

struct parser {
    struct machine *m;
    const struct token *at;
    size_t loops; /* around the current statement */
};

/* A list of nodes under construction. */
struct node_list {
    struct node *first, **last;
};

struct node *parser_node(struct parser *p, enum node_kind kind);
/* The value: start with `last` pointing at `first`. */
void parser_append(struct node_list *list, struct node *node);
_Noreturn void parser_unexpected(struct parser *p, const char *wanted);
bool parser_is(const struct parser *p, const char *operator);
bool parser_accept(struct parser *p, const char *operator);
void parser_expect(struct parser *p, const char *operator);
bool parser_is_name(const struct parser *p, const char *name);
bool parser_accept_name(struct parser *p, const char *name);
struct str parser_name(struct parser *p, const char *wanted);

/* Expressions */
struct node *parse_expression(struct parser *p);
/* Without `x if y else z` at the top. */
struct node *parse_or(struct parser *p);
/* One expression, or several with commas as a tuple. */
struct node *parse_tuple(struct parser *p, bool conditions);
struct node *parse_primary(struct parser *p);
/* `name(args) | name ...` applied to `operand`. */
struct node *parse_filters(struct parser *p, struct node *operand);
/* The arguments after "(" up to and with ")". */
struct node *parse_arguments(struct parser *p);

#endif
