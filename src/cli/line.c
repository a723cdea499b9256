/* Line editing by libedit; its history lives in the XDG state directory:
 * https://specifications.freedesktop.org/basedir-spec/latest/ */
#include "cli/line.h"

#include <errno.h>
#include <histedit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

enum { HISTORY_SIZE = 1000 };

struct line_reader {
    EditLine *edit; /* NULL when no terminal */
    History *history;
    char history_path[4096]; /* "" when there is no place for it */
    bool interrupted;        /* Ctrl-C while typing */
    bool continued;          /* the prompt shows that the message goes on */
    char *text;              /* the message */
    size_t capacity;
};

static char *prompt(EditLine *edit)
{
    static char first[] = "> ", next[] = ". ";
    struct line_reader *reader;
    el_get(edit, EL_CLIENTDATA, &reader);
    return reader->continued ? next : first;
}

static unsigned char on_interrupt(EditLine *edit, int key)
{
    (void)key;
    struct line_reader *reader;
    el_get(edit, EL_CLIENTDATA, &reader);
    reader->interrupted = true;
    return CC_EOF;
}

/* Makes the folders of `path` where they are missing. */
static void make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
}

static void find_history(struct line_reader *reader)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    size_t size = sizeof reader->history_path;
    int len = 0;
    if (state && state[0] == '/')
        len = snprintf(reader->history_path, size, "%s/tessera/history", state);
    else if (home && home[0] == '/')
        len = snprintf(reader->history_path, size, "%s/.local/state/tessera/history", home);
    if (len <= 0 || (size_t)len >= size)
        reader->history_path[0] = 0;
}

static bool open_editor(struct line_reader *reader)
{
    HistEvent event;
    reader->edit = el_init("tessera", stdin, stdout, stderr);
    reader->history = history_init();
    if (!reader->edit || !reader->history)
        return false;
    el_set(reader->edit, EL_CLIENTDATA, reader);
    el_set(reader->edit, EL_PROMPT, prompt);
    el_set(reader->edit, EL_EDITOR, "emacs");
    el_set(reader->edit, EL_HIST, history, reader->history);
    /* While a line is edited, Ctrl-C is a key like any other and drops the line. */
    el_set(reader->edit, EL_SETTY, "-d", "-isig", NULL);
    /* The wide form keeps the pointers; the other copies the strings and never frees them. */
    el_wset(reader->edit, EL_ADDFN, L"drop-line", L"drops the line", on_interrupt);
    el_set(reader->edit, EL_BIND, "^C", "drop-line", NULL);
    history(reader->history, &event, H_SETSIZE, HISTORY_SIZE);
    history(reader->history, &event, H_SETUNIQUE, 1);
    find_history(reader);
    if (reader->history_path[0])
        history(reader->history, &event, H_LOAD, reader->history_path);
    return true;
}

struct line_reader *line_open(void)
{
    struct line_reader *reader = calloc(1, sizeof *reader);
    if (!reader || !isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || open_editor(reader))
        return reader;
    line_close(reader);
    return NULL;
}

static void save_history(struct line_reader *reader)
{
    HistEvent event;
    make_folders(reader->history_path);
    /* What people say to a model is private. */
    mode_t mask = umask(0077);
    history(reader->history, &event, H_SAVE, reader->history_path);
    umask(mask);
}

void line_close(struct line_reader *reader)
{
    if (!reader)
        return;
    if (reader->edit && reader->history && reader->history_path[0])
        save_history(reader);
    if (reader->history)
        history_end(reader->history);
    if (reader->edit)
        el_end(reader->edit);
    free(reader->text);
    free(reader);
}

bool line_is_terminal(const struct line_reader *reader)
{
    return reader->edit != NULL;
}

/* Puts `len` bytes at `used` in the message, terminated. */
static bool put(struct line_reader *reader, size_t used, const char *bytes, size_t len)
{
    if (used + len + 1 > reader->capacity) {
        size_t capacity = 2 * (used + len + 1);
        char *larger = realloc(reader->text, capacity);
        if (!larger)
            return false;
        reader->text = larger;
        reader->capacity = capacity;
    }
    memcpy(reader->text + used, bytes, len);
    reader->text[used + len] = 0;
    return true;
}

static enum line_result read_plain(struct line_reader *reader)
{
    errno = 0;
    ssize_t len = getline(&reader->text, &reader->capacity, stdin);
    if (len < 0)
        return errno == EINTR ? LINE_INTERRUPTED : errno ? LINE_FAILED : LINE_END;
    if (len && reader->text[len - 1] == '\n')
        reader->text[len - 1] = 0;
    return LINE_READ;
}

static enum line_result read_edited(struct line_reader *reader)
{
    size_t used = 0;
    reader->continued = false;
    for (;;) {
        int count;
        reader->interrupted = false;
        const char *line = el_gets(reader->edit, &count);
        if (reader->interrupted || !line || count <= 0) {
            fputs(reader->interrupted ? "^C\n" : "\n", stdout);
            return reader->interrupted ? LINE_INTERRUPTED : LINE_END;
        }
        size_t len = strcspn(line, "\n");
        reader->continued = len && line[len - 1] == '\\';
        if (!put(reader, used, line, len))
            return LINE_FAILED;
        used += len;
        if (!reader->continued)
            break;
        reader->text[used - 1] = '\n'; /* in place of the backslash */
    }
    HistEvent event;
    if (reader->text[0])
        history(reader->history, &event, H_ENTER, reader->text);
    return LINE_READ;
}

enum line_result line_read(struct line_reader *reader, const char **text)
{
    enum line_result result = reader->edit ? read_edited(reader) : read_plain(reader);
    *text = reader->text;
    return result;
}
