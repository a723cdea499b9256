/* Ctrl-C. The one piece of state that has to be global: a handler has no argument. */
#include "cli/interrupt.h"

#include <signal.h>
#include <stdatomic.h>

static volatile sig_atomic_t flag;
static _Atomic(tsr_session *) watched;

static void on_signal(int number)
{
    (void)number;
    flag = 1;
    tsr_session *session = atomic_load(&watched);
    if (session)
        tsr_session_cancel(session);
}

void interrupt_catch(void)
{
    /* The handler resets itself, so that a second Ctrl-C always works. */
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

void interrupt_reset(void)
{
    flag = 0;
    interrupt_catch();
}

bool interrupted(void)
{
    return flag != 0;
}

void interrupt_watch(tsr_session *session)
{
    atomic_store(&watched, session);
    if (session && flag) /* it came before there was anything to cancel */
        tsr_session_cancel(session);
}
