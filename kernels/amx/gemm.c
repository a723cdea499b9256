/* Products on bf16 tiles.
 *
 *   for each block of rows and of columns
 *     for each chunk of CHUNK_K k
 *       for each pair of panels (32 columns): a job
 *         for each 32 rows
 *           2 x 2 tiles of C, in registers, += A (from L2, row by row) * B (tiles in L1)
 *
 * The tiles of a job are brought into scratch while the job before it is computed: a few tiles are
 * filled after every few steps of products, so that vector and tile units work at the same time.
 * A is loaded with the hint that it will not be used again soon, which leaves L1 to B. Between
 * chunks the tiles of C rest in scratch, where 32 x 32 of them are 4 KiB in a row. Edges in rows
 * and columns are shapes of the tile configuration, so that nothing is read or written outside, and
 * short tiles take less time. */
#include "kernels/amx/gemm.h"

#include <string.h>

#include "kernels/amx/tile.h"
#include "kernels/float16.h"

enum {
    COLUMNS = 16, /* of a panel and of a tile */
    GROUP = 4, /* steps of depth in one go */
    SQUARE = 32, /* rows and columns of 2 x 2 tiles of C */
    SQUARE_FLOATS = SQUARE * SQUARE,
    /* Of a block: what C takes in scratch (512 KiB) fits into L2 beside a chunk of A (512 KiB). */
    MAX_ROWS = 512,
    MAX_COLUMNS = 256,
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
#define LOAD_A(i, d) "tileloaddt1 64*" #d "(%[a" #i "],%[as],1), %%tmm" A_TILE_##i "\n\t"
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

/* GROUP steps, or fewer. */
#define DEFINE_STEPS(shape)                                                                      \
    static void steps_##shape(struct operands *o, int n)                                         \
    {                                                                                            \
        if (n == GROUP) {                                                                        \
            RUN_STEPS(STEP_##shape(0) STEP_##shape(1) STEP_##shape(2) STEP_##shape(3), o);       \
            advance(o, GROUP);                                                                   \
            return;                                                                              \
        }                                                                                        \
        for (; n > 0; n--, advance(o, 1))                                                        \
            RUN_STEPS(STEP_##shape(0), o);                                                       \
    }
DEFINE_STEPS(11)
DEFINE_STEPS(12)
DEFINE_STEPS(21)
DEFINE_STEPS(22)

static inline void run_steps(struct block_shape shape, struct operands *o, int n)
{
    if (shape.rows[1] && shape.columns[1])
        steps_22(o, n);
    else if (shape.rows[1])
        steps_21(o, n);
    else if (shape.columns[1])
        steps_12(o, n);
    else
        steps_11(o, n);
}

/* 32 x 32 of C, rows `stride` floats apart. */
struct square {
    float *c;
    size_t stride;
};

/* The tiles of C as they were left at `from`, or zero where it is NULL. */
static void load_c(struct block_shape shape, const struct square *from)
{
    bool right = shape.columns[1], below = shape.rows[1];
    if (!from) {
        TILE_ZERO(0);
        if (right)
            TILE_ZERO(1);
        if (below)
            TILE_ZERO(2);
        if (right && below)
            TILE_ZERO(3);
        return;
    }
    ptrdiff_t stride = (ptrdiff_t)(from->stride * sizeof(float));
    const float *c = from->c, *c2 = c + COLUMNS * from->stride;
    TILE_LOAD(0, c, stride);
    if (right)
        TILE_LOAD(1, c + COLUMNS, stride);
    if (below)
        TILE_LOAD(2, c2, stride);
    if (right && below)
        TILE_LOAD(3, c2 + COLUMNS, stride);
}

static void store_c(struct block_shape shape, const struct square *to)
{
    bool right = shape.columns[1], below = shape.rows[1];
    ptrdiff_t stride = (ptrdiff_t)(to->stride * sizeof(float));
    float *c = to->c, *c2 = c + COLUMNS * to->stride;
    TILE_STORE(0, c, stride);
    if (right)
        TILE_STORE(1, c + COLUMNS, stride);
    if (below)
        TILE_STORE(2, c2, stride);
    if (right && below)
        TILE_STORE(3, c2 + COLUMNS, stride);
}

/* ---- Jobs: a pair of panels, a chunk of k ---------------------------------------------------- */

static int least(int x, int y) { return x < y ? x : y; }
static int divide_up(int x, int y) { return (x + y - 1) / y; }

struct job {
    int j, k0, k1; /* columns from j, k0 <= k < k1 */
    int panels;    /* 1 or 2 */
    int steps;     /* tiles of depth */
};

static struct job job_at(const struct gemm_args *g, int j, int k0)
{
    int k1 = least(k0 + CHUNK_K, g->k);
    return (struct job){j, k0, k1, g->n1 - j > COLUMNS ? 2 : 1, divide_up(k1 - k0, TILE_K)};
}

static struct job next_job(const struct gemm_args *g, const struct job *job)
{
    bool wraps = job->j + 2 * COLUMNS >= g->n1;
    return wraps ? job_at(g, g->n0, job->k0 + CHUNK_K) : job_at(g, job->j + 2 * COLUMNS, job->k0);
}

/* The tiles of a job on their way into scratch: those of the first panel, then of the second. */
struct filling {
    struct job job;
    uint8_t *tiles;
    int done, total;
};

static void fill_some(struct filling *f, const struct gemm_args *g,
                      const struct tile_source *source, int count)
{
    count = least(count, f->total - f->done);
    while (count > 0) {
        int panel = f->done / f->job.steps, step = f->done % f->job.steps;
        int n = least(count, f->job.steps - step), k0 = f->job.k0 + step * TILE_K;
        source->fill(f->tiles + f->done * TILE_BYTES, g, f->job.j / COLUMNS + panel, k0,
                     least(k0 + n * TILE_K, f->job.k1));
        f->done += n;
        count -= n;
    }
}

static struct filling start_filling(const struct gemm_args *g, struct job job, uint8_t *tiles)
{
    return (struct filling){job, tiles, 0, job.k0 < g->k ? job.panels * job.steps : 0};
}

static void split_in_two(uint8_t parts[2], int n)
{
    parts[0] = (uint8_t)least(n, COLUMNS);
    parts[1] = (uint8_t)least(n - parts[0], COLUMNS);
}

/* All rows of a job, filling the tiles of the next one meanwhile. */
static void run_job(const struct gemm_args *g, const struct tile_source *source,
                    const struct job *job, const uint8_t *b[2], float *squares,
                    struct block_shape *configured, struct filling *next)
{
    int n_squares = divide_up(g->m, SQUARE);
    int fill_count = divide_up(next->total, n_squares * divide_up(job->steps, GROUP));
    struct block_shape shape;
    split_in_two(shape.columns, g->n1 - job->j);
    for (int s = 0; s < n_squares; s++) {
        int i = s * SQUARE;
        split_in_two(shape.rows, g->m - i);
        if (memcmp(&shape, configured, sizeof shape))
            configure(shape);
        *configured = shape;
        const uint8_t *a = (const uint8_t *)g->a + (size_t)i * g->a_stride + 2 * job->k0;
        struct operands o = {.a = {a, a + TILE_ROWS * g->a_stride},
                             .a_stride = (ptrdiff_t)g->a_stride,
                             .b = {b[0], b[1]}};
        int column = job->j - g->n0;
        struct square kept = {squares + (size_t)(column / SQUARE * n_squares + s) * SQUARE_FLOATS,
                              SQUARE};
        struct square out = {g->c + (size_t)i * g->ldc + column, g->ldc};
        load_c(shape, job->k0 > 0 ? &kept : NULL);
        for (int step = 0; step < job->steps; step += GROUP) {
            run_steps(shape, &o, least(GROUP, job->steps - step));
            fill_some(next, g, source, fill_count);
        }
        store_c(shape, job->k1 < g->k ? &kept : &out);
    }
}

static size_t job_scratch(int k)
{
    return (size_t)divide_up(least(k, CHUNK_K), TILE_K) * TILE_BYTES * 2;
}

size_t AMX_NAME(tile_gemm_scratch)(int k)
{
    size_t squares = k > CHUNK_K ? MAX_ROWS / SQUARE * (MAX_COLUMNS / SQUARE) : 0;
    return 2 * job_scratch(k) + squares * SQUARE_FLOATS * sizeof(float);
}

/* A block of at most MAX_ROWS rows and MAX_COLUMNS columns. */
static void multiply_block(const struct gemm_args *g, const struct tile_source *source)
{
    uint8_t *scratch[2] = {g->scratch, (uint8_t *)g->scratch + job_scratch(g->k)};
    float *squares = (float *)(scratch[1] + job_scratch(g->k));
    struct block_shape configured = {{0}, {0}};
    struct job job = job_at(g, g->n0, 0);
    struct filling now = start_filling(g, job, scratch[0]);
    fill_some(&now, g, source, now.total);
    for (int turn = 1; job.k0 < g->k; turn ^= 1) {
        const uint8_t *b[2] = {now.tiles, now.tiles + job.steps * TILE_BYTES};
        for (int i = 0; i < job.panels && source->in_place; i++)
            b[i] = source->in_place(g, job.j / COLUMNS + i, job.k0);
        struct job following = next_job(g, &job);
        struct filling next = start_filling(g, following, scratch[turn]);
        run_job(g, source, &job, b, squares, &configured, &next);
        job = following;
        now = next;
    }
}

void AMX_NAME(tile_gemm)(const struct gemm_args *g, const struct tile_source *source)
{
    struct gemm_args block = *g;
    for (int i = 0; i < g->m; i += MAX_ROWS) {
        block.m = least(g->m - i, MAX_ROWS);
        block.a = (const uint8_t *)g->a + (size_t)i * g->a_stride;
        for (int j = g->n0; j < g->n1; j += MAX_COLUMNS) {
            block.n0 = j;
            block.n1 = least(g->n1, j + MAX_COLUMNS);
            block.c = g->c + (size_t)i * g->ldc + (j - g->n0);
            multiply_block(&block, source);
        }
    }
    if (g->m > 0 && g->n0 < g->n1)
        tile_release();
}

/* ---- Rows ------------------------------------------------------------------------------------ */

/* As f32_to_bf16: rounded to nearest even, NaN stays NaN. */
static vec_i32 round_bf16(vec_f32 x)
{
    vec_i32 bits = vf_bits(x), odd = vi_and(vi_shr(bits, 16), vi_set1(1));
    vec_i32 rounded = vi_add(bits, vi_add(odd, vi_set1(0x7fff)));
    vec_i32 quiet = vi_and_or(bits, vi_set1(0xffff0000), vi_set1(0x00400000));
    return vi_shr(vf_choose_nan(x, quiet, rounded), 16);
}

void AMX_NAME(tile_quantize_rows)(void *a, size_t a_stride, const float *x, size_t ldx, int m,
                                  int k)
{
    for (int i = 0; i < m; i++) {
        const float *from = x + (size_t)i * ldx;
        uint8_t *to = (uint8_t *)a + (size_t)i * a_stride;
        int done = 0;
        for (; done + AMX_LANES <= k; done += AMX_LANES)
            vi_store_low_words(to + 2 * done, round_bf16(vf_load(from + done)));
        for (; done < k; done++) {
            uint16_t half = f32_to_bf16(from[done]);
            memcpy(to + 2 * done, &half, 2);
        }
        memset(to + 2 * k, 0, act_content_bytes(ACT_BF16, (size_t)k) - 2 * (size_t)k);
    }
}

/* The tile rows of 32 floats. */
static void split_step(uint8_t *to, const float *x)
{
    for (int i = 0; i < TILE_K; i += AMX_LANES) {
        vec_f32 all = vf_load(x + i);
        vec_i32 high = round_bf16(all);
        vi_store_low_words(to + 2 * i, high);
        vi_store_low_words(to + TILE_ROW_BYTES + 2 * i, high);
        vi_store_low_words(to + 2 * TILE_ROW_BYTES + 2 * i,
                           round_bf16(vf_sub(all, vf_of_bits(vi_shl(high, 16)))));
    }
}

void AMX_NAME(tile_split_rows)(void *a, size_t a_stride, const float *x, size_t ldx, int m, int k)
{
    for (int i = 0; i < m; i++) {
        const float *from = x + (size_t)i * ldx;
        uint8_t *to = (uint8_t *)a + (size_t)i * a_stride;
        int done = 0;
        for (; done + TILE_K <= k; done += TILE_K, to += 3 * TILE_ROW_BYTES)
            split_step(to, from + done);
        if (done == k)
            continue;
        float last[TILE_K] = {0};
        memcpy(last, from + done, (size_t)(k - done) * sizeof *last);
        split_step(to, last);
    }
}
