/* Calibrations as JSON; tessera.h describes the object. */
#include "calibration.h"

#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"

uint64_t calibration_hash_model(const struct gguf *gguf)
{
    uint64_t seed = gguf_n_tensors(gguf);
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        seed = hash_text(seed, tensor->name);
        seed = hash_number(seed, tensor->type->id);
        seed = hash_bytes(seed, tensor->dims, sizeof tensor->dims);
    }
    return seed;
}

uint64_t calibration_hash_kernels(const struct plan *plan)
{
    uint64_t seed = plan->n_placements;
    for (size_t i = 0; i < plan->n_placements; i++) {
        const struct placement *place = &plan->placements[i];
        seed = hash_text(seed, place->name);
        seed = hash_text(seed, place->kernel ? place->kernel->name : "");
    }
    return seed;
}

/* ---- Writing --------------------------------------------------------------------------------- */

/* Takes both; NULL without memory, as jansson has it for every part. */
static json_t *append(json_t *array, json_t *value)
{
    if (array && !json_array_append_new(array, value))
        return array;
    json_decref(array);
    return NULL;
}

/* Numbers of 64 bits are more than JSON's. */
static json_t *hash_json(uint64_t hash)
{
    return json_sprintf("%016" PRIx64, hash);
}

/* A file's text may be anything. */
static json_t *name_json(const char *name)
{
    json_t *text = json_string(name);
    return text ? text : json_string("");
}

static json_t *threads_json(const struct thread_rate *rates, int n)
{
    json_t *array = json_array();
    for (int i = 0; i < n; i++)
        array = append(array, json_pack("{s:i, s:f, s:i}", "threads", rates[i].n_threads,
                                        "tokens_per_second", rates[i].rate, "samples",
                                        rates[i].n_samples));
    return array;
}

static json_t *rows_json(const struct kernel_rates *rates)
{
    json_t *array = json_array();
    for (int i = 0; i < CALIBRATION_ROWS; i++)
        array = append(array, json_pack("{s:i, s:f, s:f}", "rows", rates->of[i].rows, "tiles",
                                        rates->of[i].first, "vectors", rates->of[i].second));
    return array;
}

static json_t *kernels_json(const struct calibration *c)
{
    json_t *array = json_array();
    for (int i = 0; i < c->n_kernels; i++) {
        const struct gemm_kernel *kernel = c->kernels[i].kernel;
        array =
            append(array, json_pack("{s:s, s:s, s:i, s:i, s:i, s:o}", "type",
                                    block_type_find(kernel->block_id)->name, "name", kernel->name,
                                    "n", c->kernels[i].n, "k", c->kernels[i].k, "default_min_rows",
                                    kernel->min_rows, "gflops", rows_json(&c->kernels[i])));
    }
    return array;
}

/* INT_MAX, never, is null. */
static json_t *min_rows_json(const struct calibration_choice *choice)
{
    json_t *object = json_object();
    for (uint32_t id = 0; object && id < BLOCK_ID_COUNT; id++) {
        int rows = choice->min_rows[id];
        if (!rows)
            continue;
        json_t *value = rows == INT_MAX ? json_null() : json_integer(rows);
        if (json_object_set_new(object, block_type_find(id)->name, value)) {
            json_decref(object);
            object = NULL;
        }
    }
    return object;
}

int calibration_write(const struct calibration *c, const struct calibration_key *key,
                      const char *name, char **json, struct tsr_error *error)
{
    json_t *root = json_pack(
        "{s:s, s:{s:s, s:i, s:s, s:b, s:s}, s:{s:o, s:o, s:o}, s:{s:i, s:o}, s:{s:i, s:o}, s:o,"
        " s:{s:i, s:i, s:o}}",
        "calibration", TSR_VERSION, "machine", "cpu", key->cpu, "cpus", key->n_cpus, "isa",
        key->isa, "emulated", (int)key->emulated, "numa", key->numa, "model", "name",
        name_json(name), "tensors", hash_json(key->model), "kernels", hash_json(key->kernels),
        "prompt", "tokens", c->n_prompt, "threads", threads_json(c->prompt, c->n_counts),
        "generation", "depth", c->depth, "threads", threads_json(c->generation, c->n_counts),
        "kernels", kernels_json(c), "choice", "n_threads", c->choice.n_threads, "n_threads_batch",
        c->choice.n_threads_batch, "min_rows", min_rows_json(&c->choice));
    *json = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(root);
    return *json ? 0 : error_set(error, TSR_ENOMEM, "out of memory for a calibration");
}

/* ---- Reading --------------------------------------------------------------------------------- */

/* What a file says of where it was made; strings are the JSON's. */
struct made_on {
    const char *version, *cpu, *isa, *numa, *model, *kernels;
    int n_cpus, emulated;
};

static int compare(const struct made_on *made, const struct calibration_key *key,
                   struct tsr_error *error)
{
    char model[17];
    snprintf(model, sizeof model, "%016" PRIx64, key->model);
    if (strcmp(made->version, TSR_VERSION) != 0)
        return error_set(error, TSR_ESTALE, "--calibration: made by tessera %s, this is %s",
                         made->version, TSR_VERSION);
    if (strcmp(made->cpu, key->cpu) != 0 || made->n_cpus != key->n_cpus)
        return error_set(error, TSR_ESTALE,
                         "--calibration: made on another machine: %d CPUs of %s, not %d of %s",
                         made->n_cpus, made->cpu, key->n_cpus, key->cpu);
    if (strcmp(made->isa, key->isa) != 0 || made->emulated != key->emulated)
        return error_set(error, TSR_ESTALE, "--calibration: made with %s%s, not %s%s", made->isa,
                         made->emulated ? " (emulated)" : "", key->isa,
                         key->emulated ? " (emulated)" : "");
    if (strcmp(made->numa, key->numa) != 0)
        return error_set(error, TSR_ESTALE, "--calibration: made with --numa %s, not %s",
                         made->numa, key->numa);
    if (strcmp(made->model, model) != 0)
        return error_set(error, TSR_ESTALE, "--calibration: made for another model");
    return 0;
}

static int bad(const char *what, struct tsr_error *error)
{
    return error_set(error, TSR_EFORMAT, "--calibration: %s: measure anew into another file", what);
}

static int read_min_rows(json_t *object, struct calibration_choice *choice, struct tsr_error *error)
{
    for (uint32_t id = 0; id < BLOCK_ID_COUNT; id++) {
        const struct block_type *type = block_type_find(id);
        const json_t *value = type ? json_object_get(object, type->name) : NULL;
        if (!value)
            continue;
        json_int_t rows = json_is_null(value) ? INT_MAX : json_integer_value(value);
        if (rows < 1 || rows > INT_MAX)
            return bad("\"min_rows\" are not 1 or more", error);
        choice->min_rows[id] = (int)rows;
    }
    return 0;
}

static int read_object(json_t *root, const struct calibration_key *key,
                       struct calibration_choice *choice, struct tsr_error *error)
{
    struct made_on made;
    json_error_t unpacking;
    json_t *min_rows;
    if (json_unpack_ex(root, &unpacking, 0, "{s:s, s:{s:s, s:i, s:s, s:b, s:s}, s:{s:s, s:s}}",
                       "calibration", &made.version, "machine", "cpu", &made.cpu, "cpus",
                       &made.n_cpus, "isa", &made.isa, "emulated", &made.emulated, "numa",
                       &made.numa, "model", "tensors", &made.model, "kernels", &made.kernels))
        return bad(unpacking.text, error);
    int status = compare(&made, key, error);
    if (status)
        return status;
    if (json_unpack_ex(root, &unpacking, 0, "{s:{s:i, s:i, s:o}}", "choice", "n_threads",
                       &choice->n_threads, "n_threads_batch", &choice->n_threads_batch, "min_rows",
                       &min_rows))
        return bad(unpacking.text, error);
    if (choice->n_threads < 1 || choice->n_threads > key->n_cpus || choice->n_threads_batch < 1 ||
        choice->n_threads_batch > key->n_cpus)
        return bad("the threads chosen are not 1 to the number of CPUs", error);
    if (sscanf(made.kernels, "%" SCNx64, &choice->kernels) != 1)
        return bad("\"kernels\" is no number", error);
    return read_min_rows(min_rows, choice, error);
}

int calibration_read(const char *json, const struct calibration_key *key,
                     struct calibration_choice *choice, struct tsr_error *error)
{
    json_error_t parsing;
    *choice = (struct calibration_choice){0};
    json_t *root = json_loads(json, 0, &parsing);
    if (!root)
        return error_set(error, TSR_EFORMAT, "--calibration: line %d: %s", parsing.line,
                         parsing.text);
    int status = read_object(root, key, choice, error);
    json_decref(root);
    if (status)
        *choice = (struct calibration_choice){0};
    return status;
}
