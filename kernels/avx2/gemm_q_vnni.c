/* The code products with the dot product of AVX-VNNI. */
#define DOT_VNNI
#define NAME  "avx-vnni"
#define FLAGS (CPU_AVX2 | CPU_AVX_VNNI)
#include "kernels/avx2/gemm_q.h"

const struct gemm_kernel *avx_vnni_q_kernels(size_t *count)
{
    *count = sizeof code_kernels / sizeof code_kernels[0];
    return code_kernels;
}
