/* The dense feed-forward: down(silu(gate(x)) * up(x)). */
#include "forward/pass.h"

/* At most MAX_ROW_BLOCK rows and MAX_COLUMN_BLOCK columns. */
static void gate_up_tile(struct forward *f, const struct worker *worker,
                         const struct ffn_rows *rows, const struct columns *columns)
{
    const struct worker_scratch *scratch = &f->scratch[worker->index];
    const struct ffn_weights *ffn = rows->weights;
    float *gate = scratch->tile, *up = scratch->up;
    struct product up_product = {&ffn->up, rows->expert, rows->a,     rows->row0,
                                 rows->m,  up,           TILE_STRIDE, NULL};
    struct product gate_product = {&ffn->gate, rows->expert, rows->a,     rows->row0,
                                   rows->m,    gate,         TILE_STRIDE, &up_product};
    product_columns(f, worker, &gate_product, columns);
    product_columns(f, worker, &up_product, columns);
    for (int i = 0; i < rows->m; i++) {
        float *row = gate + (size_t)i * TILE_STRIDE;
        f->kernels->rows.silu_mul(row, row, up + (size_t)i * TILE_STRIDE,
                                  (size_t)(columns->n1 - columns->n0));
    }
    struct acts_source source = {gate,        TILE_STRIDE, rows->slot, rows->m,
                                 ffn->down.k, columns->n0, columns->n1};
    acts_write(f, rows->out, matrix_formats(&ffn->down, rows->m), &source);
}

void gate_up_columns(struct forward *f, const struct worker *worker, const struct ffn_rows *rows,
                     const struct columns *columns)
{
    for (int n0 = columns->n0; n0 < columns->n1; n0 += MAX_COLUMN_BLOCK) {
        int n1 = n0 + MAX_COLUMN_BLOCK < columns->n1 ? n0 + MAX_COLUMN_BLOCK : columns->n1;
        gate_up_tile(f, worker, rows, &(struct columns){columns->part, n0, n1});
    }
}

int gate_up_block(const struct worker *worker, const struct matrix *gate, int n_groups, int n_rows)
{
    int block = column_block(worker, gate, n_groups, n_rows);
    return n_blocks(block, GATE_UP_ALIGN) * GATE_UP_ALIGN;
}

struct fetch fetch_ffn(const struct forward *f, const struct worker *worker,
                       const struct layer_weights *layer)
{
    if (layer->router.kernel)
        return fetch_rows(f, worker, &layer->router);
    if (f->n_tokens > FEW_TOKENS)
        return (struct fetch){NULL, 0};
    int block = gate_up_block(worker, &layer->ffn.gate, 1, f->n_tokens);
    return fetch_dealt(worker, &layer->ffn.gate, 0, block);
}

void dense_ffn_block(struct forward *f, struct worker *worker, const struct layer_weights *layer,
                     struct fetch next)
{
    const struct ffn_weights *ffn = &layer->ffn;
    int rows = row_block(f->n_tokens);
    unsigned formats = block_formats(&ffn->gate, f->n_tokens, rows) |
                       block_formats(&ffn->up, f->n_tokens, rows);
    const struct acts *a = norm_phase(f, worker, layer->ffn_norm, formats, 0);
    int block = gate_up_block(worker, &ffn->gate, n_blocks(f->n_tokens, rows), f->n_tokens);
    struct fetch down = fetch_rows(f, worker, &ffn->down);
    struct columns columns;
    int n_items = n_blocks(ffn->gate.n, block);
    for (struct walk walk = walk_rows(f, worker, n_items); walk_next_part(&walk);) {
        for (int i = 0; i < f->n_tokens; i += rows) {
            int m = f->n_tokens - i < rows ? f->n_tokens - i : rows;
            struct ffn_rows own = {ffn, 0, a, i, m, &f->ffn_acts, i};
            while (walk_take(&walk, &ffn->gate, block, &columns))
                gate_up_columns(f, worker, &own, &columns);
        }
    }
    end_phase_fetching(f, worker, PHASE_GATE_UP, &down, 1);
    product_add_to_x(f, worker, PHASE_DOWN, &ffn->down, &f->ffn_acts, next);
}
