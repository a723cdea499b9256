/* What memory the process may still take, on made-up machines and under a real limit. */
#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/files.h"

static int make_root(void **state)
{
    static char root[32];
    snprintf(root, sizeof root, "/tmp/tessera-mem-XXXXXX");
    *state = mkdtemp(root);
    return *state ? 0 : -1;
}

static int remove_root(void **state)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r '%s'", (const char *)*state);
    return system(command);
}

static void expect(const char *root, uint64_t bytes, const char *name)
{
    struct memory_limit limit;
    memory_available(root, &limit);
    if (limit.bytes != bytes || !strstr(limit.name, name))
        print_message("%llu of %s\n", (unsigned long long)limit.bytes, limit.name);
    assert_true(limit.bytes == bytes);
    assert_non_null(strstr(limit.name, name));
}

static void test_machine(void **state)
{
    const char *root = *state;
    expect(root, UINT64_MAX, "nothing known");
    write_text_below(root, "/proc", "meminfo",
               "MemTotal:       16000000 kB\nMemFree:         1000 kB\nMemAvailable:    2048 kB\n"
               "Buffers:            10 kB\n");
    expect(root, 2 << 20, "the machine");
}

static void test_version_2(void **state)
{
    const char *root = *state;
    write_text_below(root, "/proc/self", "cgroup", "0::/a/b\n");
    write_text_below(root, "/proc/self", "mountinfo",
               "30 20 0:26 / /cg2 rw,nosuid shared:4 - cgroup2 cgroup rw\n");
    expect(root, 2 << 20, "the machine");
    write_text_below(root, "/cg2/a/b", "memory.current", "500000\n");
    write_text_below(root, "/cg2/a/b", "memory.max", "max\n");
    write_text_below(root, "/cg2/a/b", "memory.high", "max\n");
    write_text_below(root, "/cg2/a/b", "memory.stat", "anon 1\ninactive_file 100000\nactive_file 50000\n");
    expect(root, 2 << 20, "the machine");
    write_text_below(root, "/cg2/a/b", "memory.max", "1000000\n");
    expect(root, 1000000 - 350000, "memory.max of ");
    write_text_below(root, "/cg2/a/b", "memory.high", "900000\n");
    expect(root, 900000 - 350000, "memory.high of ");
    /* A group above has less left; then less than nothing. */
    write_text_below(root, "/cg2/a", "memory.current", "700000\n");
    write_text_below(root, "/cg2/a", "memory.max", "800000\n");
    expect(root, 100000, "/cg2/a");
    write_text_below(root, "/cg2/a", "memory.max", "600000\n");
    expect(root, 0, "/cg2/a");
}

static void test_version_1(void **state)
{
    const char *root = *state;
    write_text_below(root, "/proc/self", "cgroup", "4:memory:/x\n3:cpu,cpuacct:/docker/0123\n0::/\n");
    write_text_below(root, "/proc/self", "mountinfo",
               "31 20 0:27 / /cg1 rw shared:5 - cgroup cgroup rw,memory\n");
    write_text_below(root, "/cg1/x", "memory.usage_in_bytes", "400000\n");
    write_text_below(root, "/cg1/x", "memory.limit_in_bytes", "9223372036854771712\n");
    write_text_below(root, "/cg1/x", "memory.stat",
               "inactive_file 7\ntotal_inactive_file 60000\ntotal_active_file 40000\n");
    expect(root, 2 << 20, "the machine");
    write_text_below(root, "/cg1/x", "memory.limit_in_bytes", "1000000\n");
    expect(root, 700000, "memory.limit_in_bytes of ");

    /* A container that sees another path than its own. */
    write_text_below(root, "/proc/self", "cgroup", "4:memory:/docker/0123\n");
    write_text_below(root, "/cg1", "memory.usage_in_bytes", "300000\n");
    write_text_below(root, "/cg1", "memory.limit_in_bytes", "500000\n");
    expect(root, 200000, "/cg1");
}

static void test_require(void **state)
{
    const char *root = *state;
    struct tsr_error error = {0};
    assert_int_equal(memory_require(root, 100000, "a thing", "make it smaller", &error), 0);
    write_text_below(root, "/cg1", "memory.limit_in_bytes", "4494304\n"); /* leaves 4 MiB */
    assert_int_equal(memory_require(root, 5 << 20, "a thing", "make it smaller", &error),
                     TSR_ENOMEM);
    assert_non_null(strstr(error.text, "a thing: 5 MiB needed, 2 MiB available (the memory of the "
                                       "machine): make it smaller"));
    write_text_below(root, "/proc", "meminfo", "MemAvailable:    20480 kB\n");
    assert_int_equal(memory_require(root, 5 << 20, "a thing", "make it smaller", &error),
                     TSR_ENOMEM);
    assert_non_null(strstr(error.text, "4 MiB available (memory.limit_in_bytes of /tmp/"));
    assert_null(strchr(error.text, '\n'));
}

/* A limit of the real process, in a child of its own. */
static int under_limit(int resource, const char *name)
{
    pid_t child = fork();
    if (child == 0) {
        struct rlimit rlimit = {UINT64_C(1) << 30, UINT64_C(1) << 30};
        struct memory_limit limit;
        if (setrlimit(resource, &rlimit))
            _exit(1);
        memory_available("", &limit);
        _exit(limit.bytes < rlimit.rlim_cur && strstr(limit.name, name) ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/* Sanitizers reserve more address space than any limit leaves. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool sanitized = true;
#else
static const bool sanitized = false;
#endif

static void test_real(void **state)
{
    struct memory_limit limit;
    memory_available("", &limit);
    assert_true(limit.bytes > 0 && limit.bytes < UINT64_MAX);
    if (sanitized || limit.bytes < UINT64_C(2) << 30)
        skip();
    assert_int_equal(under_limit(RLIMIT_AS, "RLIMIT_AS"), 0);
    assert_int_equal(under_limit(RLIMIT_DATA, "RLIMIT_DATA"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_machine),   cmocka_unit_test(test_version_2),
        cmocka_unit_test(test_version_1), cmocka_unit_test(test_require),
        cmocka_unit_test(test_real),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
