/* Scalar GEMM on packed F32, F16 and BF16 weights: the reference for the vector kernels. */
#include <string.h>

#include "kernels/float16.h"
#include "kernels/layout.h"
#include "kernels/registry.h"
#include "kernels/scalar/float_panels.h"

enum { CHUNK = 64 }; /* k taken at once, even */

typedef void load_chunk(float *chunk, const void *panel, int k0, int k1);

static void load_f32(float *chunk, const void *panel, int k0, int k1)
{
    const float *from = (const float *)panel + (size_t)k0 * PANEL_COLUMNS;
    memcpy(chunk, from, (size_t)(k1 - k0) * PANEL_COLUMNS * sizeof(float));
}

static void load_f16(float *chunk, const void *panel, int k0, int k1)
{
    const uint16_t *from = (const uint16_t *)panel + (size_t)k0 * PANEL_COLUMNS;
    for (int i = 0; i < (k1 - k0) * PANEL_COLUMNS; i++)
        chunk[i] = f16_to_f32(from[i]);
}

static void load_bf16(float *chunk, const void *panel, int k0, int k1)
{
    const uint16_t *from = (const uint16_t *)panel + (size_t)k0 * PANEL_COLUMNS;
    for (int i = 0; i < k1 - k0; i++)
        for (int j = 0; j < PANEL_COLUMNS; j++) {
            uint16_t weight = from[(i / 2 * PANEL_COLUMNS + j) * 2 + i % 2];
            chunk[i * PANEL_COLUMNS + j] = bf16_to_f32(weight);
        }
}

/* One row times `count` k of a panel, chunk [count][PANEL_COLUMNS], added to PANEL_COLUMNS sums. */
static void multiply(float *sums, const float *a, const float *chunk, int count)
{
    for (int i = 0; i < count; i++)
        for (int j = 0; j < PANEL_COLUMNS; j++)
            sums[j] += a[i] * chunk[i * PANEL_COLUMNS + j];
}

static void gemm(const struct gemm_args *args, size_t weight_bytes, load_chunk *load)
{
    float chunk[CHUNK * PANEL_COLUMNS];
    size_t panel_bytes = float_panel_bytes(args->k, weight_bytes);
    for (int c0 = args->n0; c0 < args->n1; c0 += PANEL_COLUMNS) {
        const char *panel = (const char *)args->w + (size_t)(c0 / PANEL_COLUMNS) * panel_bytes;
        size_t cols = (size_t)(args->n1 - c0 < PANEL_COLUMNS ? args->n1 - c0 : PANEL_COLUMNS);
        for (int k0 = 0; k0 < args->k; k0 += CHUNK) {
            int k1 = args->k - k0 < CHUNK ? args->k : k0 + CHUNK;
            load(chunk, panel, k0, k1);
            for (int i = 0; i < args->m; i++) {
                const void *a = (const char *)args->a + (size_t)i * args->a_stride;
                float *c = args->c + (size_t)i * args->ldc + (c0 - args->n0);
                float sums[PANEL_COLUMNS] = {0};
                if (k0 > 0)
                    memcpy(sums, c, cols * sizeof(float));
                multiply(sums, (const float *)a + k0, chunk, k1 - k0);
                memcpy(c, sums, cols * sizeof(float));
            }
        }
    }
}

static void gemm_f32(const struct gemm_args *args)
{
    gemm(args, 4, load_f32);
}

static void gemm_f16(const struct gemm_args *args)
{
    gemm(args, 2, load_f16);
}

static void gemm_bf16(const struct gemm_args *args)
{
    gemm(args, 2, load_bf16);
}

static size_t no_scratch(int k)
{
    return 0;
}

#define KERNEL(NAME, lower, bits, pair)                                                            \
    {                                                                                              \
        .name = "scalar " #NAME,                                                                   \
        .block_id = BLOCK_##NAME,                                                                  \
        .act_format = ACT_F32,                                                                     \
        .mr = 1,                                                                                   \
        .nr = PANEL_COLUMNS,                                                                       \
        .kr = (pair),                                                                              \
        .packed_bytes = float_packed_bytes_##bits,                                                 \
        .pack = float_pack_##lower,                                                                \
        .unpack = float_unpack_##lower,                                                            \
        .quantize_rows = float_copy_rows,                                                          \
        .scratch_bytes = no_scratch,                                                               \
        .gemm = gemm_##lower,                                                                      \
    }

const struct gemm_kernel *scalar_float_kernels(size_t *count)
{
    static const struct gemm_kernel kernels[] = {
        KERNEL(F32, f32, 32, 1),
        KERNEL(F16, f16, 16, 1),
        KERNEL(BF16, bf16, 16, 2),
    };
    *count = sizeof kernels / sizeof kernels[0];
    return kernels;
}
