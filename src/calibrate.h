/* What the parts of tsr_engine_calibrate share. */
#ifndef TESSERA_CALIBRATE_H
#define TESSERA_CALIBRATE_H

#include "calibration.h"
#include "engine.h"

/* Seconds of a clock that only goes on. */
double calibrate_now(void);

/* The value in the middle; sorts. */
double calibrate_median(double *values, int n);

/* False cancels. */
typedef bool calibrate_continue_fn(void *user);

/* For each weight type of the plan whose kernel has two parts: the speeds of both by rows, and the
 * number of rows from which the first pays, into kernels and choice.min_rows of `calibration`.
 * Takes about `seconds`. Errors: TSR_ENOMEM, TSR_ECANCELED. */
int calibrate_kernels(const tsr_engine *engine, double seconds, calibrate_continue_fn *go_on,
                      void *user, struct calibration *calibration, struct tsr_error *error);

/* The row count of `rates` from which tiles pay; INT_MAX: never. */
int calibrate_min_rows(const struct kernel_rates *rates);

/* The place in `rates` of the number of threads to use. A number is as good as a smaller one if it
 * has the share `fewer` of its speed. */
int calibrate_threads(const struct thread_rate *rates, int n, double fewer);

#endif
