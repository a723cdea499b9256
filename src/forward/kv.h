/* The KV cache of one sequence: for every layer and key/value head, the keys and the values of all
 * positions, so that attention of a head reads one contiguous stretch. Latent attention has one
 * head of keys, each a latent and the rotated key behind it, and no values. */
#ifndef TESSERA_FORWARD_KV_H
#define TESSERA_FORWARD_KV_H

#include "base/error.h"
#include "model/model.h"

struct kv_cache {
    enum kv_type type;
    uint32_t n_ctx;
    uint32_t n_head_kv;
    size_t k_stride, v_stride; /* bytes of one position of one head */
    size_t layer_bytes;
    size_t bytes;
    uint8_t *data; /* [n_layer], each: K [n_head_kv, n_ctx, d_k], then V [n_head_kv, n_ctx, d_v] */
};

/* Everything but the memory. Errors: TSR_ENOMEM (a size beyond all bounds), TSR_EUNSUPPORTED (heads
 * that the type cannot keep). */
int kv_plan(struct kv_cache *kv, const struct model_params *params, uint32_t n_ctx,
            enum kv_type type, struct tsr_error *error);
/* Errors: those of kv_plan; TSR_ENOMEM with the size asked for. */
int kv_init(struct kv_cache *kv, const struct model_params *params, uint32_t n_ctx,
            enum kv_type type, struct tsr_error *error);
void kv_free(struct kv_cache *kv);

/* Keys or values of a head from position 0 on. */
uint8_t *kv_keys(const struct kv_cache *kv, int layer, int head);
uint8_t *kv_values(const struct kv_cache *kv, int layer, int head);

#endif
