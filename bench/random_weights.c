#include "bench/random_weights.h"

#include <math.h>
#include <stdbool.h>

#include "kernels/float16.h"
#include "kernels/scalar/blocks.h"

uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* Codes and sub-block scales are random bytes; then x = scale * unit on average, where `unit` is
 * the deviation of (sub-block scale times code), and `min` moves the mean to zero. */
static const struct {
    uint32_t id;
    int scale, min; /* offsets in the block; -1: none */
    float unit, center;
} block_fields[] = {
    {BLOCK_Q4_0, offsetof(struct block_q4_0, scale), -1, 4.6f, 0},
    {BLOCK_Q4_1, offsetof(struct block_q4_1, scale), offsetof(struct block_q4_1, min), 4.6f, -7.5f},
    {BLOCK_Q5_0, offsetof(struct block_q5_0, scale), -1, 9.2f, 0},
    {BLOCK_Q5_1, offsetof(struct block_q5_1, scale), offsetof(struct block_q5_1, min), 9.2f,
     -15.5f},
    {BLOCK_Q8_0, offsetof(struct block_q8_0, scale), -1, 74, 0},
    {BLOCK_Q2_K, offsetof(struct block_q2_k, scale), offsetof(struct block_q2_k, min), 14, 1.5f},
    {BLOCK_Q3_K, offsetof(struct block_q3_k, scale), -1, 42, 0},
    {BLOCK_Q4_K, offsetof(struct block_q4_k, scale), offsetof(struct block_q4_k, min), 260, 7.5f},
    {BLOCK_Q5_K, offsetof(struct block_q5_k, scale), offsetof(struct block_q5_k, min), 530, 15.5f},
    {BLOCK_Q6_K, offsetof(struct block_q6_k, scale), -1, 1370, 0},
    {BLOCK_IQ4_NL, offsetof(struct block_iq4_nl, scale), -1, 69, 0},
    {BLOCK_IQ4_XS, offsetof(struct block_iq4_xs, scale), -1, 1280, 0},
};

/* Uniform over +-sigma * sqrt(3), whose deviation is sigma. */
static float random_float(float sigma, uint64_t *state)
{
    float unit = (float)(random_next(state) >> 40) * 0x1p-23f - 1;
    return unit * sigma * 1.7320508f;
}

static void random_floats(uint32_t id, unsigned char *out, size_t n_bytes, float sigma,
                          uint64_t *state)
{
    size_t size = id == BLOCK_F32 ? 4 : 2;
    for (size_t i = 0; i + size <= n_bytes; i += size) {
        float x = random_float(sigma, state);
        uint16_t half = id == BLOCK_F16 ? f32_to_f16(x) : f32_to_bf16(x);
        memcpy(out + i, id == BLOCK_F32 ? (void *)&x : (void *)&half, size);
    }
}

static void random_bytes(unsigned char *out, size_t n_bytes, uint64_t *state)
{
    size_t i = 0;
    for (; i + sizeof *state <= n_bytes; i += sizeof *state) {
        uint64_t bits = random_next(state);
        memcpy(out + i, &bits, sizeof bits);
    }
    uint64_t bits = random_next(state);
    memcpy(out + i, &bits, n_bytes - i);
}

/* Codes without a minimum are not quite centered (-8 to 7): with one sign for all scales, all sums
 * over a row would share an offset that grows from layer to layer, until every token goes the same
 * way. The sign is one of the random bits that were there. */
static void put_scale(unsigned char *out, uint16_t scale, bool any_sign)
{
    if (any_sign)
        scale |= (uint16_t)((out[1] & 0x80) << 8);
    memcpy(out, &scale, sizeof scale);
}

void random_weights(const struct block_type *type, void *blocks, size_t n_bytes, float sigma,
                    uint64_t *state)
{
    unsigned char *out = blocks, *end = out + n_bytes;
    if (type->id == BLOCK_F32 || type->id == BLOCK_F16 || type->id == BLOCK_BF16) {
        random_floats(type->id, out, n_bytes, sigma, state);
        return;
    }
    random_bytes(out, n_bytes, state);
    if (type->id == BLOCK_MXFP4) {
        uint8_t exponent = (uint8_t)(128 + lrintf(log2f(sigma / 5.4f)));
        for (; out < end; out += type->n_bytes)
            out[offsetof(struct block_mxfp4, exponent)] = exponent;
        return;
    }
    for (size_t t = 0; t < sizeof block_fields / sizeof block_fields[0]; t++) {
        if (block_fields[t].id != type->id)
            continue;
        uint16_t scale = f32_to_f16(sigma / block_fields[t].unit);
        uint16_t min = f32_to_f16(f16_to_f32(scale) * block_fields[t].center);
        for (; out < end; out += type->n_bytes) {
            put_scale(out + block_fields[t].scale, scale, block_fields[t].min < 0);
            if (block_fields[t].min >= 0)
                memcpy(out + block_fields[t].min, &min, sizeof min);
        }
    }
}
