/* tessera perplexity: how well a model predicts a text, and how far its predictions are from those
 * of another model, or of the same in another form.
 *
 * As llama.cpp's llama-perplexity does it, so that figures can be compared: the ids are cut into
 * chunks of -c, each evaluated by itself, its first id replaced by the BOS token where the model
 * asks for one; the second half of a chunk counts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/interrupt.h"
#include "cli/logits_file.h"
#include "cli/prediction.h"
#include "cli/progress.h"

enum { DEFAULT_CTX = 512, MOST_ROWS = 512 };

struct tally {
    double sum, squares;
};

struct perplexity {
    const struct options *options;
    tsr_engine *engine;
    tsr_session *session;
    struct tsr_engine_info info;
    int32_t bos; /* -1: chunks begin with their own id */
    struct logits_file file;
    bool has_base, saves;           /* the file is read, or written */
    float *logits;                  /* [MOST_ROWS, n_vocab] */
    uint16_t *codes;                /* [chunk_rows, log_row_codes] of the file */
    struct prediction *predictions; /* [n_chunks, chunk_rows] */
    size_t n;                       /* predictions so far */
};

/* ---- Evaluation ------------------------------------------------------------------------------ */

/* Positions [begin, end) of a chunk, all in the second half, whose logits are there. */
static void predict_rows(struct perplexity *p, const int32_t *ids, int begin, int end,
                         const float *logits)
{
    int first = p->file.n_ctx / 2;
    uint16_t *codes = p->codes + (size_t)(begin - first) * log_row_codes(p->file.n_vocab);
    struct predictions rows = {
        .logits = logits,
        .next = ids + begin + 1,
        .base = p->has_base ? codes : NULL,
        .save = p->saves ? codes : NULL,
        .out = p->predictions + p->n,
        .n = end - begin,
        .n_vocab = p->file.n_vocab,
    };
    predict(&rows, p->info.n_threads_batch);
    p->n += (size_t)rows.n;
}

/* Positions [begin, end) of a chunk; the logits of those that count are looked at. */
static int eval_positions(struct perplexity *p, const int32_t *ids, int begin, int end)
{
    int first = p->file.n_ctx / 2;
    float *logits = end > first ? p->logits : NULL;
    int32_t start[MOST_ROWS];
    const int32_t *input = ids + begin;
    if (begin == 0 && p->bos >= 0) {
        memcpy(start, ids, (size_t)end * sizeof *ids);
        start[0] = p->bos;
        input = start;
    }
    int code = tsr_session_eval(p->session, input, (size_t)(end - begin), logits);
    if (code < 0)
        return engine_failed(p->options, p->engine, code);
    int from = begin > first ? begin : first;
    if (end > from)
        predict_rows(p, ids, from, end,
                     p->logits + (size_t)(from - begin) * (size_t)p->file.n_vocab);
    return EXIT_DONE;
}

static int eval_chunk(struct perplexity *p, const int32_t *ids)
{
    int n = p->file.n_ctx - 1; /* what follows the last is not known */
    if (p->has_base && !logits_file_read(p->options, &p->file, p->codes))
        return EXIT_FAILED;
    int status = EXIT_DONE;
    tsr_session_rewind(p->session, 0);
    for (int begin = 0; begin < n && status == EXIT_DONE; begin += MOST_ROWS)
        status = eval_positions(p, ids, begin, n - begin < MOST_ROWS ? n : begin + MOST_ROWS);
    if (status == EXIT_DONE && p->saves && !logits_file_write(p->options, &p->file, p->codes))
        return EXIT_FAILED;
    return status;
}

static int eval_chunks(struct perplexity *p)
{
    int status = EXIT_DONE;
    double sum = 0;
    char stage[64] = "perplexity:";
    interrupt_watch(p->session);
    progress_only(stage);
    for (int i = 0; i < p->file.n_chunks && status == EXIT_DONE; i++) {
        progress_report(NULL, stage, (uint64_t)i, (uint64_t)p->file.n_chunks);
        size_t before = p->n;
        status = eval_chunk(p, p->file.ids + (size_t)i * (size_t)p->file.n_ctx);
        for (size_t row = before; row < p->n; row++)
            sum += p->predictions[row].nll;
        snprintf(stage, sizeof stage, "perplexity so far %.4f:", exp(sum / (double)p->n));
    }
    interrupt_watch(NULL);
    progress_only(NULL);
    progress_clear();
    return status;
}

/* ---- Results --------------------------------------------------------------------------------- */

static void count(struct tally *tally, double value)
{
    tally->sum += value;
    tally->squares += value * value;
}

static double mean(const struct tally *tally, size_t n)
{
    return tally->sum / (double)n;
}

/* The standard error of the mean. */
static double mean_error(const struct tally *tally, size_t n)
{
    double m = mean(tally, n), variance = tally->squares / (double)n - m * m;
    return n > 1 && variance > 0 ? sqrt(variance / (double)(n - 1)) : 0;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static json_t *perplexity_json(const struct tally *nll, size_t n)
{
    double value = exp(mean(nll, n));
    return json_pack("{s:f, s:f}", "perplexity", value, "error", value * mean_error(nll, n));
}

/* "kl_divergence" and so on, from all predictions. */
static json_t *base_json(const struct perplexity *p)
{
    struct tally nll_base = {0}, kl = {0}, same = {0}, change = {0};
    double *sorted = malloc(p->n * sizeof *sorted);
    if (!sorted)
        return NULL;
    for (size_t i = 0; i < p->n; i++) {
        const struct prediction *one = &p->predictions[i];
        count(&nll_base, one->nll_base);
        count(&kl, one->kl);
        count(&same, one->same_top);
        count(&change, exp(-one->nll) - exp(-one->nll_base));
        sorted[i] = one->kl;
    }
    qsort(sorted, p->n, sizeof *sorted, ascending);
    json_t *json = json_pack(
        "{s:o, s:{s:f, s:f, s:f, s:f, s:f}, s:{s:f, s:f}, s:f}", "base",
        perplexity_json(&nll_base, p->n), "kl_divergence", "mean", mean(&kl, p->n), "error",
        mean_error(&kl, p->n), "median", sorted[p->n / 2], "p99", sorted[p->n * 99 / 100], "max",
        sorted[p->n - 1], "same_top", "share", mean(&same, p->n), "error", mean_error(&same, p->n),
        "probability_rms_change", sqrt(change.squares / (double)p->n));
    free(sorted);
    return json;
}

static json_t *results_json(const struct perplexity *p)
{
    struct tally nll = {0};
    for (size_t i = 0; i < p->n; i++)
        count(&nll, p->predictions[i].nll);
    json_t *json = perplexity_json(&nll, p->n), *counts;
    counts = json_pack("{s:i, s:i, s:I}", "chunks", p->file.n_chunks, "n_ctx", p->file.n_ctx,
                       "predictions", (json_int_t)p->n);
    bool complete = json && counts && !json_object_update(json, counts);
    json_decref(counts);
    if (complete && p->has_base) {
        json_t *base = base_json(p);
        complete = base && !json_object_update(json, base);
        json_decref(base);
    }
    if (complete)
        return json;
    json_decref(json);
    return NULL;
}

static double number(const json_t *json, const char *object, const char *key)
{
    return json_number_value(json_object_get(object ? json_object_get(json, object) : json, key));
}

static void print_results(const struct perplexity *p, const json_t *json)
{
    output_format("perplexity %.4f ± %.4f (%d chunks of %d tokens, %zu predictions)\n",
                  number(json, NULL, "perplexity"), number(json, NULL, "error"), p->file.n_chunks,
                  p->file.n_ctx, p->n);
    if (!p->has_base)
        return;
    output_format("of the base %.4f ± %.4f\n", number(json, "base", "perplexity"),
                  number(json, "base", "error"));
    output_format("KL divergence from the base %.6f ± %.6f; median %.6f, 99%% %.6f, largest %.6f\n",
                  number(json, "kl_divergence", "mean"), number(json, "kl_divergence", "error"),
                  number(json, "kl_divergence", "median"), number(json, "kl_divergence", "p99"),
                  number(json, "kl_divergence", "max"));
    output_format("same likeliest token %.3f%% ± %.3f%%\n", 100 * number(json, "same_top", "share"),
                  100 * number(json, "same_top", "error"));
    output_format("probability of the token that follows: changed by %.3f%%, root mean square\n",
                  100 * number(json, NULL, "probability_rms_change"));
}

static int report(const struct perplexity *p)
{
    json_t *json = results_json(p);
    if (!json)
        return fail(p->options->command, "out of memory, or results that are no numbers");
    if (p->options->json)
        output_json(json);
    else
        print_results(p, json);
    json_decref(json);
    return EXIT_DONE;
}

/* ---- Input ----------------------------------------------------------------------------------- */

/* The ids of -f, cut to whole chunks. */
static int read_text(struct perplexity *p)
{
    const struct options *options = p->options;
    int status;
    size_t len, n_ids;
    char *text = read_input(options, &len, &status);
    if (!text)
        return status;
    p->file.ids = tokenize_text(options, p->engine, text, len, TSR_TOKENIZE_BOS, &n_ids);
    free(text);
    if (!p->file.ids)
        return EXIT_FAILED;
    p->file.n_ctx =
        option_given(options, OPT_CTX_SIZE) && options->n_ctx ? options->n_ctx : DEFAULT_CTX;
    p->file.n_vocab = (int)p->info.n_vocab;
    if (p->file.n_ctx < 4)
        return fail(options->command, "-c %d: chunks have at least 4 tokens", p->file.n_ctx);
    size_t n_chunks = n_ids / (size_t)p->file.n_ctx;
    if (!n_chunks)
        return fail(options->command,
                    "%zu tokens are less than a chunk of %d: use a longer text or a smaller -c",
                    n_ids, p->file.n_ctx);
    p->file.n_chunks = n_chunks < INT32_MAX ? (int)n_chunks : INT32_MAX;
    return EXIT_DONE;
}

/* The ids of the base's file, which must be of this model's vocabulary. */
static int read_base(struct perplexity *p)
{
    const struct options *options = p->options;
    if (!logits_file_open(options, &p->file))
        return EXIT_FAILED;
    if (p->file.n_vocab != (int)p->info.n_vocab)
        return fail(options->command, "%s: of a model with %d tokens, this has %u", p->file.path,
                    p->file.n_vocab, p->info.n_vocab);
    if (option_given(options, OPT_CTX_SIZE) && options->n_ctx != p->file.n_ctx)
        return fail(options->command, "-c %d: %s has chunks of %d", options->n_ctx, p->file.path,
                    p->file.n_ctx);
    return EXIT_DONE;
}

/* The BOS token, where the model wants texts to begin with it: what an empty text becomes. */
static int32_t find_bos(const tsr_engine *engine)
{
    int32_t id;
    return tsr_tokenize(engine, "", 0, TSR_TOKENIZE_BOS, &id, 1) == 1 ? id : -1;
}

static int make_room(struct perplexity *p)
{
    size_t n_rows = (size_t)chunk_rows(p->file.n_ctx);
    size_t n_logits = (size_t)(p->file.n_ctx < MOST_ROWS ? p->file.n_ctx : MOST_ROWS);
    p->logits = calloc(n_logits * p->info.n_vocab, sizeof *p->logits);
    p->predictions = calloc((size_t)p->file.n_chunks * n_rows, sizeof *p->predictions);
    if (p->has_base || p->saves)
        p->codes = calloc(n_rows * log_row_codes(p->file.n_vocab), sizeof *p->codes);
    if (!p->logits || !p->predictions || ((p->has_base || p->saves) && !p->codes))
        return fail(p->options->command, "out of memory");
    return EXIT_DONE;
}

static int run(struct perplexity *p)
{
    const struct options *options = p->options;
    p->info.struct_size = sizeof p->info;
    tsr_engine_info(p->engine, &p->info);
    p->bos = find_bos(p->engine);
    int status = p->has_base ? read_base(p) : read_text(p);
    if (status != EXIT_DONE)
        return status;
    if (options->n_chunks && options->n_chunks < p->file.n_chunks)
        p->file.n_chunks = options->n_chunks;
    struct options sized = *options;
    sized.n_ctx = p->file.n_ctx;
    status = open_session(&sized, p->engine, &p->session);
    if (status == EXIT_DONE)
        status = make_room(p);
    if (status == EXIT_DONE && p->saves && !logits_file_create(options, &p->file))
        status = EXIT_FAILED;
    if (status == EXIT_DONE)
        status = eval_chunks(p);
    return status;
}

int command_perplexity(const struct options *options)
{
    if (options->kl_divergence && !options->kl_base)
        return usage_error(options->command, "--kl-divergence needs --kl-divergence-base FILE");
    if (options->kl_divergence && options->file)
        return usage_error(options->command,
                           "--kl-divergence takes the text of its base: leave out -f");
    struct perplexity p = {
        .options = options,
        .has_base = options->kl_divergence,
        .saves = options->kl_base && !options->kl_divergence,
        .file.path = options->kl_base,
    };
    interrupt_catch();
    int status = open_engine(options, false, &p.engine);
    if (status == EXIT_DONE)
        status = run(&p);
    if (!logits_file_close(options, &p.file) && status == EXIT_DONE)
        status = EXIT_FAILED;
    if (status == EXIT_DONE)
        status = report(&p);
    tsr_session_close(p.session);
    tsr_engine_close(p.engine);
    free(p.logits);
    free(p.codes);
    free(p.predictions);
    return status;
}
