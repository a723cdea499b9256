/* Standard output with its errors noticed, and one-line messages. */
#include "cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utf8proc.h>

#include "cli/options.h"
#include "cli/progress.h"

static int write_errno; /* of the first write that failed; 0 while all is well */

void output_setup(void)
{
    /* A descriptor that the caller closed must not become the model file. The stand-in refuses
     * the direction it is used in, so that the loss is still noticed. */
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
            _exit(EXIT_FAILED);
    signal(SIGPIPE, SIG_IGN);
}

static void check(bool written)
{
    if (!written && !write_errno)
        write_errno = errno ? errno : EIO;
}

void output_bytes(const char *bytes, size_t len)
{
    if (!write_errno && len)
        check(fwrite(bytes, 1, len, stdout) == len);
}

void output_format(const char *format, ...)
{
    if (write_errno)
        return;
    va_list args;
    va_start(args, format);
    check(vprintf(format, args) >= 0);
    va_end(args);
}

void output_json(const json_t *value)
{
    if (write_errno)
        return;
    check(json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY) == 0);
    output_bytes("\n", 1);
}

void output_flush(void)
{
    if (!write_errno)
        check(fflush(stdout) == 0);
}

bool output_failed(void)
{
    return write_errno != 0;
}

int output_finish(int status)
{
    output_flush();
    if (!write_errno)
        return status;
    if (status == EXIT_DONE) /* others have already said why */
        note("tessera: standard output cannot be written: %s", strerror(write_errno));
    return status == EXIT_DONE ? EXIT_FAILED : status;
}

/* Whatever a file name or a model holds, a message stays one line without control characters. */
static void print_line(const char *prefix, const char *format, va_list args, const char *suffix)
{
    char line[2048];
    vsnprintf(line, sizeof line, format, args);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = '?';
    progress_clear();
    fflush(stdout);
    fprintf(stderr, "%s%s%s\n", prefix, line, suffix);
}

int fail(const struct command *command, const char *format, ...)
{
    char prefix[64];
    snprintf(prefix, sizeof prefix, "tessera %s: ", command->name);
    va_list args;
    va_start(args, format);
    print_line(prefix, format, args, "");
    va_end(args);
    return EXIT_FAILED;
}

int usage_error(const struct command *command, const char *format, ...)
{
    char prefix[64], suffix[64];
    snprintf(prefix, sizeof prefix, "tessera %s: ", command->name);
    snprintf(suffix, sizeof suffix, " (see 'tessera %s --help')", command->name);
    va_list args;
    va_start(args, format);
    print_line(prefix, format, args, suffix);
    va_end(args);
    return EXIT_USAGE;
}

void note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line("", format, args, "");
    va_end(args);
}

json_t *json_text(const char *bytes, size_t len)
{
    static const char replacement[] = "\xef\xbf\xbd";
    char *clean = malloc(3 * len + 1);
    if (!clean)
        return NULL;
    size_t used = 0;
    for (size_t at = 0; at < len;) {
        utf8proc_int32_t codepoint;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)bytes + at,
                                              (utf8proc_ssize_t)(len - at), &codepoint);
        if (n > 0)
            memcpy(clean + used, bytes + at, (size_t)n);
        else
            memcpy(clean + used, replacement, 3);
        used += n > 0 ? (size_t)n : 3;
        at += n > 0 ? (size_t)n : 1;
    }
    json_t *text = json_stringn(clean, used);
    free(clean);
    return text;
}
