/* The model families. Names and switches as the GGUF converters write them:
 * https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py */
#include <stdio.h>
#include <string.h>

#include "model/model.h"

static const struct model_arch archs[] = {
    {"llama", ARCH_MOE_OPTIONAL, ROPE_ADJACENT},
    {"qwen2", ARCH_QKV_BIAS, ROPE_HALVES},
    {"qwen3", ARCH_QK_NORM, ROPE_HALVES},
    {"qwen3moe", ARCH_QK_NORM | ARCH_MOE, ROPE_HALVES},
    {"deepseek2", ARCH_MLA | ARCH_MOE | ARCH_SHARED_EXPERTS, ROPE_ADJACENT},
};

enum { N_ARCHS = sizeof archs / sizeof archs[0] };

const struct model_arch *model_arch_find(struct gguf_string name)
{
    for (size_t i = 0; i < N_ARCHS; i++)
        if (strlen(archs[i].name) == name.len && memcmp(archs[i].name, name.data, name.len) == 0)
            return &archs[i];
    return NULL;
}

void model_arch_list(char *text, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < N_ARCHS && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", archs[i].name);
}
