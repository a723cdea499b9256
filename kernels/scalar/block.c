/* The table of block types. Sizes: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h */
#include "kernels/kernel.h"

static const struct block_type table[] = {
    {.name = "F32", .id = BLOCK_F32, .n_elems = 1, .n_bytes = 4},
};

const struct block_type *block_type_find(uint32_t id)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].id == id)
            return &table[i];
    return NULL;
}
