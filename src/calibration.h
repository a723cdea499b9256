/* A calibration: what was measured of an engine, what was chosen, and both as JSON.
 *
 * It counts where it was made only: on a machine, for a model, with an instruction set, a NUMA mode
 * and a kernel for each tensor (struct calibration_key). */
#ifndef TESSERA_CALIBRATION_H
#define TESSERA_CALIBRATION_H

#include "base/error.h"
#include "base/topology.h"
#include "plan/plan.h"

enum { CALIBRATION_COUNTS = 5, CALIBRATION_ROWS = 12 };

struct calibration_key {
    char cpu[49];
    int n_cpus;       /* that may be used */
    const char *isa;  /* static */
    const char *numa; /* static */
    bool emulated;    /* tiles in software */
    uint64_t model;   /* calibration_hash_model */
    uint64_t kernels; /* calibration_hash_kernels, once there is a plan */
};

struct calibration_choice {
    int n_threads, n_threads_batch; /* 0: not calibrated */
    int min_rows[BLOCK_ID_COUNT];   /* struct weights; 0: not calibrated */
    uint64_t kernels;               /* calibration_hash_kernels, where it was read */
};

struct thread_rate {
    int n_threads;
    double rate;   /* tokens per second, the median */
    int n_samples; /* fewer where others were clearly faster */
};

/* Speeds of the two parts of a kernel on matrices [n, k] of the model. */
struct kernel_rates {
    const struct gemm_kernel *kernel;
    int n, k;
    struct {
        int rows;
        double first, second; /* GFLOP/s of all threads: tiles, vectors */
    } of[CALIBRATION_ROWS];
};

struct calibration {
    int n_counts;
    struct thread_rate prompt[CALIBRATION_COUNTS], generation[CALIBRATION_COUNTS];
    int n_prompt, depth; /* tokens of the prompts; tokens before those that were generated */
    int n_kernels;
    struct kernel_rates kernels[BLOCK_ID_COUNT];
    struct calibration_choice choice;
};

/* Of the names, types and shapes of all tensors, whatever their weights: a copy of a file is the same
 * model, as is another of the same --shape. */
uint64_t calibration_hash_model(const struct gguf *gguf);
uint64_t calibration_hash_kernels(const struct plan *plan);

/* The JSON of tsr_engine_calibrate; `name` is the model's. Errors: TSR_ENOMEM. */
int calibration_write(const struct calibration *calibration, const struct calibration_key *key,
                      const char *name, char **json, struct tsr_error *error);

/* The choice, if `json` was made for `key`, whose `kernels` are left for the caller to compare.
 * Errors: TSR_ESTALE (with what differs), TSR_EFORMAT. */
int calibration_read(const char *json, const struct calibration_key *key,
                     struct calibration_choice *choice, struct tsr_error *error);

#endif
