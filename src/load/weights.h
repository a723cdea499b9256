/* The loader: a plan becomes weights that the forward pass can use.
 *
 * Packed matrices live in one arena of exactly the planned bytes; the file's pages are dropped
 * behind the packing, so that memory does not hold both. Vectors (norms, biases) become float.
 */
#ifndef TESSERA_LOAD_WEIGHTS_H
#define TESSERA_LOAD_WEIGHTS_H

#include "base/team.h"
#include "load/arena.h"

/* Rows [n0, n1) of a matrix: a matrix of its own, in the memory of a node. */
struct matrix_part {
    const uint8_t *data;
    size_t matrix_bytes; /* from expert to expert */
    int n0, n1;
};

/* n rows of k as one operand of a product, of each expert. */
struct matrix {
    const struct gemm_kernel *kernel; /* NULL: the model has no such matrix */
    int n, k;
    const int *min_rows; /* that of its weight type in struct weights */
    struct matrix_part parts[NODES_MAX]; /* by node; only part 0 where weights are not sharded */
};

/* Of latent attention; kv_a.kernel is NULL where the model has none. */
struct mla_weights {
    struct matrix q_a;     /* [q_rank, n_embd], or kernel NULL: then q is of n_embd, not of q_rank */
    const float *q_a_norm; /* [q_rank] */
    struct matrix kv_a;    /* [kv_rank + n_rot, n_embd]: the latent and the rotated key */
    const float *kv_a_norm; /* [kv_rank] */
    struct matrix k_b, v_b, k_up; /* of each head, as an expert: see enum model_role */
};

/* down(silu(gate(x)) * up(x)) */
struct ffn_weights {
    struct matrix gate, up, down;
};

struct layer_weights {
    const float *attn_norm, *ffn_norm;       /* [n_embd] */
    const float *q_norm, *k_norm;            /* [d_k], or NULL */
    const float *q_bias, *k_bias, *v_bias;   /* [n_head * d_k], [n_head_kv * d_k], .. or NULL */
    struct matrix q, k, v, attn_output;
    struct mla_weights mla;
    struct ffn_weights ffn;                  /* of experts where the layer has a router */
    struct ffn_weights shared;               /* beside the experts; kernels NULL: none */
    struct matrix router;                    /* kernel NULL in a dense layer */
    const float *router_bias;                /* [n_expert] for the choice, or NULL */
};

struct weights {
    const struct gguf_tensor *token_embd; /* [n_vocab, n_embd], in the file */
    const float *output_norm;             /* [n_embd] */
    const float *rope_factors;            /* [n_rot / 2] divisors of the frequencies, or NULL */
    struct matrix output;
    struct layer_weights *layers;         /* [n_layer] */
    int min_rows[BLOCK_ID_COUNT];         /* of gemm_kernel, or as calibrated */
    struct arena arenas[POOL_COUNT][NODES_MAX];
    bool mapped_cache; /* the arenas are a file's */
    bool huge_pages;   /* may be asked for, for the buffers of those who read the weights, too */
    float *vectors;
};

/* Told of the bytes packed so far; false cancels. Called on the thread that called weights_load. */
typedef bool weights_progress_fn(void *user, uint64_t done, uint64_t total);
typedef void weights_log_fn(void *user, enum tsr_log_level level, const char *line);

struct load_settings {
    struct memory_policy memory;
    const char *cache_dir; /* of packed weights (load/cache.h); NULL: none */
    weights_progress_fn *progress;
    weights_log_fn *log;
    void *user; /* of both */
};

/* Packs with all workers of `team`, each node's part by the node's own, or maps what was packed
 * before. The model's gguf must stay open as long as the weights. Errors: TSR_ENOMEM (with the
 * numbers), TSR_ESYSTEM (memory cannot be locked), TSR_EIO (of the cache), TSR_ECANCELED. */
int weights_load(const struct plan *plan, struct team *team, const struct load_settings *settings,
                 struct weights **weights, struct tsr_error *error);
uint64_t weights_packed_bytes(const struct weights *weights);
void weights_free(struct weights *weights);

#endif
