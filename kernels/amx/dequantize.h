/* Packed codes to bf16 tiles.
 *
 * One unit of a panel (32 k of 16 columns, kernels/layout.h) becomes one tile of 16 rows of 64
 * bytes: row p holds, for each column, the bf16 weights of k = 2p and 2p + 1. Lane c of a vector
 * of 32-bit lanes is column c throughout, so that the columns' scales are vectors too.
 *
 * A code is made a float without a conversion: its byte is put into the mantissa of a power of two
 * whose unit lies there. Adding the offset back is part of the multiply-add that scales it:
 * scale * (2^e + code) + base, base = -scale * (2^e + offset) - zero.
 *
 * Floats become bf16 by dropping their lower halves, which costs one instruction for a pair where
 * rounding costs four. What a weight loses by that, half a unit of the last bit on average, is made
 * up for in its scale (TRUNCATION): the error is that of rounding but for a tenth, and weights that
 * are bf16 numbers stay what they are. */
#ifndef TESSERA_AMX_DEQUANTIZE_H
#define TESSERA_AMX_DEQUANTIZE_H

#include "kernels/amx/tile.h"
#include "kernels/amx/width.h"
#include "kernels/unit.h"

#define AMX_INLINE static inline __attribute__((always_inline))

/* 1 + E[m e] / E[m^2], for mantissas m from 1 to 2, evenly spread over their logarithms, and what
 * they lose, e from 0 to 2^-7. Less than the 1 + 2^-8 that could reach the next bf16. */
#define TRUNCATION (1.0f + 1.0f / 384)

/* Scale and base of k 0..15 and 16..31. */
struct unit_scales {
    vec_f32 scale[2], base[2];
};

/* Types whose codes, after tables and biases, take all 8 bits of a byte. */
AMX_INLINE bool codes_are_wide(uint32_t id)
{
    return id == BLOCK_Q8_0 || id == BLOCK_IQ4_NL || id == BLOCK_IQ4_XS;
}

/* What the byte of a weight 0 is. */
AMX_INLINE float code_offset(uint32_t id)
{
    if (id == BLOCK_MXFP4)
        return 16;
    return codes_are_wide(id) ? 128 : (float)unit_offset(id);
}

AMX_INLINE vec_f32 byte_scales(vec_f32 scale, const uint8_t *bytes, bool is_signed)
{
    return vf_mul(scale, vf_from_i32(is_signed ? vi_from_i8(bytes) : vi_from_u8(bytes)));
}

/* 2^(exponent - 128), as mxfp4_scale. */
AMX_INLINE vec_f32 exponent_scales(const uint8_t *bytes)
{
    float scale[AMX_LANES];
    for (int i = 0; i < AMX_LANES; i++)
        scale[i] = mxfp4_scale(bytes[i]);
    return vf_load(scale);
}

/* Scales of unit `u` of the file block with this head, columns from c0. */
AMX_INLINE struct unit_scales load_scales(const uint8_t *head, int u, int c0, uint32_t id)
{
    const bool two_halfs = id == BLOCK_Q4_1 || id == BLOCK_Q5_1 || id == BLOCK_Q2_K ||
                           id == BLOCK_Q4_K || id == BLOCK_Q5_K;
    const uint8_t *bytes = head + (id == BLOCK_MXFP4 ? 0 : two_halfs ? 64 : 32) + c0;
    vec_f32 truncation = vf_set1(TRUNCATION);
    vec_f32 d = id == BLOCK_MXFP4 ? exponent_scales(bytes) : vf_from_f16(head + 2 * c0);
    vec_f32 min = two_halfs ? vf_mul(vf_from_f16(head + 32 + 2 * c0), truncation) : vf_set1(0);
    d = vf_mul(d, truncation);
    vec_f32 origin = vf_set1((codes_are_wide(id) ? 32768.0f : 128.0f) + code_offset(id));
    struct unit_scales s;
    for (int h = 0; h < 2; h++) {
        vec_f32 scale = d, negative_zero = min;
        if (id == BLOCK_Q4_K || id == BLOCK_Q5_K) {
            scale = byte_scales(d, bytes + 16 * u, false);
            negative_zero = vf_mul(byte_scales(min, bytes + 16 * (8 + u), false), vf_set1(-1));
        } else if (id == BLOCK_Q2_K) {
            vec_i32 both = vi_from_u8(bytes + 16 * (2 * u + h));
            scale = vf_mul(d, vf_from_i32(vi_and(both, vi_set1(15))));
            negative_zero = vf_mul(vf_mul(min, vf_from_i32(vi_shr(both, 4))), vf_set1(-1));
        } else if (id == BLOCK_Q3_K || id == BLOCK_Q6_K) {
            scale = byte_scales(d, bytes + 16 * (2 * u + h), true);
        } else if (id == BLOCK_IQ4_XS) {
            scale = byte_scales(d, bytes + 16 * u, true);
        }
        s.scale[h] = scale;
        s.base[h] = vf_fnma(scale, origin, negative_zero);
    }
    return s;
}

/* Bytes of vector g (k = 4g .. 4g+3) of a unit from its planes, biased to be unsigned. */
AMX_INLINE vec_i32 load_codes(const uint8_t *planes, int g, int c0, int bits, uint32_t id)
{
    static const uint8_t iq4_biased[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                           129, 141, 153, 166, 181, 197, 217, 241};
    static const uint8_t mxfp4_biased[16] = {16, 17, 18, 19, 20, 22, 24, 28,
                                             16, 15, 14, 13, 12, 10, 8,  4};
    planes += 4 * c0;
    if (bits == 8)
        return vi_xor(vi_load(planes + g * VECTOR_BYTES), vi_set1(0x80808080));
    vec_i32 codes = vi_set1(0);
    int shift = 0; /* bits gathered so far */
    if (bits >= 4) {
        vec_i32 plane = vi_load(planes + g % 4 * VECTOR_BYTES);
        codes = vi_and(g < 4 ? plane : vi_shr(plane, 4), vi_set1(0x0f0f0f0f));
        planes += 4 * VECTOR_BYTES;
        shift = 4;
    }
    if (bits - shift >= 2) {
        vec_i32 plane = vi_load(planes + g / 4 * VECTOR_BYTES);
        int move = 2 * (g % 4) - shift;
        plane = move >= 0 ? vi_shr(plane, move) : vi_shl(plane, -move);
        codes = vi_and_or(plane, vi_set1(0x03030303u << shift), codes);
        planes += 2 * VECTOR_BYTES;
        shift += 2;
    }
    if (bits - shift == 1) {
        vec_i32 plane = vi_load(planes);
        int move = g - shift;
        plane = move >= 0 ? vi_shr(plane, move) : vi_shl(plane, -move);
        codes = vi_and_or(plane, vi_set1(0x01010101u << shift), codes);
    }
    if (id == BLOCK_IQ4_NL || id == BLOCK_IQ4_XS)
        return vi_lookup(iq4_biased, codes);
    return id == BLOCK_MXFP4 ? vi_lookup(mxfp4_biased, codes) : codes;
}

/* Byte j of each lane as a float: 128 + byte (below 128) or 32768 + byte. */
AMX_INLINE vec_f32 byte_float(vec_i32 codes, int j, bool wide)
{
    return vf_of_bits(wide ? vi_place_byte(0x47000000, 1, codes, j)
                           : vi_place_byte(0x43000000, 2, codes, j));
}

/* A tile that is being filled, from `weights` in their packed form. */
struct open_tile {
    uint8_t *tile;
    const uint8_t *weights;
    struct unit_scales scales[PANEL_COLUMNS / AMX_LANES]; /* of codes */
    bool low;                                             /* of floats: what bf16 leave of them */
};

/* Tiles are filled in quarters, four rows each. */
enum { QUARTERS = 4, QUARTER_BYTES = TILE_BYTES / QUARTERS };

AMX_INLINE void dequantize_quarter(const struct open_tile *t, int quarter, int bits, uint32_t id)
{
    const bool wide = codes_are_wide(id);
    uint8_t *row = t->tile + QUARTER_BYTES * quarter;
    for (int c0 = 0; c0 < PANEL_COLUMNS; c0 += AMX_LANES) {
        const struct unit_scales *s = &t->scales[c0 / AMX_LANES];
        for (int i = 0; i < 2; i++) {
            vec_i32 codes = load_codes(t->weights, 2 * quarter + i, c0, bits, id);
            vec_f32 w[4];
            for (int j = 0; j < 4; j++)
                w[j] = vf_fma(s->scale[quarter / 2], byte_float(codes, j, wide),
                              s->base[quarter / 2]);
            for (int pair = 0; pair < 2; pair++)
                vi_store(row + TILE_ROW_BYTES * (2 * i + pair) + 4 * c0,
                         vi_upper_words(vf_bits(w[2 * pair]), vf_bits(w[2 * pair + 1])));
        }
    }
}

#endif
