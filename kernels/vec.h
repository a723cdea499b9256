/* Vectors of floats in the widest registers that the including library is compiled for: sources in
 * kernels/vector are built once for AVX2 and once for AVX-512.
 *
 * Arithmetic on `vec` is written with operators; functions are what operators cannot say. `n`
 * counts the lanes, from the first, that are loaded, stored or kept: memory past them is not
 * touched.
 */
#ifndef TESSERA_VEC_H
#define TESSERA_VEC_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernel.h"

#if defined(__AVX512F__)

#define VEC_NAME(name) avx512_##name
#define VEC_ISA        "avx512"

typedef __m512 vec;

enum { VEC = 16, VEC_CPU_FLAGS = CPU_AVX2 | CPU_AVX512 };

static inline vec vec_set1(float x) { return _mm512_set1_ps(x); }
static inline vec vec_load(const float *from) { return _mm512_loadu_ps(from); }
static inline void vec_store(float *to, vec x) { _mm512_storeu_ps(to, x); }
/* Past the caches; `to` is a multiple of the vector. */
static inline void vec_stream(float *to, vec x) { _mm512_stream_ps(to, x); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
/* Where one is NaN, b. */
static inline vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec vec_min(vec a, vec b) { return _mm512_min_ps(a, b); }
static inline bool vec_any_greater(vec a, vec b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
}
static inline float vec_sum(vec x) { return _mm512_reduce_add_ps(x); }
static inline float vec_max_lane(vec x) { return _mm512_reduce_max_ps(x); }

static inline __mmask16 vec_mask(size_t n) { return (__mmask16)((1u << n) - 1); }

static inline vec vec_load_n(const float *from, size_t n)
{
    return _mm512_maskz_loadu_ps(vec_mask(n), from);
}

static inline void vec_store_n(float *to, vec x, size_t n)
{
    _mm512_mask_storeu_ps(to, vec_mask(n), x);
}

/* The first n lanes of x, `other` in those behind. */
static inline vec vec_first_n(vec x, vec other, size_t n)
{
    return _mm512_mask_blend_ps(vec_mask(n), other, x);
}

static inline vec vec_load_f16(const uint16_t *from)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}

static inline vec vec_load_f16_n(const uint16_t *from, size_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vec_mask(n), from));
}

static inline void vec_store_f16(uint16_t *to, vec x)
{
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

static inline void vec_store_f16_n(uint16_t *to, vec x, size_t n)
{
    __m256i halves = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
    _mm256_mask_storeu_epi16(to, vec_mask(n), halves);
}

static inline vec vec_load_bf16(const uint16_t *from)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline vec vec_load_i8(const int8_t *from)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
}

/* Rounded to nearest even, at most 127 and at least -128. */
static inline void vec_store_i8(int8_t *to, vec x)
{
    _mm_storeu_si128((__m128i *)to, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
}

/* 16 pairs of bf16: the first and the second of each. */
static inline vec vec_bf16_first(const uint16_t *pairs)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(pairs), 16));
}

static inline vec vec_bf16_second(const uint16_t *pairs)
{
    __m512i mask = _mm512_set1_epi32((int)0xffff0000);
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(pairs), mask));
}

/* VEC / 2 floats, each twice. */
static inline vec vec_load_twice(const float *from)
{
    __m512i index = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    return _mm512_permutexvar_ps(index, _mm512_castps256_ps512(_mm256_loadu_ps(from)));
}

static inline vec vec_swap_pairs(vec x) { return _mm512_permute_ps(x, 0xb1); }
/* Even lanes a * b - c, odd ones a * b + c. */
static inline vec vec_fmaddsub(vec a, vec b, vec c) { return _mm512_fmaddsub_ps(a, b, c); }
static inline vec vec_round(vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT); }
/* x * 2^exponent, for whole exponents; subnormal results are rounded once. */
static inline vec vec_scale(vec x, vec exponent) { return _mm512_scalef_ps(x, exponent); }

static inline __m256 vec_fold(vec x)
{
    return _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
}

#else

#define VEC_NAME(name) avx2_##name
#define VEC_ISA        "avx2"

typedef __m256 vec;

enum { VEC = 8, VEC_CPU_FLAGS = CPU_AVX2 };

static inline vec vec_set1(float x) { return _mm256_set1_ps(x); }
static inline vec vec_load(const float *from) { return _mm256_loadu_ps(from); }
static inline void vec_store(float *to, vec x) { _mm256_storeu_ps(to, x); }
static inline void vec_stream(float *to, vec x) { _mm256_stream_ps(to, x); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
/* Where one is NaN, b. */
static inline vec vec_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec vec_min(vec a, vec b) { return _mm256_min_ps(a, b); }
static inline bool vec_any_greater(vec a, vec b)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0;
}

static inline float vec_sum(vec x)
{
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

static inline float vec_max_lane(vec x)
{
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

static inline __m256i vec_mask(size_t n)
{
    __m256i lanes = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lanes);
}

static inline vec vec_load_n(const float *from, size_t n)
{
    return _mm256_maskload_ps(from, vec_mask(n));
}

static inline void vec_store_n(float *to, vec x, size_t n)
{
    _mm256_maskstore_ps(to, vec_mask(n), x);
}

/* The first n lanes of x, `other` in those behind. */
static inline vec vec_first_n(vec x, vec other, size_t n)
{
    return _mm256_blendv_ps(other, x, _mm256_castsi256_ps(vec_mask(n)));
}

static inline vec vec_load_f16(const uint16_t *from)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
}

static inline vec vec_load_f16_n(const uint16_t *from, size_t n)
{
    uint16_t halves[VEC] = {0};
    memcpy(halves, from, n * sizeof *halves);
    return vec_load_f16(halves);
}

static inline void vec_store_f16(uint16_t *to, vec x)
{
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

static inline void vec_store_f16_n(uint16_t *to, vec x, size_t n)
{
    uint16_t halves[VEC];
    vec_store_f16(halves, x);
    memcpy(to, halves, n * sizeof *halves);
}

static inline vec vec_load_bf16(const uint16_t *from)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

static inline vec vec_load_i8(const int8_t *from)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from)));
}

/* Rounded to nearest even, at most 127 and at least -128. */
static inline void vec_store_i8(int8_t *to, vec x)
{
    __m256i whole = _mm256_cvtps_epi32(x);
    __m128i low = _mm256_castsi256_si128(whole), high = _mm256_extracti128_si256(whole, 1);
    __m128i words = _mm_packs_epi32(low, high);
    _mm_storel_epi64((__m128i *)to, _mm_packs_epi16(words, words));
}

/* 8 pairs of bf16: the first and the second of each. */
static inline vec vec_bf16_first(const uint16_t *pairs)
{
    __m256i both = _mm256_loadu_si256((const __m256i *)pairs);
    return _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
}

static inline vec vec_bf16_second(const uint16_t *pairs)
{
    __m256i both = _mm256_loadu_si256((const __m256i *)pairs);
    return _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32((int)0xffff0000)));
}

/* VEC / 2 floats, each twice. */
static inline vec vec_load_twice(const float *from)
{
    __m256i index = _mm256_set_epi32(3, 3, 2, 2, 1, 1, 0, 0);
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)), index);
}

static inline vec vec_swap_pairs(vec x) { return _mm256_permute_ps(x, 0xb1); }
/* Even lanes a * b - c, odd ones a * b + c. */
static inline vec vec_fmaddsub(vec a, vec b, vec c) { return _mm256_fmaddsub_ps(a, b, c); }

static inline vec vec_round(vec x)
{
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* x * 2^exponent, for whole exponents in -252..254; subnormal results are rounded once. */
static inline vec vec_scale(vec x, vec exponent)
{
    /* Twice half the exponent, as 2^exponent itself may not be a normal number. */
    __m256i whole = _mm256_cvtps_epi32(exponent), half = _mm256_srai_epi32(whole, 1);
    __m256i rest = _mm256_sub_epi32(whole, half), bias = _mm256_set1_epi32(127);
    __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i second = _mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23);
    return x * _mm256_castsi256_ps(first) * _mm256_castsi256_ps(second);
}

static inline __m256 vec_fold(vec x) { return x; }

#endif

/* The sums of eight vectors. */
static inline __m256 vec_sum8(const vec x[8])
{
    __m256 a = _mm256_hadd_ps(vec_fold(x[0]), vec_fold(x[1]));
    __m256 b = _mm256_hadd_ps(vec_fold(x[2]), vec_fold(x[3]));
    __m256 c = _mm256_hadd_ps(vec_fold(x[4]), vec_fold(x[5]));
    __m256 d = _mm256_hadd_ps(vec_fold(x[6]), vec_fold(x[7]));
    a = _mm256_hadd_ps(a, b); /* low halves of 0..3, high halves of 0..3 */
    c = _mm256_hadd_ps(c, d);
    return _mm256_add_ps(_mm256_permute2f128_ps(a, c, 0x20), _mm256_permute2f128_ps(a, c, 0x31));
}

/* exp(x) to about one unit in the last place: x = i * ln 2 + r with |r| <= ln(2) / 2, and exp(r) by
 * a polynomial, the interpolation of (exp(r) - 1 - r) / r^2 in Chebyshev nodes. */
static inline vec vec_exp(vec x)
{
    /* Beyond these it is 0 and infinity. */
    x = vec_min(vec_set1(89.0f), vec_max(vec_set1(-104.0f), x));
    vec i = vec_round(x * vec_set1(0x1.715476p+0f));
    vec r = vec_fma(i, vec_set1(-0x1.62ep-1f), x); /* exact: 12 bits of ln 2 */
    r = vec_fma(i, vec_set1(-0x1.0bfbe8p-15f), r);
    vec p = vec_set1(0x1.6d117cp-10f);
    p = vec_fma(p, r, vec_set1(0x1.120be2p-7f));
    p = vec_fma(p, r, vec_set1(0x1.555518p-5f));
    p = vec_fma(p, r, vec_set1(0x1.5554dcp-3f));
    p = vec_fma(p, r, vec_set1(0.5f));
    p = vec_fma(p * r, r, r) + vec_set1(1.0f);
    return vec_scale(p, i);
}

#endif
