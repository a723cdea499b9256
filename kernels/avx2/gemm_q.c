/* The code products with plain AVX2. */
#define NAME  "avx2"
#define FLAGS CPU_AVX2
#include "kernels/avx2/gemm_q.h"

const struct gemm_kernel *avx2_q_kernels(size_t *count)
{
    *count = sizeof code_kernels / sizeof code_kernels[0];
    return code_kernels;
}
