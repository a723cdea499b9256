/* The kernel records of AMX, over the packed layouts that all instruction sets share: many rows go
 * through bf16 tiles, few through the next lower instruction set's products over the same bytes.
 * Packing is the lower instruction sets' (dispatch.c). */
#include <string.h>

#include "kernels/amx/dequantize.h"
#include "kernels/amx/gemm.h"
#include "kernels/amx/steps.h"
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

AMX_INLINE struct tile_panel codes_panel(const struct gemm_args *g, uint32_t id)
{
    const struct panel_format *format = panel_format_find(id);
    const size_t head_bytes = (size_t)format->head_bytes;
    return (struct tile_panel){.weights = g->w,
                               .heads = panel_codes_bytes(format, g->k),
                               .head_bytes = head_bytes,
                               .stride = panel_bytes(format, g->k),
                               .step_bytes = (size_t)format->bits * VECTOR_BYTES,
                               .step_head_bytes = head_bytes * UNIT_K / (size_t)format->block_k,
                               .k = g->k};
}

AMX_INLINE struct open_tile open_codes(uint8_t *tile, const struct tile_panel *panel, unsigned k,
                                       int bits, unsigned block_k, uint32_t id)
{
    const size_t unit_bytes = (size_t)bits * VECTOR_BYTES, u = k % block_k / UNIT_K;
    const uint8_t *planes = panel->weights + k / UNIT_K * unit_bytes;
    const uint8_t *head = panel->weights + panel->heads + k / block_k * panel->head_bytes;
    prefetch(planes, panel->ahead, unit_bytes);
    prefetch(head, panel->ahead + 64 * u, 1); /* the u-th line of the head */
    struct open_tile t = {.tile = tile, .weights = planes};
    for (int c0 = 0; c0 < PANEL_COLUMNS; c0 += AMX_LANES)
        t.scales[c0 / AMX_LANES] = load_scales(head, (int)u, c0, id);
    return t;
}

/* The tile_source of a type, from its first_panel_, open_ and quarter_. */
#define DEFINE_SOURCE(type)                                                                      \
    static void fill_##type(uint8_t *tile, const struct tile_panel *panel, unsigned k)           \
    {                                                                                            \
        fill_tile(tile, panel, k, open_##type, quarter_##type);                                  \
    }                                                                                            \
    DEFINE_STEPS(type, 1, 2)                                                                     \
    DEFINE_STEPS(type, 2, 2)                                                                     \
    DEFINE_STEPS(type, 3, 1)                                                                     \
    DEFINE_STEPS(type, 4, 1)                                                                     \
    static const struct tile_source source_##type = {                                            \
        .first_panel = first_panel_##type,                                                       \
        .fill = fill_##type,                                                                     \
        .run = {steps_1_2_##type, steps_2_2_##type, steps_3_1_##type, steps_4_1_##type}};
#define DEFINE_STEPS(type, tiles_of_a, panels)                                                   \
    static void steps_##tiles_of_a##_##panels##_##type(const struct tile_steps *s)               \
    {                                                                                            \
        run_steps(s, tiles_of_a, panels, open_##type, quarter_##type);                           \
    }

#define DEFINE_FILL(type, bits, block_k)                                                         \
    static struct tile_panel first_panel_##type(const struct gemm_args *g)                       \
    {                                                                                            \
        return codes_panel(g, BLOCK_##type);                                                     \
    }                                                                                            \
    AMX_INLINE struct open_tile open_##type(uint8_t *tile, const struct tile_panel *panel,       \
                                            unsigned k)                                          \
    {                                                                                            \
        return open_codes(tile, panel, k, bits, block_k, BLOCK_##type);                          \
    }                                                                                            \
    AMX_INLINE void quarter_##type(const struct open_tile *t, int quarter)                       \
    {                                                                                            \
        dequantize_quarter(t, quarter, bits, BLOCK_##type);                                      \
    }                                                                                            \
    DEFINE_SOURCE(type)
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
static struct tile_panel first_panel_bf16(const struct gemm_args *g)
{
    return (struct tile_panel){.weights = g->w,
                               .stride = float_panel_bytes(g->k, 2),
                               .step_bytes = TILE_BYTES,
                               .k = g->k};
}

AMX_INLINE struct open_tile open_bf16(uint8_t *tile, const struct tile_panel *panel, unsigned k)
{
    int rest = panel->k - (int)k < TILE_K ? panel->k - (int)k : TILE_K;
    size_t bytes = (size_t)float_panel_k(rest) * PANEL_COLUMNS * 2;
    memcpy(tile, panel->weights + (size_t)k * (PANEL_COLUMNS * 2), bytes);
    memset(tile + bytes, 0, TILE_BYTES - bytes);
    return (struct open_tile){.tile = tile};
}

/* All four are filled when the tile is opened. */
AMX_INLINE void quarter_bf16(const struct open_tile *t, int quarter)
{
    (void)t;
    (void)quarter;
}

DEFINE_SOURCE(bf16)

static void gemm_bf16(const struct gemm_args *g)
{
    static const struct tile_source whole = {.first_panel = first_panel_bf16, .in_place = true};
    AMX_NAME(tile_gemm)(g, g->k % TILE_K ? &source_bf16 : &whole);
}

/* F32 and F16 keep their precision: a weight and an activation are the sum of two bf16 each, and
 * of their four products the least is left out. For TILE_K of the panel there are three of depth,
 *
 *     A: high high low  (ACT_BF16X3_F32)        B: high low high */
AMX_INLINE vec_f32 float_weights(const uint8_t *weights, size_t at, bool low, uint32_t id)
{
    vec_f32 w = id == BLOCK_F32 ? vf_load((const float *)weights + at)
                                : vf_from_f16((const uint16_t *)weights + at);
    return low ? vf_sub(w, vf_round_bf16(w)) : w;
}

AMX_INLINE void quarter_floats(const struct open_tile *t, int quarter, uint32_t id)
{
    for (int row = 4 * quarter; row < 4 * quarter + 4; row++)
        for (int c0 = 0; c0 < PANEL_COLUMNS; c0 += AMX_LANES) {
            size_t at = (size_t)(2 * row * PANEL_COLUMNS + c0);
            vi_store(t->tile + row * TILE_ROW_BYTES + 4 * c0,
                     vf_pack_bf16(float_weights(t->weights, at, t->low, id),
                                  float_weights(t->weights, at + PANEL_COLUMNS, t->low, id)));
        }
}

#define DEFINE_FLOAT_FILL(type, size)                                                            \
    static struct tile_panel first_panel_##type(const struct gemm_args *g)                       \
    {                                                                                            \
        return (struct tile_panel){.weights = g->w,                                              \
                                   .stride = float_panel_bytes(g->k / 3, size),                  \
                                   .step_bytes = TILE_K * PANEL_COLUMNS * (size) / 3,            \
                                   .k = g->k};                                                   \
    }                                                                                            \
    AMX_INLINE struct open_tile open_##type(uint8_t *tile, const struct tile_panel *panel,       \
                                            unsigned k)                                          \
    {                                                                                            \
        const unsigned step = k / TILE_K, weights = step / 3 * TILE_K * PANEL_COLUMNS;           \
        return (struct open_tile){.tile = tile,                                                  \
                                  .weights = panel->weights + (size_t)weights * (size),          \
                                  .low = step % 3 == 1};                                         \
    }                                                                                            \
    AMX_INLINE void quarter_##type(const struct open_tile *t, int quarter)                       \
    {                                                                                            \
        quarter_floats(t, quarter, BLOCK_##type);                                                \
    }                                                                                            \
    DEFINE_SOURCE(type)
DEFINE_FLOAT_FILL(F32, 4)
DEFINE_FLOAT_FILL(F16, 2)

/* From how many rows on tiles are faster than the lower kernel, as measured (docs/performance.md):
 * sooner where that has the more to do, as the halves of a unit have scales of their own or codes
 * take all bits of a byte. */
#define HAS_HALVES(id) ((id) == BLOCK_Q2_K || (id) == BLOCK_Q3_K || (id) == BLOCK_Q6_K)
#define MIN_ROWS(type) (HAS_HALVES(BLOCK_##type) || BLOCK_##type == BLOCK_Q8_0 ? 6 : 8)
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

#define DEFINE_FLOAT_KERNEL(type)                                                                \
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
DEFINE_FLOAT_KERNEL(F32)
DEFINE_FLOAT_KERNEL(F16)

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
