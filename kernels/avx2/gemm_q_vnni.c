/* The code products with the dot product of AVX-VNNI (gemm_q.h). */
#define DOT_VNNI
#include "kernels/avx2/gemm_q.h"

#include "kernels/avx2/quantize.h"

#define RECORD(type, bits, block_k)                                                                \
    {.name = "avx-vnni " #type,                                                                    \
     .cpu_flags = CPU_AVX2 | CPU_AVX_VNNI,                                                         \
     .block_id = BLOCK_##type,                                                                     \
     .act_format = ACT_Q8,                                                                         \
     .mr = MR,                                                                                     \
     .nr = PANEL_COLUMNS,                                                                          \
     .kr = 4,                                                                                      \
     .quantize_rows = avx2_quantize_rows,                                                          \
     .scratch_bytes = scratch_bytes,                                                               \
     .gemm = gemm_##type},

const struct gemm_kernel *avx_vnni_q_kernels(size_t *count)
{
    static const struct gemm_kernel kernels[] = {CODE_BITS(RECORD)};
    *count = sizeof kernels / sizeof kernels[0];
    return kernels;
}
