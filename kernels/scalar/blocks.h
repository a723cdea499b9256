/* The blocks of quantized weights as they lie in GGUF files.
 *
 * Layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
 * All structs are packed: rows in a file or in a packed matrix need not be aligned. `scale` and
 * `min` are f16 (kernels/float16.h). Where a byte of `quants` holds two codes, the low nibble is
 * the code of the first half of the block or sub-block, the high nibble that of the second half.
 */
#ifndef TESSERA_BLOCKS_H
#define TESSERA_BLOCKS_H

#include <assert.h>
#include <stdint.h>

#include "kernels/float16.h"

enum {
    BLOCK_ELEMS = 32,        /* of the plain types and MXFP4 */
    SUPER_BLOCK_ELEMS = 256, /* of the K types and IQ4_XS */
};

#define BLOCK_PACKED __attribute__((packed))

/* x = scale * (q - 8) */
struct BLOCK_PACKED block_q4_0 {
    uint16_t scale;
    uint8_t quants[16];
};

/* x = scale * q + min */
struct BLOCK_PACKED block_q4_1 {
    uint16_t scale;
    uint16_t min;
    uint8_t quants[16];
};

/* x = scale * (q - 16); bit j of `high` (little-endian) is the fifth bit of code j. */
struct BLOCK_PACKED block_q5_0 {
    uint16_t scale;
    uint8_t high[4];
    uint8_t quants[16];
};

/* x = scale * q + min; `high` as in Q5_0. */
struct BLOCK_PACKED block_q5_1 {
    uint16_t scale;
    uint16_t min;
    uint8_t high[4];
    uint8_t quants[16];
};

/* x = scale * q */
struct BLOCK_PACKED block_q8_0 {
    uint16_t scale;
    int8_t quants[32];
};

/* 16 sub-blocks of 16: x = scale * (scales & 15) * q - min * (scales >> 4). Two halves of 128
 * weights; bits 2g, 2g+1 of quants[32 * half + j] are code 128 * half + 32 * g + j. */
struct BLOCK_PACKED block_q2_k {
    uint8_t scales[16];
    uint8_t quants[64];
    uint16_t scale;
    uint16_t min;
};

/* 16 sub-blocks of 16: x = scale * (s - 32) * (q - 4). Low two bits of q as in Q2_K; bit i/32 of
 * high[i % 32] is the third bit of code i. Scale s of sub-block i: low nibble from scales[i % 8]
 * (low nibbles first), upper two bits i/4 of scales[8 + i % 4]. */
struct BLOCK_PACKED block_q3_k {
    uint8_t high[32];
    uint8_t quants[64];
    uint8_t scales[12];
    uint16_t scale;
};

/* 8 sub-blocks of 32: x = scale * s * q - min * m, with s and m of 6 bits (k4_scale, k4_min).
 * quants[32 * g + j]: low nibble code 64 * g + j, high nibble code 64 * g + 32 + j. */
struct BLOCK_PACKED block_q4_k {
    uint16_t scale;
    uint16_t min;
    uint8_t scales[12];
    uint8_t quants[128];
};

/* As Q4_K, with bit s of high[j] the fifth bit of code j of sub-block s. */
struct BLOCK_PACKED block_q5_k {
    uint16_t scale;
    uint16_t min;
    uint8_t scales[12];
    uint8_t high[32];
    uint8_t quants[128];
};

/* 16 sub-blocks of 16: x = scale * scales * (q - 32). In each half of 128 weights, with l in
 * 0..31: low[l] & 15, low[l + 32] & 15, low[l] >> 4, low[l + 32] >> 4 are the low nibbles of codes
 * l, 32 + l, 64 + l, 96 + l; bits 2g, 2g+1 of high[l] the upper bits of code 32 * g + l. */
struct BLOCK_PACKED block_q6_k {
    uint8_t low[128];
    uint8_t high[64];
    int8_t scales[16];
    uint16_t scale;
};

/* x = scale * iq4_values[q] */
struct BLOCK_PACKED block_iq4_nl {
    uint16_t scale;
    uint8_t quants[16];
};

/* 8 sub-blocks of 32 laid out as IQ4_NL: x = scale * (s - 32) * iq4_values[q], where s has its low
 * nibble in scales_low[i / 2] (low nibble first) and bits 2i, 2i+1 of scales_high above it. */
struct BLOCK_PACKED block_iq4_xs {
    uint16_t scale;
    uint16_t scales_high;
    uint8_t scales_low[4];
    uint8_t quants[128];
};

/* OCP microscaling FP4 (E2M1 codes, one E8M0 exponent): x = 2^(exponent - 128) * mxfp4_values[q],
 * the values being doubled so that they are integers. */
struct BLOCK_PACKED block_mxfp4 {
    uint8_t exponent;
    uint8_t quants[16];
};

static_assert(sizeof(struct block_q4_0) == 18, "Q4_0");
static_assert(sizeof(struct block_q4_1) == 20, "Q4_1");
static_assert(sizeof(struct block_q5_0) == 22, "Q5_0");
static_assert(sizeof(struct block_q5_1) == 24, "Q5_1");
static_assert(sizeof(struct block_q8_0) == 34, "Q8_0");
static_assert(sizeof(struct block_q2_k) == 84, "Q2_K");
static_assert(sizeof(struct block_q3_k) == 110, "Q3_K");
static_assert(sizeof(struct block_q4_k) == 144, "Q4_K");
static_assert(sizeof(struct block_q5_k) == 176, "Q5_K");
static_assert(sizeof(struct block_q6_k) == 210, "Q6_K");
static_assert(sizeof(struct block_iq4_nl) == 18, "IQ4_NL");
static_assert(sizeof(struct block_iq4_xs) == 136, "IQ4_XS");
static_assert(sizeof(struct block_mxfp4) == 17, "MXFP4");

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
static const int8_t mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Scale and min of sub-block i (0..7) of Q4_K and Q5_K: eight pairs of 6 bits in 12 bytes. */
static inline int k4_scale(const uint8_t scales[12], int i)
{
    return i < 4 ? scales[i] & 63 : (scales[i + 4] & 15) | (scales[i - 4] >> 6) << 4;
}

static inline int k4_min(const uint8_t scales[12], int i)
{
    return i < 4 ? scales[i + 4] & 63 : scales[i + 4] >> 4 | (scales[i] >> 6) << 4;
}

/* Scale of sub-block i (0..15) of Q3_K, -32..31. */
static inline int q3_k_scale(const uint8_t scales[12], int i)
{
    int low = i < 8 ? scales[i] & 15 : scales[i - 8] >> 4;
    int high = scales[8 + i % 4] >> (i / 4 * 2) & 3;
    return (low | high << 4) - 32;
}

/* Scale of sub-block i (0..7) of IQ4_XS, -32..31. */
static inline int iq4_xs_scale(const struct block_iq4_xs *block, int i)
{
    int low = block->scales_low[i / 2] >> (i % 2 * 4) & 15;
    int high = block->scales_high >> (2 * i) & 3;
    return (low | high << 4) - 32;
}

/* 2^(exponent - 128); the two lowest are subnormal floats. */
static inline float mxfp4_scale(uint8_t exponent)
{
    return f32_from_bits(exponent < 2 ? 0x00200000u << exponent : (uint32_t)(exponent - 1) << 23);
}

#endif
