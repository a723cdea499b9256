/* tessera calibrate, and the flag --calibration of other commands. */
#include "cli/calibrate.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/interrupt.h"
#include "cli/progress.h"

/* ---- Files ----------------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static int set_error(struct tsr_error *error, int code,
                                                           const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    return error->code = code;
}

/* A calibration that is being written beside the file whose place it takes once it is complete. */
struct output {
    const char *path;
    char temporary[4096];
    FILE *file; /* NULL: none */
};

/* Before the work of measuring is done. */
static int begin_output(struct output *output, const char *path, struct tsr_error *error)
{
    const size_t size = sizeof output->temporary;
    output->path = path;
    if ((size_t)snprintf(output->temporary, size, "%s.%d.tmp", path, (int)getpid()) >= size)
        return set_error(error, TSR_EINVAL, "%.100s...: the path is too long", path);
    output->file = fopen(output->temporary, "w");
    if (!output->file)
        return set_error(error, TSR_EIO, "%s: %s", path, strerror(errno));
    return TSR_OK;
}

/* json NULL: there is none, and the file stays what it was. */
static int finish_output(struct output *output, const char *json, struct tsr_error *error)
{
    bool written = json && fputs(json, output->file) >= 0 && fputc('\n', output->file) >= 0;
    written = fclose(output->file) == 0 && written;
    if (written && rename(output->temporary, output->path) == 0)
        return TSR_OK;
    int saved = errno;
    unlink(output->temporary);
    return json ? set_error(error, TSR_EIO, "%s: %s", output->path, strerror(saved)) : TSR_OK;
}

/* The file's text, owned by the caller; "" where there is no file. */
static int read_calibration(const char *path, char **text, struct tsr_error *error)
{
    enum { MOST = 1 << 20 };
    *text = calloc(1, MOST);
    if (!*text)
        return set_error(error, TSR_ENOMEM, "out of memory");
    FILE *file = fopen(path, "r");
    if (!file && errno == ENOENT)
        return TSR_OK;
    size_t len = file ? fread(*text, 1, MOST, file) : 0;
    bool failed = !file || ferror(file);
    int saved = errno;
    if (file)
        fclose(file);
    if (!failed && len && len < MOST)
        return TSR_OK;
    free(*text);
    *text = NULL;
    return failed ? set_error(error, TSR_EIO, "%s: %s", path, strerror(saved))
                  : set_error(error, TSR_EFORMAT, "%s: no calibration: remove it to measure anew",
                              path);
}

/* ---- The flag -------------------------------------------------------------------------------- */

/* Opens the engine without a calibration, and makes one. */
static int measure(const struct options *options, const struct tsr_settings *settings,
                   tsr_engine **engine, struct tsr_error *error)
{
    struct output output;
    char *json = NULL;
    int code = begin_output(&output, options->calibration, error);
    if (code)
        return code;
    code = tsr_engine_open(settings, engine, error);
    if (!code)
        code = tsr_engine_calibrate(*engine, 0, &json, error);
    int written = finish_output(&output, json, error);
    tsr_free(json);
    if (code || written) {
        tsr_engine_close(*engine);
        *engine = NULL;
    }
    return code ? code : written;
}

int calibration_open(const struct options *options, struct tsr_settings *settings,
                     tsr_engine **engine, struct tsr_error *error)
{
    char *text;
    *engine = NULL;
    int code = read_calibration(options->calibration, &text, error);
    if (code)
        return code;
    settings->calibration = text;
    code = text[0] ? tsr_engine_open(settings, engine, error)
                   : set_error(error, TSR_ESTALE, "--calibration: there is none yet");
    settings->calibration = NULL;
    free(text);
    if (code != TSR_ESTALE)
        return code;
    if (!options->quiet)
        note("%s: measuring, and writing it to %s", error->text, options->calibration);
    return measure(options, settings, engine, error);
}

/* ---- The command ----------------------------------------------------------------------------- */

static const char *text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static double number_at(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void print_rate(const json_t *rate, double chosen)
{
    bool is_chosen = number_at(rate, "threads") == chosen;
    output_format(" %.1f%s |", number_at(rate, "tokens_per_second"), is_chosen ? " *" : "");
}

static void print_threads(const json_t *result)
{
    const json_t *choice = json_object_get(result, "choice");
    const json_t *prompt = json_object_get(result, "prompt");
    const json_t *generation = json_object_get(result, "generation");
    const json_t *prompts = json_object_get(prompt, "threads");
    const json_t *generations = json_object_get(generation, "threads");
    output_format("| threads | prompt of %.0f, tokens/s | generation after %.0f, tokens/s |\n"
                  "|---:|---:|---:|\n",
                  number_at(prompt, "tokens"), number_at(generation, "depth"));
    for (size_t i = 0; i < json_array_size(prompts); i++) {
        const json_t *rate = json_array_get(prompts, i);
        output_format("| %.0f |", number_at(rate, "threads"));
        print_rate(rate, number_at(choice, "n_threads_batch"));
        print_rate(json_array_get(generations, i), number_at(choice, "n_threads"));
        output_format("\n");
    }
}

static void print_kernel(const json_t *kernel, const json_t *min_rows)
{
    const json_t *rates = json_object_get(kernel, "gflops");
    const json_t *chosen = json_object_get(min_rows, text_at(kernel, "type"));
    bool tiles = false;
    output_format("\n| rows, %s of %.0f x %.0f | tiles, GFLOP/s | vectors, GFLOP/s |\n"
                  "|---:|---:|---:|\n",
                  text_at(kernel, "type"), number_at(kernel, "n"), number_at(kernel, "k"));
    for (size_t i = 0; i < json_array_size(rates); i++) {
        const json_t *rate = json_array_get(rates, i);
        tiles = json_is_integer(chosen) && number_at(rate, "rows") >= json_number_value(chosen);
        output_format("| %.0f | %.0f%s | %.0f%s |\n", number_at(rate, "rows"),
                      number_at(rate, "tiles"), tiles ? " *" : "", number_at(rate, "vectors"),
                      tiles ? "" : " *");
    }
    output_format("\n%s: ", text_at(kernel, "name"));
    if (tiles)
        output_format("tiles from %.0f rows on", json_number_value(chosen));
    else
        output_format("no tiles");
    output_format(" (without calibration: from %.0f)\n", number_at(kernel, "default_min_rows"));
}

static void print_result(const json_t *result)
{
    const json_t *machine = json_object_get(result, "machine");
    const json_t *kernels = json_object_get(result, "kernels");
    const json_t *choice = json_object_get(result, "choice");
    output_format("%s, %.0f CPUs, %s%s; %s\n\n", text_at(machine, "cpu"),
                  number_at(machine, "cpus"), text_at(machine, "isa"),
                  json_is_true(json_object_get(machine, "emulated")) ? " (emulated)" : "",
                  text_at(json_object_get(result, "model"), "name"));
    print_threads(result);
    for (size_t i = 0; i < json_array_size(kernels); i++)
        print_kernel(json_array_get(kernels, i), json_object_get(choice, "min_rows"));
}

static int report(const struct options *options, const char *json)
{
    if (options->output && !strcmp(options->output, "-")) {
        output_format("%s\n", json);
        return EXIT_DONE;
    }
    json_t *result = json_loads(json, 0, NULL);
    if (!result)
        return fail(options->command, "out of memory");
    print_result(result);
    json_decref(result);
    return EXIT_DONE;
}

static int failed(const struct options *options, int code, const struct tsr_error *error)
{
    if (code == TSR_ECANCELED && interrupted())
        return EXIT_INTERRUPTED;
    return fail(options->command, "%s", error->text);
}

/* The options with a model whose path is known. */
static int calibrate(const struct options *options)
{
    tsr_engine *engine;
    struct tsr_error error = {0};
    struct output output = {0};
    char *json = NULL;
    if (options->output && strcmp(options->output, "-") != 0 &&
        begin_output(&output, options->output, &error))
        return fail(options->command, "%s", error.text);
    int status = open_engine(options, false, &engine);
    if (status == EXIT_DONE) {
        int code = tsr_engine_calibrate(engine, options->seconds, &json, &error);
        progress_clear();
        status = code ? failed(options, code, &error) : report(options, json);
        tsr_engine_close(engine);
    }
    if (output.file && finish_output(&output, json, &error))
        status = fail(options->command, "%s", error.text);
    tsr_free(json);
    return status;
}

int command_calibrate(const struct options *options)
{
    char path[4096];
    int fd;
    interrupt_catch();
    int status = model_or_shape(options, path, sizeof path, &fd);
    if (status != EXIT_DONE)
        return status;
    struct options with_model = *options;
    with_model.model = path;
    status = calibrate(&with_model);
    if (fd >= 0)
        close(fd);
    return status;
}
