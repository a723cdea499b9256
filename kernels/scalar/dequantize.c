/* Scalar reference de-quantization. The formulas stand beside the structs in blocks.h; products are
 * formed in the order written there, so that results agree with ggml's to the last bit. */
#include "kernels/scalar/dequantize.h"

#include "kernels/float16.h"
#include "kernels/scalar/blocks.h"

void dequantize_f32(const void *blocks, float *out, size_t n)
{
    memcpy(out, blocks, n * sizeof(float));
}

static uint16_t load_u16(const void *from)
{
    uint16_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

void dequantize_f16(const void *blocks, float *out, size_t n)
{
    const char *in = blocks;
    for (size_t i = 0; i < n; i++)
        out[i] = f16_to_f32(load_u16(in + 2 * i));
}

void dequantize_bf16(const void *blocks, float *out, size_t n)
{
    const char *in = blocks;
    for (size_t i = 0; i < n; i++)
        out[i] = bf16_to_f32(load_u16(in + 2 * i));
}

void dequantize_q4_0(const void *blocks, float *out, size_t n)
{
    const struct block_q4_0 *block = blocks;
    for (; n; n -= BLOCK_ELEMS, out += BLOCK_ELEMS, block++) {
        float d = f16_to_f32(block->scale);
        for (int j = 0; j < 16; j++) {
            out[j] = (float)((block->quants[j] & 15) - 8) * d;
            out[j + 16] = (float)((block->quants[j] >> 4) - 8) * d;
        }
    }
}

void dequantize_q4_1(const void *blocks, float *out, size_t n)
{
    const struct block_q4_1 *block = blocks;
    for (; n; n -= BLOCK_ELEMS, out += BLOCK_ELEMS, block++) {
        float d = f16_to_f32(block->scale), m = f16_to_f32(block->min);
        for (int j = 0; j < 16; j++) {
            out[j] = (float)(block->quants[j] & 15) * d + m;
            out[j + 16] = (float)(block->quants[j] >> 4) * d + m;
        }
    }
}

/* Code i (0..31) of a block of 5-bit codes. */
static int q5_code(const uint8_t high[4], const uint8_t quants[16], int i)
{
    int low = i < 16 ? quants[i] & 15 : quants[i - 16] >> 4;
    return low | (high[i / 8] >> (i % 8) & 1) << 4;
}

void dequantize_q5_0(const void *blocks, float *out, size_t n)
{
    const struct block_q5_0 *block = blocks;
    for (; n; n -= BLOCK_ELEMS, out += BLOCK_ELEMS, block++) {
        float d = f16_to_f32(block->scale);
        for (int i = 0; i < BLOCK_ELEMS; i++)
            out[i] = (float)(q5_code(block->high, block->quants, i) - 16) * d;
    }
}

void dequantize_q5_1(const void *blocks, float *out, size_t n)
{
    const struct block_q5_1 *block = blocks;
    for (; n; n -= BLOCK_ELEMS, out += BLOCK_ELEMS, block++) {
        float d = f16_to_f32(block->scale), m = f16_to_f32(block->min);
        for (int i = 0; i < BLOCK_ELEMS; i++)
            out[i] = (float)q5_code(block->high, block->quants, i) * d + m;
    }
}

void dequantize_q8_0(const void *blocks, float *out, size_t n)
{
    const struct block_q8_0 *block = blocks;
    for (; n; n -= BLOCK_ELEMS, out += BLOCK_ELEMS, block++) {
        float d = f16_to_f32(block->scale);
        for (int i = 0; i < BLOCK_ELEMS; i++)
            out[i] = (float)block->quants[i] * d;
    }
}

/* The two bits of code i (0..255) in the 64 bytes of Q2_K and Q3_K. */
static int two_bits(const uint8_t quants[64], int i)
{
    return quants[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

void dequantize_q2_k(const void *blocks, float *out, size_t n)
{
    const struct block_q2_k *block = blocks;
    for (; n; n -= SUPER_BLOCK_ELEMS, out += SUPER_BLOCK_ELEMS, block++) {
        float d = f16_to_f32(block->scale), dmin = f16_to_f32(block->min);
        for (int i = 0; i < SUPER_BLOCK_ELEMS; i++) {
            uint8_t s = block->scales[i / 16];
            out[i] = d * (float)(s & 15) * (float)two_bits(block->quants, i) -
                     dmin * (float)(s >> 4);
        }
    }
}

void dequantize_q3_k(const void *blocks, float *out, size_t n)
{
    const struct block_q3_k *block = blocks;
    for (; n; n -= SUPER_BLOCK_ELEMS, out += SUPER_BLOCK_ELEMS, block++) {
        float d = f16_to_f32(block->scale);
        for (int i = 0; i < SUPER_BLOCK_ELEMS; i++) {
            int high = block->high[i % 32] >> (i / 32) & 1;
            int q = (two_bits(block->quants, i) | high << 2) - 4;
            out[i] = d * (float)q3_k_scale(block->scales, i / 16) * (float)q;
        }
    }
}

void dequantize_q4_k(const void *blocks, float *out, size_t n)
{
    const struct block_q4_k *block = blocks;
    for (; n; n -= SUPER_BLOCK_ELEMS, out += SUPER_BLOCK_ELEMS, block++) {
        float d = f16_to_f32(block->scale), dmin = f16_to_f32(block->min);
        for (int s = 0; s < 8; s++) {
            float scale = d * (float)k4_scale(block->scales, s);
            float min = dmin * (float)k4_min(block->scales, s);
            const uint8_t *quants = block->quants + s / 2 * 32;
            for (int j = 0; j < 32; j++)
                out[s * 32 + j] = scale * (float)(quants[j] >> (s % 2 * 4) & 15) - min;
        }
    }
}

void dequantize_q5_k(const void *blocks, float *out, size_t n)
{
    const struct block_q5_k *block = blocks;
    for (; n; n -= SUPER_BLOCK_ELEMS, out += SUPER_BLOCK_ELEMS, block++) {
        float d = f16_to_f32(block->scale), dmin = f16_to_f32(block->min);
        for (int s = 0; s < 8; s++) {
            float scale = d * (float)k4_scale(block->scales, s);
            float min = dmin * (float)k4_min(block->scales, s);
            const uint8_t *quants = block->quants + s / 2 * 32;
            for (int j = 0; j < 32; j++) {
                int q = (quants[j] >> (s % 2 * 4) & 15) | (block->high[j] >> s & 1) << 4;
                out[s * 32 + j] = scale * (float)q - min;
            }
        }
    }
}

void dequantize_q6_k(const void *blocks, float *out, size_t n)
{
    const struct block_q6_k *block = blocks;
    for (; n; n -= SUPER_BLOCK_ELEMS, out += SUPER_BLOCK_ELEMS, block++) {
        float d = f16_to_f32(block->scale);
        for (int i = 0; i < SUPER_BLOCK_ELEMS; i++) {
            int half = i / 128, l = i % 32, group = i % 128 / 32;
            int low = block->low[half * 64 + group % 2 * 32 + l] >> (group / 2 * 4) & 15;
            int high = block->high[half * 32 + l] >> (group * 2) & 3;
            out[i] = d * (float)block->scales[i / 16] * (float)((low | high << 4) - 32);
        }
    }
}

void dequantize_iq4_nl(const void *blocks, float *out, size_t n)
{
    const struct block_iq4_nl *block = blocks;
    for (; n; n -= BLOCK_ELEMS, out += BLOCK_ELEMS, block++) {
        float d = f16_to_f32(block->scale);
        for (int j = 0; j < 16; j++) {
            out[j] = d * (float)iq4_values[block->quants[j] & 15];
            out[j + 16] = d * (float)iq4_values[block->quants[j] >> 4];
        }
    }
}

void dequantize_iq4_xs(const void *blocks, float *out, size_t n)
{
    const struct block_iq4_xs *block = blocks;
    for (; n; n -= SUPER_BLOCK_ELEMS, out += SUPER_BLOCK_ELEMS, block++) {
        float d = f16_to_f32(block->scale);
        for (int s = 0; s < 8; s++) {
            float scale = d * (float)iq4_xs_scale(block, s);
            const uint8_t *quants = block->quants + s * 16;
            for (int j = 0; j < 16; j++) {
                out[s * 32 + j] = scale * (float)iq4_values[quants[j] & 15];
                out[s * 32 + 16 + j] = scale * (float)iq4_values[quants[j] >> 4];
            }
        }
    }
}

void dequantize_mxfp4(const void *blocks, float *out, size_t n)
{
    const struct block_mxfp4 *block = blocks;
    for (; n; n -= BLOCK_ELEMS, out += BLOCK_ELEMS, block++) {
        float d = mxfp4_scale(block->exponent);
        for (int j = 0; j < 16; j++) {
            out[j] = (float)mxfp4_values[block->quants[j] & 15] * d;
            out[j + 16] = (float)mxfp4_values[block->quants[j] >> 4] * d;
        }
    }
}
