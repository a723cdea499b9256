/* The engine's memory: whether it suffices, and what kind of pages it got. */
#include <stdio.h>

#include "base/memory.h"
#include "engine.h"
#include "forward/forward.h"

int engine_session_bytes(const tsr_engine *engine, const struct session_shape *shape,
                         uint64_t *kv_bytes, uint64_t *scratch_bytes, struct tsr_error *error)
{
    struct kv_cache kv;
    int status = kv_plan(&kv, &engine->model->params, shape->n_ctx, shape->kv_type, error);
    if (!status)
        status = forward_plan(engine->plan, (int)shape->n_batch, engine->n_seats, scratch_bytes,
                              error);
    *kv_bytes = status ? 0 : kv.bytes;
    return status;
}

int engine_check_memory(const tsr_engine *engine, const struct tsr_session_settings *session,
                        struct tsr_error *error)
{
    const struct plan *plan = engine->plan;
    struct session_shape shape;
    uint64_t kv = 0, scratch = 0, weights = plan->vector_bytes;
    int status = 0;
    if (session)
        status = session_shape(&engine->model->params, session, &shape, error);
    if (session && !status)
        status = engine_session_bytes(engine, &shape, &kv, &scratch, error);
    if (status)
        return status;
    for (int pool = 0; pool < POOL_COUNT; pool++)
        for (int node = 0; node < plan->n_nodes; node++)
            weights += plan->arena_bytes[pool][node];
    char what[256];
    int len = snprintf(what, sizeof what, "%.100s: packed weights of %llu MiB",
                       gguf_path(engine->gguf), (unsigned long long)weights >> 20);
    if (session)
        snprintf(what + len, sizeof what - (size_t)len,
                 ", a KV cache of %llu MiB and buffers of %llu MiB", (unsigned long long)kv >> 20,
                 (unsigned long long)scratch >> 20);
    return memory_require("", weights + kv + scratch, what,
                          session ? "use a smaller -c or -b, a smaller model, or leave matrices in "
                                    "the file (-ot '.*=mapped')"
                                  : "use a smaller model, or leave matrices in the file",
                          error);
}

void engine_note_huge_pages(tsr_engine *engine)
{
    uint64_t packed = weights_packed_bytes(engine->weights);
    for (int pool = 0; pool < POOL_COUNT; pool++)
        for (int node = 0; node < engine->plan->n_nodes; node++) {
            const struct arena *arena = &engine->weights->arenas[pool][node];
            if (arena->data)
                engine->huge_page_bytes += memory_huge_bytes(arena->data, arena->bytes);
        }
    if (packed)
        engine_log(engine, TSR_LOG_INFO, "huge pages: %.1f of %.1f MiB of packed weights",
                   (double)engine->huge_page_bytes / (1 << 20), (double)packed / (1 << 20));
}
