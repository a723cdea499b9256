/* Runs a program on a pseudo terminal and plays a dialogue with it, read from standard input:
 *
 *     expect TEXT     waits until the program has written TEXT, after what was matched before
 *     prompt TEXT     the same for a prompt: also waits until keys are read one by one
 *     absent TEXT     fails when TEXT was written since the last match
 *     type TEXT       sends TEXT and the return key
 *     key NAME        sends one key: ctrl-c, ctrl-d, backslash
 *     status N        waits for the end and checks the exit status
 *
 * usage: terminal PROGRAM [ARGUMENT...]. Exit status 0 when all went as written. */
#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_SECONDS = 60, TRANSCRIPT_SIZE = 1 << 20 };

struct dialogue {
    int terminal; /* the master side */
    pid_t program;
    char *seen; /* everything the program wrote */
    size_t len, matched;
    bool ended;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Takes in what the program writes within `milliseconds`. */
static void listen_for(struct dialogue *dialogue, int milliseconds)
{
    struct pollfd ready = {.fd = dialogue->terminal, .events = POLLIN};
    if (dialogue->ended || poll(&ready, 1, milliseconds) <= 0)
        return;
    ssize_t n = read(dialogue->terminal, dialogue->seen + dialogue->len,
                     TRANSCRIPT_SIZE - 1 - dialogue->len);
    if (n <= 0) {
        dialogue->ended = true; /* EIO: the other side is closed */
        return;
    }
    for (ssize_t i = 0; i < n; i++) /* a NUL would end the search */
        if (!dialogue->seen[dialogue->len + (size_t)i])
            dialogue->seen[dialogue->len + (size_t)i] = ' ';
    dialogue->len += (size_t)n;
    dialogue->seen[dialogue->len] = 0;
}

static bool expect(struct dialogue *dialogue, const char *text)
{
    double deadline = now() + PATIENCE_SECONDS;
    for (;;) {
        const char *found = strstr(dialogue->seen + dialogue->matched, text);
        if (found) {
            dialogue->matched = (size_t)(found - dialogue->seen) + strlen(text);
            return true;
        }
        if (dialogue->ended || now() > deadline)
            return false;
        listen_for(dialogue, 100);
    }
}

/* libedit writes its prompt before it takes over the terminal; a Ctrl-D in between would be lost.
 */
static bool prompt(struct dialogue *dialogue, const char *text)
{
    double deadline = now() + PATIENCE_SECONDS;
    struct termios mode;
    if (!expect(dialogue, text))
        return false;
    while (tcgetattr(dialogue->terminal, &mode) == 0 && now() < deadline) {
        if (!(mode.c_lflag & ICANON))
            return true;
        listen_for(dialogue, 10);
    }
    return false;
}

static bool absent(struct dialogue *dialogue, const char *text)
{
    listen_for(dialogue, 100);
    return !strstr(dialogue->seen + dialogue->matched, text);
}

static bool send_keys(const struct dialogue *dialogue, const char *keys, size_t len)
{
    return write(dialogue->terminal, keys, len) == (ssize_t)len;
}

static bool send_key(const struct dialogue *dialogue, const char *name)
{
    static const struct {
        const char *name;
        char byte;
    } keys[] = {{"ctrl-c", 3}, {"ctrl-d", 4}, {"backslash", '\\'}};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (!strcmp(keys[i].name, name))
            return send_keys(dialogue, &keys[i].byte, 1);
    return false;
}

static bool check_status(struct dialogue *dialogue, int expected)
{
    double deadline = now() + PATIENCE_SECONDS;
    while (!dialogue->ended && now() < deadline)
        listen_for(dialogue, 100);
    if (!dialogue->ended)
        kill(dialogue->program, SIGKILL);
    int status;
    if (waitpid(dialogue->program, &status, 0) < 0)
        return false;
    dialogue->program = 0;
    int got = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (got != expected)
        fprintf(stderr, "exit status %d\n", got);
    return got == expected;
}

static bool play_line(struct dialogue *dialogue, char *line)
{
    line[strcspn(line, "\n")] = 0;
    char *rest = strchr(line, ' ');
    if (!rest)
        return false;
    *rest++ = 0;
    if (!strcmp(line, "expect"))
        return expect(dialogue, rest);
    if (!strcmp(line, "prompt"))
        return prompt(dialogue, rest);
    if (!strcmp(line, "absent"))
        return absent(dialogue, rest);
    if (!strcmp(line, "type"))
        return send_keys(dialogue, rest, strlen(rest)) && send_keys(dialogue, "\r", 1);
    if (!strcmp(line, "key"))
        return send_key(dialogue, rest);
    return !strcmp(line, "status") && check_status(dialogue, atoi(rest));
}

static bool play(struct dialogue *dialogue)
{
    char line[1024], copy[1024];
    while (fgets(line, sizeof line, stdin)) {
        strcpy(copy, line);
        if (line[0] == '\n' || play_line(dialogue, line))
            continue;
        fprintf(stderr, "failed at: %sseen since the last match:\n%s\n", copy,
                dialogue->seen + dialogue->matched);
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct dialogue dialogue = {.seen = calloc(1, TRANSCRIPT_SIZE)};
    struct winsize size = {.ws_row = 24, .ws_col = 80};
    if (argc < 2 || !dialogue.seen)
        return 2;
    dialogue.program = forkpty(&dialogue.terminal, NULL, NULL, &size);
    if (dialogue.program < 0)
        return 77; /* no pseudo terminals here: skipped */
    if (!dialogue.program) {
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    bool passed = play(&dialogue);
    if (dialogue.program) {
        kill(dialogue.program, SIGKILL);
        waitpid(dialogue.program, NULL, 0);
    }
    free(dialogue.seen);
    return passed ? 0 : 1;
}
