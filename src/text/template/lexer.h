/* Template source to tokens, white space control included. */
#ifndef TESSERA_TEXT_TEMPLATE_LEXER_H
#define TESSERA_TEXT_TEMPLATE_LEXER_H

#include "text/template/machine.h"

enum token_kind {
    TOKEN_DATA, /* text outside of tags */
    TOKEN_PRINT_BEGIN,
    TOKEN_PRINT_END,
    TOKEN_BLOCK_BEGIN,
    TOKEN_BLOCK_END,
    TOKEN_NAME,
    TOKEN_INT,
    TOKEN_FLOAT,
    TOKEN_STRING, /* text: the string itself, escapes resolved */
    TOKEN_OPERATOR,
    TOKEN_END,
};

struct token {
    enum token_kind kind;
    struct str text;
    size_t line;
};

/* An array that ends with TOKEN_END. */
const struct token *lex(struct machine *m, struct str source);

#endif
