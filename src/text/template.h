/* Chat templates: an interpreter for the part of Jinja that model files carry. */
#ifndef TESSERA_TEXT_TEMPLATE_H
#define TESSERA_TEXT_TEMPLATE_H

#include <jansson.h>

#include "base/error.h"

/* Renders `source` with the members of the JSON object `variables` as global names (messages,
 * add_generation_prompt, bos_token, eos_token, ... all come from there). Strings in variables are
 * data: template-like text inside them is never evaluated. Rendering reads no clock: the function
 * strftime_now(format), which some templates call, prints the integer variable `now` (seconds since
 * 1970, in UTC) and is undefined when there is none. `*text` is malloc'ed and terminated.
 * Errors: TSR_ETEMPLATE with the line number and the construct quoted; TSR_ENOMEM. Rendering is
 * bounded (steps, depth, output size): a hostile template fails, it does not hang. */
int template_render(const char *source, size_t source_len, const json_t *variables, char **text,
                    size_t *len, struct tsr_error *error);

#endif
