/* What a file's tensors mean: hyperparameters and the role, layer and shape of every tensor.
 *
 * A model family is one row in arch.c: its names, and the switches of the shared forward pass. The
 * shape of every tensor is checked against the hyperparameters here, so that no later stage meets
 * a tensor of the wrong size.
 */
#ifndef TESSERA_MODEL_H
#define TESSERA_MODEL_H

#include "gguf/gguf.h"

/* Which elements of a head rotate together. */
enum rope_pairs { ROPE_ADJACENT, ROPE_HALVES };

enum arch_switch {
    ARCH_QK_NORM = 1 << 0,  /* RMS norm on every head of q and k */
    ARCH_QKV_BIAS = 1 << 1, /* biases on q, k and v */
    ARCH_MOE = 1 << 2,      /* experts in place of the dense feed-forward */
    ARCH_MOE_OPTIONAL = 1 << 3, /* experts where the file has expert_count > 0 */
    ARCH_MLA = 1 << 4,      /* latent attention: struct mla_params */
    ARCH_SHARED_EXPERTS = 1 << 5, /* leading dense layers, experts that every token uses, and a
                                   * router that the file describes: struct router_params */
};

struct model_arch {
    const char *name; /* general.architecture and prefix of the metadata keys */
    unsigned switches;
    enum rope_pairs rope_pairs;
};

/* NULL for an unknown family. */
const struct model_arch *model_arch_find(struct gguf_string name);
/* "llama, qwen2, ...": the known names, for messages. */
void model_arch_list(char *text, size_t size);

struct rope_params {
    float base;            /* theta of pair i: position * base^(-2i / n_rot) */
    float scale;           /* positions are multiplied by it (1 / factor of linear and YaRN) */
    bool yarn;             /* interpolate low frequencies only, within the limits below */
    float yarn_beta_fast, yarn_beta_slow;
    float attention_factor; /* magnitude of cos and sin */
    uint32_t n_ctx_orig;
    uint32_t n_rot;        /* rotated elements of a head */
};

/* Multi-head latent attention (arXiv 2405.04434, section 2.1): keys and values of all heads are
 * products of one small latent vector per token, and beside it one rotated key for all heads. */
struct mla_params {
    uint32_t kv_rank; /* elements of the latent; 0: attention is not of this kind */
    uint32_t q_rank;  /* queries are products of a latent of their own; 0: of the residual stream */
    uint32_t d_nope;  /* elements of a head that are not rotated: d_k - n_rot, the first ones */
};

struct router_params {
    bool sigmoid;    /* of each logit, in place of a softmax over all */
    bool normalized; /* the weights of a token's experts are divided by their sum */
    float scale;     /* of the weights, after that */
    /* Experts are chosen from the best groups only: so many of groups of neighbours, at most
     * ROUTER_MAX_GROUPS; 1 of 1 where there are no groups. */
    uint32_t n_group, n_group_used;
};

enum { ROUTER_MAX_GROUPS = 64 };

struct model_params {
    uint32_t n_layer, n_embd, n_vocab, n_ctx_train;
    uint32_t n_head, n_head_kv; /* query heads, key/value heads */
    uint32_t d_k, d_v;          /* elements of a key and of a value head */
    float attn_scale;           /* of the scores */
    struct mla_params mla;
    uint32_t n_layer_dense;     /* layers without experts, the first ones */
    uint32_t n_ff;              /* width of their feed-forward; 0 where there are none */
    uint32_t n_expert, n_expert_used, n_ff_expert; /* 0 in a dense model */
    uint32_t n_ff_shared;       /* width of what experts every token uses; 0: none */
    struct router_params router;
    float rms_eps;
    struct rope_params rope;
};

enum model_role {
    ROLE_TOKEN_EMBD, ROLE_OUTPUT_NORM, ROLE_OUTPUT, ROLE_ROPE_FREQS,
    ROLE_ATTN_NORM, ROLE_ATTN_Q, ROLE_ATTN_K, ROLE_ATTN_V, ROLE_ATTN_OUTPUT,
    ROLE_ATTN_Q_BIAS, ROLE_ATTN_K_BIAS, ROLE_ATTN_V_BIAS, ROLE_ATTN_Q_NORM, ROLE_ATTN_K_NORM,
    ROLE_ATTN_Q_A, ROLE_ATTN_Q_A_NORM, ROLE_ATTN_Q_B, ROLE_ATTN_KV_A, ROLE_ATTN_KV_A_NORM,
    ROLE_ATTN_KV_B, /* in files only: it becomes the following three */
    ROLE_ATTN_K_B,  /* [kv_rank, d_nope] of each head: queries to the space of the latent */
    ROLE_ATTN_V_B,  /* [d_v, kv_rank] of each head: the latent to values */
    ROLE_ATTN_K_UP, /* [d_nope, kv_rank] of each head: the latent to keys, K_B transposed */
    ROLE_FFN_NORM, ROLE_FFN_GATE, ROLE_FFN_UP, ROLE_FFN_DOWN,
    ROLE_ROUTER, ROLE_ROUTER_BIAS, ROLE_GATE_EXPERTS, ROLE_UP_EXPERTS, ROLE_DOWN_EXPERTS,
    ROLE_SHARED_GATE, ROLE_SHARED_UP, ROLE_SHARED_DOWN,
    ROLE_COUNT
};

/* A tensor with its meaning. As a matrix it is [n, k] (n rows of k), n_expert of them: one for each
 * expert, or head. Row r of matrix e is row row0 + e * expert_rows + r of the source; where it is
 * transposed, that row holds element r of each of its rows. */
struct model_tensor {
    enum model_role role;
    int layer; /* -1: not of a layer */
    const struct gguf_tensor *source;
    const struct block_type *type; /* of the weights: the source's, unless transposed */
    uint32_t n, k, n_expert; /* vectors: n = 1; n_expert = 1 unless experts or heads */
    uint32_t row0, expert_rows;
    bool transposed;
    bool shares_source; /* the source is another tensor's too, which counts its bytes */
};

struct model {
    const struct gguf *gguf; /* not owned; outlives the model */
    const struct model_arch *arch;
    struct model_params params;
    struct model_tensor *tensors; /* in the file's order; last come those that share a source */
    size_t n_tensors;
    bool tied_output; /* the output matrix is the token embedding */
    uint64_t n_params;
    /* Index of the tensor in `tensors`, or -1: [n_layer + 1][ROLE_COUNT], the last row for roles
     * without a layer. */
    int32_t *by_role;
};

/* Errors: TSR_EUNSUPPORTED (family, a tensor nobody uses), TSR_EFORMAT (missing key or tensor,
 * wrong shape), TSR_ENOMEM; the message names file, key or tensor. */
int model_open(const struct gguf *gguf, struct model **model, struct tsr_error *error);
void model_close(struct model *model);

/* The tensor of a role, NULL where the model has none. Layer -1 for roles without a layer. */
const struct model_tensor *model_find(const struct model *model, int layer, enum model_role role);

/* "attn_q" and the like, for reports. */
const char *model_role_name(enum model_role role);
/* Matrices that take part in matrix products, as opposed to vectors and the embedding. */
bool model_role_is_matrix(enum model_role role);

#endif
