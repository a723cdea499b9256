/* A line that is redrawn in place: "loading 42%". */
#include "cli/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "cli/interrupt.h"

static bool shown_at_all; /* whether anything is ever drawn */
static bool on_screen;
static double started, drawn;
static uint64_t last_done;
static const char *only; /* the stage that is shown; NULL: all */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_setup(bool quiet)
{
    shown_at_all = !quiet && isatty(STDERR_FILENO);
}

void progress_only(const char *stage)
{
    only = stage;
}

void progress_clear(void)
{
    if (on_screen)
        fputs("\r\033[K", stderr);
    on_screen = false;
}

bool progress_report(void *user, const char *stage, uint64_t done, uint64_t total)
{
    (void)user;
    if (interrupted())
        return false;
    if (!shown_at_all || !total || (only && stage != only))
        return true;
    double t = now();
    if (done < last_done || !started)
        started = t;
    last_done = done;
    if (done >= total) {
        progress_clear();
        started = 0;
        return true;
    }
    /* Short work shows nothing, long work at most twenty lines a second. */
    if (t - started < 0.3 || t - drawn < 0.05)
        return true;
    fprintf(stderr, "\r\033[K%s %d%%", stage, (int)(100.0 * (double)done / (double)total));
    fflush(stderr);
    on_screen = true;
    drawn = t;
    return true;
}
