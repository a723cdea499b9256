/* Products straight from the file's rows, for any type with a de-quantizer. */
#include "kernels/registry.h"
#include "kernels/scalar/float_panels.h"

static size_t scratch_bytes(int k)
{
    return (size_t)k * sizeof(float);
}

static void gemm_type(const struct gemm_args *g, const struct block_type *type)
{
    size_t row_bytes = (size_t)g->k / type->n_elems * type->n_bytes;
    float *w = g->scratch;
    for (int j = g->n0; j < g->n1; j++) {
        type->dequantize((const char *)g->w + (size_t)j * row_bytes, w, (size_t)g->k);
        for (int i = 0; i < g->m; i++) {
            const float *a = (const float *)((const char *)g->a + (size_t)i * g->a_stride);
            float sum = 0.0f;
            for (int l = 0; l < g->k; l++)
                sum += a[l] * w[l];
            g->c[(size_t)i * g->ldc + (size_t)(j - g->n0)] = sum;
        }
    }
}

#define MAPPED_TYPES(X)                                                                            \
    X(F32) X(F16) X(BF16) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K)  \
    X(Q6_K) X(IQ4_NL) X(IQ4_XS) X(MXFP4)

#define DEFINE_GEMM(type)                                                                          \
    static void gemm_##type(const struct gemm_args *args)                                          \
    {                                                                                              \
        gemm_type(args, block_type_find(BLOCK_##type));                                            \
    }
MAPPED_TYPES(DEFINE_GEMM)

#define DEFINE_RECORD(type)                                                                        \
    {.name = "scalar mapped " #type,                                                               \
     .block_id = BLOCK_##type,                                                                     \
     .act_format = ACT_F32,                                                                        \
     .mr = 1,                                                                                      \
     .nr = 1,                                                                                      \
     .kr = 1,                                                                                      \
     .quantize_rows = float_copy_rows,                                                              \
     .scratch_bytes = scratch_bytes,                                                               \
     .gemm = gemm_##type},

const struct gemm_kernel *scalar_mapped_kernels(size_t *count)
{
    static const struct gemm_kernel kernels[] = {MAPPED_TYPES(DEFINE_RECORD)};
    *count = sizeof kernels / sizeof kernels[0];
    return kernels;
}
