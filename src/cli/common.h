/* What several commands do: open the model and a session, read input. */
#ifndef TESSERA_CLI_COMMON_H
#define TESSERA_CLI_COMMON_H

#include "cli/options.h"
#include "cli/output.h"

/* Settings of the engine as the flags say; model_path is not set. */
struct tsr_settings settings_from(const struct options *options);

struct tsr_session_settings session_settings_from(const struct options *options);

/* Path of the model: -m, TESSERA_MODEL, or the one that comes with tessera. False after reporting
 * that there is none. */
bool model_path(const struct options *options, char *path, size_t size);

/* The path of --shape's model, which stays until *fd is closed, or that of model_path (*fd is -1).
 * An exit status, after reporting. */
int model_or_shape(const struct options *options, char *path, size_t size, int *fd);

/* Open, or report why not and return an exit status. */
int open_engine(const struct options *options, bool vocab_only, tsr_engine **engine);
int open_session(const struct options *options, tsr_engine *engine, tsr_session **session);

/* The exit status for a failed library call on an engine, after reporting it. */
int engine_failed(const struct options *options, const tsr_engine *engine, int code);

/* A whole file ("-": standard input), terminated; owned by the caller. NULL after reporting. */
char *read_file(const struct options *options, const char *path, size_t *len);

/* The text a command works on: -p, -f or standard input. NULL after reporting, with *status set. */
char *read_input(const struct options *options, size_t *len, int *status);

/* Ids of a text; owned by the caller. NULL after reporting. */
int32_t *tokenize_text(const struct options *options, const tsr_engine *engine, const char *text,
                       size_t len, unsigned flags, size_t *n_ids);

/* Chat template variables (--var) as one JSON object; NULL with *status set after reporting. */
char *variables_json(const struct options *options, int *status);

#endif
