/* The registry: scalar kernels first, then overridden upwards as far as the CPU allows. */
#include <string.h>

#include "kernels/registry.h"

typedef const struct gemm_kernel *kernel_table(size_t *count);

static void override(struct gemm_kernel *slots, kernel_table *table, uint32_t cpu_flags)
{
    size_t count;
    const struct gemm_kernel *kernels = table(&count);
    for (size_t i = 0; i < count; i++)
        if ((kernels[i].cpu_flags & ~cpu_flags) == 0)
            slots[kernels[i].block_id] = kernels[i];
}

void kernel_set_init(struct kernel_set *set, uint32_t cpu_flags)
{
    memset(set, 0, sizeof *set);
    override(set->packed, scalar_q_kernels, cpu_flags);
    override(set->packed, scalar_float_kernels, cpu_flags);
    override(set->mapped, scalar_mapped_kernels, cpu_flags);
    scalar_row_ops(&set->rows);
}
