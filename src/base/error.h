/* How internal functions fail: they return 0 or a negative tsr_code, and say why in a tsr_error. */
#ifndef TESSERA_BASE_ERROR_H
#define TESSERA_BASE_ERROR_H

#include <tessera/tessera.h>

/* Sets the error (which may be NULL) and returns `code`: `return error_set(e, TSR_EIO, ...);`. */
__attribute__((format(printf, 3, 4))) int error_set(struct tsr_error *error, int code,
                                                    const char *format, ...);

#endif
