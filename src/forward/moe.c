/* The mixture of experts: route, sort (token, expert) pairs by expert, gate and up with the
 * activation, down, and the weighted sum back into the residual stream.
 *
 * The last step has one work item for each block of *output columns*, which walks all experts: no
 * two workers add to the same element, so that the result does not depend on the team. */
#include <stdlib.h>
#include <string.h>

#include "forward/pass.h"

/* The n_used largest of probabilities [n_expert], the first of equals first; renormalised. */
static void choose_experts(const float *probability, int n_expert, int n_used, int32_t *chosen,
                           float *weight)
{
    float sum = 0.0f;
    for (int u = 0; u < n_used; u++) {
        int best = -1;
        for (int e = 0; e < n_expert; e++) {
            bool taken = false;
            for (int before = 0; before < u; before++)
                taken |= chosen[before] == e;
            if (!taken && (best < 0 || probability[e] > probability[best]))
                best = e;
        }
        chosen[u] = best;
        weight[u] = probability[best];
        sum += weight[u];
    }
    for (int u = 0; u < n_used; u++)
        weight[u] /= sum;
}

static void route_rows(struct forward *f, int begin, int end)
{
    struct routing *routing = &f->routing;
    int n_expert = (int)f->params->n_expert, n_used = (int)f->params->n_expert_used;
    for (int i = begin; i < end; i++) {
        float *logits = routing->logits + (size_t)i * (size_t)n_expert;
        f->kernels->rows.softmax(logits, (size_t)n_expert);
        choose_experts(logits, n_expert, n_used, routing->expert_of + (size_t)i * (size_t)n_used,
                       routing->weight_of + (size_t)i * (size_t)n_used);
    }
}

static int expert_rows(const struct routing *routing, int expert)
{
    return routing->first_slot[expert + 1] - routing->first_slot[expert];
}

/* Experts with rows, most rows first: the largest work items start first. Insertion sort: the list
 * is nearly equal in size everywhere and at most n_expert long. */
static void list_active(struct routing *routing, int n_expert)
{
    routing->n_active = 0;
    for (int e = 0; e < n_expert; e++) {
        if (expert_rows(routing, e) == 0)
            continue;
        int at = routing->n_active++;
        for (; at > 0 && expert_rows(routing, routing->active[at - 1]) < expert_rows(routing, e);
             at--)
            routing->active[at] = routing->active[at - 1];
        routing->active[at] = e;
    }
}

/* Counting sort of the pairs by expert; by token within an expert. */
static void sort_slots(struct routing *routing, int n_tokens, int n_expert, int n_used)
{
    int n_slots = n_tokens * n_used;
    int32_t *first = routing->first_slot;
    memset(first, 0, ((size_t)n_expert + 1) * sizeof *first);
    for (int i = 0; i < n_slots; i++)
        first[routing->expert_of[i] + 1]++;
    for (int e = 0; e < n_expert; e++)
        first[e + 1] += first[e];
    for (int i = 0; i < n_slots; i++) {
        int slot = first[routing->expert_of[i]]++;
        routing->slot_token[slot] = i / n_used;
        routing->slot_weight[slot] = routing->weight_of[i];
    }
    for (int e = n_expert; e > 0; e--)
        first[e] = first[e - 1];
    first[0] = 0;
    list_active(routing, n_expert);
}

static void route_phase(struct forward *f, struct worker *worker, const struct matrix *router)
{
    struct product product = {router,          0, &f->norm_acts, 0, f->n_tokens, f->routing.logits,
                              f->params->n_expert};
    products_run(f, worker, PHASE_ROUTER, &product, 1);
    if (f->n_tokens > worker->count) {
        int begin, end;
        team_share(worker, f->n_tokens, 1, &begin, &end);
        route_rows(f, begin, end);
        end_phase(f, worker, PHASE_ROUTER);
    } else if (worker->index == 0) {
        route_rows(f, 0, f->n_tokens);
    }
    if (worker->index == 0)
        sort_slots(&f->routing, f->n_tokens, (int)f->params->n_expert,
                   (int)f->params->n_expert_used);
    end_phase(f, worker, PHASE_ROUTER);
}

/* Copies the rows of some slots, so that they lie together for the kernels; into memory of the
 * worker, so that they are in its L2 when it multiplies. */
static void gather_rows(struct forward *f, struct acts *to, unsigned formats, int slot, int count)
{
    for (int format = 0; format < ACT_FORMAT_COUNT; format++) {
        if (!(formats & 1u << format))
            continue;
        size_t stride = act_row_bytes((enum act_format)format, f->params->n_embd);
        for (int i = 0; i < count; i++)
            memcpy(to->data[format] + (size_t)i * stride,
                   f->norm_acts.data[format] +
                       (size_t)f->routing.slot_token[slot + i] * stride,
                   stride);
    }
}

/* gate and up of an expert, for some columns and all its rows. */
static void expert_columns(struct forward *f, struct worker *worker,
                           const struct layer_weights *layer, int expert,
                           const struct columns *columns)
{
    unsigned formats = matrix_format(&layer->gate) | matrix_format(&layer->up);
    struct acts *gathered = &f->scratch[worker->index].rows;
    int slot = f->routing.first_slot[expert], end = f->routing.first_slot[expert + 1];
    /* A single token is its own only row. */
    const struct acts *rows = f->n_tokens == 1 ? &f->norm_acts : gathered;
    for (int block = row_block(end - slot); slot < end; slot += block) {
        int m = end - slot < block ? end - slot : block;
        if (rows == gathered)
            gather_rows(f, gathered, formats, slot, m);
        gate_up_columns(f, worker, layer, expert, rows, 0, m, slot, columns);
    }
}

static void gate_up_phase(struct forward *f, struct worker *worker,
                          const struct layer_weights *layer)
{
    const struct routing *routing = &f->routing;
    int block = gate_up_block(worker, layer, routing->n_active, f->n_tokens);
    /* The last experts, which have the fewest rows, are cut finer: a worker that is slow with its
     * last item holds up all others. */
    int part = gate_up_part(layer, block, 3), first_cut = routing->n_active - routing->n_active / 4;
    struct columns columns;
    for (struct walk walk = walk_start(worker); walk_next_part(&walk);)
        for (int i = 0; i < routing->n_active; i++)
            while (walk_take(&walk, &layer->gate, i < first_cut ? block : part, &columns))
                expert_columns(f, worker, layer, routing->active[i], &columns);
    end_phase(f, worker, PHASE_GATE_UP);
}

/* x[token] += weight * product, for the rows of some slots. */
static void scatter_rows(struct forward *f, const float *tile, int slot, int count,
                         const struct columns *columns)
{
    const struct routing *routing = &f->routing;
    size_t n_embd = f->params->n_embd;
    for (int i = 0; i < count; i++)
        f->kernels->rows.add_scaled(
            f->x + (size_t)routing->slot_token[slot + i] * n_embd + columns->n0,
            tile + (size_t)i * MAX_COLUMN_BLOCK, routing->slot_weight[slot + i],
            (size_t)(columns->n1 - columns->n0));
}

/* down for some columns, over all experts; in the order of their numbers, so that a token's sum does
 * not depend on what else is in the batch. */
static void down_columns(struct forward *f, struct worker *worker, const struct matrix *down,
                         const struct columns *columns)
{
    const struct routing *routing = &f->routing;
    float *tile = f->scratch[worker->index].tile;
    for (int expert = 0; expert < (int)f->params->n_expert; expert++) {
        int slot = routing->first_slot[expert], end = routing->first_slot[expert + 1];
        for (int block = row_block(end - slot); slot < end; slot += block) {
            int m = end - slot < block ? end - slot : block;
            struct product product = {down, expert, &f->ffn_acts, slot, m, tile, MAX_COLUMN_BLOCK};
            product_columns(f, worker, &product, columns);
            scatter_rows(f, tile, slot, m, columns);
        }
    }
}

void moe_block(struct forward *f, struct worker *worker, const struct layer_weights *layer)
{
    unsigned formats = matrix_format(&layer->gate) | matrix_format(&layer->up);
    norm_phase(f, worker, layer->ffn_norm, formats | matrix_format(&layer->router), 0);
    route_phase(f, worker, &layer->router);
    gate_up_phase(f, worker, layer);
    activations_phase(f, worker, &layer->down, f->n_tokens * (int)f->params->n_expert_used);
    int block = column_block(worker, &layer->down, 1, f->n_tokens);
    struct columns columns;
    for (struct walk walk = walk_start(worker); walk_next_part(&walk);)
        while (walk_take(&walk, &layer->down, block, &columns))
            down_columns(f, worker, &layer->down, &columns);
    end_phase(f, worker, PHASE_DOWN);
}
