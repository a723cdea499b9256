/* The report of tessera bench: a table in Markdown, lines of CSV, or a JSON array. CSV and JSON
 * have the same fields, in units of one. */
#include <stdio.h>
#include <string.h>

#include "cli/bench.h"

static const double gib = 1 << 30;

/* "pp512 @ d8192", as llama-bench has it. */
static void test_name(const struct bench_result *result, char *name, size_t size)
{
    int len = snprintf(name, size, "%s%d", result->n_gen ? "tg" : "pp",
                       result->n_gen ? result->n_gen : result->n_prompt);
    if (result->depth)
        snprintf(name + len, size - (size_t)len, " @ d%d", result->depth);
}

/* ---- Percent of the roofs; negative where there is none ---- */

static double percent(double rate, double roof)
{
    return roof > 0.0 ? 100.0 * rate / roof : -1.0;
}

static double percent_read(const struct bench_model *model, const struct bench_result *result)
{
    double bytes = result->median * (double)model->token_bytes;
    return result->n_gen ? percent(bytes, result->roofs->roofs.read) : -1.0;
}

static double percent_tiles(const struct bench_model *model, const struct bench_result *result,
                            double roof)
{
    double flop = result->median * (double)model->token_flop;
    return result->n_gen ? -1.0 : percent(flop, roof);
}

/* ---- Phases ---- */

/* Percent of the time of all threads; what no phase has is the time between evaluations. */
static json_t *phases_array(const struct bench_result *result)
{
    json_t *array = json_array();
    double rest = result->thread_seconds;
    for (int i = 0; i < result->n_phases; i++) {
        const struct tsr_phase_time *phase = &result->phases[i];
        json_array_append_new(
            array, json_pack("{s:s, s:f, s:f}", "phase", phase->name, "percent_work",
                             percent(phase->work_seconds, result->thread_seconds), "percent_wait",
                             percent(phase->wait_seconds, result->thread_seconds)));
        rest -= phase->work_seconds + phase->wait_seconds;
    }
    json_array_append_new(array, json_pack("{s:s, s:f, s:f}", "phase", "between evaluations",
                                           "percent_work", 0.0, "percent_wait",
                                           percent(rest > 0.0 ? rest : 0.0,
                                                   result->thread_seconds)));
    return array;
}

static void print_profile(const json_t *profile)
{
    size_t i;
    json_t *phase;
    double work = 0.0, wait = 0.0;
    output_format("\n| %s | %% work | %% waiting |\n| --- | ---: | ---: |\n",
                  json_string_value(json_object_get(profile, "title")));
    json_array_foreach(json_object_get(profile, "phases"), i, phase)
    {
        double own_work = json_real_value(json_object_get(phase, "percent_work"));
        double own_wait = json_real_value(json_object_get(phase, "percent_wait"));
        output_format("| %s | %.1f | %.1f |\n", json_string_value(json_object_get(phase, "phase")),
                      own_work, own_wait);
        work += own_work;
        wait += own_wait;
    }
    output_format("| all | %.1f | %.1f |\n", work, wait);
}

/* Kept until the table is complete. */
static void keep_profile(struct bench_report *report, const struct bench_result *result)
{
    char test[64], title[256];
    test_name(result, test, sizeof test);
    snprintf(title, sizeof title, "%s, %s, %d threads, batch %d, kv %s", test, result->isa,
             result->threads, result->batch, result->kv_type);
    json_array_append_new(report->profiles, json_pack("{s:s, s:o}", "title", title, "phases",
                                                      phases_array(result)));
}

/* ---- The fields of a result ---- */

/* null where a value is not known. */
static void set_real(json_t *object, const char *key, double value, bool known)
{
    json_object_set_new(object, key, known ? json_real(value) : json_null());
}

static void set_text(json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key, json_text(text, strlen(text)));
}

static void set_tiles(json_t *object, const char *type, const struct tile_roofs *roofs)
{
    const struct {
        const char *name;
        double value;
    } fields[] = {{"alone", roofs->alone}, {"l1", roofs->l1}, {"l2", roofs->l2},
                  {"memory", roofs->memory}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        char key[32];
        snprintf(key, sizeof key, "roof_%s_%s", type, fields[i].name);
        set_real(object, key, fields[i].value, roofs->alone > 0.0);
    }
}

static json_t *result_object(const struct bench_model *model, const struct bench_result *result)
{
    char test[64];
    const struct roofs *roofs = &result->roofs->roofs;
    json_t *object = json_object();
    double read = percent_read(model, result);
    double alone = percent_tiles(model, result, roofs->bf16.alone);
    double packed = percent_tiles(model, result, roofs->bf16.l2);
    test_name(result, test, sizeof test);
    set_text(object, "version", tsr_version());
    set_text(object, "model", model->name);
    set_text(object, "type", model->type);
    json_object_set_new(object, "bytes", json_integer((json_int_t)model->bytes));
    json_object_set_new(object, "params", json_integer((json_int_t)model->params));
    set_text(object, "isa", result->isa);
    json_object_set_new(object, "threads", json_integer(result->threads));
    json_object_set_new(object, "batch", json_integer(result->batch));
    set_text(object, "kv_type", result->kv_type);
    set_text(object, "test", test);
    json_object_set_new(object, "n_prompt", json_integer(result->n_prompt));
    json_object_set_new(object, "n_gen", json_integer(result->n_gen));
    json_object_set_new(object, "depth", json_integer(result->depth));
    json_object_set_new(object, "repeats", json_integer(result->repeats));
    set_real(object, "tps_median", result->median, true);
    set_real(object, "tps_mean", result->mean, true);
    set_real(object, "tps_stddev", result->deviation, true);
    set_real(object, "tps_min", result->least, true);
    set_real(object, "tps_max", result->most, true);
    set_real(object, "load_seconds", result->load_seconds, true);
    json_object_set_new(object, "peak_bytes",
                        result->peak_bytes ? json_integer((json_int_t)result->peak_bytes)
                                           : json_null());
    json_object_set_new(object, "token_bytes", json_integer((json_int_t)model->token_bytes));
    json_object_set_new(object, "token_flop", json_integer((json_int_t)model->token_flop));
    set_real(object, "roof_read", roofs->read, true);
    set_tiles(object, "bf16", &roofs->bf16);
    set_tiles(object, "int8", &roofs->int8);
    set_real(object, "percent_read", read, read >= 0.0);
    set_real(object, "percent_tiles", alone, alone >= 0.0);
    set_real(object, "percent_packed_l2", packed, packed >= 0.0);
    if (result->n_phases)
        json_object_set_new(object, "phases", phases_array(result));
    return object;
}

/* ---- CSV ---- */

static void print_csv_text(const char *text)
{
    output_bytes("\"", 1);
    for (; *text; text++)
        output_format(*text == '"' ? "\"\"" : "%c", *text);
    output_bytes("\"", 1);
}

static void print_csv(const json_t *object, bool header)
{
    const char *key;
    json_t *value;
    bool first = true;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        output_format("%s", first ? "" : ",");
        first = false;
        if (header)
            output_format("%s", key);
        else if (json_is_string(value))
            print_csv_text(json_string_value(value));
        else if (json_is_integer(value))
            output_format("%lld", (long long)json_integer_value(value));
        else if (json_is_real(value))
            output_format("%.6g", json_real_value(value));
    }
    output_bytes("\n", 1);
}

/* ---- Markdown ---- */

static void print_tiles(const char *type, const struct tile_roofs *roofs)
{
    output_format("; %s tiles alone %.0f, packed from L1 %.0f, L2 %.0f, memory %.0f GOP/s", type,
                  roofs->alone * 1e-9, roofs->l1 * 1e-9, roofs->l2 * 1e-9, roofs->memory * 1e-9);
}

static void print_roofs(const struct bench_roofs *roofs)
{
    output_format("roofs, %d thread%s: streaming read %.1f GB/s", roofs->threads,
                  roofs->threads == 1 ? "" : "s", roofs->roofs.read * 1e-9);
    if (roofs->roofs.bf16.alone > 0.0) {
        print_tiles("bf16", &roofs->roofs.bf16);
        print_tiles("int8", &roofs->roofs.int8);
    } else {
        output_format("; no AMX tiles");
    }
    output_bytes("\n", 1);
}

static void print_percent(double value)
{
    if (value < 0.0)
        output_format(" - |");
    else
        output_format(" %.1f |", value);
}

static void print_row(const struct bench_model *model, const struct bench_result *result,
                      bool header)
{
    const struct roofs *roofs = &result->roofs->roofs;
    char test[64];
    if (header)
        output_format("\n| model | size | params | isa | threads | batch | kv | test | t/s | "
                      "%% read | %% tiles | %% L2 |\n"
                      "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: "
                      "| ---: |\n");
    test_name(result, test, sizeof test);
    output_format("| %s %s | %.2f GiB | %.2f B | %s | %d | %d | %s | %s | %.2f \u00b1 %.2f |",
                  model->name, model->type, (double)model->bytes / gib,
                  (double)model->params * 1e-9, result->isa, result->threads, result->batch,
                  result->kv_type, test, result->median, result->deviation);
    print_percent(percent_read(model, result));
    print_percent(percent_tiles(model, result, roofs->bf16.alone));
    print_percent(percent_tiles(model, result, roofs->bf16.l2));
    output_bytes("\n", 1);
}

/* ---- The report ---- */

void bench_report_start(struct bench_report *report, const struct bench_roofs *roofs, int n_roofs)
{
    if (report->format == BENCH_JSON)
        report->results = json_array();
    else
        report->profiles = json_array();
    if (report->format != BENCH_MD)
        return;
    for (int i = 0; i < n_roofs; i++)
        print_roofs(&roofs[i]);
    output_flush();
}

void bench_report_result(struct bench_report *report, const struct bench_result *result)
{
    bool first = report->n_results++ == 0;
    if (report->format == BENCH_MD) {
        print_row(report->model, result, first);
        if (result->n_phases)
            keep_profile(report, result);
        output_flush();
        return;
    }
    json_t *object = result_object(report->model, result);
    if (report->format == BENCH_JSON) {
        json_array_append_new(report->results, object);
        return;
    }
    if (first)
        print_csv(object, true);
    print_csv(object, false);
    output_flush();
    json_decref(object);
}

void bench_report_load(struct bench_report *report, const struct bench_load *load)
{
    if (report->n_loads < MAX_LOADS)
        report->loads[report->n_loads++] = *load;
}

static void print_load(const struct bench_load *load)
{
    output_format("%s, %d and %d threads: loaded in %.2f s", load->isa, load->threads,
                  load->threads_batch, load->seconds);
    if (load->peak_bytes)
        output_format("; peak memory %.2f GiB", (double)load->peak_bytes / gib);
    output_bytes("\n", 1);
}

void bench_report_finish(struct bench_report *report)
{
    const struct bench_model *model = report->model;
    if (report->format == BENCH_MD && report->n_results) {
        output_format("\na token: %.3f GB of weights, %.3f GFLOP in a prompt; t/s: median \u00b1 "
                      "standard deviation\n",
                      (double)model->token_bytes * 1e-9, (double)model->token_flop * 1e-9);
        for (int i = 0; i < report->n_loads; i++)
            print_load(&report->loads[i]);
        for (size_t i = 0; i < json_array_size(report->profiles); i++)
            print_profile(json_array_get(report->profiles, i));
    }
    if (report->format == BENCH_JSON)
        output_json(report->results);
    json_decref(report->results);
    json_decref(report->profiles);
}
