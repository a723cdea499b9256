/* tessera plan: where every tensor of a model would go, and the memory that takes. */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/common.h"

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* ---- Tensors ---- */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "-";
}

/* "amx: no tile kernel for this type; cpu: ..."; pools that say the same are named together. */
static void print_reasons(const json_t *tensor)
{
    const json_t *refusals = json_object_get(tensor, "refusals");
    for (size_t i = 0; i < json_array_size(refusals); i++) {
        const json_t *refusal = json_array_get(refusals, i);
        const json_t *next = json_array_get(refusals, i + 1);
        const char *reason = text_of(refusal, "reason");
        output_format("%s%s", i ? "" : "  ", text_of(refusal, "pool"));
        if (next && !strcmp(reason, text_of(next, "reason")))
            output_bytes(", ", 2);
        else
            output_format(": %s%s", reason, next ? "; " : "");
    }
    const json_t *override = json_object_get(tensor, "override");
    if (json_is_integer(override))
        output_format("  (-ot number %lld)", (long long)json_integer_value(override) + 1);
    const char *role = text_of(tensor, "role");
    if (json_is_true(json_object_get(tensor, "tied")) && !strcmp(role, "output.weight"))
        output_format("  (the embedding, once more)");
    else if (json_is_true(json_object_get(tensor, "tied")))
        output_format("  (once more, as %s)", role);
}

static void print_tensors(const json_t *tensors)
{
    size_t i;
    json_t *tensor;
    output_format("\n%-32s %-8s %-8s %-16s %12s  refused by\n", "tensor", "type", "pool", "kernel",
                  "bytes");
    json_array_foreach((json_t *)(uintptr_t)tensors, i, tensor)
    {
        output_format("%-32s %-8s %-8s %-16s %12lld", text_of(tensor, "name"),
                      text_of(tensor, "type"), text_of(tensor, "pool"), text_of(tensor, "kernel"),
                      (long long)json_integer_value(json_object_get(tensor, "bytes")));
        print_reasons(tensor);
        output_bytes("\n", 1);
    }
}

/* ---- Sums ---- */

static void print_pools(const struct tsr_plan_info *info)
{
    output_format("%-8s %8s %14s %14s %14s\n", "pool", "tensors", "in file, MiB", "takes, MiB",
                  "budget, MiB");
    for (int i = 0; i < TSR_POOL_COUNT; i++) {
        const struct tsr_pool_info *pool = &info->pools[i];
        char budget[32] = "-";
        if (pool->budget != UINT64_MAX)
            snprintf(budget, sizeof budget, "%.1f", mib(pool->budget));
        output_format("%-8s %8llu %14.1f %14.1f %14s\n", pool->name,
                      (unsigned long long)pool->n_tensors, mib(pool->file_bytes), mib(pool->bytes),
                      budget);
        bool divided = info->n_nodes > 1 && i != TSR_POOL_MAPPED;
        for (int node = 0; divided && node < info->n_nodes; node++)
            output_format("  node %d %30s %14.1f\n", node, "", mib(pool->node_bytes[node]));
    }
    uint64_t bytes = 0;
    for (int i = 0; i < TSR_POOL_COUNT; i++)
        bytes += info->pools[i].bytes;
    output_format("%-8s %8llu %14.1f %14.1f   of a file of %.1f MiB\n", "sum",
                  (unsigned long long)info->n_tensors, mib(info->tensor_bytes), mib(bytes),
                  mib(info->file_bytes));
}

static void print_session(const struct tsr_plan_info *info)
{
    output_format("\nbeside the pools: norms and biases %.1f MiB; KV cache of %u positions "
                  "%.1f MiB;\nbuffers for batches of %u on %d threads %.1f MiB\n",
                  mib(info->vector_bytes), info->n_ctx, mib(info->kv_bytes), info->n_batch,
                  info->n_threads, mib(info->scratch_bytes));
}

/* The text of a plan; false without memory for the report. */
static bool print_plan(const struct options *options, const tsr_plan *plan, const char *json)
{
    struct tsr_plan_info info = {.struct_size = sizeof info};
    tsr_plan_info(plan, &info);
    output_format("%s, kernels: %s%s%s\n", info.arch, info.isa, info.no_amx ? "; no AMX: " : "",
                  info.no_amx ? info.no_amx : "");
    print_pools(&info);
    print_session(&info);
    if (!options->verbose)
        return true;
    json_t *object = json_loads(json, 0, NULL);
    print_tensors(json_object_get(object, "tensors"));
    json_decref(object);
    return object != NULL;
}

int command_plan(const struct options *options)
{
    char path[4096], *json = NULL;
    if (!model_path(options, path, sizeof path))
        return EXIT_FAILED;
    struct tsr_settings settings = settings_from(options);
    struct tsr_session_settings session = session_settings_from(options);
    settings.model_path = path;
    struct tsr_error error = {0};
    tsr_plan *plan;
    int code = tsr_plan_create(&settings, &session, &plan, &error);
    if (!code)
        code = tsr_plan_json(plan, &json, &error);
    int status = EXIT_DONE;
    if (code)
        status = fail(options->command, "%s", error.text[0] ? error.text : tsr_strerror(code));
    else if (options->json)
        output_format("%s\n", json);
    else if (!print_plan(options, plan, json))
        status = fail(options->command, "out of memory");
    tsr_free(json);
    tsr_plan_free(plan);
    return status;
}
