/* The mixture of experts: route, sort (token, expert) pairs by expert, gate and up with the
 * activation, down, and the weighted sum back into the residual stream.
 *
 * A prompt has one phase for all products of experts: first come the items (expert, columns) of
 * gate and up, then those of down, each of which waits for its own expert only. What experts give
 * is kept by pair, and summed by token in a phase of its own. For few tokens an item of down is a
 * block of columns that walks the experts and adds to the stream. Either way no two workers add to
 * the same element, and a token's experts are summed in the order of their numbers: the result
 * depends neither on the team nor on what else is in the batch. */
#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "forward/pass.h"

/* ---- Routing --------------------------------------------------------------------------------- */

/* Of n experts: the largest probability, or with a bias the sum of the largest two, as the models do
 * (arXiv 2405.04434, section 2.2.2; arXiv 2412.19437, section 2.1.2). */
static float score_group(const float *probability, const float *bias, int n)
{
    float first = -INFINITY, second = -INFINITY;
    for (int e = 0; e < n; e++) {
        float p = probability[e] + (bias ? bias[e] : 0.0f);
        second = fmaxf(second, fminf(first, p));
        first = fmaxf(first, p);
    }
    return bias && n > 1 ? first + second : first;
}

/* A bit for each group of experts that may be chosen from: those with the largest scores. */
static uint64_t choose_groups(const struct router_params *router, const float *probability,
                              const float *bias, int n_expert)
{
    float scores[ROUTER_MAX_GROUPS];
    int n_group = (int)router->n_group, size = n_expert / n_group;
    uint64_t chosen = 0;
    for (int g = 0; g < n_group; g++)
        scores[g] = score_group(probability + g * size, bias ? bias + g * size : NULL, size);
    for (uint32_t i = 0; i < router->n_group_used; i++) {
        int best = -1;
        for (int g = 0; g < n_group; g++)
            if (!(chosen >> g & 1) && (best < 0 || scores[g] > scores[best]))
                best = g;
        chosen |= 1ull << best;
    }
    return chosen;
}

/* The n_used largest of probabilities [n_expert], each with its bias (NULL: none); the first of
 * equals first. */
static void choose_experts(const struct router_params *router, const float *probability,
                           const float *bias, int n_expert, int n_used, int32_t *chosen,
                           float *weight)
{
    uint64_t groups = router->n_group > 1 ? choose_groups(router, probability, bias, n_expert) : 1;
    int n = 0, size = n_expert / (int)router->n_group;
    for (int first = 0; groups; groups >>= 1, first += size)
        for (int e = first; groups & 1 && e < first + size; e++) {
            float p = probability[e] + (bias ? bias[e] : 0.0f);
            if (n == n_used && !(p > weight[n - 1]))
                continue;
            int at = n < n_used ? n++ : n - 1;
            for (; at > 0 && p > weight[at - 1]; at--) {
                weight[at] = weight[at - 1];
                chosen[at] = chosen[at - 1];
            }
            weight[at] = p;
            chosen[at] = e;
        }
}

/* The bias is for the choice only. */
static void weigh_experts(const struct router_params *router, const float *probability, int n_used,
                          const int32_t *chosen, float *weight)
{
    float sum = 0.0f;
    for (int u = 0; u < n_used; u++) {
        weight[u] = probability[chosen[u]];
        sum += weight[u];
    }
    float divisor = router->normalized ? fmaxf(sum, FLT_MIN) : 1.0f; /* sigmoids may be zero */
    for (int u = 0; u < n_used; u++)
        weight[u] = weight[u] / divisor * router->scale;
}

/* By number. */
static void order_experts(int n_used, int32_t *chosen, float *weight)
{
    for (int u = 1; u < n_used; u++)
        for (int at = u; at > 0 && chosen[at] < chosen[at - 1]; at--) {
            int32_t expert = chosen[at];
            float w = weight[at];
            chosen[at] = chosen[at - 1];
            weight[at] = weight[at - 1];
            chosen[at - 1] = expert;
            weight[at - 1] = w;
        }
}

static void sigmoid(float *x, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = 1.0f / (1.0f + expf(-x[i]));
}

/* From logits to the experts of rows [begin, end). */
static void route_rows(struct forward *f, const struct layer_weights *layer,
                       struct routing *routing, int begin, int end)
{
    const struct router_params *router = &f->params->router;
    int n_expert = (int)f->params->n_expert, n_used = (int)f->params->n_expert_used;
    for (int i = begin; i < end; i++) {
        float *logits = routing->logits + (size_t)i * (size_t)n_expert;
        int32_t *chosen = routing->expert_of + (size_t)i * (size_t)n_used;
        float *weight = routing->weight_of + (size_t)i * (size_t)n_used;
        if (router->sigmoid)
            sigmoid(logits, n_expert);
        else
            f->kernels->rows.softmax(logits, (size_t)n_expert);
        choose_experts(router, logits, layer->router_bias, n_expert, n_used, chosen, weight);
        weigh_experts(router, logits, n_used, chosen, weight);
        order_experts(n_used, chosen, weight);
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
        routing->slot_of[i] = slot;
        routing->slot_token[slot] = i / n_used;
        routing->slot_weight[slot] = routing->weight_of[i];
    }
    for (int e = n_expert; e > 0; e--)
        first[e] = first[e - 1];
    first[0] = 0;
    list_active(routing, n_expert);
}

/* Columns of an item of the shared experts of few tokens. */
static int shared_block(const struct forward *f, const struct worker *worker,
                        const struct layer_weights *layer)
{
    return gate_up_block(worker, &layer->shared.gate, 1, f->n_tokens);
}

/* What a worker reads first after the choice of experts, whatever that is. */
static struct fetch fetch_shared(const struct forward *f, const struct worker *worker,
                                 const struct layer_weights *layer)
{
    if (!layer->shared.gate.kernel)
        return (struct fetch){NULL, 0};
    return fetch_dealt(worker, &layer->shared.gate, 0, shared_block(f, worker, layer));
}

/* Few tokens: the product is shared out, the rest is every worker's own. */
static const struct routing *route_few(struct forward *f, struct worker *worker,
                                       const struct layer_weights *layer, const struct acts *a)
{
    struct routing *own = &f->scratch[worker->index].routing;
    size_t n_expert = f->params->n_expert, n_logits = (size_t)f->n_tokens * n_expert;
    struct product product = {&layer->router, 0, a, 0, f->n_tokens, f->routing.logits, n_expert,
                              NULL};
    products_run(f, worker, PHASE_ROUTER, &product, 1, fetch_shared(f, worker, layer));
    memcpy(own->logits, f->routing.logits, n_logits * sizeof *own->logits);
    route_rows(f, layer, own, 0, f->n_tokens);
    sort_slots(own, f->n_tokens, (int)n_expert, (int)f->params->n_expert_used);
    mark_phase(f, worker, PHASE_ROUTER);
    return own;
}

/* Rows of an item of the router: as many as make it worth to bring its weights into the cache. All,
 * where that would leave workers without an item: they share out the columns then. */
static int router_rows(const struct forward *f, const struct worker *worker)
{
    enum { ITEMS = 4, LEAST = 8, MOST = 64 };
    int rows = n_blocks(f->n_tokens, ITEMS * worker->count);
    rows = rows < LEAST ? LEAST : rows > MOST ? MOST : rows;
    return n_blocks(f->n_tokens, rows) < worker->count ? row_block(f->n_tokens) : rows;
}

/* Items of rows: from the norm to the choice of experts. What only the router reads, the longest
 * rows as a rule, stays with the worker. */
static void route_by_rows(struct forward *f, struct worker *worker,
                          const struct layer_weights *layer, unsigned formats, int rows)
{
    const struct acts *own = &f->scratch[worker->index].rows;
    unsigned own_formats = block_formats(&layer->router, f->n_tokens, rows);
    size_t n_expert = f->params->n_expert;
    for (int i = team_take(worker) * rows; i < f->n_tokens; i = team_take(worker) * rows) {
        int m = f->n_tokens - i < rows ? f->n_tokens - i : rows;
        struct normed normed[] = {{&f->norm_acts, i, formats}, {own, 0, own_formats}};
        norm_rows(f, worker, layer->ffn_norm, i, i + m, normed, 2);
        float *logits = f->routing.logits + (size_t)i * n_expert;
        struct product product = {&layer->router, 0, own, 0, m, logits, n_expert, NULL};
        product_rows(f, worker, &product);
        route_rows(f, layer, &f->routing, i, i + m);
        mark_phase(f, worker, PHASE_ROUTER);
    }
    end_phase(f, worker, PHASE_ROUTER);
}

/* The norm, the product by columns, then the choice. */
static void route_by_columns(struct forward *f, struct worker *worker,
                             const struct layer_weights *layer, unsigned formats, int rows)
{
    formats |= block_formats(&layer->router, f->n_tokens, rows);
    const struct acts *a = norm_phase(f, worker, layer->ffn_norm, formats, 0);
    struct product product = {&layer->router, 0, a, 0, f->n_tokens, f->routing.logits,
                              f->params->n_expert, NULL};
    products_run(f, worker, PHASE_ROUTER, &product, 1, (struct fetch){NULL, 0});
    int begin, end;
    team_share(worker, f->n_tokens, 1, &begin, &end);
    route_rows(f, layer, &f->routing, begin, end);
    end_phase(f, worker, PHASE_ROUTER);
}

/* Norms the rows as well, in `formats`, to f->norm_acts. */
static const struct routing *route_prompt(struct forward *f, struct worker *worker,
                                          const struct layer_weights *layer, unsigned formats)
{
    struct routing *routing = &f->routing;
    size_t n_expert = f->params->n_expert;
    int rows = router_rows(f, worker);
    if (n_blocks(f->n_tokens, rows) < worker->count)
        route_by_columns(f, worker, layer, formats, rows);
    else
        route_by_rows(f, worker, layer, formats, rows);
    if (worker->index == 0) {
        sort_slots(routing, f->n_tokens, (int)n_expert, (int)f->params->n_expert_used);
        for (size_t e = 0; e <= n_expert; e++)
            atomic_store_explicit(&f->columns_done[e], 0, memory_order_relaxed);
    }
    end_phase(f, worker, PHASE_ROUTER);
    return routing;
}

/* ---- Gate and up ----------------------------------------------------------------------------- */

/* Copies the rows of some slots, so that they lie together for the kernels; into memory of the
 * worker, so that they are in its L2 when it multiplies. */
static void gather_rows(const struct forward *f, const struct routing *routing,
                        const struct acts *from, struct acts *to, unsigned formats, int slot,
                        int count)
{
    size_t k = f->params->n_embd;
    for (int bit = 0; bit < 2 * ACT_FORMAT_COUNT; bit++) {
        enum act_format format = (enum act_format)(bit / 2);
        size_t stride = act_row_bytes(format, k), first = act_first_bytes(format, k);
        size_t begin = bit % 2 ? first : 0, end = bit % 2 ? act_content_bytes(format, k) : first;
        for (int i = 0; formats & 1u << bit && i < count; i++)
            memcpy(to->data[format] + (size_t)i * stride + begin,
                   from->data[format] + (size_t)routing->slot_token[slot + i] * stride + begin,
                   end - begin);
    }
}

/* gate and up of an expert, for some columns and all its rows. */
static void expert_columns(struct forward *f, struct worker *worker,
                           const struct layer_weights *layer, const struct routing *routing,
                           const struct acts *a, int expert, const struct columns *columns)
{
    struct acts *gathered = &f->scratch[worker->index].rows;
    int slot = routing->first_slot[expert], end = routing->first_slot[expert + 1];
    /* A single token is its own only row. */
    const struct acts *rows = f->n_tokens == 1 ? a : gathered;
    for (int block = row_block(end - slot); slot < end; slot += block) {
        int m = end - slot < block ? end - slot : block;
        unsigned formats = matrix_formats(&layer->ffn.gate, m) | matrix_formats(&layer->ffn.up, m);
        if (rows == gathered)
            gather_rows(f, routing, a, gathered, formats, slot, m);
        struct ffn_rows own = {&layer->ffn, expert, rows, 0, m, &f->ffn_acts, slot};
        gate_up_columns(f, worker, &own, columns);
    }
}

/* The rows of a block of tokens, for the shared experts. */
static struct ffn_rows shared_rows(const struct forward *f, const struct layer_weights *layer,
                                   const struct acts *a, int row, int rows)
{
    int m = f->n_tokens - row < rows ? f->n_tokens - row : rows;
    return (struct ffn_rows){&layer->shared, 0, a, row, m, &f->shared_acts, row};
}

/* ---- Down ------------------------------------------------------------------------------------ */

/* x[token] += weight * product, for the rows of some slots. */
static void scatter_rows(struct forward *f, const struct routing *routing, const float *tile,
                         int slot, int count, const struct columns *columns)
{
    size_t n_embd = f->params->n_embd;
    for (int i = 0; i < count; i++)
        f->kernels->rows.add_scaled(
            f->x + (size_t)routing->slot_token[slot + i] * n_embd + columns->n0,
            tile + (size_t)i * TILE_STRIDE, routing->slot_weight[slot + i],
            (size_t)(columns->n1 - columns->n0));
}

/* down of the shared experts for some columns of some rows, added to x. */
static void shared_down(struct forward *f, struct worker *worker, const struct layer_weights *layer,
                        int row, int rows, const struct columns *columns)
{
    size_t n_embd = f->params->n_embd;
    float *tile = f->scratch[worker->index].tile;
    int m = f->n_tokens - row < rows ? f->n_tokens - row : rows;
    struct product product = {&layer->shared.down, 0,    &f->shared_acts, row,
                              m,                   tile, TILE_STRIDE,     NULL};
    product_columns(f, worker, &product, columns);
    for (int i = 0; i < m; i++)
        f->kernels->rows.add(f->x + (size_t)(row + i) * n_embd + columns->n0,
                             tile + (size_t)i * TILE_STRIDE, (size_t)(columns->n1 - columns->n0));
}

/* The first with rows, `from` or later; -1: none. */
static int next_expert(const struct forward *f, const struct routing *routing, int from)
{
    for (int expert = from; expert < (int)f->params->n_expert; expert++)
        if (expert_rows(routing, expert) > 0)
            return expert;
    return -1;
}

/* down for some columns, over all experts, added to x. */
static void down_columns(struct forward *f, struct worker *worker, const struct matrix *down,
                         const struct routing *routing, const struct columns *columns)
{
    float *tile = f->scratch[worker->index].tile;
    for (int expert = next_expert(f, routing, 0), next; expert >= 0; expert = next) {
        next = next_expert(f, routing, expert + 1);
        int slot = routing->first_slot[expert], m = expert_rows(routing, expert);
        struct product following = {.matrix = down, .expert = next};
        struct product product = {down, expert, &f->ffn_acts, slot, m, tile, TILE_STRIDE,
                                  next < 0 ? NULL : &following};
        product_columns(f, worker, &product, columns);
        scatter_rows(f, routing, tile, slot, m, columns);
    }
}

/* down of an expert, for some columns and all its rows, into f->down. Of many tokens that is more
 * than the caches keep until the experts are summed: written past them it is not read first. */
static void expert_down(struct forward *f, struct worker *worker, const struct matrix *down,
                        const struct routing *routing, int expert, const struct columns *columns)
{
    enum { MANY_BYTES = 16 << 20 };
    const size_t n_slots = (size_t)f->n_tokens * f->params->n_expert_used;
    const bool late = n_slots * f->down_stride * sizeof *f->down > MANY_BYTES;
    int slot = routing->first_slot[expert], end = routing->first_slot[expert + 1];
    for (int block = row_block(end - slot); slot < end; slot += block) {
        int m = end - slot < block ? end - slot : block;
        float *c = f->down + (size_t)slot * f->down_stride + columns->n0;
        struct product product = {down, expert, &f->ffn_acts, slot, m, c, f->down_stride, NULL};
        if (late) {
            product.c = f->scratch[worker->index].tile;
            product.ldc = TILE_STRIDE;
        }
        product_columns(f, worker, &product, columns);
        if (late)
            f->kernels->rows.store_late(c, f->down_stride, product.c, TILE_STRIDE, (size_t)m,
                                        (size_t)(columns->n1 - columns->n0));
    }
}

/* x[token] += weight * result, of all experts of a token. */
static void sum_phase(struct forward *f, struct worker *worker, const struct routing *routing)
{
    enum { ROWS = 8 };
    size_t n_embd = f->params->n_embd, n_used = f->params->n_expert_used;
    for (int i0 = team_take(worker) * ROWS; i0 < f->n_tokens; i0 = team_take(worker) * ROWS)
        for (int i = i0; i < i0 + ROWS && i < f->n_tokens; i++)
            for (size_t at = (size_t)i * n_used; at < ((size_t)i + 1) * n_used; at++)
                f->kernels->rows.add_scaled(
                    f->x + (size_t)i * n_embd,
                    f->down + (size_t)routing->slot_of[at] * f->down_stride,
                    routing->weight_of[at], n_embd);
    end_phase(f, worker, PHASE_SUM);
}

/* ---- Few tokens ------------------------------------------------------------------------------ */

/* What the worker's first item of down reads of the first experts. */
static int fetch_down(struct forward *f, const struct worker *worker, const struct matrix *down,
                      const struct routing *routing, int block, struct fetch *fetch, int most)
{
    int n = 0;
    for (int expert = next_expert(f, routing, 0); expert >= 0 && n < most;
         expert = next_expert(f, routing, expert + 1))
        fetch[n++] = fetch_dealt(worker, down, expert, block);
    return n;
}

static void few_tokens(struct forward *f, struct worker *worker, const struct layer_weights *layer,
                       const struct routing *routing, const struct acts *a, struct fetch next)
{
    enum { FETCHED = 8 };
    bool has_shared = layer->shared.gate.kernel != NULL;
    struct fetch down[FETCHED];
    int block = gate_up_block(worker, &layer->ffn.gate, routing->n_active, f->n_tokens);
    struct ffn_rows shared = shared_rows(f, layer, a, 0, f->n_tokens);
    struct columns columns;
    int n_items = has_shared ? n_blocks(layer->shared.gate.n, shared_block(f, worker, layer))
                             : routing->n_active * n_blocks(layer->ffn.gate.n, block);
    for (struct walk walk = walk_deal(worker, n_items); walk_next_part(&walk);) {
        while (has_shared &&
               walk_take(&walk, &layer->shared.gate, shared_block(f, worker, layer), &columns))
            gate_up_columns(f, worker, &shared, &columns);
        for (int i = 0; i < routing->n_active; i++)
            while (walk_take(&walk, &layer->ffn.gate, block, &columns))
                expert_columns(f, worker, layer, routing, a, routing->active[i], &columns);
    }
    block = column_block(worker, &layer->ffn.down, 1, f->n_tokens);
    int n_fetched = fetch_down(f, worker, &layer->ffn.down, routing, block, down, FETCHED);
    end_phase_fetching(f, worker, PHASE_GATE_UP, down, n_fetched);
    n_items = n_blocks(layer->ffn.down.n, block);
    for (struct walk walk = walk_deal(worker, n_items); walk_next_part(&walk);)
        while (walk_take(&walk, &layer->ffn.down, block, &columns)) {
            if (has_shared)
                shared_down(f, worker, layer, 0, f->n_tokens, &columns);
            down_columns(f, worker, &layer->ffn.down, routing, &columns);
        }
    end_phase_fetching(f, worker, PHASE_DOWN, &next, 1);
}

/* ---- Prompts --------------------------------------------------------------------------------- */

/* Columns of an item of all rows of an expert, so that there are some items for each worker. */
static int expert_block(const struct worker *worker, int n, int n_active)
{
    enum { ITEMS = 6, LEAST = 128 };
    int block = n_blocks(n, n_blocks(ITEMS * worker->count, n_active));
    block = block < LEAST ? LEAST : block;
    return n_blocks(block, GATE_UP_ALIGN) * GATE_UP_ALIGN;
}

/* The last experts, which have the fewest rows, are cut finer: a worker that is slow with its last
 * item holds up all others. */
static int block_of(int block, int i, int n_active)
{
    enum { PARTS = 3 };
    int part = n_blocks(n_blocks(block, PARTS), GATE_UP_ALIGN) * GATE_UP_ALIGN;
    return i < n_active - n_active / 4 ? block : part;
}

static void await_expert(struct forward *f, const struct worker *worker, int expert,
                         uint32_t n_columns)
{
    const _Atomic uint32_t *done = &f->columns_done[expert];
    if (atomic_load_explicit(done, memory_order_acquire) == n_columns)
        return;
    mark_phase(f, worker, PHASE_DOWN);
    team_await(done, n_columns);
    mark_waited(f, worker, PHASE_DOWN);
}

static void count_columns(struct forward *f, int expert, const struct columns *columns)
{
    uint32_t done = (uint32_t)(columns->n1 - columns->n0);
    atomic_fetch_add_explicit(&f->columns_done[expert], done, memory_order_release);
}

/* The items of the shared experts: blocks of all rows and some columns. */
static void shared_gate_up(struct forward *f, struct worker *worker, struct walk *walk,
                           const struct layer_weights *layer, const struct acts *a)
{
    int rows = row_block(f->n_tokens), n = n_blocks(f->n_tokens, rows);
    int block = gate_up_block(worker, &layer->shared.gate, n, f->n_tokens);
    struct columns columns;
    for (int i = 0; i < f->n_tokens; i += rows) {
        struct ffn_rows own = shared_rows(f, layer, a, i, rows);
        while (walk_take(walk, &layer->shared.gate, block, &columns)) {
            gate_up_columns(f, worker, &own, &columns);
            count_columns(f, (int)f->params->n_expert, &columns);
        }
    }
}

static void shared_down_items(struct forward *f, struct worker *worker, struct walk *walk,
                              const struct layer_weights *layer)
{
    int rows = row_block(f->n_tokens), n = n_blocks(f->n_tokens, rows);
    int block = column_block(worker, &layer->shared.down, n, f->n_tokens);
    uint32_t n_columns = (uint32_t)(n * layer->shared.gate.n);
    struct columns columns;
    for (int i = 0; i < f->n_tokens; i += rows)
        while (walk_take(walk, &layer->shared.down, block, &columns)) {
            await_expert(f, worker, (int)f->params->n_expert, n_columns);
            shared_down(f, worker, layer, i, rows, &columns);
        }
}

static void experts_phase(struct forward *f, struct worker *worker,
                          const struct layer_weights *layer, const struct routing *routing,
                          const struct acts *a)
{
    const int n = routing->n_active, n_ff = layer->ffn.gate.n;
    const bool has_shared = layer->shared.gate.kernel != NULL;
    int gate_block = expert_block(worker, n_ff, n);
    int down_block = expert_block(worker, layer->ffn.down.n, n);
    down_block = down_block < MAX_COLUMN_BLOCK ? down_block : MAX_COLUMN_BLOCK;
    struct columns columns;
    struct walk walk = walk_start(worker);
    while (walk_next_part(&walk)) {
        if (has_shared)
            shared_gate_up(f, worker, &walk, layer, a);
        for (int i = 0; i < n; i++)
            while (walk_take(&walk, &layer->ffn.gate, block_of(gate_block, i, n), &columns)) {
                expert_columns(f, worker, layer, routing, a, routing->active[i], &columns);
                count_columns(f, routing->active[i], &columns);
            }
    }
    mark_phase(f, worker, PHASE_GATE_UP);
    walk_again(&walk);
    while (walk_next_part(&walk)) {
        if (has_shared)
            shared_down_items(f, worker, &walk, layer);
        for (int i = 0; i < n; i++)
            while (walk_take(&walk, &layer->ffn.down, block_of(down_block, i, n), &columns)) {
                int expert = routing->active[i];
                await_expert(f, worker, expert, (uint32_t)n_ff);
                expert_down(f, worker, &layer->ffn.down, routing, expert, &columns);
            }
    }
    end_phase(f, worker, PHASE_DOWN);
}

/* An expert has any number of rows up to n_tokens. */
static unsigned expert_formats(const struct matrix *matrix, int n_tokens)
{
    return matrix_formats(matrix, 1) | matrix_formats(matrix, n_tokens);
}

void moe_block(struct forward *f, struct worker *worker, const struct layer_weights *layer,
               struct fetch next)
{
    unsigned formats = expert_formats(&layer->ffn.gate, f->n_tokens) |
                       expert_formats(&layer->ffn.up, f->n_tokens) |
                       block_formats(&layer->shared.gate, f->n_tokens, row_block(f->n_tokens)) |
                       block_formats(&layer->shared.up, f->n_tokens, row_block(f->n_tokens));
    if (f->n_tokens <= FEW_TOKENS) {
        formats |= matrix_formats(&layer->router, f->n_tokens);
        const struct acts *a = norm_phase(f, worker, layer->ffn_norm, formats, 0);
        few_tokens(f, worker, layer, route_few(f, worker, layer, a), a, next);
        return;
    }
    const struct routing *routing = route_prompt(f, worker, layer, formats);
    experts_phase(f, worker, layer, routing, &f->norm_acts);
    sum_phase(f, worker, routing);
}
