/* Attention in vectors, for the table of row operations. */
#ifndef TESSERA_VECTOR_ATTENTION_H
#define TESSERA_VECTOR_ATTENTION_H

#include "kernels/vec.h"

enum {
    ATTN_ROWS = 64,    /* query rows taken at once */
    ATTN_FEW_ROWS = 8, /* up to these rows are multiplied without panels */
};

size_t VEC_NAME(attn_scratch_bytes)(int d_k, int d_v);
void VEC_NAME(attention)(const struct attn_args *args);

#endif
