/* tessera chat: a conversation, rendered by the model's own template at every turn. The session
 * keeps what the turns have in common, so only what is new is evaluated. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/generate.h"
#include "cli/interrupt.h"
#include "cli/line.h"

struct chat {
    const struct options *options;
    tsr_engine *engine;
    tsr_session *session;
    struct line_reader *lines;
    struct tsr_sampling sampling;
    char *template_text; /* NULL: the model's own */
    char *variables;     /* JSON object */
    json_t *messages;    /* array of {"role", "content"} */
};

static int add_message(struct chat *chat, const char *role, const char *content, size_t len)
{
    json_t *message = json_pack("{s:s, s:o}", "role", role, "content", json_text(content, len));
    if (!message || json_array_append_new(chat->messages, message))
        return fail(chat->options->command, "out of memory");
    return EXIT_DONE;
}

static void drop_last_message(struct chat *chat)
{
    json_array_remove(chat->messages, json_array_size(chat->messages) - 1);
}

static int start_conversation(struct chat *chat)
{
    json_array_clear(chat->messages);
    const char *system = chat->options->system;
    return system ? add_message(chat, "system", system, strlen(system)) : EXIT_DONE;
}

/* The conversation as ids, ready for the answer. NULL after reporting. */
static int32_t *render(struct chat *chat, size_t *n_ids)
{
    char *messages = json_dumps(chat->messages, JSON_COMPACT);
    if (!messages) {
        fail(chat->options->command, "out of memory");
        return NULL;
    }
    struct tsr_chat request = {
        .struct_size = sizeof request,
        .messages_json = messages,
        .template_text = chat->template_text,
        .variables_json = chat->variables,
        .add_generation_prompt = true,
    };
    char *text;
    size_t len;
    int code = tsr_chat_render(chat->engine, &request, &text, &len);
    free(messages);
    if (code < 0) {
        engine_failed(chat->options, chat->engine, code);
        return NULL;
    }
    int32_t *ids =
        tokenize_text(chat->options, chat->engine, text, len, TSR_TOKENIZE_SPECIAL, n_ids);
    struct tsr_engine_info info = {.struct_size = sizeof info};
    tsr_engine_info(chat->engine, &info);
    /* Most templates write BOS themselves. */
    if (ids && info.add_bos && (!*n_ids || ids[0] != info.bos)) {
        free(ids);
        ids = tokenize_text(chat->options, chat->engine, text, len,
                            TSR_TOKENIZE_SPECIAL | TSR_TOKENIZE_BOS, n_ids);
    }
    tsr_free(text);
    return ids;
}

/* After an answer: what is kept and what the user is told. */
static int conclude(struct chat *chat, const struct generation *answer)
{
    bool terminal = line_is_terminal(chat->lines);
    if (answer->n_ids || answer->stop != STOP_FAILED)
        output_bytes("\n", 1);
    output_flush();
    if (output_failed())
        return EXIT_DONE; /* output_finish says so */
    if (answer->stop == STOP_FAILED) {
        drop_last_message(chat);
        return engine_failed(chat->options, chat->engine, answer->code);
    }
    if (answer->stop == STOP_INTERRUPTED && !terminal)
        return EXIT_INTERRUPTED;
    if (answer->stop == STOP_CONTEXT)
        fail(chat->options->command, "the conversation fills the context: %s",
             terminal ? "/clear starts a new one" : "raise -c");
    if (answer->stop == STOP_CONTEXT && !terminal)
        return EXIT_FAILED;
    if (answer->stop == STOP_CONTEXT && !answer->n_ids) {
        drop_last_message(chat); /* the question itself did not fit */
        return EXIT_DONE;
    }
    return add_message(chat, "assistant", answer->text.bytes ? answer->text.bytes : "",
                       answer->text.len);
}

static int answer(struct chat *chat, const char *text)
{
    int status = add_message(chat, "user", text, strlen(text));
    size_t n_ids;
    if (status != EXIT_DONE)
        return status;
    int32_t *ids = render(chat, &n_ids);
    if (!ids) {
        drop_last_message(chat);
        return EXIT_FAILED;
    }
    struct generation generation = {
        .engine = chat->engine,
        .session = chat->session,
        .sampling = chat->sampling,
        .limit = chat->options->n_predict,
        .ignore_end = chat->options->ignore_eos,
        .print = true,
    };
    interrupt_reset();
    generate(&generation, ids, n_ids);
    status = conclude(chat, &generation);
    generation_free(&generation);
    free(ids);
    return status;
}

/* A line that starts with a slash, on a terminal. False when the conversation is over. */
static bool obey(struct chat *chat, const char *line)
{
    if (!strcmp(line, "/exit") || !strcmp(line, "/quit"))
        return false;
    if (!strcmp(line, "/clear"))
        return start_conversation(chat) == EXIT_DONE;
    if (strcmp(line, "/help") != 0)
        note("unknown command %s", line);
    note("/exit leaves, /clear starts a new conversation, \\ at the end of a line goes on in the "
         "next, Ctrl-C stops an answer");
    return true;
}

static int converse(struct chat *chat)
{
    bool terminal = line_is_terminal(chat->lines);
    int status = start_conversation(chat);
    while (status == EXIT_DONE && !output_failed()) {
        const char *line;
        output_flush();
        switch (line_read(chat->lines, &line)) {
        case LINE_END:
            return EXIT_DONE;
        case LINE_FAILED:
            return fail(chat->options->command, "standard input: %s", strerror(errno));
        case LINE_INTERRUPTED:
            if (!terminal)
                return EXIT_INTERRUPTED;
            continue;
        case LINE_READ:
            break;
        }
        if (!*line)
            continue;
        if (terminal && *line == '/') {
            if (!obey(chat, line))
                return EXIT_DONE;
            continue;
        }
        status = answer(chat, line);
        /* A person can try something else. */
        if (terminal && status == EXIT_FAILED)
            status = EXIT_DONE;
    }
    return status;
}

static int open_conversation(struct chat *chat)
{
    const struct options *options = chat->options;
    int status;
    chat->variables = variables_json(options, &status);
    if (!chat->variables)
        return status;
    size_t len;
    if (options->template_file) {
        chat->template_text = read_file(options, options->template_file, &len);
        if (!chat->template_text)
            return interrupted() ? EXIT_INTERRUPTED : EXIT_FAILED;
    }
    status = open_engine(options, false, &chat->engine);
    if (status != EXIT_DONE)
        return status;
    struct tsr_engine_info info = {.struct_size = sizeof info};
    tsr_engine_info(chat->engine, &info);
    if (!info.has_chat_template && !chat->template_text)
        return fail(options->command,
                    "the model has no chat template: give one with --template FILE");
    status = open_session(options, chat->engine, &chat->session);
    if (status != EXIT_DONE)
        return status;
    chat->lines = line_open();
    chat->messages = json_array();
    if (!chat->lines || !chat->messages)
        return fail(options->command, "out of memory");
    return EXIT_DONE;
}

int command_chat(const struct options *options)
{
    interrupt_catch();
    struct chat chat = {.options = options, .sampling = sampling_from(options)};
    int status = open_conversation(&chat);
    if (status == EXIT_DONE)
        status = converse(&chat);
    line_close(chat.lines);
    json_decref(chat.messages);
    tsr_session_close(chat.session);
    tsr_engine_close(chat.engine);
    free(chat.variables);
    free(chat.template_text);
    return status;
}
