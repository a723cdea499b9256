/* The tile emulator: every addressing form, bad configurations, foreign signals, threads. On a
 * machine with AMX the same tests hold the hardware to the same answers. */
#include "kernels/amx/emulate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "kernels/amx/model.h"
#include "kernels/amx/tile.h"

/* ---- Signals --------------------------------------------------------------------------------- */

static sigjmp_buf fault_jump;
static volatile sig_atomic_t fault_signal;

static void on_fault(int number)
{
    fault_signal = number;
    siglongjmp(fault_jump, 1);
}

/* Runs the statement and checks which signal it raises; 0 for none. */
#define EXPECT_SIGNAL(expected, statement)                                                       \
    do {                                                                                         \
        fault_signal = 0;                                                                        \
        if (sigsetjmp(fault_jump, 1) == 0) {                                                     \
            statement;                                                                           \
        }                                                                                        \
        assert_int_equal(fault_signal, expected);                                                \
    } while (0)

static struct sigaction cmocka_ill, cmocka_segv;

/* cmocka catches faults itself around each test: take the signals, with the emulator above. */
static void take_signals(void)
{
    struct sigaction action = {.sa_handler = on_fault};
    assert_int_equal(sigaction(SIGSEGV, &action, &cmocka_segv), 0);
    assert_int_equal(sigaction(SIGILL, &action, &cmocka_ill), 0);
    assert_int_equal(tile_emulator_install(), 0);
}

static void give_signals_back(void)
{
    tile_release();
    tile_emulator_uninstall();
    sigaction(SIGSEGV, &cmocka_segv, NULL);
    sigaction(SIGILL, &cmocka_ill, NULL);
}

static struct tile_config small_config(int rows, int bytes)
{
    struct tile_config config = {.palette = 1};
    for (int i = 0; i < TILE_COUNT; i++) {
        config.rows[i] = (uint8_t)rows;
        config.row_bytes[i] = (uint16_t)bytes;
    }
    return config;
}

/* ---- Addressing ------------------------------------------------------------------------------ */

/* 2 rows of 4 bytes, `stride` apart, with a pattern; returns where the first row is. */
static uint8_t *pattern(uint8_t *arena, ptrdiff_t stride)
{
    memset(arena, 0xee, 4096);
    uint8_t *first = arena + 1024;
    memcpy(first, "abcd", 4);
    memcpy(first + stride, "efgh", 4);
    return first;
}

static void expect_tile0(const char *what)
{
    uint8_t out[2][16];
    memset(out, 0, sizeof out);
    TILE_STORE(0, out, 16);
    if (memcmp(out[0], "abcd", 4) || memcmp(out[1], "efgh", 4))
        fail_msg("%s: got %.4s %.4s", what, (char *)out[0], (char *)out[1]);
    TILE_ZERO(0);
}

/* `base` in rax-like register %0, `index` in %1, and constants of the instruction. */
#define LOAD_FORM(text, stride_bytes, b, i)                                                      \
    do {                                                                                         \
        uintptr_t first = (uintptr_t)pattern(arena, stride_bytes);                               \
        __asm__ volatile(text : : "r"(b), "r"((ptrdiff_t)(i)) : "memory", "r12", "r13");         \
        expect_tile0(text);                                                                      \
    } while (0)

static void test_sib_forms(void **state)
{
    take_signals();
    static uint8_t arena[4096];
    struct tile_config config = small_config(2, 4);
    tile_load_config(&config);
    LOAD_FORM("tileloadd (%0,%1,1), %%tmm0", 64, first, 64);
    LOAD_FORM("tileloaddt1 (%0,%1,1), %%tmm0", 64, first, 64);
    LOAD_FORM("tileloadd (%0,%1,2), %%tmm0", 64, first, 32);
    LOAD_FORM("tileloadd (%0,%1,4), %%tmm0", 64, first, 16);
    LOAD_FORM("tileloadd (%0,%1,8), %%tmm0", 64, first, 8);
    LOAD_FORM("tileloadd 16(%0,%1,1), %%tmm0", 64, first - 16, 64);
    LOAD_FORM("tileloadd -128(%0,%1,1), %%tmm0", 64, first + 128, 64);
    LOAD_FORM("tileloadd 0x12345(%0,%1,1), %%tmm0", 64, first - 0x12345, 64);
    LOAD_FORM("tileloadd -0x12345(%0,%1,1), %%tmm0", 64, first + 0x12345, 64);
    LOAD_FORM("tileloadd (%0,%1,1), %%tmm0", -64, first, -64);
    LOAD_FORM("mov %0, %%r13\n mov %1, %%r12\n tileloadd (%%r13,%%r12,1), %%tmm0", 64, first, 64);
    LOAD_FORM("mov %0, %%r12\n mov %1, %%r13\n tileloadd (%%r12,%%r13,4), %%tmm0", 64, first, 16);
    give_signals_back();
}

/* Fixed registers, whose numbers have meanings of their own in modrm and sib. */
#define LOAD_FIXED(base_register, index_register)                                                \
    do {                                                                                         \
        uint8_t *first = pattern(arena, 64);                                                     \
        __asm__ volatile("mov %0, %%" base_register "\n mov $32, %%" index_register              \
                         "\n tileloadd 8(%%" base_register ",%%" index_register ",2), %%tmm0"    \
                         :                                                                       \
                         : "m"((uint8_t *){first - 8})                                           \
                         : "memory", base_register, index_register);                             \
        expect_tile0(base_register "," index_register);                                          \
    } while (0)

static void test_registers(void **state)
{
    take_signals();
    static uint8_t arena[4096];
    struct tile_config config = small_config(2, 4);
    tile_load_config(&config);
    LOAD_FIXED("rax", "rcx");
    LOAD_FIXED("rdx", "rbx");
    LOAD_FIXED("rsi", "rdi");
    LOAD_FIXED("r8", "r9");
    LOAD_FIXED("r10", "r11");
    LOAD_FIXED("r12", "r13");
    LOAD_FIXED("r14", "r15");
    LOAD_FIXED("r13", "r12");
    LOAD_FIXED("rbx", "r12");
    LOAD_FIXED("r12", "rax");
    /* rsp and rbp as a base; the stack pointer is moved where the data is and back, so that the
     * handler needs a stack of its own. */
    static uint8_t handler_stack[1 << 16];
    stack_t stack = {.ss_sp = handler_stack, .ss_size = sizeof handler_stack}, old_stack;
    assert_int_equal(sigaltstack(&stack, &old_stack), 0);
    uint8_t *first = pattern(arena, 64);
    __asm__ volatile("mov %%rsp, %%r8\n mov %0, %%rsp\n tileloadd (%%rsp,%1,1), %%tmm0\n"
                     "mov %%r8, %%rsp" : : "r"(first), "r"((ptrdiff_t)64) : "memory", "r8");
    expect_tile0("rsp");
    __asm__ volatile("mov %%rbp, %%r8\n mov %0, %%rbp\n tileloadd (%%rbp,%1,1), %%tmm0\n"
                     "mov %%r8, %%rbp" : : "r"(first), "r"((ptrdiff_t)64) : "memory", "r8");
    expect_tile0("rbp");
    assert_int_equal(sigaltstack(&old_stack, NULL), 0);
    give_signals_back();
}

static void test_no_index_no_base(void **state)
{
    take_signals();
    struct tile_config config = small_config(2, 4);
    tile_load_config(&config);
    /* No index: all rows are the first. Encoded by hand: assemblers prefer a form without SIB. */
    uint8_t data[4] = "wxyz", out[2][16];
    __asm__ volatile(".byte 0xc4, 0xe2, 0x7b, 0x4b, 0x04, 0x20" : : "a"(data) : "memory");
    TILE_STORE(0, out, 16);
    assert_memory_equal(out[0], "wxyz", 4);
    assert_memory_equal(out[1], "wxyz", 4);

    /* No base: an address of 32 bits in the instruction itself, and the address-size prefix. */
    uint8_t *low = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    assert_ptr_equal(low, (void *)0x10000000);
    memcpy(low, "abcd", 4);
    memcpy(low + 64, "efgh", 4);
    __asm__ volatile("tileloadd 0x10000000(,%0,1), %%tmm0" : : "r"((ptrdiff_t)64) : "memory");
    expect_tile0("no base");
    uint64_t dirty = 0xdeadbeef00000000u;
    __asm__ volatile("addr32 tileloadd (%%eax,%%ecx,1), %%tmm0"
                     :
                     : "a"(dirty | 0x10000000), "c"(dirty | 64)
                     : "memory");
    expect_tile0("addr32");
    __asm__ volatile("addr32 tileloadd 0x20(%%eax,%%ecx,1), %%tmm0"
                     :
                     : "a"(dirty | 0x0fffffe0), "c"(dirty | 64)
                     : "memory");
    expect_tile0("addr32 with a displacement");
    munmap(low, 4096);
    give_signals_back();
}

static _Thread_local uint8_t thread_data[128];

static void test_segment(void **state)
{
    take_signals();
    struct tile_config config = small_config(2, 4);
    tile_load_config(&config);
    memcpy(thread_data, "abcd", 4);
    memcpy(thread_data + 64, "efgh", 4);
    uint8_t *fs_base;
    __asm__ volatile("mov %%fs:0, %0" : "=r"(fs_base));
    __asm__ volatile("tileloadd %%fs:(%0,%1,1), %%tmm0"
                     :
                     : "r"(thread_data - fs_base), "r"((ptrdiff_t)64)
                     : "memory");
    expect_tile0("fs");
    give_signals_back();
}

static struct tile_config static_config;

static void test_config_forms(void **state)
{
    take_signals();
    struct tile_config read, none = {0};
    memset(&read, 0xff, sizeof read);
    tile_store_config(&read);
    assert_memory_equal(&read, &none, sizeof none);
    static_config = small_config(3, 12);
    __asm__ volatile("ldtilecfg %0" : : "m"(static_config) : "memory"); /* relative to RIP */
    __asm__ volatile("sttilecfg -8(%0)" : : "r"((char *)&read + 8) : "memory");
    assert_memory_equal(&read, &static_config, sizeof read);
    __asm__ volatile("sttilecfg 0x1000(%0,%1,8)" : : "r"((uintptr_t)&read - 0x1000 - 80), "r"(10L)
                     : "memory");
    assert_memory_equal(&read, &static_config, sizeof read);
    tile_load_config(&none); /* palette 0: the initial state */
    tile_store_config(&read);
    assert_memory_equal(&read, &none, sizeof none);
    tile_release();
    give_signals_back();
}

/* ---- Masks ----------------------------------------------------------------------------------- */

static void test_masks(void **state)
{
    take_signals();
    uint8_t in[16][64], out[16][64];
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 64; j++)
            in[i][j] = (uint8_t)(i * 64 + j);
    struct tile_config config = small_config(5, 7);
    tile_load_config(&config);
    TILE_LOAD(6, in, 64);
    memset(out, 0xaa, sizeof out);
    TILE_STORE(6, out, 64);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 64; j++)
            assert_int_equal(out[i][j], i < 5 && j < 7 ? in[i][j] : 0xaa);
    TILE_ZERO(6);
    TILE_STORE(6, out, 64);
    assert_int_equal(out[4][6], 0);
    /* A new configuration clears the tiles; start_row skips rows once. */
    TILE_LOAD(6, in, 64);
    config.start_row = 2;
    tile_load_config(&config);
    memset(out, 0xaa, sizeof out);
    TILE_STORE(6, out, 64);
    assert_int_equal(out[1][0], 0xaa);
    assert_int_equal(out[2][0], 0);
    TILE_STORE(6, out, 64);
    assert_int_equal(out[1][0], 0);
    give_signals_back();
}

/* ---- Faults ---------------------------------------------------------------------------------- */

static void test_bad_config(void **state)
{
    take_signals();
    struct tile_config good = small_config(16, 64), bad;
    EXPECT_SIGNAL(0, tile_load_config(&good));
#define EXPECT_BAD(change)                                                                       \
    bad = good;                                                                                  \
    bad.change;                                                                                  \
    EXPECT_SIGNAL(SIGSEGV, tile_load_config(&bad))
    EXPECT_BAD(palette = 2);
    EXPECT_BAD(palette = 255);
    EXPECT_BAD(reserved[0] = 1);
    EXPECT_BAD(reserved[13] = 1);
    EXPECT_BAD(rows[3] = 17);
    EXPECT_BAD(rows[3] = 0);
    EXPECT_BAD(row_bytes[7] = 65);
    EXPECT_BAD(row_bytes[7] = 0);
    EXPECT_BAD(row_bytes[8] = 4);
    EXPECT_BAD(rows[15] = 1);
#undef EXPECT_BAD
    give_signals_back();
}

static void expect_product(int signal_number, const struct tile_config *config)
{
    tile_load_config(config);
    EXPECT_SIGNAL(signal_number, TILE_DPBSSD(0, 1, 2));
}

static void test_undefined(void **state)
{
    take_signals();
    /* The emulator passes what the hardware would refuse to the handler before it. */
    uint8_t memory[64];
    tile_release();
    EXPECT_SIGNAL(SIGILL, TILE_ZERO(0));
    EXPECT_SIGNAL(SIGILL, TILE_LOAD(0, memory, 4));
    EXPECT_SIGNAL(SIGILL, TILE_DPBUUD(0, 1, 2));
    struct tile_config good = small_config(16, 64), bad;
    expect_product(0, &good);
#define EXPECT_UD(change)                                                                        \
    bad = good;                                                                                  \
    bad.change;                                                                                  \
    expect_product(SIGILL, &bad)
    EXPECT_UD(rows[0] = 15);
    EXPECT_UD(rows[1] = 15);
    EXPECT_UD(rows[2] = 15);
    EXPECT_UD(row_bytes[0] = 60);
    EXPECT_UD(row_bytes[1] = 60);
    EXPECT_UD(row_bytes[2] = 60);
    bad = good;
    bad.rows[1] = 0;
    bad.row_bytes[1] = 0;
    expect_product(SIGILL, &bad);
    bad = good;
    bad.row_bytes[0] = bad.row_bytes[2] = 62;
    expect_product(SIGILL, &bad);
#undef EXPECT_UD
    tile_load_config(&good);
    /* Products whose tiles are not distinct; assemblers refuse them. */
    EXPECT_SIGNAL(SIGILL, __asm__ volatile(".byte 0xc4, 0xe2, 0x6b, 0x5e, 0xc0"));
    EXPECT_SIGNAL(SIGILL, __asm__ volatile(".byte 0xc4, 0xe2, 0x7b, 0x5e, 0xc1"));
    EXPECT_SIGNAL(SIGILL, __asm__ volatile(".byte 0xc4, 0xe2, 0x73, 0x5e, 0xc1"));
    /* tileloadd with modrm instead of sib, W, L, a vvvv that is not 1111, tile 8. */
    EXPECT_SIGNAL(SIGILL, __asm__ volatile(".byte 0xc4, 0xe2, 0x7b, 0x4b, 0x00"));
    EXPECT_SIGNAL(SIGILL, __asm__ volatile(".byte 0xc4, 0xe2, 0xfb, 0x49, 0xc0"));
    EXPECT_SIGNAL(SIGILL, __asm__ volatile(".byte 0xc4, 0xe2, 0x7f, 0x49, 0xc0"));
    EXPECT_SIGNAL(SIGILL, __asm__ volatile(".byte 0xc4, 0xe2, 0x73, 0x49, 0xc0"));
    EXPECT_SIGNAL(SIGILL, __asm__ volatile(".byte 0xc4, 0x62, 0x7b, 0x49, 0xc0"));
    give_signals_back();
}

static void test_foreign(void **state)
{
    take_signals();
    EXPECT_SIGNAL(SIGILL, __asm__ volatile("ud2"));
    EXPECT_SIGNAL(SIGILL, raise(SIGILL));
    /* An undefined instruction right behind tile instructions, that are executed first. */
    struct tile_config config = small_config(2, 4);
    uint8_t in[2][16] = {"abcd", "efgh"};
    tile_load_config(&config);
    EXPECT_SIGNAL(SIGILL, __asm__ volatile("tileloadd (%0,%1,1), %%tmm0\n ud2"
                                                :
                                                : "r"(in), "r"((ptrdiff_t)16)
                                                : "memory"));
    expect_tile0("before ud2");
    give_signals_back();
}

static void test_guard_page(void **state)
{
    take_signals();
    long page = sysconf(_SC_PAGESIZE);
    uint8_t *memory = mmap(NULL, (size_t)page * 2, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    assert_int_equal(mprotect(memory + page, (size_t)page, PROT_NONE), 0);
    struct tile_config config = small_config(4, 8);
    tile_load_config(&config);
    uint8_t *last = memory + page - 3 * 64 - 8;
    EXPECT_SIGNAL(0, TILE_LOAD(0, last, 64));
    EXPECT_SIGNAL(SIGSEGV, TILE_LOAD(0, last + 1, 64));
    tile_load_config(&config);
    EXPECT_SIGNAL(SIGSEGV, TILE_STORE(0, last + 1, 64));
    tile_release();
    munmap(memory, (size_t)page * 2);
    give_signals_back();
}

/* ---- Threads --------------------------------------------------------------------------------- */

static void *thread_main(void *argument)
{
    int seed = (int)(intptr_t)argument;
    struct tile a, b, c, want;
    memset(&c, 0, sizeof c);
    want = c;
    for (int i = 0; i < TILE_BYTES; i++) {
        a.row[i / 64][i % 64] = (uint8_t)(i * 7 + seed);
        b.row[i / 64][i % 64] = (uint8_t)(i * 13 + seed);
    }
    const intptr_t rounds = 200;
    for (intptr_t i = 0; i < rounds; i++) {
        tile_config_full();
        TILE_LOAD(0, &c, 64);
        TILE_LOAD(1, &a, 64);
        sched_yield();
        TILE_LOAD(2, &b, 64);
        TILE_DPBUSD(0, 1, 2);
        sched_yield();
        TILE_STORE(0, &c, 64);
        tile_release();
        tile_model_dp_int8(&want, &a, &b, 16, 16, false, true);
        if (memcmp(&want, &c, sizeof c))
            return (void *)(i + 1);
    }
    return NULL;
}

static void test_threads(void **state)
{
    take_signals();
    pthread_t threads[4];
    for (intptr_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, thread_main, (void *)i), 0);
    for (int i = 0; i < 4; i++) {
        void *result;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_null(result);
    }
    give_signals_back();
}

static bool handler_is(const struct sigaction *before)
{
    struct sigaction now;
    sigaction(SIGILL, NULL, &now);
    return now.sa_sigaction == before->sa_sigaction;
}

/* The first installs and the last removes. */
static void test_install_count(void **state)
{
    struct sigaction before;
    sigaction(SIGILL, NULL, &before);
    assert_int_equal(tile_emulator_install(), 0);
    assert_false(handler_is(&before));
    assert_int_equal(tile_emulator_install(), 0);
    tile_emulator_uninstall();
    assert_false(handler_is(&before));
    tile_emulator_uninstall();
    assert_true(handler_is(&before));
}

int main(void)
{
    struct cpu_info info;
    uint32_t flags;
    cpu_detect(&info);
    if (cpu_select(&info, TSR_ISA_AUTO, TSR_AUTO, true, &flags, NULL) || !(flags & CPU_AVX2))
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sib_forms),   cmocka_unit_test(test_registers),
        cmocka_unit_test(test_no_index_no_base), cmocka_unit_test(test_segment),
        cmocka_unit_test(test_config_forms), cmocka_unit_test(test_masks),
        cmocka_unit_test(test_bad_config),  cmocka_unit_test(test_undefined),
        cmocka_unit_test(test_foreign),     cmocka_unit_test(test_guard_page),
        cmocka_unit_test(test_threads),     cmocka_unit_test(test_install_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
