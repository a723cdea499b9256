/* The public API of text: tokens and chat prompts. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine.h"
#include "text/template.h"

int64_t tsr_tokenize(const tsr_engine *engine, const char *text, size_t len, unsigned flags,
                     int32_t *ids, size_t capacity)
{
    struct tsr_error error = {0};
    int64_t n = tokenizer_encode(engine->tokenizer, text, len, flags, ids, capacity, &error);
    /* The message is the one thing of an engine that changes; its lock keeps writers apart. */
    return n < 0 ? engine_fail((tsr_engine *)engine, &error) : n;
}

int64_t tsr_token_text(const tsr_engine *engine, int32_t id, bool special, char *text,
                       size_t capacity)
{
    const char *bytes;
    size_t len;
    if (!tokenizer_token_bytes(engine->tokenizer, id, special, &bytes, &len)) {
        struct tsr_error error;
        error_set(&error, TSR_EINVAL, "token id %d is outside the vocabulary of %u", id,
                  tokenizer_n_tokens(engine->tokenizer));
        return engine_fail((tsr_engine *)engine, &error);
    }
    if (capacity)
        memcpy(text, bytes, len < capacity ? len : capacity);
    return (int64_t)len;
}

bool tsr_token_is_end(const tsr_engine *engine, int32_t id)
{
    return tokenizer_is_end(engine->tokenizer, id);
}

/* ---- Streams of tokens: the public handle is the tokenizer's own ---- */

int tsr_detokenizer_open(const tsr_engine *engine, bool special, tsr_detokenizer **stream)
{
    return detokenizer_open(engine->tokenizer, special, (struct detokenizer **)stream);
}

int tsr_detokenizer_push(tsr_detokenizer *stream, int32_t id, const char **text, size_t *len)
{
    return detokenizer_push((struct detokenizer *)stream, id, text, len);
}

int tsr_detokenizer_flush(tsr_detokenizer *stream, const char **text, size_t *len)
{
    return detokenizer_flush((struct detokenizer *)stream, text, len);
}

void tsr_detokenizer_close(tsr_detokenizer *stream)
{
    detokenizer_close((struct detokenizer *)stream);
}

/* ---- Chat ---- */

/* The text of a token as a JSON string; "" where the model has no such token. */
static json_t *token_string(const tsr_engine *engine, int32_t id)
{
    const char *bytes = "";
    size_t len = 0;
    tokenizer_token_bytes(engine->tokenizer, id, true, &bytes, &len);
    json_t *string = json_stringn(bytes, len);
    return string ? string : json_string("");
}

static int parse_json(const char *source, const char *what, bool array, json_t **value,
                      struct tsr_error *error)
{
    json_error_t fault;
    *value = json_loads(source, JSON_ALLOW_NUL, &fault);
    if (!*value)
        return error_set(error, TSR_EINVAL, "%s: line %d: %s", what, fault.line, fault.text);
    if (array ? json_is_array(*value) : json_is_object(*value))
        return 0;
    json_decref(*value);
    *value = NULL;
    return error_set(error, TSR_EINVAL, "%s: must be a JSON %s", what, array ? "array" : "object");
}

static int check_messages(const json_t *messages, struct tsr_error *error)
{
    size_t index;
    json_t *message;
    if (json_array_size(messages) == 0)
        return error_set(error, TSR_EINVAL, "messages: there is none");
    json_array_foreach(messages, index, message) {
        if (!json_is_string(json_object_get(message, "role")))
            return error_set(error, TSR_EINVAL, "messages: number %zu has no \"role\"", index + 1);
    }
    return 0;
}

/* The template's globals; the caller's own variables come last and win. */
static int make_variables(const tsr_engine *engine, const struct tsr_chat *chat, json_t *variables,
                          struct tsr_error *error)
{
    json_t *messages, *own = NULL;
    int status = parse_json(chat->messages_json ? chat->messages_json : "[]", "messages", true,
                            &messages, error);
    if (status)
        return status;
    bool stored = json_object_set_new(variables, "messages", messages) == 0;
    status = check_messages(messages, error);
    if (!status && chat->variables_json)
        status = parse_json(chat->variables_json, "variables", false, &own, error);
    if (status)
        return status;
    /* The clock is the one thing that a prompt may depend on besides its arguments: templates that
     * tell the model the date ask for it (strftime_now). */
    stored = stored && json_object_set_new(variables, "now", json_integer(time(NULL))) == 0 &&
             json_object_set_new(variables, "add_generation_prompt",
                                 json_boolean(chat->add_generation_prompt)) == 0 &&
             json_object_set_new(variables, "bos_token",
                                 token_string(engine, tokenizer_bos(engine->tokenizer))) == 0 &&
             json_object_set_new(variables, "eos_token",
                                 token_string(engine, tokenizer_eos(engine->tokenizer))) == 0 &&
             (!own || json_object_update(variables, own) == 0);
    json_decref(own);
    return stored ? 0 : error_set(error, TSR_ENOMEM, "out of memory");
}

static int render(const tsr_engine *engine, const struct tsr_chat *chat, char **text, size_t *len,
                  struct tsr_error *error)
{
    const char *source = chat->template_text ? chat->template_text : engine->chat_template;
    if (chat->struct_size != sizeof *chat)
        return error_set(error, TSR_EINVAL, "a struct tsr_chat of another version");
    if (!source)
        return error_set(error, TSR_ETEMPLATE, "%s: the model has no chat template: give one (--template FILE)",
                         gguf_path(engine->gguf));
    json_t *variables = json_object();
    if (!variables)
        return error_set(error, TSR_ENOMEM, "out of memory");
    int status = make_variables(engine, chat, variables, error);
    if (!status)
        status = template_render(source, strlen(source), variables, text, len, error);
    json_decref(variables);
    return status;
}

int tsr_chat_render(const tsr_engine *engine, const struct tsr_chat *chat, char **text, size_t *len)
{
    struct tsr_error error = {0};
    size_t length = 0;
    *text = NULL;
    int status = render(engine, chat, text, &length, &error);
    if (len)
        *len = length;
    return status ? engine_fail((tsr_engine *)engine, &error) : 0;
}
