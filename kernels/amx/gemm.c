/* Products on bf16 tiles.
 *
 *   for each pair of panels (32 columns)
 *     for each chunk of CHUNK_K k
 *       bring both panels' weights into tiles in scratch: 32 KiB, which stay in L1 across all rows
 *       for each block of 32 rows
 *         2 x 2 tiles of C, in registers, += A (from L2, row by row) * B (from L1)
 *
 * Between chunks the tiles of C rest in C itself. Edges in rows and columns are shapes of the tile
 * configuration, so that nothing is read or written outside, and short tiles take less time. */
#include "kernels/amx/gemm.h"

#include <string.h>

#include "kernels/amx/tile.h"
#include "kernels/float16.h"

enum {
    COLUMNS = 16, /* of a panel and of a tile */
    CHUNK_TILES = CHUNK_K / TILE_K,
    PANEL_SCRATCH = CHUNK_TILES * TILE_BYTES,
};

/* Rows and columns of the block of C in tiles: C00 C01 C10 C11 are tiles 0 to 3, A0 A1 4 and 5,
 * B0 B1 6 and 7. Zero where the second of a pair is not there. */
struct block_shape {
    uint8_t rows[2], columns[2];
};

static void configure(struct block_shape shape)
{
    struct tile_config config = {.palette = 1};
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 2; j++) {
            bool used = shape.rows[i] && shape.columns[j];
            config.rows[2 * i + j] = used ? shape.rows[i] : 0;
            config.row_bytes[2 * i + j] = used ? (uint16_t)(4 * shape.columns[j]) : 0;
        }
        config.rows[4 + i] = shape.rows[i];
        config.row_bytes[4 + i] = shape.rows[i] ? TILE_ROW_BYTES : 0;
        config.rows[6 + i] = shape.columns[i] ? TILE_ROWS : 0;
        config.row_bytes[6 + i] = (uint16_t)(4 * shape.columns[i]);
    }
    tile_load_config(&config);
}

/* ---- One block ------------------------------------------------------------------------------- */

/* Operands of a block's products over some tiles of depth. */
struct operands {
    const uint8_t *a[2]; /* rows of A at the first k, 16 rows apart */
    ptrdiff_t a_stride;
    const uint8_t *b[2]; /* tiles of B */
};

/* The instructions of depth step d; several steps in one statement, so that under emulation they
 * are executed in one trap. */
#define LOAD_A(i, d) "tileloadd 64*" #d "(%[a" #i "],%[as],1), %%tmm" A_TILE_##i "\n\t"
#define LOAD_B(j, d) "tileloadd 1024*" #d "(%[b" #j "],%[bs],1), %%tmm" B_TILE_##j "\n\t"
#define A_TILE_0 "4"
#define A_TILE_1 "5"
#define B_TILE_0 "6"
#define B_TILE_1 "7"
#define STEP_11(d) LOAD_A(0, d) LOAD_B(0, d) "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n\t"
#define STEP_12(d) STEP_11(d) LOAD_B(1, d) "tdpbf16ps %%tmm7, %%tmm4, %%tmm1\n\t"
#define STEP_21(d) STEP_11(d) LOAD_A(1, d) "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n\t"
#define STEP_22(d)                                                                               \
    STEP_12(d) LOAD_A(1, d) "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n\t"                               \
                            "tdpbf16ps %%tmm7, %%tmm5, %%tmm3\n\t"

#define RUN_STEPS(text, o)                                                                       \
    __asm__ volatile(text                                                                        \
                     :                                                                           \
                     : [a0] "r"((o)->a[0]), [a1] "r"((o)->a[1]), [as] "r"((o)->a_stride),        \
                       [b0] "r"((o)->b[0]), [b1] "r"((o)->b[1]),                                 \
                       [bs] "r"((ptrdiff_t)TILE_ROW_BYTES)                                       \
                     : "memory")

static inline void advance(struct operands *o, int steps)
{
    for (int i = 0; i < 2; i++) {
        o->a[i] += steps * TILE_ROW_BYTES;
        o->b[i] += steps * TILE_BYTES;
    }
}

#define DEFINE_STEPS(shape)                                                                      \
    static void steps_##shape(struct operands o, int n)                                          \
    {                                                                                            \
        for (; n >= 4; n -= 4, advance(&o, 4))                                                   \
            RUN_STEPS(STEP_##shape(0) STEP_##shape(1) STEP_##shape(2) STEP_##shape(3), &o);      \
        for (; n > 0; n--, advance(&o, 1))                                                       \
            RUN_STEPS(STEP_##shape(0), &o);                                                      \
    }
DEFINE_STEPS(11)
DEFINE_STEPS(12)
DEFINE_STEPS(21)
DEFINE_STEPS(22)

/* C[i][j] of the block at `c`, 16 rows or columns apart, kept or started at zero. */
static void load_c(struct block_shape shape, const float *c, size_t ldc, bool first)
{
    ptrdiff_t stride = (ptrdiff_t)(ldc * sizeof(float));
    const float *below = c + COLUMNS * ldc;
    bool right = shape.columns[1], down = shape.rows[1];
    if (first) {
        TILE_ZERO(0);
        if (right)
            TILE_ZERO(1);
        if (down)
            TILE_ZERO(2);
        if (right && down)
            TILE_ZERO(3);
        return;
    }
    TILE_LOAD(0, c, stride);
    if (right)
        TILE_LOAD(1, c + COLUMNS, stride);
    if (down)
        TILE_LOAD(2, below, stride);
    if (right && down)
        TILE_LOAD(3, below + COLUMNS, stride);
}

static void store_c(struct block_shape shape, float *c, size_t ldc)
{
    ptrdiff_t stride = (ptrdiff_t)(ldc * sizeof(float));
    float *below = c + COLUMNS * ldc;
    bool right = shape.columns[1], down = shape.rows[1];
    TILE_STORE(0, c, stride);
    if (right)
        TILE_STORE(1, c + COLUMNS, stride);
    if (down)
        TILE_STORE(2, below, stride);
    if (right && down)
        TILE_STORE(3, below + COLUMNS, stride);
}

static void block_product(struct block_shape shape, const struct operands *o, int steps, float *c,
                          size_t ldc, bool first)
{
    load_c(shape, c, ldc, first);
    if (shape.rows[1] && shape.columns[1])
        steps_22(*o, steps);
    else if (shape.rows[1])
        steps_21(*o, steps);
    else if (shape.columns[1])
        steps_12(*o, steps);
    else
        steps_11(*o, steps);
    store_c(shape, c, ldc);
}

/* ---- All blocks ------------------------------------------------------------------------------ */

static int least(int x, int y) { return x < y ? x : y; }

static void split_in_two(uint8_t parts[2], int n)
{
    parts[0] = (uint8_t)least(n, COLUMNS);
    parts[1] = (uint8_t)least(n - parts[0], COLUMNS);
}

size_t AMX_NAME(tile_gemm_scratch)(int k)
{
    return (size_t)(least(k, CHUNK_K) + TILE_K - 1) / TILE_K * TILE_BYTES * 2;
}

void AMX_NAME(tile_gemm)(const struct gemm_args *g, tile_filler *fill)
{
    if (g->m == 0)
        return;
    uint8_t *scratch = g->scratch;
    struct block_shape configured = {{0}, {0}};
    for (int j = g->n0; j < g->n1; j += 2 * COLUMNS) {
        struct block_shape shape;
        split_in_two(shape.columns, g->n1 - j);
        for (int k0 = 0; k0 < g->k; k0 += CHUNK_K) {
            int k1 = least(k0 + CHUNK_K, g->k), steps = (k1 - k0 + TILE_K - 1) / TILE_K;
            uint8_t *b1 = scratch + steps * TILE_BYTES;
            fill(scratch, g, j / COLUMNS, k0, k1);
            if (shape.columns[1])
                fill(b1, g, j / COLUMNS + 1, k0, k1);
            for (int i = 0; i < g->m; i += 2 * TILE_ROWS) {
                split_in_two(shape.rows, g->m - i);
                if (memcmp(&shape, &configured, sizeof shape))
                    configure(shape);
                configured = shape;
                const uint8_t *a = (const uint8_t *)g->a + (size_t)i * g->a_stride + 2 * k0;
                struct operands o = {.a = {a, a + TILE_ROWS * g->a_stride},
                                     .a_stride = (ptrdiff_t)g->a_stride,
                                     .b = {scratch, b1}};
                block_product(shape, &o, steps, g->c + (size_t)i * g->ldc + (j - g->n0), g->ldc,
                              k0 == 0);
            }
        }
    }
    tile_release();
}

/* ---- Rows ------------------------------------------------------------------------------------ */

/* bf16, rounded to nearest even. A NaN whose payload is all ones, which no arithmetic makes, would
 * become zero. */
static vec_i32 round_bf16(vec_i32 bits)
{
    vec_i32 odd = vi_and(vi_shr(bits, 16), vi_set1(1));
    return vi_shr(vi_add(bits, vi_add(odd, vi_set1(0x7fff))), 16);
}

void AMX_NAME(tile_quantize_rows)(void *a, size_t a_stride, const float *x, size_t ldx, int m,
                                  int k)
{
    for (int i = 0; i < m; i++) {
        const float *from = x + (size_t)i * ldx;
        uint8_t *to = (uint8_t *)a + (size_t)i * a_stride;
        int done = 0;
        for (; done + AMX_LANES <= k; done += AMX_LANES)
            vi_store_low_words(to + 2 * done, round_bf16(vi_load(from + done)));
        for (; done < k; done++) {
            uint16_t half = f32_to_bf16(from[done]);
            memcpy(to + 2 * done, &half, 2);
        }
        memset(to + 2 * k, 0, act_row_bytes(ACT_BF16, (size_t)k) - 2 * (size_t)k);
    }
}
