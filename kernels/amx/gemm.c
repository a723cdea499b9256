/* Products on bf16 tiles.
 *
 *   for each block of rows and of columns
 *     for each chunk of k
 *       for each pair of panels (32 columns): a job
 *         for each 32 rows
 *           2 x 2 tiles of C, in registers, += A (from L2, row by row) * B (tiles)
 *
 * The tiles of a job are filled into scratch while the last rows of the job before it are
 * multiplied, in place of that job's tiles (steps.h). Between chunks, of which most matrices have
 * one, the tiles of C rest in scratch, where 32 x 32 of them are 4 KiB in a row: storing and
 * loading C costs more than tiles of B from L2. Edges in rows and columns are shapes of the tile
 * configuration, so that nothing is read or written outside, and short tiles take less time.
 *
 * Up to 64 rows C stays in tiles over the whole of k, and a job is but a few tiles, which stay in
 * L1. With more than 32 rows these are 4 x 1 tiles of C. */
#include "kernels/amx/gemm.h"

#include <string.h>

#include "kernels/amx/steps.h"
#include "kernels/amx/tile.h"
#include "kernels/float16.h"

enum {
    COLUMNS = 16, /* of a panel and of a tile */
    SQUARE = 32,  /* rows and columns of 2 x 2 tiles of C */
    SQUARE_FLOATS = SQUARE * SQUARE,
    SQUARE_BYTES = SQUARE_FLOATS * (int)sizeof(float),
    TALL = 64,          /* rows of 4 x 1 tiles of C */
    STAYING_TILES = 16, /* of a job where C stays in tiles */
    MAX_CHUNK_K = 2048, /* k of a job elsewhere */
    /* Of a block: a chunk of A takes up to 1 MiB of L2, C in scratch 512 KiB. */
    MAX_ROWS = 256,
    MAX_COLUMNS = 512,
};

/* ---- Tiles of C ------------------------------------------------------------------------------ */

/* Rows and columns of C in tiles, 2 x 2 or 4 x 1 of them at most. */
struct shape {
    int rows, columns;
};

static int least(int x, int y) { return x < y ? x : y; }
static int divide_up(int x, int y) { return (x + y - 1) / y; }

static int tiles_of_a(struct shape shape) { return divide_up(shape.rows, TILE_ROWS); }
static int panels_of(struct shape shape) { return shape.columns > COLUMNS ? 2 : 1; }

/* Rows or columns of the i-th tile of n. */
static int part(int n, int i)
{
    int rest = n - i * TILE_ROWS;
    return rest > 0 ? least(rest, TILE_ROWS) : 0;
}

static void set_tile(struct tile_config *config, int tile, int rows, int columns)
{
    config->rows[tile] = rows && columns ? (uint8_t)rows : 0;
    config->row_bytes[tile] = rows && columns ? (uint16_t)(4 * columns) : 0;
}

/* Tiles as in steps.h. */
static void configure(struct shape shape)
{
    struct tile_config config = {.palette = 1};
    const int n = tiles_of_a(shape), panels = panels_of(shape);
    for (int i = 0; i < n * panels; i++)
        set_tile(&config, i, part(shape.rows, i / panels), part(shape.columns, i % panels));
    set_tile(&config, 4, part(shape.rows, 0), COLUMNS);
    set_tile(&config, 5, part(shape.rows, 1), COLUMNS);
    set_tile(&config, 6, TILE_ROWS, part(shape.columns, 0));
    if (panels == 2)
        set_tile(&config, 7, TILE_ROWS, part(shape.columns, 1));
    else if (n > 2)
        set_tile(&config, 7, part(shape.rows, n - 1), COLUMNS);
    tile_load_config(&config);
}

/* `action`(tile) for each tile of C. */
#define FOR_C_TILES(action, shape)                                                               \
    do {                                                                                         \
        const int n_tiles = tiles_of_a(shape) * panels_of(shape);                                \
        action(0);                                                                               \
        if (n_tiles > 1)                                                                         \
            action(1);                                                                           \
        if (n_tiles > 2)                                                                         \
            action(2);                                                                           \
        if (n_tiles > 3)                                                                         \
            action(3);                                                                           \
    } while (0)

/* Where tile i of C begins, whose rows are `stride` floats apart. */
static size_t c_tile(struct shape shape, int i, size_t stride)
{
    const int panels = panels_of(shape);
    return (size_t)(i / panels * TILE_ROWS) * stride + (size_t)(i % panels * COLUMNS);
}

static void zero_c(struct shape shape)
{
    FOR_C_TILES(TILE_ZERO, shape);
}

static void load_c(struct shape shape, const float *c, size_t stride)
{
#define LOAD(tile) TILE_LOAD(tile, c + c_tile(shape, tile, stride), stride * sizeof(float))
    FOR_C_TILES(LOAD, shape);
}

static void store_c(struct shape shape, float *c, size_t stride)
{
#define STORE(tile) TILE_STORE(tile, c + c_tile(shape, tile, stride), stride * sizeof(float))
    FOR_C_TILES(STORE, shape);
}

/* Steps that fill nothing. */
static void run_plain(struct shape shape, const struct tile_steps *s)
{
    switch (4 * panels_of(shape) + tiles_of_a(shape)) {
    case 4 + 1: run_steps(s, 1, 1, NULL, NULL); break;
    case 4 + 2: run_steps(s, 2, 1, NULL, NULL); break;
    case 4 + 3: run_steps(s, 3, 1, NULL, NULL); break;
    case 4 + 4: run_steps(s, 4, 1, NULL, NULL); break;
    case 8 + 1: run_steps(s, 1, 2, NULL, NULL); break;
    default: run_steps(s, 2, 2, NULL, NULL);
    }
}

/* ---- Jobs: a panel or a pair of them, a chunk of k ------------------------------------------- */

struct job {
    int j, k0, k1; /* columns from j, k0 <= k < k1 */
    int panels;    /* 1 or 2 */
    int steps;     /* tiles of depth */
    bool beyond;   /* of the product that the caller says comes next */
};

/* What the jobs of a block share. */
struct block {
    const struct gemm_args *g;
    const struct tile_source *source;
    struct tile_panel first_panel;
    int n_squares;           /* of 32 rows, or a tall one */
    uint8_t *tiles;          /* of the present job, [steps, panels] */
    float *kept;             /* C between chunks, [columns / 32, n_squares, 32, 32] */
    struct tile_fetch fetch;
    struct shape configured; /* what the tiles of the CPU are configured for */
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

static struct job job_at(const struct gemm_args *g, int j, int k0, bool beyond)
{
    int panels = divide_up(least(g->n1 - j, job_columns(g)), COLUMNS);
    int staying_steps = STAYING_TILES / (job_columns(g) / COLUMNS);
    int k1 = least(k0 + (c_stays(g) ? staying_steps * TILE_K : chunk_k(g->k)), g->k);
    return (struct job){j, k0, k1, panels, divide_up(k1 - k0, TILE_K), beyond};
}

static struct job next_job(const struct gemm_args *g, const struct job *job)
{
    const int j = job->j + job_columns(g);
    if (c_stays(g) && job->k1 < g->k)
        return job_at(g, job->j, job->k1, job->beyond);
    if (j < g->n1)
        return job_at(g, j, c_stays(g) ? 0 : job->k0, job->beyond);
    if (job->k1 < g->k)
        return job_at(g, g->n0, job->k1, job->beyond);
    return job_at(g, g->n0, 0, true);
}

/* The job whose weights are fetched while this one runs: where C stays the same k of the next 32
 * columns, elsewhere, where jobs are longer, the job after the next. */
static struct job later_job(const struct gemm_args *g, const struct job *job)
{
    if (!c_stays(g)) {
        struct job next = next_job(g, job);
        return next_job(g, &next);
    }
    const bool beyond = job->j + SQUARE >= g->n1;
    return job_at(g, job->j + SQUARE - (beyond ? g->n1 - g->n0 : 0), job->k0, beyond);
}

static struct tile_panel panel_at(const struct block *b, const struct job *job, int i)
{
    struct tile_panel panel = b->first_panel;
    int index = job->j / COLUMNS + i;
    if (job->beyond) {
        panel.weights = b->g->next;
        index -= b->g->n0 / COLUMNS;
    }
    panel.weights += (size_t)index * panel.stride;
    return panel;
}

/* The tiles of panel i of a job from its first k on. */
static const uint8_t *tiles_of(const struct block *b, const struct job *job, int i)
{
    if (b->source->in_place)
        return panel_at(b, job, i).weights + (size_t)job->k0 * COLUMNS * 2;
    return b->tiles + i * TILE_BYTES;
}

/* Tiles of a job from step `from` on, without products between. */
static void fill_steps(const struct block *b, const struct job *job, int from)
{
    for (int i = 0; i < job->panels; i++) {
        struct tile_panel panel = panel_at(b, job, i);
        for (int step = from; step < job->steps; step++)
            b->source->fill(b->tiles + (job->panels * step + i) * TILE_BYTES, &panel,
                            (unsigned)(job->k0 + step * TILE_K));
    }
}

/* `rows` rows of lines, to be fetched within so many steps. */
static struct tile_lines lines_at(const void *data, size_t stride, int rows, size_t row_bytes,
                                  int steps)
{
    const int row_lines = (int)((row_bytes + CACHE_LINE - 1) / CACHE_LINE);
    return (struct tile_lines){.row = data,
                               .stride = stride,
                               .rows = row_lines ? rows : 0,
                               .row_lines = row_lines,
                               .per_step = divide_up(rows * row_lines, steps)};
}

/* Fetching the weights of a job, so that it is done after `steps` steps of products. */
static void start_fetch(struct tile_fetch *fetch, const struct block *b, const struct job *job,
                        int steps)
{
    fetch->weights.rows = fetch->heads.rows = 0;
    if (job->beyond && !b->g->next)
        return;
    const struct tile_panel panel = panel_at(b, job, 0);
    const size_t step = (size_t)(job->k0 / TILE_K), n = (size_t)job->steps;
    fetch->weights = lines_at(panel.weights + step * panel.step_bytes, panel.stride, job->panels,
                              n * panel.step_bytes, steps);
    fetch->heads = lines_at(panel.weights + panel.heads + step * panel.step_head_bytes,
                            panel.stride, job->panels, n * panel.step_head_bytes, steps);
}

/* What no job fetches, as it is the first that is needed. */
static void fetch_first(const struct block *b)
{
    const struct gemm_args *g = b->g;
    struct job job = job_at(g, g->n0, 0, false);
    const struct job later = later_job(g, &job);
    for (; !job.beyond; job = next_job(g, &job)) {
        if (!later.beyond && job.j == later.j && job.k0 == later.k0)
            break;
        struct tile_fetch all = {.results = {.rows = 0}};
        start_fetch(&all, b, &job, 1);
        fetch_some(&all);
    }
}

/* Where square i of a job rests between chunks. */
static float *kept_square(const struct block *b, const struct job *job, int i)
{
    int square = (job->j - b->g->n0) / SQUARE * b->n_squares + i;
    return b->kept + (size_t)square * SQUARE_FLOATS;
}

static void set_shape(struct block *b, struct shape shape)
{
    if (shape.rows != b->configured.rows || shape.columns != b->configured.columns)
        configure(shape);
    b->configured = shape;
}

/* What is fetched while the tiles of a job are filled, as an offset: see later_job. */
static uintptr_t ahead_of(const struct block *b, const struct job *job)
{
    const struct gemm_args *g = b->g;
    const size_t stride = b->first_panel.stride;
    if (!c_stays(g))
        return 0;
    if (job->j + SQUARE < g->n1)
        return SQUARE / COLUMNS * stride;
    const int column = job->j + SQUARE - g->n1;
    return g->next ? (uintptr_t)g->next + (size_t)(column / COLUMNS) * stride -
                         (uintptr_t)panel_at(b, job, 0).weights
                   : 0;
}

/* The last products of a job, with the tiles of the next one filled meanwhile. */
static void run_and_fill(struct shape shape, const struct block *b, struct tile_steps *s,
                         const struct job *next)
{
    const int n = tiles_of_a(shape), panels = panels_of(shape), steps = s->steps;
    const bool meanwhile = panels == next->panels && panels == (n > 2 ? 1 : 2);
    const int filled = meanwhile ? least(steps, next->steps) : 0;
    if (filled) {
        s->from = panel_at(b, next, 0);
        s->from.ahead = ahead_of(b, next);
        s->from_k = (unsigned)next->k0;
        s->to = b->tiles;
        s->steps = filled;
        b->source->run[n - 1](s);
    }
    if (filled < steps) {
        s->a += filled * TILE_ROW_BYTES;
        s->b[0] += filled * s->b_stride;
        s->b[1] += filled * s->b_stride;
        s->steps = steps - filled;
        run_plain(shape, s);
    }
    if (filled < next->steps)
        fill_steps(b, next, filled);
}

/* What square i of a job is stored to, and what the square after it begins with, come into L1
 * during the products: a store that misses L1 keeps the loads of the next products waiting. */
static void fetch_sums(struct block *b, const struct job *job, int i, struct shape shape,
                       const float *c)
{
    const struct gemm_args *g = b->g;
    const bool stays = c_stays(g);
    if (stays ? job->k0 == 0 : job->k1 == g->k)
        b->fetch.results = lines_at(c, g->ldc * sizeof *c, shape.rows,
                                    (size_t)shape.columns * sizeof *c,
                                    stays ? divide_up(g->k, TILE_K) : job->steps);
    else if (!stays)
        b->fetch.results = lines_at(kept_square(b, job, i), 0, 1, SQUARE_BYTES, job->steps);
    if (!stays && job->k0 > 0)
        b->fetch.kept =
            lines_at(kept_square(b, job, i) + SQUARE_FLOATS, 0, 1, SQUARE_BYTES, job->steps);
}

/* All rows of a job, and fetching weights of a later one. Of its squares the first may have fewer
 * rows: the last one's products hide the filling of tiles. */
static void run_job(struct block *b, const struct job *job, const struct job *next)
{
    const struct gemm_args *g = b->g;
    const bool fills = !b->source->in_place && !next->beyond;
    const int plain_steps = (b->n_squares - fills) * job->steps;
    if (plain_steps > 0) {
        const struct job later = later_job(g, job);
        start_fetch(&b->fetch, b, &later, plain_steps);
    }
    const bool stays = c_stays(g), first = job->k0 == 0, last = job->k1 == g->k;
    const int column = job->j - g->n0;
    struct tile_steps s = {
        .a_stride = (ptrdiff_t)g->a_stride,
        .b = {tiles_of(b, job, 0), tiles_of(b, job, job->panels - 1)},
        .b_stride = b->source->in_place ? TILE_BYTES : job->panels * TILE_BYTES,
        .steps = job->steps,
        .fetch = &b->fetch,
    };
    int row = 0, rows = g->m - (b->n_squares - 1) * SQUARE;
    for (int i = 0; i < b->n_squares; i++, row += rows, rows = SQUARE) {
        const struct shape shape = {rows, least(g->n1 - job->j, job_columns(g))};
        float *c = g->c + (size_t)row * g->ldc + column;
        set_shape(b, shape);
        if (first)
            zero_c(shape);
        else if (!stays)
            load_c(shape, kept_square(b, job, i), SQUARE);
        s.a = (const uint8_t *)g->a + (size_t)row * g->a_stride + 2 * job->k0;
        fetch_sums(b, job, i, shape, c);
        if (fills && i == b->n_squares - 1)
            run_and_fill(shape, b, &s, next);
        else
            run_plain(shape, &s);
        if (last)
            store_c(shape, c, g->ldc);
        else if (!stays)
            store_c(shape, kept_square(b, job, i), SQUARE);
    }
}

static size_t job_scratch(int k) { return (size_t)chunk_k(k) / TILE_K * TILE_BYTES * 2; }

size_t AMX_NAME(tile_gemm_scratch)(int k)
{
    size_t squares = k > MAX_CHUNK_K ? MAX_ROWS / SQUARE * (MAX_COLUMNS / SQUARE) : 0;
    return job_scratch(k) + squares * SQUARE_FLOATS * sizeof(float);
}

static void multiply_block(const struct gemm_args *g, const struct tile_source *source)
{
    struct block b = {.g = g,
                      .source = source,
                      .first_panel = source->first_panel(g),
                      .n_squares = rows_are_tall(g) ? 1 : divide_up(g->m, SQUARE),
                      .tiles = g->scratch,
                      .kept = (float *)((uint8_t *)g->scratch + job_scratch(g->k))};
    struct job jobs[2] = {job_at(g, g->n0, 0, false)}; /* this one and the next, in turn */
    jobs[1] = next_job(g, &jobs[0]);
    fetch_first(&b);
    if (!source->in_place)
        fill_steps(&b, &jobs[0], 0);
    for (int i = 0; !jobs[i].beyond; i ^= 1) {
        run_job(&b, &jobs[i], &jobs[i ^ 1]);
        jobs[i] = next_job(g, &jobs[i ^ 1]);
    }
}

void AMX_NAME(tile_gemm)(const struct gemm_args *g, const struct tile_source *source)
{
    /* Columns are blocked for the sake of what is kept between chunks. */
    const int columns = g->k > MAX_CHUNK_K ? MAX_COLUMNS : g->n1 - g->n0;
    const size_t panel_bytes = source->first_panel(g).stride;
    struct gemm_args block = *g;
    for (int i = 0; i < g->m; i += MAX_ROWS) {
        block.m = least(g->m - i, MAX_ROWS);
        block.a = (const uint8_t *)g->a + (size_t)i * g->a_stride;
        for (int j = g->n0; j < g->n1; j += columns) {
            block.n0 = j;
            block.n1 = least(g->n1, j + columns);
            block.c = g->c + (size_t)i * g->ldc + (j - g->n0);
            block.next = block.n1 < g->n1 ? (const uint8_t *)g->w + block.n1 / COLUMNS * panel_bytes
                         : i + MAX_ROWS < g->m ? NULL
                                               : g->next;
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
