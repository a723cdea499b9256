/* The kernel layer: block types, packed layouts, GEMM records and row operations.
 *
 * Everything the stages above know about arithmetic is in this header. Kernels know nothing of
 * models, files or threads: they get pointers and shapes and cannot fail.
 *
 * Naming: C[m, n] = A[m, k] * W[n, k]^T. A row of W (a row of the file's tensor) is a *column* of
 * the product. MR rows of A and NR columns form the register block; KR consecutive k of one column
 * lie side by side in memory (4 for int8, so that a dot-product instruction or a tile row reads
 * them in one go).
 */
#ifndef TESSERA_KERNEL_H
#define TESSERA_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Block types ----------------------------------------------------------------------------- */

/* Numbers as in GGUF files (the ggml type ids). */
enum block_id {
    BLOCK_F32 = 0,
    BLOCK_F16 = 1,
    BLOCK_Q4_0 = 2,
    BLOCK_Q4_1 = 3,
    BLOCK_Q5_0 = 6,
    BLOCK_Q5_1 = 7,
    BLOCK_Q8_0 = 8,
    BLOCK_Q8_1 = 9,
    BLOCK_Q2_K = 10,
    BLOCK_Q3_K = 11,
    BLOCK_Q4_K = 12,
    BLOCK_Q5_K = 13,
    BLOCK_Q6_K = 14,
    BLOCK_Q8_K = 15,
    BLOCK_IQ2_XXS = 16,
    BLOCK_IQ2_XS = 17,
    BLOCK_IQ3_XXS = 18,
    BLOCK_IQ1_S = 19,
    BLOCK_IQ4_NL = 20,
    BLOCK_IQ3_S = 21,
    BLOCK_IQ2_S = 22,
    BLOCK_IQ4_XS = 23,
    BLOCK_I8 = 24,
    BLOCK_I16 = 25,
    BLOCK_I32 = 26,
    BLOCK_I64 = 27,
    BLOCK_F64 = 28,
    BLOCK_IQ1_M = 29,
    BLOCK_BF16 = 30,
    BLOCK_TQ1_0 = 34,
    BLOCK_TQ2_0 = 35,
    BLOCK_MXFP4 = 39,
    BLOCK_ID_COUNT = 64 /* ids at or above are unknown */
};

/* One row of the only table of block types in the program. */
struct block_type {
    const char *name;  /* "Q4_0" */
    uint32_t id;       /* enum block_id */
    uint32_t n_elems;  /* weights in a block */
    uint32_t n_bytes;  /* bytes of a block */
    /* Scalar reference: n (a multiple of n_elems) weights to floats. NULL where the type is known
     * by name and size only (the reader can list such tensors; no model can use them). */
    void (*dequantize)(const void *blocks, float *out, size_t n);
};

/* NULL for an unknown id. */
const struct block_type *block_type_find(uint32_t id);

/* ---- CPU ------------------------------------------------------------------------------------- */

enum cpu_flag {
    CPU_AVX2 = 1 << 0,     /* AVX2, FMA, F16C, BMI2 together with the OS state for YMM */
    CPU_AVX512 = 1 << 1,   /* F, BW, DQ, VL and the OS state for ZMM */
    CPU_AVX512_VNNI = 1 << 2,
    CPU_AVX512_BF16 = 1 << 3,
    CPU_AMX_TILE = 1 << 4, /* with OS state and permission: set only after both were checked */
    CPU_AMX_INT8 = 1 << 5,
    CPU_AMX_BF16 = 1 << 6,
    CPU_AVX_VNNI = 1 << 7, /* the VEX-coded dot product of CPUs without AVX-512 */
};

/* ---- GEMM records ---------------------------------------------------------------------------- */

/* How rows of activations are stored for a kernel. The formats are shared by all kernels that name
 * them, so rows quantized once serve gate and up, whatever their weight types.
 *
 * ACT_F32: k floats.
 * ACT_Q8: blocks of 32, x ~ scale * q with q in [-127, 127], scale = max|x| / 127.
 *         A row of k (a multiple of 32) is: int8 q[k], padded to 64 bytes; float scale[k / 32];
 *         float sum[k / 32], where sum = scale * (q[0] + .. + q[31]), exact in int before the
 *         product; float half_sum[k / 16], the same of q[0] .. q[15] and of q[16] .. q[31]; the
 *         row padded to 64 bytes.
 * ACT_BF16: k bf16 (rounded to nearest even), padded with zeros to 64 bytes: operands of tiles.
 * ACT_BF16_Q8: the row as ACT_BF16, then as ACT_Q8: for kernels that use tiles for many rows and
 *         integer dot products for few, which is only known when experts have been chosen.
 * ACT_BF16X3_F32: x ~ high + low, two bf16: for every 32 k 64 bytes of high, the same again, 64 of
 *         low, zeros behind k; then the row as ACT_F32. For weights that are floats. */
enum act_format { ACT_F32, ACT_Q8, ACT_BF16, ACT_BF16_Q8, ACT_BF16X3_F32, ACT_FORMAT_COUNT };

static inline size_t act_round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
static inline size_t act_q8_scale_offset(size_t k) { return act_round_up(k, 64); }
static inline size_t act_q8_sum_offset(size_t k)
{
    return act_q8_scale_offset(k) + k / 32 * sizeof(float);
}
static inline size_t act_q8_half_sum_offset(size_t k)
{
    return act_q8_sum_offset(k) + k / 32 * sizeof(float);
}
/* Bytes of the contents of a row of k activations, a multiple of 64. */
static inline size_t act_content_bytes(enum act_format format, size_t k)
{
    size_t f32 = act_round_up(k * sizeof(float), 64);
    size_t bf16 = act_round_up(2 * k, 64);
    size_t q8 = act_round_up(act_q8_half_sum_offset(k) + k / 16 * sizeof(float), 64);
    switch (format) {
    case ACT_Q8:
        return q8;
    case ACT_BF16:
        return bf16;
    case ACT_BF16_Q8:
        return bf16 + q8;
    case ACT_BF16X3_F32:
        return 3 * bf16 + f32;
    default:
        return f32;
    }
}
/* Bytes from row to row: an odd number of cache lines, so that the same k of many rows does not
 * fall into the same few sets of a cache (a tile is loaded from 16 rows at once). */
static inline size_t act_row_bytes(enum act_format format, size_t k)
{
    size_t bytes = act_content_bytes(format, k);
    return bytes / 64 % 2 ? bytes : bytes + 64;
}

/* Parts of a row in ACT_BF16_Q8 and ACT_BF16X3_F32: the first is what tiles read. Other formats
 * have one part only, which is always meant. */
enum act_part { ACT_FIRST = 1, ACT_SECOND = 2, ACT_BOTH = 3 };

static inline size_t act_first_bytes(enum act_format format, size_t k)
{
    size_t bf16 = act_content_bytes(ACT_BF16, k);
    return format == ACT_BF16_Q8      ? bf16
           : format == ACT_BF16X3_F32 ? 3 * bf16
                                      : act_content_bytes(format, k);
}

/* Floats to columns [k0, k1) of rows of k activations. */
struct quantize_args {
    void *a;         /* [m] rows in the kernel's act_format, 64-byte aligned */
    size_t a_stride; /* bytes from row to row, a multiple of 64 */
    const float *x;  /* column k0 of row i at x + i * ldx */
    size_t ldx;      /* floats */
    int m, k;
    int k0, k1;      /* k0 a multiple of 32; k1 too, or k: then zeros that pad bf16 follow */
    unsigned parts;  /* enum act_part: those to write */
};

/* Raised with every change of a packed layout: packed weights of another version are of no use. */
enum { KERNEL_LAYOUT_VERSION = 1 };

struct gemm_args {
    const void *w;   /* the packed matrix (or the file's rows, for a kernel without pack) */
    int n, k;        /* shape of the whole matrix, [n, k] */
    int n0, n1;      /* columns to compute: n0 a multiple of NR, n1 too or equal to n */
    const void *a;   /* [m] rows in the kernel's act_format, 64-byte aligned */
    size_t a_stride; /* bytes from row to row, a multiple of 64 */
    int m;           /* any, 0 included */
    int min_rows;    /* of formats of two parts: with fewer rows the second is used */
    float *c;        /* C[i][j] for column n0 + j is c[i * ldc + j]; overwritten */
    size_t ldc;      /* floats */
    void *scratch;   /* scratch_bytes(k) bytes, 64-byte aligned, private to the calling thread */
    const void *next; /* packed columns of the same type that the thread reads after these: fetched
                       * ahead by kernels that are bound by memory; NULL: not known */
};

struct gemm_kernel {
    const char *name;    /* "avx2 Q4_0" */
    uint32_t cpu_flags;  /* all needed */
    uint32_t block_id;   /* weight type */
    enum act_format act_format;
    int mr, nr, kr;
    int min_rows; /* of formats of two parts: from how many rows on the first is faster, as a rule;
                   * 0: the format has one */
    /* Packed layout: kernels of different ISAs that name the same layout read the same bytes.
     * Drawn in layout.h. NULL pack: the kernel reads the file's rows as they are. */
    size_t (*packed_bytes)(int n, int k);
    /* Packs panels of rows [n0, n1) of a matrix of n rows (n0 a multiple of NR, n1 too or n);
     * `rows` points at row n0, in the file's blocks; `packed` at the whole matrix. Rows past n in
     * the last panel are written as zeros. Threads may pack disjoint ranges at once. */
    void (*pack)(void *packed, const void *rows, int n, int k, int n0, int n1);
    /* The inverse, exactly the file's bytes, for tests. */
    void (*unpack)(void *rows, const void *packed, int n, int k, int n0, int n1);
    void (*quantize_rows)(const struct quantize_args *args);
    size_t (*scratch_bytes)(int k);
    void (*gemm)(const struct gemm_args *args);
    /* Tile state of the calling thread, around a region of gemm calls; NULL where not needed. */
    void (*begin)(void);
    void (*end)(void);
};

/* ---- Row operations -------------------------------------------------------------------------- */

/* How keys and values are kept: in blocks of these types. */
enum kv_type {
    KV_F32 = BLOCK_F32,
    KV_F16 = BLOCK_F16,
    KV_BF16 = BLOCK_BF16,
    KV_Q8_0 = BLOCK_Q8_0,
};

enum { KV_Q8_0_ELEMS = 32, KV_Q8_0_BYTES = 34 };

/* Bytes of a row of n elements; of KV_Q8_0 whole blocks. */
static inline size_t kv_row_bytes(enum kv_type type, size_t n)
{
    if (type == KV_Q8_0)
        return n / KV_Q8_0_ELEMS * KV_Q8_0_BYTES;
    return type == KV_F32 ? 4 * n : 2 * n;
}

/* Attention of m query rows that share one key/value head, with online softmax over blocks of
 * keys, so that memory does not grow with the context. Row i sees keys [key0, min(n_keys[i],
 * key1)). */
struct attn_args {
    const float *q;       /* row i, [d_k], at q + i * q_stride */
    size_t q_stride;      /* floats */
    int m;
    const int32_t *n_keys; /* [m] */
    int key0, key1;       /* the range of keys of this call */
    enum kv_type kv_type;
    const void *k;        /* [n_positions, d_k], rows k_stride bytes apart */
    const void *v;        /* [n_positions, d_v], rows v_stride bytes apart */
    size_t k_stride, v_stride;
    int d_k, d_v;         /* of KV_Q8_0 multiples of KV_Q8_0_ELEMS */
    float scale;          /* scores are scale * (q . k) */
    bool exact;           /* products of floats: nothing is rounded to bf16 on the way */
    float *out;           /* row i, [d_v], at out + i * out_stride; zeros where it sees no key, or
                           * none with a score above -INFINITY */
    size_t out_stride;    /* floats */
    /* Where not NULL, [m] each: `out` is left undivided, with a base near the row's maximum score (or
     * that) and the sum of exp(score - base), so that ranges of keys can be merged; -INFINITY and 0
     * where there is no score. What a row does not see must be finite: it counts for nothing, but
     * may be multiplied by zero. */
    float *row_max, *row_sum;
    void *scratch;        /* attn_scratch_bytes(d_k, d_v), 64-byte aligned */
};

struct row_ops {
    const char *name;
    uint32_t cpu_flags;
    /* y = x / rms(x) * w, over n elements; y may be x. */
    void (*rms_norm)(float *y, const float *x, const float *w, size_t n, float eps);
    /* Rotary embedding in place, n_rot (even) elements, cos/sin [n_rot / 2]. Pairs are (2i, 2i+1)
     * or (i, i + n_rot / 2). */
    void (*rope_adjacent)(float *x, const float *cos, const float *sin, size_t n_rot);
    void (*rope_halves)(float *x, const float *cos, const float *sin, size_t n_rot);
    void (*softmax)(float *x, size_t n);
    /* y = silu(gate) * up; y may be gate. */
    void (*silu_mul)(float *y, const float *gate, const float *up, size_t n);
    void (*add)(float *y, const float *x, size_t n);            /* y += x */
    void (*add_scaled)(float *y, const float *x, float s, size_t n); /* y += s * x */
    /* y = x, [m, n], past the caches where that can be: for what is read when they have long been
     * used for other things. Rows are ldy and ldx floats apart. */
    void (*store_late)(float *y, size_t ldy, const float *x, size_t ldx, size_t m, size_t n);
    /* Rounded to nearest even. */
    void (*f32_to_f16)(uint16_t *y, const float *x, size_t n);
    void (*f32_to_bf16)(uint16_t *y, const float *x, size_t n);
    /* To blocks of KV_Q8_0, n a multiple of KV_Q8_0_ELEMS. Codes are of the scale as it is kept. */
    void (*f32_to_q8_0)(void *y, const float *x, size_t n);
    /* Up to this many query rows a call is the faster the more it has. */
    int attn_rows;
    /* The same of calls with so few rows that all keys are read for them: those of a single token. */
    int attn_few_rows;
    size_t (*attn_scratch_bytes)(int d_k, int d_v);
    void (*attention)(const struct attn_args *args);
};

/* ---- The registry ---------------------------------------------------------------------------- */

/* Filled from scalar upwards: every field has the best kernel that `cpu_flags` allow. */
struct kernel_set {
    struct gemm_kernel tiles[BLOCK_ID_COUNT];  /* that need AMX; the layouts are those of packed */
    struct gemm_kernel packed[BLOCK_ID_COUNT]; /* gemm == NULL: no kernel for this type */
    struct gemm_kernel mapped[BLOCK_ID_COUNT]; /* on the file's own rows; pack == NULL */
    struct row_ops rows;
};

/* Fills `set` with kernels that need no more than `cpu_flags` (enum cpu_flag, 0 for scalar). */
void kernel_set_init(struct kernel_set *set, uint32_t cpu_flags);

#endif
