/* Products of activations and weight matrices, shared out over the team by blocks of columns. */
#include "forward/pass.h"

unsigned matrix_format(const struct matrix *matrix)
{
    return matrix->kernel ? 1u << matrix->kernel->act_format : 0;
}

void acts_write(const struct forward *f, struct acts *acts, unsigned formats, int row0,
                const float *x, size_t ldx, int m, int k)
{
    for (int format = 0; format < ACT_FORMAT_COUNT; format++) {
        if (!(formats & 1u << format))
            continue;
        size_t stride = act_row_bytes((enum act_format)format, (size_t)k);
        f->quantize[format](acts->data[format] + (size_t)row0 * stride, stride, x, ldx, m, k);
    }
}

int row_block(int n_rows)
{
    return n_rows <= MAX_ROW_BLOCK ? n_rows : n_blocks(n_rows, n_blocks(n_rows, MAX_ROW_BLOCK));
}

int column_block(const struct worker *worker, const struct matrix *matrix, int n_groups, int n_rows)
{
    /* Decode is bound by memory: a few items each balance the team. Prompts reuse what a worker
     * reads of A for all columns of its block, which should not be too few. */
    enum { FEW_COLUMNS = 128 };
    int nr = matrix->kernel->nr, panels = n_blocks(matrix->n, nr);
    int share = n_groups * panels / worker->count; /* panels of a worker */
    int block = n_rows <= 8 ? share / 4 : share / 2 * nr < FEW_COLUMNS ? share : share / 2;
    int most = MAX_COLUMN_BLOCK / nr;
    block = block < 1 ? 1 : block > most ? most : block;
    return n_blocks(panels, n_blocks(panels, block)) * nr;
}

struct walk walk_start(struct worker *worker)
{
    return (struct walk){.worker = worker, .step = -1};
}

/* Step 0 is the worker's own node; step i the i-th node after it, where nobody serves that. */
bool walk_next_part(struct walk *walk)
{
    int n_nodes = team_nodes(walk->worker);
    walk->item = -1;
    walk->first = 0;
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
    if (walk->item < 0)
        walk->item = team_take_from(walk->worker, walk->part);
    if (walk->item >= walk->first + count) { /* of a later group */
        walk->first += count;
        return false;
    }
    int n0 = part->n0 + (walk->item - walk->first) * block;
    *columns = (struct columns){walk->part, n0, n0 + block < part->n1 ? n0 + block : part->n1};
    walk->item = -1;
    return true;
}

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
        .c = product->c,
        .ldc = product->ldc,
        .scratch = f->scratch[worker->index].gemm,
    };
    if (kernel->begin)
        kernel->begin();
    kernel->gemm(&args);
    if (kernel->end)
        kernel->end();
}

void products_run(struct forward *f, struct worker *worker, enum phase phase,
                  const struct product *products, int n_products)
{
    struct columns columns;
    for (struct walk walk = walk_start(worker); walk_next_part(&walk);) {
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
    end_phase(f, worker, phase);
}

void product_add_to_x(struct forward *f, struct worker *worker, enum phase phase,
                      const struct matrix *matrix, const struct acts *a)
{
    int rows = row_block(f->n_tokens);
    int block = column_block(worker, matrix, n_blocks(f->n_tokens, rows), f->n_tokens);
    float *tile = f->scratch[worker->index].tile;
    struct columns columns;
    for (struct walk walk = walk_start(worker); walk_next_part(&walk);) {
        for (int i = 0; i < f->n_tokens; i += rows) {
            int m = f->n_tokens - i < rows ? f->n_tokens - i : rows;
            struct product product = {matrix, 0, a, i, m, tile, MAX_COLUMN_BLOCK};
            while (walk_take(&walk, matrix, block, &columns)) {
                product_columns(f, worker, &product, &columns);
                for (int r = 0; r < m; r++)
                    f->kernels->rows.add(f->x + (size_t)(i + r) * (size_t)matrix->n + columns.n0,
                                         tile + (size_t)r * MAX_COLUMN_BLOCK,
                                         (size_t)(columns.n1 - columns.n0));
            }
        }
    }
    end_phase(f, worker, phase);
}

void norm_phase(struct forward *f, struct worker *worker, const float *w, unsigned formats,
                int first)
{
    size_t n_embd = f->params->n_embd;
    int begin, end;
    team_share(worker, f->n_tokens - first, 1, &begin, &end);
    for (int i = first + begin; i < first + end; i++)
        f->kernels->rows.rms_norm(f->norm + (size_t)i * n_embd, f->x + (size_t)i * n_embd, w,
                                  n_embd, f->params->rms_eps);
    mark_phase(f, worker, PHASE_NORM);
    acts_write(f, &f->norm_acts, formats, first + begin, f->norm + (size_t)(first + begin) * n_embd,
               n_embd, end - begin, (int)n_embd);
    end_phase(f, worker, PHASE_QUANTIZE);
}
