/* Ctrl-C: stops what runs, and lets the program end in its own way. */
#ifndef TESSERA_CLI_INTERRUPT_H
#define TESSERA_CLI_INTERRUPT_H

#include <stdbool.h>

#include <tessera/tessera.h>

/* From now on SIGINT sets a flag and cancels the watched session, if any. A second one ends the
 * program at once. */
void interrupt_catch(void);

/* Forgets an interrupt that was dealt with and catches the next. */
void interrupt_reset(void);

bool interrupted(void);

/* The session that a signal cancels; NULL for none. */
void interrupt_watch(tsr_session *session);

#endif
