/* The engine on its machine: who sits where, and where the weights have come to lie. */
#include "base/mem.h"
#include "engine.h"

static int check_settings(const struct tsr_settings *settings, struct tsr_error *error)
{
    if (settings->n_threads < 0 || settings->n_threads_batch < 0)
        return error_set(error, TSR_EINVAL, "%d and %d threads: both must be at least 1",
                         settings->n_threads, settings->n_threads_batch);
    if ((unsigned)settings->numa > TSR_NUMA_SHARD)
        return error_set(error, TSR_EINVAL, "settings: numa %d is not a known value",
                         (int)settings->numa);
    return 0;
}

/* Only with shard do the team's nodes divide the weights. */
static struct node_shares count_shares(const tsr_engine *engine, const struct seat *seats,
                                       int n_threads)
{
    struct node_shares shares = {.n_nodes = 1};
    if (engine->numa == TSR_NUMA_SHARD)
        shares.n_nodes = engine->topology->n_nodes;
    for (int i = 0; i < n_threads; i++)
        shares.workers[seats[i].node]++;
    return shares;
}

static int choose(tsr_engine *engine, const struct cpu_cores *cores, int n_threads,
                  struct tsr_error *error)
{
    if (n_threads < CPU_CORES_MAX)
        engine->seats = mem_alloc((size_t)n_threads, sizeof *engine->seats);
    engine->usable_seats = mem_alloc((size_t)cores->n_usable, sizeof *engine->usable_seats);
    if (!engine->seats || !engine->usable_seats)
        return error_set(error, TSR_ENOMEM, "out of memory for a team of %d threads", n_threads);
    engine->n_seats = n_threads;
    if (n_threads > cores->n_usable)
        engine_log(engine, TSR_LOG_WARN, "%d threads for %d CPUs have to take turns, which is slow",
                   n_threads, cores->n_usable);
    int status =
        seats_choose(cores, engine->topology, engine->numa, n_threads, engine->seats, error);
    if (!status)
        status = seats_choose(cores, engine->topology, engine->numa, cores->n_usable,
                              engine->usable_seats, error);
    if (!status)
        engine->shares = count_shares(engine, engine->seats, n_threads);
    return status;
}

void engine_choose_threads(tsr_engine *engine, const struct calibration_choice *choice)
{
    engine->n_threads = engine->given_threads    ? engine->given_threads
                        : choice->n_threads > 0 ? choice->n_threads
                                                : engine->n_physical;
    engine->n_threads_batch = engine->given_threads_batch    ? engine->given_threads_batch
                              : choice->n_threads_batch > 0 ? choice->n_threads_batch
                                                            : engine->n_threads;
}

static void fill_key(tsr_engine *engine, const struct tsr_settings *settings)
{
    static const char *const numa_names[] = {"none", "isolate", "interleave", "shard"};
    struct calibration_key *key = &engine->key;
    key->n_cpus = engine->n_usable;
    key->isa = cpu_isa_name(engine->cpu_flags);
    key->numa = numa_names[engine->numa];
    key->emulated = settings->emulate_tiles && engine->cpu_flags & CPU_AMX_TILE;
    key->model = calibration_hash_model(engine->gguf);
}

int engine_choose_seats(tsr_engine *engine, const struct tsr_settings *settings,
                        struct tsr_error *error)
{
    struct cpu_cores cores;
    int status = check_settings(settings, error);
    if (!status)
        status = cpu_cores(&cores, error);
    if (status)
        return status;
    engine->numa = engine->topology->n_nodes > 1 ? settings->numa : TSR_NUMA_NONE;
    engine->home_node = topology_here(engine->topology);
    if (engine->numa == TSR_NUMA_ISOLATE)
        seats_isolate(&cores, engine->topology, engine->home_node);
    engine->n_usable = cores.n_usable;
    engine->n_physical = cores.n_physical;
    engine->given_threads = settings->n_threads;
    engine->given_threads_batch = settings->n_threads_batch;
    fill_key(engine, settings);
    if (settings->calibration)
        status = calibration_read(settings->calibration, &engine->key, &engine->choice, error);
    if (status)
        return status;
    engine_choose_threads(engine, &engine->choice);
    int most = engine->n_threads > engine->n_threads_batch ? engine->n_threads
                                                           : engine->n_threads_batch;
    return choose(engine, &cores, most, error);
}

/* ---- Residency ---- */

_Static_assert((int)TSR_NODES_MAX == (int)NODES_MAX, "room for every node");

void engine_residency(const tsr_engine *engine, struct tsr_engine_info *info)
{
    info->n_nodes = engine->topology->n_nodes;
    for (int pool = 0; pool < POOL_COUNT; pool++)
        for (int node = 0; node < engine->plan->n_nodes; node++) {
            const struct arena *arena = &engine->weights->arenas[pool][node];
            topology_residency(engine->topology, arena->data, arena->bytes, info->node_bytes);
        }
}

static void log_arena(const tsr_engine *engine, int pool, int part)
{
    const struct arena *arena = &engine->weights->arenas[pool][part];
    uint64_t node_bytes[NODES_MAX] = {0};
    if (!arena->data ||
        !topology_residency(engine->topology, arena->data, arena->bytes, node_bytes))
        return;
    for (int i = 0; i < engine->topology->n_nodes; i++)
        engine_log(engine, TSR_LOG_INFO, "pool %s, part %d: %.1f of %.1f MiB lie on node %d",
                   plan_pool_name((enum plan_pool)pool), part, (double)node_bytes[i] / (1 << 20),
                   (double)arena->bytes / (1 << 20), engine->topology->nodes[i].id);
}

void engine_log_residency(const tsr_engine *engine)
{
    if (!engine->log) /* asking the kernel takes time */
        return;
    for (int pool = 0; pool < POOL_COUNT; pool++)
        for (int part = 0; part < engine->plan->n_nodes; part++)
            log_arena(engine, pool, part);
}
