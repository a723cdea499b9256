/* Named public model shapes, for measuring machines without a download: GGUF files of random
 * weights, on disk or in memory. */
#ifndef TESSERA_BENCH_SHAPE_H
#define TESSERA_BENCH_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include <tessera/tessera.h>

struct shape {
    const char *name;
    const char *arch;
    uint32_t n_layer, n_embd, n_vocab, n_ctx;
    uint32_t n_head, n_head_kv, d_head; /* d_head of latent attention: without n_rot */
    uint32_t n_ff; /* of dense layers; 0 where all have experts */
    uint32_t n_expert, n_expert_used, n_ff_expert;
    float rope_base;
    bool qk_norm;
    uint32_t kv_rank, n_rot;          /* latent attention; 0: none */
    uint32_t n_layer_dense, n_shared; /* with experts: dense layers before them, shared experts */
};

/* What "NAME:TYPE" or "NAME:TYPE,LAYERS" asks for. */
struct shape_model {
    struct shape shape; /* with so many layers as are wanted */
    uint32_t type;      /* enum block_id of most matrices */
    bool mix;           /* some are of larger types, as in llama.cpp's Q4_K_M */
};

/* Errors: TSR_EINVAL (no such shape or type, with the list). */
int shape_parse(const char *text, struct shape_model *model, struct tsr_error *error);

/* Writes the model to a file, its weights as a hole where `hole`. A file that cannot be written ends
 * the program with one line. */
void shape_write(const struct shape_model *model, const char *path, bool hole);

/* Makes the model in memory: a file without a name, to be opened as /proc/self/fd/N and to be
 * closed by the caller. Errors: TSR_ENOMEM (neither the file nor the weights that an engine packs
 * from it would fit), TSR_ESYSTEM, TSR_ECANCELED (`progress` was false; it may be NULL). */
int shape_make(const struct shape_model *model, tsr_progress_fn *progress, int *fd,
               struct tsr_error *error);

#endif
