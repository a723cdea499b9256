/* The dense feed-forward: down(silu(gate(x)) * up(x)). */
#include "forward/pass.h"

/* The matrix whose NR (a power of two) the other's divides. */
static const struct matrix *wider(const struct layer_weights *layer)
{
    return layer->up.kernel->nr > layer->gate.kernel->nr ? &layer->up : &layer->gate;
}

int gate_up_block(const struct worker *worker, const struct layer_weights *layer, int n_groups,
                  int n_rows)
{
    return column_block(worker, wider(layer), n_groups, n_rows);
}

int gate_up_part(const struct layer_weights *layer, int block, int n_parts)
{
    int nr = wider(layer)->kernel->nr;
    return n_blocks(block / nr, n_parts) * nr;
}

void gate_up_columns(struct forward *f, const struct worker *worker,
                     const struct layer_weights *layer, int expert, const struct acts *a, int row0,
                     int m, int slot, const struct columns *columns)
{
    size_t n_ff = (size_t)layer->gate.n, first = (size_t)slot * n_ff + (size_t)columns->n0;
    float *gate = f->gate + first, *up = f->up + first;
    struct product gate_product = {&layer->gate, expert, a, row0, m, gate, n_ff};
    struct product up_product = {&layer->up, expert, a, row0, m, up, n_ff};
    product_columns(f, worker, &gate_product, columns);
    product_columns(f, worker, &up_product, columns);
    for (int i = 0; i < m; i++)
        f->kernels->rows.silu_mul(gate + (size_t)i * n_ff, gate + (size_t)i * n_ff,
                                  up + (size_t)i * n_ff, (size_t)(columns->n1 - columns->n0));
}

void activations_phase(struct forward *f, struct worker *worker, const struct matrix *down,
                       int n_rows)
{
    size_t n_ff = (size_t)down->k;
    int begin, end;
    team_share(worker, n_rows, 1, &begin, &end);
    acts_write(f, &f->ffn_acts, matrix_format(down), begin, f->gate + (size_t)begin * n_ff, n_ff,
               end - begin, (int)n_ff);
    end_phase(f, worker, PHASE_QUANTIZE);
}

void dense_ffn_block(struct forward *f, struct worker *worker, const struct layer_weights *layer)
{
    unsigned formats = matrix_format(&layer->gate) | matrix_format(&layer->up);
    norm_phase(f, worker, layer->ffn_norm, formats, 0);
    int rows = row_block(f->n_tokens);
    int block = gate_up_block(worker, layer, n_blocks(f->n_tokens, rows), f->n_tokens);
    struct columns columns;
    for (struct walk walk = walk_start(worker); walk_next_part(&walk);) {
        for (int i = 0; i < f->n_tokens; i += rows) {
            int m = f->n_tokens - i < rows ? f->n_tokens - i : rows;
            while (walk_take(&walk, &layer->gate, block, &columns))
                gate_up_columns(f, worker, layer, 0, &f->norm_acts, i, m, i, &columns);
        }
    }
    end_phase(f, worker, PHASE_GATE_UP);
    activations_phase(f, worker, &layer->down, f->n_tokens);
    product_add_to_x(f, worker, PHASE_DOWN, &layer->down, &f->ffn_acts);
}
