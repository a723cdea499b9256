#include "kernels/avx2/quantize.h"

#include <immintrin.h>

#include "kernels/unit.h"

static float horizontal_max(__m256 v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    m = _mm_max_ss(m, _mm_shuffle_ps(m, m, 1));
    return _mm_cvtss_f32(m);
}

/* Of bytes 0 .. 15 and 16 .. 31. */
static void sum_halves(__m256i bytes, int sum[2])
{
    __m256i twos = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
    __m256i fours = _mm256_madd_epi16(twos, _mm256_set1_epi16(1));
    __m256i eights = _mm256_hadd_epi32(fours, fours);
    __m256i all = _mm256_hadd_epi32(eights, eights);
    sum[0] = _mm256_extract_epi32(all, 0);
    sum[1] = _mm256_extract_epi32(all, 4);
}

/* max_ps gives its second operand where the first is NaN: NaNs never become the maximum. */
static float largest_magnitude(const __m256 x[4])
{
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 max = _mm256_setzero_ps();
    for (int i = 0; i < 4; i++)
        max = _mm256_max_ps(_mm256_and_ps(x[i], magnitude), max);
    return horizontal_max(max);
}

static void quantize_block(const float *x, int8_t *q, float *scale, int half_sum[2])
{
    __m256 v[4];
    for (int i = 0; i < 4; i++)
        v[i] = _mm256_loadu_ps(x + 8 * i);
    float max = largest_magnitude(v);
    max = max > 3.4028235e38f ? 3.4028235e38f : max;
    float inverse = max > 1e-30f ? 127.0f / max : 0.0f;
    __m256i rounded[4];
    for (int i = 0; i < 4; i++) {
        __m256 scaled = _mm256_mul_ps(v[i], _mm256_set1_ps(inverse));
        __m256 number = _mm256_cmp_ps(scaled, scaled, _CMP_ORD_Q);
        scaled = _mm256_min_ps(_mm256_max_ps(scaled, _mm256_set1_ps(-127.0f)), _mm256_set1_ps(127.0f));
        rounded[i] = _mm256_cvtps_epi32(_mm256_and_ps(scaled, number));
    }
    /* Packing works within 128-bit lanes; the permutation puts the groups of four in order. */
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(rounded[0], rounded[1]),
                                       _mm256_packs_epi32(rounded[2], rounded[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)q, bytes);
    *scale = inverse > 0.0f ? max / 127.0f : 0.0f;
    sum_halves(bytes, half_sum);
}

/* ---- Four blocks at once, whose maxima, divisions and sums share vectors --------------------- */

/* Of four blocks of eight lanes each: the largest of each, as integers. */
static __m128i largest_of_each(const __m256i v[Q8_GROUP])
{
    __m256i a = _mm256_max_epi32(_mm256_unpacklo_epi32(v[0], v[1]),
                                 _mm256_unpackhi_epi32(v[0], v[1]));
    __m256i b = _mm256_max_epi32(_mm256_unpacklo_epi32(v[2], v[3]),
                                 _mm256_unpackhi_epi32(v[2], v[3]));
    __m256i all = _mm256_max_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    return _mm_max_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

/* The bits of the largest magnitude of each block. */
static __m128i largest_magnitudes(const float *x)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i max[Q8_GROUP];
    for (int b = 0; b < Q8_GROUP; b++) {
        max[b] = _mm256_setzero_si256();
        for (int i = 0; i < UNIT_K; i += 8) {
            __m256i bits = _mm256_loadu_si256((const __m256i *)(x + UNIT_K * b + i));
            max[b] = _mm256_max_epi32(max[b], _mm256_and_si256(bits, magnitude));
        }
    }
    return largest_of_each(max);
}

/* Finite floats to codes, and eight sums of four of these. */
static __m256i write_codes(const float *x, __m256 inverse, int8_t *q)
{
    __m256i rounded[4];
    for (int i = 0; i < 4; i++)
        rounded[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inverse));
    /* Packing works within 128-bit lanes; the permutation puts the groups of four in order. */
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(rounded[0], rounded[1]),
                                       _mm256_packs_epi32(rounded[2], rounded[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)q, bytes);
    return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes),
                             _mm256_set1_epi16(1));
}

/* Finite floats only. */
static bool quantize_group(const float *x, const struct q8_row *row, int block)
{
    const __m128i infinite = _mm_set1_epi32(0x7f7fffff);
    __m128i bits = largest_magnitudes(x);
    if (_mm_movemask_epi8(_mm_cmpgt_epi32(bits, infinite)))
        return false;
    __m128 max = _mm_castsi128_ps(bits), used = _mm_cmpgt_ps(max, _mm_set1_ps(1e-30f));
    __m128 inverse = _mm_and_ps(_mm_div_ps(_mm_set1_ps(127.0f), max), used);
    __m128 scale = _mm_and_ps(_mm_div_ps(max, _mm_set1_ps(127.0f)), used);
    float inverses[Q8_GROUP];
    __m256i fours[Q8_GROUP];
    _mm_storeu_ps(inverses, inverse);
    for (int b = 0; b < Q8_GROUP; b++)
        fours[b] = write_codes(x + UNIT_K * b, _mm256_set1_ps(inverses[b]),
                               row->q + UNIT_K * (block + b));
    /* The first halves of the four blocks in the lower lanes, the second in the upper ones. */
    __m256i halves = _mm256_hadd_epi32(_mm256_hadd_epi32(fours[0], fours[1]),
                                       _mm256_hadd_epi32(fours[2], fours[3]));
    __m128i first = _mm256_castsi256_si128(halves), second = _mm256_extracti128_si256(halves, 1);
    __m128 first_sum = _mm_mul_ps(scale, _mm_cvtepi32_ps(first));
    __m128 second_sum = _mm_mul_ps(scale, _mm_cvtepi32_ps(second));
    __m128 sum = _mm_mul_ps(scale, _mm_cvtepi32_ps(_mm_add_epi32(first, second)));
    _mm_storeu_ps(row->scale + block, scale);
    _mm_storeu_ps(row->sum + block, sum);
    _mm_storeu_ps(row->half_sum + 2 * block, _mm_unpacklo_ps(first_sum, second_sum));
    _mm_storeu_ps(row->half_sum + 2 * block + 4, _mm_unpackhi_ps(first_sum, second_sum));
    return true;
}

void avx2_quantize_rows(const struct quantize_args *args)
{
    quantize_q8_rows(args, quantize_block, quantize_group);
}
