/* The table of block types, the 16-bit floats, and the reference de-quantization against golden
 * values (tests/data/dequant: raw blocks and the floats that ggml makes of them). */
#include "kernels/float16.h"
#include "kernels/kernel.h"
#include "tests/support/check.h"

#include <math.h>
#include <stdlib.h>

static void golden(void **state)
{
    static const struct {
        const char *name;
        uint32_t id;
    } types[] = {
        {"f16", BLOCK_F16},       {"bf16", BLOCK_BF16},     {"q4_0", BLOCK_Q4_0},
        {"q4_1", BLOCK_Q4_1},     {"q5_0", BLOCK_Q5_0},     {"q5_1", BLOCK_Q5_1},
        {"q8_0", BLOCK_Q8_0},     {"q2_k", BLOCK_Q2_K},     {"q3_k", BLOCK_Q3_K},
        {"q4_k", BLOCK_Q4_K},     {"q5_k", BLOCK_Q5_K},     {"q6_k", BLOCK_Q6_K},
        {"iq4_nl", BLOCK_IQ4_NL}, {"iq4_xs", BLOCK_IQ4_XS}, {"mxfp4", BLOCK_MXFP4},
    };
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        char name[64];
        size_t n_bytes, golden_bytes;
        snprintf(name, sizeof name, "dequant/%s.blocks", types[t].name);
        char *blocks = read_test_data(name, &n_bytes);
        snprintf(name, sizeof name, "dequant/%s.f32", types[t].name);
        char *expected = read_test_data(name, &golden_bytes);

        const struct block_type *type = block_type_find(types[t].id);
        assert_non_null(type);
        assert_int_equal(n_bytes % type->n_bytes, 0);
        size_t n = n_bytes / type->n_bytes * type->n_elems;
        assert_int_equal(n * sizeof(float), golden_bytes);
        float *values = malloc(golden_bytes);
        assert_non_null(values);
        type->dequantize(blocks, values, n);
        for (size_t i = 0; i < n; i++) {
            uint32_t want;
            memcpy(&want, expected + i * sizeof want, sizeof want);
            if (f32_bits(values[i]) != want)
                fail_msg("%s: weight %zu is %a, not %a", type->name, i, (double)values[i],
                         (double)f32_from_bits(want));
        }
        free(values);
        free(blocks);
        free(expected);
    }
}

static void table(void **state)
{
    int n_types = 0, n_usable = 0;
    for (uint32_t id = 0; id < 2 * BLOCK_ID_COUNT; id++) {
        const struct block_type *type = block_type_find(id);
        if (!type)
            continue;
        assert_int_equal(type->id, id);
        assert_true(type->n_elems == 1 || type->n_elems == 32 || type->n_elems == 256);
        assert_in_range(type->n_bytes, 1, 292);
        n_types++;
        n_usable += type->dequantize != NULL;
    }
    assert_int_equal(n_types, 32);
    assert_int_equal(n_usable, 16);
    assert_null(block_type_find(4));
    assert_null(block_type_find(UINT32_MAX));
    assert_int_equal(block_type_find(BLOCK_IQ3_S)->n_bytes, 110);
    assert_int_equal(block_type_find(BLOCK_IQ1_M)->n_bytes, 56);
    assert_int_equal(block_type_find(BLOCK_TQ1_0)->n_bytes, 54);
}

/* Value of a binary16 by its definition. */
static double f16_value(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double value = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return h >> 15 ? -value : value;
}

static void f16_all(void **state)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float x = f16_to_f32((uint16_t)h);
        if ((h & 0x7c00) == 0x7c00) {
            assert_int_equal(isnan(x) != 0, (h & 0x3ff) != 0);
            assert_int_equal(isinf(x) != 0, (h & 0x3ff) == 0);
        } else {
            assert_true((double)x == f16_value((uint16_t)h));
        }
        assert_int_equal(signbit(x) != 0, h >> 15);
        if (isnan(x))
            assert_true(isnan(f16_to_f32(f32_to_f16(x))));
        else
            assert_int_equal(f32_to_f16(x), h);
    }
}

/* Between neighbours: the nearer one, and the even one from halfway. */
static void f16_rounding(void **state)
{
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float low = f16_to_f32((uint16_t)h), high = f16_to_f32((uint16_t)(h + 1));
        float middle = (low + high) / 2;
        assert_int_equal(f32_to_f16(middle), h + (h & 1));
        assert_int_equal(f32_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(f32_to_f16(-nextafterf(middle, INFINITY)), 0x8000 | (h + 1));
    }
    assert_int_equal(f32_to_f16(65519.99f), 0x7bff);
    assert_int_equal(f32_to_f16(65520), 0x7c00);
    assert_int_equal(f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(f32_to_f16(1e-30f), 0);
}

static void bf16_rounding(void **state)
{
    assert_int_equal(f32_to_bf16(1.0f), 0x3f80);
    assert_int_equal(f32_to_bf16(f32_from_bits(0x3f808000)), 0x3f80);
    assert_int_equal(f32_to_bf16(f32_from_bits(0x3f818000)), 0x3f82);
    assert_int_equal(f32_to_bf16(f32_from_bits(0x3f808001)), 0x3f81);
    assert_int_equal(f32_to_bf16(f32_from_bits(0x7f7fffff)), 0x7f80);
    assert_int_equal(f32_to_bf16(-INFINITY), 0xff80);
    assert_true(isnan(bf16_to_f32(f32_to_bf16(f32_from_bits(0x7f800001)))));
    for (uint32_t h = 0; h < 65536; h++)
        if (!isnan(bf16_to_f32((uint16_t)h)))
            assert_int_equal(f32_to_bf16(bf16_to_f32((uint16_t)h)), h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),       cmocka_unit_test(table),
        cmocka_unit_test(f16_all),      cmocka_unit_test(f16_rounding),
        cmocka_unit_test(bf16_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
