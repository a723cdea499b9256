/* tessera template: a chat prompt as the model would see it. */
#include <stdlib.h>

#include "cli/commands.h"
#include "cli/common.h"

static int render(const struct options *options, const tsr_engine *engine, const char *messages,
                  const char *template_text)
{
    int status;
    char *variables = variables_json(options, &status);
    if (!variables)
        return status;
    struct tsr_chat chat = {
        .struct_size = sizeof chat,
        .messages_json = messages,
        .template_text = template_text,
        .variables_json = variables,
        .add_generation_prompt = options->add_generation_prompt,
    };
    char *text;
    size_t len;
    int code = tsr_chat_render(engine, &chat, &text, &len);
    free(variables);
    if (code < 0)
        return engine_failed(options, engine, code);
    output_bytes(text, len);
    tsr_free(text);
    return EXIT_DONE;
}

int command_template(const struct options *options)
{
    if (!options->messages)
        return usage_error(options->command, "--messages FILE is missing");
    size_t len;
    char *messages = read_file(options, options->messages, &len);
    if (!messages)
        return EXIT_FAILED;
    char *template_text = NULL;
    tsr_engine *engine = NULL;
    int status = EXIT_FAILED;
    if (!options->template_file ||
        (template_text = read_file(options, options->template_file, &len)))
        status = open_engine(options, true, &engine);
    if (engine)
        status = render(options, engine, messages, template_text);
    tsr_engine_close(engine);
    free(template_text);
    free(messages);
    return status;
}
