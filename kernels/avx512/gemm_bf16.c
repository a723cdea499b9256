/* GEMM on packed BF16 weights (layout.h) with VDPBF16PS, which adds the products of a pair of k to
 * a float: sum = a[k] * w[k] + a[k + 1] * w[k + 1] + sum in every lane.
 *
 * Activations are ACT_BF16, as tiles have them. The instruction rounds to nearest even whatever the
 * mode, takes subnormal numbers as zeros and makes zeros of them.
 *
 * Few rows: the panels are read once, from end to end, which memory bounds. Many rows:
 *
 *   for each block of rows and of columns
 *     for each chunk of CHUNK_PAIRS pairs of k
 *       A [rows, chunk] is copied to scratch, with a fixed distance between rows
 *       for each pair of panels, whose chunk stays in L1
 *         register blocks of 12 rows and 32 columns
 *
 * Between chunks the sums rest in scratch: rows of C may lie so that many of them fall into the
 * same few sets of a cache. */
#include <immintrin.h>
#include <string.h>

#include "kernels/float16.h"
#include "kernels/layout.h"
#include "kernels/registry.h"
#include "kernels/scalar/float_panels.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

enum {
    PAIR_BYTES = 4,
    FEW_ROWS = 8,
    FEW_SUMS = 4,
    FEW_AHEAD = 8192, /* bytes: how far ahead few rows prefetch */
    TILE_ROWS = 12,
    TILE_COLUMNS = 2 * PANEL_COLUMNS,
    CHUNK_PAIRS = 128,
    CHUNK_STRIDE = CHUNK_PAIRS * PAIR_BYTES + 64, /* an odd number of cache lines */
    /* Of a block: a chunk of A (108 KiB) and the sums (192 KiB) stay in L2. */
    BLOCK_ROWS = 192,
    BLOCK_COLUMNS = 256,
    A_BYTES = BLOCK_ROWS * CHUNK_STRIDE,
};

static int least(int a, int b)
{
    return a < b ? a : b;
}

static const char *panel_at(const struct gemm_args *g, int column)
{
    return (const char *)g->w + (size_t)(column / PANEL_COLUMNS) * float_panel_bytes(g->k, 2);
}

/* The address may lie behind the matrix: nothing is read there. */
#define prefetch(data, ahead, hint) _mm_prefetch((const char *)((uintptr_t)(data) + (ahead)), hint)

/* sum + the pair of activations at `a` times the pairs of 16 columns. */
static ALWAYS_INLINE __m512 add_pair(__m512 sum, const char *a, __m512i w)
{
    int32_t pair;
    memcpy(&pair, a, sizeof pair);
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)w);
}

static ALWAYS_INLINE __m512i load_pairs(const char *panel, int pair)
{
    return _mm512_loadu_si512(panel + (size_t)pair * VECTOR_BYTES);
}

/* The first `columns` (up to all) of a panel's. */
static ALWAYS_INLINE void store_columns(float *c, __m512 sum, int columns)
{
    __mmask16 mask = (__mmask16)(columns < PANEL_COLUMNS ? (1u << columns) - 1 : 0xffff);
    _mm512_mask_storeu_ps(c, mask, sum);
}

/* ---- Few rows -------------------------------------------------------------------------------- */

/* `rows` (1 to FEW_ROWS) rows of A times one panel. Pairs that follow each other have sums of their
 * own, as many as registers hold, so that one need not wait for the one before. */
static ALWAYS_INLINE void few_panel(const struct gemm_args *g, int rows, const char *panel,
                                    float *c, int columns)
{
    const int n_sums = rows <= 4 ? FEW_SUMS : FEW_SUMS / 2;
    const char *a = g->a;
    const size_t stride = g->a_stride;
    const int pairs = float_panel_k(g->k) / 2;
    __m512 sums[FEW_SUMS][FEW_ROWS];
    for (int s = 0; s < n_sums; s++)
        for (int i = 0; i < rows; i++)
            sums[s][i] = _mm512_setzero_ps();
    int p = 0;
    for (; p + n_sums <= pairs; p += n_sums, a += n_sums * PAIR_BYTES)
        for (int s = 0; s < n_sums; s++) {
            prefetch(panel + (size_t)(p + s) * VECTOR_BYTES, FEW_AHEAD, _MM_HINT_T0);
            __m512i w = load_pairs(panel, p + s);
            for (int i = 0; i < rows; i++)
                sums[s][i] = add_pair(sums[s][i], a + (size_t)i * stride + s * PAIR_BYTES, w);
        }
    for (; p < pairs; p++, a += PAIR_BYTES)
        for (int i = 0; i < rows; i++)
            sums[0][i] = add_pair(sums[0][i], a + (size_t)i * stride, load_pairs(panel, p));
    for (int i = 0; i < rows; i++) {
        for (int s = 1; s < n_sums; s++)
            sums[0][i] = _mm512_add_ps(sums[0][i], sums[s][i]);
        store_columns(c + (size_t)i * g->ldc, sums[0][i], columns);
    }
}

static ALWAYS_INLINE void gemm_few(const struct gemm_args *g, int rows)
{
    for (int column = g->n0; column < g->n1; column += PANEL_COLUMNS)
        few_panel(g, rows, panel_at(g, column), g->c + (column - g->n0), g->n1 - column);
}

/* ---- Many rows ------------------------------------------------------------------------------- */

struct tile {
    const char *a; /* [rows, pairs], CHUNK_STRIDE from row to row */
    const char *b; /* the first of up to two panels, at the first pair */
    size_t b_next; /* bytes from panel to panel */
    int pairs;
    float *sums; /* [rows, TILE_COLUMNS], of the chunks before */
    float *c;    /* [rows, columns] */
    size_t ldc;
    int columns; /* 1..TILE_COLUMNS */
    bool first, last; /* chunk: there are no sums yet; they go to c */
};

/* `rows` and `vectors` are constants where this is inlined. The panels to come are prefetched. */
static ALWAYS_INLINE void tile_multiply(const struct tile *t, int rows, int vectors)
{
    const char *a = t->a, *b = t->b;
    __m512 sums[TILE_ROWS][2];
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++)
            sums[i][v] = _mm512_setzero_ps();
    for (int p = 0; p < t->pairs; p++, a += PAIR_BYTES, b += VECTOR_BYTES) {
        __m512i w[2] = {_mm512_loadu_si512(b),
                        _mm512_loadu_si512(vectors > 1 ? b + t->b_next : b)};
        for (int v = 0; v < vectors; v++)
            prefetch(b, (size_t)(2 + v) * t->b_next, _MM_HINT_T1);
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++)
            for (int v = 0; v < vectors; v++)
                sums[i][v] = add_pair(sums[i][v], a + i * CHUNK_STRIDE, w[v]);
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) {
            float *before = t->sums + i * TILE_COLUMNS + v * PANEL_COLUMNS;
            __m512 sum = sums[i][v];
            if (!t->first)
                sum = _mm512_add_ps(sum, _mm512_load_ps(before));
            if (t->last)
                store_columns(t->c + (size_t)i * t->ldc + v * PANEL_COLUMNS, sum,
                              t->columns - v * PANEL_COLUMNS);
            else
                _mm512_store_ps(before, sum);
        }
}

/* Multiplies as many of `rows` rows as a register block takes; returns how many. */
static int tile_run(const struct tile *t, int rows)
{
#define TILE_CASE(count)                                                                           \
    if (rows >= (count)) {                                                                         \
        if (t->columns > PANEL_COLUMNS)                                                            \
            tile_multiply(t, count, 2);                                                            \
        else                                                                                       \
            tile_multiply(t, count, 1);                                                            \
        return count;                                                                              \
    }
    TILE_CASE(12)
    TILE_CASE(8)
    TILE_CASE(4)
    TILE_CASE(2)
    TILE_CASE(1)
#undef TILE_CASE
    return 0;
}

static void copy_chunk(char *to, const char *a, size_t a_stride, int rows, int pairs)
{
    for (int i = 0; i < rows; i++)
        memcpy(to + i * CHUNK_STRIDE, a + (size_t)i * a_stride, (size_t)pairs * PAIR_BYTES);
}

/* Rows [row, row + rows) times columns [column, end), the pairs from p0 on. */
static void multiply_chunk(const struct gemm_args *g, int row, int rows, int column, int end,
                           int p0, int pairs)
{
    const char *a = (const char *)g->a + (size_t)row * g->a_stride + (size_t)p0 * PAIR_BYTES;
    float *sums = (float *)((char *)g->scratch + A_BYTES);
    copy_chunk(g->scratch, a, g->a_stride, rows, pairs);
    for (; column < end; column += TILE_COLUMNS, sums += BLOCK_ROWS * TILE_COLUMNS) {
        struct tile tile = {
            .a = g->scratch,
            .b = panel_at(g, column) + (size_t)p0 * VECTOR_BYTES,
            .b_next = float_panel_bytes(g->k, 2),
            .pairs = pairs,
            .sums = sums,
            .c = g->c + (size_t)row * g->ldc + (column - g->n0),
            .ldc = g->ldc,
            .columns = least(end - column, TILE_COLUMNS),
            .first = p0 == 0,
            .last = 2 * (p0 + pairs) >= g->k,
        };
        for (int done = 0, count; done < rows; done += count) {
            count = tile_run(&tile, rows - done);
            tile.a += count * CHUNK_STRIDE;
            tile.sums += count * TILE_COLUMNS;
            tile.c += (size_t)count * g->ldc;
        }
    }
}

static void gemm_many(const struct gemm_args *g)
{
    const int pairs = float_panel_k(g->k) / 2;
    for (int row = 0; row < g->m; row += BLOCK_ROWS)
        for (int column = g->n0; column < g->n1; column += BLOCK_COLUMNS)
            for (int p = 0; p < pairs; p += CHUNK_PAIRS)
                multiply_chunk(g, row, least(g->m - row, BLOCK_ROWS), column,
                               least(g->n1, column + BLOCK_COLUMNS), p,
                               least(pairs - p, CHUNK_PAIRS));
}

/* ---- Rows ------------------------------------------------------------------------------------ */

/* As f32_to_bf16. VCVTNE2PS2BF16 makes zeros of subnormal numbers, but rows are the same bytes
 * whatever kernel made them: where there are any, the compiler's code is taken. */
static void round_row(uint16_t *to, const float *x, int k)
{
    enum { SUBNORMAL = 0x20, STEP = 32 };
    int done = 0;
    for (; done + STEP <= k; done += STEP) {
        __m512 low = _mm512_loadu_ps(x + done), high = _mm512_loadu_ps(x + done + STEP / 2);
        if (_mm512_fpclass_ps_mask(low, SUBNORMAL) | _mm512_fpclass_ps_mask(high, SUBNORMAL))
            for (int i = done; i < done + STEP; i++)
                to[i] = f32_to_bf16(x[i]);
        else
            _mm512_storeu_si512(to + done, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
    for (; done < k; done++)
        to[done] = f32_to_bf16(x[done]);
}

static void quantize_rows(const struct quantize_args *q)
{
    const size_t k = (size_t)q->k, pad = act_content_bytes(ACT_BF16, k) - 2 * k;
    for (int i = 0; i < q->m; i++) {
        uint16_t *to = (uint16_t *)((char *)q->a + (size_t)i * q->a_stride);
        round_row(to + q->k0, q->x + (size_t)i * q->ldx, q->k1 - q->k0);
        memset(to + k, 0, q->k1 == q->k ? pad : 0);
    }
}

/* ---- The record ------------------------------------------------------------------------------ */

static void gemm(const struct gemm_args *g)
{
    switch (g->m) {
    case 0: break;
    case 1: gemm_few(g, 1); break;
    case 2: gemm_few(g, 2); break;
    case 3: gemm_few(g, 3); break;
    case 4: gemm_few(g, 4); break;
    case 5: gemm_few(g, 5); break;
    case 6: gemm_few(g, 6); break;
    case 7: gemm_few(g, 7); break;
    case FEW_ROWS: gemm_few(g, FEW_ROWS); break;
    default: gemm_many(g);
    }
}

static size_t scratch_bytes(int k)
{
    return A_BYTES + BLOCK_ROWS * BLOCK_COLUMNS * sizeof(float);
}

const struct gemm_kernel *avx512_bf16_kernels(size_t *count)
{
    static const struct gemm_kernel kernels[] = {{
        .name = "avx512_bf16 BF16",
        .cpu_flags = CPU_AVX2 | CPU_AVX512 | CPU_AVX512_BF16,
        .block_id = BLOCK_BF16,
        .act_format = ACT_BF16,
        .mr = TILE_ROWS,
        .nr = PANEL_COLUMNS,
        .kr = 2,
        .quantize_rows = quantize_rows,
        .scratch_bytes = scratch_bytes,
        .gemm = gemm,
    }};
    *count = sizeof kernels / sizeof kernels[0];
    return kernels;
}
