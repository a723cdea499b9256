/* CPU features, the choice of an instruction set, and usable cores. */
#include "base/cpu.h"
#include "base/team.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sched.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/support/files.h"

static const uint32_t flags_amx = CPU_AMX_TILE | CPU_AMX_INT8 | CPU_AMX_BF16;

/* A machine that has exactly `flags`. */
static struct cpu_info machine(uint32_t flags)
{
    struct cpu_info info;
    cpu_detect(&info);
    for (int i = 0; i < CPU_FEATURE_COUNT; i++) {
        info.features[i].present = (info.features[i].flag & flags) != 0;
        info.features[i].reason = info.features[i].present ? "" : "the test says so";
    }
    return info;
}

static void test_detect(void **state)
{
    struct cpu_info info;
    cpu_detect(&info);
    uint32_t seen = 0;
    for (int i = 0; i < CPU_FEATURE_COUNT; i++) {
        const struct cpu_feature *f = &info.features[i];
        assert_true(f->name && *f->name);
        assert_int_equal(f->present, f->reason[0] == '\0');
        assert_int_equal(seen & f->flag, 0);
        seen |= f->flag;
        if (f->flag == CPU_AVX2 && f->present)
            assert_true(__builtin_cpu_supports("avx2"));
        if (f->flag == CPU_AVX512)
            assert_int_equal(f->present, __builtin_cpu_supports("avx512f") != 0 &&
                                             __builtin_cpu_supports("avx512bw") != 0);
    }
    assert_int_equal(seen, 0xff);
    assert_true(strlen(info.vendor) == 12);
}

static uint32_t select_ok(uint32_t have, enum tsr_isa isa, enum tsr_tristate amx, bool emulate)
{
    struct cpu_info info = machine(have);
    uint32_t flags = 0xdead;
    struct tsr_error error = {0};
    int rc = cpu_select(&info, isa, amx, emulate, &flags, &error);
    if (rc)
        print_message("unexpected: %s\n", error.text);
    assert_int_equal(rc, 0);
    return flags;
}

static void select_fails(uint32_t have, enum tsr_isa isa, enum tsr_tristate amx, bool emulate,
                         int code, const char *text)
{
    struct cpu_info info = machine(have);
    uint32_t flags;
    struct tsr_error error = {0};
    assert_int_equal(cpu_select(&info, isa, amx, emulate, &flags, &error), code);
    assert_int_equal(error.code, code);
    assert_non_null(strstr(error.text, text));
}

static void test_select(void **state)
{
    uint32_t avx512 = CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI | CPU_AVX512_BF16;
    uint32_t all = avx512 | CPU_AVX_VNNI | flags_amx;
    assert_int_equal(select_ok(0, TSR_ISA_AUTO, TSR_AUTO, false), 0);
    assert_int_equal(select_ok(all, TSR_ISA_SCALAR, TSR_AUTO, false), 0);
    assert_int_equal(select_ok(all, TSR_ISA_AUTO, TSR_AUTO, false), all);
    assert_int_equal(select_ok(all, TSR_ISA_AUTO, TSR_OFF, false), all & ~flags_amx);
    assert_int_equal(select_ok(all, TSR_ISA_AVX512, TSR_AUTO, false), all & ~flags_amx);
    assert_int_equal(select_ok(all, TSR_ISA_AVX2, TSR_AUTO, false), CPU_AVX2 | CPU_AVX_VNNI);
    assert_int_equal(select_ok(CPU_AVX2, TSR_ISA_AVX2, TSR_ON, true), CPU_AVX2 | flags_amx);
    assert_int_equal(select_ok(avx512, TSR_ISA_AVX2, TSR_ON, true), CPU_AVX2 | flags_amx);
    assert_int_equal(select_ok(avx512, TSR_ISA_AMX, TSR_AUTO, true), avx512 | flags_amx);
    assert_int_equal(select_ok(avx512, TSR_ISA_AUTO, TSR_AUTO, false), avx512);
    /* Tiles without AVX2, or AVX-512's extensions without AVX-512, are of no use. */
    assert_int_equal(select_ok(flags_amx, TSR_ISA_AUTO, TSR_AUTO, false), 0);
    assert_int_equal(select_ok(CPU_AVX2 | CPU_AVX512_VNNI, TSR_ISA_AUTO, TSR_AUTO, false), CPU_AVX2);

    select_fails(CPU_AVX2, TSR_ISA_AVX512, TSR_AUTO, false, TSR_ECPU, "the test says so");
    select_fails(0, TSR_ISA_AVX2, TSR_AUTO, false, TSR_ECPU, "--isa avx2");
    select_fails(avx512, TSR_ISA_AUTO, TSR_ON, false, TSR_ECPU, "--amx on: the test says so");
    select_fails(avx512, TSR_ISA_AMX, TSR_AUTO, false, TSR_ECPU, "--isa amx");
    select_fails(0, TSR_ISA_AMX, TSR_AUTO, true, TSR_ECPU, "AVX2");
    select_fails(all, TSR_ISA_AMX, TSR_OFF, false, TSR_EINVAL, "contradict");
    select_fails(all, TSR_ISA_SCALAR, TSR_ON, false, TSR_EINVAL, "contradict");
}

static void test_isa_name(void **state)
{
    assert_string_equal(cpu_isa_name(0), "scalar");
    assert_string_equal(cpu_isa_name(CPU_AVX2), "avx2");
    assert_string_equal(cpu_isa_name(CPU_AVX2 | CPU_AVX512), "avx512");
    assert_string_equal(cpu_isa_name(CPU_AVX2 | flags_amx), "amx");
}

static void test_cores(void **state)
{
    struct cpu_cores cores, one_core;
    struct tsr_error error;
    assert_int_equal(cpu_cores(&cores, &error), 0);
    assert_in_range(cores.n, 1, CPU_CORES_MAX);
    assert_in_range(cores.n_usable, 1, cores.n);
    assert_in_range(cores.n_physical, 1, cores.n_usable);
    for (int i = 1; i < cores.n; i++)
        assert_true(cores.list[i - 1].rank <= cores.list[i].rank || cores.list[i].taken);

    /* One CPU left by the affinity mask is the one that is found. */
    cpu_set_t before, one;
    int last = cores.list[cores.n - 1].id;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    CPU_SET((size_t)last, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(cpu_cores(&one_core, &error), 0);
    assert_int_equal(one_core.n, 1);
    assert_int_equal(one_core.n_physical, 1);
    assert_int_equal(one_core.list[0].id, last);
    assert_int_equal(one_core.list[0].rank, 0);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void idle(struct worker *worker, void *arg)
{
    (void)worker, (void)arg;
}

/* The cores of a team, the caller's included, are the last that another team is offered. */
static void test_taken_cores(void **state)
{
    struct cpu_cores cores;
    assert_int_equal(cpu_cores(&cores, NULL), 0);
    if (cores.n < 2)
        skip();
    for (int i = 0; i < cores.n; i++)
        assert_false(cores.list[i].taken);
    int first = cores.list[0].id;
    struct team *team;
    struct seat seats[1] = {{.cpu = first}};
    assert_int_equal(team_create(1, seats, &team, NULL), 0);
    team_run(team, 1, idle, NULL);
    assert_int_equal(cpu_cores(&cores, NULL), 0);
    assert_true(cores.list[cores.n - 1].taken);
    assert_int_equal(cores.list[cores.n - 1].id, first);
    assert_false(cores.list[0].taken);
    team_destroy(team);
    assert_int_equal(cpu_cores(&cores, NULL), 0);
    assert_int_equal(cores.list[0].id, first);
}

static void test_quota(void **state)
{
    char root[] = "/tmp/tessera-cpu-XXXXXX", command[64];
    assert_non_null(mkdtemp(root));
    assert_true(cpu_quota(root) == 0);

    write_text_below(root, "/proc/self", "cgroup", "0::/a/b\n");
    write_text_below(root, "/proc/self", "mountinfo",
               "30 20 0:26 / /cg2 rw,nosuid shared:4 - cgroup2 cgroup rw\n"
               "31 20 0:27 / /cg1 rw shared:5 - cgroup cgroup rw,cpu,cpuacct\n");
    assert_true(cpu_quota(root) == 0);
    write_text_below(root, "/cg2/a/b", "cpu.max", "max 100000\n");
    assert_true(cpu_quota(root) == 0);
    write_text_below(root, "/cg2/a", "cpu.max", "250000 100000\n");
    assert_true(cpu_quota(root) == 2.5);

    /* Version 1, in a container that sees another path than its own. */
    write_text_below(root, "/proc/self", "cgroup", "4:memory:/x\n3:cpu,cpuacct:/docker/0123\n");
    write_text_below(root, "/cg1", "cpu.cfs_quota_us", "-1\n");
    write_text_below(root, "/cg1", "cpu.cfs_period_us", "100000\n");
    assert_true(cpu_quota(root) == 0);
    write_text_below(root, "/cg1", "cpu.cfs_quota_us", "50000\n");
    assert_true(cpu_quota(root) == 0.5);

    snprintf(command, sizeof command, "rm -r '%s'", root);
    assert_int_equal(system(command), 0);
}

static void test_describe(void **state)
{
    struct tsr_settings settings = {.isa = TSR_ISA_SCALAR};
    char *text;
    struct tsr_error error;
    assert_int_equal(cpu_describe(&settings, &text, &error), 0);
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    assert_string_equal(json_string_value(json_object_get(root, "isa")), "scalar");
    assert_true(json_integer_value(json_object_get(root, "cores")) >= 1);
    json_t *features = json_object_get(root, "features");
    assert_int_equal(json_array_size(features), CPU_FEATURE_COUNT);
    for (size_t i = 0; i < CPU_FEATURE_COUNT; i++) {
        json_t *f = json_array_get(features, i);
        assert_true(json_is_boolean(json_object_get(f, "present")));
        assert_false(json_is_true(json_object_get(f, "used")));
        assert_true(*json_string_value(json_object_get(f, "reason")));
    }
    json_t *nodes = json_object_get(root, "nodes");
    assert_true(json_array_size(nodes) >= 1);
    json_int_t threads = 0;
    for (size_t i = 0; i < json_array_size(nodes); i++)
        threads += json_integer_value(json_object_get(json_array_get(nodes, i), "threads"));
    assert_true(threads >= json_integer_value(json_object_get(root, "threads")));
    json_decref(root);
    free(text);
    assert_int_equal(cpu_describe(NULL, &text, &error), 0);
    free(text);
    settings.amx = TSR_ON;
    assert_int_equal(cpu_describe(&settings, &text, &error), TSR_EINVAL);
    assert_null(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_detect),   cmocka_unit_test(test_select),
        cmocka_unit_test(test_isa_name), cmocka_unit_test(test_cores),
        cmocka_unit_test(test_taken_cores),
        cmocka_unit_test(test_quota),    cmocka_unit_test(test_describe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
