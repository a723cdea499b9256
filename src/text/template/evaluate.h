/* Runs a syntax tree: expressions and statements. */
#ifndef TESSERA_TEXT_TEMPLATE_EVALUATE_H
#define TESSERA_TEXT_TEMPLATE_EVALUATE_H

#include "text/template/ast.h"
#include "text/template/builtin.h"

struct binding {
    struct binding *next;
    struct str name;
    struct value value;
};

/* The variables of a block; names that are not here are looked for further out. */
struct scope {
    struct scope *outer;
    struct binding *bindings;
    const struct value *captured; /* what NODE_CAPTURED stands for */
};

struct scope *scope_new(struct machine *m, struct scope *outer);
void scope_set(struct machine *m, struct scope *scope, struct str name, struct value v);

struct value evaluate(struct machine *m, struct scope *scope, const struct node *node);
/* Evaluates the arguments of a call, filter or test. */
struct arguments evaluate_arguments(struct machine *m, struct scope *scope,
                                    const struct node *args);
/* Renders a macro. */
struct value call_macro(struct machine *m, const struct function *macro, struct arguments args);

/* Renders statements to m->out. */
void execute(struct machine *m, struct scope *scope, const struct node *statements);

#endif
