#include "forward/kv.h"

#include <stdio.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "base/memory.h"

int kv_plan(struct kv_cache *kv, const struct model_params *params, uint32_t n_ctx,
            enum kv_type type, struct tsr_error *error)
{
    size_t element = kv_element_bytes(type);
    *kv = (struct kv_cache){.type = type,
                            .n_ctx = n_ctx,
                            .n_head_kv = params->n_head_kv,
                            .k_stride = params->d_k * element,
                            .v_stride = params->d_v * element};
    if (params->mla.kv_rank) {
        kv->k_stride = (params->mla.kv_rank + params->rope.n_rot) * element;
        kv->v_stride = 0;
    }
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
