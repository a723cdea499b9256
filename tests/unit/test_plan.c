/* The planner, case by case: models that are described here, CPU flags of any machine, and where
 * tensors must go or which line must refuse them. What holds for every plan is checked for each:
 * pools account for every tensor once, arenas have no gaps, budgets are kept. */
#include "tests/support/check.h"

#include <stdlib.h>

#include "plan/plan.h"
#include "bench/gguf_writer.h"

/* ---- Models ---- */

struct spec {
    const char *arch;
    uint32_t n_embd, n_ff, n_expert; /* n_expert 0: dense */
    uint32_t n_vocab, d_k;           /* 4 query heads, 2 key/value heads */
    enum block_id attn, ffn, output;
    bool tied;                       /* no output matrix */
    bool rope_factors;
};

static const struct spec moe = {"qwen3moe", 64, 96, 4, 40, 16, BLOCK_Q4_0, BLOCK_Q4_0, BLOCK_Q8_0,
                                false, false};
static const struct spec dense = {"llama", 64, 96, 0, 40, 16, BLOCK_Q8_0, BLOCK_Q4_0, BLOCK_Q8_0,
                                  false, true};
static const struct spec biased = {"qwen2", 64, 96, 0, 40, 16, BLOCK_Q5_0, BLOCK_Q5_1, BLOCK_Q8_0,
                                   false, false};
static const struct spec tied = {"qwen3", 64, 96, 0, 40, 16, BLOCK_Q4_0, BLOCK_Q4_1, BLOCK_Q8_0,
                                 true, false};
static const struct spec mixtral = {"llama", 64, 96, 8, 40, 16, BLOCK_Q4_0, BLOCK_MXFP4,
                                    BLOCK_IQ4_NL, false, false};
static const struct spec k_quants = {"qwen3moe", 256, 256, 3, 300, 64, BLOCK_Q4_K, BLOCK_Q6_K,
                                     BLOCK_Q5_K, false, false};
static const struct spec halves = {"qwen3moe", 64, 96, 4, 40, 16, BLOCK_F16, BLOCK_BF16, BLOCK_F32,
                                   false, false};
/* Columns that end 16 short of a panel of 32 (n_ff), and anywhere in one (n_vocab, 2 * d_k). */
static const struct spec odd = {"qwen3moe", 64, 80, 3, 33, 10, BLOCK_Q4_0, BLOCK_F16, BLOCK_Q4_0,
                                false, false};
static const struct spec one_column = {"llama", 32, 32, 0, 1, 8, BLOCK_Q4_0, BLOCK_Q4_0, BLOCK_Q4_0,
                                       false, false};

static const char *arch_key(const struct spec *spec, const char *name)
{
    static char key[128];
    snprintf(key, sizeof key, "%s.%s", spec->arch, name);
    return key;
}

static void put(struct gguf_writer *w, const char *name, enum block_id type, uint64_t k, uint64_t n,
                uint64_t n_expert)
{
    uint64_t dims[] = {k, n, n_expert};
    gguf_writer_tensor(w, name, type, n_expert ? 3 : n ? 2 : 1, dims, NULL);
}

static void put_attention(struct gguf_writer *w, const struct spec *s)
{
    uint32_t q = 4 * s->d_k, kv = 2 * s->d_k;
    /* Rows of the output matrix are as long as all heads together. */
    enum block_id output = q % block_type_find(s->attn)->n_elems ? BLOCK_F32 : s->attn;
    put(w, "blk.0.attn_norm.weight", BLOCK_F32, s->n_embd, 0, 0);
    put(w, "blk.0.attn_q.weight", s->attn, s->n_embd, q, 0);
    put(w, "blk.0.attn_k.weight", s->attn, s->n_embd, kv, 0);
    put(w, "blk.0.attn_v.weight", s->attn, s->n_embd, kv, 0);
    put(w, "blk.0.attn_output.weight", output, q, s->n_embd, 0);
    if (!strcmp(s->arch, "qwen2")) {
        put(w, "blk.0.attn_q.bias", BLOCK_F32, q, 0, 0);
        put(w, "blk.0.attn_k.bias", BLOCK_F32, kv, 0, 0);
        put(w, "blk.0.attn_v.bias", BLOCK_F32, kv, 0, 0);
    }
    if (!strncmp(s->arch, "qwen3", 5)) {
        put(w, "blk.0.attn_q_norm.weight", BLOCK_F32, s->d_k, 0, 0);
        put(w, "blk.0.attn_k_norm.weight", BLOCK_F32, s->d_k, 0, 0);
    }
}

static void put_ffn(struct gguf_writer *w, const struct spec *s)
{
    put(w, "blk.0.ffn_norm.weight", BLOCK_F32, s->n_embd, 0, 0);
    if (!s->n_expert) {
        put(w, "blk.0.ffn_gate.weight", s->ffn, s->n_embd, s->n_ff, 0);
        put(w, "blk.0.ffn_up.weight", s->ffn, s->n_embd, s->n_ff, 0);
        put(w, "blk.0.ffn_down.weight", s->ffn, s->n_ff, s->n_embd, 0);
        return;
    }
    put(w, "blk.0.ffn_gate_inp.weight", BLOCK_F32, s->n_embd, s->n_expert, 0);
    put(w, "blk.0.ffn_gate_exps.weight", s->ffn, s->n_embd, s->n_ff, s->n_expert);
    put(w, "blk.0.ffn_up_exps.weight", s->ffn, s->n_embd, s->n_ff, s->n_expert);
    put(w, "blk.0.ffn_down_exps.weight", s->ffn, s->n_ff, s->n_embd, s->n_expert);
}

static const char *write_model(const struct spec *s)
{
    const char *path = temp_path("model.gguf");
    struct gguf_writer *w = gguf_writer_open(path);
    gguf_writer_string(w, "general.architecture", s->arch);
    gguf_writer_int(w, arch_key(s, "block_count"), GGUF_U32, 1);
    gguf_writer_int(w, arch_key(s, "context_length"), GGUF_U32, 128);
    gguf_writer_int(w, arch_key(s, "embedding_length"), GGUF_U32, s->n_embd);
    gguf_writer_int(w, arch_key(s, "feed_forward_length"), GGUF_U32, s->n_ff);
    gguf_writer_int(w, arch_key(s, "attention.head_count"), GGUF_U32, 4);
    gguf_writer_int(w, arch_key(s, "attention.head_count_kv"), GGUF_U32, 2);
    gguf_writer_int(w, arch_key(s, "attention.key_length"), GGUF_U32, s->d_k);
    gguf_writer_int(w, arch_key(s, "attention.value_length"), GGUF_U32, s->d_k);
    if (s->n_expert) {
        gguf_writer_int(w, arch_key(s, "expert_count"), GGUF_U32, s->n_expert);
        gguf_writer_int(w, arch_key(s, "expert_used_count"), GGUF_U32, 2);
        gguf_writer_int(w, arch_key(s, "expert_feed_forward_length"), GGUF_U32, s->n_ff);
    }
    put(w, "token_embd.weight", BLOCK_Q8_0, s->n_embd, s->n_vocab, 0);
    put(w, "output_norm.weight", BLOCK_F32, s->n_embd, 0, 0);
    if (!s->tied)
        put(w, "output.weight", s->output, s->n_embd, s->n_vocab, 0);
    if (s->rope_factors)
        put(w, "rope_freqs.weight", BLOCK_F32, s->d_k / 2, 0, 0);
    put_attention(w, s);
    put_ffn(w, s);
    gguf_writer_close(w);
    return path;
}

/* ---- Cases ---- */

enum {
    AVX2 = CPU_AVX2,
    AVX512 = CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI,
    TILES = CPU_AMX_TILE | CPU_AMX_INT8 | CPU_AMX_BF16,
    AMX = AVX512 | TILES,
    AMX_AVX2 = AVX2 | TILES,
};

/* A budget: 0 in the table is none. */
#define BYTES(n) ((uint64_t)(n) + 1)

struct expected {
    const char *tensor;
    enum plan_pool pool;
    const char *kernel; /* its name begins so; NULL: any or none */
    enum plan_pool refuser;
    const char *reason; /* what `refuser` says; NULL: whatever */
};

struct plan_case {
    const char *name;
    const struct spec *spec;
    uint32_t cpu_flags;
    const char *overrides[3];
    uint64_t budgets[POOL_COUNT]; /* BYTES(n) */
    /* A kernel that this machine is made to lack. */
    enum { NO_LOSS, LOSE_TILES, LOSE_PACKED, LOSE_MAPPED } loss;
    enum block_id lost;
    int n_nodes; /* 0 as 1 */
    struct expected expected[4];
    int code;              /* of an error... */
    const char *errors[3]; /* ...and what its line says */
};

#define NO_TILES     "the CPU has no AMX-TILE"
#define NOT_A_MATRIX "not a matrix of a product"
#define BUDGET_SPENT "the pool's budget is spent"

/* clang-format off */
#define IN(tensor, pool)         {tensor, pool, NULL, POOL_AMX, NULL}
#define BY(tensor, pool, kernel) {tensor, pool, kernel, POOL_AMX, NULL}
#define WHY(tensor, pool, kernel, refuser, reason) {tensor, pool, kernel, refuser, reason}

static const struct plan_case cases[] = {
    /* Pools by role, at every level. */
    {.name = "experts on tiles", .spec = &moe, .cpu_flags = AMX, .expected = {
        BY("blk.0.ffn_gate_exps.weight", POOL_AMX, "amx Q4_0"), BY("blk.0.ffn_down_exps.weight", POOL_AMX, "amx Q4_0"),
        BY("blk.0.attn_q.weight", POOL_AMX, "amx Q4_0"), BY("output.weight", POOL_AMX, "amx Q8_0")}},
    {.name = "what is never on tiles", .spec = &moe, .cpu_flags = AMX, .expected = {
        WHY("blk.0.ffn_gate_inp.weight", POOL_MAPPED, "avx512 mapped F32", POOL_AMX, "the router stays in its file precision"),
        WHY("blk.0.attn_norm.weight", POOL_MAPPED, NULL, POOL_AMX, NOT_A_MATRIX),
        WHY("blk.0.attn_q_norm.weight", POOL_MAPPED, NULL, POOL_CPU, NOT_A_MATRIX),
        WHY("token_embd.weight", POOL_MAPPED, NULL, POOL_AMX, "rows of the embedding are looked up, not multiplied")}},
    {.name = "tiles amid AVX2", .spec = &moe, .cpu_flags = AMX_AVX2, .expected = {
        BY("blk.0.ffn_up_exps.weight", POOL_AMX, "amx+avx2 Q4_0"), BY("blk.0.attn_output.weight", POOL_AMX, "amx+avx2 Q4_0")}},
    {.name = "no AMX: avx512", .spec = &moe, .cpu_flags = AVX512, .expected = {
        BY("blk.0.ffn_gate_exps.weight", POOL_CPU, "avx512 Q4_0"), BY("output.weight", POOL_CPU, "avx512 Q8_0")}},
    {.name = "no AMX: avx2", .spec = &moe, .cpu_flags = AVX2, .expected = {
        BY("blk.0.ffn_gate_exps.weight", POOL_CPU, "avx2 Q4_0"), BY("blk.0.ffn_gate_inp.weight", POOL_MAPPED, "avx2 mapped F32")}},
    {.name = "no AMX: scalar", .spec = &moe, .cpu_flags = 0, .expected = {
        BY("blk.0.ffn_gate_exps.weight", POOL_CPU, "scalar Q4_0"), BY("blk.0.ffn_gate_inp.weight", POOL_MAPPED, "scalar mapped F32")}},
    {.name = "tiles without bf16 products", .spec = &moe, .cpu_flags = AVX512 | CPU_AMX_TILE | CPU_AMX_INT8, .expected = {
        BY("blk.0.ffn_gate_exps.weight", POOL_CPU, "avx512 Q4_0")}},
    {.name = "tiles without AVX2", .spec = &moe, .cpu_flags = TILES, .expected = {
        BY("blk.0.ffn_gate_exps.weight", POOL_CPU, "scalar Q4_0")}},
    {.name = "a dense model", .spec = &dense, .cpu_flags = AMX, .expected = {
        BY("blk.0.ffn_gate.weight", POOL_AMX, "amx Q4_0"), BY("blk.0.ffn_down.weight", POOL_AMX, "amx Q4_0"),
        BY("blk.0.attn_v.weight", POOL_AMX, "amx Q8_0"), WHY("rope_freqs.weight", POOL_MAPPED, NULL, POOL_AMX, NOT_A_MATRIX)}},
    {.name = "a dense model without AMX", .spec = &dense, .cpu_flags = AVX2, .expected = {
        BY("blk.0.ffn_gate.weight", POOL_CPU, "avx2 Q4_0"), WHY("rope_freqs.weight", POOL_MAPPED, NULL, POOL_CPU, NOT_A_MATRIX)}},
    {.name = "biases", .spec = &biased, .cpu_flags = AMX, .expected = {
        WHY("blk.0.attn_q.bias", POOL_MAPPED, NULL, POOL_AMX, NOT_A_MATRIX), BY("blk.0.attn_q.weight", POOL_AMX, "amx Q5_0"),
        BY("blk.0.ffn_up.weight", POOL_AMX, "amx Q5_1")}},
    {.name = "a tied output", .spec = &tied, .cpu_flags = AMX, .expected = {
        BY("output.weight", POOL_AMX, "amx Q8_0"), IN("token_embd.weight", POOL_MAPPED), BY("blk.0.ffn_up.weight", POOL_AMX, "amx Q4_1")}},
    {.name = "a tied output, as it is", .spec = &tied, .cpu_flags = AVX2, .overrides = {"^output=mapped"}, .expected = {
        BY("output.weight", POOL_MAPPED, "avx2 mapped Q8_0"), IN("token_embd.weight", POOL_MAPPED)}},
    {.name = "experts of llama", .spec = &mixtral, .cpu_flags = AMX, .expected = {
        BY("blk.0.ffn_gate_exps.weight", POOL_AMX, "amx MXFP4"), BY("output.weight", POOL_AMX, "amx IQ4_NL")}},

    /* Types and shapes. */
    {.name = "K-quants", .spec = &k_quants, .cpu_flags = AMX, .expected = {
        BY("blk.0.attn_q.weight", POOL_AMX, "amx Q4_K"), BY("blk.0.ffn_down_exps.weight", POOL_AMX, "amx Q6_K"), BY("output.weight", POOL_AMX, "amx Q5_K")}},
    {.name = "K-quants, scalar", .spec = &k_quants, .cpu_flags = 0, .expected = {
        BY("blk.0.attn_q.weight", POOL_CPU, "scalar Q4_K"), BY("blk.0.ffn_down_exps.weight", POOL_CPU, "scalar Q6_K")}},
    {.name = "floats", .spec = &halves, .cpu_flags = AMX, .expected = {
        BY("blk.0.attn_q.weight", POOL_AMX, "amx F16"), BY("blk.0.ffn_up_exps.weight", POOL_AMX, "amx BF16"), BY("output.weight", POOL_AMX, "amx F32")}},
    {.name = "floats without AMX", .spec = &halves, .cpu_flags = AVX512, .expected = {
        BY("blk.0.attn_q.weight", POOL_CPU, "avx512 F16"), BY("blk.0.ffn_up_exps.weight", POOL_CPU, "avx512 BF16")}},
    {.name = "16 columns short of a panel", .spec = &odd, .cpu_flags = AMX, .expected = {
        BY("blk.0.ffn_gate_exps.weight", POOL_AMX, "amx F16"), IN("blk.0.ffn_down_exps.weight", POOL_AMX), IN("blk.0.attn_k.weight", POOL_AMX), IN("output.weight", POOL_AMX)}},
    {.name = "16 columns short of a panel, two nodes", .spec = &odd, .cpu_flags = AMX, .n_nodes = 2, .expected = {
        IN("blk.0.ffn_gate_exps.weight", POOL_AMX), IN("output.weight", POOL_AMX)}},
    {.name = "odd columns, scalar", .spec = &odd, .cpu_flags = 0, .expected = {IN("blk.0.attn_k.weight", POOL_CPU), IN("output.weight", POOL_CPU)}},
    {.name = "one column", .spec = &one_column, .cpu_flags = AMX, .expected = {BY("output.weight", POOL_AMX, "amx Q4_0")}},
    {.name = "one column on two nodes", .spec = &one_column, .cpu_flags = AVX2, .n_nodes = 2, .expected = {IN("output.weight", POOL_CPU)}},
    {.name = "three nodes", .spec = &moe, .cpu_flags = AMX, .n_nodes = 3, .expected = {IN("blk.0.ffn_up_exps.weight", POOL_AMX)}},

    /* Kernels that are not there. */
    {.name = "no tile kernel", .spec = &moe, .cpu_flags = AMX, .loss = LOSE_TILES, .lost = BLOCK_Q4_0, .expected = {
        WHY("blk.0.ffn_gate_exps.weight", POOL_CPU, "avx512 Q4_0", POOL_AMX, "no tile kernel for this type"), IN("output.weight", POOL_AMX)}},
    {.name = "no packed kernel", .spec = &moe, .cpu_flags = AVX2, .loss = LOSE_PACKED, .lost = BLOCK_Q8_0, .expected = {
        WHY("output.weight", POOL_MAPPED, "avx2 mapped Q8_0", POOL_CPU, "no packed kernel for this type"), IN("blk.0.attn_q.weight", POOL_CPU)}},
    {.name = "no mapped kernel where none is needed", .spec = &moe, .cpu_flags = AVX2, .loss = LOSE_MAPPED, .lost = BLOCK_Q8_0, .expected = {IN("output.weight", POOL_CPU)}},
    {.name = "no mapped kernel for the router", .spec = &moe, .cpu_flags = AMX, .loss = LOSE_MAPPED, .lost = BLOCK_F32,
     .code = TSR_EUNSUPPORTED, .errors = {"model.gguf: tensor blk.0.ffn_gate_inp.weight (F32)", "pool amx refuses: the router stays", "pool mapped refuses: no kernel for this type"}},

    /* Overrides: every pool by name, the first match, lists, what cannot be. */
    {.name = "-ot to cpu", .spec = &moe, .cpu_flags = AMX, .overrides = {"ffn_.*_exps=cpu"}, .expected = {
        BY("blk.0.ffn_gate_exps.weight", POOL_CPU, "avx512 Q4_0"), IN("blk.0.ffn_down_exps.weight", POOL_CPU), IN("blk.0.attn_q.weight", POOL_AMX)}},
    {.name = "-ot to amx", .spec = &moe, .cpu_flags = AMX, .overrides = {"_exps=amx"}, .expected = {IN("blk.0.ffn_gate_exps.weight", POOL_AMX)}},
    {.name = "-ot to mapped", .spec = &moe, .cpu_flags = AMX, .overrides = {"attn_(q|k|v)\\.=mapped"}, .expected = {
        BY("blk.0.attn_q.weight", POOL_MAPPED, "avx512 mapped Q4_0"), IN("blk.0.attn_v.weight", POOL_MAPPED), IN("blk.0.attn_output.weight", POOL_AMX)}},
    {.name = "the last of several cannot be honoured", .spec = &moe, .cpu_flags = AMX, .overrides = {"gate_exps=mapped", "_exps=cpu", "gate=amx"}, .code = TSR_EINVAL, .errors = {"-ot 'gate=amx'", "ffn_gate_inp"}},
    {.name = "the first match counts", .spec = &moe, .cpu_flags = AMX, .overrides = {"gate_exps=mapped", "_exps=cpu"}, .expected = {
        IN("blk.0.ffn_gate_exps.weight", POOL_MAPPED), IN("blk.0.ffn_up_exps.weight", POOL_CPU), IN("blk.0.ffn_gate_inp.weight", POOL_MAPPED)}},
    {.name = "a list of pools", .spec = &moe, .cpu_flags = AMX, .overrides = {"blk\\.0\\.=cpu,mapped"}, .expected = {
        IN("blk.0.ffn_gate_exps.weight", POOL_CPU), WHY("blk.0.attn_norm.weight", POOL_MAPPED, NULL, POOL_CPU, NOT_A_MATRIX), IN("output.weight", POOL_AMX)}},
    {.name = "a list in an order of its own", .spec = &moe, .cpu_flags = AMX, .overrides = {".=mapped,cpu,amx"}, .expected = {
        BY("blk.0.ffn_gate_exps.weight", POOL_MAPPED, "avx512 mapped Q4_0"), IN("output.weight", POOL_MAPPED)}},
    {.name = "an anchored pattern", .spec = &moe, .cpu_flags = AMX, .overrides = {"^output\\.weight$=cpu"}, .expected = {
        IN("output.weight", POOL_CPU), IN("output_norm.weight", POOL_MAPPED), IN("blk.0.attn_output.weight", POOL_AMX)}},
    {.name = "a pattern with '='", .spec = &moe, .cpu_flags = AMX, .overrides = {"(?=attn_q\\.)attn=cpu"}, .expected = {
        IN("blk.0.attn_q.weight", POOL_CPU), IN("blk.0.attn_k.weight", POOL_AMX)}},
    {.name = "an override of nothing", .spec = &moe, .cpu_flags = AMX, .overrides = {"shexp=cpu"}, .expected = {IN("blk.0.attn_q.weight", POOL_AMX)}},
    {.name = "-ot a norm to cpu", .spec = &moe, .cpu_flags = AMX, .overrides = {"attn_norm=cpu"}, .code = TSR_EINVAL,
     .errors = {"-ot 'attn_norm=cpu'", "tensor blk.0.attn_norm.weight (F32)", "pool cpu refuses: " NOT_A_MATRIX}},
    {.name = "-ot the embedding to amx", .spec = &moe, .cpu_flags = AMX, .overrides = {"token_embd=amx"}, .code = TSR_EINVAL,
     .errors = {"token_embd.weight", "pool amx refuses: rows of the embedding"}},
    {.name = "-ot to amx without AMX", .spec = &moe, .cpu_flags = AVX512, .overrides = {"_exps=amx"}, .code = TSR_EINVAL,
     .errors = {"-ot '_exps=amx'", "blk.0.ffn_gate_exps.weight (Q4_0)", "pool amx refuses: " NO_TILES}},
    {.name = "-ot to amx or else, without AMX", .spec = &moe, .cpu_flags = AVX512, .overrides = {"_exps=amx,cpu"}, .expected = {
        WHY("blk.0.ffn_gate_exps.weight", POOL_CPU, NULL, POOL_AMX, NO_TILES)}},
    {.name = "-ot to a pool without the kernel", .spec = &moe, .cpu_flags = AVX2, .loss = LOSE_MAPPED, .lost = BLOCK_Q8_0, .overrides = {"^output\\.=mapped"}, .code = TSR_EINVAL,
     .errors = {"output.weight (Q8_0)", "pool mapped refuses: no kernel for this type"}},
    {.name = "a bad pattern", .spec = &moe, .cpu_flags = AVX2, .overrides = {"attn_(q=cpu"}, .code = TSR_EINVAL, .errors = {"-ot 'attn_(q=cpu'", "missing closing parenthesis"}},
    {.name = "an unknown pool", .spec = &moe, .cpu_flags = AVX2, .overrides = {"attn=gpu"}, .code = TSR_EINVAL, .errors = {"-ot 'attn=gpu'", "'gpu' is not a pool", "amx, cpu, mapped"}},
    {.name = "a pool twice", .spec = &moe, .cpu_flags = AVX2, .overrides = {"attn=cpu,cpu"}, .code = TSR_EINVAL, .errors = {"'cpu,cpu' is not a pool"}},
    {.name = "no pool", .spec = &moe, .cpu_flags = AVX2, .overrides = {"attn="}, .code = TSR_EINVAL, .errors = {"'' is not a pool"}},
    {.name = "half a list", .spec = &moe, .cpu_flags = AVX2, .overrides = {"attn=cpu,"}, .code = TSR_EINVAL, .errors = {"'cpu,' is not a pool"}},
    {.name = "no pattern", .spec = &moe, .cpu_flags = AVX2, .overrides = {"=cpu"}, .code = TSR_EINVAL, .errors = {"-ot '=cpu'", "REGEX=POOL"}},
    {.name = "no '='", .spec = &moe, .cpu_flags = AVX2, .overrides = {"attn_q=cpu", "attn"}, .code = TSR_EINVAL, .errors = {"-ot 'attn'", "REGEX=POOL"}},
    {.name = "a pattern without end", .spec = &moe, .cpu_flags = AVX2, .overrides = {"((((.*)*)*)*)*\\d{9}x=cpu"}, .code = TSR_EINVAL, .errors = {"takes too long"}},

    /* Budgets. */
    {.name = "no room on tiles", .spec = &moe, .cpu_flags = AMX, .budgets = {[POOL_AMX] = BYTES(0)}, .expected = {
        WHY("blk.0.ffn_gate_exps.weight", POOL_CPU, NULL, POOL_AMX, BUDGET_SPENT), IN("output.weight", POOL_CPU), WHY("blk.0.attn_norm.weight", POOL_MAPPED, NULL, POOL_AMX, NOT_A_MATRIX)}},
    /* Q4_0: an attention matrix of 64 x 64 takes 2304 bytes, experts of 96 x 64 13824. */
    {.name = "room for some", .spec = &moe, .cpu_flags = AMX, .budgets = {[POOL_AMX] = BYTES(16000)}, .expected = {
        IN("output.weight", POOL_AMX), IN("blk.0.attn_q.weight", POOL_AMX), WHY("blk.0.ffn_gate_exps.weight", POOL_CPU, NULL, POOL_AMX, BUDGET_SPENT)}},
    {.name = "both packed pools full", .spec = &moe, .cpu_flags = AMX, .budgets = {[POOL_AMX] = BYTES(100), [POOL_CPU] = BYTES(100)}, .expected = {
        WHY("blk.0.ffn_gate_exps.weight", POOL_MAPPED, "avx512 mapped Q4_0", POOL_CPU, BUDGET_SPENT), WHY("output.weight", POOL_MAPPED, NULL, POOL_AMX, BUDGET_SPENT)}},
    /* F16, 64 x 64. */
    {.name = "exactly enough", .spec = &halves, .cpu_flags = AVX2, .overrides = {"attn_q\\.=cpu", ".=mapped"}, .budgets = {[POOL_CPU] = BYTES(8192)}, .expected = {IN("blk.0.attn_q.weight", POOL_CPU)}},
    {.name = "one byte less", .spec = &halves, .cpu_flags = AVX2, .overrides = {"attn_q\\.=cpu,mapped", ".=mapped"}, .budgets = {[POOL_CPU] = BYTES(8191)}, .expected = {
        WHY("blk.0.attn_q.weight", POOL_MAPPED, NULL, POOL_CPU, BUDGET_SPENT)}},
    {.name = "a budget that cannot be met", .spec = &moe, .cpu_flags = AMX, .budgets = {[POOL_MAPPED] = BYTES(1000)}, .code = TSR_ENOMEM,
     .errors = {"tensor token_embd.weight (Q8_0)", "pool mapped refuses: " BUDGET_SPENT ": 2720 bytes wanted, 1000 left"}},
    {.name = "no pool has room", .spec = &k_quants, .cpu_flags = AVX2, .budgets = {[POOL_CPU] = BYTES(0), [POOL_MAPPED] = BYTES(100000)}, .code = TSR_ENOMEM,
     .errors = {"pool cpu refuses: " BUDGET_SPENT, "; pool mapped refuses: " BUDGET_SPENT}},
    {.name = "an override into a full pool", .spec = &moe, .cpu_flags = AMX, .overrides = {"_exps=amx"}, .budgets = {[POOL_AMX] = BYTES(8000)}, .code = TSR_EINVAL,
     .errors = {"-ot '_exps=amx'", "blk.0.ffn_gate_exps.weight", "pool amx refuses: " BUDGET_SPENT}},
    {.name = "a budget on two nodes", .spec = &moe, .cpu_flags = AMX, .n_nodes = 2, .budgets = {[POOL_AMX] = BYTES(16000)}, .expected = {
        IN("blk.0.attn_q.weight", POOL_AMX), WHY("blk.0.ffn_gate_exps.weight", POOL_CPU, NULL, POOL_AMX, BUDGET_SPENT)}},
    {.name = "a tied output needs no room in the mapping", .spec = &tied, .cpu_flags = AVX2, .overrides = {"token_embd|output\\.=mapped"}, .expected = {IN("output.weight", POOL_MAPPED)}},
};
/* clang-format on */

/* ---- Checks ---- */

static const struct placement *find(const struct plan *plan, const char *name)
{
    for (size_t i = 0; i < plan->n_placements; i++)
        if (!strcmp(plan->placements[i].name, name))
            return &plan->placements[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static void check_places(const struct plan_case *c, const struct plan *plan, bool check_kernels)
{
    for (size_t i = 0; i < 4 && c->expected[i].tensor; i++) {
        const struct expected *e = &c->expected[i];
        const struct placement *place = find(plan, e->tensor);
        const char *kernel = place->kernel ? place->kernel->name : "none";
        if (place->pool != e->pool)
            fail_msg("%s: %s is in pool %s", c->name, e->tensor, plan_pool_name(place->pool));
        if (check_kernels && e->kernel && strncmp(kernel, e->kernel, strlen(e->kernel)) != 0)
            fail_msg("%s: %s has kernel %s", c->name, e->tensor, kernel);
        const char *reason = place->refusals[e->refuser].reason;
        if (e->reason && (!reason || strcmp(reason, e->reason) != 0))
            fail_msg("%s: pool %s said of %s: %s", c->name, plan_pool_name(e->refuser), e->tensor,
                     reason ? reason : "nothing");
    }
}

/* Even the tables of an instruction set may be made by its instructions: a machine without AVX-512
 * plans for AVX2 instead. */
static uint32_t usable_flags(uint32_t flags)
{
    struct cpu_info info;
    cpu_detect(&info);
    uint32_t present = TILES | cpu_present_flags(&info);
    if ((present & AVX512) != AVX512)
        present &= ~(uint32_t)(AVX512 & ~AVX2);
    return flags & present;
}

/* Each part lies where the one before it in its arena ended. */
static void check_arenas(const struct plan_case *c, const struct plan *plan)
{
    uint64_t ends[POOL_COUNT][NODES_MAX] = {{0}};
    for (size_t i = 0; i < plan->n_placements; i++) {
        const struct placement *place = &plan->placements[i];
        uint64_t bytes = 0;
        for (int node = 0; node < plan->n_nodes; node++) {
            const struct placement_part *part = &place->parts[node];
            if (part->bytes && part->offset != ends[place->pool][node])
                fail_msg("%s: a gap before %s", c->name, place->name);
            assert_int_equal(part->bytes, place->pool == POOL_MAPPED || part->n1 == part->n0
                                              ? 0
                                              : part->matrix_bytes * place->tensor->n_expert);
            assert_int_equal(part->offset % 64, 0);
            ends[place->pool][node] += part->bytes;
            bytes += part->bytes;
        }
        assert_int_equal(place->parts[plan->n_nodes - 1].n1, place->tensor->n);
        if (place->pool != POOL_MAPPED)
            assert_int_equal(bytes, place->bytes);
    }
    assert_memory_equal(ends, plan->arena_bytes, sizeof ends);
}

static void check_sums(const struct plan_case *c, const struct plan *plan)
{
    const struct gguf *gguf = plan->model->gguf;
    uint64_t n_tensors = 0, file_bytes = 0, all = 0;
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++)
        all += gguf_tensor_at(gguf, i)->n_bytes;
    for (int pool = 0; pool < POOL_COUNT; pool++) {
        const struct pool_sum *sum = &plan->pools[pool];
        uint64_t bytes = 0, arenas = 0;
        for (size_t i = 0; i < plan->n_placements; i++)
            bytes += (int)plan->placements[i].pool == pool ? plan->placements[i].bytes : 0;
        for (int node = 0; node < plan->n_nodes; node++)
            arenas += plan->arena_bytes[pool][node];
        assert_int_equal(sum->bytes, bytes);
        assert_int_equal(arenas, pool == POOL_MAPPED ? 0 : bytes);
        if (c->budgets[pool])
            assert_true(sum->bytes <= c->budgets[pool] - 1);
        n_tensors += sum->n_tensors;
        file_bytes += sum->file_bytes;
    }
    assert_int_equal(n_tensors, gguf_n_tensors(gguf));
    assert_int_equal(file_bytes, all);
}

/* What no plan does, whatever the settings. */
static void check_roles(const struct plan *plan)
{
    for (size_t i = 0; i < plan->n_placements; i++) {
        const struct placement *place = &plan->placements[i];
        bool packs = model_role_is_matrix(place->tensor->role) && place->tensor->role != ROLE_ROUTER;
        assert_true(packs || place->pool == POOL_MAPPED);
        assert_int_equal(place->kernel != NULL, model_role_is_matrix(place->tensor->role));
        assert_null(place->refusals[place->pool].reason);
        if (place->kernel) {
            uint32_t id = place->tensor->source->type->id;
            assert_int_equal(place->kernel->block_id, id);
            assert_int_equal(place->pool == POOL_AMX,
                             place->kernel == &plan->kernels->tiles[id]);
        }
    }
}

static void lose_kernel(const struct plan_case *c, struct kernel_set *kernels)
{
    if (c->loss == LOSE_TILES)
        kernels->tiles[c->lost].gemm = NULL;
    if (c->loss == LOSE_PACKED)
        kernels->packed[c->lost].gemm = NULL;
    if (c->loss == LOSE_MAPPED)
        kernels->mapped[c->lost].gemm = NULL;
}

static int make_plan(const struct plan_case *c, uint32_t cpu_flags, const struct model *model,
                     struct kernel_set *kernels, struct plan **plan, struct tsr_error *error)
{
    struct plan_settings settings = {.shares = {.n_nodes = c->n_nodes ? c->n_nodes : 1},
                                     .overrides = c->overrides};
    bool tiles = cpu_flags & CPU_AVX2 && (cpu_flags & TILES) == TILES;
    settings.no_tiles = tiles ? NULL : NO_TILES;
    for (int node = 0; node < settings.shares.n_nodes; node++)
        settings.shares.workers[node] = 2;
    while (settings.n_overrides < 3 && c->overrides[settings.n_overrides])
        settings.n_overrides++;
    for (int pool = 0; pool < POOL_COUNT; pool++)
        settings.budgets[pool] = c->budgets[pool] ? c->budgets[pool] - 1 : UINT64_MAX;
    kernel_set_init(kernels, cpu_flags);
    lose_kernel(c, kernels);
    return plan_create(model, kernels, &settings, plan, error);
}

static void check_error(const struct plan_case *c, int status, const struct tsr_error *error)
{
    if (status != c->code)
        fail_msg("%s: code %d (%s), not %d", c->name, status, status ? error->text : "", c->code);
    for (size_t i = 0; i < 3 && c->errors[i]; i++)
        if (!strstr(error->text, c->errors[i]))
            fail_msg("%s: '%s' does not say %s", c->name, error->text, c->errors[i]);
    if (status)
        assert_null(strchr(error->text, '\n'));
}

static void every_case(void **state)
{
    (void)state;
    static struct kernel_set kernels;
    size_t n_planned = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct plan_case *c = &cases[i];
        uint32_t cpu_flags = usable_flags(c->cpu_flags);
        if ((c->cpu_flags ^ cpu_flags) & CPU_AVX2)
            continue; /* no vectors, no tiles */
        n_planned++;
        struct tsr_error error = {0};
        struct gguf *gguf = NULL;
        struct model *model = NULL;
        struct plan *plan;
        if (gguf_open(write_model(c->spec), &gguf, &error) || model_open(gguf, &model, &error))
            fail_msg("%s: %s", c->name, error.text);
        check_error(c, make_plan(c, cpu_flags, model, &kernels, &plan, &error), &error);
        if (plan) {
            check_places(c, plan, cpu_flags == c->cpu_flags);
            check_arenas(c, plan);
            check_sums(c, plan);
            check_roles(plan);
        } else {
            assert_int_not_equal(c->code, 0);
        }
        plan_free(plan);
        model_close(model);
        gguf_close(gguf);
    }
    print_message("%zu cases\n", n_planned);
    assert_true(n_planned > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
