/* Progress of long work, on a terminal only. */
#ifndef TESSERA_CLI_PROGRESS_H
#define TESSERA_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* A tsr_progress_fn. Also the way Ctrl-C stops loading: false once interrupted. */
bool progress_report(void *user, const char *stage, uint64_t done, uint64_t total);

/* Progress lines are shown when standard error is a terminal, unless `quiet`. */
void progress_setup(bool quiet);

/* Only this stage, told by its address, is shown; NULL: all. */
void progress_only(const char *stage);

/* Removes the progress line, so that something else can be printed. */
void progress_clear(void);

#endif
