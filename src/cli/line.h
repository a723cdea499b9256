/* Lines from the user: edited, with history, on a terminal; plain otherwise. */
#ifndef TESSERA_CLI_LINE_H
#define TESSERA_CLI_LINE_H

#include <stdbool.h>

struct line_reader;

enum line_result { LINE_READ, LINE_INTERRUPTED, LINE_END, LINE_FAILED };

/* NULL when out of memory. Close writes the history back. */
struct line_reader *line_open(void);
void line_close(struct line_reader *reader);

/* Whether a person types: both standard input and output are a terminal. */
bool line_is_terminal(const struct line_reader *reader);

/* The next message in *text, without its newline, valid until the next call. On a terminal, lines
 * that end in a backslash are joined. LINE_FAILED leaves the reason in errno. */
enum line_result line_read(struct line_reader *reader, const char **text);

#endif
