/* libFuzzer target for chat templates: the input is a template, rendered with fixed variables. */
#include <stdint.h>
#include <stdlib.h>

#include "text/template.h"

static const char variables_json[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \" s \"}, {\"role\": \"user\", "
    "\"content\":"
    " \"h\\u00e9 {{ x }}\"}, {\"role\": \"assistant\", \"content\": \"<think>a</think>b\","
    " \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {\"n\": [1, 2.5, "
    "null]}}}]}],"
    " \"add_generation_prompt\": true, \"bos_token\": \"<s>\", \"now\": 1700000000}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *variables = json_loads(variables_json, 0, NULL);
    struct tsr_error error;
    char *text;
    size_t len;
    if (variables)
        template_render((const char *)data, size, variables, &text, &len, &error);
    if (variables)
        free(text);
    json_decref(variables);
    return 0;
}
