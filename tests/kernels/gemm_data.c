#include "tests/kernels/gemm_data.h"

#include <math.h>
#include <string.h>

#include "kernels/float16.h"
#include "kernels/layout.h"
#include "kernels/scalar/blocks.h"
#include "kernels/unit.h"
#include "bench/random_weights.h"

const char *const weights_names[WEIGHTS_KINDS] = {"random", "bits",     "zero", "extreme",
                                                  "tiny",   "negative", "exact"};
const char *const acts_names[ACTS_KINDS] = {"random",    "outliers", "zero",
                                            "saturated", "tiny",     "exact"};

enum { MAX_BLOCK_BYTES = 256, F16_ONE = 0x3c00, F16_SIGN = 0x8000, F16_MANTISSA = 0x03ff };

/* Where the fields of a block are, in bytes: -1 for none. */
struct fields {
    uint32_t id;
    int scale, min;
    int codes, codes_end;
};

#define AT(type, field) (int)offsetof(struct block_##type, field)
static const struct fields block_fields[] = {
    {BLOCK_Q4_0, AT(q4_0, scale), -1, AT(q4_0, quants), 18},
    {BLOCK_Q4_1, AT(q4_1, scale), AT(q4_1, min), AT(q4_1, quants), 20},
    {BLOCK_Q5_0, AT(q5_0, scale), -1, AT(q5_0, high), 22},
    {BLOCK_Q5_1, AT(q5_1, scale), AT(q5_1, min), AT(q5_1, high), 24},
    {BLOCK_Q8_0, AT(q8_0, scale), -1, AT(q8_0, quants), 34},
    {BLOCK_Q2_K, AT(q2_k, scale), AT(q2_k, min), AT(q2_k, quants), AT(q2_k, scale)},
    {BLOCK_Q3_K, AT(q3_k, scale), -1, AT(q3_k, high), AT(q3_k, scales)},
    {BLOCK_Q4_K, AT(q4_k, scale), AT(q4_k, min), AT(q4_k, quants), 144},
    {BLOCK_Q5_K, AT(q5_k, scale), AT(q5_k, min), AT(q5_k, high), 176},
    {BLOCK_Q6_K, AT(q6_k, scale), -1, AT(q6_k, low), AT(q6_k, scales)},
    {BLOCK_IQ4_NL, AT(iq4_nl, scale), -1, AT(iq4_nl, quants), 18},
    {BLOCK_IQ4_XS, AT(iq4_xs, scale), -1, AT(iq4_xs, quants), 136},
    {BLOCK_MXFP4, -1, -1, AT(mxfp4, quants), 17},
};

/* NULL for floats. */
static const struct fields *fields_of(uint32_t id)
{
    for (size_t i = 0; i < sizeof block_fields / sizeof block_fields[0]; i++)
        if (block_fields[i].id == id)
            return &block_fields[i];
    return NULL;
}

/* ---- Weights that are floats ----------------------------------------------------------------- */

static float random_unit(uint64_t *seed)
{
    return (float)(random_next(seed) >> 40) * 0x1p-23f - 1.0f;
}

static float float_weight(enum weights_kind kind, uint32_t id, uint64_t *seed)
{
    uint64_t bits = random_next(seed);
    float unit = random_unit(seed), sign = bits & 1 ? 1.0f : -1.0f;
    switch (kind) {
    case WEIGHTS_BITS:
        return ldexpf(unit, (int)(bits >> 8 & 31) - 24);
    case WEIGHTS_ZERO:
        return bits & 1 ? 0.0f : -0.0f;
    case WEIGHTS_EXTREME:
        return sign * 65504.0f;
    case WEIGHTS_TINY:
        return unit * (id == BLOCK_F16 ? 0x1p-14f : 0x1p-126f);
    case WEIGHTS_NEGATIVE:
        return -fabsf(unit);
    case WEIGHTS_EXACT:
        return (float)(bits >> 8 & 127) * sign;
    default:
        return unit;
    }
}

static void fill_floats(enum weights_kind kind, uint32_t id, void *out, size_t n_bytes,
                        uint64_t *seed)
{
    size_t size = block_type_find(id)->n_bytes;
    for (size_t i = 0; i < n_bytes; i += size) {
        float x = float_weight(kind, id, seed);
        uint16_t half = id == BLOCK_F16 ? f32_to_f16(x) : f32_to_bf16(x);
        memcpy((char *)out + i, id == BLOCK_F32 ? (void *)&x : (void *)&half, size);
    }
}

/* ---- Weights in blocks ----------------------------------------------------------------------- */

static uint16_t random_half(enum weights_kind kind, uint64_t *seed)
{
    uint16_t bits = (uint16_t)random_next(seed);
    switch (kind) {
    case WEIGHTS_BITS: /* the largest exponent would be infinity and NaN */
        return (bits & 0x7c00) == 0x7c00 ? bits & ~0x0400 : bits;
    case WEIGHTS_TINY:
        return bits & (F16_SIGN | F16_MANTISSA);
    case WEIGHTS_NEGATIVE:
        return f32_to_f16(-1e-3f * (1.0f + fabsf(random_unit(seed))));
    default:
        return F16_ONE;
    }
}

static void set_scales(enum weights_kind kind, const struct fields *fields, uint8_t *block,
                       uint64_t *seed)
{
    uint16_t scale = random_half(kind, seed), min = random_half(kind, seed);
    if (fields->scale >= 0)
        memcpy(block + fields->scale, &scale, sizeof scale);
    if (fields->min >= 0)
        memcpy(block + fields->min, &min, sizeof min);
    if (fields->id == BLOCK_MXFP4) {
        uint8_t any = (uint8_t)(100 + random_next(seed) % 50), tiny = (uint8_t)(scale % 3);
        block[offsetof(struct block_mxfp4, exponent)] = kind == WEIGHTS_BITS   ? any
                                                        : kind == WEIGHTS_TINY ? tiny
                                                                               : 128; /* 1 */
    }
}

void fill_weights(enum weights_kind kind, const struct block_type *type, void *blocks,
                  size_t n_bytes, uint64_t *seed)
{
    static const int extremes[] = {0x00, 0xff, 0x80, 0x7f};
    const struct fields *fields = fields_of(type->id);
    if (!fields) {
        fill_floats(kind, type->id, blocks, n_bytes, seed);
        return;
    }
    random_weights(type, blocks, n_bytes, 1.0f, seed);
    if (kind == WEIGHTS_ZERO)
        memset(blocks, 0, n_bytes);
    if (kind == WEIGHTS_ZERO || kind == WEIGHTS_RANDOM)
        return;
    for (size_t at = 0; at < n_bytes; at += type->n_bytes) {
        uint8_t *block = (uint8_t *)blocks + at;
        if (kind == WEIGHTS_EXTREME)
            memset(block, extremes[random_next(seed) % 4], type->n_bytes);
        set_scales(kind, fields, block, seed);
    }
}

/* Steps from the least code's value to the largest's. */
static int code_steps(uint32_t id)
{
    const int8_t *table = unit_table(id);
    int least = 0, largest = 0;
    for (int i = 0; table && i < 16; i++) {
        least = table[i] < least ? table[i] : least;
        largest = table[i] > largest ? table[i] : largest;
    }
    return table ? largest - least : (1 << panel_format_find(id)->bits) - 1;
}

/* Bytes of codes of which some are the least and some the largest, of 1 to 8 bits and of tables. */
static const int extreme_codes[] = {0x00, 0xff, 0x77, 0x80, 0x7f};

void weight_ranges(const struct block_type *type, const void *block, struct weight_range *ranges)
{
    const struct fields *fields = fields_of(type->id);
    uint8_t changed[MAX_BLOCK_BYTES];
    float w[MAX_BLOCK_K], least[MAX_BLOCK_K], most[MAX_BLOCK_K];
    type->dequantize(block, least, type->n_elems);
    memcpy(most, least, sizeof most);
    memcpy(changed, block, type->n_bytes);
    for (size_t c = 0; fields && c < sizeof extreme_codes / sizeof extreme_codes[0]; c++) {
        memset(changed + fields->codes, extreme_codes[c],
               (size_t)(fields->codes_end - fields->codes));
        type->dequantize(changed, w, type->n_elems);
        for (size_t i = 0; i < type->n_elems; i++) {
            least[i] = fminf(least[i], w[i]);
            most[i] = fmaxf(most[i], w[i]);
        }
    }
    for (size_t i = 0; i < type->n_elems; i++) {
        float spread = most[i] - least[i];
        ranges[i] = (struct weight_range){
            .step = fields ? spread / (float)code_steps(type->id) : 0.0f,
            .spread = spread,
            .largest = fmaxf(fabsf(least[i]), fabsf(most[i])),
        };
    }
}

/* ---- Activations ----------------------------------------------------------------------------- */

void fill_acts(enum acts_kind kind, float *x, int m, int k, uint64_t *seed)
{
    for (int i = 0; i < m * k; i++) {
        uint64_t bits = random_next(seed);
        float unit = random_unit(seed), sign = bits & 1 ? 1.0f : -1.0f;
        int row = i / k, column = i % k;
        switch (kind) {
        case ACTS_OUTLIERS:
            x[i] = bits % 64 ? unit : 1e4f * unit;
            break;
        case ACTS_ZERO:
            x[i] = 0.0f * sign;
            break;
        case ACTS_SATURATED:
            x[i] = 3.0f * (row % 3 == 0 ? 1.0f : row % 3 == 1 ? -1.0f : sign);
            break;
        case ACTS_TINY:
            x[i] = unit * powf(10.0f, -42.0f + (float)(bits >> 8 & 15));
            break;
        case ACTS_EXACT:
            x[i] = column % 32 == row % 32 ? 127.0f * sign : (float)((int)(bits >> 8) & 1) * sign;
            break;
        default:
            x[i] = unit;
            break;
        }
    }
}

void quantize_whole_rows(const struct gemm_kernel *kernel, void *a, size_t a_stride, const float *x,
                         size_t ldx, int m, int k)
{
    struct quantize_args args = {.a = a,
                                 .a_stride = a_stride,
                                 .x = x,
                                 .ldx = ldx,
                                 .m = m,
                                 .k = k,
                                 .k1 = k,
                                 .parts = ACT_BOTH};
    kernel->quantize_rows(&args);
}
