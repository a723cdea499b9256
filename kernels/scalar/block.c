/* The table of block types: all that GGUF files may name, whether models can use them or not.
 * Sizes: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
 * Ids 4, 5, 31-33 and 36-38 are types that ggml withdrew; nobody writes them any more. */
#include "kernels/kernel.h"

#include "kernels/scalar/blocks.h"
#include "kernels/scalar/dequantize.h"

#define TYPE(NAME, elems, bytes, function) \
    [BLOCK_##NAME] = {                     \
        .name = #NAME,                     \
        .id = BLOCK_##NAME,                \
        .n_elems = (elems),                \
        .n_bytes = (bytes),                \
        .dequantize = (function),          \
    }

static const struct block_type table[BLOCK_ID_COUNT] = {
    TYPE(F32, 1, 4, dequantize_f32),
    TYPE(F16, 1, 2, dequantize_f16),
    TYPE(BF16, 1, 2, dequantize_bf16),
    TYPE(Q4_0, BLOCK_ELEMS, sizeof(struct block_q4_0), dequantize_q4_0),
    TYPE(Q4_1, BLOCK_ELEMS, sizeof(struct block_q4_1), dequantize_q4_1),
    TYPE(Q5_0, BLOCK_ELEMS, sizeof(struct block_q5_0), dequantize_q5_0),
    TYPE(Q5_1, BLOCK_ELEMS, sizeof(struct block_q5_1), dequantize_q5_1),
    TYPE(Q8_0, BLOCK_ELEMS, sizeof(struct block_q8_0), dequantize_q8_0),
    TYPE(Q2_K, SUPER_BLOCK_ELEMS, sizeof(struct block_q2_k), dequantize_q2_k),
    TYPE(Q3_K, SUPER_BLOCK_ELEMS, sizeof(struct block_q3_k), dequantize_q3_k),
    TYPE(Q4_K, SUPER_BLOCK_ELEMS, sizeof(struct block_q4_k), dequantize_q4_k),
    TYPE(Q5_K, SUPER_BLOCK_ELEMS, sizeof(struct block_q5_k), dequantize_q5_k),
    TYPE(Q6_K, SUPER_BLOCK_ELEMS, sizeof(struct block_q6_k), dequantize_q6_k),
    TYPE(IQ4_NL, BLOCK_ELEMS, sizeof(struct block_iq4_nl), dequantize_iq4_nl),
    TYPE(IQ4_XS, SUPER_BLOCK_ELEMS, sizeof(struct block_iq4_xs), dequantize_iq4_xs),
    TYPE(MXFP4, BLOCK_ELEMS, sizeof(struct block_mxfp4), dequantize_mxfp4),
    /* Known by name and size only. */
    TYPE(Q8_1, BLOCK_ELEMS, 2 * 2 + 32, NULL),
    TYPE(Q8_K, SUPER_BLOCK_ELEMS, 4 + 256 + 16 * 2, NULL),
    TYPE(IQ2_XXS, SUPER_BLOCK_ELEMS, 2 + 256 / 4, NULL),
    TYPE(IQ2_XS, SUPER_BLOCK_ELEMS, 2 + 256 / 4 + 256 / 32, NULL),
    TYPE(IQ2_S, SUPER_BLOCK_ELEMS, 2 + 256 / 4 + 256 / 16, NULL),
    TYPE(IQ3_XXS, SUPER_BLOCK_ELEMS, 2 + 3 * 256 / 8, NULL),
    TYPE(IQ3_S, SUPER_BLOCK_ELEMS, 2 + 13 * 256 / 32 + 256 / 64, NULL),
    TYPE(IQ1_S, SUPER_BLOCK_ELEMS, 2 + 256 / 8 + 256 / 16, NULL),
    TYPE(IQ1_M, SUPER_BLOCK_ELEMS, 256 / 8 + 256 / 16 + 256 / 32, NULL),
    TYPE(TQ1_0, SUPER_BLOCK_ELEMS, 2 + 256 / 64 + (256 - 4 * 256 / 64) / 5, NULL),
    TYPE(TQ2_0, SUPER_BLOCK_ELEMS, 2 + 256 / 4, NULL),
    TYPE(I8, 1, 1, NULL),
    TYPE(I16, 1, 2, NULL),
    TYPE(I32, 1, 4, NULL),
    TYPE(I64, 1, 8, NULL),
    TYPE(F64, 1, 8, NULL),
};

const struct block_type *block_type_find(uint32_t id)
{
    return id < BLOCK_ID_COUNT && table[id].name ? &table[id] : NULL;
}
