/* Vectors of AMX_LANES 32-bit lanes, 16 (AVX-512) or 8 (AVX2), so that the code around the tile
 * instructions is written once and also runs, under the tile emulator, on CPUs without AVX-512. */
#ifndef TESSERA_AMX_WIDTH_H
#define TESSERA_AMX_WIDTH_H

#include <immintrin.h>
#include <stdint.h>

#if defined(__AVX512F__)

enum { AMX_LANES = 16 };
typedef __m512 vec_f32;
typedef __m512i vec_i32;
#define AMX_NAME(name) name##_avx512

static inline vec_i32 vi_load(const void *p) { return _mm512_loadu_si512(p); }
static inline void vi_store(void *p, vec_i32 x) { _mm512_storeu_si512(p, x); }
static inline vec_i32 vi_set1(uint32_t x) { return _mm512_set1_epi32((int)x); }
static inline vec_i32 vi_and(vec_i32 x, vec_i32 y) { return _mm512_and_si512(x, y); }
static inline vec_i32 vi_or(vec_i32 x, vec_i32 y) { return _mm512_or_si512(x, y); }
static inline vec_i32 vi_xor(vec_i32 x, vec_i32 y) { return _mm512_xor_si512(x, y); }
static inline vec_i32 vi_add(vec_i32 x, vec_i32 y) { return _mm512_add_epi32(x, y); }
static inline vec_i32 vi_shl(vec_i32 x, int n) { return _mm512_slli_epi32(x, (unsigned)n); }
static inline vec_i32 vi_shr(vec_i32 x, int n) { return _mm512_srli_epi32(x, (unsigned)n); }
/* (x & mask) | y */
static inline vec_i32 vi_and_or(vec_i32 x, vec_i32 mask, vec_i32 y)
{
    return _mm512_ternarylogic_epi32(x, mask, y, 0xea);
}
/* Bytes of the 16-byte table at the indices (0..15) in the bytes of x. */
static inline vec_i32 vi_lookup(const uint8_t table[16], vec_i32 x)
{
    __m512i t = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table));
    return _mm512_shuffle_epi8(t, x);
}
/* `to` in all lanes, with byte `at` of each replaced by byte j of x's lane. */
static inline vec_i32 vi_place_byte(uint32_t to, int at, vec_i32 x, int j)
{
    const int index = j << 8 * at; /* of a lane's first byte, in groups of four lanes */
    __m512i from = _mm512_set4_epi32(index + (12 << 8 * at), index + (8 << 8 * at),
                                     index + (4 << 8 * at), index);
    return _mm512_mask_shuffle_epi8(vi_set1(to), 0x1111111111111111ull << at, x, from);
}
/* Words (upper half of x, upper half of y). */
static inline vec_i32 vi_upper_words(vec_i32 x, vec_i32 y)
{
    __m512i from = _mm512_set4_epi32(0x0f0e, 0x0b0a, 0x0706, 0x0302);
    return _mm512_mask_shuffle_epi8(y, 0x3333333333333333ull, x, from);
}
/* Of 16-bit words: x and y saturated to 0..65535, four of x, then four of y in each 16 bytes. */
static inline vec_i32 vw_pack(vec_i32 x, vec_i32 y) { return _mm512_packus_epi32(x, y); }
static inline vec_i32 vw_set1(uint16_t x) { return _mm512_set1_epi16((short)x); }
static inline vec_i32 vw_add(vec_i32 x, vec_i32 y) { return _mm512_add_epi16(x, y); }
static inline vec_i32 vw_sub(vec_i32 x, vec_i32 y) { return _mm512_sub_epi16(x, y); }
static inline vec_i32 vw_shl(vec_i32 x, int n) { return _mm512_slli_epi16(x, (unsigned)n); }
static inline vec_i32 vw_shr(vec_i32 x, int n) { return _mm512_srli_epi16(x, (unsigned)n); }
/* x * y / 65536 */
static inline vec_i32 vw_mul_high(vec_i32 x, vec_i32 y) { return _mm512_mulhi_epu16(x, y); }
static inline vec_f32 vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline vec_f32 vf_set1(float x) { return _mm512_set1_ps(x); }
static inline vec_f32 vf_sub(vec_f32 x, vec_f32 y) { return _mm512_sub_ps(x, y); }
static inline vec_f32 vf_mul(vec_f32 x, vec_f32 y) { return _mm512_mul_ps(x, y); }
static inline vec_f32 vf_fma(vec_f32 x, vec_f32 y, vec_f32 z) { return _mm512_fmadd_ps(x, y, z); }
static inline vec_f32 vf_fnma(vec_f32 x, vec_f32 y, vec_f32 z) { return _mm512_fnmadd_ps(x, y, z); }
static inline vec_f32 vf_of_bits(vec_i32 x) { return _mm512_castsi512_ps(x); }
static inline vec_i32 vf_bits(vec_f32 x) { return _mm512_castps_si512(x); }
static inline vec_f32 vf_from_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline vec_i32 vi_from_u8(const void *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
static inline vec_i32 vi_from_i8(const void *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
}
static inline vec_f32 vf_from_i32(vec_i32 x) { return _mm512_cvtepi32_ps(x); }
/* Rounded to nearest; x is in the range of int32_t. */
static inline vec_i32 vf_to_i32(vec_f32 x) { return _mm512_cvtps_epi32(x); }
/* Where x is NaN the lanes of `nan`, elsewhere those of `number`. */
static inline vec_i32 vf_choose_nan(vec_f32 x, vec_i32 nan, vec_i32 number)
{
    return _mm512_mask_mov_epi32(number, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), nan);
}
/* The low words of the lanes, side by side. */
static inline void vi_store_low_words(void *p, vec_i32 x)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(x));
}

#else

enum { AMX_LANES = 8 };
typedef __m256 vec_f32;
typedef __m256i vec_i32;
#define AMX_NAME(name) name##_avx2

static inline vec_i32 vi_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline void vi_store(void *p, vec_i32 x) { _mm256_storeu_si256((__m256i *)p, x); }
static inline vec_i32 vi_set1(uint32_t x) { return _mm256_set1_epi32((int)x); }
static inline vec_i32 vi_and(vec_i32 x, vec_i32 y) { return _mm256_and_si256(x, y); }
static inline vec_i32 vi_or(vec_i32 x, vec_i32 y) { return _mm256_or_si256(x, y); }
static inline vec_i32 vi_xor(vec_i32 x, vec_i32 y) { return _mm256_xor_si256(x, y); }
static inline vec_i32 vi_add(vec_i32 x, vec_i32 y) { return _mm256_add_epi32(x, y); }
static inline vec_i32 vi_shl(vec_i32 x, int n) { return _mm256_slli_epi32(x, n); }
static inline vec_i32 vi_shr(vec_i32 x, int n) { return _mm256_srli_epi32(x, n); }
static inline vec_i32 vi_and_or(vec_i32 x, vec_i32 mask, vec_i32 y)
{
    return _mm256_or_si256(_mm256_and_si256(x, mask), y);
}
static inline vec_i32 vi_lookup(const uint8_t table[16], vec_i32 x)
{
    __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    return _mm256_shuffle_epi8(t, x);
}
static inline vec_i32 vi_place_byte(uint32_t to, int at, vec_i32 x, int j)
{
    vec_i32 moved = j > at ? vi_shr(x, 8 * (j - at)) : vi_shl(x, 8 * (at - j));
    return vi_and_or(moved, vi_set1(0xffu << 8 * at), vi_set1(to));
}
static inline vec_i32 vi_upper_words(vec_i32 x, vec_i32 y)
{
    return vi_and_or(y, vi_set1(0xffff0000), vi_shr(x, 16));
}
static inline vec_i32 vw_pack(vec_i32 x, vec_i32 y) { return _mm256_packus_epi32(x, y); }
static inline vec_i32 vw_set1(uint16_t x) { return _mm256_set1_epi16((short)x); }
static inline vec_i32 vw_add(vec_i32 x, vec_i32 y) { return _mm256_add_epi16(x, y); }
static inline vec_i32 vw_sub(vec_i32 x, vec_i32 y) { return _mm256_sub_epi16(x, y); }
static inline vec_i32 vw_shl(vec_i32 x, int n) { return _mm256_slli_epi16(x, n); }
static inline vec_i32 vw_shr(vec_i32 x, int n) { return _mm256_srli_epi16(x, n); }
static inline vec_i32 vw_mul_high(vec_i32 x, vec_i32 y) { return _mm256_mulhi_epu16(x, y); }
static inline vec_f32 vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline vec_f32 vf_set1(float x) { return _mm256_set1_ps(x); }
static inline vec_f32 vf_sub(vec_f32 x, vec_f32 y) { return _mm256_sub_ps(x, y); }
static inline vec_f32 vf_mul(vec_f32 x, vec_f32 y) { return _mm256_mul_ps(x, y); }
static inline vec_f32 vf_fma(vec_f32 x, vec_f32 y, vec_f32 z) { return _mm256_fmadd_ps(x, y, z); }
static inline vec_f32 vf_fnma(vec_f32 x, vec_f32 y, vec_f32 z) { return _mm256_fnmadd_ps(x, y, z); }
static inline vec_f32 vf_of_bits(vec_i32 x) { return _mm256_castsi256_ps(x); }
static inline vec_i32 vf_bits(vec_f32 x) { return _mm256_castps_si256(x); }
static inline vec_f32 vf_from_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline vec_i32 vi_from_u8(const void *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
static inline vec_i32 vi_from_i8(const void *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
static inline vec_f32 vf_from_i32(vec_i32 x) { return _mm256_cvtepi32_ps(x); }
static inline vec_i32 vf_to_i32(vec_f32 x) { return _mm256_cvtps_epi32(x); }
static inline vec_i32 vf_choose_nan(vec_f32 x, vec_i32 nan, vec_i32 number)
{
    return _mm256_blendv_epi8(number, nan, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}
static inline void vi_store_low_words(void *p, vec_i32 x)
{
    __m128i low = _mm256_castsi256_si128(x), high = _mm256_extracti128_si256(x, 1);
    _mm_storeu_si128((__m128i *)p, _mm_packus_epi32(low, high));
}

#endif

/* x + the first + the second of each pair of bf16. */
static inline vec_f32 vf_add_bf16(vec_f32 x, vec_i32 pairs)
{
    return x + (vf_of_bits(vi_shl(pairs, 16)) + vf_of_bits(vi_and(pairs, vi_set1(0xffff0000))));
}

/* Words (bf16 of x, bf16 of y), x in the lower half; rounded to nearest, halves away from zero. */
static inline vec_i32 vf_pack_bf16(vec_f32 x, vec_f32 y)
{
    vec_i32 half = vi_set1(0x8000), high = vi_set1(0xffff0000);
    vec_i32 low = vi_shr(vi_add(vf_bits(x), half), 16);
    return vi_and_or(vi_add(vf_bits(y), half), high, low);
}

/* What vf_pack_bf16 makes of x, as floats. */
static inline vec_f32 vf_round_bf16(vec_f32 x)
{
    return vf_of_bits(vi_and(vi_add(vf_bits(x), vi_set1(0x8000)), vi_set1(0xffff0000)));
}

#endif
