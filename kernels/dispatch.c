/* The registry: scalar kernels first, then overridden upwards as far as the CPU allows. */
#include <string.h>

#include "kernels/registry.h"

typedef const struct gemm_kernel *kernel_table(size_t *count);

/* A kernel that reads the layout of the one below it leaves packing to it. */
static void replace(struct gemm_kernel *slot, const struct gemm_kernel *kernel,
                    const struct gemm_kernel *below)
{
    struct gemm_kernel packing = *below; /* may be the slot */
    *slot = *kernel;
    if (kernel->pack)
        return;
    slot->packed_bytes = packing.packed_bytes;
    slot->pack = packing.pack;
    slot->unpack = packing.unpack;
}

/* Takes the kernels that the CPU allows into `slots`, over those of `below`. */
static void layer(struct gemm_kernel *slots, const struct gemm_kernel *below, kernel_table *table,
                  uint32_t cpu_flags)
{
    size_t count;
    const struct gemm_kernel *kernels = table(&count);
    for (size_t i = 0; i < count; i++) {
        uint32_t id = kernels[i].block_id;
        if ((kernels[i].cpu_flags & ~cpu_flags) == 0)
            replace(&slots[id], &kernels[i], &below[id]);
    }
}

static void override(struct gemm_kernel *slots, kernel_table *table, uint32_t cpu_flags)
{
    layer(slots, slots, table, cpu_flags);
}

#if defined(__x86_64__)
/* Attention on tiles, with vector code as for the GEMM records. */
static void amx_row_ops(struct row_ops *ops, uint32_t cpu_flags)
{
    if (cpu_flags & CPU_AVX512 && cpu_flags & CPU_AVX512_VNNI)
        amx_row_ops_avx512(ops);
    else if (cpu_flags & CPU_AVX2)
        amx_row_ops_avx2(ops);
}
#endif

void kernel_set_init(struct kernel_set *set, uint32_t cpu_flags)
{
    memset(set, 0, sizeof *set);
    override(set->packed, scalar_q_kernels, cpu_flags);
    override(set->packed, scalar_float_kernels, cpu_flags);
    override(set->mapped, scalar_mapped_kernels, cpu_flags);
    scalar_row_ops(&set->rows);
#if defined(__x86_64__)
    override(set->packed, avx2_q_kernels, cpu_flags);
    override(set->packed, avx_vnni_q_kernels, cpu_flags);
    override(set->packed, avx512_q_kernels, cpu_flags);
    override(set->packed, avx2_float_kernels, cpu_flags);
    override(set->packed, avx512_float_kernels, cpu_flags);
    override(set->packed, avx512_bf16_kernels, cpu_flags);
    layer(set->tiles, set->packed, amx_q_kernels_avx2, cpu_flags);
    layer(set->tiles, set->packed, amx_q_kernels_avx512, cpu_flags);
    override(set->mapped, avx2_mapped_kernels, cpu_flags);
    override(set->mapped, avx512_mapped_kernels, cpu_flags);
    if (cpu_flags & CPU_AVX2)
        avx2_row_ops(&set->rows);
    if (cpu_flags & CPU_AVX512)
        avx512_row_ops(&set->rows);
    if (cpu_flags & CPU_AMX_TILE && cpu_flags & CPU_AMX_BF16)
        amx_row_ops(&set->rows, cpu_flags);
#endif
}
