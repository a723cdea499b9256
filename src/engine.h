/* The engine behind the public API: what a session needs of it. */
#ifndef TESSERA_ENGINE_H
#define TESSERA_ENGINE_H

#include <pthread.h>

#include "base/cpu.h"
#include "base/team.h"
#include "load/weights.h"
#include "text/tokenizer.h"

struct tsr_engine {
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    struct model *model;     /* NULL with vocab_only, as is all below */
    struct kernel_set *kernels;
    struct plan *plan;
    struct weights *weights;
    struct team *team;
    int n_threads, n_threads_batch;
    uint32_t cpu_flags;
    bool emulates_tiles; /* holds one use of the tile emulator */
    char *name, *arch; /* terminated copies of metadata strings */
    char *chat_template; /* NULL: the model has none */
    tsr_log_fn *log;
    tsr_progress_fn *progress;
    void *user;
    pthread_mutex_t run_lock;     /* one evaluation at a time uses the team */
    pthread_mutex_t message_lock;
    char message[sizeof((struct tsr_error *)0)->text];
};

/* A line for the caller's logger, where there is one. */
__attribute__((format(printf, 3, 4))) void engine_log(const tsr_engine *engine,
                                                      enum tsr_log_level level,
                                                      const char *format, ...);

/* Remembers an error's text as the engine's last message; returns its code. */
int engine_fail(tsr_engine *engine, const struct tsr_error *error);

#endif
