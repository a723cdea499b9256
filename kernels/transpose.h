/* Squares of 32-bit elements turned in registers: element j of row i <-> element i of row j. */
#ifndef TESSERA_TRANSPOSE_H
#define TESSERA_TRANSPOSE_H

#include "kernels/vec.h"

static inline void transpose_8x8(__m256 r[8])
{
    __m256 t[8];
    for (int i = 0; i < 8; i += 4) {
        __m256 a = _mm256_unpacklo_ps(r[i], r[i + 1]), b = _mm256_unpackhi_ps(r[i], r[i + 1]);
        __m256 c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]);
        __m256 d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm256_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}

/* VEC rows of VEC elements. */
static inline void vec_transpose(vec r[VEC])
{
#if defined(__AVX512F__)
    /* Element 4l + j of rows i .. i + 3 in 128-bit part l of t[i + j]; then the parts. */
    __m512 t[16];
    for (int i = 0; i < 16; i += 4) {
        __m512 a = _mm512_unpacklo_ps(r[i], r[i + 1]), b = _mm512_unpackhi_ps(r[i], r[i + 1]);
        __m512 c = _mm512_unpacklo_ps(r[i + 2], r[i + 3]);
        __m512 d = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm512_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
    }
    for (int j = 0; j < 4; j++) {
        __m512 a = _mm512_shuffle_f32x4(t[j], t[j + 4], 0x44);
        __m512 b = _mm512_shuffle_f32x4(t[j + 8], t[j + 12], 0x44);
        __m512 c = _mm512_shuffle_f32x4(t[j], t[j + 4], 0xee);
        __m512 d = _mm512_shuffle_f32x4(t[j + 8], t[j + 12], 0xee);
        r[j] = _mm512_shuffle_f32x4(a, b, 0x88);
        r[j + 4] = _mm512_shuffle_f32x4(a, b, 0xdd);
        r[j + 8] = _mm512_shuffle_f32x4(c, d, 0x88);
        r[j + 12] = _mm512_shuffle_f32x4(c, d, 0xdd);
    }
#else
    transpose_8x8(r);
#endif
}

#endif
