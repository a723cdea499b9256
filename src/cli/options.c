/* The table of flags, and its parser on top of getopt_long_only. Names follow llama.cpp where it
 * has one. Whatever is not understood is refused with a line that names the flag. */
#include "cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"

enum value_kind {
    VALUE_NONE,
    VALUE_TEXT,
    VALUE_INT,
    VALUE_SEED,
    VALUE_REAL,
    VALUE_CHOICE,
    VALUE_LIST,
    VALUE_INTS,    /* several, separated by commas */
    VALUE_CHOICES, /* the same */
    VALUE_BUDGET
};

struct option_row {
    enum option_id id;
    const char *names[2]; /* "t" is -t, others take one dash or two; NULL where there is one only */
    enum value_kind kind;
    size_t offset; /* of the field in struct options; sets a bool for VALUE_NONE */
    double min, max;
    const char *value; /* how help shows it; for choices the words themselves: "a|b" */
    const char *help;
};

#define FIELD(name) offsetof(struct options, name)
#define BIG         2147483647.0

/* clang-format off */
static const struct option_row table[] = {
    {OPT_MODEL, {"m", "model"}, VALUE_TEXT, FIELD(model), 0, 0, "FILE", "GGUF model (default: $TESSERA_MODEL, or the small story writer that comes with tessera)"},
    {OPT_PROMPT, {"p", "prompt"}, VALUE_TEXT, FIELD(prompt), 0, 0, "TEXT", "the text; '-' reads standard input"},
    {OPT_FILE, {"f", "file"}, VALUE_TEXT, FIELD(file), 0, 0, "FILE", "reads the input from a file; '-' is standard input"},
    {OPT_N_PREDICT, {"n", "n-predict"}, VALUE_INT, FIELD(n_predict), -1, BIG, "N", "tokens to generate at most (-1, the default: until an end token or a full context)"},
    {OPT_CTX_SIZE, {"c", "ctx-size"}, VALUE_INT, FIELD(n_ctx), 0, BIG, "N", "positions of the context (0, the default: the model's own, 4096 at most)"},
    {OPT_BATCH_SIZE, {"b", "batch-size"}, VALUE_INT, FIELD(n_batch), 1, 65536, "N", "tokens evaluated at once at most (default 2048)"},
    {OPT_UBATCH_SIZE, {"ub", "ubatch-size"}, VALUE_INT, FIELD(n_ubatch), 0, 65536, "N", "the smaller of -b and -ub counts: for command lines of llama.cpp, which tells them apart (0, the default: -b)"},
    {OPT_THREADS, {"t", "threads"}, VALUE_INT, FIELD(n_threads), 0, 1024, "N", "threads for generation (0, the default: one for each usable core)"},
    {OPT_THREADS_BATCH, {"tb", "threads-batch"}, VALUE_INT, FIELD(n_threads_batch), 0, 1024, "N", "threads for prompts (0, the default: as -t)"},
    {OPT_TEMP, {"temp", NULL}, VALUE_REAL, FIELD(temp), 0, 1000, "X", "temperature; 0 takes the likeliest token always (default 0.8)"},
    {OPT_TOP_K, {"top-k", NULL}, VALUE_INT, FIELD(top_k), 0, BIG, "N", "draw from the N likeliest tokens (default 40; 0: off)"},
    {OPT_TOP_P, {"top-p", NULL}, VALUE_REAL, FIELD(top_p), 0, 1, "X", "draw from the likeliest tokens that make up this probability (default 0.95; 1: off)"},
    {OPT_MIN_P, {"min-p", NULL}, VALUE_REAL, FIELD(min_p), 0, 1, "X", "drop tokens below this share of the likeliest one (default 0.05; 0: off)"},
    {OPT_REPEAT_PENALTY, {"repeat-penalty", NULL}, VALUE_REAL, FIELD(repeat_penalty), 0.01, 100, "X", "penalty for tokens seen before (default 1: off)"},
    {OPT_REPEAT_LAST_N, {"repeat-last-n", NULL}, VALUE_INT, FIELD(repeat_last_n), -1, BIG, "N", "tokens the penalty looks back on (default 64; -1: the whole context)"},
    {OPT_SEED, {"s", "seed"}, VALUE_SEED, FIELD(seed), 0, 0, "N", "the same seed gives the same text (default: a new one each time)"},
    {OPT_IGNORE_EOS, {"ignore-eos", NULL}, VALUE_NONE, FIELD(ignore_eos), 0, 0, NULL, "do not stop at end tokens"},
    {OPT_PROMPT_CACHE, {"prompt-cache", NULL}, VALUE_TEXT, FIELD(prompt_cache), 0, 0, "FILE", "keeps the evaluated prompt in this file: a later prompt that begins alike goes on from there"},
    {OPT_KV_TYPE, {"kv-type", NULL}, VALUE_CHOICE, FIELD(kv_type), 0, 0, "f16|f32|bf16|q8_0", "how the context is kept (default f16)"},
    {OPT_ISA, {"isa", NULL}, VALUE_CHOICE, FIELD(isa), 0, 0, "auto|scalar|avx2|avx512|amx", "highest instruction set to use"},
    {OPT_AMX, {"amx", NULL}, VALUE_CHOICE, FIELD(amx), 0, 0, "auto|on|off", "AMX tiles: where usable, required, or never"},
    {OPT_EMULATE_TILES, {"emulate-tiles", NULL}, VALUE_NONE, FIELD(emulate_tiles), 0, 0, NULL, "execute AMX instructions in software (slow)"},
    {OPT_NUMA, {"numa", NULL}, VALUE_CHOICE, FIELD(numa), 0, 0, "none|isolate|interleave|shard", "on several NUMA nodes: leave it to the kernel, use one node, spread pages, or divide each matrix"},
    {OPT_OVERRIDE, {"ot", "override-tensor"}, VALUE_LIST, FIELD(overrides), 0, 0, "REGEX=POOL", "tensors whose names match go to this pool (amx, cpu, mapped; a list is tried in order); repeatable, the first match counts"},
    {OPT_POOL_BUDGET, {"pool-budget", NULL}, VALUE_BUDGET, 0, 0, 0, "POOL=SIZE", "bytes that a pool may take (8G, 512M), the next one gets the rest; repeatable"},
    {OPT_MLOCK, {"mlock", NULL}, VALUE_NONE, FIELD(mlock), 0, 0, NULL, "keep the weights in memory; an error where the limit of locked memory is too low"},
    {OPT_NO_HUGE_PAGES, {"no-huge-pages", NULL}, VALUE_NONE, FIELD(no_huge_pages), 0, 0, NULL, "do not ask the system for huge pages"},
    {OPT_PACK_CACHE, {"pack-cache", NULL}, VALUE_TEXT, FIELD(pack_cache), 0, 0, "DIR", "keep packed weights in this folder, for the next start"},
    {OPT_CALIBRATION, {"calibration", NULL}, VALUE_TEXT, FIELD(calibration), 0, 0, "FILE", "threads and kernels as measured before, where this file is of this machine and model; else measured now and written there"},
    {OPT_SECONDS, {"seconds", NULL}, VALUE_REAL, FIELD(seconds), 0.01, 3600, "X", "how long to measure, about (default 3)"},
    {OPT_SYSTEM, {"sys", "system-prompt"}, VALUE_TEXT, FIELD(system), 0, 0, "TEXT", "system message at the start of the conversation"},
    {OPT_TEMPLATE, {"template", NULL}, VALUE_TEXT, FIELD(template_file), 0, 0, "FILE", "chat template in place of the model's own"},
    {OPT_VAR, {"var", NULL}, VALUE_LIST, FIELD(variables), 0, 0, "NAME=JSON", "sets a variable of the template; repeatable"},
    {OPT_MESSAGES, {"messages", NULL}, VALUE_TEXT, FIELD(messages), 0, 0, "FILE", "JSON array of {\"role\", \"content\"}; '-' is standard input"},
    {OPT_GENERATION_PROMPT, {"add-generation-prompt", NULL}, VALUE_NONE, FIELD(add_generation_prompt), 0, 0, NULL, "end with the start of an answer"},
    {OPT_NO_BOS, {"no-bos", NULL}, VALUE_NONE, FIELD(no_bos), 0, 0, NULL, "add no BOS token, also where the model asks for one"},
    {OPT_NO_SPECIAL, {"no-special", NULL}, VALUE_NONE, FIELD(no_special), 0, 0, NULL, "special tokens are plain text (tokenize) or left out (detokenize)"},
    {OPT_TOKENS, {"tokens", NULL}, VALUE_TEXT, FIELD(tokens), 0, 0, "FILE", "token ids, raw little-endian int32"},
    {OPT_OUTPUT, {"o", "output"}, VALUE_TEXT, FIELD(output), 0, 0, "FILE", "where to write; '-' is standard output"},
    {OPT_CHUNKS, {"chunks", NULL}, VALUE_INT, FIELD(n_chunks), 0, BIG, "N", "only the first N chunks (0, the default: all)"},
    {OPT_KL_BASE, {"kl-divergence-base", NULL}, VALUE_TEXT, FIELD(kl_base), 0, 0, "FILE", "keeps the logits in this file, as llama-perplexity does"},
    {OPT_KL_DIVERGENCE, {"kl-divergence", NULL}, VALUE_NONE, FIELD(kl_divergence), 0, 0, NULL, "compares with the logits of that file, whose text it takes"},
    {OPT_JSON, {"json", NULL}, VALUE_NONE, FIELD(json), 0, 0, NULL, "print one JSON object"},
    {OPT_VERBOSE, {"v", "verbose"}, VALUE_NONE, FIELD(verbose), 0, 0, NULL, "say more"},
    {OPT_QUIET, {"q", "quiet"}, VALUE_NONE, FIELD(quiet), 0, 0, NULL, "say nothing but errors"},
    {OPT_HELP, {"h", "help"}, VALUE_NONE, FIELD(help), 0, 0, NULL, "this text"},
    {OPT_SHAPE, {"shape", NULL}, VALUE_TEXT, FIELD(shape), 0, 0, "NAME:TYPE[,LAYERS]", "random weights of a known model's shapes, made in memory, in place of -m"},
    {OPT_N_PROMPT, {"p", "n-prompt"}, VALUE_INTS, FIELD(bench.n_prompt), 0, 1 << 24, "N,...", "tokens of a prompt (default 512; 0: no prompts)"},
    {OPT_N_GEN, {"n", "n-gen"}, VALUE_INTS, FIELD(bench.n_gen), 0, 1 << 24, "N,...", "tokens to generate (default 128; 0: no generation)"},
    {OPT_DEPTH, {"d", "n-depth"}, VALUE_INTS, FIELD(bench.depths), 0, 1 << 24, "N,...", "tokens that are in the context before (default 0)"},
    {OPT_REPEATS, {"r", "repetitions"}, VALUE_INT, FIELD(bench.repeats), 1, 1000, "N", "measurements of each test (default 5), after one that warms up"},
    {OPT_LIST_THREADS, {"t", "threads"}, VALUE_INTS, FIELD(bench.threads), 0, 1024, "N,...", "threads for generation (0, the default: one for each usable core)"},
    {OPT_LIST_THREADS_BATCH, {"tb", "threads-batch"}, VALUE_INTS, FIELD(bench.threads_batch), 0, 1024, "N,...", "threads for prompts (0, the default: as -t)"},
    {OPT_LIST_BATCH, {"b", "batch-size"}, VALUE_INTS, FIELD(bench.batches), 1, 65536, "N,...", "tokens evaluated at once at most (default 2048)"},
    {OPT_LIST_UBATCH, {"ub", "ubatch-size"}, VALUE_INTS, FIELD(bench.ubatches), 0, 65536, "N,...", "the smaller of -b and -ub counts: for command lines of llama.cpp, which tells them apart (0, the default: -b)"},
    {OPT_LIST_KV_TYPE, {"kv-type", NULL}, VALUE_CHOICES, FIELD(bench.kv_types), 0, 0, "f16|f32|bf16|q8_0", "how the context is kept (default f16), separated by commas"},
    {OPT_LIST_ISA, {"isa", NULL}, VALUE_CHOICES, FIELD(bench.isas), 0, 0, "auto|scalar|avx2|avx512|amx", "highest instruction sets to use, separated by commas"},
    {OPT_FORMAT, {"o", "output"}, VALUE_CHOICE, FIELD(bench.format), 0, 0, "md|csv|json", "how the results are printed (default md)"},
    {OPT_PROFILE, {"profile", NULL}, VALUE_NONE, FIELD(bench.profile), 0, 0, NULL, "also where the time goes: each phase's share of the threads' time"},
};
/* clang-format on */
enum { N_ROWS = sizeof table / sizeof table[0], LONG_BASE = 256 };
_Static_assert((int)N_ROWS == (int)OPT_COUNT, "one row for each option");

static bool refuse(const struct options *options, const char *flag, const char *value,
                   const char *problem)
{
    usage_error(options->command, "%s: '%s' %s", flag, value, problem);
    return false;
}

static bool parse_int(const struct options *options, const struct option_row *row, const char *flag,
                      const char *value, int *out)
{
    char *end;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    if (end == value || *end)
        return refuse(options, flag, value, "is not a whole number");
    if (errno || (double)number < row->min || (double)number > row->max) {
        usage_error(options->command, "%s: %s is out of range (%.0f to %.0f)", flag, value,
                    row->min, row->max);
        return false;
    }
    *out = (int)number;
    return true;
}

static bool parse_real(const struct options *options, const struct option_row *row,
                       const char *flag, const char *value, double *out)
{
    char *end;
    double number = strtod(value, &end);
    if (end == value || *end)
        return refuse(options, flag, value, "is not a number");
    if (!(number >= row->min && number <= row->max)) {
        usage_error(options->command, "%s: %s is out of range (%g to %g)", flag, value, row->min,
                    row->max);
        return false;
    }
    *out = number;
    return true;
}

static bool parse_seed(struct options *options, const char *flag, const char *value)
{
    /* As llama.cpp has it, -1 asks for a new seed: the same as not giving the flag. */
    if (!strcmp(value, "-1")) {
        options->given &= ~OPT(SEED);
        return true;
    }
    char *end;
    errno = 0;
    unsigned long long number = strtoull(value, &end, 10);
    /* JSON, where seeds are printed too, has integers up to there. */
    if (end == value || *end || errno || value[0] == '-' || number > INT64_MAX)
        return refuse(options, flag, value, "is not a seed (0 to 2^63-1, or -1)");
    options->seed = number;
    return true;
}

/* The number of the word in "a|b|c": the words are listed in the order of their enum. */
static bool parse_choice(const struct options *options, const struct option_row *row,
                         const char *flag, const char *value, int *out)
{
    size_t len = strlen(value);
    int n = 0;
    for (const char *word = row->value; *word; n++) {
        size_t word_len = strcspn(word, "|");
        if (len == word_len && !memcmp(word, value, len)) {
            *out = n;
            return true;
        }
        word += word_len;
        word += *word == '|';
    }
    usage_error(options->command, "%s: '%s' is none of %s", flag, value, row->value);
    return false;
}

/* "a,b,c", each as the row's kind says. */
static bool parse_numbers(const struct options *options, const struct option_row *row,
                          const char *flag, const char *value, struct number_list *list)
{
    list->n = 0;
    for (const char *item = value;; item++) {
        char text[32];
        size_t len = strcspn(item, ",");
        if (list->n == MAX_LIST || len >= sizeof text)
            return refuse(options, flag, value, "is too long");
        snprintf(text, sizeof text, "%.*s", (int)len, item);
        int *out = &list->values[list->n++];
        if (row->kind == VALUE_INTS ? !parse_int(options, row, flag, text, out)
                                    : !parse_choice(options, row, flag, text, out))
            return false;
        item += len;
        if (!*item)
            return true;
    }
}

static bool add_to_list(const struct options *options, const struct option_row *row,
                        const char *flag, const char *value, struct option_list *list)
{
    const char *equals = strchr(value, '=');
    if (!equals || equals == value) {
        usage_error(options->command, "%s: '%s' is not of the form %s", flag, value, row->value);
        return false;
    }
    if (list->n == MAX_LIST)
        return refuse(options, flag, value, "is one too many");
    list->items[list->n++] = value;
    return true;
}

/* "8G", "1.5M", "4096"; units are powers of 1024. */
static bool read_size(const char *text, uint64_t *bytes)
{
    static const char units[] = "KMGT";
    char *end;
    double number = strtod(text, &end);
    const char *unit = *end ? strchr(units, *end) : NULL;
    int shift = unit ? 10 * (int)(unit - units + 1) : 0;
    if (end == text || end[unit != NULL] || !(number >= 0) || number >= ldexp(1, 63 - shift))
        return false;
    *bytes = (uint64_t)ldexp(number, shift);
    return true;
}

static bool parse_budget(struct options *options, const char *flag, const char *value)
{
    static const struct option_row pools = {.value = "amx|cpu|mapped"};
    char name[16];
    int pool, len = (int)strcspn(value, "=");
    if (!value[len])
        return refuse(options, flag, value, "is not of the form POOL=SIZE");
    snprintf(name, sizeof name, "%.*s", len, value);
    if (!parse_choice(options, &pools, flag, name, &pool))
        return false;
    if (!read_size(value + len + 1, &options->pool_budgets[pool]))
        return refuse(options, flag, value + len + 1, "is not a size (8G, 512M, bytes)");
    return true;
}

static bool store(struct options *options, const struct option_row *row, const char *flag,
                  const char *value)
{
    void *field = (char *)options + row->offset;
    if (!(options->command->options >> row->id & 1)) {
        usage_error(options->command, "%s is not used by this command", flag);
        return false;
    }
    options->given |= UINT64_C(1) << row->id;
    switch (row->kind) {
    case VALUE_NONE:
        *(bool *)field = true;
        return true;
    case VALUE_TEXT:
        *(const char **)field = value;
        return true;
    case VALUE_INT:
        return parse_int(options, row, flag, value, field);
    case VALUE_REAL:
        return parse_real(options, row, flag, value, field);
    case VALUE_SEED:
        return parse_seed(options, flag, value);
    case VALUE_CHOICE:
        return parse_choice(options, row, flag, value, field);
    case VALUE_LIST:
        return add_to_list(options, row, flag, value, field);
    case VALUE_INTS:
    case VALUE_CHOICES:
        return parse_numbers(options, row, flag, value, field);
    case VALUE_BUDGET:
        return parse_budget(options, flag, value);
    }
    return false;
}

static bool has_name(const struct option_row *row, const char *name)
{
    return (row->names[0] && !strcmp(row->names[0], name)) ||
           (row->names[1] && !strcmp(row->names[1], name));
}

/* The row that a name means: where several have it, the one that the command takes, else the
 * first. */
static int row_of(const struct command *command, const char *name)
{
    int first = -1;
    for (int i = 0; i < N_ROWS; i++) {
        if (!has_name(&table[i], name))
            continue;
        if (command->options >> table[i].id & 1)
            return i;
        first = first < 0 ? i : first;
    }
    return first;
}

/* getopt's two forms of the table. A leading '-' hands operands out in order (so that the flag at
 * hand is always argv[optind] before the call), ':' tells a missing value from an unknown flag. */
static void getopt_tables(const struct command *command, char *letters, struct option *words)
{
    *letters++ = '-';
    *letters++ = ':';
    for (int i = 0; i < N_ROWS; i++) {
        for (int j = 0; j < 2; j++) {
            const char *name = table[i].names[j];
            if (!name || row_of(command, name) != i)
                continue;
            if (name[1]) {
                *words++ = (struct option){
                    name, table[i].kind == VALUE_NONE ? no_argument : required_argument, NULL,
                    LONG_BASE + i};
                continue;
            }
            *letters++ = name[0];
            if (table[i].kind != VALUE_NONE)
                *letters++ = ':';
        }
    }
    *letters = 0;
    *words = (struct option){0};
}

static const struct option_row *find_row(const struct command *command, int code)
{
    int row = code >= LONG_BASE ? code - LONG_BASE : row_of(command, (char[]){(char)code, 0});
    return row < 0 ? NULL : &table[row];
}

static void set_defaults(const struct command *command, struct options *options)
{
    struct tsr_sampling sampling = tsr_sampling_default();
    struct tsr_session_settings session = tsr_session_settings_default();
    *options = (struct options){
        .command = command,
        .n_predict = -1,
        .n_ctx = (int)session.n_ctx,
        .n_batch = (int)session.n_batch,
        .kv_type = session.kv_type,
        .temp = sampling.temperature,
        .top_k = sampling.top_k,
        .top_p = sampling.top_p,
        .min_p = sampling.min_p,
        .repeat_penalty = sampling.repeat_penalty,
        .repeat_last_n = sampling.repeat_last_n,
        .isa = TSR_ISA_AUTO,
        .amx = TSR_AUTO,
    };
    options->bench = (struct bench_options){
        .n_prompt = {{512}, 1},
        .n_gen = {{128}, 1},
        .depths = {{0}, 1},
        .repeats = 5,
        .threads = {{0}, 1},
        .threads_batch = {{0}, 1},
        .batches = {{(int)session.n_batch}, 1},
        .ubatches = {{0}, 1},
        .kv_types = {{session.kv_type}, 1},
        .isas = {{TSR_ISA_AUTO}, 1},
    };
    for (int pool = 0; pool < TSR_POOL_COUNT; pool++)
        options->pool_budgets[pool] = UINT64_MAX;
}

bool options_parse(const struct command *command, int argc, char **argv, struct options *options)
{
    char letters[2 * N_ROWS + 3];
    struct option words[2 * N_ROWS + 1];
    getopt_tables(command, letters, words);
    set_defaults(command, options);
    options->operands = argv + 1; /* operands are gathered at the front, in place */
    opterr = 0;
    optind = 1;
    for (;;) {
        const char *typed = optind < argc ? argv[optind] : "";
        int code = getopt_long_only(argc, argv, letters, words, NULL);
        if (code == -1)
            break;
        if (code == 1) {
            options->operands[options->n_operands++] = optarg;
            continue;
        }
        char flag[64];
        const struct option_row *row = code == '?' || code == ':' ? NULL : find_row(command, code);
        snprintf(flag, sizeof flag, "%.*s", (int)strcspn(typed, "="), typed);
        if (code == '?') {
            usage_error(command, "unknown flag %s", flag);
            return false;
        }
        if (code == ':') {
            usage_error(command, "%s needs a value", flag);
            return false;
        }
        if (!store(options, row, flag, optarg))
            return false;
    }
    while (optind < argc) /* after "--" */
        options->operands[options->n_operands++] = argv[optind++];
    if (options->n_operands && !command->operands[0] && !options->help) {
        usage_error(command, "unexpected argument '%s'%s", options->operands[0],
                    command->options & OPT(MODEL) ? ": -m names a model" : "");
        return false;
    }
    options->n_batch = options_batch(options->n_batch, options->n_ubatch);
    return true;
}

int options_batch(int n_batch, int n_ubatch)
{
    return n_ubatch && n_ubatch < n_batch ? n_ubatch : n_batch;
}

void options_print(const struct command *command)
{
    for (int i = 0; i < N_ROWS; i++) {
        const struct option_row *row = &table[i];
        if (!(command->options >> row->id & 1))
            continue;
        char left[96];
        int len = 0;
        for (int j = 0; j < 2 && row->names[j]; j++) {
            /* -tb and -sys keep the single dash that users of llama.cpp type. */
            const char *dash = j == 0 && row->names[1] ? "-" : "--";
            len += snprintf(left + len, sizeof left - (size_t)len, "%s%s%s", j ? ", " : "", dash,
                            row->names[j]);
        }
        if (row->value)
            snprintf(left + len, sizeof left - (size_t)len, " %s", row->value);
        if (strlen(left) > 27)
            output_format("  %s\n  %-28s%s\n", left, "", row->help);
        else
            output_format("  %-28s%s\n", left, row->help);
    }
}
