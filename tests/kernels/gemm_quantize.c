/* Rows of activations: what every instruction set makes of any floats. */
#include <math.h>
#include <string.h>

#include "kernels/float16.h"
#include "tests/kernels/gemm_check.h"
#include "tests/kernels/gemm_data.h"
#include "tests/support/guard.h"
#include "bench/random_weights.h"

enum { ROWS = 40, BLOCK = 32, GAP_FLOATS = 5, GAP_BYTES = 64, UNTOUCHED = 0x5a };

static float any_float(uint64_t bits)
{
    return f32_from_bits((uint32_t)bits);
}

/* Each kind of block has a fault of its own to find. */
static void fill_block(float *x, int kind, uint64_t *seed)
{
    static const float limits[] = {1e-30f,  0x1.448ea0p-100f, 0x1.448ea2p-100f, 0x1p-149f,
                                   0x1p-126f, 3.4028235e38f,    8.5e37f,          INFINITY};
    float limit = limits[random_next(seed) % 8];
    for (int i = 0; i < BLOCK; i++) {
        uint64_t bits = random_next(seed);
        uint32_t any_nan = 0x7f800001 + (uint32_t)(bits >> 32) % 0x7fffff;
        float unit = (float)(bits >> 40) * 0x1p-23f - 1.0f;
        x[i] = kind == 0   ? any_float(bits)                                  /* NaN, infinity */
               : kind == 1 ? unit
               : kind == 2 ? (i == 9 ? 127.0f : (float)(bits % 253) * 0.5f - 63.0f) /* ties */
               : kind == 3 ? (bits & 1 ? 0.0f : -0.0f)
               : kind == 4 ? any_float(bits & 0x807fffff)                     /* subnormal */
               : kind == 5 ? (i == 20 ? limit : unit * limit)
               : kind == 6 ? any_float((bits & 0xff00ffff) | 0x00008000)      /* ties in bf16 */
                           : (bits & 1 ? f32_from_bits(any_nan | (uint32_t)bits << 31) : -INFINITY);
    }
}

/* The defined bytes of an ACT_Q8 row. */
static bool same_q8(const char *a, const char *b, int k)
{
    size_t scales = act_q8_scale_offset((size_t)k);
    return memcmp(a, b, (size_t)k) == 0 &&
           memcmp(a + scales, b + scales, 4 * sizeof(float) * (size_t)(k / BLOCK)) == 0;
}

/* bf16 as float16.h rounds, NaNs of any payload included, then zeros. */
static bool is_bf16(const uint16_t *a, const float *x, int k)
{
    int padded = (int)(act_content_bytes(ACT_BF16, (size_t)k) / sizeof *a);
    for (int i = 0; i < padded; i++)
        if (a[i] != (i < k ? f32_to_bf16(x[i]) : 0))
            return false;
    return true;
}

/* Codes are within half a step of what they stand for (blocks below 1e-30 are zeros), and the
 * sums are those of the codes. */
static bool is_near(const char *a, const float *x, int k)
{
    const float *scales = (const float *)(a + act_q8_scale_offset((size_t)k));
    const float *sums = (const float *)(a + act_q8_sum_offset((size_t)k));
    const float *half_sums = (const float *)(a + act_q8_half_sum_offset((size_t)k));
    for (int b = 0; b < k / BLOCK; b++) {
        int halves[2] = {0};
        bool ordinary = true; /* no NaN, no infinity */
        for (int i = BLOCK * b; i < BLOCK * (b + 1); i++) {
            halves[i % BLOCK / (BLOCK / 2)] += ((const int8_t *)a)[i];
            ordinary = ordinary && isfinite(x[i]);
        }
        if (!isfinite(scales[b]) || !(sums[b] == scales[b] * (float)(halves[0] + halves[1])))
            return false;
        for (int h = 0; h < 2; h++)
            if (!(half_sums[2 * b + h] == scales[b] * (float)halves[h]))
                return false;
        for (int i = BLOCK * b; ordinary && i < BLOCK * (b + 1); i++)
            if (fabs((double)scales[b] * ((const int8_t *)a)[i] - x[i]) >
                0.5001 * scales[b] + 1.001e-30)
                return false;
    }
    return true;
}

static bool is_q8(const struct gemm_kernel *reference, const char *a, const float *x, int k)
{
    size_t bytes = act_content_bytes(ACT_Q8, (size_t)k);
    char *expected = guarded(bytes);
    quantize_whole_rows(reference, expected, bytes, x, (size_t)k, 1, k);
    return same_q8(a, expected, k) && is_near(a, x, k);
}

/* High, high, low of every 32, zeros behind k. */
static bool is_split(const uint16_t *a, const float *x, int k)
{
    int padded = (k + BLOCK - 1) / BLOCK * BLOCK;
    for (int i = 0; i < padded; i++) {
        const uint16_t *step = a + i / BLOCK * 3 * BLOCK + i % BLOCK;
        float value = i < k ? x[i] : 0.0f;
        uint16_t high = f32_to_bf16(value), low = f32_to_bf16(value - bf16_to_f32(high));
        bool same = step[2 * BLOCK] == low || (isnan(bf16_to_f32(low)) &&
                                               isnan(bf16_to_f32(step[2 * BLOCK])));
        if (step[0] != high || step[BLOCK] != high || !same)
            return false;
    }
    return true;
}

static void check_row(struct report *report, const struct gemm_kernel *reference, const char *a,
                      const float *x, int k)
{
    enum act_format format = report->kernel->act_format;
    size_t bf16 = act_content_bytes(ACT_BF16, (size_t)k);
    if (format == ACT_BF16 || format == ACT_BF16_Q8) {
        if (!is_bf16((const uint16_t *)a, x, k))
            report_failure(report, "quantize_rows, k %d: not rounded to nearest even bf16", k);
        a += bf16;
    }
    if (format == ACT_BF16X3_F32) {
        if (!is_split((const uint16_t *)a, x, k))
            report_failure(report, "quantize_rows, k %d: not two bf16 of each float", k);
        a += 3 * bf16;
    }
    if ((format == ACT_F32 || format == ACT_BF16X3_F32) && memcmp(a, x, (size_t)k * sizeof *x) != 0)
        report_failure(report, "quantize_rows, k %d: not the floats given", k);
    if ((format == ACT_Q8 || format == ACT_BF16_Q8) && !is_q8(reference, a, x, k))
        report_failure(report, "quantize_rows, k %d: not the scalar codes, scales and sums", k);
    report->n_checks++;
}

static void quantize_piece(const struct gemm_kernel *kernel, struct quantize_args args, int k0,
                           int k1, unsigned parts)
{
    args.x += k0;
    args.k0 = k0;
    args.k1 = k1;
    args.parts = parts;
    kernel->quantize_rows(&args);
}

/* ROWS rows as work items write them: part by part, the last columns first. The second part stays
 * untouched until it is asked for. */
static void quantize_in_pieces(struct report *report, char *a, size_t a_stride, const float *x,
                               size_t ldx, int k)
{
    const struct gemm_kernel *kernel = report->kernel;
    struct quantize_args args = {
        .a = a, .a_stride = a_stride, .x = x, .ldx = ldx, .m = ROWS, .k = k};
    int middle = k / 2 / BLOCK * BLOCK;
    quantize_piece(kernel, args, middle, k, ACT_FIRST);
    quantize_piece(kernel, args, 0, middle, ACT_FIRST);
    size_t end = act_content_bytes(kernel->act_format, (size_t)k);
    for (size_t i = act_first_bytes(kernel->act_format, (size_t)k); i < end; i++)
        if (a[i] != UNTOUCHED)
            report_failure(report, "quantize_rows, k %d: a part that was not asked for", k);
    quantize_piece(kernel, args, 0, middle, ACT_SECOND);
    quantize_piece(kernel, args, middle, k, ACT_SECOND);
}

void check_quantize(struct report *report, const struct gemm_kernel *reference)
{
    bool blocks = block_type_find(report->kernel->block_id)->n_elems > 1;
    static const int depths[2][5] = {{1, 7, 31, 172, 513}, {32, 64, 96, 288, 512}};
    uint64_t seed = 2;
    for (int d = 0; d < 5; d++) {
        int k = depths[blocks][d];
        size_t ldx = (size_t)k + GAP_FLOATS;
        size_t row_bytes = act_content_bytes(report->kernel->act_format, (size_t)k);
        size_t a_stride = row_bytes + GAP_BYTES, a_bytes = (ROWS - 1) * a_stride + row_bytes;
        float *x = guarded(((ROWS - 1) * ldx + (size_t)k) * sizeof *x);
        char *a = guarded(a_bytes);
        memset(a, UNTOUCHED, a_bytes);
        for (int row = 0; row < ROWS; row++)
            for (int i = 0; i < k; i += BLOCK) {
                float block[BLOCK];
                fill_block(block, (row + i / BLOCK) % 8, &seed);
                memcpy(x + (size_t)row * ldx + i, block,
                       (size_t)(k - i < BLOCK ? k - i : BLOCK) * sizeof *x);
            }
        quantize_in_pieces(report, a, a_stride, x, ldx, k);
        for (int row = 0; row < ROWS; row++) {
            check_row(report, reference, a + (size_t)row * a_stride, x + (size_t)row * ldx, k);
            for (size_t i = row_bytes; row + 1 < ROWS && i < a_stride; i++)
                if (a[(size_t)row * a_stride + i] != UNTOUCHED)
                    report_failure(report, "quantize_rows, k %d: written between rows", k);
        }
        guarded_free_all();
    }
}
