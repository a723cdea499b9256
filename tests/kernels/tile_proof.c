/* Proof that the software model of the tile products is the hardware's arithmetic.
 *
 * Random tiles of random shapes go through the tile instructions and through two references: the
 * model of the emulator and a naive one written here from Intel's definition. All must agree bit
 * for bit. Where the machine has AMX, the instructions are the hardware's; elsewhere the emulator
 * executes them, and what is proved is its decoding and masking.
 *
 * usage: tile_proof [rounds] */
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "kernels/amx/emulate.h"
#include "kernels/amx/model.h"
#include "kernels/amx/tile.h"

enum product { SSD, SUD, USD, UUD, BF16, N_PRODUCTS };
static const char *const product_names[] = {"tdpbssd", "tdpbsud", "tdpbusd", "tdpbuud",
                                            "tdpbf16ps"};

static uint64_t rng_state = 0x9e3779b97f4a7c15;

static uint32_t rng(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)(rng_state >> 32);
}

/* ---- Naive references ------------------------------------------------------------------------ */

static float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static float flush(float f) { return fabsf(f) < FLT_MIN ? copysignf(0, f) : f; }

/* a * b + c, denormals taken for and flushed to zero. What rounds to the smallest normal number
 * only in the denormal range's coarser steps is tiny too. */
static float fma_ftz(float a, float b, float c)
{
    a = flush(a), b = flush(b), c = flush(c);
    float r = fmaf(a, b, c);
    if (fabsf(r) == FLT_MIN && fabs((double)a * b + c) < FLT_MIN * (1 - 0x1p-25))
        return copysignf(0, r);
    return flush(r);
}

static float bf16_at(const struct tile *t, int row, int i)
{
    uint16_t half;
    memcpy(&half, t->row[row] + 2 * i, 2);
    return float_of_bits((uint32_t)half << 16);
}

static void naive_bf16(struct tile *c, const struct tile *a, const struct tile *b, int m, int pairs,
                       int columns)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < columns; j++) {
            float even = 0, odd = 0, old;
            for (int k = 0; k < pairs; k++) {
                even = fma_ftz(bf16_at(a, i, 2 * k), bf16_at(b, k, 2 * j), even);
                odd = fma_ftz(bf16_at(a, i, 2 * k + 1), bf16_at(b, k, 2 * j + 1), odd);
            }
            memcpy(&old, c->row[i] + 4 * j, 4);
            old = fma_ftz(1, old, fma_ftz(1, even, odd));
            memcpy(c->row[i] + 4 * j, &old, 4);
        }
}

static int byte_at(const struct tile *t, int row, int i, bool is_signed)
{
    return is_signed ? (int8_t)t->row[row][i] : t->row[row][i];
}

static void naive_int8(struct tile *c, const struct tile *a, const struct tile *b, int m, int quads,
                       int columns, bool a_signed, bool b_signed)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < columns; j++) {
            uint32_t sum;
            memcpy(&sum, c->row[i] + 4 * j, 4);
            for (int k = 0; k < quads * 4; k++)
                sum += (uint32_t)(byte_at(a, i, k, a_signed) *
                                  byte_at(b, k / 4, 4 * j + k % 4, b_signed));
            memcpy(c->row[i] + 4 * j, &sum, 4);
        }
}

/* ---- One round ------------------------------------------------------------------------------- */

/* The instructions, with tiles of three different numberings. */
static void run_product(enum product p, int numbering, struct tile *c, const struct tile *a,
                        const struct tile *b)
{
#define RUN(DP, tc, ta, tb)                                                                      \
    do {                                                                                         \
        TILE_LOAD(tc, c, 64);                                                                    \
        TILE_LOAD(ta, a, 64);                                                                    \
        TILE_LOAD_ONCE(tb, b, 64);                                                               \
        DP(tc, ta, tb);                                                                          \
        TILE_STORE(tc, c, 64);                                                                   \
    } while (0)
#define RUN_NUMBERED(DP)                                                                         \
    do {                                                                                         \
        if (numbering == 0)                                                                      \
            RUN(DP, 0, 1, 2);                                                                    \
        else if (numbering == 1)                                                                 \
            RUN(DP, 7, 5, 3);                                                                    \
        else                                                                                     \
            RUN(DP, 4, 6, 0);                                                                    \
    } while (0)
    switch (p) {
    case SSD:
        RUN_NUMBERED(TILE_DPBSSD);
        break;
    case SUD:
        RUN_NUMBERED(TILE_DPBSUD);
        break;
    case USD:
        RUN_NUMBERED(TILE_DPBUSD);
        break;
    case UUD:
        RUN_NUMBERED(TILE_DPBUUD);
        break;
    default:
        RUN_NUMBERED(TILE_DPBF16);
    }
#undef RUN_NUMBERED
#undef RUN
}

static const int numberings[3][3] = {{0, 1, 2}, {7, 5, 3}, {4, 6, 0}};

/* A float of a kind: 0 moderate, 1 any exponent, 2 tiny, 3 special values among others. */
static uint32_t random_float_bits(int kind)
{
    uint32_t mantissa = rng() & 0x807fffff;
    if (kind == 0)
        return mantissa | (120 + rng() % 12) << 23;
    if (kind == 1)
        return mantissa | (1 + rng() % 254) << 23;
    if (kind == 2)
        return mantissa | (rng() % 3 ? 56 + rng() % 14 : rng() % 4) << 23;
    static const uint32_t special[] = {0,          0x80000000, 0x7f800000, 0xff800000, 0x7fc00000,
                                       0xffc10000, 0x7f810000, 0x00400000, 0x80010000, 0x7f7f0000,
                                       0x00800000, 0x3f800000};
    return rng() % 8 ? random_float_bits(0) : special[rng() % (sizeof special / sizeof *special)];
}

static void fill(struct tile *t, int rows, int bytes, enum product p, bool is_c, int kind)
{
    memset(t, 0, sizeof *t);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < bytes; j += 2) {
            uint32_t value = rng();
            if (p == BF16)
                value = random_float_bits(kind) >> 16;
            else if (kind == 3)
                value = (rng() & 1 ? 0x80 : 0x7f) | (rng() & 1 ? 0xff00 : 0x8000);
            memcpy(t->row[i] + j, &value, 2);
        }
    for (int i = 0; p == BF16 && is_c && i < rows; i++)
        for (int j = 0; j < bytes; j += 4) {
            uint32_t value = random_float_bits(kind);
            memcpy(t->row[i] + j, &value, 4);
        }
}

struct tally {
    long elements, wrong_naive, wrong_model, nan_payloads;
};

/* Compares what the instructions gave with a reference; NaNs may differ in their payload. */
static void compare(const struct tile *got, const struct tile *want, enum product p, long *wrong,
                    struct tally *tally)
{
    for (int i = 0; i < TILE_ROWS; i++)
        for (int j = 0; j < 16; j++) {
            uint32_t g, w;
            memcpy(&g, got->row[i] + 4 * j, 4);
            memcpy(&w, want->row[i] + 4 * j, 4);
            if (g == w)
                continue;
            if (p == BF16 && isnan(float_of_bits(g)) && isnan(float_of_bits(w))) {
                tally->nan_payloads++;
                continue;
            }
            if (++*wrong <= 3)
                printf("  %s [%d, %d]: got %08x (%g), want %08x (%g)\n", product_names[p], i, j, g,
                       (double)float_of_bits(g), w, (double)float_of_bits(w));
        }
}

static void one_round(enum product p, struct tally *tally)
{
    bool full = rng() % 4 == 0;
    int m = full ? 16 : 1 + (int)(rng() % 16), depth = full ? 16 : 1 + (int)(rng() % 16);
    int columns = full ? 16 : 1 + (int)(rng() % 16), kind = (int)(rng() % 4);
    int numbering = (int)(rng() % 3);
    const int *number = numberings[numbering];
    struct tile_config config = {.palette = 1};
    config.rows[number[0]] = config.rows[number[1]] = (uint8_t)m;
    config.rows[number[2]] = (uint8_t)depth;
    config.row_bytes[number[0]] = config.row_bytes[number[2]] = (uint16_t)(4 * columns);
    config.row_bytes[number[1]] = (uint16_t)(4 * depth);

    struct tile a, b, got, naive, model;
    fill(&a, m, 4 * depth, p, false, kind);
    fill(&b, depth, 4 * columns, p, false, kind);
    fill(&got, m, 4 * columns, p, true, kind);
    naive = model = got;
    bool a_signed = p == SSD || p == SUD, b_signed = p == SSD || p == USD;
    if (p == BF16) {
        naive_bf16(&naive, &a, &b, m, depth, columns);
        tile_model_dp_bf16(&model, &a, &b, m, depth);
    } else {
        naive_int8(&naive, &a, &b, m, depth, columns, a_signed, b_signed);
        tile_model_dp_int8(&model, &a, &b, m, depth, a_signed, b_signed);
    }
    /* Memory outside the configured shape must be neither read into the product nor written. */
    for (int i = 0; i < TILE_ROWS; i++)
        for (int j = 0; j < TILE_ROW_BYTES; j++) {
            if (i >= m || j >= 4 * depth)
                a.row[i][j] = 0x3f;
            if (i >= depth || j >= 4 * columns)
                b.row[i][j] = 0x3f;
            if (i >= m || j >= 4 * columns)
                got.row[i][j] = naive.row[i][j] = model.row[i][j] = 0xa5;
        }
    struct tile_config stored;
    tile_load_config(&config);
    tile_store_config(&stored);
    run_product(p, numbering, &got, &a, &b);
    tile_release();
    if (memcmp(&stored, &config, sizeof config))
        tally->wrong_model++, printf("  sttilecfg differs from what ldtilecfg loaded\n");
    tally->elements += m * columns;
    compare(&got, &naive, p, &tally->wrong_naive, tally);
    compare(&got, &model, p, &tally->wrong_model, tally);
}

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? atol(argv[1]) : 4000;
    struct cpu_info info;
    cpu_detect(&info);
    uint32_t flags;
    struct tsr_error error;
    if (cpu_select(&info, TSR_ISA_AUTO, TSR_AUTO, false, &flags, &error) || !(flags & CPU_AVX2)) {
        printf("tile_proof: skipped, the CPU has no AVX2\n");
        return 77;
    }
    bool hardware = flags & CPU_AMX_TILE;
    if (!hardware && tile_emulator_install()) {
        perror("tile_proof: sigaction");
        return 1;
    }
    printf("tile_proof: %ld random products of each kind, instructions executed by %s\n", rounds,
           hardware ? "the hardware" : "the emulator");
    bool failed = rounds <= 0;
    for (int p = 0; p < N_PRODUCTS; p++) {
        struct tally tally = {0};
        for (long i = 0; i < rounds; i++)
            one_round((enum product)p, &tally);
        printf("%-10s %9ld elements, differ from the definition %ld, from the model %ld, NaN "
               "payloads %ld\n", product_names[p], tally.elements, tally.wrong_naive,
               tally.wrong_model, tally.nan_payloads);
        failed |= tally.wrong_naive || tally.wrong_model;
    }
    if (!hardware)
        tile_emulator_uninstall();
    printf("tile_proof: %s\n", failed ? "FAILED" : "all equal");
    return failed;
}
