/* The syntax tree of a template. */
#ifndef TESSERA_TEXT_TEMPLATE_AST_H
#define TESSERA_TEXT_TEMPLATE_AST_H

#include "text/template/value.h"

enum node_kind {
    /* Expressions */
    NODE_CONSTANT,  /* value */
    NODE_NAME,      /* text */
    NODE_LIST,      /* args */
    NODE_TUPLE,     /* args */
    NODE_DICT,      /* args: key, value, key, value, ... */
    NODE_ATTRIBUTE, /* a.text */
    NODE_ITEM,      /* a[b] */
    NODE_SLICE,     /* a[args], three of them, NODE_CONSTANT none where open */
    NODE_CALL,      /* a(args) */
    NODE_KEYWORD,   /* text=a, among args */
    NODE_FILTER,    /* a | text(args) */
    NODE_TEST,      /* a is text(args), negated: is not */
    NODE_BINARY,    /* a text b: arithmetic and ~ */
    NODE_COMPARE,   /* a, then args: a chain of NODE_COMPARAND */
    NODE_COMPARAND, /* text a */
    NODE_AND,
    NODE_OR,
    NODE_NOT,
    NODE_NEGATE,
    NODE_CONDITION, /* a if b else c (NULL: undefined) */
    /* Statements */
    NODE_TEXT,     /* text */
    NODE_PRINT,    /* a */
    NODE_DO,       /* a */
    NODE_IF,       /* a, body, otherwise: a NODE_IF with `elif` set, or statements */
    NODE_FOR,      /* for a in b if c, body, otherwise */
    NODE_SET,      /* a = b, or of a block: body, through the filters c (NULL: none) */
    NODE_MACRO,    /* text, args: parameters, body */
    NODE_CALLER,   /* {% call(args) a %} body */
    NODE_FILTERED, /* a: filters, body */
    NODE_SCOPE,    /* body: {% generation %} */
    NODE_BREAK,
    NODE_CONTINUE,
    /* Parts */
    NODE_PARAMETER, /* text=a (NULL: no default) */
    NODE_CAPTURED,  /* the text of a block that filters apply to */
};

struct node {
    enum node_kind kind;
    bool negated; /* is not */
    bool elif;
    size_t line;
    struct str text;
    struct value value;
    struct node *a, *b, *c;
    struct node *args, *body, *otherwise;
    struct node *next; /* in args, body or otherwise */
};

/* The statements of a template. */
struct node *parse(struct machine *m, struct str source);

#endif
