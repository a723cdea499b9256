/* Row operations in vectors, with the last few elements masked. */
#include <float.h>
#include <math.h>

#include "kernels/float16.h"
#include "kernels/registry.h"
#include "kernels/vec.h"
#include "kernels/vector/attention.h"

/* 1 / rms(x), for values whose squares are no floats any more. */
static float wide_rms_scale(const float *x, size_t n, float eps)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return (float)(1.0 / sqrt(sum / (double)n + (double)eps));
}

static void rms_norm(float *y, const float *x, const float *w, size_t n, float eps)
{
    vec sum0 = vec_set1(0.0f), sum1 = sum0;
    size_t i = 0;
    for (; i + 2 * VEC <= n; i += 2 * VEC) {
        vec x0 = vec_load(x + i), x1 = vec_load(x + i + VEC);
        sum0 = vec_fma(x0, x0, sum0);
        sum1 = vec_fma(x1, x1, sum1);
    }
    for (; i < n; i += VEC) {
        vec last = vec_load_n(x + i, n - i < VEC ? n - i : VEC);
        sum0 = vec_fma(last, last, sum0);
    }
    float mean = vec_sum(sum0 + sum1) / (float)n;
    vec scale = vec_set1(mean <= FLT_MAX ? 1.0f / sqrtf(mean + eps) : wide_rms_scale(x, n, eps));
    for (i = 0; i + VEC <= n; i += VEC)
        vec_store(y + i, vec_load(x + i) * scale * vec_load(w + i));
    if (i < n)
        vec_store_n(y + i, vec_load_n(x + i, n - i) * scale * vec_load_n(w + i, n - i), n - i);
}

static void rotate(float *x0, float *x1, float cos, float sin)
{
    float a = *x0, b = *x1;
    *x0 = a * cos - b * sin;
    *x1 = a * sin + b * cos;
}

static void rope_adjacent(float *x, const float *cos, const float *sin, size_t n_rot)
{
    size_t i = 0;
    for (; i + VEC <= n_rot; i += VEC) {
        vec pairs = vec_load(x + i);
        vec crossed = vec_swap_pairs(pairs) * vec_load_twice(sin + i / 2);
        vec_store(x + i, vec_fmaddsub(pairs, vec_load_twice(cos + i / 2), crossed));
    }
    for (; i < n_rot; i += 2)
        rotate(&x[i], &x[i + 1], cos[i / 2], sin[i / 2]);
}

static void rope_halves(float *x, const float *cos, const float *sin, size_t n_rot)
{
    size_t half = n_rot / 2, i = 0;
    for (; i + VEC <= half; i += VEC) {
        vec a = vec_load(x + i), b = vec_load(x + half + i);
        vec c = vec_load(cos + i), s = vec_load(sin + i);
        vec_store(x + i, a * c - b * s);
        vec_store(x + half + i, vec_fma(a, s, b * c));
    }
    for (; i < half; i++)
        rotate(&x[i], &x[half + i], cos[i], sin[i]);
}

static void softmax(float *x, size_t n)
{
    vec none = vec_set1(-INFINITY), max = none, sum = vec_set1(0.0f);
    size_t i = 0;
    for (; i + VEC <= n; i += VEC)
        max = vec_max(max, vec_load(x + i));
    if (i < n)
        max = vec_max(max, vec_first_n(vec_load_n(x + i, n - i), none, n - i));
    max = vec_set1(vec_max_lane(max));

    for (i = 0; i + VEC <= n; i += VEC) {
        vec e = vec_exp(vec_load(x + i) - max);
        vec_store(x + i, e);
        sum = sum + e;
    }
    if (i < n) {
        vec e = vec_exp(vec_load_n(x + i, n - i) - max);
        vec_store_n(x + i, e, n - i);
        sum = sum + vec_first_n(e, vec_set1(0.0f), n - i);
    }

    vec scale = vec_set1(1.0f / vec_sum(sum));
    for (i = 0; i + VEC <= n; i += VEC)
        vec_store(x + i, vec_load(x + i) * scale);
    if (i < n)
        vec_store_n(x + i, vec_load_n(x + i, n - i) * scale, n - i);
}

static inline vec silu(vec x)
{
    vec one = vec_set1(1.0f);
    return x / (one + vec_exp(vec_set1(0.0f) - x));
}

static void silu_mul(float *y, const float *gate, const float *up, size_t n)
{
    size_t i = 0;
    for (; i + VEC <= n; i += VEC)
        vec_store(y + i, silu(vec_load(gate + i)) * vec_load(up + i));
    if (i < n)
        vec_store_n(y + i, silu(vec_load_n(gate + i, n - i)) * vec_load_n(up + i, n - i), n - i);
}

static void add(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + VEC <= n; i += VEC)
        vec_store(y + i, vec_load(y + i) + vec_load(x + i));
    if (i < n)
        vec_store_n(y + i, vec_load_n(y + i, n - i) + vec_load_n(x + i, n - i), n - i);
}

static void add_scaled(float *y, const float *x, float s, size_t n)
{
    vec scale = vec_set1(s);
    size_t i = 0;
    for (; i + VEC <= n; i += VEC)
        vec_store(y + i, vec_fma(vec_load(x + i), scale, vec_load(y + i)));
    if (i < n) {
        vec last = vec_fma(vec_load_n(x + i, n - i), scale, vec_load_n(y + i, n - i));
        vec_store_n(y + i, last, n - i);
    }
}

static void store_late(float *y, size_t ldy, const float *x, size_t ldx, size_t m, size_t n)
{
    for (size_t row = 0; row < m; row++, y += ldy, x += ldx) {
        size_t i = 0, streamed = (uintptr_t)y % (VEC * sizeof *y) ? 0 : n;
        for (; i + VEC <= streamed; i += VEC)
            vec_stream(y + i, vec_load(x + i));
        memcpy(y + i, x + i, (n - i) * sizeof *y);
    }
    _mm_sfence(); /* such stores are not ordered with those that tell other threads */
}

static void f32_to_f16_row(uint16_t *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + VEC <= n; i += VEC)
        vec_store_f16(y + i, vec_load(x + i));
    if (i < n)
        vec_store_f16_n(y + i, vec_load_n(x + i, n - i), n - i);
}

/* The compiler makes vectors of it. */
static void f32_to_bf16_row(uint16_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = f32_to_bf16(x[i]);
}

static void quantize_q8_0(uint8_t *block, const float *x)
{
    enum { N = KV_Q8_0_ELEMS / VEC };
    vec max = vec_set1(0.0f), zero = max;
    for (int i = 0; i < N; i++) {
        vec v = vec_load(x + i * VEC);
        max = vec_max(vec_max(v, zero - v), max);
    }
    uint16_t half = f32_to_f16(fminf(vec_max_lane(max) / 127.0f, 65504.0f));
    float scale = f16_to_f32(half);
    vec inverse = vec_set1(scale > 0.0f ? 1.0f / scale : 0.0f), limit = vec_set1(127.0f);
    memcpy(block, &half, sizeof half);
    for (int i = 0; i < N; i++) {
        vec scaled = vec_load(x + i * VEC) * inverse;
        vec_store_i8((int8_t *)block + sizeof half + i * VEC,
                     vec_min(vec_max(scaled, zero - limit), limit));
    }
}

static void f32_to_q8_0_row(void *y, const float *x, size_t n)
{
    uint8_t *block = y;
    for (size_t i = 0; i < n; i += KV_Q8_0_ELEMS, block += KV_Q8_0_BYTES)
        quantize_q8_0(block, x + i);
}

void VEC_NAME(row_ops)(struct row_ops *ops)
{
    *ops = (struct row_ops){
        .name = VEC_ISA,
        .cpu_flags = VEC_CPU_FLAGS,
        .rms_norm = rms_norm,
        .rope_adjacent = rope_adjacent,
        .rope_halves = rope_halves,
        .softmax = softmax,
        .silu_mul = silu_mul,
        .add = add,
        .add_scaled = add_scaled,
        .store_late = store_late,
        .f32_to_f16 = f32_to_f16_row,
        .f32_to_bf16 = f32_to_bf16_row,
        .f32_to_q8_0 = f32_to_q8_0_row,
        .attn_rows = ATTN_ROWS,
        .attn_few_rows = ATTN_FEW_ROWS,
        .attn_scratch_bytes = VEC_NAME(attn_scratch_bytes),
        .attention = VEC_NAME(attention),
    };
}
