/* The tile products in software, with AVX2 and FMA. The operations are defined in the Intel 64 and
 * IA-32 Architectures Software Developer's Manual, volume 2, TDPBF16PS and TDPBSSD. */
#include "kernels/amx/model.h"

#include <immintrin.h>
#include <string.h>

/* A row of 64 bytes as 4 vectors of 16 words, 4 columns each. */
static void widen_row(__m256i out[4], const uint8_t *row, bool is_signed)
{
    for (int i = 0; i < 4; i++) {
        __m128i bytes = _mm_load_si128((const __m128i *)(row + 16 * i));
        out[i] = is_signed ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes);
    }
}

void tile_model_dp_int8(struct tile *c, const struct tile *a, const struct tile *b, int m,
                        int quads, bool a_signed, bool b_signed)
{
    __m256i wide[TILE_ROWS][4];
    for (int k = 0; k < quads; k++)
        widen_row(wide[k], b->row[k], b_signed);
    for (int i = 0; i < m; i++) {
        __m256i sum[4]; /* two partial sums for each of 4 columns */
        for (int j = 0; j < 4; j++)
            sum[j] = _mm256_setzero_si256();
        for (int k = 0; k < quads; k++) {
            int32_t quad;
            memcpy(&quad, a->row[i] + 4 * k, 4);
            __m128i four = _mm_cvtsi32_si128(quad);
            four = a_signed ? _mm_cvtepi8_epi16(four) : _mm_cvtepu8_epi16(four);
            __m256i all = _mm256_broadcastq_epi64(four);
            for (int j = 0; j < 4; j++)
                sum[j] = _mm256_add_epi32(sum[j], _mm256_madd_epi16(all, wide[k][j]));
        }
        for (int j = 0; j < 2; j++) {
            /* hadd works within halves: columns 0 1 4 5 | 2 3 6 7. */
            __m256i columns = _mm256_hadd_epi32(sum[2 * j], sum[2 * j + 1]);
            columns = _mm256_permute4x64_epi64(columns, 0xd8);
            __m256i *dest = (__m256i *)(c->row[i] + 32 * j);
            _mm256_store_si256(dest, _mm256_add_epi32(_mm256_load_si256(dest), columns));
        }
    }
}

void tile_model_dp_bf16(struct tile *c, const struct tile *a, const struct tile *b, int m,
                        int pairs)
{
    const unsigned denormals_are_zero = 1 << 6, flush_to_zero = 1 << 15, masked = 0x1f80;
    unsigned csr = _mm_getcsr();
    _mm_setcsr(denormals_are_zero | flush_to_zero | masked); /* rounding to nearest even */
    const __m256i high = _mm256_set1_epi32((int)0xffff0000);
    for (int i = 0; i < m; i++) {
        __m256 even[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        __m256 odd[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        for (int k = 0; k < pairs; k++) {
            int32_t pair;
            memcpy(&pair, a->row[i] + 4 * k, 4);
            __m256i both = _mm256_set1_epi32(pair);
            __m256 a_even = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
            __m256 a_odd = _mm256_castsi256_ps(_mm256_and_si256(both, high));
            for (int j = 0; j < 2; j++) {
                __m256i bs = _mm256_load_si256((const __m256i *)(b->row[k] + 32 * j));
                __m256 b_even = _mm256_castsi256_ps(_mm256_slli_epi32(bs, 16));
                __m256 b_odd = _mm256_castsi256_ps(_mm256_and_si256(bs, high));
                even[j] = _mm256_fmadd_ps(a_even, b_even, even[j]);
                odd[j] = _mm256_fmadd_ps(a_odd, b_odd, odd[j]);
            }
        }
        for (int j = 0; j < 2; j++) {
            float *dest = (float *)(c->row[i] + 32 * j);
            __m256 sum = _mm256_add_ps(even[j], odd[j]);
            _mm256_store_ps(dest, _mm256_add_ps(_mm256_load_ps(dest), sum));
        }
    }
    _mm_setcsr(csr);
}
