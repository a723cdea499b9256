/* Checks and measures every GEMM record of every instruction set that this machine has, on tiles by
 * the emulator where it has none.
 *
 *   check_gemm [--all] [--only NAME]
 *   check_gemm --bench [-t THREADS] [-m MILLISECONDS] [--only NAME] [--types Q4_0,Q8_0]
 *              [--rows 1,16] [--shapes 768x2048,4096x4096]
 *
 * A record is named as in the table it comes from ("avx2 Q4_0"); --only takes part of a name. One
 * line for each record, then 'N passed, N failed'. Nothing checked is a failure.
 *
 * --bench prints, for each record, shape (columns x depth) and number of rows: GFLOP/s, GB/s of
 * weights, and percent of the streaming read, of a product of packed tiles from L2, and of tile
 * instructions alone. Without AMX the tiles are absent. -t 0, the default, takes every core. */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "kernels/amx/emulate.h"
#include "kernels/registry.h"
#include "tests/kernels/gemm_bench.h"
#include "tests/kernels/gemm_check.h"

enum {
    FLAGS_AMX = CPU_AMX_TILE | CPU_AMX_INT8 | CPU_AMX_BF16,
    FLAGS_AVX512 = CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI,
};

struct options {
    bool all, bench;
    const char *only;
    struct bench_options bench_options;
};

enum { MAX_RECORDS = 512 };

struct totals {
    int n_passed, n_failed;
    struct gemm_kernel records[MAX_RECORDS]; /* all that were visited */
    int n_records;
};

static void usage(void)
{
    fprintf(stderr, "usage: check_gemm [--all] [--only NAME]\n"
                    "       check_gemm --bench [-t THREADS] [-m MILLISECONDS] [--only NAME]\n"
                    "           [--types LIST] [--rows LIST] [--shapes NxK,..]\n");
    exit(2);
}

static struct options parse(int argc, char **argv)
{
    static const struct option names[] = {
        {"all", no_argument, NULL, 'a'},         {"bench", no_argument, NULL, 'b'},
        {"only", required_argument, NULL, 'o'},  {"types", required_argument, NULL, 'k'},
        {"rows", required_argument, NULL, 'r'},  {"shapes", required_argument, NULL, 's'},
        {0},
    };
    struct options options = {.only = "", .bench_options = {.seconds = 0.02, .types = ""}};
    struct bench_options *bench = &options.bench_options;
    bool good = bench_parse_rows("1,4,16,32,128,512", bench) &&
                bench_parse_shapes("768x2048,2048x768,4096x4096,14336x4096", bench);
    bool measures = false; /* an option of --bench was given */
    int c;
    while (good && (c = getopt_long(argc, argv, "t:m:", names, NULL)) >= 0) {
        measures |= c != 'a' && c != 'b' && c != 'o';
        switch (c) {
        case 'a': options.all = true; break;
        case 'b': options.bench = true; break;
        case 'o': options.only = optarg; break;
        case 'k': bench->types = optarg; break;
        case 'r': good = bench_parse_rows(optarg, bench); break;
        case 's': good = bench_parse_shapes(optarg, bench); break;
        case 't': bench->n_threads = atoi(optarg); break;
        case 'm': bench->seconds = 1e-3 * atof(optarg); break;
        default: good = false;
        }
    }
    if (!good || optind < argc || bench->n_threads < 0 || bench->seconds <= 0.0 ||
        (options.bench ? options.all : measures))
        usage();
    return options;
}

/* A level may fall back to a record of a lower one that others had replaced. */
static bool is_known(const struct totals *totals, const struct gemm_kernel *kernel)
{
    for (int i = 0; i < totals->n_records; i++)
        if (totals->records[i].gemm == kernel->gemm)
            return true;
    return false;
}

static void visit(const struct gemm_kernel *kernel, const struct options *options,
                  struct totals *totals)
{
    struct kernel_set scalar;
    struct report report = {.kernel = kernel};
    if (!kernel->gemm || !strstr(kernel->name, options->only) || is_known(totals, kernel))
        return;
    if (totals->n_records == MAX_RECORDS) {
        fprintf(stderr, "more than %d records\n", MAX_RECORDS);
        exit(1);
    }
    totals->records[totals->n_records++] = *kernel;
    if (options->bench)
        return;
    kernel_set_init(&scalar, 0);
    printf("%-24s", kernel->name); /* before the checks: they may hit a guard page */
    fflush(stdout);
    check_products(&report, options->all);
    check_quantize(&report, &scalar.packed[BLOCK_Q8_0]);
    if (report.n_failed || !report.n_checks)
        printf("\n    failed: %ld failures in %ld checks\n", report.n_failed, report.n_checks);
    else
        printf(" %6ld checks\n", report.n_checks);
    *(report.n_failed || !report.n_checks ? &totals->n_failed : &totals->n_passed) += 1;
}

/* The records that a level of flags adds to the one below it. */
static void visit_level(const struct kernel_set *set, const struct kernel_set *below,
                        const struct options *options, struct totals *totals)
{
    for (int id = 0; id < BLOCK_ID_COUNT; id++) {
        if (set->tiles[id].gemm != below->tiles[id].gemm)
            visit(&set->tiles[id], options, totals);
        if (set->packed[id].gemm != below->packed[id].gemm)
            visit(&set->packed[id], options, totals);
        if (set->mapped[id].gemm != below->mapped[id].gemm)
            visit(&set->mapped[id], options, totals);
    }
}

typedef const struct gemm_kernel *kernel_table(size_t *count);

/* Records that never leave the tiles, whatever the rows; they are packed as those of `set`. */
static void visit_tiles(const struct kernel_set *set, kernel_table *table,
                        const struct options *options, struct totals *totals)
{
    size_t count;
    const struct gemm_kernel *kernels = table(&count);
    for (size_t i = 0; i < count; i++) {
        struct gemm_kernel kernel = kernels[i];
        const struct gemm_kernel *packing = &set->tiles[kernel.block_id];
        if (kernel.gemm == packing->gemm)
            continue; /* the set has this very record */
        kernel.packed_bytes = packing->packed_bytes;
        kernel.pack = packing->pack;
        kernel.unpack = packing->unpack;
        visit(&kernel, options, totals);
    }
}

static void visit_levels(uint32_t present, const struct options *options, struct totals *totals)
{
    const uint32_t levels[] = {
        0,
        CPU_AVX2,
        CPU_AVX2 | CPU_AVX_VNNI,
        CPU_AVX2 | CPU_AVX512,
        FLAGS_AVX512,
        FLAGS_AVX512 | CPU_AVX512_BF16,
        CPU_AVX2 | FLAGS_AMX,
        FLAGS_AVX512 | FLAGS_AMX,
        present,
    };
    static struct kernel_set set, below;
    for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++) {
        if (levels[l] & ~present)
            continue;
        kernel_set_init(&set, levels[l]);
        visit_level(&set, &below, options, totals);
#if defined(__x86_64__)
        if (levels[l] == (CPU_AVX2 | FLAGS_AMX))
            visit_tiles(&set, amx_tile_kernels_avx2, options, totals);
        if (levels[l] == (FLAGS_AVX512 | FLAGS_AMX))
            visit_tiles(&set, amx_tile_kernels_avx512, options, totals);
#endif
        below = set;
    }
}

int main(int argc, char **argv)
{
    static struct totals totals;
    struct options options = parse(argc, argv);
    struct cpu_info info;
    cpu_detect(&info);
    uint32_t present = cpu_present_flags(&info);
    options.bench_options.tiles = (present & FLAGS_AMX) == FLAGS_AMX;
    bool emulated = !options.bench && !(present & CPU_AMX_TILE) && present & CPU_AVX2 &&
                    tile_emulator_install() == 0;
    if (emulated)
        present |= FLAGS_AMX;
    visit_levels(present, &options, &totals);
    if (emulated)
        tile_emulator_uninstall();
    if (options.bench) {
        bench_kernels(totals.records, totals.n_records, &options.bench_options);
        return totals.n_records == 0;
    }
    printf("%d passed, %d failed\n", totals.n_passed, totals.n_failed);
    return totals.n_failed || !totals.n_passed;
}
