/* From how many rows tiles are faster than vectors, by weight type.
 *
 * Both parts of a kernel multiply matrices of the model: as in a prompt of experts, every worker
 * takes blocks of columns of its own, and goes on through all matrices of that shape, so that they
 * come from memory where the model does not fit into the caches. The two take turns. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "calibrate.h"

enum { ITEMS = 4, COLUMNS = 128, LEAST_ROUNDS = 3, MOST_ROUNDS = 15 };
static const int row_counts[CALIBRATION_ROWS] = {4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96};
enum { MOST_ROWS = 96, C_STRIDE = COLUMNS + 16 };
_Static_assert(COLUMNS % 64 == 0, "a multiple of every NR");

enum part { TILES, VECTORS, PARTS };

/* The packed matrices of one kernel and shape, of all layers and experts. */
struct matrices {
    const struct plan *plan;
    const struct weights *weights;
    const struct placement *first; /* that of the first of the tensors */
    int n_tensors;
};

struct worker_memory {
    float *c; /* [MOST_ROWS, COLUMNS], rows C_STRIDE apart */
    void *scratch;
    double seconds, flop; /* of the last products */
};

/* Products of m rows by all workers. */
struct products {
    struct matrices matrices;
    const uint8_t *a; /* [MOST_ROWS] rows in the kernel's act_format */
    struct worker_memory *workers;
    enum part part;
    int m;
    unsigned turn; /* items of the workers before this one */
};

/* ---- The matrices ---------------------------------------------------------------------------- */

static bool has_two_parts(const struct placement *place)
{
    return place->kernel && place->kernel->min_rows && place->tensor->k % 32 == 0;
}

static bool same_shape(const struct placement *a, const struct placement *b)
{
    return a->kernel == b->kernel && a->tensor->n == b->tensor->n && a->tensor->k == b->tensor->k &&
           a->tensor->n_expert == b->tensor->n_expert;
}

/* The tensors of a weight type with most bytes in each. */
static bool find_matrices(const tsr_engine *engine, uint32_t block_id, struct matrices *matrices)
{
    const struct plan *plan = engine->plan;
    *matrices = (struct matrices){.plan = plan, .weights = engine->weights};
    for (size_t i = 0; i < plan->n_placements; i++) {
        const struct placement *place = &plan->placements[i], *first = matrices->first;
        if (!has_two_parts(place) || place->kernel->block_id != block_id)
            continue;
        if (!first || place->bytes > first->bytes) {
            matrices->first = place;
            matrices->n_tensors = 0;
        }
        matrices->n_tensors += same_shape(place, matrices->first);
    }
    return matrices->first != NULL;
}

static const struct placement *tensor_at(const struct matrices *matrices, unsigned index)
{
    const struct placement *place = matrices->first;
    for (unsigned left = index % (unsigned)matrices->n_tensors;; place++)
        if (same_shape(place, matrices->first) && left-- == 0)
            return place;
}

/* Item `index` of a node: some columns of a matrix, after the last the first again. False where the
 * node has no part of them. */
static bool find_item(const struct matrices *matrices, int node, unsigned index,
                      struct gemm_args *args)
{
    const struct placement_part *part = &matrices->first->parts[node];
    int n = part->n1 - part->n0;
    if (n == 0)
        return false;
    unsigned n_blocks = (unsigned)(n + COLUMNS - 1) / COLUMNS, matrix = index / n_blocks;
    unsigned n_expert = matrices->first->tensor->n_expert;
    const struct placement *place = tensor_at(matrices, matrix / n_expert);
    args->w = matrices->weights->arenas[place->pool][node].data + place->parts[node].offset +
              matrix % n_expert * part->matrix_bytes;
    args->n = n;
    args->n0 = (int)(index % n_blocks) * COLUMNS;
    args->n1 = args->n0 + COLUMNS < n ? args->n0 + COLUMNS : n;
    return true;
}

/* ---- Products -------------------------------------------------------------------------------- */

/* As gate and up of an expert do, every other product tells what is read after it. */
static void multiply(struct worker *worker, void *arg)
{
    const struct products *p = arg;
    const struct gemm_kernel *kernel = p->matrices.first->kernel;
    struct worker_memory *own = &p->workers[worker->index];
    struct gemm_args items[ITEMS];
    int n_items = 0;
    for (unsigned i = 0; i < ITEMS; i++) {
        unsigned index = (p->turn + i) * (unsigned)worker->count + (unsigned)worker->index;
        struct gemm_args *args = &items[n_items];
        *args = (struct gemm_args){.k = (int)p->matrices.first->tensor->k,
                                   .a = p->a,
                                   .m = p->m,
                                   .min_rows = p->part == TILES ? 0 : INT_MAX,
                                   .c = own->c,
                                   .ldc = C_STRIDE,
                                   .scratch = own->scratch};
        args->a_stride = act_row_bytes(kernel->act_format, (size_t)args->k);
        n_items += find_item(&p->matrices, worker->node, index, args);
    }
    for (int i = 0; i + 1 < n_items; i += 2)
        items[i].next =
            (const uint8_t *)items[i + 1].w + kernel->packed_bytes(items[i + 1].n0, items[i + 1].k);
    team_barrier(worker);
    double start = calibrate_now();
    for (int i = 0; i < n_items; i++) {
        if (kernel->begin)
            kernel->begin();
        kernel->gemm(&items[i]);
        if (kernel->end)
            kernel->end();
    }
    own->seconds = calibrate_now() - start;
    own->flop = 0;
    for (int i = 0; i < n_items; i++)
        own->flop += 2.0 * p->m * items[i].k * (items[i].n1 - items[i].n0);
}

/* GFLOP/s of all workers: their speeds while they multiplied, together. */
static double run_products(const tsr_engine *engine, int n_workers, struct products *products)
{
    double rate = 0;
    team_run(engine->team, n_workers, multiply, products);
    products->turn += ITEMS;
    for (int i = 0; i < n_workers; i++)
        if (products->workers[i].seconds > 0)
            rate += 1e-9 * products->workers[i].flop / products->workers[i].seconds;
    return rate;
}

/* ---- Memory ---------------------------------------------------------------------------------- */

static void free_products(struct products *products, int n_workers)
{
    for (int i = 0; products->workers && i < n_workers; i++) {
        free(products->workers[i].c);
        free(products->workers[i].scratch);
    }
    free(products->workers);
    free((void *)(uintptr_t)products->a);
}

/* Rows of activations, in both parts. */
static uint8_t *make_rows(const struct gemm_kernel *kernel, int k)
{
    size_t stride = act_row_bytes(kernel->act_format, (size_t)k);
    uint8_t *a = mem_alloc(MOST_ROWS, stride);
    float *x = mem_alloc((size_t)k, sizeof *x);
    uint32_t random = 1;
    for (int i = 0; x && i < k; i++) {
        random = random * 1664525 + 1013904223;
        x[i] = (float)(int32_t)random * 0x1p-31f;
    }
    struct quantize_args args = {
        .a = a, .a_stride = stride, .x = x, .m = MOST_ROWS, .k = k, .k1 = k, .parts = ACT_BOTH};
    if (a && x)
        kernel->quantize_rows(&args); /* ldx 0: the same row again */
    free(x);
    return x ? a : (free(a), NULL);
}

static int make_products(struct products *products, int n_workers, struct tsr_error *error)
{
    const struct gemm_kernel *kernel = products->matrices.first->kernel;
    int k = (int)products->matrices.first->tensor->k;
    bool complete = (products->a = make_rows(kernel, k)) != NULL;
    products->workers = mem_alloc((size_t)n_workers, sizeof *products->workers);
    for (int i = 0; products->workers && i < n_workers; i++) {
        struct worker_memory *own = &products->workers[i];
        own->c = mem_alloc((size_t)MOST_ROWS * C_STRIDE, sizeof *own->c);
        own->scratch = mem_alloc(kernel->scratch_bytes(k), 1);
        complete = complete && own->c && own->scratch;
    }
    return complete && products->workers
               ? 0
               : error_set(error, TSR_ENOMEM, "out of memory for a calibration of %s",
                           kernel->name);
}

/* ---- Measuring ------------------------------------------------------------------------------- */

int calibrate_min_rows(const struct kernel_rates *rates)
{
    /* Of all thresholds the one that loses least, summed over the row counts: a single measurement
     * that went wrong moves it little. The counts below it are those of vectors. */
    double least = 0;
    int best = 0;
    for (int threshold = 0; threshold <= CALIBRATION_ROWS; threshold++) {
        double lost = 0;
        for (int i = 0; i < CALIBRATION_ROWS; i++) {
            double first = rates->of[i].first, second = rates->of[i].second;
            lost += (first > second ? first : second) / (i < threshold ? second : first);
        }
        if (threshold == 0 || lost < least) {
            least = lost;
            best = threshold;
        }
    }
    return best < CALIBRATION_ROWS ? rates->of[best].rows : INT_MAX;
}

static int measure(const tsr_engine *engine, struct products *products, int n_workers, double until,
                   calibrate_continue_fn *go_on, void *user, struct kernel_rates *rates,
                   struct tsr_error *error)
{
    double samples[CALIBRATION_ROWS][PARTS][MOST_ROUNDS];
    int n = 0;
    for (; n < MOST_ROUNDS && (n < LEAST_ROUNDS || calibrate_now() < until); n++)
        for (int i = 0; i < CALIBRATION_ROWS; i++) {
            if (!go_on(user))
                return error_set(error, TSR_ECANCELED, "the calibration was cancelled");
            products->m = row_counts[i];
            for (int p = 0; p < PARTS; p++) {
                products->part = (enum part)((n + p) % PARTS);
                samples[i][products->part][n] = run_products(engine, n_workers, products);
            }
        }
    for (int i = 0; i < CALIBRATION_ROWS; i++) {
        rates->of[i].rows = row_counts[i];
        rates->of[i].first = calibrate_median(samples[i][TILES], n);
        rates->of[i].second = calibrate_median(samples[i][VECTORS], n);
    }
    return 0;
}

int calibrate_kernels(const tsr_engine *engine, double seconds, calibrate_continue_fn *go_on,
                      void *user, struct calibration *calibration, struct tsr_error *error)
{
    int n_types = 0, status = 0, n_workers = engine->n_physical;
    struct matrices matrices;
    for (uint32_t id = 0; id < BLOCK_ID_COUNT; id++)
        n_types += find_matrices(engine, id, &matrices);
    for (uint32_t id = 0; id < BLOCK_ID_COUNT && !status; id++) {
        struct products products = {0};
        if (!find_matrices(engine, id, &products.matrices))
            continue;
        const struct placement *first = products.matrices.first;
        struct kernel_rates *rates = &calibration->kernels[calibration->n_kernels++];
        rates->kernel = first->kernel;
        rates->n = (int)first->tensor->n;
        rates->k = (int)first->tensor->k;
        double until = calibrate_now() + seconds / n_types;
        status = make_products(&products, n_workers, error);
        if (!status)
            status = measure(engine, &products, n_workers, until, go_on, user, rates, error);
        if (!status)
            calibration->choice.min_rows[id] = calibrate_min_rows(rates);
        free_products(&products, n_workers);
    }
    return status;
}
