/* tessera: GGUF language models on CPUs. The whole public API.
 *
 * How the pieces fit
 *
 *     settings --> tsr_plan_create --> plan (where tensors would go, and the memory they take)
 *     settings --> tsr_engine_open --> engine (weights, vocabulary; immutable, shareable)
 *                                        |-- tsr_tokenize, tsr_token_text, tsr_chat_render
 *                                        `-- tsr_session_open --> session (KV cache, sampler state)
 *                                                |-- tsr_session_sync / _eval: token ids in
 *                                                `-- tsr_session_logits / _sample: next token out
 *
 * Rules that hold for every function
 *   - A negative return is an error code of the list below; tsr_strerror names it. Details (file,
 *     tensor, flag, what to do) are in the `struct tsr_error` the caller passed, or in the last
 *     message of the engine (tsr_engine_message).
 *   - The library never prints, exits, aborts or reads the environment; it has no process globals.
 *   - On failure, output handles are set to NULL and nothing is left to free.
 *   - An engine may be used by any number of threads at once. A session belongs to one thread at a
 *     time; only tsr_session_cancel may be called from another. Evaluations of several sessions of
 *     one engine are serialised: each uses the engine's whole thread team.
 *   - Strings are UTF-8. Pointers to `const` inside a settings struct need only live for the call.
 */
#ifndef TESSERA_TESSERA_H
#define TESSERA_TESSERA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tessera/version.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define TSR_API __attribute__((visibility("default")))
#else
#define TSR_API
#endif

/* ---- Errors ---------------------------------------------------------------------------------- */

#define TSR_ERROR_MAP(X)                                                        \
    X(ENOMEM, -1, "out of memory")                                              \
    X(EIO, -2, "file cannot be read or written")                                \
    X(EFORMAT, -3, "file is damaged or not what it should be")                  \
    X(EUNSUPPORTED, -4, "valid, but not supported by this version")             \
    X(EINVAL, -5, "invalid argument")                                           \
    X(ECONTEXT, -6, "the context is full")                                      \
    X(ECANCELED, -7, "cancelled")                                               \
    X(ESYSTEM, -8, "the operating system refused")                              \
    X(ECPU, -9, "this CPU lacks what was asked for")                            \
    X(ETEMPLATE, -10, "the chat template cannot be rendered")                   \
    X(ESTALE, -11, "made for another machine, model or settings")

enum tsr_code {
    TSR_OK = 0,
#define TSR_ERROR_CODE(name, value, text) TSR_##name = (value),
    TSR_ERROR_MAP(TSR_ERROR_CODE)
#undef TSR_ERROR_CODE
};

/* What went wrong, in one line: "model.gguf: offset 24: tensor count 2^63 exceeds the file". */
struct tsr_error {
    int code;
    char text[1024];
};

/* Name of an error code; "unknown error" for others. Never NULL; static storage. Since 0.1. */
TSR_API const char *tsr_strerror(int code);

/* Version of the library that was linked, "0.1.0"; compare with TSR_VERSION of the header. */
TSR_API const char *tsr_version(void);

/* ---- Settings -------------------------------------------------------------------------------- */

enum tsr_isa { TSR_ISA_AUTO, TSR_ISA_SCALAR, TSR_ISA_AVX2, TSR_ISA_AVX512, TSR_ISA_AMX };
enum tsr_tristate { TSR_AUTO, TSR_ON, TSR_OFF };
/* How keys and values are kept. Q8_0, blocks of 32 in 8 bits with a scale (34 bytes), is for heads
 * whose sizes are multiples of 32. */
enum tsr_kv_type { TSR_KV_F16, TSR_KV_F32, TSR_KV_BF16, TSR_KV_Q8_0 };
/* What to do on machines with several NUMA nodes (on others all are the same). */
enum tsr_numa {
    TSR_NUMA_NONE,       /* the kernel's way: pages come from the node that touches them first */
    TSR_NUMA_ISOLATE,    /* threads and weights on the node that tsr_engine_open is called on */
    TSR_NUMA_INTERLEAVE, /* threads and weights over all nodes, page by page */
    TSR_NUMA_SHARD,      /* the rows of each matrix divided among the nodes; each node's threads
                            work with what lies in its memory */
};
/* Where weights can be, in the order in which each tensor is offered to them. */
enum tsr_pool {
    TSR_POOL_AMX,    /* "amx": packed for the kernels that use AMX tiles */
    TSR_POOL_CPU,    /* "cpu": packed for the kernels that use vectors only */
    TSR_POOL_MAPPED, /* "mapped": used straight from the mapped file */
    TSR_POOL_COUNT
};
struct tsr_session_settings; /* below */
enum tsr_log_level { TSR_LOG_ERROR, TSR_LOG_WARN, TSR_LOG_INFO, TSR_LOG_DEBUG };

/* One line of text without a newline. Called from the thread that called into the library. */
typedef void tsr_log_fn(void *user, enum tsr_log_level level, const char *line);

/* Progress of long work, `done` of `total` in units of the stage ("loading": bytes; "prompt":
 * tokens, told before each layer of a batch). Return false to cancel: the call then fails with
 * TSR_ECANCELED. Called from the thread that called into the library, which it must not call again
 * but for tsr_session_cancel. */
typedef bool tsr_progress_fn(void *user, const char *stage, uint64_t done, uint64_t total);

struct tsr_settings {
    size_t struct_size;        /* sizeof(struct tsr_settings); set by tsr_settings_default */
    const char *model_path;    /* a GGUF file, or the first file of a split one */
    bool vocab_only;           /* open the vocabulary and template only, no weights */
    int n_threads;             /* threads of the team for decode; 0: one for each usable core */
    int n_threads_batch;       /* the same for prompts; 0: as n_threads */
    enum tsr_isa isa;          /* highest instruction set that kernels may use */
    enum tsr_tristate amx;     /* AMX tiles: when usable, required, or never */
    enum tsr_numa numa;        /* threads and weights on machines with several NUMA nodes */
    /* Execute AMX instructions in software (slow; for tests). While such an engine is open, the
     * process has a handler of SIGILL, which passes on what is not for it. */
    bool emulate_tiles;
    /* [n_overrides] "REGEX=POOL[,POOL...]": tensors in whose name the (Perl) pattern is found are
     * offered to these pools only, in this order; the first override that matches counts. */
    const char *const *overrides;
    size_t n_overrides;
    uint64_t pool_budgets[TSR_POOL_COUNT]; /* bytes that a pool may take; UINT64_MAX: no limit */
    /* A session to come: opening is refused (TSR_ENOMEM) unless its KV cache and buffers fit into
     * the memory beside the weights. NULL: only the weights must fit. */
    const struct tsr_session_settings *session;
    bool mlock;                /* keep the weights in memory: TSR_ESYSTEM where the system forbids */
    /* A folder where packed weights are kept and, at the next start, mapped from: NULL for none. A
     * file there that is stale or damaged is replaced, with a line to `log`; a folder that cannot be
     * written is TSR_EIO. Such a file must not be cut short while an engine uses it. */
    const char *pack_cache;
    /* What tsr_engine_calibrate found, as JSON: gives the numbers of threads that are 0, and of rows
     * from which tiles are used. TSR_ESTALE where it was made on another machine, for another model
     * or under settings with other kernels; TSR_EFORMAT where it is damaged. NULL: none. */
    const char *calibration;
    bool no_huge_pages;        /* do not ask the system for huge pages */
    tsr_log_fn *log;           /* NULL: silent */
    tsr_progress_fn *progress; /* NULL: none */
    void *user;                /* passed to log and progress */
};

/* Settings with every field at its default. Since 0.1. */
TSR_API struct tsr_settings tsr_settings_default(void);

/* ---- Files and machine ----------------------------------------------------------------------- */

/* Metadata and tensor directory of a GGUF file as one JSON object: {"file", "version", "metadata":
 * {key: {"type", "value"}}, "tensors": [{"name", "type", "shape", "offset", "bytes"}]}. An array has
 * the type of its elements as "of" and their number as "length" too; of more than `max_array`
 * elements the first are shown; 0 means all. Tensors of a split model name the "part", from 1 on,
 * that their offset is in. `*json` is owned by the caller: tsr_free. No weights are read. */
TSR_API int tsr_file_describe(const char *path, size_t max_array, char **json,
                              struct tsr_error *error);

/* What this CPU has, what will be used under `settings` (NULL: defaults) and why not more, as JSON:
 * {"vendor", "model", "cores", "threads", "nodes": [{"node", "threads", "memory", "available"}],
 * "isa": "avx2", "features": [{"name", "present", "used", "reason"}]}; memory in bytes, node -1 where
 * nothing is known of NUMA nodes.
 * `*json` is owned by the caller: tsr_free. */
TSR_API int tsr_cpu_describe(const struct tsr_settings *settings, char **json,
                             struct tsr_error *error);

/* Frees a string or buffer that the library handed out. NULL is allowed. */
TSR_API void tsr_free(void *memory);

/* ---- Plan ------------------------------------------------------------------------------------ */

/* Where every tensor of a model would go, and the memory that an engine and a session of it take:
 * the very plan that tsr_engine_open makes under the same settings. No weights are read, so it is
 * quick for files of any size. Immutable; any number of threads may use it. */
typedef struct tsr_plan tsr_plan;

enum { TSR_NODES_MAX = 8 };

struct tsr_pool_info {
    const char *name;    /* "amx"; static */
    uint64_t n_tensors;  /* of the file; over all pools each is counted once */
    uint64_t file_bytes; /* that these take in the file */
    uint64_t bytes;      /* that the pool takes: memory, or of the mapping */
    uint64_t budget;     /* of the settings; UINT64_MAX: no limit */
    uint64_t node_bytes[TSR_NODES_MAX]; /* memory by part: one, or one for each node with
                                           TSR_NUMA_SHARD; 0 for TSR_POOL_MAPPED */
};

struct tsr_plan_info {
    size_t struct_size;     /* set by the caller to sizeof(struct tsr_plan_info) */
    const char *arch;       /* "qwen3moe"; static */
    const char *isa;        /* the instruction set that would be used: "avx2"; static */
    const char *no_amx;     /* why AMX would not be used; NULL where it would; static */
    struct tsr_pool_info pools[TSR_POOL_COUNT];
    uint64_t n_tensors;     /* of the file */
    uint64_t file_bytes;    /* size of the model file or files... */
    uint64_t tensor_bytes;  /* ...and what of it is tensors: the sum over the pools */
    uint64_t vector_bytes;  /* norms and biases as floats, beside the pools */
    uint64_t kv_bytes, scratch_bytes; /* of a session */
    uint32_t n_ctx, n_batch;          /* of that session */
    int n_threads;          /* of the team, for prompts or generation, whichever are more */
    int n_nodes;            /* parts of each matrix */
};

/* Plans for `settings` and a session with `session` (NULL: settings->session, or the defaults).
 * vocab_only is ignored, and so is how much memory there is.
 * On success `*plan` is owned by the caller: tsr_plan_free. `error` may be NULL. Errors: those of
 * the file, TSR_ECPU, TSR_EINVAL (settings; an override that its pools cannot honour), TSR_ENOMEM
 * (a budget that cannot be met), TSR_EUNSUPPORTED; the message names tensor, pool and reason. Since
 * 0.1. */
TSR_API int tsr_plan_create(const struct tsr_settings *settings,
                            const struct tsr_session_settings *session, tsr_plan **plan,
                            struct tsr_error *error);

/* Fills `info` up to its struct_size. Since 0.1. */
TSR_API void tsr_plan_info(const tsr_plan *plan, struct tsr_plan_info *info);

/* The whole plan as one JSON object, a row for each tensor included; docs/plan.schema.json
 * describes it. `*json` is owned by the caller: tsr_free. Errors: TSR_ENOMEM. Since 0.1. */
TSR_API int tsr_plan_json(const tsr_plan *plan, char **json, struct tsr_error *error);

/* NULL is allowed. Since 0.1. */
TSR_API void tsr_plan_free(tsr_plan *plan);

/* ---- Engine ---------------------------------------------------------------------------------- */

typedef struct tsr_engine tsr_engine;

struct tsr_engine_info {
    size_t struct_size;      /* set by the caller to sizeof(struct tsr_engine_info) */
    const char *arch;        /* "qwen3moe"; valid while the engine is open */
    const char *name;        /* general.name, or "" */
    const char *isa;         /* the instruction set in use: "avx2" */
    uint32_t n_vocab;        /* tokens in the vocabulary; a row of logits has so many floats */
    uint32_t n_ctx_train;    /* context length the model was trained with; 0 with vocab_only */
    uint32_t n_embd, n_layer, n_expert, n_expert_used;
    uint64_t n_params;       /* elements of all tensors */
    uint64_t file_bytes;     /* size of the model file or files */
    uint64_t packed_bytes;   /* memory held for packed weights */
    bool packed_from_cache;  /* they are mapped from a file in tsr_settings.pack_cache */
    uint64_t huge_page_bytes; /* of these, what lay in huge pages once they were loaded */
    int n_threads, n_threads_batch;
    int n_nodes;             /* NUMA nodes; 1 where the machine has or tells of no others */
    uint64_t node_bytes[TSR_NODES_MAX]; /* of the packed weights in the memory of each node, as the
                                           kernel says (by samples); 0 where it does not */
    int32_t bos, eos, eot;   /* token ids, -1 where the model has none */
    bool add_bos;            /* whether tsr_tokenize with TSR_TOKENIZE_BOS adds one */
    bool has_chat_template;
};

/* Opens a model: reads the file, packs the weights, starts the thread team.
 * On success `*engine` is owned by the caller: tsr_engine_close. `error` may be NULL.
 * Errors: all of the list. Since 0.1. */
TSR_API int tsr_engine_open(const struct tsr_settings *settings, tsr_engine **engine,
                            struct tsr_error *error);

/* Closes an engine whose sessions are all closed. NULL is allowed. */
TSR_API void tsr_engine_close(tsr_engine *engine);

/* Fills `info` up to its struct_size. */
TSR_API void tsr_engine_info(const tsr_engine *engine, struct tsr_engine_info *info);

/* Measures, for `seconds` at most (0: 3; very slow models take longer), how many threads are the
 * fastest for prompts and for generation, and from how many rows on tiles are faster than vectors, by
 * weight type; this engine then works with what was found, but for numbers of threads that its settings
 * gave. Takes the memory of a session of up to 512 tokens meanwhile. Calls `progress` of the
 * settings with stage "calibrating".
 *
 * `*json` is owned by the caller (tsr_free): {"calibration": version, "machine": {"cpu", "cpus",
 * "isa", "emulated", "numa"}, "model": {"name", "tensors", "kernels"}, "prompt": {"tokens",
 * "threads": [{"threads", "tokens_per_second", "samples"}]}, "generation": {"depth", "threads"},
 * "kernels": [{"type", "name", "n", "k", "default_min_rows", "gflops": [{"rows", "tiles",
 * "vectors"}]}], "choice": {"n_threads", "n_threads_batch", "min_rows": {type: rows, or null for
 * never}}}. To be kept as a whole, for tsr_settings.calibration.
 *
 * No other function may use the engine or its sessions meanwhile. Sessions that are open stay as
 * they are; they use the new numbers up to the threads that the engine had when they were opened.
 * On failure nothing has changed. `error` may be NULL. Errors: TSR_EINVAL (opened with vocab_only),
 * TSR_ENOMEM, TSR_ESYSTEM, TSR_ECANCELED. Since 0.1. */
TSR_API int tsr_engine_calibrate(tsr_engine *engine, double seconds, char **json,
                                 struct tsr_error *error);

/* The last error message of this engine and its sessions; "" when there was none. Valid until the
 * next failing call on the same engine, from any thread: who has several should keep their failing
 * calls and this one apart. */
TSR_API const char *tsr_engine_message(const tsr_engine *engine);

/* ---- Text ------------------------------------------------------------------------------------ */

enum tsr_tokenize_flags {
    TSR_TOKENIZE_BOS = 1,     /* add BOS (and EOS) where the model asks for it */
    TSR_TOKENIZE_SPECIAL = 2, /* control tokens written in the text become their ids */
};

/* Token ids of text[0..len). Writes up to `capacity` ids and returns how many there are, which may
 * be more than `capacity` (then call again with room), or a negative code. */
TSR_API int64_t tsr_tokenize(const tsr_engine *engine, const char *text, size_t len, unsigned flags,
                             int32_t *ids, size_t capacity);

/* The bytes of one token, not terminated; control tokens have none unless `special`. May be part
 * of a UTF-8 character: print through a tsr_detokenizer. Returns the length, which may be more
 * than `capacity`, or a negative code. */
TSR_API int64_t tsr_token_text(const tsr_engine *engine, int32_t id, bool special, char *text,
                               size_t capacity);

/* Whether generation ends at this token (EOS, EOT and the like). */
TSR_API bool tsr_token_is_end(const tsr_engine *engine, int32_t id);

/* Text of a stream of ids in whole UTF-8 characters only. Belongs to one thread at a time, and leaves
 * no message: its errors are TSR_ENOMEM and, for an id outside the vocabulary, TSR_EINVAL. Models
 * whose words begin with a space have none before the first word of a text: to go on with a text,
 * push its last id before those that follow, and ignore what that gives. */
typedef struct tsr_detokenizer tsr_detokenizer;
TSR_API int tsr_detokenizer_open(const tsr_engine *engine, bool special, tsr_detokenizer **stream);
/* Adds a token; `*text` (not terminated, `*len` bytes, perhaps 0) is valid until the next call. */
TSR_API int tsr_detokenizer_push(tsr_detokenizer *stream, int32_t id, const char **text,
                                 size_t *len);
/* The rest: bytes that never became a character, as they are (tokens may spell invalid UTF-8). */
TSR_API int tsr_detokenizer_flush(tsr_detokenizer *stream, const char **text, size_t *len);
TSR_API void tsr_detokenizer_close(tsr_detokenizer *stream);

struct tsr_chat {
    size_t struct_size;         /* sizeof(struct tsr_chat) */
    const char *messages_json;  /* [{"role": "user", "content": "Hi"}, ...] */
    const char *template_text;  /* NULL: the model's own */
    const char *variables_json; /* NULL, or an object of further template variables */
    bool add_generation_prompt;
};

/* Renders a chat prompt. `*text` (terminated; `*len` bytes where len is not NULL) is owned by the
 * caller: tsr_free. Errors: TSR_ETEMPLATE, TSR_EINVAL (messages), TSR_ENOMEM. */
TSR_API int tsr_chat_render(const tsr_engine *engine, const struct tsr_chat *chat, char **text,
                            size_t *len);

/* ---- Session --------------------------------------------------------------------------------- */

typedef struct tsr_session tsr_session;

struct tsr_session_settings {
    size_t struct_size;
    uint32_t n_ctx;    /* positions of the KV cache; 0: what the model was trained with, <= 4096 */
    uint32_t n_batch;  /* tokens evaluated at once at most (default 2048) */
    enum tsr_kv_type kv_type;
    bool profile;      /* measure the phases of evaluations, for tsr_session_profile */
};
TSR_API struct tsr_session_settings tsr_session_settings_default(void);

struct tsr_sampling {
    size_t struct_size;
    float temperature;    /* 0: greedy */
    int32_t top_k;        /* 0: off */
    float top_p, min_p;   /* 1 and 0: off */
    float repeat_penalty; /* 1: off */
    int32_t repeat_last_n; /* tokens the penalty looks back on; -1: the whole context */
    uint64_t seed;        /* the same seed, settings and ids give the same tokens */
};
TSR_API struct tsr_sampling tsr_sampling_default(void);

struct tsr_stats {
    size_t struct_size;
    uint32_t n_past;             /* tokens in the KV cache */
    uint32_t n_ctx;
    uint64_t n_prompt, n_decode; /* tokens of texts, and those evaluated alone by _eval */
    uint64_t n_reused;           /* tokens that tsr_session_sync found in the cache */
    double prompt_seconds, decode_seconds, sample_seconds;
    uint64_t kv_bytes, scratch_bytes;
};

/* A session of an engine, which must stay open as long; `settings` NULL: the defaults. On failure
 * *session is NULL. Errors: TSR_EINVAL, TSR_ENOMEM, each with the engine's message. Since 0.1. */
TSR_API int tsr_session_open(tsr_engine *engine, const struct tsr_session_settings *settings,
                             tsr_session **session);
TSR_API void tsr_session_close(tsr_session *session);

/* Appends `n` ids to the context and evaluates them in batches of n_batch. `logits`, where not
 * NULL, receives every position's: [n, n_vocab]. The last position's stay in the session.
 * Errors: TSR_ECONTEXT (nothing is changed), TSR_EINVAL (an id outside the vocabulary, n == 0),
 * TSR_ECANCELED (the batches before the cancelled one stay). */
TSR_API int tsr_session_eval(tsr_session *session, const int32_t *ids, size_t n, float *logits);

/* Makes the context hold exactly ids[0..n): keeps the common prefix, drops what differs, evaluates
 * the rest (the last id is always evaluated, so that its logits are there). */
TSR_API int tsr_session_sync(tsr_session *session, const int32_t *ids, size_t n);

/* Forgets all positions from `n_past` on, and the logits. TSR_EINVAL where there are fewer. */
TSR_API int tsr_session_rewind(tsr_session *session, uint32_t n_past);

/* Writes the context, its ids with their keys and values, to a file, which is replaced at once or
 * not at all. Errors: TSR_EIO (with the path), TSR_EINVAL (the path is too long). Since 0.1. */
TSR_API int tsr_session_save(tsr_session *session, const char *path);

/* Makes the context that of a file. There are no logits yet: tsr_session_sync with the same ids and
 * more evaluates what is new. On failure the context is empty. Errors: TSR_EIO, TSR_EFORMAT (not
 * such a file, or damaged), TSR_ESTALE (saved with another model or kv_type), TSR_ECONTEXT (more
 * tokens than n_ctx). Since 0.1. */
TSR_API int tsr_session_load(tsr_session *session, const char *path);

/* Logits of the last evaluated position, [n_vocab]; owned by the session, valid until its next
 * evaluation; NULL before the first, and after a rewind, a load or a failed evaluation. */
TSR_API const float *tsr_session_logits(const tsr_session *session);

/* Draws the next token from the last logits; it is not appended (call tsr_session_eval). The
 * random stream is seeded at the first draw and whenever `sampling->seed` changes. */
TSR_API int32_t tsr_session_sample(tsr_session *session, const struct tsr_sampling *sampling);

TSR_API void tsr_session_stats(const tsr_session *session, struct tsr_stats *stats);

/* A phase of evaluations, in seconds summed over the threads: at work, and waiting for others. */
struct tsr_phase_time {
    const char *name; /* "attention"; static storage */
    double work_seconds, wait_seconds;
};

/* The phases of all evaluations since the last call, in the order of a pass. Writes up to `capacity`
 * of them and returns how many there are; 0 where the session was opened without `profile`. What
 * was measured is forgotten. Since 0.1. */
TSR_API size_t tsr_session_profile(tsr_session *session, struct tsr_phase_time *phases,
                                   size_t capacity);

/* Makes the running or next evaluation stop with TSR_ECANCELED. Safe from any thread and from a
 * signal handler. */
TSR_API void tsr_session_cancel(tsr_session *session);

#ifdef __cplusplus
}
#endif
#endif
