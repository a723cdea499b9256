/* What tessera bench measures, and how that is reported. */
#ifndef TESSERA_CLI_BENCH_H
#define TESSERA_CLI_BENCH_H

#include "bench/roofs.h"
#include "cli/options.h"
#include "cli/output.h"

enum bench_format { BENCH_MD, BENCH_CSV, BENCH_JSON };

/* The model, as its file tells. */
struct bench_model {
    char name[64];
    char type[16]; /* of most bytes: "Q4_0" */
    uint64_t bytes, params;
    uint64_t token_bytes; /* weights that one generated token reads */
    uint64_t token_flop;  /* of the products of one prompt token; no output matrix, no attention */
};

/* Roofs of a number of threads, as the flags have it (0: one for each core). */
struct bench_roofs {
    int wanted, threads;
    struct roofs roofs;
};

/* One line of the report. */
enum { MAX_PHASES = 32 };

struct bench_result {
    const char *isa, *kv_type;
    int threads, batch;
    int n_prompt, n_gen, depth; /* one of the first two is 0 */
    int repeats;
    double median, mean, deviation, least, most; /* tokens per second */
    double load_seconds;
    uint64_t peak_bytes; /* resident at most so far; 0: the system does not tell */
    const struct bench_roofs *roofs;
    /* With --profile: the phases of all repeats, and the time of all threads. */
    struct tsr_phase_time phases[MAX_PHASES];
    int n_phases;
    double thread_seconds;
};

/* How the model was opened for some of the results. */
struct bench_load {
    const char *isa;
    int threads, threads_batch;
    double seconds;
    uint64_t peak_bytes; /* resident at most, tests included; 0: the system does not tell */
};

enum { MAX_LOADS = 256 };

struct bench_report {
    enum bench_format format;
    const struct bench_model *model;
    json_t *results;  /* for JSON */
    json_t *profiles; /* for Markdown: shown after the table */
    int n_results;
    struct bench_load loads[MAX_LOADS];
    int n_loads;
};

/* The roofs come before everything else. */
void bench_report_start(struct bench_report *report, const struct bench_roofs *roofs, int n_roofs);
void bench_report_result(struct bench_report *report, const struct bench_result *result);
/* After the results of an opened model. */
void bench_report_load(struct bench_report *report, const struct bench_load *load);
void bench_report_finish(struct bench_report *report);

#endif
