/* Multi-head latent attention (arXiv 2405.04434, section 2.1). The cache holds for each token a
 * latent c, of which keys and values of all heads are products, and one rotated key for all heads.
 *
 * Absorbed: q . (K_UP c) = (K_B q) . c, so queries become as wide as latents and the latents are
 *           keys and values of all heads; V_B makes values of what attention gives. Reads little:
 *           for generation.
 * Expanded: keys and values of each head are made from the latents, MLA_KEYS at a time. Fewer
 *           multiplications for each pair of a query and a key, but more for each key: for prompts.
 */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "forward/pass.h"

/* Of a single token: keys of a range at least, and heads of an item at most. */
enum { MIN_SPLIT_KEYS = 128, MOST_HEADS = 16 };

static size_t latent_width(const struct forward *f)
{
    return f->params->mla.kv_rank + f->params->rope.n_rot;
}

/* Width of the rows that the output matrix reads. */
static int values_width(const struct forward *f)
{
    return (int)(f->params->n_head * f->params->d_v);
}

/* Query of a head, [d_k]: d_nope elements, then those that are rotated. */
static float *query_of(const struct forward *f, int token, int head)
{
    return f->q + ((size_t)token * f->params->n_head + (size_t)head) * f->params->d_k;
}

static size_t query_stride(const struct forward *f)
{
    return (size_t)f->params->n_head * f->params->d_k;
}

/* ---- Latents --------------------------------------------------------------------------------- */

/* A token's latent and rotated key, into the cache. */
static void finish_latent(struct forward *f, const struct mla_weights *mla, int index, int token)
{
    const struct kv_cache *kv = f->batch->kv;
    size_t kv_rank = f->params->mla.kv_rank, width = latent_width(f);
    float *latent = f->mla.latent + (size_t)token * width;
    f->kernels->rows.rms_norm(latent, latent, mla->kv_a_norm, kv_rank, f->params->rms_eps);
    rotate_head(f, latent + kv_rank, token);
    size_t position = f->batch->position + (size_t)token;
    store_floats(f, kv->type, kv_keys(kv, index, 0) + position * kv->k_stride, latent, width);
}

/* The latent of a token's queries, normed at `to` and as row `row` of `acts`. */
static void finish_query_latent(struct forward *f, const struct layer_weights *layer, int token,
                                float *to, const struct acts *acts, int row)
{
    int q_rank = (int)f->params->mla.q_rank;
    const float *latent = f->mla.q_latent + (size_t)token * (size_t)q_rank;
    unsigned formats = block_formats(&layer->q, f->n_tokens, row_block(f->n_tokens));
    struct acts_source source = {to, (size_t)q_rank, row, 1, q_rank, 0, q_rank};
    f->kernels->rows.rms_norm(to, latent, layer->mla.q_a_norm, (size_t)q_rank, f->params->rms_eps);
    acts_write(f, acts, formats, &source);
}

/* What a worker reads first when it absorbs the queries of a single token. */
static struct fetch fetch_absorb(const struct forward *f, const struct worker *worker,
                                 const struct matrix *k_b)
{
    if (f->n_tokens > 1 || worker->index >= (int)f->params->n_head)
        return (struct fetch){NULL, 0};
    return fetch_expert(worker, k_b, worker->index);
}

/* Queries from their latents. */
static void queries_phase(struct forward *f, struct worker *worker,
                          const struct layer_weights *layer, const struct acts *acts)
{
    struct product product = {&layer->q, 0, acts, 0, f->n_tokens, f->q, query_stride(f), NULL};
    products_run(f, worker, PHASE_QKV, &product, 1, fetch_absorb(f, worker, &layer->mla.k_b));
}

/* All tokens' latents, and their queries. */
static void latents_phase(struct forward *f, struct worker *worker, int index)
{
    const struct layer_weights *layer = &f->weights->layers[index];
    size_t q_rank = f->params->mla.q_rank;
    int begin, end;
    team_share(worker, f->n_tokens, 1, &begin, &end);
    for (int token = begin; token < end; token++) {
        finish_latent(f, &layer->mla, index, token);
        if (q_rank)
            finish_query_latent(f, layer, token, f->mla.q_latent + (size_t)token * q_rank,
                                &f->mla.q_acts, token);
    }
    end_phase(f, worker, PHASE_ROTATE);
    if (q_rank)
        queries_phase(f, worker, layer, &f->mla.q_acts);
}

/* ---- Absorbed -------------------------------------------------------------------------------- */

/* Queries of a head and some tokens as queries to latents, [n_tokens, latent]. */
static void absorb(struct forward *f, const struct worker *worker, const struct matrix *k_b,
                   int head, int token, int n_tokens, float *to)
{
    const struct mla_params *mla = &f->params->mla;
    const struct acts *acts = &f->scratch[worker->index].mla.head_acts;
    size_t width = latent_width(f), n_rot = f->params->rope.n_rot;
    int d_nope = (int)mla->d_nope;
    struct acts_source source = {
        query_of(f, token, head), query_stride(f), 0, n_tokens, d_nope, 0, d_nope};
    struct product product = {k_b, head, acts, 0, n_tokens, to, width, NULL};
    acts_write(f, acts, matrix_formats(k_b, n_tokens), &source);
    product_rows(f, worker, &product);
    for (int i = 0; i < n_tokens; i++) {
        float *rotated = to + (size_t)i * width + mla->kv_rank;
        memcpy(rotated, query_of(f, token + i, head) + d_nope, n_rot * sizeof *rotated);
        rotate_head(f, rotated, token + i);
    }
}

/* Values [n_rows, d_v] (rows ldc apart) of a head from what attention gave, [n_rows, kv_rank]. */
static void make_values(struct forward *f, const struct worker *worker, const struct matrix *v_b,
                        int head, const float *from, int n_rows, float *to, size_t ldc)
{
    const struct acts *acts = &f->scratch[worker->index].mla.head_acts;
    int kv_rank = (int)f->params->mla.kv_rank;
    struct acts_source source = {from, (size_t)kv_rank, 0, n_rows, kv_rank, 0, kv_rank};
    struct product product = {v_b, head, acts, 0, n_rows, to, ldc, NULL};
    acts_write(f, acts, matrix_formats(v_b, n_rows), &source);
    product_rows(f, worker, &product);
}

/* All but queries, their keys, and where the result goes. */
static struct attn_args latent_args(struct forward *f, const struct worker *worker, int index)
{
    const struct kv_cache *kv = f->batch->kv;
    return (struct attn_args){
        .q_stride = latent_width(f),
        .kv_type = kv->type,
        .k = kv_keys(kv, index, 0),
        .v = kv_keys(kv, index, 0),
        .k_stride = kv->k_stride,
        .v_stride = kv->k_stride,
        .d_k = (int)latent_width(f),
        .d_v = (int)f->params->mla.kv_rank,
        .scale = f->params->attn_scale,
        .exact = f->exact_attention,
        .out_stride = f->params->mla.kv_rank,
        .scratch = f->scratch[worker->index].attn,
    };
}

/* Columns of a head, of some tokens, in the rows that the output matrix reads. */
static void write_values(struct forward *f, const struct worker *worker,
                         const struct matrix *attn_output, int head, int token, int n_tokens,
                         const float *values)
{
    int d_v = (int)f->params->d_v, width = values_width(f);
    unsigned formats = block_formats(attn_output, f->n_tokens, row_block(f->n_tokens));
    struct acts_source source = {values, (size_t)d_v, token,      n_tokens,
                                 width,  head * d_v,  (head + 1) * d_v};
    acts_write(f, &f->attn_acts, formats, &source);
    mark_phase(f, worker, PHASE_QUANTIZE);
}

/* ---- A single token -------------------------------------------------------------------------- */

/* How its heads and keys are cut into items. */
struct token_items {
    int n_splits, n_heads; /* ranges of keys, heads of an item */
};

static struct token_items cut_token(const struct forward *f, const struct worker *worker)
{
    enum { ITEMS = 4 }; /* of a worker */
    int n_head = (int)f->params->n_head, few = f->kernels->rows.attn_few_rows;
    int most_heads = few < MOST_HEADS ? few : MOST_HEADS;
    int most = n_blocks((int)f->batch->position + 1, MIN_SPLIT_KEYS);
    int splits = n_blocks(ITEMS * worker->count * most_heads, n_head);
    splits = splits < most ? splits : most;
    splits = splits < MAX_SPLITS ? splits : MAX_SPLITS;
    int heads = n_head * splits / worker->count;
    return (struct token_items){splits, heads < 1 ? 1 : heads < most_heads ? heads : most_heads};
}

/* Queries to the latents, and the token's own latent into the cache. The first item of a worker is
 * the head of its number. */
static void absorb_phase(struct forward *f, struct worker *worker, int index)
{
    const struct mla_weights *mla = &f->weights->layers[index].mla;
    int n_head = (int)f->params->n_head;
    for (int i = worker->index; i <= n_head; i = worker->count + team_take(worker)) {
        if (i == n_head)
            finish_latent(f, mla, index, 0);
        else
            absorb(f, worker, &mla->k_b, i, 0, 1, f->mla.q + (size_t)i * latent_width(f));
    }
    end_phase(f, worker, PHASE_ROTATE);
}

/* Whether the worker finished the last split of some heads, which are merged then. */
static bool merged_splits(struct forward *f, int head, int n_heads, int n_splits)
{
    _Atomic int *done = &f->splits_done[head];
    if (n_splits == 1)
        return true;
    if (atomic_fetch_add_explicit(done, 1, memory_order_acq_rel) + 1 < n_splits)
        return false;
    for (int i = head; i < head + n_heads; i++)
        merge_head(f, (size_t)i, n_splits, f->params->mla.kv_rank);
    atomic_store_explicit(done, 0, memory_order_relaxed);
    return true;
}

/* Some heads and a split of the keys; who has the last split makes the heads' values. */
static void attend_split(struct forward *f, struct worker *worker, int index, int head, int n_heads,
                         int split, int n_splits)
{
    const struct matrix *v_b = &f->weights->layers[index].mla.v_b;
    size_t n_head = f->params->n_head, kv_rank = f->params->mla.kv_rank, d_v = f->params->d_v;
    int end = (int)f->batch->position + 1, span = n_blocks(end, n_splits);
    size_t row = (size_t)split * n_head + (size_t)head;
    int32_t n_keys[MOST_HEADS];
    struct attn_args args = latent_args(f, worker, index);
    for (int i = 0; i < n_heads; i++)
        n_keys[i] = end;
    args.q = f->mla.q + (size_t)head * latent_width(f);
    args.m = n_heads;
    args.n_keys = n_keys;
    args.key0 = split * span;
    args.key1 = (split + 1) * span < end ? (split + 1) * span : end;
    args.out = f->attn + row * kv_rank;
    if (n_splits > 1) {
        args.row_max = f->split_max + row;
        args.row_sum = f->split_sum + row;
    }
    f->kernels->rows.attention(&args);
    if (!merged_splits(f, head, n_heads, n_splits))
        return;
    for (int i = head; i < head + n_heads; i++)
        make_values(f, worker, v_b, i, f->attn + (size_t)i * kv_rank, 1,
                    f->mla.values + (size_t)i * d_v, d_v);
}

static const struct acts *attend_token(struct forward *f, struct worker *worker, int index)
{
    const struct layer_weights *layer = &f->weights->layers[index];
    struct worker_scratch *scratch = &f->scratch[worker->index];
    int n_head = (int)f->params->n_head, width = values_width(f);
    struct token_items items = cut_token(f, worker);
    int n_groups = n_blocks(n_head, items.n_heads);
    if (f->params->mla.q_rank) {
        finish_query_latent(f, layer, 0, scratch->mla.q_latent, &scratch->mla.q_acts, 0);
        queries_phase(f, worker, layer, &scratch->mla.q_acts);
    }
    absorb_phase(f, worker, index);
    for (int i = team_take(worker); i < n_groups * items.n_splits; i = team_take(worker)) {
        int head = i / items.n_splits * items.n_heads, left = n_head - head;
        attend_split(f, worker, index, head, left < items.n_heads ? left : items.n_heads,
                     i % items.n_splits, items.n_splits);
    }
    struct fetch output = fetch_rows(f, worker, &layer->attn_output);
    end_phase_fetching(f, worker, PHASE_ATTENTION, &output, 1);
    struct acts_source source = {f->mla.values, (size_t)width, 0, 1, width, 0, width};
    acts_write(f, &scratch->attn_acts, block_formats(&layer->attn_output, 1, 1), &source);
    mark_phase(f, worker, PHASE_QUANTIZE);
    return &scratch->attn_acts;
}

/* ---- Several tokens -------------------------------------------------------------------------- */

/* Some tokens of a head: an item. */
struct head_rows {
    int head, token, n_tokens;
};

/* Item i of blocks of `tokens`. The last tokens see the most keys: they go first. False behind the
 * last item. */
static bool head_item(const struct forward *f, int i, int tokens, struct head_rows *rows)
{
    int n_head = (int)f->params->n_head, blocks = n_blocks(f->n_tokens, tokens);
    int token = (blocks - 1 - i / n_head) * tokens, left = f->n_tokens - token;
    *rows = (struct head_rows){i % n_head, token, left < tokens ? left : tokens};
    return i < n_head * blocks;
}

static void attend_latents(struct forward *f, struct worker *worker, int index,
                           const struct head_rows *rows)
{
    const struct layer_weights *layer = &f->weights->layers[index];
    const struct mla_scratch *scratch = &f->scratch[worker->index].mla;
    float *values = f->scratch[worker->index].tile; /* [n_tokens, d_v] */
    struct attn_args args = latent_args(f, worker, index);
    absorb(f, worker, &layer->mla.k_b, rows->head, rows->token, rows->n_tokens, scratch->q);
    mark_phase(f, worker, PHASE_ROTATE);
    args.q = scratch->q;
    args.m = rows->n_tokens;
    args.n_keys = f->n_keys + rows->token;
    args.key1 = (int)f->batch->position + rows->token + rows->n_tokens;
    args.out = scratch->out;
    f->kernels->rows.attention(&args);
    make_values(f, worker, &layer->mla.v_b, rows->head, scratch->out, rows->n_tokens, values,
                f->params->d_v);
    mark_phase(f, worker, PHASE_ATTENTION);
    write_values(f, worker, &layer->attn_output, rows->head, rows->token, rows->n_tokens, values);
}

static void attend_absorbed(struct forward *f, struct worker *worker, int index)
{
    struct head_rows rows;
    for (int i = team_take(worker); head_item(f, i, MLA_TOKENS, &rows); i = team_take(worker))
        attend_latents(f, worker, index, &rows);
    end_phase(f, worker, PHASE_ATTENTION);
}

/* ---- Expanded -------------------------------------------------------------------------------- */

/* Rows of an item that makes keys and values. */
enum { EXPAND_ROWS = 128 };

/* Keys [first, first + count) of the cache: those that are expanded. */
struct key_range {
    int first, count;
};

static const uint8_t *cached_latent(const struct forward *f, int index, int key)
{
    const struct kv_cache *kv = f->batch->kv;
    return kv_keys(kv, index, 0) + (size_t)key * kv->k_stride;
}

/* As the cache, but not rounded to 8 bits once more. */
static enum kv_type expanded_type(const struct forward *f)
{
    enum kv_type type = f->batch->kv->type;
    return type == KV_Q8_0 ? KV_F16 : type;
}

/* The latents from the cache to rows that the products read. */
static void read_latents(struct forward *f, struct worker *worker, int index,
                         const struct key_range *keys)
{
    const struct block_type *type = block_type_find(f->batch->kv->type);
    const struct mla_weights *mla = &f->weights->layers[index].mla;
    unsigned formats = block_formats(&mla->k_up, keys->count, EXPAND_ROWS) |
                       block_formats(&mla->v_b, keys->count, EXPAND_ROWS);
    int kv_rank = (int)f->params->mla.kv_rank, begin, end;
    float *latent = f->scratch[worker->index].mla.out;
    team_share(worker, keys->count, 1, &begin, &end);
    for (int key = begin; key < end; key++) {
        struct acts_source source = {latent, (size_t)kv_rank, key, 1, kv_rank, 0, kv_rank};
        type->dequantize(cached_latent(f, index, keys->first + key), latent, (size_t)kv_rank);
        acts_write(f, &f->mla.latent_acts, formats, &source);
    }
    end_phase(f, worker, PHASE_ROTATE);
}

/* The rotated part of a cached key behind the rest of an expanded one. */
static void expand_rotated(const struct forward *f, const struct worker *worker,
                           const uint8_t *latent, uint8_t *k)
{
    enum kv_type from = f->batch->kv->type, to = expanded_type(f);
    size_t n_rot = f->params->rope.n_rot;
    latent += kv_row_bytes(from, f->params->mla.kv_rank);
    k += kv_row_bytes(to, f->params->mla.d_nope);
    if (from == to) {
        memcpy(k, latent, kv_row_bytes(to, n_rot));
        return;
    }
    float *rotated = f->scratch[worker->index].mla.q; /* the queries of the absorbed form */
    block_type_find(from)->dequantize(latent, rotated, n_rot);
    store_floats(f, to, k, rotated, n_rot);
}

/* Keys and values of a head, for the rows [row, row + count) of the range. */
static void expand_rows(struct forward *f, struct worker *worker, int index,
                        const struct key_range *keys, int head, int row, int count)
{
    const struct model_params *p = f->params;
    const struct mla_weights *mla = &f->weights->layers[index].mla;
    enum kv_type type = expanded_type(f);
    size_t first = (size_t)head * MLA_KEYS + (size_t)row;
    size_t k_stride = kv_row_bytes(type, p->d_k), v_stride = kv_row_bytes(type, p->d_v);
    uint8_t *k = f->mla.keys + first * k_stride;            /* [count, d_k] */
    uint8_t *v = f->mla.expanded_values + first * v_stride; /* [count, d_v] */
    float *tile = f->scratch[worker->index].tile;
    struct product product = {&mla->k_up, head, &f->mla.latent_acts, row, count, tile, TILE_STRIDE,
                              NULL};
    product_rows(f, worker, &product);
    for (int i = 0; i < count; i++, k += k_stride) {
        store_floats(f, type, k, tile + (size_t)i * TILE_STRIDE, p->mla.d_nope);
        expand_rotated(f, worker, cached_latent(f, index, keys->first + row + i), k);
    }
    product.matrix = &mla->v_b;
    product_rows(f, worker, &product);
    for (int i = 0; i < count; i++, v += v_stride)
        store_floats(f, type, v, tile + (size_t)i * TILE_STRIDE, p->d_v);
}

static void expand_phase(struct forward *f, struct worker *worker, int index,
                         const struct key_range *keys)
{
    int blocks = n_blocks(keys->count, EXPAND_ROWS), n_items = blocks * (int)f->params->n_head;
    read_latents(f, worker, index, keys);
    for (int i = team_take(worker); i < n_items; i = team_take(worker)) {
        int row = i % blocks * EXPAND_ROWS, left = keys->count - row;
        expand_rows(f, worker, index, keys, i / blocks, row,
                    left < EXPAND_ROWS ? left : EXPAND_ROWS);
    }
    end_phase(f, worker, PHASE_ROTATE);
}

/* Adds what a range of keys gave for a row to what those before it gave: sums of exp(score - max)
 * times values, with their maximum and sum of exp(score - max). */
static void merge_range(struct forward *f, float *out, float *max, float *sum, const float *more,
                        float more_max, float more_sum)
{
    size_t d_v = f->params->d_v;
    float new_max = fmaxf(*max, more_max);
    float keep = expf(*max - new_max), scale = expf(more_max - new_max);
    for (size_t i = 0; i < d_v; i++)
        out[i] *= keep;
    f->kernels->rows.add_scaled(out, more, scale, d_v);
    *sum = *sum * keep + more_sum * scale;
    *max = new_max;
}

/* Attention of some rows of a head to the expanded keys, into the rows of f->attn. */
static void attend_range(struct forward *f, struct worker *worker, const struct key_range *keys,
                         const struct head_rows *rows, float *out, float *max, float *sum)
{
    const struct model_params *p = f->params;
    const struct mla_scratch *scratch = &f->scratch[worker->index].mla;
    enum kv_type type = expanded_type(f);
    size_t d_v = p->d_v, k_stride = kv_row_bytes(type, p->d_k), v_stride = kv_row_bytes(type, d_v);
    for (int i = 0; i < rows->n_tokens; i++) {
        int n_keys = f->n_keys[rows->token + i] - keys->first;
        scratch->n_keys[i] = n_keys < 0 ? 0 : n_keys;
    }
    bool first = keys->first == 0;
    struct attn_args args = {
        .q = query_of(f, rows->token, rows->head),
        .q_stride = query_stride(f),
        .m = rows->n_tokens,
        .n_keys = scratch->n_keys,
        .key1 = keys->count,
        .kv_type = type,
        .k = f->mla.keys + (size_t)rows->head * MLA_KEYS * k_stride,
        .v = f->mla.expanded_values + (size_t)rows->head * MLA_KEYS * v_stride,
        .k_stride = k_stride,
        .v_stride = v_stride,
        .d_k = (int)p->d_k,
        .d_v = (int)d_v,
        .scale = p->attn_scale,
        .exact = f->exact_attention,
        .out = first ? out : scratch->out,
        .out_stride = d_v,
        .row_max = first ? max : scratch->max,
        .row_sum = first ? sum : scratch->sum,
        .scratch = f->scratch[worker->index].attn,
    };
    f->kernels->rows.attention(&args);
    for (int i = 0; !first && i < rows->n_tokens; i++)
        if (scratch->n_keys[i] > 0)
            merge_range(f, out + (size_t)i * d_v, max + i, sum + i, scratch->out + (size_t)i * d_v,
                        scratch->max[i], scratch->sum[i]);
}

/* An item: rows of a head, with one range of their keys. */
static void attend_expanded_rows(struct forward *f, struct worker *worker, int index,
                                 const struct key_range *keys, const struct head_rows *rows)
{
    const struct matrix *attn_output = &f->weights->layers[index].attn_output;
    size_t d_v = f->params->d_v;
    size_t row = (size_t)rows->head * (size_t)f->n_tokens + (size_t)rows->token;
    float *out = f->attn + row * d_v, *sum = f->mla.sum + row;
    int end = (int)f->batch->position + rows->token + rows->n_tokens; /* of the keys they see */
    if (keys->first >= end)
        return;
    for (int i = 0; keys->first == 0 && i < rows->n_tokens; i++)
        rotate_head(f, query_of(f, rows->token + i, rows->head) + f->params->mla.d_nope,
                    rows->token + i);
    mark_phase(f, worker, PHASE_ROTATE);
    attend_range(f, worker, keys, rows, out, f->mla.max + row, sum);
    mark_phase(f, worker, PHASE_ATTENTION);
    if (keys->first + keys->count < end)
        return;
    for (int i = 0; i < rows->n_tokens; i++)
        for (size_t j = 0; j < d_v; j++)
            out[(size_t)i * d_v + j] /= sum[i];
    write_values(f, worker, attn_output, rows->head, rows->token, rows->n_tokens, out);
}

/* Tokens of an item: as many as serve the kernel, but some items for each worker. */
static int tokens_per_item(const struct forward *f, const struct worker *worker)
{
    enum { ITEMS = 4 };
    int most = f->kernels->rows.attn_rows > MLA_TOKENS ? f->kernels->rows.attn_rows : MLA_TOKENS;
    int tokens = n_blocks(f->n_tokens, n_blocks(ITEMS * worker->count, (int)f->params->n_head));
    tokens = n_blocks(tokens, MLA_TOKENS) * MLA_TOKENS;
    return tokens < most ? tokens : most;
}

static void attend_expanded(struct forward *f, struct worker *worker, int index)
{
    int n_keys = (int)f->batch->position + f->n_tokens, tokens = tokens_per_item(f, worker);
    for (int first = 0; first < n_keys; first += MLA_KEYS) {
        struct key_range keys = {first, n_keys - first < MLA_KEYS ? n_keys - first : MLA_KEYS};
        struct head_rows rows;
        expand_phase(f, worker, index, &keys);
        for (int i = team_take(worker); head_item(f, i, tokens, &rows); i = team_take(worker))
            attend_expanded_rows(f, worker, index, &keys, &rows);
        end_phase(f, worker, PHASE_ATTENTION);
    }
}

/* ---- The block ------------------------------------------------------------------------------- */

/* Compares the multiplications of both forms, for each head. Those of attention weigh more: they
 * are of floats or bf16, with the softmax between them. */
static bool expanding_is_cheaper(const struct forward *f)
{
    const double weight = 2.0;
    const struct model_params *p = f->params;
    double n = f->n_tokens, n_keys = f->batch->position + n, pairs = n * (n_keys - (n - 1) / 2);
    double projections = (double)p->mla.kv_rank * (p->mla.d_nope + p->d_v);
    double absorbed = weight * pairs * (double)(latent_width(f) + p->mla.kv_rank) + n * projections;
    double expanded = weight * pairs * (p->d_k + p->d_v) + n_keys * projections;
    return f->n_tokens > FEW_TOKENS && expanded < absorbed;
}

static const struct acts *attend_tokens(struct forward *f, struct worker *worker, int index)
{
    latents_phase(f, worker, index);
    if (expanding_is_cheaper(f))
        attend_expanded(f, worker, index);
    else
        attend_absorbed(f, worker, index);
    return &f->attn_acts;
}

void mla_block(struct forward *f, struct worker *worker, int index)
{
    const struct layer_weights *layer = &f->weights->layers[index];
    bool has_rank = f->params->mla.q_rank;
    const struct matrix *q = has_rank ? &layer->mla.q_a : &layer->q, *kv = &layer->mla.kv_a;
    int rows = row_block(f->n_tokens);
    unsigned formats = block_formats(q, f->n_tokens, rows) | block_formats(kv, f->n_tokens, rows);
    const struct acts *a = norm_phase(f, worker, layer->attn_norm, formats, 0);
    struct product products[] = {
        {q, 0, a, 0, f->n_tokens, has_rank ? f->mla.q_latent : f->q, (size_t)q->n, NULL},
        {kv, 0, a, 0, f->n_tokens, f->mla.latent, (size_t)kv->n, NULL},
    };
    struct fetch next = has_rank ? fetch_rows(f, worker, &layer->q)
                                 : fetch_absorb(f, worker, &layer->mla.k_b);
    products_run(f, worker, PHASE_QKV, products, 2, next);
    const struct acts *heads = f->n_tokens == 1 ? attend_token(f, worker, index)
                                                : attend_tokens(f, worker, index);
    product_add_to_x(f, worker, PHASE_ATTN_OUTPUT, &layer->attn_output, heads,
                     fetch_ffn(f, worker, layer));
}
