/* Grouped-query attention with rotary positions over the KV cache. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "forward/pass.h"

/* Query rows (tokens x heads of a group) of one work item in a prompt, at least. */
enum { QUERY_ROWS = 64, MIN_SPLIT_KEYS = 128 };

static int group_size(const struct forward *f)
{
    return (int)(f->params->n_head / f->params->n_head_kv);
}

void rotate_head(const struct forward *f, float *head, int token)
{
    const struct rope_params *rope = &f->params->rope;
    size_t half = rope->n_rot / 2;
    const float *cos = f->cos + (size_t)token * half, *sin = f->sin + (size_t)token * half;
    if (f->model->arch->rope_pairs == ROPE_ADJACENT)
        f->kernels->rows.rope_adjacent(head, cos, sin, rope->n_rot);
    else
        f->kernels->rows.rope_halves(head, cos, sin, rope->n_rot);
}

/* Norm (where the model has one) and rotation of a query or key head. */
static void finish_head(const struct forward *f, float *head, const float *norm, int token)
{
    if (norm)
        f->kernels->rows.rms_norm(head, head, norm, f->params->d_k, f->params->rms_eps);
    rotate_head(f, head, token);
}

void store_floats(const struct forward *f, enum kv_type type, void *to, const float *from, size_t n)
{
    switch (type) {
    case KV_F16:
        f->kernels->rows.f32_to_f16(to, from, n);
        break;
    case KV_BF16:
        f->kernels->rows.f32_to_bf16(to, from, n);
        break;
    case KV_Q8_0:
        f->kernels->rows.f32_to_q8_0(to, from, n);
        break;
    case KV_F32:
        memcpy(to, from, n * sizeof(float));
        break;
    }
}

/* The query heads of a group, with bias, norm and rotation, to [group, d_k]. */
static void finish_queries(struct forward *f, const struct layer_weights *layer, int token,
                           int head_kv, float *to)
{
    size_t d_k = f->params->d_k, group = (size_t)group_size(f), first = (size_t)head_kv * group;
    const float *q = f->q + ((size_t)token * f->params->n_head + first) * d_k;
    memcpy(to, q, group * d_k * sizeof *to);
    if (layer->q_bias)
        f->kernels->rows.add(to, layer->q_bias + first * d_k, group * d_k);
    for (size_t g = 0; g < group; g++)
        finish_head(f, to + g * d_k, layer->q_norm, token);
}

/* The key and value of a head, into the cache. */
static void finish_key(struct forward *f, const struct layer_weights *layer, int index, int token,
                       int head)
{
    const struct model_params *p = f->params;
    const struct kv_cache *kv = f->batch->kv;
    float *k = f->k + ((size_t)token * p->n_head_kv + (size_t)head) * p->d_k;
    float *v = f->v + ((size_t)token * p->n_head_kv + (size_t)head) * p->d_v;
    if (layer->q_bias) {
        f->kernels->rows.add(k, layer->k_bias + (size_t)head * p->d_k, p->d_k);
        f->kernels->rows.add(v, layer->v_bias + (size_t)head * p->d_v, p->d_v);
    }
    finish_head(f, k, layer->k_norm, token);
    size_t position = f->batch->position + (size_t)token;
    store_floats(f, kv->type, kv_keys(kv, index, head) + position * kv->k_stride, k, p->d_k);
    store_floats(f, kv->type, kv_values(kv, index, head) + position * kv->v_stride, v, p->d_v);
}

/* ---- Attention of some tokens to some keys --------------------------------------------------- */

/* All but the queries and where the result goes. */
static struct attn_args attention_args(struct forward *f, struct worker *worker, int layer,
                                       int head, int token, int n_tokens)
{
    const struct model_params *p = f->params;
    const struct kv_cache *kv = f->batch->kv;
    int group = group_size(f);
    return (struct attn_args){
        .q_stride = p->d_k,
        .m = n_tokens * group,
        .n_keys = f->n_keys + (size_t)token * (size_t)group,
        .key1 = (int)f->batch->position + token + n_tokens,
        .kv_type = kv->type,
        .k = kv_keys(kv, layer, head),
        .v = kv_values(kv, layer, head),
        .k_stride = kv->k_stride,
        .v_stride = kv->v_stride,
        .d_k = (int)p->d_k,
        .d_v = (int)p->d_v,
        .scale = p->attn_scale,
        .exact = f->exact_attention,
        .out_stride = p->d_v,
        .scratch = f->scratch[worker->index].attn,
    };
}

/* ---- A single token -------------------------------------------------------------------------- */

/* Ranges that the keys are cut into, where heads alone cannot feed the team. */
static int split_count(const struct forward *f, const struct worker *worker)
{
    enum { ITEMS = 4 }; /* of a worker */
    int n_keys = (int)f->batch->position + 1;
    int wanted = n_blocks(ITEMS * worker->count, (int)f->params->n_head_kv);
    int most = n_blocks(n_keys, MIN_SPLIT_KEYS);
    int count = wanted < most ? wanted : most;
    return count < MAX_SPLITS ? count : MAX_SPLITS;
}

/* Each split is a sum of exp(score - max) * v. */
void merge_head(struct forward *f, size_t head, int n_splits, size_t d_v)
{
    size_t n_head = f->params->n_head;
    float max = -INFINITY, sum = 0.0f;
    float *out = f->attn + head * d_v; /* [d_v] */
    for (int s = 0; s < n_splits; s++)
        max = fmaxf(max, f->split_max[(size_t)s * n_head + head]);
    for (int s = 0; s < n_splits; s++) {
        size_t row = (size_t)s * n_head + head;
        float scale = expf(f->split_max[row] - max);
        sum += scale * f->split_sum[row];
        for (size_t i = 0; s == 0 && i < d_v; i++)
            out[i] *= scale;
        if (s > 0)
            f->kernels->rows.add_scaled(out, f->attn + row * d_v, scale, d_v);
    }
    for (size_t i = 0; i < d_v; i++)
        out[i] /= sum;
}

/* Who finishes the last split of a head merges them. */
static void merge_splits(struct forward *f, int head, int n_splits)
{
    _Atomic int *done = &f->splits_done[head];
    if (atomic_fetch_add_explicit(done, 1, memory_order_acq_rel) + 1 < n_splits)
        return;
    size_t group = (size_t)group_size(f);
    for (size_t g = 0; g < group; g++)
        merge_head(f, (size_t)head * group + g, n_splits, f->params->d_v);
    atomic_store_explicit(done, 0, memory_order_relaxed);
}

/* A head and a split of the keys. The last split has the token's own key, which it writes first. */
static void attend_split(struct forward *f, struct worker *worker, int index, int head, int split,
                         int n_splits)
{
    const struct layer_weights *layer = &f->weights->layers[index];
    const struct model_params *p = f->params;
    float *q = f->scratch[worker->index].q;
    if (split == n_splits - 1)
        finish_key(f, layer, index, 0, head);
    finish_queries(f, layer, 0, head, q);
    struct attn_args args = attention_args(f, worker, index, head, 0, 1);
    int span = n_blocks(args.key1, n_splits);
    args.q = q;
    args.key0 = split * span;
    args.key1 = (split + 1) * span < args.key1 ? (split + 1) * span : args.key1;
    size_t row = (size_t)split * p->n_head + (size_t)head * (size_t)group_size(f);
    args.out = f->attn + row * p->d_v;
    if (n_splits > 1) {
        args.row_max = f->split_max + row;
        args.row_sum = f->split_sum + row;
    }
    f->kernels->rows.attention(&args);
    if (n_splits > 1)
        merge_splits(f, head, n_splits);
}

/* Rotation, cache and attention in one phase, at whose end `next` is fetched; every worker
 * quantizes the result for itself. */
static const struct acts *attend_token(struct forward *f, struct worker *worker, int index,
                                       unsigned formats, struct fetch next)
{
    int n_splits = split_count(f, worker), width = (int)(f->params->n_head * f->params->d_v);
    int n_items = (int)f->params->n_head_kv * n_splits;
    for (int item = team_take(worker); item < n_items; item = team_take(worker))
        attend_split(f, worker, index, item / n_splits, item % n_splits, n_splits);
    end_phase_fetching(f, worker, PHASE_ATTENTION, &next, 1);
    const struct acts *acts = &f->scratch[worker->index].attn_acts;
    struct acts_source source = {f->attn, (size_t)width, 0, 1, width, 0, width};
    acts_write(f, acts, formats, &source);
    mark_phase(f, worker, PHASE_QUANTIZE);
    return acts;
}

/* ---- Several tokens -------------------------------------------------------------------------- */

/* Heads [head, head + n_heads) of keys and values, of some tokens. */
struct attend_item {
    int head, n_heads;
    int token, n_tokens;
};

/* Heads of an item: one, but of narrow ones as many as fill whole blocks of activations. */
static int heads_per_item(const struct forward *f)
{
    enum { ACT_BLOCK = 32 };
    int n_head_kv = (int)f->params->n_head_kv, width = group_size(f) * (int)f->params->d_v;
    int heads = 1;
    while (heads < n_head_kv && heads * width % ACT_BLOCK)
        heads++;
    return heads;
}

/* Tokens of a work item: as many as serve the kernel, but four items for each worker. */
static int tokens_per_item(const struct forward *f, const struct worker *worker)
{
    enum { ITEMS = 4 };
    int least = QUERY_ROWS / group_size(f), most = f->kernels->rows.attn_rows / group_size(f);
    least = least < 1 ? 1 : least;
    int items_of_head = n_blocks(ITEMS * worker->count, (int)f->params->n_head_kv);
    int tokens = n_blocks(n_blocks(f->n_tokens, items_of_head), least) * least;
    tokens = tokens < most ? tokens : most;
    return tokens > least ? tokens : least;
}

/* Keys and values of all tokens, into the cache. */
static void keys_phase(struct forward *f, struct worker *worker, int index)
{
    enum { ITEMS = 4 }; /* of a worker */
    const struct layer_weights *layer = &f->weights->layers[index];
    int tokens = n_blocks(f->n_tokens, ITEMS * worker->count);
    for (int begin = team_take(worker) * tokens; begin < f->n_tokens;
         begin = team_take(worker) * tokens) {
        int end = begin + tokens < f->n_tokens ? begin + tokens : f->n_tokens;
        for (int head = 0; head < (int)f->params->n_head_kv; head++)
            for (int token = begin; token < end; token++)
                finish_key(f, layer, index, token, head);
    }
    end_phase(f, worker, PHASE_ROTATE);
}

static void attend_head(struct forward *f, struct worker *worker, int index,
                        const struct attend_item *item, int head, float *out)
{
    struct attn_args args =
        attention_args(f, worker, index, head, item->token, item->n_tokens);
    size_t group = (size_t)group_size(f), d_k = f->params->d_k;
    size_t row = ((size_t)head * (size_t)f->n_tokens + (size_t)item->token) * group;
    float *q = f->q_heads + row * d_k;
    for (int i = 0; i < item->n_tokens; i++)
        finish_queries(f, &f->weights->layers[index], item->token + i, head,
                       q + (size_t)i * group * d_k);
    mark_phase(f, worker, PHASE_ROTATE);
    args.q = q;
    args.out = out;
    f->kernels->rows.attention(&args);
    mark_phase(f, worker, PHASE_ATTENTION);
}

/* The heads of an item, and their columns of the rows that the output matrix reads. Several heads
 * of a token lie together where an item is a single token. */
static void attend(struct forward *f, struct worker *worker, int index, unsigned formats,
                   const struct attend_item *item)
{
    const struct model_params *p = f->params;
    size_t width = (size_t)group_size(f) * p->d_v;
    size_t row = (size_t)item->head * (size_t)f->n_tokens +
                 (size_t)item->token * (size_t)item->n_heads;
    float *out = f->attn + row * width; /* [n_tokens, n_heads, group, d_v] of the item */
    for (int i = 0; i < item->n_heads; i++)
        attend_head(f, worker, index, item, item->head + i, out + (size_t)i * width);
    struct acts_source source = {out,
                                 (size_t)item->n_heads * width,
                                 item->token,
                                 item->n_tokens,
                                 (int)(p->n_head * p->d_v),
                                 item->head * (int)width,
                                 (item->head + item->n_heads) * (int)width};
    acts_write(f, &f->attn_acts, formats, &source);
    mark_phase(f, worker, PHASE_QUANTIZE);
}

static const struct acts *attend_tokens(struct forward *f, struct worker *worker, int index,
                                        unsigned formats)
{
    int n_head_kv = (int)f->params->n_head_kv, heads = heads_per_item(f);
    int tokens = heads > 1 ? 1 : tokens_per_item(f, worker);
    int n_groups = n_blocks(n_head_kv, heads), blocks = n_blocks(f->n_tokens, tokens);
    keys_phase(f, worker, index);
    for (int i = team_take(worker); i < n_groups * blocks; i = team_take(worker)) {
        /* The last tokens see the most keys: they go first. */
        int head = i % n_groups * heads, token = (blocks - 1 - i / n_groups) * tokens;
        struct attend_item item = {
            .head = head,
            .n_heads = n_head_kv - head < heads ? n_head_kv - head : heads,
            .token = token,
            .n_tokens = f->n_tokens - token < tokens ? f->n_tokens - token : tokens,
        };
        attend(f, worker, index, formats, &item);
    }
    end_phase(f, worker, PHASE_ATTENTION);
    return &f->attn_acts;
}

void attention_block(struct forward *f, struct worker *worker, int index)
{
    const struct layer_weights *layer = &f->weights->layers[index];
    int rows = row_block(f->n_tokens);
    unsigned formats = block_formats(&layer->q, f->n_tokens, rows) |
                       block_formats(&layer->k, f->n_tokens, rows) |
                       block_formats(&layer->v, f->n_tokens, rows);
    const struct acts *a = norm_phase(f, worker, layer->attn_norm, formats, 0);
    struct product products[] = {
        {&layer->q, 0, a, 0, f->n_tokens, f->q, (size_t)layer->q.n, NULL},
        {&layer->k, 0, a, 0, f->n_tokens, f->k, (size_t)layer->k.n, NULL},
        {&layer->v, 0, a, 0, f->n_tokens, f->v, (size_t)layer->v.n, NULL},
    };
    struct fetch output = fetch_rows(f, worker, &layer->attn_output);
    output = products_run(f, worker, PHASE_QKV, products, 3, output);
    formats = block_formats(&layer->attn_output, f->n_tokens, rows);
    const struct acts *heads = f->n_tokens == 1 ? attend_token(f, worker, index, formats, output)
                                                : attend_tokens(f, worker, index, formats);
    product_add_to_x(f, worker, PHASE_ATTN_OUTPUT, &layer->attn_output, heads,
                     fetch_ffn(f, worker, layer));
}
