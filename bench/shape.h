/* Named public model shapes, for measuring machines without a download. */
#ifndef TESSERA_BENCH_SHAPE_H
#define TESSERA_BENCH_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

struct shape {
    const char *name;
    const char *arch;
    uint32_t n_layer, n_embd, n_vocab, n_ctx;
    uint32_t n_head, n_head_kv, d_head;
    uint32_t n_ff;                               /* dense; 0 with experts */
    uint32_t n_expert, n_expert_used, n_ff_expert;
    float rope_base;
    bool qk_norm;
};

/* NULL for an unknown name. */
const struct shape *shape_find(const char *name);
void shape_list(void);

#endif
