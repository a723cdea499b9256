/* Command-line options: one table for all commands; a command names the ones it uses. */
#ifndef TESSERA_CLI_OPTIONS_H
#define TESSERA_CLI_OPTIONS_H

#include <tessera/tessera.h>

/* A bit each; a command's set of them says which flags it takes. */
enum option_id {
    OPT_MODEL,
    OPT_PROMPT,
    OPT_FILE,
    OPT_N_PREDICT,
    OPT_CTX_SIZE,
    OPT_BATCH_SIZE,
    OPT_UBATCH_SIZE,
    OPT_THREADS,
    OPT_THREADS_BATCH,
    OPT_TEMP,
    OPT_TOP_K,
    OPT_TOP_P,
    OPT_MIN_P,
    OPT_REPEAT_PENALTY,
    OPT_REPEAT_LAST_N,
    OPT_SEED,
    OPT_IGNORE_EOS,
    OPT_PROMPT_CACHE,
    OPT_KV_TYPE,
    OPT_ISA,
    OPT_AMX,
    OPT_EMULATE_TILES,
    OPT_NUMA,
    OPT_OVERRIDE,
    OPT_POOL_BUDGET,
    OPT_MLOCK,
    OPT_NO_HUGE_PAGES,
    OPT_PACK_CACHE,
    OPT_CALIBRATION,
    OPT_SECONDS,
    OPT_SYSTEM,
    OPT_TEMPLATE,
    OPT_VAR,
    OPT_MESSAGES,
    OPT_GENERATION_PROMPT,
    OPT_NO_BOS,
    OPT_NO_SPECIAL,
    OPT_TOKENS,
    OPT_OUTPUT,
    OPT_CHUNKS,
    OPT_KL_BASE,
    OPT_KL_DIVERGENCE,
    OPT_JSON,
    OPT_VERBOSE,
    OPT_QUIET,
    OPT_HELP,
    /* Of bench, which takes lists. */
    OPT_SHAPE,
    OPT_N_PROMPT,
    OPT_N_GEN,
    OPT_DEPTH,
    OPT_REPEATS,
    OPT_LIST_THREADS,
    OPT_LIST_THREADS_BATCH,
    OPT_LIST_BATCH,
    OPT_LIST_UBATCH,
    OPT_LIST_KV_TYPE,
    OPT_LIST_ISA,
    OPT_FORMAT,
    OPT_PROFILE,
    OPT_COUNT
};
#define OPT(name) (UINT64_C(1) << OPT_##name)

/* Groups that belong together. */
#define OPTS_COMMON  (OPT(VERBOSE) | OPT(QUIET) | OPT(HELP))
#define OPTS_MACHINE                                                                               \
    (OPT(THREADS) | OPT(THREADS_BATCH) | OPT(ISA) | OPT(AMX) | OPT(EMULATE_TILES) | OPT(NUMA) |    \
     OPT(OVERRIDE) | OPT(POOL_BUDGET))
#define OPTS_LOAD    (OPT(MLOCK) | OPT(NO_HUGE_PAGES) | OPT(PACK_CACHE) | OPT(CALIBRATION))
#define OPTS_SESSION                                                                               \
    (OPTS_MACHINE | OPT(CTX_SIZE) | OPT(BATCH_SIZE) | OPT(UBATCH_SIZE) | OPT(KV_TYPE))
#define OPTS_BENCH                                                                                 \
    (OPT(SHAPE) | OPT(N_PROMPT) | OPT(N_GEN) | OPT(DEPTH) | OPT(REPEATS) | OPT(LIST_THREADS) |     \
     OPT(LIST_THREADS_BATCH) | OPT(LIST_BATCH) | OPT(LIST_UBATCH) | OPT(LIST_KV_TYPE) |            \
     OPT(LIST_ISA) | OPT(FORMAT) | OPT(PROFILE) | OPTS_LOAD |                                      \
     (OPTS_MACHINE & ~(OPT(THREADS) | OPT(THREADS_BATCH) | OPT(ISA))))
#define OPTS_SAMPLING                                                                              \
    (OPT(TEMP) | OPT(TOP_K) | OPT(TOP_P) | OPT(MIN_P) | OPT(REPEAT_PENALTY) | OPT(REPEAT_LAST_N) | \
     OPT(SEED) | OPT(IGNORE_EOS))

enum { MAX_LIST = 32 };

/* The values of a flag that can be given several times. */
struct option_list {
    const char *items[MAX_LIST];
    int n;
};

/* The values of one flag, "512,2048". */
struct number_list {
    int values[MAX_LIST];
    int n;
};

/* What bench measures: every combination. */
struct bench_options {
    struct number_list n_prompt, n_gen, depths, threads, threads_batch;
    struct number_list batches, ubatches, kv_types, isas;
    int repeats, format; /* enum bench_format */
    bool profile;
};

struct options {
    const struct command *command;
    uint64_t given; /* OPT() bits of the flags on the command line */
    const char *model, *prompt, *file, *system, *template_file, *messages, *tokens, *output;
    const char *prompt_cache, *pack_cache, *calibration, *shape, *kl_base;
    double seconds;
    int n_predict; /* -1: until an end token or a full context */
    int n_ctx, n_batch, n_ubatch, n_threads, n_threads_batch;
    double temp, top_p, min_p, repeat_penalty;
    int top_k, repeat_last_n;
    uint64_t seed;
    int kv_type, isa, amx, numa; /* enum tsr_kv_type, tsr_isa, tsr_tristate, tsr_numa */
    bool ignore_eos, emulate_tiles, add_generation_prompt, no_bos, no_special;
    bool mlock, no_huge_pages;
    int n_chunks; /* 0: all */
    bool kl_divergence, json, verbose, quiet, help;
    struct option_list variables; /* name=json */
    struct option_list overrides; /* regex=pool */
    uint64_t pool_budgets[TSR_POOL_COUNT]; /* bytes */
    struct bench_options bench;
    char **operands; /* arguments that are no flags */
    int n_operands;
};

struct command {
    const char *name;
    const char *operands; /* "" or what the usage line shows for them: "[ID...]" */
    const char *summary;  /* one line */
    const char *details;  /* further lines for --help, "" for none */
    uint64_t options;     /* OPT() bits it takes */
    int (*run)(const struct options *options);
};

/* Parses argv[1..] of a command. False after a wrong usage was reported. */
bool options_parse(const struct command *command, int argc, char **argv, struct options *options);

/* Tokens that are evaluated at once: the smaller of -b and -ub, which other programs tell apart. */
int options_batch(int n_batch, int n_ubatch);

/* The flags of a command, one line each, for --help. */
void options_print(const struct command *command);

static inline bool option_given(const struct options *options, enum option_id id)
{
    return options->given >> id & 1;
}

#endif
