/* File blocks to what panels hold (kernels/layout.h), and back: one pair of functions for each
 * type, and the table of packed formats. The meaning of the fields stands in blocks.h. */
#include <string.h>

#include "kernels/layout.h"
#include "kernels/scalar/blocks.h"

/* ---- Back to file blocks: pieces that types share ---- */

/* n / 2 bytes: the low nibbles are codes 0 .. n/2 - 1, the high ones the rest. */
static void join_nibbles(uint8_t *quants, const uint8_t *codes, int n)
{
    for (int j = 0; j < n / 2; j++)
        quants[j] = (uint8_t)((codes[j] & 15) | (codes[j + n / 2] & 15) << 4);
}

static void join_fifth_bits(uint8_t high[4], const uint8_t *codes)
{
    memset(high, 0, 4);
    for (int i = 0; i < BLOCK_ELEMS; i++)
        high[i / 8] |= (uint8_t)((codes[i] >> 4 & 1) << (i % 8));
}

static void join_two_bits(uint8_t quants[64], const uint8_t *codes)
{
    memset(quants, 0, 64);
    for (int i = 0; i < SUPER_BLOCK_ELEMS; i++)
        quants[i / 128 * 32 + i % 32] |= (uint8_t)((codes[i] & 3) << (i % 128 / 32 * 2));
}

/* Eight 6-bit scales and eight 6-bit mins in 12 bytes. */
static void join_k4_scales(uint8_t scales[12], const uint8_t byte[16])
{
    const uint8_t *s = byte, *m = byte + 8;
    for (int i = 0; i < 4; i++) {
        scales[i] = (uint8_t)(s[i] | (s[i + 4] >> 4) << 6);
        scales[i + 4] = (uint8_t)(m[i] | (m[i + 4] >> 4) << 6);
        scales[i + 8] = (uint8_t)((s[i + 4] & 15) | (m[i + 4] & 15) << 4);
    }
}

/* ---- Back: one function for each type ---- */

static void join_q4_0(void *to, const uint8_t *codes, const uint16_t half[2],
                      const uint8_t byte[16])
{
    struct block_q4_0 *b = to;
    b->scale = half[0];
    join_nibbles(b->quants, codes, 32);
}

static void join_q4_1(void *to, const uint8_t *codes, const uint16_t half[2],
                      const uint8_t byte[16])
{
    struct block_q4_1 *b = to;
    b->scale = half[0];
    b->min = half[1];
    join_nibbles(b->quants, codes, 32);
}

static void join_q5_0(void *to, const uint8_t *codes, const uint16_t half[2],
                      const uint8_t byte[16])
{
    struct block_q5_0 *b = to;
    b->scale = half[0];
    join_nibbles(b->quants, codes, 32);
    join_fifth_bits(b->high, codes);
}

static void join_q5_1(void *to, const uint8_t *codes, const uint16_t half[2],
                      const uint8_t byte[16])
{
    struct block_q5_1 *b = to;
    b->scale = half[0];
    b->min = half[1];
    join_nibbles(b->quants, codes, 32);
    join_fifth_bits(b->high, codes);
}

static void join_q8_0(void *to, const uint8_t *codes, const uint16_t half[2],
                      const uint8_t byte[16])
{
    struct block_q8_0 *b = to;
    b->scale = half[0];
    memcpy(b->quants, codes, 32);
}

static void join_q2_k(void *to, const uint8_t *codes, const uint16_t half[2],
                      const uint8_t byte[16])
{
    struct block_q2_k *b = to;
    b->scale = half[0];
    b->min = half[1];
    memcpy(b->scales, byte, 16);
    join_two_bits(b->quants, codes);
}

static void join_q3_k(void *to, const uint8_t *codes, const uint16_t half[2],
                      const uint8_t byte[16])
{
    struct block_q3_k *b = to;
    b->scale = half[0];
    memset(b->scales, 0, sizeof b->scales);
    memset(b->high, 0, sizeof b->high);
    for (int i = 0; i < 16; i++) {
        int scale = (int8_t)byte[i] + 32;
        b->scales[i % 8] |= (uint8_t)((scale & 15) << (i / 8 * 4));
        b->scales[8 + i % 4] |= (uint8_t)(scale >> 4 << (i / 4 * 2));
    }
    join_two_bits(b->quants, codes);
    for (int i = 0; i < SUPER_BLOCK_ELEMS; i++)
        b->high[i % 32] |= (uint8_t)((codes[i] >> 2 & 1) << (i / 32));
}

static void join_q4_k(void *to, const uint8_t *codes, const uint16_t half[2],
                      const uint8_t byte[16])
{
    struct block_q4_k *b = to;
    b->scale = half[0];
    b->min = half[1];
    join_k4_scales(b->scales, byte);
    for (int g = 0; g < 4; g++)
        join_nibbles(b->quants + 32 * g, codes + 64 * g, 64);
}

static void join_q5_k(void *to, const uint8_t *codes, const uint16_t half[2],
                      const uint8_t byte[16])
{
    struct block_q5_k *b = to;
    b->scale = half[0];
    b->min = half[1];
    join_k4_scales(b->scales, byte);
    memset(b->high, 0, sizeof b->high);
    for (int g = 0; g < 4; g++)
        join_nibbles(b->quants + 32 * g, codes + 64 * g, 64);
    for (int i = 0; i < SUPER_BLOCK_ELEMS; i++)
        b->high[i % 32] |= (uint8_t)((codes[i] >> 4 & 1) << (i / 32));
}

static void join_q6_k(void *to, const uint8_t *codes, const uint16_t half[2],
                      const uint8_t byte[16])
{
    struct block_q6_k *b = to;
    b->scale = half[0];
    memcpy(b->scales, byte, 16);
    memset(b->high, 0, sizeof b->high);
    for (int h = 0; h < 2; h++) {
        join_nibbles(b->low + 64 * h, codes + 128 * h, 128);
        for (int i = 0; i < 128; i++)
            b->high[32 * h + i % 32] |= (uint8_t)((codes[128 * h + i] >> 4 & 3) << (i / 32 * 2));
    }
}

static void join_iq4_xs(void *to, const uint8_t *codes, const uint16_t half[2],
                        const uint8_t byte[16])
{
    struct block_iq4_xs *b = to;
    b->scale = half[0];
    b->scales_high = 0;
    memset(b->scales_low, 0, sizeof b->scales_low);
    for (int s = 0; s < 8; s++) {
        int scale = (int8_t)byte[s] + 32;
        b->scales_low[s / 2] |= (uint8_t)((scale & 15) << (s % 2 * 4));
        b->scales_high |= (uint16_t)(scale >> 4 << (2 * s));
        join_nibbles(b->quants + 16 * s, codes + 32 * s, 32);
    }
}

static void join_mxfp4(void *to, const uint8_t *codes, const uint16_t half[2],
                       const uint8_t byte[16])
{
    struct block_mxfp4 *b = to;
    b->exponent = byte[0];
    join_nibbles(b->quants, codes, 32);
}

/* ---- To planes and heads: pieces that types share ---- */

typedef uint32_t quad __attribute__((vector_size(16)));

static inline quad load_quad(const uint8_t *from)
{
    quad q;
    memcpy(&q, from, sizeof q);
    return q;
}

static inline void store_quad(uint32_t *to, quad q)
{
    memcpy(to, &q, sizeof q);
}

/* As k4_scale and k4_min, four at a time. */
static inline void arrange_k4_scales(const uint8_t scales[12], uint8_t byte[16])
{
    uint32_t in[3], out[4];
    memcpy(in, scales, 12);
    out[0] = in[0] & 0x3f3f3f3f;
    out[1] = (in[2] & 0x0f0f0f0f) | (in[0] >> 6 & 0x03030303) << 4;
    out[2] = in[1] & 0x3f3f3f3f;
    out[3] = (in[2] >> 4 & 0x0f0f0f0f) | (in[1] >> 6 & 0x03030303) << 4;
    memcpy(byte, out, 16);
}

/* As q3_k_scale, four at a time. */
static inline void arrange_q3_k_scales(const uint8_t scales[12], uint8_t byte[16])
{
    uint32_t in[3], out[4];
    memcpy(in, scales, 12);
    for (int i = 0; i < 4; i++) {
        uint32_t six = (in[i % 2] >> (i / 2 * 4) & 0x0f0f0f0f) | (in[2] >> 2 * i & 0x03030303) << 4;
        out[i] = ((six | 0x80808080) - 0x20202020) ^ 0x80808080; /* no byte borrows */
    }
    memcpy(byte, out, 16);
}

/* Planes 4 of a super-block: low nibbles of 32 bytes are the codes of a unit, high nibbles those of
 * the next. */
static inline void arrange_nibbles(const uint8_t quants[128], uint32_t *words, int unit_words)
{
    for (int g = 0; g < 4; g++, words += 2 * unit_words) {
        quad first = load_quad(quants + 32 * g), second = load_quad(quants + 32 * g + 16);
        store_quad(words, (first & 0x0f0f0f0f) | (second & 0x0f0f0f0f) << 4);
        store_quad(words + unit_words, (first >> 4 & 0x0f0f0f0f) | (second & 0xf0f0f0f0));
    }
}

/* A word of plane 2: two bits at `shift` of each of 16 bytes. */
static inline uint32_t fold_two_bits(const uint8_t bytes[16], int shift)
{
    uint64_t low, high, mask = UINT64_C(0x0303030303030303);
    memcpy(&low, bytes, 8);
    memcpy(&high, bytes + 8, 8);
    uint64_t pairs = (low >> shift & mask) | (high >> shift & mask) << 4;
    return (uint32_t)(pairs | pairs >> 30);
}

/* The words of plane 1 of a super-block: bit u of byte 4g + j becomes bit g of byte j of word u.
 * Squares of 4 x 4 bits change places with those across the diagonal, then 2 x 2, then single bits
 * (Warren, Hacker's Delight, section 7-3). */
static inline void transpose_bits(const uint8_t bytes[32], uint32_t words[UNIT_VECTORS])
{
    static const uint32_t masks[] = {[4] = 0x0f0f0f0f, [2] = 0x33333333, [1] = 0x55555555};
    memcpy(words, bytes, 32);
    for (int side = 4; side > 0; side /= 2)
        for (int i = 0; i < UNIT_VECTORS; i++)
            if (!(i & side)) {
                uint32_t changed = (words[i] >> side ^ words[i + side]) & masks[side];
                words[i] ^= changed << side;
                words[i + side] ^= changed;
            }
}

/* The word of plane 1 from 32 bits side by side: bit 4g + j becomes bit 8j + g. */
static inline uint32_t spread_bits(const uint8_t high[4])
{
    uint32_t bits, word = 0;
    memcpy(&bits, high, 4);
    for (int j = 0; j < 4; j++) {
        uint32_t every_fourth = bits >> j & 0x11111111;
        every_fourth = (every_fourth | every_fourth >> 3) & 0x03030303;
        every_fourth = (every_fourth | every_fourth >> 6) & 0x000f000f;
        word |= ((every_fourth | every_fourth >> 12) & 0xff) << (8 * j);
    }
    return word;
}

/* ---- To planes and heads: one function for each type ---- */

/* Q4_0 and IQ4_NL: the nibbles of a file block lie as in plane 4. */
static inline void arrange_column_q4_0(const void *from, uint32_t *words, uint16_t *scale,
                                       uint16_t *min, uint8_t byte[16])
{
    const struct block_q4_0 *b = from;
    *scale = b->scale;
    memcpy(words, b->quants, 16);
}

static inline void arrange_column_q4_1(const void *from, uint32_t *words, uint16_t *scale,
                                       uint16_t *min, uint8_t byte[16])
{
    const struct block_q4_1 *b = from;
    *scale = b->scale;
    *min = b->min;
    memcpy(words, b->quants, 16);
}

static inline void arrange_column_q5_0(const void *from, uint32_t *words, uint16_t *scale,
                                       uint16_t *min, uint8_t byte[16])
{
    const struct block_q5_0 *b = from;
    *scale = b->scale;
    memcpy(words, b->quants, 16);
    words[4] = spread_bits(b->high);
}

static inline void arrange_column_q5_1(const void *from, uint32_t *words, uint16_t *scale,
                                       uint16_t *min, uint8_t byte[16])
{
    const struct block_q5_1 *b = from;
    *scale = b->scale;
    *min = b->min;
    memcpy(words, b->quants, 16);
    words[4] = spread_bits(b->high);
}

static inline void arrange_column_q8_0(const void *from, uint32_t *words, uint16_t *scale,
                                       uint16_t *min, uint8_t byte[16])
{
    const struct block_q8_0 *b = from;
    *scale = b->scale;
    memcpy(words, b->quants, 32);
}

static inline void arrange_column_q2_k(const void *from, uint32_t *words, uint16_t *scale,
                                       uint16_t *min, uint8_t byte[16])
{
    const struct block_q2_k *b = from;
    *scale = b->scale;
    *min = b->min;
    memcpy(byte, b->scales, 16);
    for (int u = 0; u < SUPER_BLOCK_ELEMS / UNIT_K; u++, words += 2) {
        const uint8_t *quants = b->quants + u / 4 * 32;
        words[0] = fold_two_bits(quants, u % 4 * 2);
        words[1] = fold_two_bits(quants + 16, u % 4 * 2);
    }
}

static inline void arrange_column_q3_k(const void *from, uint32_t *words, uint16_t *scale,
                                       uint16_t *min, uint8_t byte[16])
{
    const struct block_q3_k *b = from;
    uint32_t high[UNIT_VECTORS];
    *scale = b->scale;
    arrange_q3_k_scales(b->scales, byte);
    transpose_bits(b->high, high);
    for (int u = 0; u < SUPER_BLOCK_ELEMS / UNIT_K; u++, words += 3) {
        const uint8_t *quants = b->quants + u / 4 * 32;
        words[0] = fold_two_bits(quants, u % 4 * 2);
        words[1] = fold_two_bits(quants + 16, u % 4 * 2);
        words[2] = high[u];
    }
}

static inline void arrange_column_q4_k(const void *from, uint32_t *words, uint16_t *scale,
                                       uint16_t *min, uint8_t byte[16])
{
    const struct block_q4_k *b = from;
    *scale = b->scale;
    *min = b->min;
    arrange_k4_scales(b->scales, byte);
    arrange_nibbles(b->quants, words, 4);
}

static inline void arrange_column_q5_k(const void *from, uint32_t *words, uint16_t *scale,
                                       uint16_t *min, uint8_t byte[16])
{
    const struct block_q5_k *b = from;
    uint32_t high[UNIT_VECTORS];
    *scale = b->scale;
    *min = b->min;
    arrange_k4_scales(b->scales, byte);
    arrange_nibbles(b->quants, words, 5);
    transpose_bits(b->high, high);
    for (int u = 0; u < SUPER_BLOCK_ELEMS / UNIT_K; u++)
        words[5 * u + 4] = high[u];
}

static inline void arrange_column_q6_k(const void *from, uint32_t *words, uint16_t *scale,
                                       uint16_t *min, uint8_t byte[16])
{
    const struct block_q6_k *b = from;
    *scale = b->scale;
    memcpy(byte, b->scales, 16);
    for (int u = 0; u < SUPER_BLOCK_ELEMS / UNIT_K; u++, words += 6) {
        int quarter = u % 4;
        const uint8_t *low = b->low + u / 4 * 64 + quarter % 2 * 32, *high = b->high + u / 4 * 32;
        int shift = quarter / 2 * 4;
        store_quad(words, (load_quad(low) >> shift & 0x0f0f0f0f) |
                              (load_quad(low + 16) >> shift & 0x0f0f0f0f) << 4);
        words[4] = fold_two_bits(high, 2 * quarter);
        words[5] = fold_two_bits(high + 16, 2 * quarter);
    }
}

static inline void arrange_column_iq4_xs(const void *from, uint32_t *words, uint16_t *scale,
                                         uint16_t *min, uint8_t byte[16])
{
    const struct block_iq4_xs *b = from;
    *scale = b->scale;
    for (int i = 0; i < 8; i++)
        byte[i] = (uint8_t)iq4_xs_scale(b, i);
    memcpy(words, b->quants, 128);
}

static inline void arrange_column_mxfp4(const void *from, uint32_t *words, uint16_t *scale,
                                        uint16_t *min, uint8_t byte[16])
{
    const struct block_mxfp4 *b = from;
    byte[0] = b->exponent;
    memcpy(words, b->quants, 16);
}

#define ARRANGE(name)                                                                              \
    static void arrange_##name(const uint8_t *blocks, size_t stride, int n_columns,                \
                               struct column_blocks *to)                                           \
    {                                                                                              \
        for (int c = 0; c < n_columns; c++)                                                        \
            arrange_column_##name(blocks + (size_t)c * stride, to->words[c], &to->half[0][c],      \
                                  &to->half[1][c], to->byte[c]);                                   \
    }

ARRANGE(q4_0)
ARRANGE(q4_1)
ARRANGE(q5_0)
ARRANGE(q5_1)
ARRANGE(q8_0)
ARRANGE(q2_k)
ARRANGE(q3_k)
ARRANGE(q4_k)
ARRANGE(q5_k)
ARRANGE(q6_k)
ARRANGE(iq4_xs)
ARRANGE(mxfp4)

/* ---- The table ---- */

#define FORMAT(id, name, k, code_bits, halves, bytes)                                              \
    {.block_id = id, .block_k = k, .bits = code_bits, .n_half = halves, .n_byte = bytes,           \
     .unit_bytes = code_bits * 64, .head_bytes = 16 * (2 * halves + bytes),                        \
     .arrange = arrange_##name, .join = join_##name}

static const struct panel_format formats[] = {
    FORMAT(BLOCK_Q4_0, q4_0, 32, 4, 1, 0),
    FORMAT(BLOCK_Q4_1, q4_1, 32, 4, 2, 0),
    FORMAT(BLOCK_Q5_0, q5_0, 32, 5, 1, 0),
    FORMAT(BLOCK_Q5_1, q5_1, 32, 5, 2, 0),
    FORMAT(BLOCK_Q8_0, q8_0, 32, 8, 1, 0),
    FORMAT(BLOCK_Q2_K, q2_k, 256, 2, 2, 16),
    FORMAT(BLOCK_Q3_K, q3_k, 256, 3, 1, 16),
    FORMAT(BLOCK_Q4_K, q4_k, 256, 4, 2, 16),
    FORMAT(BLOCK_Q5_K, q5_k, 256, 5, 2, 16),
    FORMAT(BLOCK_Q6_K, q6_k, 256, 6, 1, 16),
    FORMAT(BLOCK_IQ4_NL, q4_0, 32, 4, 1, 0),
    FORMAT(BLOCK_IQ4_XS, iq4_xs, 256, 4, 1, 8),
    FORMAT(BLOCK_MXFP4, mxfp4, 32, 4, 0, 1),
};

const struct panel_format *panel_format_find(uint32_t block_id)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (formats[i].block_id == block_id)
            return &formats[i];
    return NULL;
}
