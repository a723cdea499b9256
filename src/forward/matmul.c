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

int column_block(const struct worker *worker, const struct matrix *matrix, int n_groups, int n_rows)
{
    /* Decode is bound by memory: a few items each balance the team. Prompts reuse what a worker
     * reads of A for all columns of its block. */
    int items_per_worker = n_rows > 8 ? 2 : 4;
    int nr = matrix->kernel->nr;
    int panels = n_blocks(matrix->n, nr);
    int block = n_groups * panels / (items_per_worker * worker->count) * nr;
    int most = MAX_COLUMN_BLOCK / nr * nr;
    return block < nr ? nr : block > most ? most : block;
}

void product_columns(const struct forward *f, const struct worker *worker,
                     const struct product *product, int n0, int n1)
{
    const struct matrix *matrix = product->matrix;
    const struct gemm_kernel *kernel = matrix->kernel;
    size_t stride = act_row_bytes(kernel->act_format, (size_t)matrix->k);
    struct gemm_args args = {
        .w = matrix->data + (size_t)product->expert * matrix->matrix_bytes,
        .n = matrix->n,
        .k = matrix->k,
        .n0 = n0,
        .n1 = n1 < matrix->n ? n1 : matrix->n,
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

void products_run(struct forward *f, struct worker *worker, const struct product *products,
                  int n_products)
{
    int item = team_take(worker), first = 0;
    for (int p = 0; p < n_products; p++) {
        int n = products[p].matrix->n;
        int block = column_block(worker, products[p].matrix, 1, products[p].m);
        int count = n_blocks(n, block);
        for (; item < first + count; item = team_take(worker)) {
            struct product columns = products[p];
            int n0 = (item - first) * block;
            columns.c += n0;
            product_columns(f, worker, &columns, n0, n0 + block);
        }
        first += count;
    }
    team_barrier(worker);
}

void product_add_to_x(struct forward *f, struct worker *worker, const struct matrix *matrix,
                      const struct acts *a)
{
    int block = column_block(worker, matrix, 1, f->n_tokens);
    int n = matrix->n;
    float *tile = f->scratch[worker->index].tile;
    for (int item = team_take(worker); item * block < n; item = team_take(worker)) {
        int n0 = item * block, n1 = n0 + block < n ? n0 + block : n;
        struct product product = {matrix, 0, a, 0, f->n_tokens, tile, MAX_COLUMN_BLOCK};
        product_columns(f, worker, &product, n0, n1);
        for (int i = 0; i < f->n_tokens; i++)
            f->kernels->rows.add(f->x + (size_t)i * (size_t)n + n0,
                                 tile + (size_t)i * MAX_COLUMN_BLOCK, (size_t)(n1 - n0));
    }
    team_barrier(worker);
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
    acts_write(f, &f->norm_acts, formats, first + begin, f->norm + (size_t)(first + begin) * n_embd,
               n_embd, end - begin, (int)n_embd);
    team_barrier(worker);
}
