/* GEMM on packed F32, F16 and BF16 weights (layout.h) with FMA in single precision.
 *
 * Few rows: the panels are read once, from end to end, and widened in registers. Many rows: a chunk
 * of A is copied to scratch memory, panels of halves are widened there too, and both are multiplied
 * by register blocks. */
#include "kernels/registry.h"
#include "kernels/scalar/float_panels.h"
#include "kernels/vector/dot.h"
#include "kernels/vector/tile.h"

#define PANEL_VECS (16 / VEC)

enum {
    FEW_ROWS = 8,
    BLOCK_ROWS = 96, /* rows of A in scratch memory, a multiple of TILE_ROWS */
    WIDE_COLUMNS = TILE_COLUMNS > PANEL_COLUMNS ? TILE_COLUMNS : PANEL_COLUMNS,
};

static inline size_t weight_bytes(enum block_id type)
{
    return type == BLOCK_F32 ? 4 : 2;
}

static const char *panel_at(const struct gemm_args *args, enum block_id type, int column)
{
    size_t bytes = float_panel_bytes(args->k, weight_bytes(type));
    return (const char *)args->w + (size_t)(column / PANEL_COLUMNS) * bytes;
}

/* Rows k and k + 1 of a panel; k is even. */
static ALWAYS_INLINE void load_pair(vec w[2][PANEL_VECS], const void *panel, enum block_id type,
                                    int k)
{
    for (int v = 0; v < PANEL_VECS; v++) {
        size_t at = (size_t)k * PANEL_COLUMNS + (size_t)v * VEC;
        if (type == BLOCK_F32) {
            w[0][v] = vec_load((const float *)panel + at);
            w[1][v] = vec_load((const float *)panel + at + PANEL_COLUMNS);
        } else if (type == BLOCK_F16) {
            w[0][v] = vec_load_f16((const uint16_t *)panel + at);
            w[1][v] = vec_load_f16((const uint16_t *)panel + at + PANEL_COLUMNS);
        } else {
            w[0][v] = vec_bf16_first((const uint16_t *)panel + at + (size_t)v * VEC);
            w[1][v] = vec_bf16_second((const uint16_t *)panel + at + (size_t)v * VEC);
        }
    }
}

/* ---- Few rows -------------------------------------------------------------------------------- */

/* n_rows (1, 2, 4) rows of A times one panel. Where registers are left, odd k have sums of their own, so that
 * an addition need not wait for the one before. */
static ALWAYS_INLINE void few_panel(const struct gemm_args *args, enum block_id type, int row,
                                    int n_rows, const void *panel, float *c, int columns)
{
    const int odd = n_rows * PANEL_VECS <= 4;
    size_t stride = args->a_stride / sizeof(float);
    const float *a = (const float *)args->a + (size_t)row * stride;
    vec sums[2][4][PANEL_VECS], w[2][PANEL_VECS];
    for (int i = 0; i < n_rows; i++)
        for (int v = 0; v < PANEL_VECS; v++)
            sums[0][i][v] = sums[1][i][v] = vec_set1(0.0f);
    int k = 0;
    for (; k + 2 <= args->k; k += 2) {
        load_pair(w, panel, type, k);
        for (int p = 0; p < 2; p++)
            for (int i = 0; i < n_rows; i++) {
                vec x = vec_set1(a[(size_t)i * stride + (size_t)(k + p)]);
                for (int v = 0; v < PANEL_VECS; v++)
                    sums[p * odd][i][v] = vec_fma(x, w[p][v], sums[p * odd][i][v]);
            }
    }
    if (k < args->k) {
        load_pair(w, panel, type, k);
        for (int i = 0; i < n_rows; i++)
            for (int v = 0; v < PANEL_VECS; v++)
                sums[0][i][v] =
                    vec_fma(vec_set1(a[(size_t)i * stride + (size_t)k]), w[0][v], sums[0][i][v]);
    }
    for (int i = 0; i < n_rows; i++)
        for (int v = 0; v < PANEL_VECS; v++)
            tile_store(c + (size_t)i * args->ldc + v * VEC, sums[0][i][v] + sums[1][i][v],
                       columns - v * VEC, false);
}

static ALWAYS_INLINE void gemm_few(const struct gemm_args *args, enum block_id type)
{
    for (int column = args->n0; column < args->n1; column += PANEL_COLUMNS) {
        int columns = args->n1 - column < PANEL_COLUMNS ? args->n1 - column : PANEL_COLUMNS;
        const void *panel = panel_at(args, type, column);
        float *c = args->c + (column - args->n0);
        int row = 0;
        for (; row + 4 <= args->m; row += 4)
            few_panel(args, type, row, 4, panel, c + (size_t)row * args->ldc, columns);
        for (; row + 2 <= args->m; row += 2)
            few_panel(args, type, row, 2, panel, c + (size_t)row * args->ldc, columns);
        if (row < args->m)
            few_panel(args, type, row, 1, panel, c + (size_t)row * args->ldc, columns);
    }
}

/* ---- Many rows ------------------------------------------------------------------------------- */

static size_t scratch_bytes(int k)
{
    size_t floats = (size_t)BLOCK_ROWS * CHUNK_STRIDE + (size_t)CHUNK_K * WIDE_COLUMNS;
    return act_round_up(floats * sizeof(float), 64);
}

/* `count` k of a panel as floats [count rounded up to even][PANEL_COLUMNS]. */
static ALWAYS_INLINE void widen(float *to, const void *panel, enum block_id type, int k0, int count)
{
    vec w[2][PANEL_VECS];
    for (int k = 0; k < count; k += 2) {
        load_pair(w, panel, type, k0 + k);
        for (int p = 0; p < 2; p++)
            for (int v = 0; v < PANEL_VECS; v++)
                vec_store(to + (k + p) * PANEL_COLUMNS + v * VEC, w[p][v]);
    }
}

static void copy_chunk(float *to, const struct gemm_args *args, int row, int n_rows, int k, int n)
{
    const char *from = (const char *)args->a + (size_t)row * args->a_stride;
    for (int i = 0; i < n_rows; i++)
        memcpy(to + i * CHUNK_STRIDE, (const float *)(from + (size_t)i * args->a_stride) + k,
               (size_t)n * sizeof(float));
}

/* The product of a chunk of A with all columns, added to c but for the first. */
static ALWAYS_INLINE void multiply_chunk(const struct gemm_args *args, enum block_id type, int row,
                                         int n_rows, int k0, int n_k)
{
    float *a = args->scratch, *wide = a + BLOCK_ROWS * CHUNK_STRIDE;
    copy_chunk(a, args, row, n_rows, k0, n_k);
    for (int column = args->n0; column < args->n1; column += WIDE_COLUMNS) {
        int columns = args->n1 - column < WIDE_COLUMNS ? args->n1 - column : WIDE_COLUMNS;
        struct tile tile = {
            .a = a,
            .b = wide,
            .b_next = CHUNK_K * PANEL_COLUMNS,
            .k = n_k,
            .c = args->c + (size_t)row * args->ldc + (column - args->n0),
            .ldc = args->ldc,
            .accumulate = k0 > 0,
        };
        if (type == BLOCK_F32) {
            tile.b = (const float *)panel_at(args, type, column) + (size_t)k0 * PANEL_COLUMNS;
            tile.b_next = (size_t)float_panel_k(args->k) * PANEL_COLUMNS;
        } else {
            for (int j = 0; j < columns; j += PANEL_COLUMNS)
                widen(wide + j * CHUNK_K, panel_at(args, type, column + j), type, k0, n_k);
        }
        tile_product(tile, n_rows, columns);
    }
}

static ALWAYS_INLINE void gemm(const struct gemm_args *args, enum block_id type)
{
    if (args->m <= FEW_ROWS) {
        gemm_few(args, type);
        return;
    }
    for (int row = 0; row < args->m; row += BLOCK_ROWS) {
        int n_rows = args->m - row < BLOCK_ROWS ? args->m - row : BLOCK_ROWS;
        for (int k = 0; k < args->k; k += CHUNK_K)
            multiply_chunk(args, type, row, n_rows, k,
                           args->k - k < CHUNK_K ? args->k - k : CHUNK_K);
    }
}

static void gemm_f32(const struct gemm_args *args)
{
    gemm(args, BLOCK_F32);
}

static void gemm_f16(const struct gemm_args *args)
{
    gemm(args, BLOCK_F16);
}

static void gemm_bf16(const struct gemm_args *args)
{
    gemm(args, BLOCK_BF16);
}

#define RECORD(NAME, lower, bits, pair)            \
    {.name = VEC_ISA " " #NAME,                    \
     .cpu_flags = VEC_CPU_FLAGS,                   \
     .block_id = BLOCK_##NAME,                     \
     .act_format = ACT_F32,                        \
     .mr = TILE_ROWS,                              \
     .nr = PANEL_COLUMNS,                          \
     .kr = (pair),                                 \
     .packed_bytes = float_packed_bytes_##bits,    \
     .pack = float_pack_##lower,                   \
     .unpack = float_unpack_##lower,               \
     .quantize_rows = float_copy_rows,             \
     .scratch_bytes = scratch_bytes,               \
     .gemm = gemm_##lower}

const struct gemm_kernel *VEC_NAME(float_kernels)(size_t *count)
{
    static const struct gemm_kernel kernels[] = {
        RECORD(F32, f32, 32, 1),
        RECORD(F16, f16, 16, 1),
        RECORD(BF16, bf16, 16, 2),
    };
    *count = sizeof kernels / sizeof kernels[0];
    return kernels;
}
