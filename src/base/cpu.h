/* What the CPU and the operating system offer, what the user's settings leave of it, and which
 * cores may be used. */
#ifndef TESSERA_BASE_CPU_H
#define TESSERA_BASE_CPU_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernel.h"
#include <tessera/tessera.h>

enum { CPU_FEATURE_COUNT = 8, CPU_CORES_MAX = 4096 };

/* An affinity mask for the CPU_*_S macros of <sched.h>. */
struct cpu_mask {
    cpu_set_t sets[CPU_CORES_MAX / CPU_SETSIZE];
};

struct cpu_feature {
    const char *name;   /* "AMX-TILE" */
    uint32_t flag;      /* enum cpu_flag */
    bool present;       /* the CPU has it, the OS keeps its state and, for AMX, permits it */
    const char *reason; /* why it is not present; "" where it is */
};

struct cpu_info {
    char vendor[13]; /* "GenuineIntel"; "" where there is no CPUID */
    char model[49];
    struct cpu_feature features[CPU_FEATURE_COUNT];
};

/* Asks CPUID, XCR0 and, for AMX, the kernel. It requests the permission to use tiles for the whole
 * process, so that it must run before the threads that use them are started. */
void cpu_detect(struct cpu_info *info);

/* The flags (enum cpu_flag) of all features that are present. */
uint32_t cpu_present_flags(const struct cpu_info *info);

/* Applies the user's settings: the flags (enum cpu_flag) that kernels may use.
 *
 * `isa` is the highest level; a level that the machine lacks is TSR_ECPU. Tiles are used at
 * TSR_ISA_AUTO and TSR_ISA_AMX, where usable and not TSR_OFF; TSR_ON demands them and also adds
 * them to TSR_ISA_AVX2 and TSR_ISA_AVX512, which then cap the vector code around the tiles.
 * `emulate_tiles` counts as having AMX. Contradictions are TSR_EINVAL. */
int cpu_select(const struct cpu_info *info, enum tsr_isa isa, enum tsr_tristate amx,
               bool emulate_tiles, uint32_t *flags, struct tsr_error *error);

/* "scalar", "avx2", "avx512" or "amx", the highest level that `flags` hold. */
const char *cpu_isa_name(uint32_t flags);

struct cpu_core {
    int id;
    int rank;   /* 0: the first allowed thread of its physical core, 1: the second */
    bool taken; /* another thread of this process is pinned to it */
};

struct cpu_cores {
    int n;          /* allowed by the affinity mask, at least 1 */
    int n_usable;   /* no more than the cgroups' CPU quota, at least 1 */
    int n_physical; /* of these, on cores of their own */
    struct cpu_core list[CPU_CORES_MAX]; /* [n] untaken ones first, then by rank */
};

/* The CPUs that this process may use. Errors: TSR_ESYSTEM. */
int cpu_cores(struct cpu_cores *cores, struct tsr_error *error);

/* CPUs' worth of time that the cgroups (v1 or v2) grant this process, 0 for no limit. `root` is
 * put before /proc and the mount points: "" but in tests. */
double cpu_quota(const char *root);

/* The JSON of tsr_cpu_describe. */
int cpu_describe(const struct tsr_settings *settings, char **json, struct tsr_error *error);

#endif
