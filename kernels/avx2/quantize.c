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

void avx2_quantize_rows(const struct quantize_args *args)
{
    quantize_q8_rows(args, quantize_block);
}
