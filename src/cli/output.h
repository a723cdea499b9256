/* What the program says: results on standard output, everything else on standard error. */
#ifndef TESSERA_CLI_OUTPUT_H
#define TESSERA_CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

struct command;

enum exit_status { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

/* Makes descriptors 0 to 2 safe to use and turns SIGPIPE into write errors. */
void output_setup(void);

/* Standard output. Once a write failed, the rest is dropped; output_finish reports it. */
void output_bytes(const char *bytes, size_t len);
__attribute__((format(printf, 1, 2))) void output_format(const char *format, ...);
void output_json(const json_t *value);
void output_flush(void);
bool output_failed(void);

/* The program's exit status: `status`, or EXIT_FAILED after a line about what was not written. */
int output_finish(int status);

/* One line on standard error: "tessera run: ...". */
__attribute__((format(printf, 2, 3))) int fail(const struct command *command, const char *format,
                                               ...);
__attribute__((format(printf, 2, 3))) int usage_error(const struct command *command,
                                                      const char *format, ...);
__attribute__((format(printf, 1, 2))) void note(const char *format, ...);

/* A JSON string of bytes that may not be UTF-8: what is not becomes U+FFFD. */
json_t *json_text(const char *bytes, size_t len);

#endif
