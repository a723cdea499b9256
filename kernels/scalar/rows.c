/* Row operations, the reference. */
#include <math.h>
#include <string.h>

#include "kernels/float16.h"
#include "kernels/registry.h"
#include "kernels/scalar/blocks.h"

static void rms_norm(float *y, const float *x, const float *w, size_t n, float eps)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    float scale = (float)(1.0 / sqrt(sum / (double)n + (double)eps));
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * scale * w[i];
}

static void rotate(float *a, float *b, float c, float s)
{
    float x = *a, y = *b;
    *a = x * c - y * s;
    *b = x * s + y * c;
}

static void rope_adjacent(float *x, const float *cos, const float *sin, size_t n_rot)
{
    for (size_t i = 0; i < n_rot / 2; i++)
        rotate(&x[2 * i], &x[2 * i + 1], cos[i], sin[i]);
}

static void rope_halves(float *x, const float *cos, const float *sin, size_t n_rot)
{
    for (size_t i = 0; i < n_rot / 2; i++)
        rotate(&x[i], &x[i + n_rot / 2], cos[i], sin[i]);
}

static void softmax(float *x, size_t n)
{
    float max = -INFINITY, sum = 0.0f;
    for (size_t i = 0; i < n; i++)
        max = fmaxf(max, x[i]);
    for (size_t i = 0; i < n; i++)
        sum += x[i] = expf(x[i] - max);
    for (size_t i = 0; i < n; i++)
        x[i] /= sum;
}

static void silu_mul(float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

static void add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void add_scaled(float *y, const float *x, float s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += s * x[i];
}

static void store_late(float *y, size_t ldy, const float *x, size_t ldx, size_t m, size_t n)
{
    for (size_t i = 0; i < m; i++)
        memcpy(y + i * ldy, x + i * ldx, n * sizeof *y);
}

static void f32_to_f16_row(uint16_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = f32_to_f16(x[i]);
}

static void f32_to_bf16_row(uint16_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = f32_to_bf16(x[i]);
}

static void f32_to_q8_0_row(void *y, const float *x, size_t n)
{
    struct block_q8_0 *block = y;
    for (; n > 0; n -= BLOCK_ELEMS, x += BLOCK_ELEMS, block++) {
        float max = 0.0f;
        for (int i = 0; i < BLOCK_ELEMS; i++)
            max = fmaxf(max, fabsf(x[i]));
        block->scale = f32_to_f16(fminf(max / 127.0f, 65504.0f));
        float scale = f16_to_f32(block->scale), inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
        for (int i = 0; i < BLOCK_ELEMS; i++)
            block->quants[i] = (int8_t)lrintf(fminf(fmaxf(x[i] * inverse, -127.0f), 127.0f));
    }
}

static size_t attn_scratch_bytes(int d_k, int d_v)
{
    return 64;
}

static float element(const void *row, enum kv_type type, int i)
{
    if (type == KV_F32)
        return ((const float *)row)[i];
    if (type == KV_Q8_0) {
        const struct block_q8_0 *block = (const struct block_q8_0 *)row + i / BLOCK_ELEMS;
        return f16_to_f32(block->scale) * block->quants[i % BLOCK_ELEMS];
    }
    uint16_t half = ((const uint16_t *)row)[i];
    return type == KV_F16 ? f16_to_f32(half) : bf16_to_f32(half);
}

static void attend_row(const struct attn_args *a, int i)
{
    const float *q = a->q + (size_t)i * a->q_stride;
    float *out = a->out + (size_t)i * a->out_stride;
    float max = -INFINITY, sum = 0.0f;
    int last = a->n_keys[i] < a->key1 ? a->n_keys[i] : a->key1;
    memset(out, 0, (size_t)a->d_v * sizeof *out);
    for (int key = a->key0; key < last; key++) {
        const char *k = (const char *)a->k + (size_t)key * a->k_stride;
        const char *v = (const char *)a->v + (size_t)key * a->v_stride;
        float score = 0.0f;
        for (int d = 0; d < a->d_k; d++)
            score += q[d] * element(k, a->kv_type, d);
        score *= a->scale;
        if (score == -INFINITY)
            continue;
        float new_max = fmaxf(max, score);
        float keep = expf(max - new_max), weight = expf(score - new_max);
        sum = sum * keep + weight;
        for (int d = 0; d < a->d_v; d++)
            out[d] = out[d] * keep + weight * element(v, a->kv_type, d);
        max = new_max;
    }
    if (a->row_max) {
        a->row_max[i] = max;
        a->row_sum[i] = sum;
        return;
    }
    for (int d = 0; d < a->d_v && sum > 0.0f; d++)
        out[d] /= sum;
}

static void attention(const struct attn_args *args)
{
    for (int i = 0; i < args->m; i++)
        attend_row(args, i);
}

void scalar_row_ops(struct row_ops *ops)
{
    *ops = (struct row_ops){
        .name = "scalar",
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
        .attn_rows = 1,
        .attn_few_rows = 1,
        .attn_scratch_bytes = attn_scratch_bytes,
        .attention = attention,
    };
}
