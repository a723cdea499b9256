/* Two engines in one process, with real threads: they share the machine and give the same results
 * at once as one after the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "base/cpu.h"

enum { N_PROMPT = 64, N_DECODE = 200, N_ENGINES = 2 };

struct job {
    pthread_t thread;
    tsr_engine *engine;
    int32_t ids[N_DECODE]; /* the greedy continuation */
    int status;
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* A prompt and a greedy continuation in a session of its own. */
static void *generate(void *arg)
{
    struct job *job = arg;
    struct tsr_sampling greedy = tsr_sampling_default();
    greedy.temperature = 0.0f;
    int32_t prompt[N_PROMPT];
    for (int i = 0; i < N_PROMPT; i++)
        prompt[i] = 100 + 7 * i;
    struct tsr_session_settings settings = tsr_session_settings_default();
    settings.n_ctx = N_PROMPT + N_DECODE;
    tsr_session *session;
    job->status = tsr_session_open(job->engine, &settings, &session);
    if (!job->status)
        job->status = tsr_session_eval(session, prompt, N_PROMPT, NULL);
    for (int i = 0; i < N_DECODE && !job->status; i++) {
        job->ids[i] = tsr_session_sample(session, &greedy);
        job->status = tsr_session_eval(session, &job->ids[i], 1, NULL);
    }
    tsr_session_close(session);
    return NULL;
}

static tsr_engine *open_engine(int n_threads)
{
    struct tsr_settings settings = tsr_settings_default();
    settings.model_path = TSR_TEST_MODEL;
    settings.n_threads = n_threads;
    struct tsr_error error = {0};
    tsr_engine *engine;
    if (tsr_engine_open(&settings, &engine, &error))
        fail_msg("%s", error.text);
    return engine;
}

static void at_once_costs_little_more_than_in_turn(void **state)
{
    (void)state;
    static struct job in_turn[N_ENGINES], at_once[N_ENGINES];
    for (int i = 0; i < N_ENGINES; i++) {
        in_turn[i].engine = at_once[i].engine = open_engine(0);
        generate(&in_turn[i]); /* warms up */
    }
    double start = now();
    for (int i = 0; i < N_ENGINES; i++)
        generate(&in_turn[i]);
    double turn_seconds = now() - start;
    start = now();
    for (int i = 0; i < N_ENGINES; i++)
        assert_int_equal(pthread_create(&at_once[i].thread, NULL, generate, &at_once[i]), 0);
    for (int i = 0; i < N_ENGINES; i++)
        pthread_join(at_once[i].thread, NULL);
    double once_seconds = now() - start;
    print_message("in turn %.3f s, at once %.3f s\n", turn_seconds, once_seconds);
    for (int i = 0; i < N_ENGINES; i++) {
        assert_int_equal(in_turn[i].status, 0);
        assert_int_equal(at_once[i].status, 0);
        assert_memory_equal(at_once[i].ids, in_turn[0].ids, sizeof in_turn[0].ids);
        tsr_engine_close(at_once[i].engine);
    }
    /* Teams that spin against each other take ten times as long and more. */
    assert_true(once_seconds < 5.0 * turn_seconds + 1.0);
}

/* The CPUs that some thread of this process is pinned to; no CPU may have two. */
static int count_pinned(void)
{
    cpu_set_t taken, mask;
    CPU_ZERO(&taken);
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (struct dirent *entry; (entry = readdir(tasks));) {
        pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (tid <= 0 || sched_getaffinity(tid, sizeof mask, &mask) || CPU_COUNT(&mask) != 1)
            continue;
        CPU_AND(&mask, &mask, &taken);
        assert_int_equal(CPU_COUNT(&mask), 0);
        assert_int_equal(sched_getaffinity(tid, sizeof mask, &mask), 0);
        CPU_OR(&taken, &taken, &mask);
    }
    closedir(tasks);
    return CPU_COUNT(&taken);
}

static void engines_sit_apart_while_there_is_room(void **state)
{
    (void)state;
    struct cpu_cores cores;
    assert_int_equal(cpu_cores(&cores, NULL), 0);
    if (cores.n_usable < 2 * N_ENGINES)
        skip();
    tsr_engine *engines[N_ENGINES];
    for (int i = 0; i < N_ENGINES; i++) {
        engines[i] = open_engine(2);
        assert_int_equal(count_pinned(), 2 * (i + 1));
    }
    tsr_engine_close(engines[0]);
    engines[0] = open_engine(cores.n_usable - 2); /* the rest, and no more */
    assert_int_equal(count_pinned(), cores.n_usable);
    for (int i = 0; i < N_ENGINES; i++)
        tsr_engine_close(engines[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engines_sit_apart_while_there_is_room),
        cmocka_unit_test(at_once_costs_little_more_than_in_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
