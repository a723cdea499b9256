/* From the config.json of each model's public repository. */
#include "shape.h"

#include <stdio.h>
#include <string.h>

static const struct shape shapes[] = {
    {"qwen3-30b-a3b", "qwen3moe", 48, 2048, 151936, 40960, 32, 4, 128, 0, 128, 8, 768, 1e6f, true},
    {"qwen3-235b-a22b", "qwen3moe", 94, 4096, 151936, 40960, 64, 4, 128, 0, 128, 8, 1536, 1e6f,
     true},
    {"qwen3-8b", "qwen3", 36, 4096, 151936, 40960, 32, 8, 128, 12288, 0, 0, 0, 1e6f, true},
    {"llama-3.1-8b", "llama", 32, 4096, 128256, 131072, 32, 8, 128, 14336, 0, 0, 0, 5e5f, false},
    {"mixtral-8x7b", "llama", 32, 4096, 32000, 32768, 32, 8, 128, 0, 8, 2, 14336, 1e6f, false},
};

enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

const struct shape *shape_find(const char *name)
{
    for (size_t i = 0; i < N_SHAPES; i++)
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
    return NULL;
}

void shape_list(void)
{
    for (size_t i = 0; i < N_SHAPES; i++)
        fprintf(stderr, "  %s\n", shapes[i].name);
}
