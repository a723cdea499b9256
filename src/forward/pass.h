/* What the blocks of the forward pass share: buffers and the batch at hand. */
#ifndef TESSERA_FORWARD_PASS_H
#define TESSERA_FORWARD_PASS_H

#include "forward/forward.h"
#include "forward/profile.h"
#include "forward/rope.h"

/* Rows and columns of a product that are computed at once at most: rows whose activations stay in
 * L2 for all columns. Rows of TILE_STRIDE floats do not all begin in the same few sets of a cache. */
enum { MAX_ROW_BLOCK = 256, MAX_COLUMN_BLOCK = 512, TILE_STRIDE = MAX_COLUMN_BLOCK + 16 };

/* So few tokens that every worker norms, quantizes and routes them for itself, which takes less
 * time than waiting for others. */
enum { FEW_TOKENS = 4 };

/* Ranges that the keys of a single token are split into at most. */
enum { MAX_SPLITS = 32 };

/* Rows of activations, act_row_bytes(format, k) apart, in each format that the following products
 * ask for. Which formats, and which of their parts, is told by a set of bits: 2 * format for the
 * first part, 2 * format + 1 for the second. */
struct acts {
    uint8_t *data[ACT_FORMAT_COUNT]; /* NULL: no kernel of the model uses the format */
};

typedef void quantize_fn(const struct quantize_args *args);

/* Which experts get which tokens. A *slot* is one (token, expert) pair; slots are sorted by expert,
 * so that the rows of an expert lie together. */
struct routing {
    float *logits;         /* [n_tokens, n_expert] */
    int32_t *expert_of;    /* [n_tokens * n_expert_used], by token */
    float *weight_of;      /* [n_tokens * n_expert_used], by token */
    int32_t *slot_of;      /* [n_tokens * n_expert_used], by token */
    int32_t *slot_token;   /* [n_tokens * n_expert_used], by slot */
    float *slot_weight;    /* [n_tokens * n_expert_used], by slot */
    int32_t *first_slot;   /* [n_expert + 1] */
    int32_t *active;       /* [n_expert] experts with rows, most rows first */
    int n_active;
};

/* Latent attention (mla.c), where *latent* is kv_rank + n_rot wide. Rows at once at most: tokens of
 * a head in an item, and keys that are expanded. */
enum { MLA_TOKENS = 64, MLA_KEYS = 1024 };

struct mla_scratch {
    float *q_latent;       /* [q_rank] of a single token, normed */
    struct acts q_acts;    /* it */
    struct acts head_acts; /* [MLA_TOKENS] rows of d_nope, or of kv_rank */
    float *q;              /* [MLA_TOKENS, latent] queries of a head to the latents */
    float *out;            /* [MLA_TOKENS, kv_rank], or [attn_rows, d_v] */
    float *max, *sum;      /* [attn_rows] */
    int32_t *n_keys;       /* [attn_rows] */
};

struct mla_buffers {
    float *q_latent;    /* [n_batch, q_rank] */
    struct acts q_acts; /* its rows, normed */
    float *latent;      /* [n_batch, latent] */
    float *q;           /* [n_head, latent] of a single token */
    float *values;      /* [n_head * d_v] of a single token */
    struct acts latent_acts; /* [MLA_KEYS] rows of kv_rank, of the cache */
    uint8_t *keys;      /* [n_head, MLA_KEYS, d_k], in the type of the cache */
    uint8_t *expanded_values; /* [n_head, MLA_KEYS, d_v] */
    float *max, *sum;   /* [n_head, n_batch] of what is in `attn` */
};

struct worker_scratch {
    float *tile;      /* [MAX_ROW_BLOCK, TILE_STRIDE] of a product before it is used */
    float *up;        /* the same, of up beside gate */
    struct acts rows; /* [MAX_ROW_BLOCK] rows of norm_acts that go to one expert */
    float *norm;      /* [FEW_TOKENS, n_embd] */
    struct acts norm_acts;  /* [FEW_TOKENS] of few tokens, every worker's own */
    struct routing routing; /* of FEW_TOKENS */
    float *q;               /* [group, d_k] of a single token */
    struct acts attn_acts;  /* the heads' output of a single token */
    struct mla_scratch mla;
    void *gemm;       /* scratch of the kernels */
    void *attn;
};


struct forward {
    const struct model *model;
    const struct model_params *params;
    const struct weights *weights;
    const struct kernel_set *kernels;
    quantize_fn *quantize[ACT_FORMAT_COUNT];
    int n_batch, n_workers;
    bool exact_attention; /* the model keeps its precision: attention is not rounded to bf16 */
    size_t scratch_bytes;
    void *memory; /* all buffers below */
    double *frequencies;   /* [n_rot / 2] */
    float *cos, *sin;      /* [n_batch, n_rot / 2] */
    float *x;              /* [n_batch, n_embd] the residual stream */
    struct acts norm_acts; /* [n_batch] normed rows of x */
    float *q;              /* [n_batch, n_head * d_k] */
    float *k, *v;          /* [n_batch, n_head_kv * d_k], [n_batch, n_head_kv * d_v] */
    float *q_heads;        /* [n_head_kv, n_tokens, group, d_k]; group = n_head / n_head_kv */
    float *attn;           /* [n_splits, n_head_kv, n_tokens, group, d_v], see attend; of latent
                            * attention [n_splits, n_head, kv_rank] or [n_head, n_tokens, d_v] */
    float *split_max, *split_sum; /* [MAX_SPLITS, n_head]: a single token, whose keys are split */
    _Atomic int *splits_done;     /* [n_head]; zero between phases */
    int32_t *n_keys;       /* [n_batch * group] keys that a query row sees; MLA: [n_batch] */
    struct acts attn_acts; /* rows of the heads' output */
    struct mla_buffers mla;
    struct acts ffn_acts;  /* [n_slots] rows of silu(gate) * up; n_slots = n_batch where dense */
    struct routing routing;
    struct acts shared_acts; /* [n_batch] the same of the shared experts */
    _Atomic uint32_t *columns_done; /* [n_expert + 1] columns of gate and up that are in ffn_acts;
                                     * the last: times blocks of rows, in shared_acts */
    float *down;           /* [n_slots, down_stride] what experts give, before it is summed */
    size_t down_stride;    /* floats: rows do not all begin in the same sets of a cache */
    struct worker_scratch *scratch; /* [n_workers] */
    struct profile *profile;        /* NULL: not asked for */
    /* The batch at hand. */
    const struct forward_batch *batch;
    int n_tokens;
    bool stop; /* written by worker 0 at the start of a layer, read after its first barrier */
};

/* ---- Phases ---- */

/* What follows is another phase's work, without a barrier between. */
static inline void mark_phase(struct forward *f, const struct worker *worker, enum phase phase)
{
    if (f->profile)
        profile_mark(f->profile, worker, phase);
}

/* What the worker did since was waiting. */
static inline void mark_waited(struct forward *f, const struct worker *worker, enum phase phase)
{
    if (f->profile)
        profile_waited(f->profile, worker, phase);
}

/* The end of a phase: waits for the other workers. */
static inline void end_phase(struct forward *f, struct worker *worker, enum phase phase)
{
    mark_phase(f, worker, phase);
    team_barrier(worker);
    mark_waited(f, worker, phase);
}

/* Memory that the worker will read soon. */
struct fetch {
    const uint8_t *data;
    size_t bytes;
};

/* The same, fetching meanwhile what comes next into the worker's cache: [n] ranges, of which remains
 * what was not fetched. */
void end_phase_fetching(struct forward *f, struct worker *worker, enum phase phase,
                        struct fetch *next, int n);

/* ---- matmul.c ---- */

/* The bits of what a product of n_rows rows reads; 0 for an absent matrix. */
unsigned matrix_formats(const struct matrix *matrix, int n_rows);

/* The same of n_rows (one or more) in products of `rows` each, the last of which may have fewer. */
unsigned block_formats(const struct matrix *matrix, int n_rows, int rows);

/* Columns [k0, k1) of m rows, from x (ldx floats apart, column k0 first), to rows row0.. of `acts`,
 * whose rows are of k; in each of `formats`. k0 is a multiple of 32, k1 too or k. */
struct acts_source {
    const float *x;
    size_t ldx;
    int row0, m, k, k0, k1;
};
void acts_write(const struct forward *f, const struct acts *acts, unsigned formats,
                const struct acts_source *source);

/* One product C = A W^T, or a row of a list of products that share the columns' work items. */
struct product {
    const struct matrix *matrix;
    int expert;
    const struct acts *a;
    int row0, m; /* rows of a */
    float *c;    /* [m, n] */
    size_t ldc;
    const struct product *next; /* of the same columns and weight type: fetched ahead; or NULL */
};

/* The work items of a phase: blocks of columns of one or several matrices (a *group* each).
 *
 *     for (struct walk walk = walk_start(worker); walk_next_part(&walk);)
 *         for (each group)
 *             while (walk_take(&walk, matrix, block, &columns))
 *                 ...columns [columns.n0, columns.n1) of the group
 *
 * A worker takes items of the parts that lie on its node, and then of nodes that no worker of the
 * run sits on. Where the items of further groups wait for those before them, they make a walk of
 * their own, that goes on (walk_again) where the queues stand.
 *
 * On one node most items of the first group can be dealt to the workers by their numbers, in runs
 * (walk_deal): so each knows before the phase what it will read first, reads it from end to end, and
 * has in its cache from token to token what fits there. */
struct walk {
    struct worker *worker;
    int step, part;
    int own, own_end, n_dealt; /* items dealt to this worker that are left; dealt to all */
    struct {
        int item, first; /* the item at hand and the first one of the group; item < 0: none taken */
    } of[NODES_MAX];
};

/* Columns [n0, n1), all of one part of their matrix. */
struct columns {
    int part, n0, n1;
};

struct walk walk_start(struct worker *worker);
/* n_items are in the first group. */
struct walk walk_deal(struct worker *worker, int n_items);
/* Dealt where the batch has few tokens. */
struct walk walk_rows(const struct forward *f, struct worker *worker, int n_items);
bool walk_next_part(struct walk *walk);
void walk_again(struct walk *walk);
bool walk_take(struct walk *walk, const struct matrix *matrix, int block, struct columns *columns);

/* What walk_deal will deal to the worker, where the first group is this matrix of an expert. */
struct fetch fetch_dealt(const struct worker *worker, const struct matrix *matrix, int expert,
                         int block);
/* All columns of an expert or head. */
struct fetch fetch_expert(const struct worker *worker, const struct matrix *matrix, int expert);
/* What walk_deal will deal of a later products_run or product_add_to_x; nothing where the batch is a
 * prompt. */
struct fetch fetch_rows(const struct forward *f, const struct worker *worker,
                        const struct matrix *matrix);

/* Rows of the items of a product of n_rows rows: equal, but for the last. */
int row_block(int n_rows);

/* Width of the column blocks of n_groups matrices of n columns, so that the items feed all workers. */
int column_block(const struct worker *worker, const struct matrix *matrix, int n_groups, int n_rows);
static inline int n_blocks(int n, int block) { return (n + block - 1) / block; }

/* All columns of a product. */
void product_rows(const struct forward *f, const struct worker *worker,
                  const struct product *product);

/* Some columns of a product; the first is written at product->c. */
void product_columns(const struct forward *f, const struct worker *worker,
                     const struct product *product, const struct columns *columns);

/* All products of a list, as one phase of work items; `next` is fetched at its end. Returns what is
 * left of it. */
struct fetch products_run(struct forward *f, struct worker *worker, enum phase phase,
                          const struct product *products, int n_products, struct fetch next);

/* x += A W^T over the whole batch, as one phase; `next` is fetched at its end. */
void product_add_to_x(struct forward *f, struct worker *worker, enum phase phase,
                      const struct matrix *matrix, const struct acts *a, struct fetch next);

/* ---- the blocks of a layer: each begins and ends at a barrier ---- */

/* Where normed rows go: the first is row0 of `acts`. */
struct normed {
    const struct acts *acts;
    int row0;
    unsigned formats;
};
/* rms_norm(x) * w of the rows [begin, end), to each of [n_to]. */
void norm_rows(struct forward *f, struct worker *worker, const float *w, int begin, int end,
               const struct normed *to, int n_to);
/* rms_norm(x) * w of the rows [first, n_tokens), which become rows 0.. of what is returned, in
 * `formats`. One phase; of few rows every worker gets its own, without waiting. */
const struct acts *norm_phase(struct forward *f, struct worker *worker, const float *w,
                              unsigned formats, int first);
void attention_block(struct forward *f, struct worker *worker, int layer);
/* The same of models with latent attention. */
void mla_block(struct forward *f, struct worker *worker, int layer);

/* ---- attention.c ---- */

/* The rotation of a query or key by its position. */
void rotate_head(const struct forward *f, float *head, int token);
/* n floats as elements of keys or values of a type. */
void store_floats(const struct forward *f, enum kv_type type, void *to, const float *from,
                  size_t n);
/* Merges the splits of one query head in f->attn, [n_splits, n_head, d_v], into split 0. */
void merge_head(struct forward *f, size_t head, int n_splits, size_t d_v);

/* ---- The feed-forward ---- */

/* Widths of the items of gate and up are multiples of it: of each one's NR, and of the blocks that
 * their result is quantized in. */
enum { GATE_UP_ALIGN = 32 };
/* m rows of `a`, from row0 on, for an expert (0 where dense); what becomes of them are the rows
 * slot.. of `out`. */
struct ffn_rows {
    const struct ffn_weights *weights;
    int expert;
    const struct acts *a;
    int row0, m;
    const struct acts *out;
    int slot;
};
/* silu(gate) * up of some columns. */
void gate_up_columns(struct forward *f, const struct worker *worker, const struct ffn_rows *rows,
                     const struct columns *columns);
/* column_block of gate and up, so aligned. */
int gate_up_block(const struct worker *worker, const struct matrix *gate, int n_groups, int n_rows);
/* What a worker reads first of the feed-forward of a layer. */
struct fetch fetch_ffn(const struct forward *f, const struct worker *worker,
                       const struct layer_weights *layer);
/* `next` is fetched at their ends. */
void dense_ffn_block(struct forward *f, struct worker *worker, const struct layer_weights *layer,
                     struct fetch next);
void moe_block(struct forward *f, struct worker *worker, const struct layer_weights *layer,
               struct fetch next);

#endif
