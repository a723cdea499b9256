/* Plans: the engine's own, and those of the public API, which are an engine without weights. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine_plan.h"

/* ---- Making plans ---- */

static const char *why_no_tiles(const struct tsr_settings *settings, const struct cpu_info *cpu,
                                uint32_t flags)
{
    if (flags & CPU_AMX_TILE && flags & CPU_AMX_BF16)
        return NULL;
    if (settings->amx == TSR_OFF)
        return "AMX is off";
    if (settings->isa != TSR_ISA_AUTO && settings->isa != TSR_ISA_AMX)
        return "--isa leaves AMX out";
    for (int i = 0; i < CPU_FEATURE_COUNT; i++) {
        uint32_t flag = cpu->features[i].flag;
        if (flag & (CPU_AVX2 | CPU_AMX_TILE | CPU_AMX_BF16) && !cpu->features[i].present)
            return cpu->features[i].reason;
    }
    return "AMX is not in use";
}

static void warn_of_idle_overrides(const tsr_engine *engine, const struct tsr_settings *settings)
{
    for (size_t i = 0; i < engine->plan->n_overrides; i++)
        if (engine->plan->overrides[i].n_tensors == 0)
            engine_log(engine, TSR_LOG_WARN, "-ot '%s' is the first match of no tensor",
                       settings->overrides[i]);
}

/* A calibration is of the kernels too, which the flags of pools and levels choose. */
static int check_kernels(tsr_engine *engine, const struct tsr_settings *settings,
                         struct tsr_error *error)
{
    engine->key.kernels = calibration_hash_kernels(engine->plan);
    if (!settings->calibration || engine->choice.kernels == engine->key.kernels)
        return 0;
    return error_set(error, TSR_ESTALE,
                     "--calibration: made with other kernels for the tensors (--isa, --amx, -ot, "
                     "--pool-budget)");
}

int engine_make_plan(tsr_engine *engine, const struct tsr_settings *settings,
                     struct tsr_error *error)
{
    struct cpu_info cpu;
    cpu_detect(&cpu);
    snprintf(engine->key.cpu, sizeof engine->key.cpu, "%s", cpu.model + strspn(cpu.model, " "));
    int status = cpu_select(&cpu, settings->isa, settings->amx, settings->emulate_tiles,
                            &engine->cpu_flags, error);
    if (!status)
        status = model_open(engine->gguf, &engine->model, error);
    if (!status)
        status = engine_choose_seats(engine, settings, error);
    if (status)
        return status;
    engine->kernels = mem_alloc(1, sizeof *engine->kernels);
    if (!engine->kernels)
        return error_set(error, TSR_ENOMEM, "out of memory");
    kernel_set_init(engine->kernels, engine->cpu_flags);
    engine->no_tiles = why_no_tiles(settings, &cpu, engine->cpu_flags);
    struct plan_settings plan = {.shares = engine->shares,
                                 .overrides = settings->overrides,
                                 .n_overrides = settings->n_overrides,
                                 .no_tiles = engine->no_tiles};
    memcpy(plan.budgets, settings->pool_budgets, sizeof plan.budgets);
    status = plan_create(engine->model, engine->kernels, &plan, &engine->plan, error);
    if (!status)
        status = check_kernels(engine, settings, error);
    if (!status)
        warn_of_idle_overrides(engine, settings);
    return status;
}

/* ---- The public API ---- */

static int price(tsr_plan *plan, const struct tsr_session_settings *settings,
                 struct tsr_error *error)
{
    int status = session_shape(&plan->engine->model->params, settings, &plan->session, error);
    if (!status)
        status = engine_session_bytes(plan->engine, &plan->session, &plan->kv_bytes,
                                      &plan->scratch_bytes, error);
    return status;
}

int tsr_plan_create(const struct tsr_settings *settings,
                    const struct tsr_session_settings *session, tsr_plan **out,
                    struct tsr_error *error)
{
    *out = NULL;
    tsr_plan *plan = mem_alloc(1, sizeof *plan);
    if (!plan)
        return error_set(error, TSR_ENOMEM, "out of memory for a plan");
    struct tsr_session_settings defaults = tsr_session_settings_default();
    int status = engine_plan(settings, &plan->engine, error);
    if (!status && !session)
        session = settings->session ? settings->session : &defaults;
    if (!status)
        status = price(plan, session, error);
    if (status) {
        tsr_plan_free(plan);
        return status;
    }
    *out = plan;
    return 0;
}

void tsr_plan_free(tsr_plan *plan)
{
    if (!plan)
        return;
    tsr_engine_close(plan->engine);
    free(plan);
}

static void describe_pool(const struct plan *plan, int pool, struct tsr_pool_info *info)
{
    info->name = plan_pool_name((enum plan_pool)pool);
    info->n_tensors = plan->pools[pool].n_tensors;
    info->file_bytes = plan->pools[pool].file_bytes;
    info->bytes = plan->pools[pool].bytes;
    info->budget = plan->pools[pool].budget;
    memcpy(info->node_bytes, plan->arena_bytes[pool], sizeof info->node_bytes);
}

void tsr_plan_info(const tsr_plan *plan, struct tsr_plan_info *info)
{
    const tsr_engine *engine = plan->engine;
    struct tsr_plan_info full = {
        .struct_size = info->struct_size,
        .arch = engine->model->arch->name,
        .isa = cpu_isa_name(engine->cpu_flags),
        .no_amx = engine->no_tiles,
        .file_bytes = gguf_file_bytes(engine->gguf),
        .vector_bytes = engine->plan->vector_bytes,
        .kv_bytes = plan->kv_bytes,
        .scratch_bytes = plan->scratch_bytes,
        .n_ctx = plan->session.n_ctx,
        .n_batch = plan->session.n_batch,
        .n_threads = engine->n_seats,
        .n_nodes = engine->plan->n_nodes,
    };
    for (int pool = 0; pool < POOL_COUNT; pool++) {
        describe_pool(engine->plan, pool, &full.pools[pool]);
        full.n_tensors += full.pools[pool].n_tensors;
        full.tensor_bytes += full.pools[pool].file_bytes;
    }
    size_t size = info->struct_size < sizeof full ? info->struct_size : sizeof full;
    memcpy(info, &full, size);
}
