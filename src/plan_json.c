/* A plan as JSON; docs/plan.schema.json describes it. */
#include <jansson.h>
#include <string.h>

#include "engine_plan.h"

/* Appends or sets; false without memory, as jansson has it for every part. */
static bool append(json_t *array, json_t *value)
{
    return json_array_append_new(array, value) == 0;
}

static bool set(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0;
}

/* Drops what is incomplete. */
static json_t *keep_if(bool complete, json_t *value)
{
    if (complete && value)
        return value;
    json_decref(value);
    return NULL;
}

static json_t *bytes_json(uint64_t bytes)
{
    return json_integer((json_int_t)bytes);
}

/* ---- Pools and overrides ---- */

static json_t *nodes_json(const tsr_engine *engine, int pool)
{
    json_t *nodes = json_array();
    bool complete = nodes != NULL;
    for (int node = 0; complete && node < engine->plan->n_nodes; node++)
        complete = append(nodes, bytes_json(engine->plan->arena_bytes[pool][node]));
    return keep_if(complete, nodes);
}

static json_t *pools_json(const tsr_engine *engine)
{
    json_t *pools = json_array();
    bool complete = pools != NULL;
    for (int pool = 0; complete && pool < POOL_COUNT; pool++) {
        const struct pool_sum *sum = &engine->plan->pools[pool];
        json_t *budget = sum->budget == UINT64_MAX ? json_null() : bytes_json(sum->budget);
        complete = append(pools, json_pack("{s:s, s:I, s:I, s:I, s:o, s:o}", "name",
                                           plan_pool_name((enum plan_pool)pool), "tensors",
                                           (json_int_t)sum->n_tensors, "file_bytes",
                                           (json_int_t)sum->file_bytes, "bytes",
                                           (json_int_t)sum->bytes, "budget", budget,
                                           "arena_bytes_by_node", nodes_json(engine, pool)));
    }
    return keep_if(complete, pools);
}

static json_t *pool_names_json(const struct pool_list *pools)
{
    json_t *names = json_array();
    bool complete = names != NULL;
    for (int i = 0; complete && i < pools->n; i++)
        complete = append(names, json_string(plan_pool_name(pools->pools[i])));
    return keep_if(complete, names);
}

/* A pattern may be any bytes; what is no UTF-8 is left out of the report. */
static json_t *pattern_json(const char *pattern)
{
    json_t *text = json_string(pattern);
    return text ? text : json_null();
}

static json_t *overrides_json(const struct plan *plan)
{
    json_t *overrides = json_array();
    bool complete = overrides != NULL;
    for (size_t i = 0; complete && i < plan->n_overrides; i++) {
        const struct plan_override *override = &plan->overrides[i];
        complete = append(overrides, json_pack("{s:o, s:o, s:I}", "pattern",
                                               pattern_json(override->pattern), "pools",
                                               pool_names_json(&override->pools), "tensors",
                                               (json_int_t)override->n_tensors));
    }
    return keep_if(complete, overrides);
}

/* ---- Tensors ---- */

static json_t *shape_json(const struct gguf_tensor *tensor)
{
    json_t *shape = json_array();
    bool complete = shape != NULL;
    for (int i = 0; complete && i < tensor->n_dims; i++)
        complete = append(shape, json_integer((json_int_t)tensor->dims[i]));
    return keep_if(complete, shape);
}

static json_t *refusals_json(const struct placement *place)
{
    json_t *refusals = json_array();
    bool complete = refusals != NULL;
    for (int pool = 0; complete && pool < POOL_COUNT; pool++) {
        char text[160];
        if (!place->refusals[pool].reason)
            continue;
        const char *name = plan_pool_name((enum plan_pool)pool);
        plan_refusal_text(&place->refusals[pool], text, sizeof text);
        complete = append(refusals, json_pack("{s:s, s:s}", "pool", name, "reason", text));
    }
    return keep_if(complete, refusals);
}

static json_t *tensor_json(const struct placement *place)
{
    const struct model_tensor *tensor = place->tensor;
    const struct gguf_tensor *source = tensor->source;
    json_t *name = json_string(place->name);
    json_t *layer = tensor->layer < 0 ? json_null() : json_integer(tensor->layer);
    json_t *kernel = place->kernel ? json_string(place->kernel->name) : json_null();
    json_t *override = place->override < 0 ? json_null() : json_integer(place->override);
    return json_pack("{s:o, s:s, s:o, s:s, s:o, s:s, s:o, s:I, s:I, s:b, s:o, s:o}", "name", name,
                     "role", model_role_name(tensor->role), "layer", layer, "type",
                     source->type->name, "shape", shape_json(source), "pool",
                     plan_pool_name(place->pool), "kernel", kernel, "bytes",
                     (json_int_t)place->bytes, "file_bytes", (json_int_t)source->n_bytes, "tied",
                     place->tied, "override", override, "refusals", refusals_json(place));
}

static json_t *tensors_json(const struct plan *plan)
{
    json_t *tensors = json_array();
    bool complete = tensors != NULL;
    for (size_t i = 0; complete && i < plan->n_placements; i++)
        complete = append(tensors, tensor_json(&plan->placements[i]));
    return keep_if(complete, tensors);
}

/* ---- The whole ---- */

static json_t *memory_json(const struct tsr_plan_info *info)
{
    uint64_t arenas = info->pools[TSR_POOL_AMX].bytes + info->pools[TSR_POOL_CPU].bytes;
    uint64_t mapped = info->pools[TSR_POOL_MAPPED].bytes;
    uint64_t total =
        arenas + mapped + info->vector_bytes + info->kv_bytes + info->scratch_bytes;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "arenas", (json_int_t)arenas, "mapped",
                     (json_int_t)mapped, "vectors", (json_int_t)info->vector_bytes, "kv_cache",
                     (json_int_t)info->kv_bytes, "scratch", (json_int_t)info->scratch_bytes,
                     "total", (json_int_t)total);
}

static json_t *plan_json(const tsr_plan *plan)
{
    struct tsr_plan_info info = {.struct_size = sizeof info};
    tsr_plan_info(plan, &info);
    const char *path = gguf_path(plan->engine->gguf);
    json_t *file = json_string(path);
    json_t *object = json_pack("{s:o, s:s, s:s, s:I, s:I, s:I, s:i, s:i, s:I, s:I}", "file",
                               file ? file : json_null(), "arch", info.arch, "isa", info.isa,
                               "tensors_in_file", (json_int_t)info.n_tensors, "file_bytes",
                               (json_int_t)info.file_bytes, "tensor_bytes",
                               (json_int_t)info.tensor_bytes, "threads", info.n_threads, "nodes",
                               info.n_nodes, "n_ctx", (json_int_t)info.n_ctx, "n_batch",
                               (json_int_t)info.n_batch);
    bool complete =
        object && set(object, "no_amx", info.no_amx ? json_string(info.no_amx) : json_null()) &&
        set(object, "memory", memory_json(&info)) &&
        set(object, "pools", pools_json(plan->engine)) &&
        set(object, "overrides", overrides_json(plan->engine->plan)) &&
        set(object, "tensors", tensors_json(plan->engine->plan));
    return keep_if(complete, object);
}

int tsr_plan_json(const tsr_plan *plan, char **json, struct tsr_error *error)
{
    json_t *object = plan_json(plan);
    *json = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!*json)
        return error_set(error, TSR_ENOMEM, "out of memory for the report of a plan");
    return 0;
}
