#include "forward/pass.h"

#include <stdlib.h>

#include "base/mem.h"

/* ---- Buffers ---- */

/* A bump allocator that first only counts: the same code sizes and places every buffer. */
struct layout {
    uint8_t *memory; /* NULL while counting */
    size_t used;
    bool overflow;
};

static void *place(struct layout *layout, size_t count, size_t size)
{
    size_t bytes;
    if (!mul_size(count, size, &bytes) || !add_size(bytes, 63, &bytes)) {
        layout->overflow = true;
        return NULL;
    }
    void *at = layout->memory ? layout->memory + layout->used : NULL;
    if (!add_size(layout->used, bytes / 64 * 64, &layout->used))
        layout->overflow = true;
    return at;
}

static void place_acts(struct layout *layout, struct acts *acts, unsigned formats, size_t rows,
                       size_t k)
{
    for (int format = 0; format < ACT_FORMAT_COUNT; format++)
        if (formats & 1u << format)
            acts->data[format] = place(layout, rows, act_row_bytes((enum act_format)format, k));
}

/* Room for rows of either shape, in turns. */
static void place_either_acts(struct layout *layout, struct acts *acts, unsigned formats,
                              size_t rows_a, size_t k_a, size_t rows_b, size_t k_b)
{
    for (int format = 0; format < ACT_FORMAT_COUNT; format++) {
        size_t a = act_row_bytes((enum act_format)format, k_a);
        size_t b = act_row_bytes((enum act_format)format, k_b);
        bool a_is_larger = (double)rows_a * (double)a > (double)rows_b * (double)b;
        if (formats & 1u << format)
            acts->data[format] = place(layout, a_is_larger ? rows_a : rows_b, a_is_larger ? a : b);
    }
}

/* What the planned kernels ask of the buffers. */
struct demands {
    unsigned formats;
    size_t gemm_scratch;
};

static struct demands plan_demands(struct forward *f, const struct plan *plan)
{
    struct demands demands = {0};
    for (size_t i = 0; i < plan->n_placements; i++) {
        const struct gemm_kernel *kernel = plan->placements[i].kernel;
        if (!kernel)
            continue;
        size_t scratch = kernel->scratch_bytes((int)plan->placements[i].tensor->k);
        demands.formats |= 1u << kernel->act_format;
        demands.gemm_scratch = scratch > demands.gemm_scratch ? scratch : demands.gemm_scratch;
        f->quantize[kernel->act_format] = kernel->quantize_rows;
    }
    return demands;
}

/* A model in F32 or F16 keeps its precision in its products, and so in attention. */
static bool keeps_floats(const struct plan *plan)
{
    for (size_t i = 0; i < plan->n_placements; i++) {
        const struct model_tensor *tensor = plan->placements[i].tensor;
        uint32_t type = tensor->source->type->id;
        bool queries = tensor->role == ROLE_ATTN_Q || tensor->role == ROLE_ATTN_Q_B;
        if (queries && (type == BLOCK_F32 || type == BLOCK_F16))
            return true;
    }
    return false;
}

static void place_routing(struct layout *layout, struct routing *routing, size_t n, size_t n_expert,
                          size_t n_used)
{
    size_t n_slots = n * n_used;
    routing->logits = place(layout, n * n_expert, sizeof(float));
    routing->expert_of = place(layout, n_slots, sizeof(int32_t));
    routing->weight_of = place(layout, n_slots, sizeof(float));
    routing->slot_of = place(layout, n_slots, sizeof(int32_t));
    routing->slot_token = place(layout, n_slots, sizeof(int32_t));
    routing->slot_weight = place(layout, n_slots, sizeof(float));
    routing->first_slot = place(layout, n_expert + 1, sizeof(int32_t));
    routing->active = place(layout, n_expert, sizeof(int32_t));
}

static void place_attention(struct forward *f, struct layout *layout)
{
    const struct model_params *p = f->params;
    size_t n = (size_t)f->n_batch, group = p->n_head / p->n_head_kv;
    size_t attn_rows = n > MAX_SPLITS ? n : MAX_SPLITS;
    f->k = place(layout, n * p->n_head_kv * p->d_k, sizeof(float));
    f->v = place(layout, n * p->n_head_kv * p->d_v, sizeof(float));
    f->q_heads = place(layout, n * p->n_head * p->d_k, sizeof(float));
    f->attn = place(layout, attn_rows * p->n_head * p->d_v, sizeof(float));
    f->n_keys = place(layout, n * group, sizeof(int32_t));
    size_t attn_scratch = f->kernels->rows.attn_scratch_bytes((int)p->d_k, (int)p->d_v);
    for (int i = 0; i < f->n_workers; i++) {
        f->scratch[i].q = place(layout, group * p->d_k, sizeof(float));
        f->scratch[i].attn = place(layout, 1, attn_scratch);
    }
}

static void place_mla_scratch(struct forward *f, struct layout *layout, unsigned formats,
                              struct worker_scratch *scratch)
{
    const struct model_params *p = f->params;
    const struct row_ops *rows = &f->kernels->rows;
    struct mla_scratch *mla = &scratch->mla;
    size_t kv_rank = p->mla.kv_rank, latent = kv_rank + p->rope.n_rot;
    size_t n = rows->attn_rows > MLA_TOKENS ? (size_t)rows->attn_rows : MLA_TOKENS;
    size_t absorbed = rows->attn_scratch_bytes((int)latent, (int)kv_rank);
    size_t expanded = rows->attn_scratch_bytes((int)p->d_k, (int)p->d_v);
    mla->q_latent = place(layout, p->mla.q_rank, sizeof(float));
    place_acts(layout, &mla->q_acts, formats, 1, p->mla.q_rank);
    place_either_acts(layout, &mla->head_acts, formats, MLA_TOKENS, p->mla.d_nope, MLA_TOKENS,
                      kv_rank);
    mla->q = place(layout, MLA_TOKENS * latent, sizeof(float));
    mla->out = place(layout, n * (kv_rank > p->d_v ? kv_rank : p->d_v), sizeof(float));
    mla->max = place(layout, n, sizeof(float));
    mla->sum = place(layout, n, sizeof(float));
    mla->n_keys = place(layout, n, sizeof(int32_t));
    scratch->attn = place(layout, 1, absorbed > expanded ? absorbed : expanded);
}

static void place_mla(struct forward *f, struct layout *layout, unsigned formats)
{
    const struct model_params *p = f->params;
    struct mla_buffers *mla = &f->mla;
    size_t n = (size_t)f->n_batch, kv_rank = p->mla.kv_rank, latent = kv_rank + p->rope.n_rot;
    size_t split_floats = MAX_SPLITS * kv_rank, row_floats = n * p->d_v;
    mla->q_latent = place(layout, n * p->mla.q_rank, sizeof(float));
    place_acts(layout, &mla->q_acts, formats, n, p->mla.q_rank);
    mla->latent = place(layout, n * latent, sizeof(float));
    mla->q = place(layout, p->n_head * latent, sizeof(float));
    mla->values = place(layout, (size_t)p->n_head * p->d_v, sizeof(float));
    place_acts(layout, &mla->latent_acts, formats, MLA_KEYS, kv_rank);
    mla->keys = place(layout, (size_t)p->n_head * MLA_KEYS * p->d_k, sizeof(float));
    mla->expanded_values = place(layout, (size_t)p->n_head * MLA_KEYS * p->d_v, sizeof(float));
    mla->max = place(layout, p->n_head * n, sizeof(float));
    mla->sum = place(layout, p->n_head * n, sizeof(float));
    f->attn = place(layout, p->n_head * (split_floats > row_floats ? split_floats : row_floats),
                    sizeof(float));
    f->n_keys = place(layout, n, sizeof(int32_t));
    for (int i = 0; i < f->n_workers; i++)
        place_mla_scratch(f, layout, formats, &f->scratch[i]);
}

static void place_ffn(struct forward *f, struct layout *layout, unsigned formats)
{
    const struct model_params *p = f->params;
    size_t n = (size_t)f->n_batch, n_slots = n * p->n_expert_used;
    place_either_acts(layout, &f->ffn_acts, formats, n_slots, p->n_ff_expert, n, p->n_ff);
    if (!p->n_expert)
        return;
    if (p->n_ff_shared)
        place_acts(layout, &f->shared_acts, formats, n, p->n_ff_shared);
    place_routing(layout, &f->routing, n, p->n_expert, p->n_expert_used);
    f->columns_done = place(layout, p->n_expert + 1, sizeof *f->columns_done);
    f->down_stride = p->n_embd + 16;
    f->down = place(layout, n_slots * f->down_stride, sizeof(float));
    for (int i = 0; i < f->n_workers; i++) {
        struct worker_scratch *scratch = &f->scratch[i];
        place_acts(layout, &scratch->rows, formats, MAX_ROW_BLOCK, p->n_embd);
        place_routing(layout, &scratch->routing, FEW_TOKENS, p->n_expert, p->n_expert_used);
    }
}

static void place_buffers(struct forward *f, struct layout *layout, const struct demands *demands)
{
    const struct model_params *p = f->params;
    size_t n = (size_t)f->n_batch, half = p->rope.n_rot / 2;
    f->frequencies = place(layout, half, sizeof(double));
    f->cos = place(layout, n * half, sizeof(float));
    f->sin = place(layout, n * half, sizeof(float));
    f->x = place(layout, n * p->n_embd, sizeof(float));
    f->q = place(layout, n * p->n_head * p->d_k, sizeof(float));
    f->split_max = place(layout, (size_t)MAX_SPLITS * p->n_head, sizeof(float));
    f->split_sum = place(layout, (size_t)MAX_SPLITS * p->n_head, sizeof(float));
    f->splits_done = place(layout, p->n_head, sizeof *f->splits_done);
    place_acts(layout, &f->norm_acts, demands->formats, n, p->n_embd);
    place_acts(layout, &f->attn_acts, demands->formats, n, (size_t)p->n_head * p->d_v);
    for (int i = 0; i < f->n_workers; i++) {
        struct worker_scratch *scratch = &f->scratch[i];
        scratch->tile = place(layout, (size_t)MAX_ROW_BLOCK * TILE_STRIDE, sizeof(float));
        scratch->up = place(layout, (size_t)MAX_ROW_BLOCK * TILE_STRIDE, sizeof(float));
        scratch->norm = place(layout, FEW_TOKENS * p->n_embd, sizeof(float));
        place_acts(layout, &scratch->norm_acts, demands->formats, FEW_TOKENS, p->n_embd);
        place_acts(layout, &scratch->attn_acts, demands->formats, 1, (size_t)p->n_head * p->d_v);
        scratch->gemm = place(layout, 1, demands->gemm_scratch);
    }
    if (p->mla.kv_rank)
        place_mla(f, layout, demands->formats);
    else
        place_attention(f, layout);
    place_ffn(f, layout, demands->formats);
}

void forward_free(struct forward *f)
{
    if (!f)
        return;
    profile_free(f->profile);
    free(f->memory);
    free(f->scratch);
    free(f);
}

size_t forward_scratch_bytes(const struct forward *f)
{
    return f->scratch_bytes;
}

/* Everything but the memory of the buffers, which is counted. */
static int open_counted(const struct plan *plan, int n_batch, int n_workers,
                        struct demands *demands, struct forward **out, struct tsr_error *error)
{
    *out = NULL;
    struct forward *f = mem_alloc(1, sizeof *f);
    if (!f)
        return error_set(error, TSR_ENOMEM, "out of memory");
    f->model = plan->model;
    f->params = &plan->model->params;
    f->kernels = plan->kernels;
    f->n_batch = n_batch;
    f->n_workers = n_workers;
    f->scratch = mem_alloc((size_t)n_workers, sizeof *f->scratch);
    if (!f->scratch) {
        forward_free(f);
        return error_set(error, TSR_ENOMEM, "out of memory");
    }
    *demands = plan_demands(f, plan);
    f->exact_attention = keeps_floats(plan);
    struct layout layout = {0};
    place_buffers(f, &layout, demands);
    f->scratch_bytes = layout.overflow ? SIZE_MAX : layout.used;
    *out = f;
    return 0;
}

int forward_plan(const struct plan *plan, int n_batch, int n_workers, uint64_t *bytes,
                 struct tsr_error *error)
{
    struct demands demands;
    struct forward *f;
    int status = open_counted(plan, n_batch, n_workers, &demands, &f, error);
    *bytes = status ? 0 : f->scratch_bytes;
    forward_free(f);
    return status;
}

int forward_create(const struct plan *plan, const struct weights *weights, int n_batch,
                   int n_workers, struct forward **out, struct tsr_error *error)
{
    struct demands demands;
    int status = open_counted(plan, n_batch, n_workers, &demands, out, error);
    if (status)
        return status;
    struct forward *f = *out;
    f->weights = weights;
    f->memory = weights->huge_pages ? mem_alloc_huge(f->scratch_bytes)
                                    : mem_alloc(f->scratch_bytes, 1);
    if (!f->memory) {
        status = error_set(error, TSR_ENOMEM,
                           "out of memory: %zu MiB of buffers for batches of %d: use a smaller -b",
                           f->scratch_bytes >> 20, n_batch);
        forward_free(f);
        *out = NULL;
        return status;
    }
    struct layout layout = {.memory = f->memory};
    place_buffers(f, &layout, &demands);
    rope_frequencies(&f->params->rope, weights->rope_factors, f->frequencies);
    return 0;
}

/* ---- The pass ---- */

/* Embeddings, angles and the number of keys that each query row sees. */
static void embed_phase(struct forward *f, struct worker *worker)
{
    const struct gguf_tensor *embedding = f->weights->token_embd;
    size_t n_embd = f->params->n_embd, half = f->params->rope.n_rot / 2;
    size_t row_bytes = n_embd / embedding->type->n_elems * embedding->type->n_bytes;
    bool mla = f->params->mla.kv_rank;
    int group = mla ? 1 : (int)(f->params->n_head / f->params->n_head_kv);
    int begin, end;
    team_share(worker, f->n_tokens, 1, &begin, &end);
    for (int i = begin; i < end; i++) {
        const uint8_t *row = (const uint8_t *)embedding->data + (size_t)f->batch->ids[i] * row_bytes;
        embedding->type->dequantize(row, f->x + (size_t)i * n_embd, n_embd);
        uint32_t position = f->batch->position + (uint32_t)i;
        rope_angles(&f->params->rope, f->frequencies, position, f->cos + (size_t)i * half,
                    f->sin + (size_t)i * half);
        for (int g = 0; g < group; g++)
            f->n_keys[i * group + g] = (int32_t)position + 1;
    }
    end_phase(f, worker, PHASE_EMBED);
}

static void output_phase(struct forward *f, struct worker *worker)
{
    const struct matrix *output = &f->weights->output;
    int first = f->batch->all_logits ? 0 : f->n_tokens - 1;
    int rows = f->n_tokens - first;
    const struct acts *a = norm_phase(f, worker, f->weights->output_norm,
                                      block_formats(output, rows, row_block(rows)), first);
    struct product product = {output, 0, a, 0, rows, f->batch->logits, (size_t)output->n, NULL};
    products_run(f, worker, PHASE_OUTPUT, &product, 1, (struct fetch){NULL, 0});
}

/* What a layer multiplies first. */
static const struct matrix *first_matrix(const struct layer_weights *layer)
{
    return layer->mla.q_a.kernel ? &layer->mla.q_a : &layer->q;
}

/* Whether to stop before a layer. */
static bool is_cancelled(const struct forward_batch *batch, int layer, int n_layer)
{
    if (batch->cancel && atomic_load(batch->cancel))
        return true;
    return batch->progress && !batch->progress(batch->user, layer, n_layer);
}

static void run_worker(struct worker *worker, void *arg)
{
    struct forward *f = arg;
    if (f->profile)
        profile_start(f->profile, worker);
    embed_phase(f, worker);
    int n_layer = (int)f->params->n_layer;
    for (int layer = 0; layer < n_layer; layer++) {
        const struct layer_weights *weights = &f->weights->layers[layer];
        struct fetch next = fetch_rows(
            f, worker, layer + 1 < n_layer ? first_matrix(&weights[1]) : &f->weights->output);
        if (worker->index == 0)
            f->stop = is_cancelled(f->batch, layer, n_layer);
        if (weights->mla.kv_a.kernel)
            mla_block(f, worker, layer);
        else
            attention_block(f, worker, layer);
        if (f->stop)
            return;
        if (weights->router.kernel)
            moe_block(f, worker, weights, next);
        else
            dense_ffn_block(f, worker, weights, next);
    }
    output_phase(f, worker);
}

int forward_profile(struct forward *f, struct tsr_error *error)
{
    f->profile = profile_create(f->n_workers);
    return f->profile ? 0 : error_set(error, TSR_ENOMEM, "out of memory");
}

int forward_take_profile(struct forward *f, struct phase_time *times)
{
    if (!f->profile)
        return 0;
    profile_take(f->profile, times);
    return PHASE_COUNT;
}

bool forward_run(struct forward *f, struct team *team, int n_workers,
                 const struct forward_batch *batch)
{
    f->batch = batch;
    f->n_tokens = batch->n_tokens;
    f->stop = false;
    if (f->profile)
        profile_call(f->profile);
    team_run(team, n_workers < f->n_workers ? n_workers : f->n_workers, run_worker, f);
    return !f->stop;
}
