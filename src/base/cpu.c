/* CPU features: CPUID leaves, the state that the OS saves (XCR0) and, for AMX, the permission of
 * the Linux kernel, https://docs.kernel.org/arch/x86/xstate.html. Bits of CPUID and XCR0: Intel
 * 64 and IA-32 Architectures Software Developer's Manual, volumes 1 (chapter 13) and 2 (CPUID). */
#include "base/cpu.h"

#include <errno.h>
#include <string.h>

#include <jansson.h>

#include "base/error.h"
#include "base/topology.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Bits of XCR0. */
enum {
    STATE_YMM = 1 << 1 | 1 << 2,                            /* SSE and AVX */
    STATE_ZMM = STATE_YMM | 1 << 5 | 1 << 6 | 1 << 7,       /* opmask, upper halves, ZMM16-31 */
    STATE_TILE = 1 << 17 | 1 << 18,                         /* TILECFG and TILEDATA */
};

static const uint32_t flags_avx512 = CPU_AVX512 | CPU_AVX512_VNNI | CPU_AVX512_BF16;
static const uint32_t flags_amx = CPU_AMX_TILE | CPU_AMX_INT8 | CPU_AMX_BF16;

/* ---- Detection ------------------------------------------------------------------------------- */

/* What detection works on. */
struct cpuid_leaves {
    uint32_t leaf1_ecx, leaf7_ebx, leaf7_ecx, leaf7_edx, leaf7_1_eax;
    uint64_t xcr0;
    const char *tile_refusal; /* why the kernel denies tiles, or "" */
};

#if defined(__x86_64__)
static const char *tile_permission(void)
{
    enum { GET_SUPP = 0x1021, GET_PERM = 0x1022, REQ_PERM = 0x1023, TILEDATA = 18 };
    uint64_t mask = 0;
    if (syscall(SYS_arch_prctl, GET_SUPP, &mask))
        return "the kernel has no arch_prctl for AMX (Linux 5.16 or newer is needed)";
    if (!(mask >> TILEDATA & 1))
        return "the kernel does not support AMX tile data";
    mask = 0;
    if (syscall(SYS_arch_prctl, GET_PERM, &mask))
        return "arch_prctl(ARCH_GET_XCOMP_PERM) failed";
    if (mask >> TILEDATA & 1)
        return "";
    if (syscall(SYS_arch_prctl, REQ_PERM, TILEDATA))
        return errno == ENOSPC ? "permission refused: an alternate signal stack is too small"
                               : "permission refused by arch_prctl(ARCH_REQ_XCOMP_PERM)";
    mask = 0;
    if (syscall(SYS_arch_prctl, GET_PERM, &mask) || !(mask >> TILEDATA & 1))
        return "permission requested but not granted by the kernel";
    return "";
}

static uint64_t read_xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Palette 1 must be what the kernels are written for: 8 tiles of 16 rows of 64 bytes. */
static bool tile_palette_fits(void)
{
    uint32_t a, b, c, d;
    if (!__get_cpuid_count(0x1d, 1, &a, &b, &c, &d))
        return false;
    return (b & 0xffff) >= 64 && b >> 16 >= 8 && (c & 0xffff) >= 16;
}

static void read_leaves(struct cpu_info *info, struct cpuid_leaves *l)
{
    uint32_t a, b, c, d;
    if (!__get_cpuid(0, &a, &b, &c, &d))
        return;
    memcpy(info->vendor, &b, 4);
    memcpy(info->vendor + 4, &d, 4);
    memcpy(info->vendor + 8, &c, 4);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t r[4];
        if (!__get_cpuid(0x80000002 + i, &r[0], &r[1], &r[2], &r[3]))
            break;
        memcpy(info->model + 16 * i, r, 16);
    }
    if (__get_cpuid(1, &a, &b, &c, &d))
        l->leaf1_ecx = c;
    if (__get_cpuid_count(7, 0, &a, &l->leaf7_ebx, &l->leaf7_ecx, &l->leaf7_edx) && a >= 1)
        __get_cpuid_count(7, 1, &l->leaf7_1_eax, &b, &c, &d);
    if (l->leaf1_ecx & bit_OSXSAVE)
        l->xcr0 = read_xcr0();
    if (l->leaf7_edx >> 24 & 1 && (l->xcr0 & STATE_TILE) == STATE_TILE)
        l->tile_refusal = tile_palette_fits() ? tile_permission()
                                              : "the tile palette of this CPU is not known";
}
#else
static void read_leaves(struct cpu_info *info, struct cpuid_leaves *l)
{
}
#endif

static struct cpu_feature feature(const char *name, uint32_t flag, bool cpu, const char *no_cpu,
                                  bool os, const char *no_os, const char *refusal)
{
    const char *reason = !cpu ? no_cpu : !os ? no_os : refusal;
    return (struct cpu_feature){name, flag, !*reason, reason};
}

void cpu_detect(struct cpu_info *info)
{
    memset(info, 0, sizeof *info);
    struct cpuid_leaves l = {.tile_refusal = ""};
    read_leaves(info, &l);

    bool ymm = (l.xcr0 & STATE_YMM) == STATE_YMM;
    bool zmm = (l.xcr0 & STATE_ZMM) == STATE_ZMM;
    bool tile = (l.xcr0 & STATE_TILE) == STATE_TILE;
    const char *no_ymm = "the operating system does not save YMM registers (XCR0)";
    const char *no_zmm = "the operating system does not save ZMM registers (XCR0)";
    const char *no_tile = "the operating system does not save tiles (XCR0 bits 17 and 18)";

    bool fma = l.leaf1_ecx >> 12 & 1, f16c = l.leaf1_ecx >> 29 & 1;
    bool avx2 = l.leaf7_ebx >> 5 & 1, bmi2 = l.leaf7_ebx >> 8 & 1;
    bool avx512f = l.leaf7_ebx >> 16 & 1;
    bool bw_dq_vl = l.leaf7_ebx >> 30 & 1 && l.leaf7_ebx >> 17 & 1 && l.leaf7_ebx >> 31 & 1;

    struct cpu_feature *f = info->features;
    *f++ = feature("AVX2", CPU_AVX2, avx2 && fma && f16c && bmi2,
                   avx2 ? "the CPU has AVX2 but not FMA, F16C and BMI2" : "the CPU has no AVX2",
                   ymm, no_ymm, "");
    *f++ = feature("AVX-VNNI", CPU_AVX_VNNI, l.leaf7_1_eax >> 4 & 1, "the CPU has no AVX-VNNI",
                   ymm, no_ymm, "");
    *f++ = feature("AVX512", CPU_AVX512, avx512f && bw_dq_vl,
                   avx512f ? "the CPU has AVX512F but not BW, DQ and VL"
                           : "the CPU has no AVX512F", zmm, no_zmm, "");
    *f++ = feature("AVX512-VNNI", CPU_AVX512_VNNI, l.leaf7_ecx >> 11 & 1,
                   "the CPU has no AVX512-VNNI", zmm, no_zmm, "");
    *f++ = feature("AVX512-BF16", CPU_AVX512_BF16, l.leaf7_1_eax >> 5 & 1,
                   "the CPU has no AVX512-BF16", zmm, no_zmm, "");
    *f++ = feature("AMX-TILE", CPU_AMX_TILE, l.leaf7_edx >> 24 & 1, "the CPU has no AMX-TILE", tile,
                   no_tile, l.tile_refusal);
    *f++ = feature("AMX-INT8", CPU_AMX_INT8, l.leaf7_edx >> 25 & 1, "the CPU has no AMX-INT8", tile,
                   no_tile, l.tile_refusal);
    *f++ = feature("AMX-BF16", CPU_AMX_BF16, l.leaf7_edx >> 22 & 1, "the CPU has no AMX-BF16", tile,
                   no_tile, l.tile_refusal);
}

/* ---- Selection ------------------------------------------------------------------------------- */

uint32_t cpu_present_flags(const struct cpu_info *info)
{
    uint32_t flags = 0;
    for (int i = 0; i < CPU_FEATURE_COUNT; i++)
        if (info->features[i].present)
            flags |= info->features[i].flag;
    return flags;
}

/* The reason for the first of `flags` that is missing. */
static const char *missing_reason(const struct cpu_info *info, uint32_t flags)
{
    for (int i = 0; i < CPU_FEATURE_COUNT; i++)
        if (info->features[i].flag & flags && !info->features[i].present)
            return info->features[i].reason;
    return "";
}

static bool has(uint32_t flags, uint32_t wanted) { return (flags & wanted) == wanted; }

static int check_contradictions(enum tsr_isa isa, enum tsr_tristate amx, struct tsr_error *error)
{
    if (isa == TSR_ISA_AMX && amx == TSR_OFF)
        return error_set(error, TSR_EINVAL, "--isa amx and --amx off contradict each other");
    if (isa == TSR_ISA_SCALAR && amx == TSR_ON)
        return error_set(error, TSR_EINVAL, "--isa scalar and --amx on contradict each other");
    if ((unsigned)isa > TSR_ISA_AMX || (unsigned)amx > TSR_OFF)
        return error_set(error, TSR_EINVAL, "settings: isa %d or amx %d is not a known value",
                         (int)isa, (int)amx);
    return 0;
}

int cpu_select(const struct cpu_info *info, enum tsr_isa isa, enum tsr_tristate amx,
               bool emulate_tiles, uint32_t *flags, struct tsr_error *error)
{
    int rc = check_contradictions(isa, amx, error);
    if (rc)
        return rc;
    uint32_t have = cpu_present_flags(info);
    bool tiles_wanted = isa == TSR_ISA_AMX || amx == TSR_ON;
    if (isa == TSR_ISA_AVX512 && !has(have, CPU_AVX512))
        return error_set(error, TSR_ECPU, "--isa avx512: %s", missing_reason(info, CPU_AVX512));
    if (isa == TSR_ISA_AVX2 && !has(have, CPU_AVX2))
        return error_set(error, TSR_ECPU, "--isa avx2: %s", missing_reason(info, CPU_AVX2));
    if (tiles_wanted && !has(have, CPU_AVX2))
        return error_set(error, TSR_ECPU, "%s: the code around the tiles needs AVX2: %s",
                         amx == TSR_ON ? "--amx on" : "--isa amx", missing_reason(info, CPU_AVX2));
    if (tiles_wanted && !emulate_tiles && !has(have, flags_amx))
        return error_set(error, TSR_ECPU, "%s: %s (--emulate-tiles runs tiles in software, slowly)",
                         amx == TSR_ON ? "--amx on" : "--isa amx", missing_reason(info, flags_amx));

    if (emulate_tiles)
        have |= flags_amx;
    bool tiles = has(have, flags_amx | CPU_AVX2) && amx != TSR_OFF &&
                 (tiles_wanted || isa == TSR_ISA_AUTO);
    if (!tiles)
        have &= ~flags_amx;
    if (isa == TSR_ISA_AVX2)
        have &= ~flags_avx512;
    if (isa == TSR_ISA_SCALAR || !has(have, CPU_AVX2))
        have = 0; /* the levels above build on AVX2 */
    if (!has(have, CPU_AVX512))
        have &= ~flags_avx512;
    *flags = have;
    return 0;
}

const char *cpu_isa_name(uint32_t flags)
{
    if (flags & CPU_AMX_TILE)
        return "amx";
    if (flags & CPU_AVX512)
        return "avx512";
    return flags & CPU_AVX2 ? "avx2" : "scalar";
}

/* ---- Description ----------------------------------------------------------------------------- */

static const char *use_reason(const struct cpu_feature *f, uint32_t flags, bool emulate_tiles)
{
    if (flags & f->flag)
        return f->flag & flags_amx && emulate_tiles ? "executed in software (--emulate-tiles)" : "";
    if (!f->present)
        return f->reason;
    return f->flag & flags_amx ? "not used: --amx, --isa or a missing feature"
                               : "not used: --isa or a missing feature";
}

static json_t *features_json(const struct cpu_info *info, uint32_t flags, bool emulate_tiles)
{
    json_t *list = json_array();
    for (int i = 0; list && i < CPU_FEATURE_COUNT; i++) {
        const struct cpu_feature *f = &info->features[i];
        json_t *item = json_pack("{s:s, s:b, s:b, s:s}", "name", f->name, "present", f->present,
                                 "used", (flags & f->flag) != 0, "reason",
                                 use_reason(f, flags, emulate_tiles));
        if (json_array_append_new(list, item)) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *nodes_json(const struct cpu_cores *cores)
{
    struct topology *topology;
    json_t *list = topology_open(&topology, NULL) ? NULL : json_array();
    for (int i = 0; list && i < topology->n_nodes; i++) {
        const struct topology_node *node = &topology->nodes[i];
        int n_cpus = 0;
        for (int j = 0; j < cores->n; j++)
            n_cpus += topology->node_of_cpu[cores->list[j].id] == i;
        json_t *item = json_pack("{s:i, s:i, s:I, s:I}", "node", node->id, "threads", n_cpus,
                                 "memory", (json_int_t)node->total_bytes, "available",
                                 (json_int_t)node->available_bytes);
        if (json_array_append_new(list, item)) {
            json_decref(list);
            list = NULL;
        }
    }
    topology_close(topology);
    return list;
}

/* The model string of CPUID may be padded with blanks in front. */
static const char *skip_blanks(const char *text) { return text + strspn(text, " "); }

int cpu_describe(const struct tsr_settings *settings, char **json, struct tsr_error *error)
{
    *json = NULL;
    struct cpu_info info;
    cpu_detect(&info);
    struct tsr_settings s = settings ? *settings : (struct tsr_settings){0};
    uint32_t flags;
    int rc = cpu_select(&info, s.isa, s.amx, s.emulate_tiles, &flags, error);
    if (rc)
        return rc;
    struct cpu_cores cores;
    rc = cpu_cores(&cores, error);
    if (rc)
        return rc;
    json_t *root = json_pack("{s:s, s:s, s:i, s:i, s:o, s:s, s:o}", "vendor", info.vendor, "model",
                             skip_blanks(info.model), "cores", cores.n_physical, "threads",
                             cores.n_usable, "nodes", nodes_json(&cores), "isa",
                             cpu_isa_name(flags), "features",
                             features_json(&info, flags, s.emulate_tiles));
    *json = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    return *json ? 0 : error_set(error, TSR_ENOMEM, "out of memory");
}
