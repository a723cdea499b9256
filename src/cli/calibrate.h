/* --calibration FILE: a choice of threads and kernels, measured before or now. */
#ifndef TESSERA_CLI_CALIBRATE_H
#define TESSERA_CLI_CALIBRATE_H

#include "cli/options.h"

/* tsr_engine_open with the options' calibration: the file's, or else one that is measured and
 * written there, after a line on standard error. */
int calibration_open(const struct options *options, struct tsr_settings *settings,
                     tsr_engine **engine, struct tsr_error *error);

#endif
