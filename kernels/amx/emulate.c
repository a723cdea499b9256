/* The tile emulator. Encodings, operation and exceptions: Intel 64 and IA-32 Architectures Software
 * Developer's Manual, volume 2 (the instructions; section 2.10, AMX exception classes). */
#include "kernels/amx/emulate.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "kernels/amx/model.h"
#include "kernels/amx/tile.h"

/* ---- State of a thread ----------------------------------------------------------------------- */

struct tile_state {
    struct tile tiles[TILE_COUNT]; /* zero outside the configured rows and columns */
    struct tile_config config;
    atomic_bool in_use;
    struct tile_state *next;
};

/* All states that were ever needed at once; grows at the front. Memory comes from mmap, because
 * malloc may not be called in a signal handler. */
static struct tile_state *_Atomic all_states;

/* NULL while the thread's tiles are not configured. The TLS model keeps access in the handler free
 * of allocation. */
static _Thread_local struct tile_state *own_state __attribute__((tls_model("initial-exec")));

static struct tile_state *claim_state(void)
{
    for (struct tile_state *s = atomic_load(&all_states); s; s = s->next)
        if (!atomic_exchange(&s->in_use, true))
            return s;
    struct tile_state *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED)
        return NULL;
    atomic_store(&s->in_use, true);
    s->next = atomic_load(&all_states);
    while (!atomic_compare_exchange_weak(&all_states, &s->next, s))
        ;
    return s;
}

static void release_state(void)
{
    if (own_state)
        atomic_store(&own_state->in_use, false);
    own_state = NULL;
}

/* ---- Decoding -------------------------------------------------------------------------------- */

enum outcome { DONE, FOREIGN, FAULT_UD, FAULT_GP };

enum vex_pp { PP_NONE, PP_66, PP_F3, PP_F2 };

/* An instruction of the form [segment, 67] C4 RXBmmmmm WvvvvLpp opcode modrm [sib] [disp]. */
struct insn {
    const uint8_t *end; /* the next instruction */
    uint8_t opcode, pp;
    uint8_t mod, reg, rm; /* reg and rm with their extension bits */
    uint8_t vvvv;         /* as a register number */
    bool has_sib;
    bool address32;   /* by the prefix 67: addresses have 32 bits */
    uint64_t segment; /* base of FS or GS where a prefix names one */
    uint64_t address; /* of a memory operand, within the segment */
    uint64_t stride;  /* index * scale: the distance of rows, or else a part of the address */
};

static const uint8_t reg_of_number[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                          REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                          REG_R12, REG_R13, REG_R14, REG_R15};

static uint64_t register_value(const struct insn *in, const ucontext_t *uc, int number)
{
    uint64_t value = (uint64_t)uc->uc_mcontext.gregs[reg_of_number[number]];
    return in->address32 ? (uint32_t)value : value;
}

static int64_t read_disp(const uint8_t **p, int bytes)
{
    int8_t disp8;
    int32_t disp32;
    const uint8_t *from = *p;
    *p += bytes;
    if (bytes == 1) {
        memcpy(&disp8, from, 1);
        return disp8;
    }
    memcpy(&disp32, from, 4);
    return disp32;
}

/* Base of the FS or GS segment. */
static uint64_t segment_base(uint8_t prefix)
{
    enum { ARCH_GET_FS_BASE = 0x1003, ARCH_GET_GS_BASE = 0x1004 };
    uint64_t base = 0;
    syscall(SYS_arch_prctl, prefix == 0x64 ? ARCH_GET_FS_BASE : ARCH_GET_GS_BASE, &base);
    return base;
}

/* The memory operand at `p`, after the modrm byte; base_ext and index_ext are VEX.B and VEX.X. */
static void decode_memory(struct insn *in, const uint8_t *p, int rm, int base_ext, int index_ext,
                          const ucontext_t *uc)
{
    int base = rm;
    bool no_base = false;
    in->has_sib = rm == 4;
    if (in->has_sib) {
        int index = (*p >> 3 & 7) | index_ext << 3;
        base = *p & 7;
        no_base = base == 5 && in->mod == 0;
        if (index != 4)
            in->stride = register_value(in, uc, index) << (*p >> 6);
        p++;
    }
    bool rip_relative = in->mod == 0 && rm == 5;
    if (!no_base && !rip_relative)
        in->address = register_value(in, uc, base | base_ext << 3);
    if (in->mod == 1)
        in->address += (uint64_t)read_disp(&p, 1);
    else if (in->mod == 2 || no_base || rip_relative)
        in->address += (uint64_t)read_disp(&p, 4);
    in->end = p;
    if (rip_relative)
        in->address += (uint64_t)(uintptr_t)in->end;
}

/* FOREIGN where the bytes at `p` are no AMX instruction, FAULT_UD where they are a wrong one. */
static enum outcome decode(struct insn *in, const uint8_t *p, const ucontext_t *uc)
{
    memset(in, 0, sizeof *in);
    uint8_t segment = 0;
    for (;; p++) {
        if (*p == 0x67)
            in->address32 = true;
        else if (*p == 0x64 || *p == 0x65)
            segment = *p;
        else if (*p != 0x26 && *p != 0x2e && *p != 0x36 && *p != 0x3e) /* ignored segments */
            break;
    }
    if (p[0] != 0xc4 || (p[1] & 0x1f) != 2) /* VEX map 0F 38 */
        return FOREIGN;
    in->opcode = p[3];
    if (in->opcode != 0x49 && in->opcode != 0x4b && in->opcode != 0x5c && in->opcode != 0x5e)
        return FOREIGN;
    int r = !(p[1] & 0x80), x = !(p[1] & 0x40), b = !(p[1] & 0x20); /* stored inverted */
    in->pp = p[2] & 3;
    in->vvvv = ~p[2] >> 3 & 15;
    in->mod = p[4] >> 6;
    in->reg = (uint8_t)((p[4] >> 3 & 7) | r << 3);
    in->rm = (uint8_t)((p[4] & 7) | b << 3);
    in->end = p + 5;
    if (p[2] & 0x84) /* W and L are zero */
        return FAULT_UD;
    if (segment)
        in->segment = segment_base(segment);
    if (in->mod != 3)
        decode_memory(in, p + 5, p[4] & 7, b, x, uc);
    return DONE;
}

/* ---- Execution ------------------------------------------------------------------------------- */

/* Memory at `offset` from the operand's address. */
static uint8_t *operand(const struct insn *in, uint64_t offset)
{
    uint64_t address = in->address + offset;
    if (in->address32)
        address = (uint32_t)address;
    return (uint8_t *)(uintptr_t)(in->segment + address);
}

static bool config_valid(const struct tile_config *c)
{
    static const uint8_t zeros[sizeof c->reserved];
    if (c->palette != 1 || memcmp(c->reserved, zeros, sizeof zeros))
        return false;
    for (int i = 0; i < 16; i++) {
        if (i >= TILE_COUNT && (c->row_bytes[i] || c->rows[i]))
            return false;
        if (c->row_bytes[i] > TILE_ROW_BYTES || c->rows[i] > TILE_ROWS)
            return false;
        if (!c->row_bytes[i] != !c->rows[i])
            return false;
    }
    return true;
}

static enum outcome load_config(const void *memory)
{
    struct tile_config config;
    memcpy(&config, memory, sizeof config);
    if (config.palette == 0) {
        release_state();
        return DONE;
    }
    if (!config_valid(&config))
        return FAULT_GP;
    if (!own_state)
        own_state = claim_state();
    if (!own_state)
        return FAULT_GP;
    own_state->config = config;
    memset(own_state->tiles, 0, sizeof own_state->tiles);
    return DONE;
}

/* LDTILECFG, STTILECFG, TILERELEASE and TILEZERO. */
static enum outcome execute_49(const struct insn *in)
{
    if (in->vvvv != 0)
        return FAULT_UD;
    if (in->mod != 3) {
        if (in->reg != 0 || (in->pp != PP_NONE && in->pp != PP_66))
            return FAULT_UD;
        if (in->pp == PP_NONE)
            return load_config(operand(in, in->stride));
        struct tile_config none = {0};
        memcpy(operand(in, in->stride), own_state ? &own_state->config : &none, sizeof none);
        return DONE;
    }
    if (in->pp == PP_NONE && in->reg == 0 && in->rm == 0) {
        release_state();
        return DONE;
    }
    if (in->pp != PP_F2 || in->rm != 0 || in->reg >= TILE_COUNT || !own_state ||
        !own_state->config.rows[in->reg])
        return FAULT_UD;
    memset(&own_state->tiles[in->reg], 0, sizeof(struct tile));
    own_state->config.start_row = 0;
    return DONE;
}

/* TILELOADD, TILELOADDT1 and TILESTORED. */
static enum outcome execute_4b(const struct insn *in)
{
    if (in->vvvv != 0 || in->mod == 3 || !in->has_sib || in->pp == PP_NONE || !own_state ||
        in->reg >= TILE_COUNT)
        return FAULT_UD;
    struct tile_config *config = &own_state->config;
    int rows = config->rows[in->reg];
    size_t bytes = config->row_bytes[in->reg];
    if (config->start_row >= rows)
        return FAULT_UD;
    struct tile *tile = &own_state->tiles[in->reg];
    for (int i = config->start_row; i < rows; i++) {
        uint8_t *memory = operand(in, in->stride * (uint64_t)i);
        if (in->pp == PP_F3)
            memcpy(memory, tile->row[i], bytes);
        else
            memcpy(tile->row[i], memory, bytes);
    }
    config->start_row = 0;
    return DONE;
}

/* TDPBF16PS (5C) and the int8 products (5E). */
static enum outcome execute_product(const struct insn *in)
{
    int c = in->reg, a = in->rm, b = in->vvvv;
    if (in->mod != 3 || !own_state || c >= TILE_COUNT || a >= TILE_COUNT || b >= TILE_COUNT ||
        c == a || c == b || a == b || (in->opcode == 0x5c && in->pp != PP_F3))
        return FAULT_UD;
    const uint16_t *bytes = own_state->config.row_bytes;
    const uint8_t *rows = own_state->config.rows;
    if (!rows[c] || !rows[a] || !rows[b] || (bytes[a] | bytes[b] | bytes[c]) % 4 ||
        rows[c] != rows[a] || bytes[a] / 4 != rows[b] || bytes[c] != bytes[b])
        return FAULT_UD;
    struct tile *t = own_state->tiles;
    bool a_signed = in->pp == PP_F2 || in->pp == PP_F3;
    bool b_signed = in->pp == PP_F2 || in->pp == PP_66;
    if (in->opcode == 0x5c)
        tile_model_dp_bf16(&t[c], &t[a], &t[b], rows[a], rows[b]);
    else
        tile_model_dp_int8(&t[c], &t[a], &t[b], rows[a], rows[b], a_signed, b_signed);
    own_state->config.start_row = 0;
    return DONE;
}

static enum outcome execute(const struct insn *in)
{
    if (in->opcode == 0x49)
        return execute_49(in);
    return in->opcode == 0x4b ? execute_4b(in) : execute_product(in);
}

/* ---- Signals --------------------------------------------------------------------------------- */

static pthread_mutex_t install_lock = PTHREAD_MUTEX_INITIALIZER;
static int n_users;
static struct sigaction previous;

/* #GP of the interrupted instruction: the signal is delivered when the handler returns. */
static void raise_general_protection(ucontext_t *uc)
{
    if (sigismember(&uc->uc_sigmask, SIGSEGV) == 1) { /* the kernel kills what blocks a fault */
        signal(SIGSEGV, SIG_DFL);
        sigdelset(&uc->uc_sigmask, SIGSEGV);
    }
    sigset_t segv;
    sigemptyset(&segv);
    sigaddset(&segv, SIGSEGV);
    pthread_sigmask(SIG_BLOCK, &segv, NULL);
    siginfo_t info = {.si_signo = SIGSEGV, .si_code = SI_KERNEL};
    syscall(SYS_rt_tgsigqueueinfo, getpid(), (pid_t)syscall(SYS_gettid), SIGSEGV, &info);
}

static void pass_on(int number, siginfo_t *info, void *context)
{
    if (previous.sa_flags & SA_SIGINFO)
        previous.sa_sigaction(number, info, context);
    else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN)
        signal(SIGILL, SIG_DFL); /* the instruction is met again, and ends the process */
    else
        previous.sa_handler(number);
}

static void on_sigill(int number, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    ucontext_t *uc = context;
    greg_t *rip = &uc->uc_mcontext.gregs[REG_RIP];
    struct insn in;
    enum outcome outcome = FOREIGN;
    bool first = true;
    if (info->si_code > 0) /* from the CPU, not from kill() */
        for (;; first = false) {
            outcome = decode(&in, (const uint8_t *)(uintptr_t)*rip, uc);
            if (outcome == DONE)
                outcome = execute(&in);
            if (outcome != DONE)
                break;
            *rip = (greg_t)(uintptr_t)in.end;
        }
    if (outcome == FAULT_GP)
        raise_general_protection(uc);
    else if (first) /* a later one traps by itself */
        pass_on(number, info, context);
    errno = saved_errno;
}

int tile_emulator_install(void)
{
    int rc = 0;
    pthread_mutex_lock(&install_lock);
    if (n_users == 0) {
        struct sigaction action = {.sa_sigaction = on_sigill,
                                   .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
        sigemptyset(&action.sa_mask);
        rc = sigaction(SIGILL, &action, &previous);
    }
    if (rc == 0)
        n_users++;
    pthread_mutex_unlock(&install_lock);
    return rc;
}

void tile_emulator_uninstall(void)
{
    pthread_mutex_lock(&install_lock);
    if (n_users > 0 && --n_users == 0) {
        sigaction(SIGILL, &previous, NULL);
        for (struct tile_state *s = atomic_exchange(&all_states, NULL), *next; s; s = next) {
            next = s->next;
            munmap(s, sizeof *s);
        }
    }
    pthread_mutex_unlock(&install_lock);
}
