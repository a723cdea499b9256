/* tessera bench: speed of prompts and of generation beside what the machine can do at most.
 *
 * The roofs are measured first, in the same process. Then the model is opened for each combination
 * of instruction set and threads, and each test is run some times after one that warms up. Prompts
 * are random ids, so that experts are chosen as widely as real text chooses them. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench/process.h"
#include "cli/bench.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/interrupt.h"

enum { MAX_ROOFS = 2 * MAX_LIST, WARM_UP_TOKENS = 16 };
static const double roof_seconds = 0.1; /* of each of several measurements of each roof */

static const char *const kv_type_names[] = {[TSR_KV_F16] = "f16",
                                            [TSR_KV_F32] = "f32",
                                            [TSR_KV_BF16] = "bf16",
                                            [TSR_KV_Q8_0] = "q8_0"};

/* What all tests have. */
struct bench {
    const struct options *options;
    char path[4096]; /* of the model */
    json_t *file;    /* its directory, as tsr_file_describe has it */
    struct bench_model model;
    struct bench_roofs roofs[MAX_ROOFS];
    int n_roofs;
    struct bench_report report;
    uint64_t random;
};

/* An opened model and the settings it was opened with. */
struct setup {
    struct options options; /* of one test: flags with one value each */
    tsr_engine *engine;
    struct tsr_engine_info info;
    double load_seconds;
    bool knows_peak;
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* ---- Peak memory ----------------------------------------------------------------------------- */

/* Forgets the peak of what came before (the roofs, another engine). */
static bool reset_peak(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (!file)
        return false;
    bool written = fputs("5", file) >= 0;
    return fclose(file) == 0 && written;
}

/* ---- The model ------------------------------------------------------------------------------- */

static uint64_t elements(const json_t *tensor)
{
    uint64_t n = 1;
    const json_t *shape = json_object_get(tensor, "shape");
    for (size_t d = 0; d < json_array_size(shape); d++)
        n *= (uint64_t)json_integer_value(json_array_get(shape, d));
    return n;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && !strcmp(text + n - n_end, end);
}

/* What a tensor adds to the cost of a token: all of it, but of experts those in use only. */
static void add_cost(struct bench_model *model, const struct tsr_engine_info *info,
                     const json_t *tensor, bool tied)
{
    const char *name = json_string_value(json_object_get(tensor, "name"));
    uint64_t bytes = (uint64_t)json_integer_value(json_object_get(tensor, "bytes"));
    uint64_t n = elements(tensor);
    bool embedding = !strcmp(name, "token_embd.weight");
    if (embedding && !tied)
        return;
    if (ends_with(name, "_exps.weight") && info->n_expert) {
        bytes = bytes / info->n_expert * info->n_expert_used;
        n = n / info->n_expert * info->n_expert_used;
    }
    model->token_bytes += bytes;
    bool matrix = json_array_size(json_object_get(tensor, "shape")) > 1;
    if (matrix && !embedding && strcmp(name, "output.weight") != 0)
        model->token_flop += 2 * n;
}

/* The type with the most bytes. */
static void find_main_type(struct bench_model *model, const json_t *tensors)
{
    json_t *sums = json_object(), *tensor, *sum;
    size_t i;
    const char *type;
    json_int_t most = -1;
    json_array_foreach((json_t *)(uintptr_t)tensors, i, tensor)
    {
        type = json_string_value(json_object_get(tensor, "type"));
        json_int_t bytes = json_integer_value(json_object_get(tensor, "bytes"));
        json_object_set_new(sums, type,
                            json_integer(json_integer_value(json_object_get(sums, type)) + bytes));
    }
    json_object_foreach(sums, type, sum)
    {
        if (json_integer_value(sum) <= most)
            continue;
        most = json_integer_value(sum);
        snprintf(model->type, sizeof model->type, "%s", type);
    }
    json_decref(sums);
}

static void describe_model(struct bench *bench, const struct tsr_engine_info *info)
{
    struct bench_model *model = &bench->model;
    const json_t *tensors = json_object_get(bench->file, "tensors");
    bool tied = true;
    *model = (struct bench_model){.bytes = info->file_bytes, .params = info->n_params};
    snprintf(model->name, sizeof model->name, "%s", info->name[0] ? info->name : info->arch);
    for (size_t i = 0; i < json_array_size(tensors); i++)
        tied &= strcmp("output.weight", json_string_value(json_object_get(
                                            json_array_get(tensors, i), "name"))) != 0;
    for (size_t i = 0; i < json_array_size(tensors); i++)
        add_cost(model, info, json_array_get(tensors, i), tied);
    find_main_type(model, tensors);
}

/* Before the roofs are measured: a file that is not there is told at once. */
static bool read_directory(struct bench *bench)
{
    char *text;
    struct tsr_error error = {0};
    int code = tsr_file_describe(bench->path, 1, &text, &error);
    if (code < 0) {
        fail(bench->options->command, "%s", error.text[0] ? error.text : tsr_strerror(code));
        return false;
    }
    bench->file = json_loads(text, JSON_ALLOW_NUL, NULL);
    tsr_free(text);
    if (!bench->file)
        fail(bench->options->command, "out of memory");
    return bench->file != NULL;
}

/* ---- Roofs ----------------------------------------------------------------------------------- */

static const struct bench_roofs *find_roofs(const struct bench *bench, int threads)
{
    for (int i = 0; i < bench->n_roofs; i++)
        if (bench->roofs[i].wanted == threads)
            return &bench->roofs[i];
    return NULL;
}

static void measure_roofs(struct bench *bench, bool tiles, int threads)
{
    if (find_roofs(bench, threads))
        return;
    struct bench_roofs *roofs = &bench->roofs[bench->n_roofs++];
    roofs->wanted = threads;
    roofs->threads = bench_start(threads);
    roofs->roofs = roofs_measure(tiles, roof_seconds);
    bench_stop();
}

static void measure_all_roofs(struct bench *bench)
{
    const struct bench_options *o = &bench->options->bench;
    bool tiles = roofs_have_tiles();
    for (int i = 0; i < o->threads.n; i++)
        measure_roofs(bench, tiles, o->threads.values[i]);
    for (int i = 0; i < o->threads_batch.n; i++)
        if (o->threads_batch.values[i])
            measure_roofs(bench, tiles, o->threads_batch.values[i]);
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static void random_ids(struct bench *bench, int32_t *ids, int n, uint32_t n_vocab)
{
    for (int i = 0; i < n; i++) { /* xorshift64 */
        bench->random ^= bench->random << 13;
        bench->random ^= bench->random >> 7;
        bench->random ^= bench->random << 17;
        ids[i] = (int32_t)(bench->random % n_vocab);
    }
}

/* Seconds for n random tokens after the session's first `depth`, together or one by one; negative:
 * a code. */
static double time_tokens(struct bench *bench, const struct setup *setup, tsr_session *session,
                          int depth, int n, bool one_by_one, int32_t *ids)
{
    random_ids(bench, ids, n, setup->info.n_vocab);
    int code = tsr_session_rewind(session, (uint32_t)depth);
    int step = one_by_one ? 1 : n;
    double start = now();
    for (int i = 0; i < n && !code; i += step)
        code = tsr_session_eval(session, ids + i, (size_t)step, NULL);
    return code ? code : now() - start;
}

static void summarise(struct bench_result *result, double *rates, int n)
{
    double sum = 0.0, squares = 0.0;
    result->median = bench_median(rates, n); /* sorts */
    for (int i = 0; i < n; i++)
        sum += rates[i];
    result->mean = sum / n;
    for (int i = 0; i < n; i++)
        squares += (rates[i] - result->mean) * (rates[i] - result->mean);
    result->deviation = n > 1 ? sqrt(squares / (n - 1)) : 0.0;
    result->least = rates[0];
    result->most = rates[n - 1];
}

static void take_profile(tsr_session *session, struct bench_result *result)
{
    size_t n = tsr_session_profile(session, result->phases, MAX_PHASES);
    result->n_phases = n < MAX_PHASES ? (int)n : MAX_PHASES;
}

static int run_test(struct bench *bench, const struct setup *setup, tsr_session *session, int depth,
                    int n, bool generate, int32_t *ids)
{
    const struct bench_options *o = &bench->options->bench;
    int threads = setup->options.n_threads;
    if (!generate && setup->options.n_threads_batch)
        threads = setup->options.n_threads_batch;
    struct bench_result result = {
        .isa = setup->info.isa,
        .kv_type = kv_type_names[setup->options.kv_type],
        .threads = generate ? setup->info.n_threads : setup->info.n_threads_batch,
        .batch = setup->options.n_batch,
        .n_prompt = generate ? 0 : n,
        .n_gen = generate ? n : 0,
        .depth = depth,
        .repeats = o->repeats,
        .load_seconds = setup->load_seconds,
        .roofs = find_roofs(bench, threads),
    };
    double *rates = malloc((size_t)o->repeats * sizeof *rates);
    if (!rates)
        return fail(bench->options->command, "out of memory");
    int warm_up = generate && n > WARM_UP_TOKENS ? WARM_UP_TOKENS : n;
    double seconds = time_tokens(bench, setup, session, depth, warm_up, generate, ids);
    take_profile(session, &result); /* that of the warm-up */
    for (int r = 0; r < o->repeats && seconds >= 0.0; r++) {
        seconds = time_tokens(bench, setup, session, depth, n, generate, ids);
        rates[r] = n / seconds;
        result.thread_seconds += seconds * result.threads;
    }
    if (seconds >= 0.0) {
        take_profile(session, &result);
        summarise(&result, rates, o->repeats);
        result.peak_bytes = setup->knows_peak ? process_bytes("VmHWM") : 0;
        bench_report_result(&bench->report, &result);
    }
    free(rates);
    return seconds < 0.0 ? engine_failed(bench->options, setup->engine, (int)seconds) : EXIT_DONE;
}

static int largest(const struct number_list *list)
{
    int most = 0;
    for (int i = 0; i < list->n; i++)
        most = list->values[i] > most ? list->values[i] : most;
    return most;
}

/* All prompts and generations after `depth` tokens, which are evaluated once. */
static int run_depth(struct bench *bench, struct setup *setup, int depth)
{
    const struct bench_options *o = &bench->options->bench;
    int n_prompt = largest(&o->n_prompt), n_gen = largest(&o->n_gen);
    int n = n_prompt > n_gen ? n_prompt : n_gen;
    int n_ids = n > depth ? n : depth;
    if (n == 0)
        return EXIT_DONE;
    setup->options.n_ctx = depth + n;
    tsr_session *session;
    int32_t *ids = malloc((size_t)n_ids * sizeof *ids);
    if (!ids)
        return fail(bench->options->command, "out of memory");
    int status = open_session(&setup->options, setup->engine, &session);
    if (status == EXIT_DONE)
        interrupt_watch(session);
    if (status == EXIT_DONE && depth) {
        random_ids(bench, ids, depth, setup->info.n_vocab);
        int code = tsr_session_eval(session, ids, (size_t)depth, NULL);
        status = code ? engine_failed(bench->options, setup->engine, code) : EXIT_DONE;
    }
    for (int i = 0; i < o->n_prompt.n && status == EXIT_DONE; i++)
        if (o->n_prompt.values[i])
            status = run_test(bench, setup, session, depth, o->n_prompt.values[i], false, ids);
    for (int i = 0; i < o->n_gen.n && status == EXIT_DONE; i++)
        if (o->n_gen.values[i])
            status = run_test(bench, setup, session, depth, o->n_gen.values[i], true, ids);
    interrupt_watch(NULL);
    tsr_session_close(session);
    free(ids);
    return status;
}

/* All kinds and depths of contexts, with one size of batches. */
static int run_contexts(struct bench *bench, struct setup *setup)
{
    const struct bench_options *o = &bench->options->bench;
    int status = EXIT_DONE;
    for (int kv = 0; kv < o->kv_types.n; kv++)
        for (int d = 0; d < o->depths.n && status == EXIT_DONE; d++) {
            setup->options.kv_type = o->kv_types.values[kv];
            status = run_depth(bench, setup, o->depths.values[d]);
        }
    return status;
}

/* Opens the model with one instruction set and number of threads, and runs all tests. */
static int run_setup(struct bench *bench, int isa, int threads, int threads_batch)
{
    const struct bench_options *o = &bench->options->bench;
    struct setup setup = {.options = *bench->options, .info = {.struct_size = sizeof setup.info}};
    setup.options.model = bench->path;
    setup.options.isa = isa;
    setup.options.n_threads = threads;
    setup.options.n_threads_batch = threads_batch;
    setup.knows_peak = reset_peak();
    double start = now();
    int status = open_engine(&setup.options, false, &setup.engine);
    if (status != EXIT_DONE)
        return status;
    setup.load_seconds = now() - start;
    tsr_engine_info(setup.engine, &setup.info);
    describe_model(bench, &setup.info);
    for (int b = 0; b < o->batches.n; b++)
        for (int ub = 0; ub < o->ubatches.n && status == EXIT_DONE; ub++) {
            setup.options.n_batch = options_batch(o->batches.values[b], o->ubatches.values[ub]);
            status = run_contexts(bench, &setup);
        }
    struct bench_load load = {
        .isa = setup.info.isa,
        .threads = setup.info.n_threads,
        .threads_batch = setup.info.n_threads_batch,
        .seconds = setup.load_seconds,
        .peak_bytes = setup.knows_peak ? process_bytes("VmHWM") : 0,
    };
    bench_report_load(&bench->report, &load);
    tsr_engine_close(setup.engine);
    return status;
}

static int run_all(struct bench *bench)
{
    const struct bench_options *o = &bench->options->bench;
    int status = EXIT_DONE;
    if (!read_directory(bench))
        return EXIT_FAILED;
    measure_all_roofs(bench);
    bench_report_start(&bench->report, bench->roofs, bench->n_roofs);
    for (int i = 0; i < o->isas.n; i++)
        for (int t = 0; t < o->threads.n; t++)
            for (int tb = 0; tb < o->threads_batch.n && status == EXIT_DONE; tb++)
                status = run_setup(bench, o->isas.values[i], o->threads.values[t],
                                   o->threads_batch.values[tb]);
    bench_report_finish(&bench->report);
    json_decref(bench->file);
    return status;
}

/* ---- The command ----------------------------------------------------------------------------- */

int command_bench(const struct options *options)
{
    static struct bench bench; /* large */
    bench = (struct bench){.options = options, .random = 88172645463325252u};
    bench.report = (struct bench_report){.format = (enum bench_format)options->bench.format,
                                         .model = &bench.model};
    if (options->bench.profile && options->bench.format == BENCH_CSV)
        return usage_error(options->command, "--profile needs -o md or -o json");
    interrupt_catch();
    int fd, status = model_or_shape(options, bench.path, sizeof bench.path, &fd);
    if (status == EXIT_DONE)
        status = run_all(&bench);
    if (fd >= 0)
        close(fd);
    return status;
}
