/* Template source to tokens. White space is handled as Hugging Face's transformers sets Jinja up:
 * trim_blocks (the newline after a block or comment goes) and lstrip_blocks (so do blanks between
 * the start of a line and a block or comment), beside the explicit {%- -%} and {%+ +%}.
 * https://jinja.palletsprojects.com/en/stable/templates/#whitespace-control */
#include "text/template/lexer.h"

#include <string.h>

struct lexer {
    struct machine *m;
    struct str source; /* newlines are \n */
    size_t at;
    size_t line; /* of `at` */
    struct token *tokens;
    size_t n, capacity;
};

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c);
}

static char peek(const struct lexer *l, size_t ahead)
{
    return ahead < l->source.len - l->at ? l->source.data[l->at + ahead] : '\0';
}

static bool looking_at(const struct lexer *l, const char *text)
{
    size_t len = strlen(text);
    return len <= l->source.len - l->at && memcmp(l->source.data + l->at, text, len) == 0;
}

static void advance(struct lexer *l, size_t to)
{
    for (; l->at < to; l->at++)
        l->line += l->source.data[l->at] == '\n';
    l->m->line = l->line;
}

static void skip_space(struct lexer *l)
{
    size_t to = l->at;
    while (to < l->source.len && is_space(l->source.data[to]))
        to++;
    advance(l, to);
}

static void add_token(struct lexer *l, enum token_kind kind, struct str text)
{
    l->tokens = machine_grow(l->m, l->tokens, l->n, &l->capacity, sizeof *l->tokens);
    l->tokens[l->n++] = (struct token){kind, text, l->line};
}

/* Text between `begin` and the tag at `end`, without what the tag's marker strips to its left. */
static struct str text_before(const struct lexer *l, size_t begin, size_t end, char marker,
                              bool lstrip)
{
    const char *s = l->source.data;
    size_t cut = end;
    if (marker == '-') {
        while (cut > begin && is_space(s[cut - 1]))
            cut--;
    } else if (lstrip && marker != '+') {
        while (cut > begin && s[cut - 1] != '\n' && is_space(s[cut - 1]))
            cut--;
        bool line_start = cut == 0 || s[cut - 1] == '\n';
        if (!line_start)
            cut = end;
    }
    return str_sub(l->source, begin, cut);
}

static void add_text(struct lexer *l, struct str text)
{
    if (text.len)
        add_token(l, TOKEN_DATA, text);
}

/* After the end of a block or comment. */
static void trim_after(struct lexer *l, char marker)
{
    if (marker == '-')
        skip_space(l);
    else if (marker != '+' && peek(l, 0) == '\n')
        advance(l, l->at + 1);
}

/* Position of `text` at or after `from`; the end of the source when there is none. */
static size_t find(const struct lexer *l, const char *text, size_t from)
{
    const char *hit = memmem(l->source.data + from, l->source.len - from, text, strlen(text));
    return hit ? (size_t)(hit - l->source.data) : l->source.len;
}

static void skip_comment(struct lexer *l)
{
    size_t end = find(l, "#}", l->at + 2);
    if (end == l->source.len)
        machine_fail(l->m, "a comment {# does not end");
    char marker = end > l->at + 2 ? l->source.data[end - 1] : ' ';
    advance(l, end + 2);
    trim_after(l, marker);
}

/* At "{%": the length of a tag that consists of `word` alone, 0 if it is another tag. `*marker` is
 * the one before its end. */
static size_t lone_tag(const struct lexer *l, size_t at, const char *word, char *marker)
{
    struct str s = l->source;
    size_t p = at + 2;
    if (p < s.len && (s.data[p] == '-' || s.data[p] == '+'))
        p++;
    while (p < s.len && is_space(s.data[p]))
        p++;
    size_t len = strlen(word);
    if (s.len - p < len || memcmp(s.data + p, word, len) != 0)
        return 0;
    p += len;
    while (p < s.len && is_space(s.data[p]))
        p++;
    *marker = ' ';
    if (p < s.len && (s.data[p] == '-' || s.data[p] == '+'))
        *marker = s.data[p++];
    return s.len - p >= 2 && memcmp(s.data + p, "%}", 2) == 0 ? p + 2 - at : 0;
}

/* At "{%": copies a raw block as text; false if it is another tag. */
static bool lex_raw(struct lexer *l)
{
    char marker;
    size_t len = lone_tag(l, l->at, "raw", &marker);
    if (!len)
        return false;
    advance(l, l->at + len);
    if (marker == '-')
        skip_space(l);
    size_t begin = l->at;
    for (size_t end = find(l, "{%", begin); end < l->source.len; end = find(l, "{%", end + 2)) {
        len = lone_tag(l, end, "endraw", &marker);
        if (!len)
            continue;
        char opening = l->source.data[end + 2];
        add_text(l, text_before(l, begin, end, opening, true));
        advance(l, end + len);
        trim_after(l, marker);
        return true;
    }
    machine_fail(l->m, "a block {%% raw %%} has no {%% endraw %%}");
}

static uint32_t hex_digits(struct lexer *l, size_t at, size_t n)
{
    uint32_t value = 0;
    for (size_t i = 0; i < n; i++) {
        char c = at + i < l->source.len ? l->source.data[at + i] : '\0';
        char lower = (char)(c | 0x20);
        bool letter = lower >= 'a' && lower <= 'f';
        if (!is_digit(c) && !letter)
            machine_fail(l->m, "a \\x or \\u in a string needs %zu hexadecimal digits", n);
        value = value * 16 + (uint32_t)(letter ? lower - 'a' + 10 : c - '0');
    }
    return value;
}

/* The escape at `at` (a backslash); returns its length. What is no escape stays as it is. */
static size_t add_escape(struct lexer *l, struct buffer *b, size_t at)
{
    static const char letters[] = "ntr\\'\"abfv0", values[] = "\n\t\r\\'\"\a\b\f\v";
    char c = at + 1 < l->source.len ? l->source.data[at + 1] : '\0';
    const char *known = c ? strchr(letters, c) : NULL;
    if (known) {
        buffer_char(l->m, b, values[known - letters]);
        return 2;
    }
    if (c == '\n')
        return 2;
    size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits) {
        buffer_codepoint(l->m, b, hex_digits(l, at + 2, digits));
        return 2 + digits;
    }
    buffer_char(l->m, b, '\\');
    return 1;
}

static void lex_string(struct lexer *l)
{
    char quote = peek(l, 0);
    struct buffer text = {0};
    size_t at = l->at + 1, plain = at;
    while (at < l->source.len && l->source.data[at] != quote) {
        if (l->source.data[at] != '\\') {
            at++;
            continue;
        }
        buffer_add(l->m, &text, str_sub(l->source, plain, at));
        at += add_escape(l, &text, at);
        plain = at;
    }
    if (at >= l->source.len)
        machine_fail(l->m, "a string that starts with %c does not end", quote);
    if (text.len == 0) {
        add_token(l, TOKEN_STRING, str_sub(l->source, plain, at));
    } else {
        buffer_add(l->m, &text, str_sub(l->source, plain, at));
        add_token(l, TOKEN_STRING, buffer_str(&text));
    }
    advance(l, at + 1);
}

static void lex_number(struct lexer *l)
{
    size_t n = 0;
    bool fraction = false;
    while (is_digit(peek(l, n)) || (peek(l, n) == '_' && is_digit(peek(l, n + 1))))
        n++;
    if (peek(l, n) == '.' && is_digit(peek(l, n + 1))) {
        fraction = true;
        for (n++; is_digit(peek(l, n));)
            n++;
    }
    if ((peek(l, n) | 0x20) == 'e') {
        size_t sign = peek(l, n + 1) == '-' || peek(l, n + 1) == '+';
        if (is_digit(peek(l, n + 1 + sign))) {
            fraction = true;
            for (n += 1 + sign; is_digit(peek(l, n));)
                n++;
        }
    }
    add_token(l, fraction ? TOKEN_FLOAT : TOKEN_INT, str_sub(l->source, l->at, l->at + n));
    advance(l, l->at + n);
}

static void lex_operator(struct lexer *l)
{
    static const char *const two[] = {"==", "!=", "<=", ">=", "//", "**"};
    size_t len = 1;
    for (size_t i = 0; i < sizeof two / sizeof *two; i++)
        if (looking_at(l, two[i]))
            len = 2;
    if (len == 1 && !strchr("+-*/%~<>=()[]{}.,:|", peek(l, 0))) {
        size_t end = l->at + 1;
        while (end < l->source.len && (l->source.data[end] & 0xc0) == 0x80)
            end++;
        struct str bad = str_sub(l->source, l->at, end);
        machine_fail(l->m, "unexpected character '%.*s'", QUOTE(bad));
    }
    add_token(l, TOKEN_OPERATOR, str_sub(l->source, l->at, l->at + len));
    advance(l, l->at + len);
}

/* The end of a tag, "%}" or "}}" with its marker; false when there is none here. */
static bool lex_tag_end(struct lexer *l, bool block)
{
    char marker = peek(l, 0) == '-' || (block && peek(l, 0) == '+') ? peek(l, 0) : ' ';
    size_t skip = marker != ' ';
    if (peek(l, skip) != (block ? '%' : '}') || peek(l, skip + 1) != '}')
        return false;
    add_token(l, block ? TOKEN_BLOCK_END : TOKEN_PRINT_END,
              str_sub(l->source, l->at + skip, l->at + skip + 2));
    advance(l, l->at + skip + 2);
    if (block)
        trim_after(l, marker);
    else if (marker == '-')
        skip_space(l);
    return true;
}

/* The inside of {{ }} or {% %}. Braces of dict literals are counted: their end is no tag's end. */
static void lex_tag(struct lexer *l, bool block)
{
    add_token(l, block ? TOKEN_BLOCK_BEGIN : TOKEN_PRINT_BEGIN,
              str_sub(l->source, l->at, l->at + 2));
    size_t begin_line = l->line, braces = 0;
    advance(l, l->at + 2);
    if (peek(l, 0) == '-' || peek(l, 0) == '+')
        advance(l, l->at + 1);
    for (;;) {
        skip_space(l);
        char c = peek(l, 0);
        if (l->at == l->source.len) {
            l->m->line = begin_line;
            machine_fail(l->m, "a tag %s does not end", block ? "{%" : "{{");
        }
        if (braces == 0 && lex_tag_end(l, block))
            return;
        if (c == '\'' || c == '"') {
            lex_string(l);
        } else if (is_digit(c)) {
            lex_number(l);
        } else if (is_name(c)) {
            size_t n = 1;
            while (is_name(peek(l, n)))
                n++;
            add_token(l, TOKEN_NAME, str_sub(l->source, l->at, l->at + n));
            advance(l, l->at + n);
        } else {
            braces += c == '{';
            braces -= c == '}' && braces > 0;
            lex_operator(l);
        }
    }
}

/* A copy with \n for \r\n and \r, and without the last newline, as Jinja reads a template. */
static struct str normalise(struct machine *m, struct str source)
{
    char *copy = machine_alloc(m, source.len + 1, 1);
    size_t n = 0;
    for (size_t i = 0; i < source.len; i++) {
        bool crlf = source.data[i] == '\r' && i + 1 < source.len && source.data[i + 1] == '\n';
        if (!crlf)
            copy[n++] = source.data[i] == '\r' ? '\n' : source.data[i];
    }
    if (n > 0 && copy[n - 1] == '\n')
        n--;
    return (struct str){copy, n};
}

/* Position of the next "{{", "{%" or "{#"; the end of the source when there is none. */
static size_t find_tag(const struct lexer *l)
{
    size_t at = l->at;
    for (;;) {
        at = find(l, "{", at);
        if (at + 1 >= l->source.len)
            return l->source.len;
        char c = l->source.data[at + 1];
        if (c == '{' || c == '%' || c == '#')
            return at;
        at++;
    }
}

const struct token *lex(struct machine *m, struct str source)
{
    struct lexer l = {.m = m, .source = normalise(m, source), .line = 1};
    m->line = 1;
    while (l.at < l.source.len) {
        size_t tag = find_tag(&l);
        char kind = tag < l.source.len ? l.source.data[tag + 1] : '\0';
        char marker = tag + 2 < l.source.len ? l.source.data[tag + 2] : ' ';
        struct str text =
            text_before(&l, l.at, tag, kind ? marker : ' ', kind == '%' || kind == '#');
        add_text(&l, text);
        advance(&l, tag);
        if (kind == '#')
            skip_comment(&l);
        else if (kind == '{' || (kind == '%' && !lex_raw(&l)))
            lex_tag(&l, kind == '%');
    }
    add_token(&l, TOKEN_END, str_of("end of the template"));
    return l.tokens;
}
