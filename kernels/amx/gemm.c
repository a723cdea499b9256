/* Products on bf16 tiles.
 *
 *   for each block of rows and of columns
 *     for each chunk of k
 *       for each pair of panels (32 columns): a job
 *         for each 32 rows
 *           2 x 2 tiles of C, in registers, += A (from L2, row by row) * B (tiles)
 *
 * The tiles of a job are brought into scratch while the job before it is computed: some are filled
 * after every one or two products, so that vector and tile units work at the same time.
 * A is loaded with the hint that it will not be used again soon, which leaves L1 to B. Between
 * chunks, of which most matrices have one, the tiles of C rest in scratch, where 32 x 32 of them
 * are 4 KiB in a row: storing and loading C costs more than tiles of B from L2. Edges in rows
 * and columns are shapes of the tile configuration, so that nothing is read or written outside, and
 * short tiles take less time.
 *
 * Up to 64 rows all of C's rows fit into tiles, 2 x 2 of them or 4 x 1. C then stays there over the
 * whole of k, and a job is but a few tiles, which are used once and soon after they were filled. */
#include "kernels/amx/gemm.h"

#include <string.h>

#include "kernels/amx/tile.h"
#include "kernels/float16.h"

enum {
    COLUMNS = 16, /* of a panel and of a tile */
    SQUARE = 32, /* rows and columns of 2 x 2 tiles of C */
    SQUARE_FLOATS = SQUARE * SQUARE,
    TALL = 64,       /* rows of 4 x 1 tiles of C */
    STAYING_K = 256, /* k of a job where C stays in tiles */
    MAX_CHUNK_K = 2048, /* k of a job elsewhere */
    /* Of a block: a chunk of A takes up to 1 MiB of L2, C in scratch 256 KiB. */
    MAX_ROWS = 256,
    MAX_COLUMNS = 256,
};

/* Rows and columns of the tiles of C; zero where a tile is not there. Two arrangements:
 *
 *     2 x 2            4 x 1 (where rows[2] > 0)
 *     C 0 1            C 0 1 2 3
 *       2 3            A 4 5 4 and, the last of them, 7
 *     A 4 5            B 6
 *     B 6 7                                               */
struct block_shape {
    uint8_t rows[4], columns[2];
};

static bool is_tall(struct block_shape shape) { return shape.rows[2] > 0; }

static void set_tile(struct tile_config *config, int tile, int rows, int columns)
{
    bool used = rows && columns;
    config->rows[tile] = used ? (uint8_t)rows : 0;
    config->row_bytes[tile] = used ? (uint16_t)(4 * columns) : 0;
}

static void configure(struct block_shape shape)
{
    struct tile_config config = {.palette = 1};
    const uint8_t *rows = shape.rows, *columns = shape.columns;
    set_tile(&config, 4, rows[0], COLUMNS);
    set_tile(&config, 5, rows[1], COLUMNS);
    set_tile(&config, 6, TILE_ROWS, columns[0]);
    if (is_tall(shape)) {
        for (int i = 0; i < 4; i++)
            set_tile(&config, i, rows[i], columns[0]);
        set_tile(&config, 7, rows[3] ? rows[3] : rows[2], COLUMNS);
    } else {
        for (int i = 0; i < 4; i++)
            set_tile(&config, i, rows[i / 2], columns[i % 2]);
        set_tile(&config, 7, TILE_ROWS, columns[1]);
    }
    tile_load_config(&config);
}

/* ---- One block ------------------------------------------------------------------------------- */

/* Operands of a block's products over some tiles of depth. */
struct operands {
    const uint8_t *a; /* rows of A at the first k */
    ptrdiff_t a_stride;
    const uint8_t *b[2]; /* tiles of B */
};

/* A step of depth comes in parts of one or two products, between which tiles may be filled. */
enum part {
    PART_11,
    PART_12,  /* all of 1 x 2, the first half of 2 x 2 */
    PART_21,
    PART_22,  /* the second half of 2 x 2 */
    PART_TALL, /* the first half of 3 x 1 and 4 x 1, then the second */
    PART_31,
    PART_41,
};

struct step_parts {
    enum part part[2];
    int n;
};

static struct step_parts parts_of(struct block_shape shape)
{
    if (is_tall(shape))
        return (struct step_parts){{PART_TALL, shape.rows[3] ? PART_41 : PART_31}, 2};
    if (shape.rows[1] && shape.columns[1])
        return (struct step_parts){{PART_12, PART_22}, 2};
    return (struct step_parts){{shape.rows[1]      ? PART_21
                                : shape.columns[1] ? PART_12
                                                   : PART_11}, 1};
}

#define LOAD_A(i, tile) "tileloaddt1 (%[a" #i "],%[as],1), %%tmm" #tile "\n\t"
#define LOAD_B(j, tile) "tileloadd (%[b" #j "],%[bs],1), %%tmm" #tile "\n\t"
#define PRODUCT(c, a, b) "tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c "\n\t"
#define FIRST_PRODUCT LOAD_A(0, 4) LOAD_B(0, 6) PRODUCT(0, 4, 6)
/* Rows 0 and 1 of tiles of A that the text names are those from `row` on. */
#define RUN(text, row)                                                                           \
    __asm__ volatile(text                                                                        \
                     :                                                                           \
                     : [a0] "r"(a + (row) * below), [a1] "r"(a + ((row) + 1) * below),           \
                       [as] "r"(o->a_stride), [b0] "r"(o->b[0] + step * TILE_BYTES),             \
                       [b1] "r"(o->b[1] + step * TILE_BYTES),                                    \
                       [bs] "r"((ptrdiff_t)TILE_ROW_BYTES)                                       \
                     : "memory")

static inline void run_part(enum part part, const struct operands *o, int step)
{
    const uint8_t *a = o->a + step * TILE_ROW_BYTES;
    const ptrdiff_t below = TILE_ROWS * o->a_stride;
    switch (part) {
    case PART_11:
        RUN(FIRST_PRODUCT, 0);
        break;
    case PART_12:
        RUN(FIRST_PRODUCT LOAD_B(1, 7) PRODUCT(1, 4, 7), 0);
        break;
    case PART_21:
        RUN(FIRST_PRODUCT LOAD_A(1, 5) PRODUCT(2, 5, 6), 0);
        break;
    case PART_22:
        RUN(LOAD_A(0, 5) PRODUCT(2, 5, 6) PRODUCT(3, 5, 7), 1);
        break;
    case PART_TALL:
        RUN(FIRST_PRODUCT LOAD_A(1, 5) PRODUCT(1, 5, 6), 0);
        break;
    case PART_31:
        RUN(LOAD_A(0, 7) PRODUCT(2, 7, 6), 2);
        break;
    case PART_41:
        RUN(LOAD_A(0, 4) PRODUCT(2, 4, 6) LOAD_A(1, 7) PRODUCT(3, 7, 6), 2);
        break;
    }
}

/* The part of C that is in tiles, rows `stride` floats apart. */
struct square {
    float *c;
    size_t stride;
};

/* Where tile i of C is, in floats from the first; negative where there is none. */
static ptrdiff_t c_tile(struct block_shape shape, int i, size_t stride)
{
    int row = is_tall(shape) ? i : i / 2, column = is_tall(shape) ? 0 : i % 2;
    if (!shape.rows[row] || !shape.columns[column])
        return -1;
    return (ptrdiff_t)((size_t)(row * TILE_ROWS) * stride) + column * COLUMNS;
}

/* `action`(tile, address) for each tile of C. */
#define FOR_C_TILES(action, shape, base, stride)                                                 \
    do {                                                                                         \
        ptrdiff_t at;                                                                            \
        if ((at = c_tile(shape, 0, stride)) >= 0)                                                \
            action(0, (base) + at);                                                              \
        if ((at = c_tile(shape, 1, stride)) >= 0)                                                \
            action(1, (base) + at);                                                              \
        if ((at = c_tile(shape, 2, stride)) >= 0)                                                \
            action(2, (base) + at);                                                              \
        if ((at = c_tile(shape, 3, stride)) >= 0)                                                \
            action(3, (base) + at);                                                              \
    } while (0)

static void zero_c(struct block_shape shape)
{
#define ZERO(tile, address) TILE_ZERO(tile)
    FOR_C_TILES(ZERO, shape, 0, 0);
}

static void load_c(struct block_shape shape, const struct square *from)
{
    const size_t bytes = from->stride * sizeof(float);
#define LOAD(tile, address) TILE_LOAD(tile, address, bytes)
    FOR_C_TILES(LOAD, shape, from->c, from->stride);
}

static void store_c(struct block_shape shape, const struct square *to)
{
    const size_t bytes = to->stride * sizeof(float);
#define STORE(tile, address) TILE_STORE(tile, address, bytes)
    FOR_C_TILES(STORE, shape, to->c, to->stride);
}

/* ---- Jobs: a panel or a pair of them, a chunk of k ------------------------------------------- */

static int least(int x, int y) { return x < y ? x : y; }
static int divide_up(int x, int y) { return (x + y - 1) / y; }

struct job {
    int j, k0, k1; /* columns from j, k0 <= k < k1 */
    int panels;    /* 1 or 2 */
    int steps;     /* tiles of depth */
};

static bool c_stays(const struct gemm_args *g) { return g->m <= TALL; }
static bool rows_are_tall(const struct gemm_args *g) { return g->m > SQUARE && g->m <= TALL; }
static int job_columns(const struct gemm_args *g) { return rows_are_tall(g) ? COLUMNS : SQUARE; }

/* k in as few equal chunks as may be: between chunks C is stored and loaded again. */
static int chunk_k(int k)
{
    int steps = divide_up(k, TILE_K), n_chunks = divide_up(k, MAX_CHUNK_K);
    return divide_up(steps, n_chunks) * TILE_K;
}

static struct job job_at(const struct gemm_args *g, int j, int k0)
{
    int k1 = least(k0 + (c_stays(g) ? STAYING_K : chunk_k(g->k)), g->k);
    int columns = least(g->n1 - j, job_columns(g));
    return (struct job){j, k0, k1, divide_up(columns, COLUMNS), divide_up(k1 - k0, TILE_K)};
}

/* The job after this one; after the last comes one whose k0 is k. */
static struct job next_job(const struct gemm_args *g, const struct job *job)
{
    int j = job->j + job_columns(g);
    if (c_stays(g))
        return job->k1 < g->k || j >= g->n1 ? job_at(g, job->j, job->k1) : job_at(g, j, 0);
    return j < g->n1 ? job_at(g, j, job->k0) : job_at(g, g->n0, job->k1);
}

/* The tiles of a job on their way into scratch: those of the first panel, then of the second. */
struct filling {
    struct job job;
    struct tile_panel panels[2];
    uint8_t *tiles;
    int done, total;
};

static void fill_until(struct filling *f, const struct tile_source *source, int until)
{
    for (; f->done < until; f->done++) {
        int panel = f->done >= f->job.steps, step = f->done - panel * f->job.steps;
        source->fill(f->tiles + f->done * TILE_BYTES, &f->panels[panel],
                     f->job.k0 + step * TILE_K);
    }
}

static struct filling start_filling(const struct gemm_args *g, const struct tile_source *source,
                                    struct job job, uint8_t *tiles)
{
    struct filling f = {.job = job, .tiles = tiles};
    if (job.k0 == g->k)
        return f;
    f.total = job.panels * job.steps;
    for (int i = 0; i < job.panels; i++)
        f.panels[i] = source->panel(g, job.j / COLUMNS + i);
    return f;
}

/* The tiles of panel i of a job. */
static const uint8_t *tiles_of(const struct filling *f, const struct tile_source *source, int i)
{
    if (source->in_place)
        return f->panels[i].weights + (size_t)f->job.k0 * COLUMNS * 2;
    return f->tiles + i * f->job.steps * TILE_BYTES;
}

/* Rows or columns of the i-th tile of n. */
static uint8_t part(int n, int i)
{
    int rest = n - i * TILE_ROWS;
    return (uint8_t)(rest > 0 ? least(rest, TILE_ROWS) : 0);
}

/* The tiles of C for rows from i on. */
static struct block_shape shape_at(const struct gemm_args *g, const struct job *job, int i)
{
    int m = g->m - i, n = g->n1 - job->j;
    bool tall = rows_are_tall(g);
    return (struct block_shape){
        .rows = {part(m, 0), part(m, 1), tall ? part(m, 2) : 0, tall ? part(m, 3) : 0},
        .columns = {part(n, 0), tall ? 0 : part(n, 1)},
    };
}

static struct operands operands_at(const struct gemm_args *g, const struct filling *job,
                                   const struct tile_source *source, int i)
{
    return (struct operands){
        .a = (const uint8_t *)g->a + (size_t)i * g->a_stride + 2 * job->job.k0,
        .a_stride = (ptrdiff_t)g->a_stride,
        .b = {tiles_of(job, source, 0), tiles_of(job, source, job->job.panels - 1)},
    };
}

/* All rows of a job, filling the tiles of the next one meanwhile. */
static void run_job(const struct gemm_args *g, const struct tile_source *source,
                    const struct filling *now, float *squares, struct block_shape *configured,
                    struct filling *next)
{
    const struct job *job = &now->job;
    const bool stays = c_stays(g), first = job->k0 == 0, last = job->k1 == g->k;
    int n_squares = stays ? 1 : divide_up(g->m, SQUARE), column = job->j - g->n0;
    int done = 0, total = 2 * n_squares * job->steps; /* halves of steps */
    for (int s = 0; s < n_squares; s++) {
        int i = s * SQUARE;
        struct block_shape shape = shape_at(g, job, i);
        if (memcmp(&shape, configured, sizeof shape))
            configure(shape);
        *configured = shape;
        struct step_parts parts = parts_of(shape);
        struct operands o = operands_at(g, now, source, i);
        struct square kept = {squares + (size_t)(column / SQUARE * n_squares + s) * SQUARE_FLOATS,
                              SQUARE};
        struct square out = {g->c + (size_t)i * g->ldc + column, g->ldc};
        if (first)
            zero_c(shape);
        else if (!stays)
            load_c(shape, &kept);
        for (int step = 0; step < job->steps; step++)
            for (int part = 0; part < parts.n; part++) {
                run_part(parts.part[part], &o, step);
                done += 2 / parts.n;
                fill_until(next, source, next->total * done / total);
            }
        if (last)
            store_c(shape, &out);
        else if (!stays)
            store_c(shape, &kept);
    }
}

static size_t job_scratch(int k)
{
    return (size_t)chunk_k(k) / TILE_K * TILE_BYTES * 2;
}

size_t AMX_NAME(tile_gemm_scratch)(int k)
{
    size_t squares = k > MAX_CHUNK_K ? MAX_ROWS / SQUARE * (MAX_COLUMNS / SQUARE) : 0;
    return 2 * job_scratch(k) + squares * SQUARE_FLOATS * sizeof(float);
}

/* A block of at most MAX_ROWS rows and MAX_COLUMNS columns. */
static void multiply_block(const struct gemm_args *g, const struct tile_source *source)
{
    uint8_t *scratch[2] = {g->scratch, (uint8_t *)g->scratch + job_scratch(g->k)};
    float *squares = (float *)(scratch[1] + job_scratch(g->k));
    struct block_shape configured = {{0}, {0}};
    struct filling now = start_filling(g, source, job_at(g, g->n0, 0), scratch[0]);
    fill_until(&now, source, now.total);
    for (int turn = 1; now.job.k0 < g->k; turn ^= 1) {
        struct filling next = start_filling(g, source, next_job(g, &now.job), scratch[turn]);
        run_job(g, source, &now, squares, &configured, &next);
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

void AMX_NAME(tile_quantize_rows)(const struct quantize_args *q)
{
    const size_t k = (size_t)q->k, pad = act_content_bytes(ACT_BF16, k) - 2 * k;
    for (int i = 0; i < q->m; i++) {
        const float *from = q->x + (size_t)i * q->ldx;
        uint8_t *row = (uint8_t *)q->a + (size_t)i * q->a_stride, *to = row + 2 * q->k0;
        int done = 0, count = q->k1 - q->k0;
        for (; done + AMX_LANES <= count; done += AMX_LANES)
            vi_store_low_words(to + 2 * done, round_bf16(vf_load(from + done)));
        for (; done < count; done++) {
            uint16_t half = f32_to_bf16(from[done]);
            memcpy(to + 2 * done, &half, 2);
        }
        memset(row + 2 * k, 0, q->k1 == q->k ? pad : 0);
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

void AMX_NAME(tile_split_rows)(const struct quantize_args *q)
{
    for (int i = 0; i < q->m; i++) {
        const float *from = q->x + (size_t)i * q->ldx;
        uint8_t *to = (uint8_t *)q->a + (size_t)i * q->a_stride;
        to += q->k0 / TILE_K * 3 * TILE_ROW_BYTES;
        int done = 0, count = q->k1 - q->k0;
        for (; done + TILE_K <= count; done += TILE_K, to += 3 * TILE_ROW_BYTES)
            split_step(to, from + done);
        if (done == count)
            continue;
        float last[TILE_K] = {0};
        memcpy(last, from + done, (size_t)(count - done) * sizeof *last);
        split_step(to, last);
    }
}
