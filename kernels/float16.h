/* Conversions between float and the 16-bit formats, exact and without intrinsics.
 *
 * f16 is IEEE 754 binary16; bf16 is the upper half of a binary32. Narrowing rounds to nearest even;
 * NaN stays NaN (quieted), values past the largest become infinity.
 */
#ifndef TESSERA_FLOAT16_H
#define TESSERA_FLOAT16_H

#include <stdint.h>
#include <string.h>

static inline uint32_t f32_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float f32_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
    if (magnitude < 0x0400) /* zero and subnormals: multiples of 2^-24 */
        return f32_from_bits(sign | f32_bits((float)magnitude * 0x1p-24f));
    /* Re-bias the exponent by 127 - 15, and once more to take 31 (inf, NaN) to 255. */
    uint32_t bias = magnitude < 0x7c00 ? 112u << 23 : 224u << 23;
    return f32_from_bits(sign | ((magnitude << 13) + bias));
}

static inline uint16_t f32_to_f16(float x)
{
    uint32_t bits = f32_bits(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x03ff));
    if (magnitude >= 0x47800000) /* 2^16 and above */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000) {
        /* Below 2^-14 the result is a multiple of 2^-24, the last place of 0.5: adding 0.5 makes
         * the hardware round there. */
        uint32_t rounded = f32_bits(f32_from_bits(magnitude) + 0.5f) - f32_bits(0.5f);
        return (uint16_t)(sign | rounded);
    }
    uint32_t rounded = magnitude + 0x0fff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (rounded - (112u << 23)) >> 13);
}

static inline float bf16_to_f32(uint16_t h)
{
    return f32_from_bits((uint32_t)h << 16);
}

static inline uint16_t f32_to_bf16(float x)
{
    uint32_t bits = f32_bits(x);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x0040);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
