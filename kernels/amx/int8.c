/* Products on int8 tiles, to be measured against bf16 tiles: the weights of GROUP k of a column are re-scaled to int8 with one scale, and
 * so are the activations of a row; full tiles of depth 64, int32 sums of a group, which are scaled
 * and added up in floats.
 *
 *   for each pair of panels (32 columns)
 *     for each 32 rows
 *       for each group
 *         2 x 2 tiles of int32 sums; meanwhile the sums of the group before go into C in floats
 */
#include <string.h>

#include "kernels/amx/dequantize.h"
#include "kernels/amx/gemm.h"
#include "kernels/amx/tile.h"
#include "kernels/registry.h"

#ifndef INT8_GROUP
#define INT8_GROUP 128
#endif
enum { GROUP_K = INT8_GROUP, DEPTH = 64, MAX_K = 16384 };

static int least(int x, int y) { return x < y ? x : y; }

/* Largest magnitude of value - offset, and what is left after offset. */
AMX_INLINE float largest_value(uint32_t id)
{
    switch (id) {
    case BLOCK_Q8_0: return 128;
    case BLOCK_IQ4_NL: case BLOCK_IQ4_XS: return 127;
    case BLOCK_MXFP4: return 12;
    case BLOCK_Q4_0: return 8;
    case BLOCK_Q5_0: return 16;
    case BLOCK_Q4_1: case BLOCK_Q4_K: return 15;
    case BLOCK_Q5_1: case BLOCK_Q5_K: return 31;
    case BLOCK_Q2_K: return 3;
    case BLOCK_Q3_K: return 4;
    default: return 32;
    }
}

/* Bits behind the point of re-scaled codes. */
AMX_INLINE int fraction_bits(uint32_t id)
{
    return codes_are_wide(id) ? 8 : id == BLOCK_Q2_K ? 1 : id == BLOCK_Q3_K || id == BLOCK_Q4_1 || id == BLOCK_Q4_K ? 3 : 4;
}

/* Scale and negative zero of both halves of a unit: weight = scale * (code - offset) + nz. */
struct scales { __m512 scale[2], nz[2]; };
AMX_INLINE struct scales unit_values(const uint8_t *head, int u, uint32_t id)
{
    struct unit_scales s = load_scales(head, u, 0, id);
    struct scales r;
    __m512 origin = _mm512_set1_ps((codes_are_wide(id) ? 32768.0f : 128.0f) + code_offset(id));
    __m512 undo = _mm512_set1_ps(1.0f / TRUNCATION);
    for (int h = 0; h < 2; h++) {
        r.nz[h] = _mm512_mul_ps(_mm512_fmadd_ps(s.scale[h], origin, s.base[h]), undo);
        r.scale[h] = _mm512_mul_ps(s.scale[h], undo);
    }
    return r;
}

/* One group of a panel to GROUP_K / 64 tiles; the columns' steps are written to `step`. */
AMX_INLINE void fill_group(uint8_t *tiles, float *step, const uint8_t *planes, const uint8_t *heads, int u0,
                           int n_units, int bits, int block_k, uint32_t id)
{
    const struct panel_format *format = panel_format_find(id);
    const int units_in_block = block_k / UNIT_K;
    const bool has_zero = id == BLOCK_Q4_1 || id == BLOCK_Q5_1 || id == BLOCK_Q2_K || id == BLOCK_Q4_K || id == BLOCK_Q5_K;
    struct scales s[GROUP_K / UNIT_K];
    __m512 max = _mm512_set1_ps(1e-30f), largest = _mm512_set1_ps(largest_value(id));
    for (int u = 0; u < n_units; u++) {
        int at = u0 + u;
        s[u] = unit_values(heads + (size_t)(at / units_in_block) * (size_t)format->head_bytes, at % units_in_block, id);
        for (int h = 0; h < 2; h++) {
            __m512 end = _mm512_mul_ps(s[u].scale[h], largest);
            max = _mm512_max_ps(max, _mm512_abs_ps(has_zero ? _mm512_add_ps(end, s[u].nz[h]) : end));
            if (has_zero)
                max = _mm512_max_ps(max, _mm512_abs_ps(s[u].nz[h]));
        }
    }
    _mm512_storeu_ps(step, _mm512_mul_ps(max, _mm512_set1_ps(1.0f / 127)));
    __m512 inverse = _mm512_div_ps(_mm512_set1_ps(127.0f), max);
    const __m512i offset = _mm512_set1_epi8((char)(int)code_offset(id)), high = _mm512_set1_epi16((short)0xff00);
    const int f = fraction_bits(id);
    const __m512 one = _mm512_set1_ps((float)(1 << f));
    for (int u = 0; u < n_units; u++, tiles += 512) {
        __m512i ratio[2], zero[2];
        for (int h = 0; h < 2; h++) {
            __m512i r = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_mul_ps(s[u].scale[h], inverse), _mm512_mul_ps(one, _mm512_set1_ps(128.0f))));
            r = _mm512_min_epi32(r, _mm512_set1_epi32(32767));
            ratio[h] = _mm512_or_si512(_mm512_slli_epi32(r, 16), _mm512_and_si512(r, _mm512_set1_epi32(0xffff)));
            __m512i z = _mm512_set1_epi32(1 << (f - 1));
            if (has_zero)
                z = _mm512_add_epi32(z, _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_mul_ps(s[u].nz[h], inverse), one)));
            zero[h] = _mm512_or_si512(_mm512_slli_epi32(z, 16), _mm512_and_si512(z, _mm512_set1_epi32(0xffff)));
        }
#pragma GCC unroll 8
        for (int g = 0; g < UNIT_VECTORS; g++) {
            __m512i codes = load_codes(planes + (size_t)(u0 + u) * (size_t)(bits * VECTOR_BYTES), g, 0, bits, id);
            if (code_offset(id) > 0)
                codes = _mm512_sub_epi8(codes, offset);
            __m512i even = _mm512_mulhrs_epi16(_mm512_slli_epi16(codes, 8), ratio[g / 4]);
            __m512i odd = _mm512_mulhrs_epi16(_mm512_and_si512(codes, high), ratio[g / 4]);
            even = _mm512_srai_epi16(_mm512_adds_epi16(even, zero[g / 4]), f);
            odd = _mm512_slli_epi16(_mm512_adds_epi16(odd, zero[g / 4]), 8 - f);
            __m512i both = _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaaull, even, odd);
            _mm512_storeu_si512(tiles + 64 * g, both);
        }
    }
    if (n_units % 2)
        memset(tiles, 0, 512);
}

typedef void fill_fn(uint8_t *tiles, float *step, const struct gemm_args *g, int panel, int group);

#define DEFINE_FILL(type, bits, block_k)                                                          \
    static void fill_##type(uint8_t *tiles, float *step, const struct gemm_args *g, int panel_index, int group) \
    {                                                                                             \
        const struct panel_format *format = panel_format_find(BLOCK_##type);                      \
        const uint8_t *panel = (const uint8_t *)g->w + (size_t)panel_index * panel_bytes(format, g->k); \
        int u0 = group * GROUP_K / UNIT_K;                                                        \
        fill_group(tiles, step, panel, panel + panel_codes_bytes(format, g->k), u0,               \
                   least(GROUP_K / UNIT_K, g->k / UNIT_K - u0), bits, block_k, BLOCK_##type);      \
    }
DEFINE_FILL(Q4_0, 4, 32)
DEFINE_FILL(Q4_1, 4, 32)
DEFINE_FILL(Q5_0, 5, 32)
DEFINE_FILL(Q5_1, 5, 32)
DEFINE_FILL(Q8_0, 8, 32)
DEFINE_FILL(Q2_K, 2, 256)
DEFINE_FILL(Q3_K, 3, 256)
DEFINE_FILL(Q4_K, 4, 256)
DEFINE_FILL(Q5_K, 5, 256)
DEFINE_FILL(Q6_K, 6, 256)
DEFINE_FILL(IQ4_NL, 4, 32)
DEFINE_FILL(IQ4_XS, 4, 256)
DEFINE_FILL(MXFP4, 4, 32)

static void configure(int rows)
{
    struct tile_config config = {.palette = 1};
    int r[2] = {least(rows, 16), rows > 16 ? rows - 16 : 1};
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 2; j++) {
            config.rows[2 * i + j] = (uint8_t)r[i];
            config.row_bytes[2 * i + j] = 64;
        }
        config.rows[4 + i] = (uint8_t)r[i];
        config.row_bytes[4 + i] = 64;
        config.rows[6 + i] = 16;
        config.row_bytes[6 + i] = 64;
    }
    tile_load_config(&config);
}

static size_t act_scale_offset(size_t k) { return act_round_up(k, 64); }

/* acc [rows, 32] += sums * row scale * column step */
static void add_sums(float *acc, const int32_t *sums, const uint8_t *a, size_t a_stride, size_t k, int group, int rows,
                     const float *step)
{
    __m512 s0 = _mm512_loadu_ps(step), s1 = _mm512_loadu_ps(step + 16);
    for (int i = 0; i < rows; i++) {
        __m512 x = _mm512_set1_ps(((const float *)(a + (size_t)i * a_stride + act_scale_offset(k)))[group]);
        __m512 c0 = _mm512_cvtepi32_ps(_mm512_load_si512(sums + 32 * i));
        __m512 c1 = _mm512_cvtepi32_ps(_mm512_load_si512(sums + 32 * i + 16));
        _mm512_store_ps(acc + 32 * i, _mm512_fmadd_ps(c0, _mm512_mul_ps(x, s0), _mm512_load_ps(acc + 32 * i)));
        _mm512_store_ps(acc + 32 * i + 16, _mm512_fmadd_ps(c1, _mm512_mul_ps(x, s1), _mm512_load_ps(acc + 32 * i + 16)));
    }
}

static void sum_group(int32_t *sums, const uint8_t *a, size_t a_stride, const uint8_t *b, size_t panel_stride, int steps, bool two)
{
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (int d = 0; d < steps; d++, a += 64, b += 1024) {
        TILE_LOAD_ONCE(4, a, a_stride);
        TILE_LOAD(6, b, 64);
        TILE_DPBSSD(0, 4, 6);
        TILE_LOAD(7, b + panel_stride, 64);
        TILE_DPBSSD(1, 4, 7);
        if (two) {
            TILE_LOAD_ONCE(5, a + 16 * a_stride, a_stride);
            TILE_DPBSSD(2, 5, 6);
            TILE_DPBSSD(3, 5, 7);
        }
    }
    TILE_STORE(0, sums, 128);
    TILE_STORE(1, sums + 16, 128);
    if (two) {
        TILE_STORE(2, sums + 512, 128);
        TILE_STORE(3, sums + 528, 128);
    }
}

static void fill_pair(uint8_t *tiles, float *steps, const struct gemm_args *g, int j, int group, size_t panel_stride, fill_fn *fill)
{
    for (int p = 0; p < 2; p++)
        fill(tiles + (size_t)p * panel_stride + (size_t)group * (GROUP_K * 16), steps + 32 * group + 16 * p, g, j / 16 + p, group);
}

static void gemm_int8(const struct gemm_args *g, fill_fn *fill)
{
    int groups = (g->k + GROUP_K - 1) / GROUP_K;
    size_t panel_stride = (size_t)groups * GROUP_K * 16;
    uint8_t *tiles[2] = {g->scratch, (uint8_t *)g->scratch + 2 * panel_stride};
    float *steps[2] = {(float *)(tiles[1] + 2 * panel_stride), (float *)(tiles[1] + 2 * panel_stride) + 32 * groups};
    int32_t *sums[2] = {(int32_t *)(steps[1] + 32 * groups), (int32_t *)(steps[1] + 32 * groups) + 1024};
    float *acc = (float *)(sums[1] + 1024);
    if (g->m == 0 || g->n0 == g->n1)
        return;
    int configured = 0;
    for (int group = 0; group < groups; group++)
        fill_pair(tiles[0], steps[0], g, g->n0, group, panel_stride, fill);
    int squares = (g->m + 31) / 32;
    for (int j = g->n0, turn = 0; j < g->n1; j += 32, turn ^= 1) {
        int filled = 0, due = (groups + squares * groups - 1) / (squares * groups), paused = 0;
        for (int i = 0; i < g->m; i += 32) {
            int rows = least(32, g->m - i);
            if (rows != configured)
                configure(rows);
            configured = rows;
            const uint8_t *a = (const uint8_t *)g->a + (size_t)i * g->a_stride;
            memset(acc, 0, (size_t)rows * 128);
            for (int group = 0; group < groups; group++) {
                sum_group(sums[group & 1], a + group * GROUP_K, g->a_stride, tiles[turn] + (size_t)group * (GROUP_K * 16), panel_stride,
                          (least(g->k - group * GROUP_K, GROUP_K) + 63) / 64, rows > 16);
                if (j + 32 < g->n1 && paused++ % squares == 0)
                    for (int d = 0; d < due && filled < groups; d++, filled++)
                        fill_pair(tiles[turn ^ 1], steps[turn ^ 1], g, j + 32, filled, panel_stride, fill);
                if (group > 0)
                    add_sums(acc, sums[(group - 1) & 1], a, g->a_stride, (size_t)g->k, group - 1, rows, steps[turn] + 32 * (group - 1));
            }
            add_sums(acc, sums[(groups - 1) & 1], a, g->a_stride, (size_t)g->k, groups - 1, rows, steps[turn] + 32 * (groups - 1));
            for (int r = 0; r < rows; r++)
                memcpy(g->c + (size_t)(i + r) * g->ldc + (j - g->n0), acc + 32 * r, (size_t)least(32, g->n1 - j) * 4);
        }
    }
    tile_release();
}

static size_t scratch_int8(int k)
{
    size_t groups = (size_t)(k + GROUP_K - 1) / GROUP_K;
    return 2 * 2 * groups * GROUP_K * 16 + 2 * 32 * groups * 4 + 3 * 4096;
}

static void quantize_int8(void *a, size_t a_stride, const float *x, size_t ldx, int m, int k)
{
    for (int i = 0; i < m; i++) {
        int8_t *q = (int8_t *)a + (size_t)i * a_stride;
        float *scale = (float *)(q + act_scale_offset((size_t)k));
        const float *from = x + (size_t)i * ldx;
        for (int k0 = 0; k0 < k; k0 += GROUP_K) {
            int n = least(GROUP_K, k - k0);
            __m512 max = _mm512_set1_ps(1e-30f);
            for (int d = 0; d < n; d += 16)
                max = _mm512_max_ps(max, _mm512_abs_ps(_mm512_loadu_ps(from + k0 + d)));
            float most = _mm512_reduce_max_ps(max);
            scale[k0 / GROUP_K] = most / 127;
            __m512 inverse = _mm512_set1_ps(127 / most);
            for (int d = 0; d < n; d += 16)
                _mm_storeu_si128((__m128i *)(q + k0 + d), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from + k0 + d), inverse))));
        }
    }
}

#define DEFINE_GEMM(type)                                                                         \
    static void gemm_##type(const struct gemm_args *g) { gemm_int8(g, fill_##type); }
PACKED_CODE_TYPES(DEFINE_GEMM)
#define STR2(x) #x
#define STR(x) STR2(x)
#define RECORD(type)                                                                              \
    {.name = "int8 tiles " STR(INT8_GROUP) " " #type, .cpu_flags = CPU_AMX_TILE | CPU_AMX_INT8 | CPU_AVX2 | CPU_AVX512, \
     .block_id = BLOCK_##type, .act_format = ACT_Q8, .mr = 32, .nr = 32, .kr = 4,                \
     .quantize_rows = quantize_int8, .scratch_bytes = scratch_int8, .gemm = gemm_##type},
const struct gemm_kernel *amx_int8_kernels(size_t *count)
{
    static const struct gemm_kernel kernels[] = {PACKED_CODE_TYPES(RECORD)};
    *count = sizeof kernels / sizeof kernels[0];
    return kernels;
}
