/* Products of packed codes and 8-bit activations with 32-byte vectors; compiled twice, with plain
 * AVX2 and (DOT_VNNI) with the 4-way dot product of AVX-VNNI.
 *
 * Units of 32 k x 16 columns become bytes with their scales, in registers or in scratch that stays
 * in L1 (kernels/code_products.h), and are multiplied with up to MR rows:
 *
 *     weight = scale * code - zero        C += x_scale * scale * (codes . x) - zero * x_sum
 *
 * Codes are unsigned where the instruction wants them unsigned: the offset is part of `zero`.
 * Without VNNI a pair of products must fit 16 bits, so that codes of a full byte (Q8_0, IQ4_NL,
 * IQ4_XS) stay signed and their sign moves to the activations.
 */
#include <immintrin.h>
#include <string.h>

#include "kernels/avx2/quantize.h"
#include "kernels/registry.h"
#include "kernels/unit.h"

enum { MR = 4, HALF_COLUMNS = 8 };

/* Loops whose counter must become a constant. */
#define UNROLLED _Pragma("GCC unroll 8")
#define INLINE   static inline __attribute__((always_inline))

/* [half of k][half of the 16 columns]; the second half of k only where the halves differ. */
struct unit_scales {
    __m256 scale[2][2], zero[2][2];
};

/* 32 k x 16 columns, unpacked. */
struct unit {
    __m256i codes[UNIT_VECTORS][2];
    struct unit_scales scales;
};

/* What the compiler specialises on: every field is a constant where a kernel is instantiated. */
struct traits {
    uint32_t block_id;
    int bits;
    int block_k;
    bool halves;       /* the halves of a unit have scales of their own */
    bool signed_codes; /* codes stay signed: the sign goes to the activations */
    bool has_zero;
    int pairs; /* vectors whose 16-bit pair sums add up without overflow */
};

#ifdef DOT_VNNI
#define SIGNED_WIDE false
#else
#define SIGNED_WIDE true
#endif

static inline struct traits traits_of(uint32_t block_id, int bits, int block_k)
{
    bool table = block_id == BLOCK_IQ4_NL || block_id == BLOCK_IQ4_XS;
    bool wide = bits == 8 || table;
    bool is_signed = wide && SIGNED_WIDE;
    int most = bits == 8 || table ? 128 : block_id == BLOCK_MXFP4 ? 24 : (1 << bits) - 1;
    int pairs = 32767 / (2 * 127 * most);
    return (struct traits){
        .block_id = block_id,
        .bits = bits,
        .block_k = block_k,
        .halves = unit_has_halves(block_id),
        .signed_codes = is_signed,
        .has_zero = !is_signed,
        .pairs = pairs >= 8   ? 8
                 : pairs >= 4 ? 4
                 : pairs >= 2 ? 2
                              : 1,
    };
}

/* Unpacked units differ in their halves; without VNNI in `pairs` and signs, too. */
#ifdef DOT_VNNI
#define CHUNK_VARIANTS(X)                                                                          \
    X(whole, .has_zero = true)                                                                     \
    X(halves, .has_zero = true, .halves = true)
enum { CHUNK_whole, CHUNK_halves };

INLINE int chunk_variant(const struct traits t)
{
    return t.halves ? CHUNK_halves : CHUNK_whole;
}
#else
#define CHUNK_VARIANTS(X)                                                                          \
    X(whole_8, .has_zero = true, .pairs = 8)                                                       \
    X(whole_4, .has_zero = true, .pairs = 4)                                                       \
    X(halves_8, .has_zero = true, .pairs = 8, .halves = true)                                      \
    X(halves_2, .has_zero = true, .pairs = 2, .halves = true)                                      \
    X(signed, .signed_codes = true, .pairs = 1)
enum { CHUNK_whole_8, CHUNK_whole_4, CHUNK_halves_8, CHUNK_halves_2, CHUNK_signed };

INLINE int chunk_variant(const struct traits t)
{
    if (t.signed_codes)
        return CHUNK_signed;
    if (t.halves)
        return t.pairs == 8 ? CHUNK_halves_8 : CHUNK_halves_2;
    return t.pairs == 8 ? CHUNK_whole_8 : CHUNK_whole_4;
}
#endif

/* ---- Unpacking ------------------------------------------------------------------------------- */

/* codes | bits of `raw` under `mask`, raised by `by` (lowered where it is negative). Shifts go over
 * bytes; what they carry along from a neighbour is not under the mask. */
INLINE __m256i add_bits(__m256i codes, __m256i raw, int by, int mask)
{
    __m256i bits = by < 0 ? _mm256_srli_epi16(raw, -by) : _mm256_slli_epi16(raw, by);
    return _mm256_or_si256(codes, _mm256_and_si256(bits, _mm256_set1_epi8((char)mask)));
}

/* The 32 codes of half a vector (8 columns) as unsigned bytes. `at`: 0 or 32. */
INLINE __m256i load_codes(const uint8_t *planes, int bits, int vector, int at)
{
    const __m256i mask4 = _mm256_set1_epi8(15);
    __m256i codes = _mm256_setzero_si256();
    int shift = 0;
    if (bits == 8)
        return _mm256_loadu_si256((const __m256i *)(planes + VECTOR_BYTES * vector + at));
    if (bits >= 4) {
        __m256i raw =
            _mm256_loadu_si256((const __m256i *)(planes + VECTOR_BYTES * (vector % 4) + at));
        codes = _mm256_and_si256(vector >= 4 ? _mm256_srli_epi16(raw, 4) : raw, mask4);
        planes += 4 * VECTOR_BYTES;
        shift = 4;
    }
    if (bits - shift >= 2) {
        __m256i raw =
            _mm256_loadu_si256((const __m256i *)(planes + VECTOR_BYTES * (vector / 4) + at));
        codes = add_bits(codes, raw, shift - vector % 4 * 2, 3 << shift);
        planes += 2 * VECTOR_BYTES;
        shift += 2;
    }
    if (bits - shift == 1) {
        __m256i raw = _mm256_loadu_si256((const __m256i *)(planes + at));
        codes = add_bits(codes, raw, shift - vector, 1 << shift);
    }
    return codes;
}

/* How much larger an unpacked code is than the value it stands for. */
static inline int code_offset(const struct traits t)
{
    if (t.signed_codes)
        return 0;
    if (t.bits == 8 || t.block_id == BLOCK_IQ4_NL || t.block_id == BLOCK_IQ4_XS)
        return 128;
    return t.block_id == BLOCK_MXFP4 ? 12 : unit_offset(t.block_id);
}

/* From stored codes to those that the dot product takes. */
INLINE __m256i map_codes(__m256i codes, const struct traits t)
{
    const int8_t *table = unit_table(t.block_id);
    if (table) {
        __m128i values = _mm_loadu_si128((const __m128i *)table);
        codes = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), codes);
    }
    if (!table && t.bits < 8)
        return codes;
    int offset = code_offset(t);
    return offset ? _mm256_add_epi8(codes, _mm256_set1_epi8((char)offset)) : codes;
}

static inline __m256 load_halves(const uint8_t *head, int index, int column)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(head + 32 * index + 2 * column)));
}

static inline __m256 load_bytes(const uint8_t *bytes, bool is_signed)
{
    __m128i raw = _mm_loadl_epi64((const __m128i *)bytes);
    return _mm256_cvtepi32_ps(is_signed ? _mm256_cvtepi8_epi32(raw) : _mm256_cvtepu8_epi32(raw));
}

static inline __m256 load_nibbles(const uint8_t *bytes, int shift)
{
    __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes));
    return _mm256_cvtepi32_ps(
        _mm256_and_si256(_mm256_srli_epi32(wide, shift), _mm256_set1_epi32(15)));
}

/* Scale and minimum (weight = scale * value - minimum) of 8 columns of half `h` of unit `u`. */
INLINE void load_scales(const struct traits t, const uint8_t *head, int u, int h, int column,
                        __m256 *scale, __m256 *minimum)
{
    const uint8_t *bytes = head + column;
    *minimum = _mm256_setzero_ps();
    switch (t.block_id) {
    case BLOCK_Q4_1:
    case BLOCK_Q5_1:
        *scale = load_halves(head, 0, column);
        *minimum = _mm256_sub_ps(*minimum, load_halves(head, 1, column));
        break;
    case BLOCK_Q4_K:
    case BLOCK_Q5_K:
        *scale =
            _mm256_mul_ps(load_halves(head, 0, column), load_bytes(bytes + 64 + 16 * u, false));
        *minimum = _mm256_mul_ps(load_halves(head, 1, column),
                                 load_bytes(bytes + 64 + 16 * (8 + u), false));
        break;
    case BLOCK_Q2_K:
        *scale = _mm256_mul_ps(load_halves(head, 0, column),
                               load_nibbles(bytes + 64 + 16 * (2 * u + h), 0));
        *minimum = _mm256_mul_ps(load_halves(head, 1, column),
                                 load_nibbles(bytes + 64 + 16 * (2 * u + h), 4));
        break;
    case BLOCK_Q3_K:
    case BLOCK_Q6_K:
        *scale = _mm256_mul_ps(load_halves(head, 0, column),
                               load_bytes(bytes + 32 + 16 * (2 * u + h), true));
        break;
    case BLOCK_IQ4_XS:
        *scale = _mm256_mul_ps(load_halves(head, 0, column), load_bytes(bytes + 32 + 16 * u, true));
        break;
    case BLOCK_MXFP4: {
        /* 2^(e - 128): the float with exponent field e - 1, subnormal for e = 0 and 1. */
        __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes));
        __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
        __m256i tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
        __m256i is_tiny = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
        *scale = _mm256_castsi256_ps(_mm256_blendv_epi8(normal, tiny, is_tiny));
        break;
    }
    default:
        *scale = load_halves(head, 0, column);
        break;
    }
}

INLINE void unpack_scales(struct unit_scales *scales, const struct traits t, const uint8_t *head,
                          int u)
{
    const __m256 offset = _mm256_set1_ps((float)code_offset(t));
    for (int h = 0; h < 1 + t.halves; h++) {
        for (int c = 0; c < 2; c++) {
            __m256 minimum;
            load_scales(t, head, u, h, HALF_COLUMNS * c, &scales->scale[h][c], &minimum);
            if (t.has_zero)
                scales->zero[h][c] = _mm256_fmadd_ps(scales->scale[h][c], offset, minimum);
        }
    }
}

INLINE void unpack_unit(struct unit *unit, const struct traits t, const uint8_t *planes,
                        const uint8_t *head, int u)
{
    for (int v = 0; v < UNIT_VECTORS; v++)
        for (int c = 0; c < 2; c++)
            unit->codes[v][c] = map_codes(load_codes(planes, t.bits, v, 32 * c), t);
    unpack_scales(&unit->scales, t, head, u);
}

/* ---- The micro-kernel: MR rows x 16 columns x one unit --------------------------------------- */

/* Adds the dot products of four k for 8 columns to 32-bit sums. */
INLINE __m256i add_dot(__m256i sum, __m256i codes, __m256i x, bool signed_codes)
{
    if (signed_codes) {
        x = _mm256_sign_epi8(x, codes);
        codes = _mm256_sign_epi8(codes, codes); /* -128 stays 128 as an unsigned byte */
    }
#ifdef DOT_VNNI
    return _mm256_dpbusd_avx_epi32(sum, codes, x);
#else
    return _mm256_add_epi32(
        sum, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, x), _mm256_set1_epi16(1)));
#endif
}

static inline __m256i broadcast_4(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm256_set1_epi32(four);
}

/* A unit whose codes are still packed, in `planes`, or lie in `codes`. */
struct operand {
    bool is_packed;
    const uint8_t *planes;
    const __m256i (*codes)[2];
    const struct unit_scales *scales;
};

/* 8 columns of a vector. */
INLINE __m256i operand_codes(const struct operand *b, const struct traits t, int v, int c)
{
    return b->is_packed ? map_codes(load_codes(b->planes, t.bits, v, 32 * c), t) : b->codes[v][c];
}

/* dots[r][c] = codes . x of vectors [first, last), for R rows and both halves of the columns. */
INLINE void dot_vectors(const struct traits t, const struct operand *b, int first, int last,
                        const struct act_rows *a, int u, int rows, __m256i dots[MR][2])
{
    for (int r = 0; r < rows; r++)
        dots[r][0] = dots[r][1] = _mm256_setzero_si256();
#ifndef DOT_VNNI
    if (t.pairs > 1) {
        UNROLLED
        for (int start = first; start < last; start += t.pairs) {
            __m256i pair_sums[MR][2];
            for (int r = 0; r < rows; r++)
                pair_sums[r][0] = pair_sums[r][1] = _mm256_setzero_si256();
            int end = start + t.pairs < last ? start + t.pairs : last;
            UNROLLED
            for (int v = start; v < end; v++) {
                __m256i low = operand_codes(b, t, v, 0), high = operand_codes(b, t, v, 1);
                for (int r = 0; r < rows; r++) {
                    __m256i four = broadcast_4(a->x[r] + UNIT_K * u + 4 * v);
                    pair_sums[r][0] =
                        _mm256_add_epi16(pair_sums[r][0], _mm256_maddubs_epi16(low, four));
                    pair_sums[r][1] =
                        _mm256_add_epi16(pair_sums[r][1], _mm256_maddubs_epi16(high, four));
                }
            }
            const __m256i ones = _mm256_set1_epi16(1);
            for (int r = 0; r < rows; r++)
                for (int c = 0; c < 2; c++)
                    dots[r][c] =
                        _mm256_add_epi32(dots[r][c], _mm256_madd_epi16(pair_sums[r][c], ones));
        }
        return;
    }
#endif
    UNROLLED
    for (int v = first; v < last; v++) {
        __m256i low = operand_codes(b, t, v, 0), high = operand_codes(b, t, v, 1);
        for (int r = 0; r < rows; r++) {
            __m256i four = broadcast_4(a->x[r] + UNIT_K * u + 4 * v);
            dots[r][0] = add_dot(dots[r][0], low, four, t.signed_codes);
            dots[r][1] = add_dot(dots[r][1], high, four, t.signed_codes);
        }
    }
}

/* Of up to MR rows and 16 columns. */
struct sums {
    __m256 of[MR][2];
};

INLINE void zero_sums(struct sums *sums, int rows)
{
    for (int r = 0; r < rows; r++)
        sums->of[r][0] = sums->of[r][1] = _mm256_setzero_ps();
}

INLINE __m256i column_mask(int n_columns)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n_columns),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE void load_sums(struct sums *sums, int rows, const float *c, size_t ldc, int n_columns)
{
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < 2; h++)
            sums->of[r][h] = _mm256_maskload_ps(c + (size_t)r * ldc + HALF_COLUMNS * h,
                                                column_mask(n_columns - HALF_COLUMNS * h));
}

INLINE void store_sums(const struct sums *sums, int rows, float *c, size_t ldc, int n_columns)
{
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < 2; h++)
            _mm256_maskstore_ps(c + (size_t)r * ldc + HALF_COLUMNS * h,
                                column_mask(n_columns - HALF_COLUMNS * h), sums->of[r][h]);
}

INLINE void multiply_unit(const struct traits t, const struct operand *b, const struct act_rows *a,
                          int u, int rows, struct sums *sums)
{
    UNROLLED
    for (int h = 0; h < 1 + t.halves; h++) {
        __m256i dots[MR][2];
        dot_vectors(t, b, t.halves ? 4 * h : 0, t.halves ? 4 * h + 4 : 8, a, u, rows, dots);
        for (int r = 0; r < rows; r++) {
            __m256 x_scale = _mm256_set1_ps(a->scale[r][u]);
            __m256 sum = _mm256_set1_ps(a->sum[r][t.halves ? 2 * u + h : u]);
            for (int c = 0; c < 2; c++) {
                __m256 dot = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[r][c]), x_scale);
                __m256 *to = &sums->of[r][c];
                *to = _mm256_fmadd_ps(dot, b->scales->scale[h][c], *to);
                if (t.has_zero)
                    *to = _mm256_fnmadd_ps(sum, b->scales->zero[h][c], *to);
            }
        }
    }
}

#include "kernels/code_products.h"
