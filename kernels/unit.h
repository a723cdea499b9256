/* What the codes of a packed unit mean, for scalar and vector kernels alike:
 *
 *     weight = scale * value - minimum,   value = table[code] or code - offset
 *
 * A unit (32 k) has one scale and minimum for each column, or two, for k 0..15 and 16..31. */
#ifndef TESSERA_KERNELS_UNIT_H
#define TESSERA_KERNELS_UNIT_H

#include "kernels/layout.h"
#include "kernels/scalar/blocks.h"

/* Where a type's codes are unsigned with an offset: weight = scale * (code - offset). */
static inline int unit_offset(uint32_t block_id)
{
    switch (block_id) {
    case BLOCK_Q4_0: return 8;
    case BLOCK_Q5_0: return 16;
    case BLOCK_Q3_K: return 4;
    case BLOCK_Q6_K: return 32;
    default: return 0;
    }
}

/* The table that 4-bit codes index, NULL where codes are numbers. */
static inline const int8_t *unit_table(uint32_t block_id)
{
    return block_id == BLOCK_MXFP4                                      ? mxfp4_values
           : block_id == BLOCK_IQ4_NL || block_id == BLOCK_IQ4_XS ? iq4_values
                                                                        : NULL;
}

/* Scales for k 0..15 and k 16..31 of a unit differ. */
static inline bool unit_has_halves(uint32_t block_id)
{
    return block_id == BLOCK_Q2_K || block_id == BLOCK_Q3_K || block_id == BLOCK_Q6_K;
}

/* Rows of ACT_Q8 that are multiplied at once. `sum` goes with the scales of weights: one for each
 * unit of 32 k, or for each of its halves. */
enum { ACT_ROWS = 8 };

struct act_rows {
    const int8_t *x[ACT_ROWS];
    const float *scale[ACT_ROWS], *sum[ACT_ROWS];
};

/* `rows` rows of g from `row` on, from unit `unit` on. */
static inline __attribute__((always_inline)) struct act_rows
act_rows_at(const struct gemm_args *g, int row, int rows, int unit, bool halves)
{
    struct act_rows at;
    const size_t k = (size_t)g->k;
    for (int r = 0; r < rows; r++) {
        const int8_t *base = (const int8_t *)g->a + (size_t)(row + r) * g->a_stride;
        at.x[r] = base + UNIT_K * unit;
        at.scale[r] = (const float *)(base + act_q8_scale_offset(k)) + unit;
        at.sum[r] = halves ? (const float *)(base + act_q8_half_sum_offset(k)) + 2 * unit
                           : (const float *)(base + act_q8_sum_offset(k)) + unit;
    }
    return at;
}

/* The parts of a row in ACT_Q8. */
struct q8_row {
    int8_t *q;
    float *scale, *sum, *half_sum;
};

/* 32 floats to codes q [32] and their scale, with sums of the codes of either half. */
typedef void quantize_block_fn(const float *x, int8_t *q, float *scale, int half_sum[2]);

/* Q8_GROUP blocks, from `block` on, the floats of the first at x. False, with nothing written,
 * where it cannot. */
enum { Q8_GROUP = 4 };
typedef bool quantize_group_fn(const float *x, const struct q8_row *row, int block);

static inline __attribute__((always_inline)) void
write_q8_block(const float *x, const struct q8_row *row, int block, quantize_block_fn *quantize)
{
    int halves[2];
    float *scale = row->scale + block;
    quantize(x, row->q + UNIT_K * block, scale, halves);
    row->sum[block] = *scale * (float)(halves[0] + halves[1]);
    row->half_sum[2 * block] = *scale * (float)halves[0];
    row->half_sum[2 * block + 1] = *scale * (float)halves[1];
}

/* The `quantize_rows` of ACT_Q8, with an instruction set's way of 32 floats to codes, and of groups
 * of such (NULL: none). */
static inline __attribute__((always_inline)) void
quantize_q8_rows(const struct quantize_args *args, quantize_block_fn *quantize_block,
                 quantize_group_fn *quantize_group)
{
    const size_t k = (size_t)args->k;
    const int end = args->k1 / UNIT_K;
    for (int i = 0; i < args->m; i++) {
        const float *x = args->x + (size_t)i * args->ldx;
        int8_t *q = (int8_t *)args->a + (size_t)i * args->a_stride;
        struct q8_row row = {q, (float *)(q + act_q8_scale_offset(k)),
                             (float *)(q + act_q8_sum_offset(k)),
                             (float *)(q + act_q8_half_sum_offset(k))};
        for (int b = args->k0 / UNIT_K; b < end;) {
            const float *from = x + (UNIT_K * b - args->k0);
            if (quantize_group && b + Q8_GROUP <= end && quantize_group(from, &row, b)) {
                b += Q8_GROUP;
                continue;
            }
            write_q8_block(from, &row, b++, quantize_block);
        }
    }
}

#endif
