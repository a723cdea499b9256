/* Sampling: each step on distributions whose outcome is known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "sample/sampler.h"

enum { N_VOCAB = 8, N_DRAWS = 4000 };

static struct tsr_sampling plain(void)
{
    return (struct tsr_sampling){.struct_size = sizeof(struct tsr_sampling),
                                 .temperature = 1.0f,
                                 .top_p = 1.0f,
                                 .repeat_penalty = 1.0f,
                                 .seed = 42};
}

/* Probabilities 1/2, 1/4, ... */
static const float halves[N_VOCAB] = {0.0f,      -0.693147f, -1.386294f, -2.079442f,
                                      -2.772589f, -3.465736f, -4.158883f, -4.852030f};

static void count_draws(const struct tsr_sampling *sampling, const float *logits, int *counts)
{
    struct sampler *sampler;
    assert_int_equal(sampler_create(N_VOCAB, &sampler, NULL), 0);
    for (int i = 0; i < N_VOCAB; i++)
        counts[i] = 0;
    for (int i = 0; i < N_DRAWS; i++) {
        int32_t id = sampler_draw(sampler, sampling, logits, NULL, 0);
        assert_in_range(id, 0, N_VOCAB - 1);
        counts[id]++;
    }
    sampler_free(sampler);
}

static void frequencies_follow_the_probabilities(void **state)
{
    (void)state;
    struct tsr_sampling sampling = plain();
    int counts[N_VOCAB];
    count_draws(&sampling, halves, counts);
    for (int i = 0; i < 4; i++) {
        double expected = N_DRAWS / pow(2.0, i + 1);
        assert_true(fabs(counts[i] - expected) < 5.0 * sqrt(expected));
    }
}

static void temperature_sharpens(void **state)
{
    (void)state;
    struct tsr_sampling sampling = plain();
    int counts[N_VOCAB];
    sampling.temperature = 0.5f; /* probabilities go as their squares: 3/4, 3/16, ... */
    count_draws(&sampling, halves, counts);
    assert_true(fabs(counts[0] - 0.75 * N_DRAWS) < 150);
    sampling.temperature = 0.0f;
    count_draws(&sampling, halves, counts);
    assert_int_equal(counts[0], N_DRAWS);
}

static void filters_cut_the_tail(void **state)
{
    (void)state;
    int counts[N_VOCAB];
    struct tsr_sampling top_k = plain(), top_p = plain(), min_p = plain();
    top_k.top_k = 3;
    count_draws(&top_k, halves, counts);
    assert_true(counts[2] > 0 && counts[3] == 0);
    top_p.top_p = 0.7f; /* 1/2 is not enough, 1/2 + 1/4 is */
    count_draws(&top_p, halves, counts);
    assert_true(counts[1] > 0 && counts[2] == 0);
    min_p.min_p = 0.2f; /* 1/2 and 1/4 and 1/8: the last is 1/4 of the best */
    count_draws(&min_p, halves, counts);
    assert_true(counts[2] > 0 && counts[3] == 0);
}

static void penalty_lowers_what_was_said(void **state)
{
    (void)state;
    struct tsr_sampling sampling = plain();
    struct sampler *sampler;
    assert_int_equal(sampler_create(3, &sampler, NULL), 0);
    sampling.temperature = 0.0f;
    sampling.repeat_penalty = 2.0f;
    const float logits[] = {3.0f, 2.0f, -1.0f}, negative[] = {-1.0f, -1.5f, -9.0f};
    const int32_t recent[] = {0, 0, 0};
    assert_int_equal(sampler_draw(sampler, &sampling, logits, NULL, 0), 0);
    assert_int_equal(sampler_draw(sampler, &sampling, logits, recent, 3), 1);
    assert_int_equal(sampler_draw(sampler, &sampling, negative, recent, 1), 1);
    sampler_free(sampler);
}

static void the_seed_decides(void **state)
{
    (void)state;
    struct tsr_sampling sampling = plain();
    int32_t first[64], second[64], other[64];
    int32_t *runs[] = {first, second, other};
    for (int run = 0; run < 3; run++) {
        struct sampler *sampler;
        assert_int_equal(sampler_create(N_VOCAB, &sampler, NULL), 0);
        sampling.seed = run == 2 ? 43 : 42;
        for (int i = 0; i < 64; i++)
            runs[run][i] = sampler_draw(sampler, &sampling, halves, NULL, 0);
        sampler_free(sampler);
    }
    assert_memory_equal(first, second, sizeof first);
    assert_memory_not_equal(first, other, sizeof first);
}

static void ties_go_to_the_smaller_id(void **state)
{
    (void)state;
    const float equal[N_VOCAB] = {0};
    struct tsr_sampling sampling = plain();
    int counts[N_VOCAB];
    sampling.top_k = 2;
    count_draws(&sampling, equal, counts);
    assert_int_equal(counts[0] + counts[1], N_DRAWS);
    sampling.temperature = 0.0f;
    count_draws(&sampling, equal, counts);
    assert_int_equal(counts[0], N_DRAWS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frequencies_follow_the_probabilities),
        cmocka_unit_test(temperature_sharpens),
        cmocka_unit_test(filters_cut_the_tail),
        cmocka_unit_test(penalty_lowers_what_was_said),
        cmocka_unit_test(the_seed_decides),
        cmocka_unit_test(ties_go_to_the_smaller_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
