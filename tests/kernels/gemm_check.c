/* The product of every record is held against double precision on the weights and activations that
 * the kernel was given, within a bound on the rounding of its sums (see "Bounds"); where all
 * numbers are integers (WEIGHTS_EXACT, ACTS_EXACT) no float rounds and the product must be equal,
 * to that of every other record too, but for tiles of codes, where a zero may be as large as a
 * rounding error. */
#include "tests/kernels/gemm_check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernels/amx/tile.h"
#include "kernels/float16.h"
#include "tests/kernels/gemm_data.h"
#include "tests/support/guard.h"
#include "bench/random_weights.h"

enum { MANY_ROWS = 97, MAX_K = 2304, GAP = 3, SHOWN_FAILURES = 8 };

#define EXACT_LIMIT 0x1p23 /* integers up to here, and twice as large, are floats */

/* The activations as a product sees them: a record has one or, as many rows take another way than
 * few, two. */
enum view { VIEW_F32, VIEW_Q8, VIEW_BF16, VIEW_BF16X3, VIEWS };

struct gemm_case {
    const struct gemm_kernel *kernel;
    const struct block_type *type;
    enum weights_kind weights;
    enum acts_kind acts;
    int m_max, n, k;
    size_t row_bytes;
    void *rows;   /* [n, k] in the file's blocks */
    void *packed; /* or `rows` */
    float *x;     /* [m_max, k] */
    void *a;      /* [m_max] activation rows */
    size_t a_stride;
    float *c; /* [m_max, n], rows ldc apart, nothing after the last */
    size_t ldc;
    void *scratch;
    /* [VIEWS][m_max, n]: the products, and how far from them one may be. */
    double *want[VIEWS], *slack[VIEWS];
    bool at_start; /* memory begins at a guard page */
};

void report_failure(struct report *report, const char *format, ...)
{
    va_list args;
    if (report->n_failed++ >= SHOWN_FAILURES)
        return;
    printf("\n    ");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
}

static void fail(struct report *report, const struct gemm_case *g, const char *what)
{
    report_failure(report, "n %d, k %d, weights %s, acts %s: %s", g->n, g->k,
                   weights_names[g->weights], acts_names[g->acts], what);
}

static void *allocate(const struct gemm_case *g, size_t n_bytes)
{
    return g->at_start ? guarded_after(n_bytes) : guarded(n_bytes);
}

/* ---- Activations ----------------------------------------------------------------------------- */

/* The view of a product of m rows. */
static enum view view_of(const struct gemm_case *g, int m)
{
    bool many = m >= g->kernel->min_rows;
    switch (g->kernel->act_format) {
    case ACT_Q8: return VIEW_Q8;
    case ACT_BF16: return VIEW_BF16;
    case ACT_BF16_Q8: return many ? VIEW_BF16 : VIEW_Q8;
    case ACT_BF16X3_F32: return many && g->k % 32 == 0 ? VIEW_BF16X3 : VIEW_F32;
    default: return VIEW_F32;
    }
}

static bool has_view(const struct gemm_case *g, enum view view)
{
    return view_of(g, 0) == view || view_of(g, MANY_ROWS) == view;
}

static double activation(const struct gemm_case *g, enum view view, int row, int i)
{
    const char *a = (const char *)g->a + (size_t)row * g->a_stride;
    if (view == VIEW_BF16)
        return bf16_to_f32(((const uint16_t *)a)[i]);
    if (g->kernel->act_format == ACT_BF16_Q8)
        a += act_content_bytes(ACT_BF16, (size_t)g->k);
    if (g->kernel->act_format == ACT_BF16X3_F32)
        a += 3 * act_content_bytes(ACT_BF16, (size_t)g->k);
    if (view != VIEW_Q8)
        return ((const float *)a)[i];
    const float *scales = (const float *)(a + act_q8_scale_offset((size_t)g->k));
    return (double)scales[i / 32] * ((const int8_t *)a)[i];
}

/* ---- Bounds ----------------------------------------------------------------------------------
 *
 * U is the largest relative error of one operation on floats. A sum whose every term goes through
 * at most n of them is off by no more than n * U * T, T the sum of the terms' magnitudes (Higham,
 * Accuracy and Stability of Numerical Algorithms, 4.2). T is of the terms that are summed, which
 * may be larger than the products are:
 *
 *     floats, tiles    x * w
 *     codes            x * step * code and x * zero, where w = step * code - zero and codes are
 *                      unsigned: up to `spread` and `largest`, or a step more where a table's
 *                      values are offset by 128
 *
 * If all terms are alike, so are their errors, and a sum comes near to the bound (IQ4_XS codes and
 * activations at their ends: 330 U of 2048). Otherwise errors are of either sign, and the sum of n
 * grows with the root of n; twice the root is never exceeded in practice (Higham and Mary, A New
 * Approach to Probabilistic Rounding Error Analysis, 2019), with room for those few that all terms
 * share. */
#define U 0x1p-24

/* In units of U * T. */
static double sum_error(const struct gemm_case *g, enum view view)
{
    /* An addition and maybe the product, then those of partial sums: of floats, and of pairs of
     * bf16 in vectors, which take two additions. Or, for each of the scales of a unit of 32, of
     * codes and of zeros; and the products of scales. Or the 16 of an even or odd k in a tile,
     * those of both and of C, for every tile of depth. */
    bool tiles = g->kernel->cpu_flags & CPU_AMX_TILE;
    double n = view == VIEW_F32 || (view == VIEW_BF16 && !tiles) ? g->k + 4.0
               : view == VIEW_Q8                                 ? 4.0 * g->k / 32 + 3.0
               : view == VIEW_BF16                               ? 18.0 + g->k / 32.0
                                                                 : 18.0 + 3.0 * g->k / 32;
    bool alike = g->acts == ACTS_SATURATED;
    return alike ? n : fmin(n, 8.0 + 2.0 * sqrt(n));
}

/* A weight of codes as it is brought into tiles: a little larger, then truncated to bf16 (TRUNCATION
 * in kernels/amx/dequantize.h); bf16 numbers stay what they are. */
static double tile_weight(double w)
{
    return f32_from_bits(f32_bits((float)(w * (1.0 + 1.0 / 384))) & 0xffff0000);
}

/* How far a weight in a tile may be from tile_weight(w). Before it is truncated, it has been
 * step * (origin + code) + (-step * origin - minimum), which is off by the rounding of the second
 * term and of the sum (kernels/amx/dequantize.h), and w itself by that of two terms. A smaller
 * error can take it to the next bf16, a larger one further; a zero becomes as large as the error. */
static double tile_weight_error(uint32_t id, double w, const struct weight_range *range)
{
    bool wide = id == BLOCK_Q8_0 || id == BLOCK_IQ4_NL || id == BLOCK_IQ4_XS;
    double origin = wide ? 32768 + 128 : 128 + 32, weight = tile_weight(w);
    double error = U * range->step * origin + 6 * U * (range->spread + range->largest);
    if (block_type_find(id)->n_elems == 1)
        return 0.0; /* BF16 is in tiles as it is */
    return fmax(tile_weight(w + error) - weight, weight - tile_weight(w - error));
}

static double weight_error(enum view view, uint32_t id, double w, const struct weight_range *range)
{
    switch (view) {
    case VIEW_BF16: return tile_weight_error(id, w, range);
    /* bf16 rounds to 8 bits: two leave up to 2^-16 of a weight and of an activation out, their
     * product that of the low parts, 2^-8 * 2^-8 at most. */
    case VIEW_BF16X3: return 3.02 * 0x1p-16 * fabs(w);
    default: return 0.0;
    }
}

/* ---- The reference --------------------------------------------------------------------------- */

/* One column: its weights, as tiles hold them where they go there; the largest terms that they may
 * be the sum of; how far off they may be. */
struct column {
    double w[MAX_K], terms[MAX_K], error[MAX_K];
};

static void load_column(const struct gemm_case *g, enum view view, int j, struct column *column)
{
    static float w[MAX_K];
    static struct weight_range ranges[MAX_K];
    const char *blocks = (const char *)g->rows + (size_t)j * g->row_bytes;
    size_t elems = g->type->n_elems;
    g->type->dequantize(blocks, w, (size_t)g->k);
    for (size_t i = 0; i < (size_t)g->k; i += elems)
        weight_ranges(g->type, blocks + i / elems * g->type->n_bytes, ranges + i);
    for (int i = 0; i < g->k; i++) {
        const struct weight_range *r = &ranges[i];
        column->w[i] = view == VIEW_BF16 ? tile_weight(w[i]) : w[i];
        column->error[i] = weight_error(view, g->kernel->block_id, w[i], r);
        column->terms[i] =
            view == VIEW_Q8 ? r->spread + r->largest + 2.0 * r->step : fabs(column->w[i]);
    }
}

static void reference_product(const struct gemm_case *g, enum view view, int row, int j,
                              const struct column *column)
{
    double sum = 0.0, terms = 0.0, inputs = 0.0, weight_errors = 0.0;
    for (int i = 0; i < g->k; i++) {
        double x = activation(g, view, row, i);
        sum += x * column->w[i];
        terms += fabs(x) * column->terms[i];
        weight_errors += fabs(x) * column->error[i];
        inputs += fabs(x) + fabs(column->w[i]) + 1.0;
    }
    bool tiles_of_codes = view == VIEW_BF16 && g->type->n_elems > 1;
    bool exact = g->weights == WEIGHTS_EXACT && g->acts == ACTS_EXACT && terms < EXACT_LIMIT &&
                 !tiles_of_codes;
    int at = row * g->n + j;
    g->want[view][at] = sum;
    /* The last term: tiles and VDPBF16PS take subnormal numbers as zeros. */
    g->slack[view][at] =
        exact ? 0.0 : sum_error(g, view) * U * terms + weight_errors + inputs * 0x1p-124;
}

static void make_reference(struct gemm_case *g)
{
    static struct column column;
    for (int view = 0; view < VIEWS; view++) {
        if (!has_view(g, view))
            continue;
        g->want[view] = guarded((size_t)g->m_max * (size_t)g->n * sizeof(double));
        g->slack[view] = guarded((size_t)g->m_max * (size_t)g->n * sizeof(double));
        for (int j = 0; j < g->n; j++) {
            load_column(g, view, j, &column);
            for (int row = 0; row < g->m_max; row++)
                reference_product(g, view, row, j, &column);
        }
    }
}

/* ---- Packing --------------------------------------------------------------------------------- */

/* Packs in two parts, over bytes that are not zero, and at once: every byte must be the same. */
static void check_pack(struct report *report, struct gemm_case *g)
{
    const struct gemm_kernel *kernel = g->kernel;
    size_t bytes = kernel->packed_bytes(g->n, g->k), file_bytes = (size_t)g->n * g->row_bytes;
    int panels = (g->n + kernel->nr - 1) / kernel->nr, middle = panels / 2 * kernel->nr;
    const char *rest = (const char *)g->rows + (size_t)middle * g->row_bytes;
    void *whole = allocate(g, bytes), *rows = allocate(g, file_bytes);
    g->packed = allocate(g, bytes);
    memset(g->packed, 0xa5, bytes);
    memset(whole, 0x5a, bytes);
    kernel->pack(g->packed, rest, g->n, g->k, middle, g->n);
    kernel->pack(g->packed, g->rows, g->n, g->k, 0, middle);
    kernel->pack(whole, g->rows, g->n, g->k, 0, g->n);
    if (memcmp(g->packed, whole, bytes) != 0)
        fail(report, g, "packing in parts differs from packing at once");
    kernel->unpack(rows, whole, g->n, g->k, 0, g->n);
    if (memcmp(rows, g->rows, file_bytes) != 0)
        fail(report, g, "unpacking does not give the file's bytes");
    size_t part = (size_t)(g->n - middle) * g->row_bytes;
    void *last_rows = allocate(g, part);
    kernel->unpack(last_rows, whole, g->n, g->k, middle, g->n);
    if (memcmp(last_rows, rest, part) != 0)
        fail(report, g, "unpacking a part does not give the file's bytes");
    /* Panels are padded to 16 columns and 64 bytes, which only small matrices feel. */
    if (g->n % 16 == 0 && g->k >= 512 && (double)bytes > 1.05 * (double)file_bytes)
        fail(report, g, "packed is more than 5% larger than the file");
    report->n_checks += 3;
}

/* ---- Products -------------------------------------------------------------------------------- */

static void check_tiles_released(struct report *report, const struct gemm_case *g)
{
    struct tile_config config, released = {0};
    tile_store_config(&config);
    if (memcmp(&config, &released, sizeof config) != 0)
        fail(report, g, "tiles are not released");
}

/* What the product left in C [m, ldc]: columns [n0, n1) as the reference has them, from its row
 * `first` on, and the others as they were, all bits set. */
static void check_values(struct report *report, const struct gemm_case *g, const float *c,
                         int first, int m, int n0, int n1)
{
    enum view view = view_of(g, m);
    for (int row = 0; row < m; row++)
        for (int j = 0; j < (row + 1 < m ? (int)g->ldc : g->n); j++) {
            float got = c[(size_t)row * g->ldc + (size_t)j];
            if (j < n0 || j >= n1) {
                if (f32_bits(got) != UINT32_MAX)
                    fail(report, g, "written outside of the columns asked for");
                continue;
            }
            int at = (first + row) * g->n + j;
            if (fabs(got - g->want[view][at]) <= g->slack[view][at])
                continue;
            report_failure(report,
                           "m %d, n %d, k %d, columns %d to %d, weights %s, acts %s: [%d, %d] is "
                           "%.9g, not %.9g +- %.2g",
                           m, g->n, g->k, n0, n1, weights_names[g->weights], acts_names[g->acts],
                           row, j, got, g->want[view][at], g->slack[view][at]);
        }
}

static void check_columns(struct report *report, const struct gemm_case *g, int m, int n0, int n1)
{
    /* The rows of A and C that touch the guard page. */
    int first = g->at_start ? 0 : g->m_max - m;
    float *c = g->c + (size_t)first * g->ldc;
    struct gemm_args args = {
        .w = g->packed,
        .n = g->n,
        .k = g->k,
        .n0 = n0,
        .n1 = n1,
        .a = (const char *)g->a + (size_t)first * g->a_stride,
        .a_stride = g->a_stride,
        .m = m,
        .min_rows = g->kernel->min_rows,
        .c = c + n0,
        .ldc = g->ldc,
        .scratch = g->scratch,
        .next = m % 2 ? g->packed : NULL, /* only fetched */
    };
    memset(g->c, 0xff, ((size_t)(g->m_max - 1) * g->ldc + (size_t)g->n) * sizeof(float));
    if (g->kernel->begin)
        g->kernel->begin();
    g->kernel->gemm(&args);
    if (g->kernel->end)
        g->kernel->end();
    if (g->kernel->cpu_flags & CPU_AMX_TILE)
        check_tiles_released(report, g);
    check_values(report, g, c, first, m, n0, n1);
    report->n_checks++;
}

static void make_case(struct gemm_case *g, uint64_t *seed)
{
    size_t scratch_bytes = act_round_up(g->kernel->scratch_bytes(g->k), 64);
    g->type = block_type_find(g->kernel->block_id);
    g->row_bytes = (size_t)g->k / g->type->n_elems * g->type->n_bytes;
    g->rows = allocate(g, (size_t)g->n * g->row_bytes);
    g->packed = g->rows;
    g->x = allocate(g, (size_t)g->m_max * (size_t)g->k * sizeof(float));
    g->a_stride = act_row_bytes(g->kernel->act_format, (size_t)g->k);
    g->a = allocate(g, (size_t)(g->m_max - 1) * g->a_stride +
                           act_content_bytes(g->kernel->act_format, (size_t)g->k));
    g->ldc = (size_t)g->n + GAP;
    g->c = allocate(g, ((size_t)(g->m_max - 1) * g->ldc + (size_t)g->n) * sizeof(float));
    g->scratch = allocate(g, scratch_bytes);
    memset(g->scratch, 0xff, scratch_bytes);
    fill_weights(g->weights, g->type, g->rows, (size_t)g->n * g->row_bytes, seed);
    fill_acts(g->acts, g->x, g->m_max, g->k, seed);
    quantize_whole_rows(g->kernel, g->a, g->a_stride, g->x, (size_t)g->k, g->m_max, g->k);
}

static void check_case(struct report *report, struct gemm_case *g, const int *rows, uint64_t *seed)
{
    make_case(g, seed);
    if (g->kernel->pack)
        check_pack(report, g);
    make_reference(g);
    for (; *rows >= 0; rows++) {
        check_columns(report, g, *rows, 0, g->n);
        if (*rows != 1 && *rows != 5 && *rows != 17)
            continue;
        for (int n0 = 0; n0 < g->n; n0 += g->kernel->nr)
            check_columns(report, g, *rows, n0,
                          n0 + g->kernel->nr < g->n ? n0 + g->kernel->nr : g->n);
    }
    guarded_free_all();
}

/* ---- The grid -------------------------------------------------------------------------------- */

/* Lists end at -1. */
struct grid {
    int rows[24], columns[8];
    int depths[3][8]; /* for types of blocks of 1, 32 and 256 */
    bool cross;       /* more pairs of data for every shape */
};

static const struct grid small_grid = {
    .rows = {0, 1, 2, 3, 5, 8, 15, 17, 33, 50, 97, -1},
    .columns = {1, 17, 48, -1},
    .depths = {{7, 800, 1, -1}, {96, 2080, 32, -1}, {256, 2304, -1}},
};
static const struct grid large_grid = {
    .rows = {0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 48, 49, 64, 65, 97, -1},
    .columns = {1, 16, 17, 31, 48, 200, -1},
    .depths = {{1, 7, 64, 172, 513, 2048, -1},
               {32, 64, 96, 256, 288, 512, 2048, -1},
               {256, 512, 768, 2048, -1}},
    .cross = true,
};

/* Pairs that no run leaves out. */
static const struct {
    enum weights_kind weights;
    enum acts_kind acts;
} pairs[] = {
    {WEIGHTS_EXACT, ACTS_EXACT},   {WEIGHTS_RANDOM, ACTS_RANDOM},
    {WEIGHTS_BITS, ACTS_OUTLIERS}, {WEIGHTS_EXTREME, ACTS_SATURATED},
    {WEIGHTS_TINY, ACTS_RANDOM},   {WEIGHTS_NEGATIVE, ACTS_TINY},
    {WEIGHTS_ZERO, ACTS_OUTLIERS}, {WEIGHTS_RANDOM, ACTS_ZERO},
    {WEIGHTS_TINY, ACTS_SATURATED},
};
enum { N_PAIRS = sizeof pairs / sizeof pairs[0] };

/* Beyond the blocks of rows, columns and k that products of bf16 keep in caches: where types differ
 * these do not, so that two do for all. */
static void check_blocks(struct report *report, uint64_t *seed)
{
    static const int rows[] = {270, -1};
    const struct gemm_kernel *kernel = report->kernel;
    bool blocked = kernel->cpu_flags & (CPU_AMX_TILE | CPU_AVX512_BF16);
    struct gemm_case g = {.kernel = kernel, .weights = WEIGHTS_RANDOM, .acts = ACTS_RANDOM,
                          .m_max = 270, .n = 290, .k = MAX_K};
    if (blocked && (kernel->block_id == BLOCK_Q4_0 || kernel->block_id == BLOCK_BF16))
        check_case(report, &g, rows, seed);
}

void check_products(struct report *report, bool all)
{
    const struct grid *grid = all ? &large_grid : &small_grid;
    int elems = (int)block_type_find(report->kernel->block_id)->n_elems;
    const int *depths = grid->depths[elems == 1 ? 0 : elems == 32 ? 1 : 2];
    uint64_t seed = 1;
    unsigned round = 0;
    for (const int *n = grid->columns; *n >= 0; n++)
        for (const int *k = depths; *k >= 0; k++, round++) {
            struct gemm_case g = {
                .kernel = report->kernel,
                .weights = pairs[round % N_PAIRS].weights,
                .acts = pairs[round % N_PAIRS].acts,
                .m_max = MANY_ROWS,
                .n = *n,
                .k = *k,
                .at_start = round % 2,
            };
            check_case(report, &g, grid->rows, &seed);
            if (!grid->cross)
                continue;
            g.at_start = !g.at_start;
            check_case(report, &g, grid->rows, &seed);
            g.weights = (enum weights_kind)(round % WEIGHTS_KINDS);
            g.acts = (enum acts_kind)(round / WEIGHTS_KINDS % ACTS_KINDS);
            check_case(report, &g, grid->rows, &seed);
        }
    check_blocks(report, &seed);
}
