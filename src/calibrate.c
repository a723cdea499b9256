/* tsr_engine_calibrate: the numbers of threads and of rows that are the fastest on this machine.
 *
 * First the kernels (calibrate_kernels.c), whose choice the rest then uses; then prompts, then
 * generation, each with several numbers of threads that take turns, round by round, so that what
 * else happens on the machine falls on all of them. Numbers that are clearly slower are dropped. */
#include "calibrate.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "session.h"

enum {
    MOST_PROMPT = 512, /* tokens... */
    GOOD_PROMPT = 128, /* ...and how few tell little of longer ones where there are experts */
    LEAST_PROMPT = 16,
    MOST_DEPTH = 64,
    MOST_GENERATED = 32, /* tokens of a sample */
    LEAST_ROUNDS = 3,
    ROUNDS = 4, /* planned with; there are more where time is left */
    MOST_ROUNDS = 32
};
static const double default_seconds = 3.0;
/* Parts of the time that is left. */
static const double kernels_part = 0.2, prompt_part = 0.55;
static const double generation_part = 0.3; /* at least, of all */
/* A number of threads is dropped below this share of the best, after one round and after more. */
static const double dropped_at_first = 0.7, dropped_later = 0.85;
/* A number of threads is as good as another at this share of its speed; a larger one at a lower
 * share, if prompts were shorter than they can be: longer ones have more work for each thread. */
static const double as_fast = 0.98, as_fast_when_short = 0.9;

struct run {
    tsr_engine *engine;
    tsr_session *session;
    int n_ctx;
    double start, end;
    uint64_t random;
    int32_t ids[MOST_PROMPT];
    struct tsr_error *error;
};

/* Numbers of threads that are measured in turn, with n tokens each time. */
struct race {
    struct thread_rate *rates; /* [n_rates] */
    int n_rates;
    int *n_threads; /* the engine's, which is set */
    int n, step;    /* tokens of a sample, and of a batch */
    int depth;      /* tokens before them */
    bool dropped[CALIBRATION_COUNTS];
    double samples[CALIBRATION_COUNTS][MOST_ROUNDS]; /* tokens per second */
};

double calibrate_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double calibrate_median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, compare_doubles);
    return values[n / 2];
}

/* ---- Samples --------------------------------------------------------------------------------- */

static bool go_on(void *user)
{
    const struct run *run = user;
    const tsr_engine *engine = run->engine;
    double done = (calibrate_now() - run->start) / (run->end - run->start);
    uint64_t percent = done < 0.99 ? (uint64_t)(100 * done) : 99;
    return !engine->progress || engine->progress(engine->user, "calibrating", percent, 100);
}

/* Other ids each time, so that other experts are chosen. */
static void random_ids(struct run *run, int n)
{
    for (int i = 0; i < n; i++) { /* xorshift64 */
        run->random ^= run->random << 13;
        run->random ^= run->random >> 7;
        run->random ^= run->random << 17;
        run->ids[i] = (int32_t)(run->random % run->engine->model->params.n_vocab);
    }
}

static int eval(struct run *run, int n, int step, int depth)
{
    random_ids(run, n);
    int code = tsr_session_rewind(run->session, (uint32_t)depth);
    for (int i = 0; i < n && !code; i += step)
        code = tsr_session_eval(run->session, run->ids + i, (size_t)step, NULL);
    return code ? error_set(run->error, code, "%s", tsr_engine_message(run->engine)) : 0;
}

/* Seconds of n tokens. */
static int sample(struct run *run, int n, int step, int depth, double *seconds)
{
    *seconds = 0;
    if (!go_on(run))
        return error_set(run->error, TSR_ECANCELED, "the calibration was cancelled");
    double start = calibrate_now();
    int status = eval(run, n, step, depth);
    *seconds = calibrate_now() - start;
    return status;
}

/* ---- Races ----------------------------------------------------------------------------------- */

static void rate_all(struct race *race)
{
    for (int i = 0; i < race->n_rates; i++) {
        double sorted[MOST_ROUNDS];
        memcpy(sorted, race->samples[i], sizeof sorted);
        race->rates[i].rate = calibrate_median(sorted, race->rates[i].n_samples);
    }
}

static int drop_slow(struct race *race, double share)
{
    double best = 0;
    int n_left = 0;
    rate_all(race);
    for (int i = 0; i < race->n_rates; i++)
        best = race->rates[i].rate > best ? race->rates[i].rate : best;
    for (int i = 0; i < race->n_rates; i++) {
        race->dropped[i] = race->dropped[i] || race->rates[i].rate < share * best;
        n_left += !race->dropped[i];
    }
    return n_left;
}

static int run_race(struct run *run, struct race *race, double until)
{
    int n_left = race->n_rates;
    for (int round = 0; round < MOST_ROUNDS; round++) {
        if (round >= LEAST_ROUNDS && (n_left == 1 || calibrate_now() > until))
            break;
        for (int i = 0; i < race->n_rates; i++) {
            double seconds;
            if (race->dropped[i])
                continue;
            *race->n_threads = race->rates[i].n_threads;
            int status = sample(run, race->n, race->step, race->depth, &seconds);
            if (status)
                return status;
            race->samples[i][race->rates[i].n_samples++] = race->n / seconds;
        }
        n_left = drop_slow(race, round == 0 ? dropped_at_first : dropped_later);
    }
    return 0;
}

/* In the order of candidates (the physical cores, which are the default; all CPUs; then fewer and
 * fewer) each has to be faster than what is chosen so far by more than a measurement is worth. */
int calibrate_threads(const struct thread_rate *rates, int n, double fewer)
{
    int chosen = 0;
    for (int i = 1; i < n; i++) {
        double share = rates[i].n_threads < rates[chosen].n_threads ? fewer : as_fast;
        if (rates[chosen].rate < share * rates[i].rate)
            chosen = i;
    }
    return chosen;
}

static int candidates(const tsr_engine *engine, struct thread_rate *rates)
{
    int cores = engine->n_physical, n = 0;
    const int counts[CALIBRATION_COUNTS] = {cores, engine->n_usable, (3 * cores + 3) / 4,
                                            (cores + 1) / 2, (cores + 3) / 4};
    for (int i = 0; i < CALIBRATION_COUNTS; i++) {
        bool known = false;
        for (int j = 0; j < n; j++)
            known = known || rates[j].n_threads == counts[i];
        if (!known)
            rates[n++] = (struct thread_rate){.n_threads = counts[i]};
    }
    return n;
}

/* ---- Prompts and generation ------------------------------------------------------------------ */

/* Tokens of a prompt, the more the better: so many that there is time for the rounds, but
 * GOOD_PROMPT at least, unless that alone takes the time of all. What is measured here warms up. */
static int size_prompt(struct run *run, double seconds, int n_rates, int *n)
{
    int most = run->n_ctx < MOST_PROMPT ? run->n_ctx : MOST_PROMPT;
    *n = most < LEAST_PROMPT ? most : LEAST_PROMPT;
    for (;;) {
        double once;
        int status = sample(run, *n, *n, 0, &once);
        bool fits = 2 * once * n_rates * ROUNDS < seconds;
        if (status || 2 * *n > most || !(fits || (2 * *n <= GOOD_PROMPT && 6 * once < seconds)))
            return status;
        *n *= 2;
    }
}

static int measure_prompts(struct run *run, struct calibration *calibration, double seconds)
{
    struct race race = {.rates = calibration->prompt,
                        .n_rates = calibration->n_counts,
                        .n_threads = &run->engine->n_threads_batch};
    double until = calibrate_now() + seconds;
    *race.n_threads = race.rates[0].n_threads;
    int status = size_prompt(run, seconds, race.n_rates, &race.n);
    race.step = calibration->n_prompt = race.n;
    return status ? status : run_race(run, &race, until);
}

/* Tokens of a sample: so many that there is time for the rounds. */
static int size_generation(struct run *run, struct race *race, double seconds)
{
    int room = run->n_ctx - race->depth;
    int most = room < MOST_GENERATED ? room : MOST_GENERATED;
    for (race->n = 1;; race->n *= 2) {
        double once;
        int status = sample(run, race->n, 1, race->depth, &once);
        if (status || 2 * race->n > most || 2 * once * race->n_rates * ROUNDS > seconds)
            return status;
    }
}

/* What a prompt had time for, a context has. */
static int context_depth(const struct run *run, int n_prompt)
{
    int most = n_prompt < MOST_DEPTH ? n_prompt : MOST_DEPTH;
    return run->n_ctx / 2 < most ? run->n_ctx / 2 : most;
}

static int measure_generation(struct run *run, struct calibration *calibration, double seconds)
{
    struct race race = {.rates = calibration->generation,
                        .n_rates = calibration->n_counts,
                        .n_threads = &run->engine->n_threads,
                        .step = 1,
                        .depth = context_depth(run, calibration->n_prompt)};
    double until = calibrate_now() + seconds;
    calibration->depth = race.depth;
    *race.n_threads = race.rates[0].n_threads;
    int status = race.depth ? eval(run, race.depth, race.depth, 0) : 0;
    if (!status)
        status = size_generation(run, &race, seconds);
    return status ? status : run_race(run, &race, until);
}

static int measure_threads(struct run *run, struct calibration *calibration)
{
    uint32_t trained = run->engine->model->params.n_ctx_train;
    struct tsr_session_settings settings = tsr_session_settings_default();
    settings.n_ctx = settings.n_batch = trained < MOST_PROMPT ? trained : MOST_PROMPT;
    run->n_ctx = (int)settings.n_ctx;
    int status = tsr_session_open(run->engine, &settings, &run->session);
    if (status)
        return error_set(run->error, status, "%s", tsr_engine_message(run->engine));
    run->session->silent = true;
    calibration->n_counts = candidates(run->engine, calibration->prompt);
    memcpy(calibration->generation, calibration->prompt, sizeof calibration->prompt);
    double left = run->end - calibrate_now();
    status = measure_prompts(run, calibration, prompt_part * left);
    left = run->end - calibrate_now();
    double least = generation_part * (run->end - run->start);
    if (!status)
        status = measure_generation(run, calibration, left > least ? left : least);
    tsr_session_close(run->session);
    return status;
}

/* ---- The engine ------------------------------------------------------------------------------ */

void engine_apply(tsr_engine *engine, const struct calibration_choice *choice)
{
    for (int id = 0; id < BLOCK_ID_COUNT; id++)
        if (choice->min_rows[id])
            engine->weights->min_rows[id] = choice->min_rows[id];
}

static int measure(tsr_engine *engine, double seconds, struct calibration *calibration,
                   struct tsr_error *error)
{
    struct run run = {.engine = engine, .random = 88172645463325252u, .error = error};
    run.start = calibrate_now();
    run.end = run.start + seconds;
    int status = calibrate_kernels(engine, kernels_part * seconds, go_on, &run, calibration, error);
    if (status)
        return status;
    engine_apply(engine, &calibration->choice);
    status = measure_threads(&run, calibration);
    if (status)
        return status;
    double fewer = calibration->n_prompt < MOST_PROMPT ? as_fast_when_short : as_fast;
    int prompt = calibrate_threads(calibration->prompt, calibration->n_counts, fewer);
    int generation = calibrate_threads(calibration->generation, calibration->n_counts, as_fast);
    calibration->choice.n_threads_batch = calibration->prompt[prompt].n_threads;
    calibration->choice.n_threads = calibration->generation[generation].n_threads;
    if (engine->progress)
        engine->progress(engine->user, "calibrating", 100, 100);
    return 0;
}

/* A team for all candidates; NULL where the engine's own is large enough. */
static int widen(const tsr_engine *engine, struct team **wide, struct tsr_error *error)
{
    *wide = NULL;
    if (engine->n_usable <= team_size(engine->team))
        return 0;
    return team_create(engine->n_usable, engine->usable_seats, wide, error);
}

/* What measuring changes. */
struct kept {
    struct team *team;
    int n_threads, n_threads_batch;
    int min_rows[BLOCK_ID_COUNT];
};

static struct kept keep(const tsr_engine *engine)
{
    struct kept kept = {engine->team, engine->n_threads, engine->n_threads_batch, {0}};
    memcpy(kept.min_rows, engine->weights->min_rows, sizeof kept.min_rows);
    return kept;
}

static void put_back(tsr_engine *engine, const struct kept *kept)
{
    engine->n_threads = kept->n_threads;
    engine->n_threads_batch = kept->n_threads_batch;
    memcpy(engine->weights->min_rows, kept->min_rows, sizeof kept->min_rows);
}

/* Leaves the engine with one of two teams, the smaller one where it has enough threads. */
static void settle_team(tsr_engine *engine, struct team *own, struct team *wide)
{
    int n =
        engine->n_threads > engine->n_threads_batch ? engine->n_threads : engine->n_threads_batch;
    bool enough = !wide || n <= team_size(own);
    engine->team = enough ? own : wide;
    team_destroy(enough ? wide : own);
}

int tsr_engine_calibrate(tsr_engine *engine, double seconds, char **json, struct tsr_error *error)
{
    struct calibration calibration = {0};
    struct team *wide = NULL;
    *json = NULL;
    if (!engine->weights)
        return error_set(error, TSR_EINVAL, "the engine was opened for its vocabulary only");
    int status = widen(engine, &wide, error);
    if (status)
        return status;
    struct kept kept = keep(engine);
    engine->team = wide ? wide : kept.team;
    status = measure(engine, seconds > 0 ? seconds : default_seconds, &calibration, error);
    if (!status)
        status = calibration_write(&calibration, &engine->key, engine->name, json, error);
    put_back(engine, &kept);
    if (!status) {
        engine_choose_threads(engine, &calibration.choice);
        engine_apply(engine, &calibration.choice);
        engine_log(engine, TSR_LOG_INFO, "calibrated; threads: %d, %d for prompts",
                   engine->n_threads, engine->n_threads_batch);
    }
    settle_team(engine, kept.team, wide);
    return status;
}
