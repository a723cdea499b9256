/* Products of packed codes and 8-bit activations with AVX-512 VNNI: a vector of a unit is one
 * register of 16 columns x 4 k, and an instruction adds 16 dot products of four.
 *
 * As in kernels/avx2/gemm_q.h up to MR rows are multiplied with unpacked units; codes are always
 * unsigned, their offset is part of `zero`. */
#include <immintrin.h>
#include <string.h>

#include "kernels/avx2/quantize.h"
#include "kernels/registry.h"
#include "kernels/unit.h"

enum { MR = 8 };

/* [half of k] of the 16 columns; the second only where the halves differ. */
struct unit_scales {
    __m512 scale[2], zero[2];
};

struct unit {
    __m512i codes[UNIT_VECTORS];
    struct unit_scales scales;
};

/* Constants of an instantiation. */
struct traits {
    uint32_t block_id;
    int bits, block_k;
    bool halves; /* the halves of a unit have scales of their own */
    int offset;  /* unsigned code - value */
};

/* Loops whose counter must become a constant. */
#define UNROLLED _Pragma("GCC unroll 8")
#define INLINE static inline __attribute__((always_inline))

INLINE struct traits traits_of(uint32_t block_id, int bits, int block_k)
{
    bool wide = bits == 8 || block_id == BLOCK_IQ4_NL || block_id == BLOCK_IQ4_XS;
    int offset = wide ? 128 : block_id == BLOCK_MXFP4 ? 12 : unit_offset(block_id);
    return (struct traits){block_id, bits, block_k, unit_has_halves(block_id), offset};
}

/* Of unpacked units only halves make a difference. */
#define CHUNK_VARIANTS(X) X(whole, .halves = false) X(halves, .halves = true)
enum { CHUNK_whole, CHUNK_halves };

INLINE int chunk_variant(const struct traits t)
{
    return t.halves ? CHUNK_halves : CHUNK_whole;
}

/* ---- Unpacking ------------------------------------------------------------------------------- */

INLINE __m512i load_vector(const uint8_t *planes, int vector)
{
    return _mm512_loadu_si512(planes + VECTOR_BYTES * vector);
}

/* codes | bits of `raw` under `mask`, raised by `by` (lowered where it is negative). Shifts go over
 * bytes; what they carry along from a neighbour is not under the mask. */
INLINE __m512i add_bits(__m512i codes, __m512i raw, int by, int mask)
{
    __m512i bits = by < 0 ? _mm512_srli_epi16(raw, (unsigned)-by)
                          : _mm512_slli_epi16(raw, (unsigned)by);
    return _mm512_ternarylogic_epi32(codes, bits, _mm512_set1_epi8((char)mask), 0xf8);
}

/* The stored codes of a vector as unsigned bytes. */
INLINE __m512i load_codes(const uint8_t *planes, int bits, int vector)
{
    __m512i codes = _mm512_setzero_si512();
    int shift = 0;
    if (bits == 8)
        return load_vector(planes, vector);
    if (bits >= 4) {
        __m512i raw = load_vector(planes, vector % 4);
        codes = _mm512_and_si512(vector >= 4 ? _mm512_srli_epi16(raw, 4) : raw,
                                 _mm512_set1_epi8(15));
        planes += 4 * VECTOR_BYTES;
        shift = 4;
    }
    if (bits - shift >= 2) {
        codes = add_bits(codes, load_vector(planes, vector / 4), shift - vector % 4 * 2,
                         3 << shift);
        planes += 2 * VECTOR_BYTES;
        shift += 2;
    }
    if (bits - shift == 1)
        codes = add_bits(codes, load_vector(planes, 0), shift - vector, 1 << shift);
    return codes;
}

/* From stored codes to unsigned ones: value + offset. */
INLINE __m512i map_codes(__m512i codes, const struct traits t)
{
    const int8_t *table = unit_table(t.block_id);
    if (table) {
        __m128i values = _mm_loadu_si128((const __m128i *)table);
        codes = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), codes);
    }
    return table || t.bits == 8 ? _mm512_add_epi8(codes, _mm512_set1_epi8((char)t.offset)) : codes;
}

INLINE __m512 load_halves(const uint8_t *head, int index)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(head + 32 * index)));
}

INLINE __m512 load_bytes(const uint8_t *bytes, bool is_signed)
{
    __m128i raw = _mm_loadu_si128((const __m128i *)bytes);
    return _mm512_cvtepi32_ps(is_signed ? _mm512_cvtepi8_epi32(raw) : _mm512_cvtepu8_epi32(raw));
}

INLINE __m512 load_nibbles(const uint8_t *bytes, int shift)
{
    __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)bytes));
    return _mm512_cvtepi32_ps(
        _mm512_and_si512(_mm512_srli_epi32(wide, (unsigned)shift), _mm512_set1_epi32(15)));
}

/* 2^(e - 128): the float with exponent field e - 1, subnormal for e = 0 and 1. */
INLINE __m512 load_exponents(const uint8_t *bytes)
{
    __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)bytes));
    __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    __m512i tiny = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    __mmask16 is_tiny = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, is_tiny, tiny));
}

/* Scale and minimum (weight = scale * value - minimum) of half `h` of unit `u`. */
INLINE void load_scales(const struct traits t, const uint8_t *head, int u, int h, __m512 *scale,
                        __m512 *minimum)
{
    *minimum = _mm512_setzero_ps();
    switch (t.block_id) {
    case BLOCK_Q4_1:
    case BLOCK_Q5_1:
        *scale = load_halves(head, 0);
        *minimum = _mm512_sub_ps(*minimum, load_halves(head, 1));
        break;
    case BLOCK_Q4_K:
    case BLOCK_Q5_K:
        *scale = _mm512_mul_ps(load_halves(head, 0), load_bytes(head + 64 + 16 * u, false));
        *minimum = _mm512_mul_ps(load_halves(head, 1), load_bytes(head + 64 + 16 * (8 + u), false));
        break;
    case BLOCK_Q2_K:
        *scale = _mm512_mul_ps(load_halves(head, 0), load_nibbles(head + 64 + 16 * (2 * u + h), 0));
        *minimum =
            _mm512_mul_ps(load_halves(head, 1), load_nibbles(head + 64 + 16 * (2 * u + h), 4));
        break;
    case BLOCK_Q3_K:
    case BLOCK_Q6_K:
        *scale = _mm512_mul_ps(load_halves(head, 0), load_bytes(head + 32 + 16 * (2 * u + h), true));
        break;
    case BLOCK_IQ4_XS:
        *scale = _mm512_mul_ps(load_halves(head, 0), load_bytes(head + 32 + 16 * u, true));
        break;
    case BLOCK_MXFP4:
        *scale = load_exponents(head);
        break;
    default:
        *scale = load_halves(head, 0);
        break;
    }
}

INLINE void unpack_scales(struct unit_scales *scales, const struct traits t, const uint8_t *head,
                          int u)
{
    for (int h = 0; h < 1 + t.halves; h++) {
        __m512 minimum;
        load_scales(t, head, u, h, &scales->scale[h], &minimum);
        scales->zero[h] =
            _mm512_fmadd_ps(scales->scale[h], _mm512_set1_ps((float)t.offset), minimum);
    }
}

INLINE void unpack_unit(struct unit *unit, const struct traits t, const uint8_t *planes,
                        const uint8_t *head, int u)
{
    for (int v = 0; v < UNIT_VECTORS; v++)
        unit->codes[v] = map_codes(load_codes(planes, t.bits, v), t);
    unpack_scales(&unit->scales, t, head, u);
}

/* ---- The micro-kernel: MR rows x 16 columns x one unit --------------------------------------- */

INLINE __m512i broadcast_4(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
}

/* A unit whose codes are still packed, in `planes`, or lie in `codes`. */
struct operand {
    bool is_packed;
    const uint8_t *planes;
    const __m512i *codes;
    const struct unit_scales *scales;
};

INLINE __m512i operand_codes(const struct operand *b, const struct traits t, int v)
{
    return b->is_packed ? map_codes(load_codes(b->planes, t.bits, v), t) : b->codes[v];
}

/* Of up to MR rows and 16 columns. */
struct sums {
    __m512 of[MR];
};

INLINE void zero_sums(struct sums *sums, int rows)
{
    for (int r = 0; r < rows; r++)
        sums->of[r] = _mm512_setzero_ps();
}

INLINE __mmask16 column_mask(int n_columns)
{
    return (__mmask16)((1u << n_columns) - 1);
}

INLINE void load_sums(struct sums *sums, int rows, const float *c, size_t ldc, int n_columns)
{
    for (int r = 0; r < rows; r++)
        sums->of[r] = _mm512_maskz_loadu_ps(column_mask(n_columns), c + (size_t)r * ldc);
}

INLINE void store_sums(const struct sums *sums, int rows, float *c, size_t ldc, int n_columns)
{
    for (int r = 0; r < rows; r++)
        _mm512_mask_storeu_ps(c + (size_t)r * ldc, column_mask(n_columns), sums->of[r]);
}

INLINE void multiply_unit(const struct traits t, const struct operand *b, const struct act_rows *a,
                          int u, int rows, struct sums *sums)
{
    const int vectors = t.halves ? UNIT_VECTORS / 2 : UNIT_VECTORS;
    UNROLLED
    for (int h = 0; h < 1 + t.halves; h++) {
        __m512i dots[MR];
        for (int r = 0; r < rows; r++)
            dots[r] = _mm512_setzero_si512();
        UNROLLED
        for (int v = h * vectors; v < (h + 1) * vectors; v++) {
            __m512i codes = operand_codes(b, t, v);
            for (int r = 0; r < rows; r++)
                dots[r] = _mm512_dpbusd_epi32(dots[r], codes,
                                              broadcast_4(a->x[r] + UNIT_K * u + 4 * v));
        }
        const __m512 scale = b->scales->scale[h], zero = b->scales->zero[h];
        for (int r = 0; r < rows; r++) {
            __m512 sum = _mm512_set1_ps(a->sum[r][t.halves ? 2 * u + h : u]);
            __m512 dot = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[r]), _mm512_set1_ps(a->scale[r][u]));
            sums->of[r] = _mm512_fmadd_ps(dot, scale, sums->of[r]);
            sums->of[r] = _mm512_fnmadd_ps(sum, zero, sums->of[r]);
        }
    }
}

#define NAME  "avx512"
#define FLAGS (CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI)
#include "kernels/code_products.h"

const struct gemm_kernel *avx512_q_kernels(size_t *count)
{
    *count = sizeof code_kernels / sizeof code_kernels[0];
    return code_kernels;
}
