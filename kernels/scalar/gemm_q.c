/* Products of packed codes and activations of 8 bits: the reference. Integer dot products within
 * the ranges that share a scale, floats between them. */
#include <math.h>
#include <string.h>

#include "kernels/registry.h"
#include "kernels/unit.h"

enum { HALF_K = 16 };

static int read_code(const struct panel_format *format, const uint8_t *planes, int column, int k)
{
    int bits = format->bits, vector = k / 4, at = 4 * column + k % 4, code = 0, shift = 0;
    if (bits == 8)
        return (int8_t)planes[vector * VECTOR_BYTES + at];
    if (bits >= 4) {
        code = planes[vector % 4 * VECTOR_BYTES + at] >> (vector / 4 * 4) & 15;
        planes += 4 * VECTOR_BYTES;
        shift = 4;
    }
    if (bits - shift >= 2) {
        code |= (planes[vector / 4 * VECTOR_BYTES + at] >> (vector % 4 * 2) & 3) << shift;
        planes += 2 * VECTOR_BYTES;
        shift += 2;
    }
    if (bits - shift == 1)
        code |= (planes[at] >> vector & 1) << shift;
    return code;
}

static float read_half(const uint8_t *head, int index, int column)
{
    uint16_t half;
    memcpy(&half, head + 32 * index + 2 * column, sizeof half);
    return f16_to_f32(half);
}

/* Scale and zero of half `h` of unit `u` of a file block: weight = scale * value - zero. */
static void read_scale(const struct panel_format *format, const uint8_t *head, int column, int u,
                       int h, float *scale, float *zero)
{
    const uint8_t *bytes = head + 32 * format->n_half + column;
    float d = format->n_half > 0 ? read_half(head, 0, column) : 0.0f;
    float min = format->n_half > 1 ? read_half(head, 1, column) : 0.0f;
    *zero = 0.0f;
    *scale = d;
    switch (format->block_id) {
    case BLOCK_Q4_1:
    case BLOCK_Q5_1:
        *zero = -min;
        break;
    case BLOCK_Q4_K:
    case BLOCK_Q5_K:
        *scale = d * (float)bytes[16 * u];
        *zero = min * (float)bytes[16 * (8 + u)];
        break;
    case BLOCK_Q2_K:
        *scale = d * (float)(bytes[16 * (2 * u + h)] & 15);
        *zero = min * (float)(bytes[16 * (2 * u + h)] >> 4);
        break;
    case BLOCK_Q3_K:
    case BLOCK_Q6_K:
        *scale = d * (float)(int8_t)bytes[16 * (2 * u + h)];
        break;
    case BLOCK_IQ4_XS:
        *scale = d * (float)(int8_t)bytes[16 * u];
        break;
    case BLOCK_MXFP4:
        *scale = mxfp4_scale(bytes[0]);
        break;
    default:
        break;
    }
}

/* One column of one unit against one row: x [32] with its scale. */
static float dot_unit(const struct panel_format *format, const uint8_t *planes, const uint8_t *head,
                      int column, int u, const int8_t *x, float x_scale)
{
    const int8_t *table = unit_table(format->block_id);
    float total = 0.0f;
    for (int h = 0; h < 2; h++) {
        int dot = 0, sum = 0;
        for (int k = h * HALF_K; k < (h + 1) * HALF_K; k++) {
            int code = read_code(format, planes, column, k);
            int value = table ? table[code] : code - unit_offset(format->block_id);
            dot += value * x[k];
            sum += x[k];
        }
        float scale, zero;
        read_scale(format, head, column, u, h, &scale, &zero);
        total += x_scale * (scale * (float)dot - zero * (float)sum);
    }
    return total;
}

static void gemm(const struct gemm_args *g, uint32_t block_id)
{
    const struct panel_format *format = panel_format_find(block_id);
    int units_in_block = format->block_k / UNIT_K;
    for (int j = g->n0; j < g->n1; j++) {
        const uint8_t *panel =
            (const uint8_t *)g->w + (size_t)(j / PANEL_COLUMNS) * panel_bytes(format, g->k);
        const uint8_t *heads = panel + panel_codes_bytes(format, g->k);
        for (int i = 0; i < g->m; i++) {
            const int8_t *x = (const int8_t *)g->a + (size_t)i * g->a_stride;
            const float *x_scale = (const float *)(x + act_q8_scale_offset((size_t)g->k));
            float sum = 0.0f;
            for (int u = 0; u < g->k / UNIT_K; u++)
                sum += dot_unit(format, panel + (size_t)u * (size_t)format->unit_bytes,
                                heads + (size_t)(u / units_in_block) * (size_t)format->head_bytes,
                                j % PANEL_COLUMNS, u % units_in_block, x + u * UNIT_K, x_scale[u]);
            g->c[(size_t)i * g->ldc + (size_t)(j - g->n0)] = sum;
        }
    }
}

/* ---- ACT_Q8 ---- */

static void quantize_block(const float *x, int8_t *q, float *scale, int half_sum[2])
{
    float max = 0.0f;
    for (int i = 0; i < 32; i++)
        max = fabsf(x[i]) > max ? fabsf(x[i]) : max; /* NaN never is */
    /* An infinite maximum would make NaN of everything; the largest float keeps it finite. */
    max = max > 3.4028235e38f ? 3.4028235e38f : max;
    float inverse = max > 1e-30f ? 127.0f / max : 0.0f;
    half_sum[0] = half_sum[1] = 0;
    for (int i = 0; i < 32; i++) {
        float value = x[i] * inverse;
        int rounded = value >= 127.0f ? 127 : value <= -127.0f ? -127 : (int)rintf(value);
        q[i] = (int8_t)(value == value ? rounded : 0);
        half_sum[i / 16] += q[i];
    }
    *scale = inverse > 0.0f ? max / 127.0f : 0.0f;
}

static void quantize_rows(const struct quantize_args *args)
{
    quantize_q8_rows(args, quantize_block, NULL);
}

/* ---- Records ---- */

static size_t scratch_bytes(int k)
{
    return 0;
}

#define DEFINE_KERNEL(type)                                                                        \
    static size_t packed_bytes_##type(int n, int k)                                                \
    {                                                                                              \
        return panel_packed_bytes(panel_format_find(BLOCK_##type), n, k);                          \
    }                                                                                              \
    static void pack_##type(void *packed, const void *rows, int n, int k, int n0, int n1)          \
    {                                                                                              \
        panel_pack(panel_format_find(BLOCK_##type), packed, rows, n, k, n0, n1);                   \
    }                                                                                              \
    static void unpack_##type(void *rows, const void *packed, int n, int k, int n0, int n1)        \
    {                                                                                              \
        panel_unpack(panel_format_find(BLOCK_##type), rows, packed, n, k, n0, n1);                 \
    }                                                                                              \
    static void gemm_##type(const struct gemm_args *args)                                          \
    {                                                                                              \
        gemm(args, BLOCK_##type);                                                                  \
    }
PACKED_CODE_TYPES(DEFINE_KERNEL)

#define RECORD(type)                                                                               \
    {.name = "scalar " #type,                                                                      \
     .block_id = BLOCK_##type,                                                                     \
     .act_format = ACT_Q8,                                                                         \
     .mr = 1,                                                                                      \
     .nr = PANEL_COLUMNS,                                                                          \
     .kr = 4,                                                                                      \
     .packed_bytes = packed_bytes_##type,                                                          \
     .pack = pack_##type,                                                                          \
     .unpack = unpack_##type,                                                                      \
     .quantize_rows = quantize_rows,                                                               \
     .scratch_bytes = scratch_bytes,                                                               \
     .gemm = gemm_##type},

const struct gemm_kernel *scalar_q_kernels(size_t *count)
{
    static const struct gemm_kernel kernels[] = {PACKED_CODE_TYPES(RECORD)};
    *count = sizeof kernels / sizeof kernels[0];
    return kernels;
}
