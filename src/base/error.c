#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

int error_set(struct tsr_error *error, int code, const char *format, ...)
{
    if (!error)
        return code;
    error->code = code;
    va_list args;
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    return code;
}
