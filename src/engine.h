/* The engine behind the public API: what a session needs of it. */
#ifndef TESSERA_ENGINE_H
#define TESSERA_ENGINE_H

#include <pthread.h>

#include "base/cpu.h"
#include "base/seats.h"
#include "calibration.h"
#include "load/weights.h"
#include "text/tokenizer.h"

struct tsr_engine {
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    struct model *model;     /* NULL with vocab_only, as is all below */
    struct kernel_set *kernels;
    struct plan *plan;
    struct weights *weights;
    struct seat *seats;      /* [n_seats] of the team */
    int n_seats;
    struct team *team;
    struct seat *usable_seats; /* [n_usable] of a team of all CPUs that may be used */
    int n_usable, n_physical;  /* CPUs, and of these those on cores of their own */
    struct topology *topology;
    enum tsr_numa numa;      /* TSR_NUMA_NONE where there is one node only */
    int home_node;           /* of the caller of tsr_engine_open: an index */
    struct node_shares shares;
    int n_threads, n_threads_batch;
    int given_threads, given_threads_batch; /* of the settings; 0: chosen */
    struct calibration_key key;
    struct calibration_choice choice; /* of the settings' calibration; zeros where there is none */
    uint32_t cpu_flags;
    uint64_t huge_page_bytes; /* of the arenas, once loaded */
    const char *no_tiles; /* why AMX is not in use; NULL where it is */
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

/* tsr_engine_open on a machine with these nodes (NULL: as it is), for tests. */
int engine_open_on(const struct topology *topology, const struct tsr_settings *settings,
                   tsr_engine **engine, struct tsr_error *error);

/* An engine with a plan, but neither vocabulary nor weights nor threads. */
int engine_plan(const struct tsr_settings *settings, tsr_engine **engine, struct tsr_error *error);

/* The CPU's flags, the model, its kernels, the seats of the team and the plan, from the file that
 * is open. */
int engine_make_plan(tsr_engine *engine, const struct tsr_settings *settings,
                     struct tsr_error *error);

/* Where the threads of the team would sit: seats, the numbers of threads, NUMA mode and shares; and
 * what of a calibration in the settings is used. */
int engine_choose_seats(tsr_engine *engine, const struct tsr_settings *settings,
                        struct tsr_error *error);

/* The numbers of threads: as given, or as calibrated, or one for each core. */
void engine_choose_threads(tsr_engine *engine, const struct calibration_choice *choice);

/* Gives the weights what was calibrated of the kernels. */
void engine_apply(tsr_engine *engine, const struct calibration_choice *choice);

/* What a session's settings come to. */
struct session_shape {
    uint32_t n_ctx, n_batch;
    enum kv_type kv_type;
};
int session_shape(const struct model_params *params, const struct tsr_session_settings *settings,
                  struct session_shape *shape, struct tsr_error *error);

/* The memory of a session. */
int engine_session_bytes(const tsr_engine *engine, const struct session_shape *shape,
                         uint64_t *kv_bytes, uint64_t *scratch_bytes, struct tsr_error *error);

/* Refuses a plan whose weights, with the KV cache and buffers of `session` (NULL: none), do not fit
 * into the memory that is left: TSR_ENOMEM with the numbers. */
int engine_check_memory(const tsr_engine *engine, const struct tsr_session_settings *session,
                        struct tsr_error *error);

/* Finds and logs how much of the arenas lies in huge pages. */
void engine_note_huge_pages(tsr_engine *engine);

/* Where the packed weights lie, as the kernel says. */
void engine_residency(const tsr_engine *engine, struct tsr_engine_info *info);
void engine_log_residency(const tsr_engine *engine);

/* Remembers an error's text as the engine's last message; returns its code. */
int engine_fail(tsr_engine *engine, const struct tsr_error *error);

#endif
