/* Products of activations and weight matrices, shared out over the team by blocks of columns. */
#include "forward/pass.h"

unsigned matrix_formats(const struct matrix *matrix, int n_rows)
{
    const struct gemm_kernel *kernel = matrix->kernel;
    if (!kernel)
        return 0;
    bool one_part = kernel->min_rows == 0 || matrix->k % 32;
    unsigned part = one_part ? ACT_BOTH : n_rows < *matrix->min_rows ? ACT_SECOND : ACT_FIRST;
    return part << 2 * kernel->act_format;
}

unsigned block_formats(const struct matrix *matrix, int n_rows, int rows)
{
    int last = (n_rows - 1) % rows + 1;
    return matrix_formats(matrix, n_rows < rows ? n_rows : rows) | matrix_formats(matrix, last);
}

void acts_write(const struct forward *f, const struct acts *acts, unsigned formats,
                const struct acts_source *source)
{
    for (int format = 0; format < ACT_FORMAT_COUNT; format++) {
        unsigned parts = formats >> 2 * format & ACT_BOTH;
        if (!parts)
            continue;
        size_t stride = act_row_bytes((enum act_format)format, (size_t)source->k);
        struct quantize_args args = {
            .a = acts->data[format] + (size_t)source->row0 * stride,
            .a_stride = stride,
            .x = source->x,
            .ldx = source->ldx,
            .m = source->m,
            .k = source->k,
            .k0 = source->k0,
            .k1 = source->k1,
            .parts = parts,
        };
        f->quantize[format](&args);
    }
}

int row_block(int n_rows)
{
    return n_rows <= MAX_ROW_BLOCK ? n_rows : n_blocks(n_rows, n_blocks(n_rows, MAX_ROW_BLOCK));
}

int column_block(const struct worker *worker, const struct matrix *matrix, int n_groups, int n_rows)
{
    /* Some items each balance the team. Decode is bound by memory, but prompts reuse what a worker
     * reads of A for all columns of its block, which should not be too few. */
    enum { ITEMS = 8, PROMPT_ITEMS = 5, FEW_COLUMNS = 128 };
    int nr = matrix->kernel->nr, panels = n_blocks(matrix->n, nr);
    int share = n_groups * panels / worker->count; /* panels of a worker */
    int block = n_rows <= 8 ? share / ITEMS : share / PROMPT_ITEMS;
    int few = n_rows <= 8 ? 1 : FEW_COLUMNS / nr, most = MAX_COLUMN_BLOCK / nr;
    few = few < share ? few : share;
    block = block < few ? few : block > most ? most : block;
    block = block < 1 ? 1 : block;
    return n_blocks(panels, n_blocks(panels, block)) * nr;
}

/* ---- Work items ------------------------------------------------------------------------------ */

struct walk walk_start(struct worker *worker)
{
    struct walk walk = {.worker = worker, .step = -1};
    for (int part = 0; part < NODES_MAX; part++)
        walk.of[part].item = -1;
    return walk;
}

/* Items of a worker: three of four, so that the last ones balance the team. */
static int dealt_items(const struct worker *worker, int n_items)
{
    int n = 3 * n_items / (4 * worker->count);
    return n > 1 ? n : 1;
}

struct walk walk_deal(struct worker *worker, int n_items)
{
    struct walk walk = walk_start(worker);
    if (team_nodes(worker) == 1) {
        int n = dealt_items(worker, n_items);
        walk.own = worker->index * n;
        walk.own_end = walk.own + n;
        walk.n_dealt = worker->count * n;
    }
    return walk;
}

struct walk walk_rows(const struct forward *f, struct worker *worker, int n_items)
{
    return f->n_tokens <= FEW_TOKENS ? walk_deal(worker, n_items) : walk_start(worker);
}

void walk_again(struct walk *walk)
{
    walk->step = -1;
}

/* Step 0 is the worker's own node; step i the i-th node after it, where nobody serves that. */
bool walk_next_part(struct walk *walk)
{
    int n_nodes = team_nodes(walk->worker);
    while (++walk->step < n_nodes) {
        walk->part = (walk->worker->node + walk->step) % n_nodes;
        if (walk->step == 0 || !team_serves(walk->worker, walk->part))
            return true;
    }
    return false;
}

bool walk_take(struct walk *walk, const struct matrix *matrix, int block, struct columns *columns)
{
    const struct matrix_part *part = &matrix->parts[walk->part];
    int count = n_blocks(part->n1 - part->n0, block);
    int *item = &walk->of[walk->part].item, *first = &walk->of[walk->part].first;
    if (*item < 0 && walk->own < walk->own_end)
        *item = walk->own++;
    else if (*item < 0)
        *item = walk->n_dealt + team_take_from(walk->worker, walk->part);
    if (*item >= *first + count) { /* of a later group */
        *first += count;
        return false;
    }
    int n0 = part->n0 + (*item - *first) * block;
    *columns = (struct columns){walk->part, n0, n0 + block < part->n1 ? n0 + block : part->n1};
    *item = -1;
    return true;
}

/* ---- Fetching ahead -------------------------------------------------------------------------- */

/* Of a packed matrix, whose columns lie one panel after the other. */
static const uint8_t *columns_at(const struct matrix *matrix, int expert, int part, int n0)
{
    const struct matrix_part *p = &matrix->parts[part];
    return p->data + (size_t)expert * p->matrix_bytes +
           matrix->kernel->packed_bytes(n0 - p->n0, matrix->k);
}

struct fetch fetch_dealt(const struct worker *worker, const struct matrix *matrix, int expert,
                         int block)
{
    int width = block * dealt_items(worker, n_blocks(matrix->n, block));
    int n0 = worker->index * width, n1 = n0 + width < matrix->n ? n0 + width : matrix->n;
    if (team_nodes(worker) > 1 || n0 >= n1 || !matrix->kernel->pack)
        return (struct fetch){NULL, 0};
    const uint8_t *begin = columns_at(matrix, expert, 0, n0);
    return (struct fetch){begin, (size_t)(columns_at(matrix, expert, 0, n1) - begin)};
}

struct fetch fetch_expert(const struct worker *worker, const struct matrix *matrix, int expert)
{
    if (team_nodes(worker) > 1 || !matrix->kernel->pack)
        return (struct fetch){NULL, 0};
    return (struct fetch){columns_at(matrix, expert, 0, 0), matrix->parts[0].matrix_bytes};
}

struct fetch fetch_rows(const struct forward *f, const struct worker *worker,
                        const struct matrix *matrix)
{
    if (f->n_tokens > FEW_TOKENS || !matrix->kernel)
        return (struct fetch){NULL, 0};
    return fetch_dealt(worker, matrix, 0, column_block(worker, matrix, 1, f->n_tokens));
}

/* Until the others have come; then the products themselves fetch. */
void end_phase_fetching(struct forward *f, struct worker *worker, enum phase phase,
                        struct fetch *next, int n)
{
    enum { LINE = 64, SOME = 16 * LINE, MOST = 256 << 10 /* a fraction of L2 */ };
    mark_phase(f, worker, phase);
    uint32_t arrival = team_arrive(worker);
    size_t left = MOST;
    for (int i = 0; i < n; i++)
        while (next[i].bytes > 0 && left > 0) {
            size_t some = next[i].bytes < SOME ? next[i].bytes : SOME;
            for (size_t at = 0; at < some; at += LINE)
                __builtin_prefetch(next[i].data + at, 0, 2);
            next[i].data += some;
            next[i].bytes -= some;
            left = team_passed(worker, arrival) ? 0 : left - SOME;
        }
    team_wait(worker, arrival);
    mark_waited(f, worker, phase);
}

/* ---- Products -------------------------------------------------------------------------------- */

void product_columns(const struct forward *f, const struct worker *worker,
                     const struct product *product, const struct columns *columns)
{
    const struct matrix *matrix = product->matrix;
    const struct matrix_part *part = &matrix->parts[columns->part];
    const struct gemm_kernel *kernel = matrix->kernel;
    size_t stride = act_row_bytes(kernel->act_format, (size_t)matrix->k);
    struct gemm_args args = {
        .w = part->data + (size_t)product->expert * part->matrix_bytes,
        .n = part->n1 - part->n0,
        .k = matrix->k,
        .n0 = columns->n0 - part->n0,
        .n1 = columns->n1 - part->n0,
        .a = product->a->data[kernel->act_format] + (size_t)product->row0 * stride,
        .a_stride = stride,
        .m = product->m,
        .min_rows = *matrix->min_rows,
        .c = product->c,
        .ldc = product->ldc,
        .scratch = f->scratch[worker->index].gemm,
    };
    const struct product *next = product->next;
    if (next && next->matrix->kernel->pack)
        args.next = columns_at(next->matrix, next->expert, columns->part, columns->n0);
    if (kernel->begin)
        kernel->begin();
    kernel->gemm(&args);
    if (kernel->end)
        kernel->end();
}

void product_rows(const struct forward *f, const struct worker *worker,
                  const struct product *product)
{
    for (int part = 0; part < NODES_MAX; part++) {
        struct columns columns = {part, product->matrix->parts[part].n0,
                                  product->matrix->parts[part].n1};
        struct product own = *product;
        own.c += columns.n0;
        if (columns.n1 > columns.n0)
            product_columns(f, worker, &own, &columns);
    }
}

/* Items of a matrix, of which there is a group for each block of rows. */
static int item_count(const struct worker *worker, const struct matrix *matrix, int n_rows)
{
    int n_groups = n_blocks(n_rows, row_block(n_rows));
    return n_blocks(matrix->n, column_block(worker, matrix, n_groups, n_rows));
}

struct fetch products_run(struct forward *f, struct worker *worker, enum phase phase,
                          const struct product *products, int n_products, struct fetch next)
{
    struct columns columns;
    int n_items = item_count(worker, products[0].matrix, products[0].m);
    for (struct walk walk = walk_rows(f, worker, n_items); walk_next_part(&walk);) {
        for (int p = 0; p < n_products; p++) {
            int m = products[p].m, rows = row_block(m);
            int block = column_block(worker, products[p].matrix, n_blocks(m, rows), m);
            for (int i = 0; i < m; i += rows) {
                struct product product = products[p];
                product.row0 += i;
                product.m = m - i < rows ? m - i : rows;
                while (walk_take(&walk, product.matrix, block, &columns)) {
                    product.c = products[p].c + (size_t)i * product.ldc + columns.n0;
                    product_columns(f, worker, &product, &columns);
                }
            }
        }
    }
    end_phase_fetching(f, worker, phase, &next, 1);
    return next;
}

void product_add_to_x(struct forward *f, struct worker *worker, enum phase phase,
                      const struct matrix *matrix, const struct acts *a, struct fetch next)
{
    int rows = row_block(f->n_tokens);
    int block = column_block(worker, matrix, n_blocks(f->n_tokens, rows), f->n_tokens);
    float *tile = f->scratch[worker->index].tile;
    struct columns columns;
    int n_items = n_blocks(matrix->n, block);
    for (struct walk walk = walk_rows(f, worker, n_items); walk_next_part(&walk);) {
        for (int i = 0; i < f->n_tokens; i += rows) {
            int m = f->n_tokens - i < rows ? f->n_tokens - i : rows;
            struct product product = {matrix, 0, a, i, m, tile, TILE_STRIDE, NULL};
            while (walk_take(&walk, matrix, block, &columns)) {
                product_columns(f, worker, &product, &columns);
                for (int r = 0; r < m; r++)
                    f->kernels->rows.add(f->x + (size_t)(i + r) * (size_t)matrix->n + columns.n0,
                                         tile + (size_t)r * TILE_STRIDE,
                                         (size_t)(columns.n1 - columns.n0));
            }
        }
    }
    end_phase_fetching(f, worker, phase, &next, 1);
}

/* A few rows at a time, which are still in the cache when they are written in other formats. */
void norm_rows(struct forward *f, struct worker *worker, const float *w, int begin, int end,
               const struct normed *to, int n_to)
{
    size_t n_embd = f->params->n_embd;
    float *norm = f->scratch[worker->index].norm;
    for (int row = begin; row < end; row += FEW_TOKENS) {
        int m = end - row < FEW_TOKENS ? end - row : FEW_TOKENS;
        for (int i = 0; i < m; i++)
            f->kernels->rows.rms_norm(norm + (size_t)i * n_embd,
                                      f->x + (size_t)(row + i) * n_embd, w, n_embd,
                                      f->params->rms_eps);
        mark_phase(f, worker, PHASE_NORM);
        for (int i = 0; i < n_to; i++) {
            int row0 = to[i].row0 + row - begin;
            struct acts_source source = {norm, n_embd, row0, m, (int)n_embd, 0, (int)n_embd};
            acts_write(f, to[i].acts, to[i].formats, &source);
        }
        mark_phase(f, worker, PHASE_QUANTIZE);
    }
}

const struct acts *norm_phase(struct forward *f, struct worker *worker, const float *w,
                              unsigned formats, int first)
{
    int count = f->n_tokens - first, begin, end;
    if (count <= FEW_TOKENS) { /* each worker makes its own */
        const struct acts *own = &f->scratch[worker->index].norm_acts;
        norm_rows(f, worker, w, first, f->n_tokens, &(struct normed){own, 0, formats}, 1);
        return own;
    }
    team_share(worker, count, 1, &begin, &end);
    norm_rows(f, worker, w, first + begin, first + end,
              &(struct normed){&f->norm_acts, begin, formats}, 1);
    end_phase(f, worker, PHASE_QUANTIZE);
    return &f->norm_acts;
}
