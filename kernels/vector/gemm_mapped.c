/* GEMM on the rows of a file as they are. Rows of floats are read where they lie; others are
 * de-quantized into scratch memory, eight at a time, for all rows of A. */
#include "kernels/registry.h"
#include "kernels/scalar/float_panels.h"
#include "kernels/vector/dot.h"

enum { GROUP = 8 }; /* columns taken at once */

static size_t float_scratch_bytes(int k)
{
    return 0;
}

static size_t quantized_scratch_bytes(int k)
{
    return act_round_up(GROUP * (size_t)k * sizeof(float), 64);
}

/* n_rows rows of A from `row` on times the columns of a group, `count` of which exist. */
static ALWAYS_INLINE void multiply(const struct gemm_args *args, int row, int n_rows,
                                   const void *const *columns, enum block_id type, float *c,
                                   int count)
{
    const float *a = (const float *)((const char *)args->a + (size_t)row * args->a_stride);
    const int step = GROUP / n_rows;
    for (int j = 0; j < count; j += step) {
        float products[GROUP];
        size_t stride = args->a_stride / sizeof(float);
        dot_products(products, a, stride, n_rows, columns + j, 8 / n_rows, type, args->k);
        for (int r = 0; r < n_rows; r++)
            for (int s = 0; s < step && j + s < count; s++)
                c[(size_t)(row + r) * args->ldc + (size_t)(j + s)] = products[r * step + s];
    }
}

static ALWAYS_INLINE void multiply_group(const struct gemm_args *args, const void *const *columns,
                                         enum block_id type, float *c, int count)
{
    int row = 0;
    for (; row + 4 <= args->m; row += 4)
        multiply(args, row, 4, columns, type, c, count);
    for (; row + 2 <= args->m; row += 2)
        multiply(args, row, 2, columns, type, c, count);
    if (row < args->m)
        multiply(args, row, 1, columns, type, c, count);
}

static void gemm(const struct gemm_args *args, enum block_id id)
{
    const struct block_type *type = block_type_find(id);
    size_t row_bytes = (size_t)args->k / type->n_elems * type->n_bytes;
    bool as_floats = type->n_elems > 1;
    for (int col = args->n0; col < args->n1; col += GROUP) {
        int count = args->n1 - col < GROUP ? args->n1 - col : GROUP;
        float *c = args->c + (col - args->n0);
        const void *columns[GROUP];
        for (int j = 0; j < GROUP; j++) {
            /* Past the end the last column again: it is multiplied but not stored. */
            int last = j < count ? j : count - 1;
            columns[j] = (const char *)args->w + (size_t)(col + last) * row_bytes;
            if (!as_floats)
                continue;
            float *floats = (float *)args->scratch + (size_t)last * (size_t)args->k;
            if (j < count)
                type->dequantize(columns[j], floats, (size_t)args->k);
            columns[j] = floats;
        }
        if (id == BLOCK_F16)
            multiply_group(args, columns, BLOCK_F16, c, count);
        else if (id == BLOCK_BF16)
            multiply_group(args, columns, BLOCK_BF16, c, count);
        else
            multiply_group(args, columns, BLOCK_F32, c, count);
    }
}

#define FLOAT_TYPES(X) X(F32) X(F16) X(BF16)

#define DEFINE_GEMM(type)                                 \
    static void gemm_##type(const struct gemm_args *args) \
    {                                                     \
        gemm(args, BLOCK_##type);                         \
    }
FLOAT_TYPES(DEFINE_GEMM)
PACKED_CODE_TYPES(DEFINE_GEMM)

#define RECORD(type, scratch)              \
    {.name = VEC_ISA " mapped " #type,     \
     .cpu_flags = VEC_CPU_FLAGS,           \
     .block_id = BLOCK_##type,             \
     .act_format = ACT_F32,                \
     .mr = 4,                              \
     .nr = GROUP,                          \
     .kr = 1,                              \
     .quantize_rows = float_copy_rows,     \
     .scratch_bytes = scratch,             \
     .gemm = gemm_##type},
#define FLOAT_RECORD(type)     RECORD(type, float_scratch_bytes)
#define QUANTIZED_RECORD(type) RECORD(type, quantized_scratch_bytes)

const struct gemm_kernel *VEC_NAME(mapped_kernels)(size_t *count)
{
    static const struct gemm_kernel kernels[] = {
        FLOAT_TYPES(FLOAT_RECORD) PACKED_CODE_TYPES(QUANTIZED_RECORD)};
    *count = sizeof kernels / sizeof kernels[0];
    return kernels;
}
