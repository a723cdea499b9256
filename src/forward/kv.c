#include "forward/kv.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "base/memory.h"

/* Latents and the rotated keys behind them are read by themselves, too. */
static int require_whole_blocks(const struct model_params *params, struct tsr_error *error)
{
    bool latent = params->mla.kv_rank > 0;
    uint32_t first = latent ? params->mla.kv_rank : params->d_k;
    uint32_t second = latent ? params->rope.n_rot : params->d_v;
    if (first % KV_Q8_0_ELEMS == 0 && second % KV_Q8_0_ELEMS == 0)
        return 0;
    return error_set(error, TSR_EUNSUPPORTED,
                     "a KV cache in q8_0 has blocks of %d elements, but this model's %s have %u "
                     "and %u: use f16", KV_Q8_0_ELEMS,
                     latent ? "latents and rotated keys" : "keys and values", first, second);
}

int kv_plan(struct kv_cache *kv, const struct model_params *params, uint32_t n_ctx,
            enum kv_type type, struct tsr_error *error)
{
    bool latent = params->mla.kv_rank > 0;
    uint32_t d_k = latent ? params->mla.kv_rank + params->rope.n_rot : params->d_k;
    uint32_t d_v = latent ? 0 : params->d_v;
    int status = type == KV_Q8_0 ? require_whole_blocks(params, error) : 0;
    if (status)
        return status;
    *kv = (struct kv_cache){.type = type,
                            .n_ctx = n_ctx,
                            .n_head_kv = params->n_head_kv,
                            .k_stride = kv_row_bytes(type, d_k),
                            .v_stride = kv_row_bytes(type, d_v)};
    size_t positions = (size_t)n_ctx * params->n_head_kv;
    if (!mul_size(positions, kv->k_stride + kv->v_stride, &kv->layer_bytes) ||
        !mul_size(kv->layer_bytes, params->n_layer, &kv->bytes))
        return error_set(error, TSR_ENOMEM, "a context of %u is too large: use a smaller -c", n_ctx);
    return 0;
}

int kv_init(struct kv_cache *kv, const struct model_params *params, uint32_t n_ctx,
            enum kv_type type, struct tsr_error *error)
{
    int status = kv_plan(kv, params, n_ctx, type, error);
    if (status)
        return status;
    char what[64];
    snprintf(what, sizeof what, "a KV cache of %u positions", n_ctx);
    status = memory_require("", kv->bytes, what, "use a smaller -c", error);
    if (status)
        return status;
    /* Pages come when positions are written: a large context costs nothing until it is used. */
    void *data = mmap(NULL, kv->bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED)
        return error_set(error, TSR_ENOMEM,
                         "out of memory: %zu MiB for a KV cache of %u positions: use a smaller -c",
                         kv->bytes >> 20, n_ctx);
    kv->data = data;
    return 0;
}

void kv_free(struct kv_cache *kv)
{
    if (kv->data)
        munmap(kv->data, kv->bytes);
    kv->data = NULL;
}

uint8_t *kv_keys(const struct kv_cache *kv, int layer, int head)
{
    return kv->data + (size_t)layer * kv->layer_bytes + (size_t)head * kv->n_ctx * kv->k_stride;
}

uint8_t *kv_values(const struct kv_cache *kv, int layer, int head)
{
    size_t keys = (size_t)kv->n_head_kv * kv->n_ctx * kv->k_stride;
    return kv->data + (size_t)layer * kv->layer_bytes + keys +
           (size_t)head * kv->n_ctx * kv->v_stride;
}
