/* The golden logits through the program: every model of an index is run by `tessera logits` with
 * one and two threads, in one batch and in batches of 7, and compared with the exact result.
 *
 *     golden_logits PROGRAM FIXTURES ISA [PROGRAM FLAG ...]
 *
 * FIXTURES holds logits.json, whose README describes the format and the limits: F32 models by the
 * largest difference, quantized ones by their KL divergence in relation to the recorded figure of
 * another engine that also rounds activations to 8 bits. No logit may be infinite or NaN.
 *
 * With a cache of 16 bits attention may run on bf16 tiles: errors of a size of their own. In a deep
 * model they swap some experts with nearly equal scores, which makes a few rows very different: the
 * rows that differ most do not count there. A cache of 8 bits does so in any model with experts:
 * its median row counts. */
#include <jansson.h>
#include <math.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/divergence.h"

extern char **environ;

enum { MAX_FLAGS = 8, SKIPPED = 77 };

static const double MAX_F32_DIFFERENCE = 1e-3;
static const double MAX_KL_RATIO = 1.5;
static const double MAX_SHORT_CACHE_KL = 3e-4;
static const double MAX_Q8_0_CACHE_KL = 5e-3;
static const double DEEP_FACTOR = 5; /* of all three, for 27 layers */
enum { MAX_SWAPPED_ROWS = 3 };
static const double MAX_MEAN_RATIO = 1.0; /* geometric mean over the quantized models */

struct options {
    const char *program, *fixtures, *isa;
    char **flags;
    int n_flags;
};

struct variant {
    const char *threads, *batch, *kv;
};

static const struct variant variants[] = {
    {"1", "512", "f32"}, {"2", "512", "f32"}, {"1", "7", "f32"},
    {"2", "7", "f32"},   {"2", "512", "f16"}, {"2", "7", "bf16"},
    {"2", "512", "q8_0"}, {"2", "7", "q8_0"},
};
enum { N_VARIANTS = sizeof variants / sizeof variants[0] };

struct golden {
    const char *name;
    bool quantized, deep;
    int n_tokens, n_vocab;
    double reference_kl;
    float *exact; /* [n_tokens, n_vocab] */
};

static bool supported(const char *arch, const char *type)
{
    static const char *const archs[] = {"llama", "qwen2", "qwen3", "qwen3moe", "deepseek2"};
    static const char *const types[] = {"F32",  "F16",  "BF16", "Q4_0", "Q4_1",   "Q5_0",
                                        "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K",   "Q5_K",
                                        "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"};
    bool arch_known = false, type_known = false;
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++)
        arch_known |= strcmp(arch, archs[i]) == 0;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        type_known |= strcmp(type, types[i]) == 0;
    return arch_known && type_known;
}

static float *read_floats(const char *path, size_t count)
{
    float *values = malloc(count * sizeof *values);
    FILE *file = fopen(path, "rb");
    bool whole = file && values && fread(values, sizeof *values, count, file) == count;
    if (file)
        fclose(file);
    if (whole)
        return values;
    free(values);
    return NULL;
}

/* 0 when the program wrote `out`. */
static int run_program(const struct options *o, const char *model, const char *tokens,
                       const char *out, const struct variant *variant)
{
    char *argv[20 + MAX_FLAGS] = {(char *)o->program, "logits", "-q", "-m", (char *)model,
                                  "--tokens", (char *)tokens, "-o", (char *)out,
                                  "--isa", (char *)o->isa, "-t", (char *)variant->threads,
                                  "-b", (char *)variant->batch, "--kv-type",
                                  (char *)variant->kv};
    int argc = 17;
    for (int i = 0; i < o->n_flags; i++)
        argv[argc++] = o->flags[i];
    pid_t child;
    int status;
    if (posix_spawn(&child, o->program, NULL, NULL, argv, environ) != 0 ||
        waitpid(child, &status, 0) != child)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static double max_difference(const struct golden *golden, const float *got)
{
    double max = 0.0;
    for (int i = 0; i < golden->n_tokens * golden->n_vocab; i++) {
        double difference = fabs((double)golden->exact[i] - (double)got[i]);
        max = difference > max || isnan(difference) ? difference : max;
    }
    return max;
}

/* Mean over the positions of KL(exact || got), without the `left_out` largest. */
static double mean_kl(const struct golden *golden, const float *got, int left_out)
{
    double total = 0.0, largest[MAX_SWAPPED_ROWS + 1] = {0};
    int n = golden->n_vocab;
    for (int t = 0; t < golden->n_tokens; t++) {
        double kl = kl_divergence(golden->exact + t * n, got + t * n, (size_t)n);
        total += kl;
        for (int i = 0; i < left_out; i++) {
            double other = largest[i];
            largest[i] = fmax(other, kl);
            kl = fmin(other, kl);
        }
    }
    for (int i = 0; i < left_out; i++)
        total -= largest[i];
    return total / (golden->n_tokens - left_out);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_kl(const struct golden *golden, const float *got)
{
    double *rows = malloc((size_t)golden->n_tokens * sizeof *rows);
    int n = golden->n_vocab;
    for (int t = 0; t < golden->n_tokens; t++)
        rows[t] = kl_divergence(golden->exact + t * n, got + t * n, (size_t)n);
    qsort(rows, (size_t)golden->n_tokens, sizeof *rows, compare_doubles);
    double median = rows[golden->n_tokens / 2];
    free(rows);
    return median;
}

/* Sum of log(KL ratio), for the geometric mean. */
struct totals {
    double log_ratio;
    int n_ratios, passed, failed;
};

static bool all_finite(const float *values, int n)
{
    for (int i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return false;
    return true;
}

static bool check_q8_0(const struct golden *golden, const struct variant *variant,
                       const float *got)
{
    double kl = median_kl(golden, got);
    bool good = kl <= (golden->deep ? DEEP_FACTOR : 1.0) * MAX_Q8_0_CACHE_KL &&
                all_finite(got, golden->n_tokens * golden->n_vocab);
    printf("%s %-22s t%s b%-3s %s median KL %.2e, mean %.2e\n", good ? "ok  " : "FAIL",
           golden->name, variant->threads, variant->batch, variant->kv, kl,
           mean_kl(golden, got, 0));
    return good;
}

static bool check(const struct golden *golden, const struct variant *variant, const float *got,
                  struct totals *totals)
{
    if (strcmp(variant->kv, "q8_0") == 0)
        return check_q8_0(golden, variant, got);
    bool good = all_finite(got, golden->n_tokens * golden->n_vocab);
    bool exact_cache = strcmp(variant->kv, "f32") == 0;
    double difference = max_difference(golden, got);
    double kl = mean_kl(golden, got, golden->deep && !exact_cache ? MAX_SWAPPED_ROWS : 0);
    double factor = golden->deep ? DEEP_FACTOR : 1.0;
    double ratio = golden->quantized ? kl / golden->reference_kl : 0.0;
    if (golden->quantized && (exact_cache || kl > MAX_SHORT_CACHE_KL))
        good &= ratio <= MAX_KL_RATIO;
    else if (exact_cache)
        good &= difference <= factor * MAX_F32_DIFFERENCE;
    else
        good &= kl <= factor * MAX_SHORT_CACHE_KL;
    printf("%s %-22s t%s b%-3s %s KL %.2e, ", good ? "ok  " : "FAIL", golden->name,
           variant->threads, variant->batch, variant->kv, kl);
    if (golden->quantized)
        printf("ratio %.2f, ", ratio);
    printf("max difference %.2e\n", difference);
    /* The types without blocks keep float activations: their tiny ratios are no merit. */
    if (golden->reference_kl > 1e-4) {
        totals->log_ratio += log(ratio);
        totals->n_ratios++;
    }
    return good;
}

static void run_golden(const struct options *o, const json_t *entry, struct totals *totals)
{
    char model[1024], tokens[1024], logits[1024], out[] = "/tmp/golden-XXXXXX";
    snprintf(model, sizeof model, "%s/%s", o->fixtures,
             json_string_value(json_object_get(entry, "gguf")));
    snprintf(tokens, sizeof tokens, "%s/%s", o->fixtures,
             json_string_value(json_object_get(entry, "tokens")));
    snprintf(logits, sizeof logits, "%s/%s", o->fixtures,
             json_string_value(json_object_get(entry, "logits")));
    const json_t *error = json_object_get(entry, "reference_engine_error");
    struct golden golden = {
        .name = json_string_value(json_object_get(entry, "name")),
        .quantized = error != NULL,
        .deep = strcmp(json_string_value(json_object_get(entry, "name")), "deepseek2_lite") == 0,
        .n_tokens = (int)json_integer_value(json_object_get(entry, "n_tokens")),
        .n_vocab = (int)json_integer_value(json_object_get(entry, "n_vocab")),
        .reference_kl = json_number_value(json_object_get(error, "mean_kl")),
    };
    size_t count = (size_t)golden.n_tokens * (size_t)golden.n_vocab;
    golden.exact = read_floats(logits, count);
    int fd = mkstemp(out);
    close(fd);
    for (size_t i = 0; i < N_VARIANTS; i++) {
        int status = run_program(o, model, tokens, out, &variants[i]);
        float *got = status == 0 ? read_floats(out, count) : NULL;
        bool good = golden.exact && got && check(&golden, &variants[i], got, totals);
        if (!golden.exact || !got)
            printf("FAIL %s: exit status %d, or its files cannot be read\n", golden.name, status);
        good ? totals->passed++ : totals->failed++;
        free(got);
    }
    unlink(out);
    free(golden.exact);
}

/* Whether this CPU can run a level at all; tiles are emulated where it matters. */
static bool isa_usable(const char *isa)
{
    __builtin_cpu_init();
    if (strcmp(isa, "avx2") == 0)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (strcmp(isa, "avx512") == 0)
        return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni");
    return true;
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc > 4 + MAX_FLAGS) {
        fprintf(stderr, "usage: %s PROGRAM FIXTURES ISA [PROGRAM FLAG ...]\n", argv[0]);
        return 2;
    }
    struct options o = {argv[1], argv[2], argv[3], argv + 4, argc - 4};
    char index[1024];
    snprintf(index, sizeof index, "%s/logits.json", o.fixtures);
    if (access(index, R_OK) != 0) {
        printf("skipped: %s is not there\n", index);
        return SKIPPED;
    }
    if (!isa_usable(o.isa)) {
        printf("skipped: this CPU has no %s\n", o.isa);
        return SKIPPED;
    }
    json_t *root = json_load_file(index, 0, NULL);
    struct totals totals = {0};
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(root, "models"), i, entry) {
        if (supported(json_string_value(json_object_get(entry, "arch")),
                      json_string_value(json_object_get(entry, "quant"))))
            run_golden(&o, entry, &totals);
    }
    json_decref(root);
    if (totals.n_ratios > 0) {
        double mean = exp(totals.log_ratio / totals.n_ratios);
        bool good = mean <= MAX_MEAN_RATIO;
        printf("%s geometric mean of the KL ratios: %.3f\n", good ? "ok  " : "FAIL", mean);
        good ? totals.passed++ : totals.failed++;
    }
    printf("%d passed, %d failed\n", totals.passed, totals.failed);
    return totals.failed > 0 || totals.passed == 0;
}
