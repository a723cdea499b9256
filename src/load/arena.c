#include "load/arena.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/memory.h"

/* ---- Whether it fits ------------------------------------------------------------------------- */

/* Memory that is bound to a node cannot come from another: too much of it would end the process. */
static int check_nodes(const struct plan *plan, const struct memory_policy *policy,
                       struct tsr_error *error)
{
    if (policy->numa != TSR_NUMA_ISOLATE && policy->numa != TSR_NUMA_SHARD)
        return 0;
    for (int part = 0; part < plan->n_nodes; part++) {
        int index = policy->numa == TSR_NUMA_SHARD ? part : policy->home_node;
        const struct topology_node *node = &policy->topology->nodes[index];
        uint64_t bytes = 0;
        for (int pool = 0; pool < POOL_COUNT; pool++)
            bytes += plan->arena_bytes[pool][part];
        if (bytes > node->available_bytes)
            return error_set(error, TSR_ENOMEM,
                             "node %d has %llu MiB of memory to give, its weights take %llu: use "
                             "--numa interleave or none",
                             node->id, (unsigned long long)node->available_bytes >> 20,
                             (unsigned long long)bytes >> 20);
    }
    return 0;
}

/* ---- Memory ---------------------------------------------------------------------------------- */

/* A refusal leaves pages to the node that touches them first: the one that packs. */
static void apply_numa(const struct arena *arena, const struct memory_policy *policy, int node)
{
    if (policy->numa == TSR_NUMA_INTERLEAVE)
        topology_interleave(policy->topology, arena->data, arena->bytes);
    else if (policy->numa == TSR_NUMA_SHARD)
        topology_bind(policy->topology, arena->data, arena->bytes, node);
    else if (policy->numa == TSR_NUMA_ISOLATE)
        topology_bind(policy->topology, arena->data, arena->bytes, policy->home_node);
}

/* The address space is cut to begin on a huge page, as not every kernel sees to that. */
static void *map_aligned(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), slack = bytes < HUGE_PAGE ? 0 : HUGE_PAGE;
    bytes = (bytes + page - 1) / page * page;
    uint8_t *memory = mmap(NULL, bytes + slack, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    size_t head = slack ? (HUGE_PAGE - (uintptr_t)memory % HUGE_PAGE) % HUGE_PAGE : 0;
    if (head)
        munmap(memory, head);
    if (slack > head)
        munmap(memory + head + bytes, slack - head);
    return memory + head;
}

int arena_lock(const void *data, size_t bytes, struct tsr_error *error)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)data / page * page;
    size_t length = (uintptr_t)data + bytes - begin;
    /* On fault: pages that packing has yet to write are locked when it does. */
    if (!mlock2((void *)begin, length, MLOCK_ONFAULT) ||
        (errno == ENOSYS && !mlock((void *)begin, length)))
        return 0;
    int saved = errno;
    struct rlimit limit;
    if (saved != EPERM && saved != ENOMEM)
        return error_set(error, TSR_ESYSTEM, "--mlock: %s", strerror(saved));
    getrlimit(RLIMIT_MEMLOCK, &limit);
    return error_set(error, TSR_ESYSTEM,
                     "--mlock: the system does not allow %llu MiB more to be locked: the limit "
                     "RLIMIT_MEMLOCK is %llu KiB in all: raise it (ulimit -l) or leave out --mlock",
                     (unsigned long long)(length + (1 << 20) - 1) >> 20,
                     (unsigned long long)limit.rlim_cur >> 10);
}

static int create(struct arena *arena, uint64_t bytes, const struct memory_policy *policy, int node,
                  struct tsr_error *error)
{
    if (bytes == 0)
        return 0;
    void *memory = map_aligned(bytes);
    if (!memory)
        return error_set(error, TSR_ENOMEM, "out of memory: %llu MiB for packed weights",
                         (unsigned long long)bytes >> 20);
    *arena = (struct arena){memory, bytes};
    apply_numa(arena, policy, node);
    if (!policy->no_huge_pages)
        memory_ask_huge(memory, bytes);
    return 0;
}

int arenas_lock(struct arena arenas[POOL_COUNT][NODES_MAX], struct tsr_error *error)
{
    int status = 0;
    for (int pool = 0; pool < POOL_COUNT; pool++)
        for (int node = 0; node < NODES_MAX && !status; node++)
            if (arenas[pool][node].data)
                status = arena_lock(arenas[pool][node].data, arenas[pool][node].bytes, error);
    return status;
}

int arenas_create(const struct plan *plan, const struct memory_policy *policy,
                  struct arena arenas[POOL_COUNT][NODES_MAX], struct tsr_error *error)
{
    int status = check_nodes(plan, policy, error);
    for (int pool = 0; pool < POOL_COUNT; pool++)
        for (int node = 0; node < plan->n_nodes && !status; node++)
            status = create(&arenas[pool][node], plan->arena_bytes[pool][node], policy, node, error);
    if (!status && policy->lock)
        status = arenas_lock(arenas, error);
    return status;
}

void arenas_free(struct arena arenas[POOL_COUNT][NODES_MAX])
{
    for (int pool = 0; pool < POOL_COUNT; pool++)
        for (int node = 0; node < NODES_MAX; node++) {
            struct arena *arena = &arenas[pool][node];
            if (arena->data)
                munmap(arena->data, arena->bytes);
            *arena = (struct arena){0};
        }
}
