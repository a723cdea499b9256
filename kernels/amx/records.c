/* The kernel records of AMX, over the packed layouts that all instruction sets share: many rows go
 * through bf16 tiles, few through the next lower instruction set's products over the same bytes.
 * Packing is the lower instruction sets' (dispatch.c). */
#include <string.h>

#include "kernels/amx/dequantize.h"
#include "kernels/amx/gemm.h"
#include "kernels/amx/tile.h"
#include "kernels/registry.h"
#include "kernels/scalar/float_panels.h"

#if defined(__AVX512F__)
#define AMX_RECORD_NAME "amx"
#define LOWER_KERNELS avx512_q_kernels
#define LOWER_FLOAT_KERNELS avx512_float_kernels
enum { AMX_FLAGS = CPU_AMX_TILE | CPU_AMX_BF16 | CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI };
#else
#define AMX_RECORD_NAME "amx+avx2"
#define LOWER_KERNELS avx2_q_kernels
#define LOWER_FLOAT_KERNELS avx2_float_kernels
enum { AMX_FLAGS = CPU_AMX_TILE | CPU_AMX_BF16 | CPU_AVX2 };
#endif

/* ---- Filling tiles --------------------------------------------------------------------------- */

/* Into L2. The address may lie behind the matrix: nothing is read there. */
AMX_INLINE void prefetch(const uint8_t *data, size_t ahead, int bytes)
{
    for (int i = 0; i < bytes; i += 64)
        _mm_prefetch((const char *)((uintptr_t)data + ahead + (size_t)i), _MM_HINT_T1);
}

AMX_INLINE struct tile_panel codes_panel(const struct gemm_args *g, int index, uint32_t id)
{
    const struct panel_format *format = panel_format_find(id);
    size_t stride = panel_bytes(format, g->k);
    const uint8_t *codes = (const uint8_t *)g->w + (size_t)index * stride;
    return (struct tile_panel){
        codes, codes + panel_codes_bytes(format, g->k), (size_t)format->head_bytes, stride, g->k};
}

AMX_INLINE void fill_codes(uint8_t *tile, const struct tile_panel *panel, int k, int bits,
                           int block_k, uint32_t id)
{
    const int unit_bytes = bits * VECTOR_BYTES, u = k % block_k / UNIT_K;
    const uint8_t *planes = panel->weights + (size_t)(k / UNIT_K) * (size_t)unit_bytes;
    const uint8_t *head = panel->heads + (size_t)(k / block_k) * panel->head_bytes;
    prefetch(planes, 2 * panel->stride, unit_bytes);
    prefetch(head, 2 * panel->stride, u == 0 ? (int)panel->head_bytes : 0);
    dequantize_unit(tile, planes, head, u, bits, id);
}

#define DEFINE_FILL(type, bits, block_k)                                                         \
    static struct tile_panel panel_##type(const struct gemm_args *g, int index)                  \
    {                                                                                            \
        return codes_panel(g, index, BLOCK_##type);                                              \
    }                                                                                            \
    static void fill_##type(uint8_t *tile, const struct tile_panel *panel, int k)                \
    {                                                                                            \
        fill_codes(tile, panel, k, bits, block_k, BLOCK_##type);                                 \
    }                                                                                            \
    static const struct tile_source source_##type = {.panel = panel_##type, .fill = fill_##type};
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

/* BF16 panels are tiles already, but for the last where k is no multiple of TILE_K. */
static struct tile_panel panel_bf16(const struct gemm_args *g, int index)
{
    size_t stride = float_panel_bytes(g->k, 2);
    return (struct tile_panel){(const uint8_t *)g->w + (size_t)index * stride, NULL, 0, stride,
                               g->k};
}

static void fill_bf16(uint8_t *tile, const struct tile_panel *panel, int k)
{
    int count = panel->k - k < TILE_K ? panel->k - k : TILE_K;
    size_t bytes = (size_t)float_panel_k(count) * PANEL_COLUMNS * 2;
    memcpy(tile, panel->weights + (size_t)k * PANEL_COLUMNS * 2, bytes);
    memset(tile + bytes, 0, TILE_BYTES - bytes);
}

static void fetch_bf16(uint8_t *tile, const struct tile_panel *panel, int k)
{
    prefetch(panel->weights, (size_t)k * PANEL_COLUMNS * 2, TILE_BYTES);
}

static void gemm_bf16(const struct gemm_args *g)
{
    static const struct tile_source whole = {panel_bf16, fetch_bf16, .in_place = true};
    static const struct tile_source ragged = {panel_bf16, fill_bf16, .in_place = false};
    AMX_NAME(tile_gemm)(g, g->k % TILE_K ? &ragged : &whole);
}

/* F32 and F16 keep their precision: a weight and an activation are the sum of two bf16 each, and
 * of their four products the least is left out. For TILE_K of the panel there are three of depth,
 *
 *     A: high high low  (ACT_BF16X3_F32)        B: high low high */
AMX_INLINE vec_f32 float_weights(const uint8_t *panel, int k, int c0, bool low, uint32_t id)
{
    size_t at = (size_t)k * PANEL_COLUMNS + (size_t)c0;
    vec_f32 w = id == BLOCK_F32 ? vf_load((const float *)panel + at)
                                : vf_from_f16((const uint16_t *)panel + at);
    return low ? vf_sub(w, vf_round_bf16(w)) : w;
}

AMX_INLINE struct tile_panel floats_panel(const struct gemm_args *g, int index, size_t size)
{
    size_t stride = float_panel_bytes(g->k / 3, size);
    return (struct tile_panel){(const uint8_t *)g->w + (size_t)index * stride, NULL, 0, stride,
                               g->k};
}

AMX_INLINE void fill_floats(uint8_t *tile, const struct tile_panel *panel, int k0, uint32_t id)
{
    const int step = k0 / TILE_K;
    const bool low = step % 3 == 1;
    int k = step / 3 * TILE_K;
    for (int row = 0; row < TILE_ROWS; row++, k += 2, tile += TILE_ROW_BYTES)
        for (int c0 = 0; c0 < PANEL_COLUMNS; c0 += AMX_LANES)
            vi_store(tile + 4 * c0,
                     vf_pack_bf16(float_weights(panel->weights, k, c0, low, id),
                                  float_weights(panel->weights, k + 1, c0, low, id)));
}

static struct tile_panel panel_f32(const struct gemm_args *g, int index)
{
    return floats_panel(g, index, 4);
}

static struct tile_panel panel_f16(const struct gemm_args *g, int index)
{
    return floats_panel(g, index, 2);
}

static void fill_f32(uint8_t *tile, const struct tile_panel *panel, int k)
{
    fill_floats(tile, panel, k, BLOCK_F32);
}

static void fill_f16(uint8_t *tile, const struct tile_panel *panel, int k)
{
    fill_floats(tile, panel, k, BLOCK_F16);
}

/* From how many rows on tiles are faster than the lower kernel, as measured (docs/performance.md).
 * Where the halves of a unit have scales of their own the lower kernel is slower, tiles are not. */
#define HAS_HALVES(id)  ((id) == BLOCK_Q2_K || (id) == BLOCK_Q3_K || (id) == BLOCK_Q6_K)
#define MIN_ROWS(type) (HAS_HALVES(BLOCK_##type) ? 6 : 10)
#define FLOAT_MIN_ROWS(type) (BLOCK_##type == BLOCK_F16 ? 24 : 64)

/* ---- Few rows -------------------------------------------------------------------------------- */

/* The kernel of the next lower instruction set for the same packed bytes; its rows are ACT_Q8 or,
 * for floats, ACT_F32. */
static const struct gemm_kernel *lower_kernel(uint32_t block_id)
{
    size_t count;
    bool floats = block_id == BLOCK_F32 || block_id == BLOCK_F16;
    const struct gemm_kernel *kernels =
        floats ? LOWER_FLOAT_KERNELS(&count) : LOWER_KERNELS(&count);
    for (size_t i = 0; i < count; i++)
        if (kernels[i].block_id == block_id)
            return &kernels[i];
    return NULL;
}

static void gemm_mixed(const struct gemm_args *g, uint32_t block_id,
                       const struct tile_source *source)
{
    if (g->m >= g->min_rows) {
        AMX_NAME(tile_gemm)(g, source);
        return;
    }
    struct gemm_args few = *g;
    few.a = (const uint8_t *)g->a + act_first_bytes(ACT_BF16_Q8, (size_t)g->k);
    lower_kernel(block_id)->gemm(&few);
}

static void quantize_parts(const struct quantize_args *args, enum act_format format,
                           void (*quantize_first)(const struct quantize_args *args),
                           void (*quantize_second)(const struct quantize_args *args))
{
    struct quantize_args second = *args;
    second.a = (uint8_t *)args->a + act_first_bytes(format, (size_t)args->k);
    if (args->parts & ACT_FIRST)
        quantize_first(args);
    if (args->parts & ACT_SECOND)
        quantize_second(&second);
}

static void quantize_codes(const struct quantize_args *args)
{
    quantize_parts(args, ACT_BF16_Q8, AMX_NAME(tile_quantize_rows),
                   lower_kernel(BLOCK_Q4_0)->quantize_rows);
}

/* Tiles of floats take whole steps of depth only: a k that is no multiple is left to the others. */
static void gemm_floats(const struct gemm_args *g, uint32_t block_id,
                        const struct tile_source *source)
{
    if (g->m >= g->min_rows && g->k % TILE_K == 0) {
        struct gemm_args tripled = *g;
        tripled.k = 3 * g->k;
        AMX_NAME(tile_gemm)(&tripled, source);
        return;
    }
    struct gemm_args few = *g;
    few.a = (const uint8_t *)g->a + act_first_bytes(ACT_BF16X3_F32, (size_t)g->k);
    lower_kernel(block_id)->gemm(&few);
}

static void quantize_floats(const struct quantize_args *args)
{
    quantize_parts(args, ACT_BF16X3_F32, AMX_NAME(tile_split_rows), float_copy_rows);
}

/* ---- Records --------------------------------------------------------------------------------- */

#define DEFINE_KERNEL(type)                                                                      \
    static size_t scratch_##type(int k)                                                          \
    {                                                                                            \
        size_t few = lower_kernel(BLOCK_##type)->scratch_bytes(k);                               \
        size_t many = AMX_NAME(tile_gemm_scratch)(k);                                            \
        return few > many ? few : many;                                                          \
    }                                                                                            \
    static void gemm_tiles_##type(const struct gemm_args *g)                                     \
    {                                                                                            \
        AMX_NAME(tile_gemm)(g, &source_##type);                                                 \
    }                                                                                            \
    static void gemm_##type(const struct gemm_args *g)                                           \
    {                                                                                            \
        gemm_mixed(g, BLOCK_##type, &source_##type);                                            \
    }
PACKED_CODE_TYPES(DEFINE_KERNEL)

#define DEFINE_FLOAT_KERNEL(type, lower)                                                         \
    static const struct tile_source source_##type = {panel_##lower, fill_##lower, false};        \
    static size_t scratch_##type(int k)                                                          \
    {                                                                                            \
        size_t few = lower_kernel(BLOCK_##type)->scratch_bytes(k);                               \
        size_t many = AMX_NAME(tile_gemm_scratch)(3 * k);                                        \
        return few > many ? few : many;                                                          \
    }                                                                                            \
    static void gemm_##type(const struct gemm_args *g)                                           \
    {                                                                                            \
        gemm_floats(g, BLOCK_##type, &source_##type);                                            \
    }
DEFINE_FLOAT_KERNEL(F32, f32)
DEFINE_FLOAT_KERNEL(F16, f16)

/* Two panels make 2 x 2 tiles; matrices of floats (routers) are small and need more items. */
#define RECORD(type, suffix, panels, format, quantize, scratch, rows, product)                   \
    {.name = AMX_RECORD_NAME " " #type suffix,                                                   \
     .cpu_flags = AMX_FLAGS,                                                                     \
     .block_id = BLOCK_##type,                                                                   \
     .act_format = format,                                                                       \
     .mr = 2 * TILE_ROWS,                                                                        \
     .nr = (panels) * PANEL_COLUMNS,                                                             \
     .kr = 4,                                                                                    \
     .min_rows = rows,                                                                           \
     .quantize_rows = quantize,                                                                  \
     .scratch_bytes = scratch,                                                                   \
     .gemm = product},
#define MIXED_RECORD(type)                                                                       \
    RECORD(type, "", 2, ACT_BF16_Q8, quantize_codes, scratch_##type, MIN_ROWS(type), gemm_##type)
#define TILES_RECORD(type)                                                                       \
    RECORD(type, " tiles", 2, ACT_BF16, AMX_NAME(tile_quantize_rows),                            \
           AMX_NAME(tile_gemm_scratch), 0, gemm_tiles_##type)
#define FLOAT_RECORD(type, suffix, rows, product)                                                \
    RECORD(type, suffix, 1, ACT_BF16X3_F32, quantize_floats, scratch_##type, rows, product)
/* Few rows are bound by memory, which tiles of weights as they are keep up with. */
#define BF16_RECORD                                                                              \
    RECORD(BF16, "", 2, ACT_BF16, AMX_NAME(tile_quantize_rows), AMX_NAME(tile_gemm_scratch), 0,  \
           gemm_bf16)

const struct gemm_kernel *AMX_NAME(amx_q_kernels)(size_t *count)
{
    static const struct gemm_kernel kernels[] = {
        PACKED_CODE_TYPES(MIXED_RECORD) FLOAT_RECORD(F32, "", FLOAT_MIN_ROWS(F32), gemm_F32)
        FLOAT_RECORD(F16, "", FLOAT_MIN_ROWS(F16), gemm_F16) BF16_RECORD};
    *count = sizeof kernels / sizeof kernels[0];
    return kernels;
}

const struct gemm_kernel *AMX_NAME(amx_tile_kernels)(size_t *count)
{
    static const struct gemm_kernel kernels[] = {
        PACKED_CODE_TYPES(TILES_RECORD) FLOAT_RECORD(F32, " tiles", 0, gemm_F32)
        FLOAT_RECORD(F16, " tiles", 0, gemm_F16) BF16_RECORD};
    *count = sizeof kernels / sizeof kernels[0];
    return kernels;
}
