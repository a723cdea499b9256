/* Executes statements. */
#include "text/template/evaluate.h"

enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };

static enum flow run_block(struct machine *m, struct scope *scope, const struct node *statements);

static void assign_names(struct machine *m, struct scope *scope, const struct node *target,
                         struct value v)
{
    const struct list *items = value_iterate(m, v);
    size_t n = 0;
    for (const struct node *name = target->args; name; name = name->next)
        n++;
    if (items->n != n)
        machine_fail(m, "%zu values for %zu names", items->n, n);
    n = 0;
    for (const struct node *name = target->args; name; name = name->next) {
        if (name->kind != NODE_NAME)
            machine_fail(m, "'.%.*s' cannot be set among several names", QUOTE(name->text));
        scope_set(m, scope, name->text, items->items[n++]);
    }
}

static void assign(struct machine *m, struct scope *scope, const struct node *target,
                   struct value v)
{
    if (target->kind == NODE_NAME) {
        scope_set(m, scope, target->text, v);
    } else if (target->kind == NODE_TUPLE) {
        assign_names(m, scope, target, v);
    } else {
        struct value object = evaluate(m, scope, target->a);
        if (object.kind != VALUE_NAMESPACE)
            machine_fail(m, "cannot set '.%.*s' of a '%s', only of a namespace",
                         QUOTE(target->text), value_type(object));
        dict_set(m, object.dict, value_str(target->text), v);
    }
}

/* The text that statements render, in a scope of their own. */
static struct str capture(struct machine *m, struct scope *scope, const struct node *statements)
{
    struct buffer text = {0}, *out = m->out;
    m->out = &text;
    run_block(m, scope_new(m, scope), statements);
    m->out = out;
    return buffer_str(&text);
}

/* Captured text through a chain of filters; `filters` may be NULL. */
static struct value filtered(struct machine *m, struct scope *scope, const struct node *filters,
                             const struct node *body)
{
    struct value text = value_str(capture(m, scope, body));
    if (!filters)
        return text;
    struct scope *inner = scope_new(m, scope);
    inner->captured = &text;
    return evaluate(m, inner, filters);
}

static struct function *new_macro(struct machine *m, struct scope *scope, const struct node *node)
{
    struct function *macro = machine_alloc(m, 1, sizeof *macro);
    *macro = (struct function){.name = node->text, .macro = node, .scope = scope};
    return macro;
}

struct value call_macro(struct machine *m, const struct function *macro, struct arguments args)
{
    const struct node *parameter = macro->macro->args;
    struct scope *scope = scope_new(m, macro->scope);
    size_t given = 0, named = 0;
    machine_enter(m);
    for (; parameter; parameter = parameter->next) {
        struct value v = value_undefined(parameter->text);
        const struct value *keyword = dict_find(m, args.keywords, value_str(parameter->text));
        if (given < args.items->n)
            v = args.items->items[given++];
        else if (keyword)
            v = *keyword;
        else if (parameter->a)
            v = evaluate(m, scope, parameter->a);
        named += keyword != NULL;
        scope_set(m, scope, parameter->text, v);
    }
    const struct value *caller = dict_find_text(m, args.keywords, "caller");
    if (caller)
        scope_set(m, scope, str_of("caller"), *caller);
    if (given < args.items->n || named + (caller != NULL) < args.keywords->n)
        machine_fail(m, "macro '%.*s' does not take these arguments", QUOTE(macro->name));
    struct value text = value_str(capture(m, scope, macro->macro->body));
    machine_leave(m);
    return text;
}

/* {% call macro(...) %}: the macro gets the body as its function caller(). */
static void run_call_block(struct machine *m, struct scope *scope, const struct node *node)
{
    struct value caller = {.kind = VALUE_FUNCTION, .function = new_macro(m, scope, node)};
    struct value macro = evaluate(m, scope, node->a->a);
    if (macro.kind != VALUE_FUNCTION || !macro.function->macro)
        machine_fail(m, "{%% call %%} needs a macro, not '%s'", value_type(macro));
    struct arguments args = evaluate_arguments(m, scope, node->a->args);
    struct dict *keywords = dict_new(m);
    for (size_t i = 0; i < args.keywords->n; i++)
        dict_set(m, keywords, args.keywords->entries[i].key, args.keywords->entries[i].value);
    dict_set(m, keywords, value_str(str_of("caller")), caller);
    args.keywords = keywords;
    value_print(m, m->out, call_macro(m, macro.function, args));
}

/* The items of a loop that its condition lets pass. */
static const struct list *loop_items(struct machine *m, struct scope *scope,
                                     const struct node *node)
{
    const struct list *items = value_iterate(m, evaluate(m, scope, node->b));
    struct list *chosen = list_new(m);
    for (size_t i = 0; i < items->n; i++) {
        bool wanted = true;
        if (node->c) {
            struct scope *inner = scope_new(m, scope);
            assign(m, inner, node->a, items->items[i]);
            wanted = value_true(m, evaluate(m, inner, node->c));
        }
        if (wanted)
            list_add(m, chosen, items->items[i]);
    }
    return chosen;
}

static enum flow run_for(struct machine *m, struct scope *scope, const struct node *node)
{
    const struct list *items = loop_items(m, scope, node);
    if (items->n == 0)
        return run_block(m, scope_new(m, scope), node->otherwise);
    for (size_t i = 0; i < items->n; i++) {
        struct scope *inner = scope_new(m, scope);
        struct loop *loop = machine_alloc(m, 1, sizeof *loop);
        *loop = (struct loop){.items = items, .index = i};
        scope_set(m, inner, str_of("loop"), (struct value){.kind = VALUE_LOOP, .loop = loop});
        assign(m, inner, node->a, items->items[i]);
        if (run_block(m, inner, node->body) == FLOW_BREAK)
            break;
    }
    return FLOW_NEXT;
}

static enum flow run_if(struct machine *m, struct scope *scope, const struct node *node)
{
    while (!value_true(m, evaluate(m, scope, node->a))) {
        if (!node->otherwise || !node->otherwise->elif)
            return run_block(m, scope, node->otherwise);
        node = node->otherwise;
    }
    return run_block(m, scope, node->body);
}

static enum flow run(struct machine *m, struct scope *scope, const struct node *node)
{
    m->line = node->line;
    switch (node->kind) {
    case NODE_TEXT:
        buffer_add(m, m->out, node->text);
        return FLOW_NEXT;
    case NODE_PRINT:
        value_print(m, m->out, evaluate(m, scope, node->a));
        return FLOW_NEXT;
    case NODE_DO:
        evaluate(m, scope, node->a);
        return FLOW_NEXT;
    case NODE_IF:
        return run_if(m, scope, node);
    case NODE_FOR:
        return run_for(m, scope, node);
    case NODE_SET:
        assign(m, scope, node->a,
               node->b ? evaluate(m, scope, node->b) : filtered(m, scope, node->c, node->body));
        return FLOW_NEXT;
    case NODE_MACRO:
        scope_set(m, scope, node->text,
                  (struct value){.kind = VALUE_FUNCTION, .function = new_macro(m, scope, node)});
        return FLOW_NEXT;
    case NODE_CALLER:
        run_call_block(m, scope, node);
        return FLOW_NEXT;
    case NODE_FILTERED:
        value_print(m, m->out, filtered(m, scope, node->a, node->body));
        return FLOW_NEXT;
    case NODE_SCOPE:
        return run_block(m, scope_new(m, scope), node->body);
    case NODE_BREAK:
        return FLOW_BREAK;
    case NODE_CONTINUE:
        return FLOW_CONTINUE;
    default:
        machine_fail(m, "a value stands where a statement should be");
    }
}

static enum flow run_block(struct machine *m, struct scope *scope, const struct node *statements)
{
    enum flow flow = FLOW_NEXT;
    machine_enter(m);
    for (; statements && flow == FLOW_NEXT; statements = statements->next) {
        machine_work(m, WORK_PER_NODE);
        flow = run(m, scope, statements);
    }
    machine_leave(m);
    return flow;
}

void execute(struct machine *m, struct scope *scope, const struct node *statements)
{
    run_block(m, scope, statements);
}
