#include "base/topology.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"

/* ---- libnuma --------------------------------------------------------------------------------- */

/* Policies of mbind(2); */
enum { POLICY_BIND = 2, POLICY_INTERLEAVE = 3 };

struct bitmask;

struct numa_library {
    void *handle;
    int (*numa_available)(void);
    int (*numa_max_node)(void);
    int (*numa_node_of_cpu)(int cpu);
    int (*numa_distance)(int a, int b);
    struct bitmask *(*numa_get_mems_allowed)(void);
    int (*numa_bitmask_isbitset)(const struct bitmask *mask, unsigned bit);
    void (*numa_bitmask_free)(struct bitmask *mask);
    long (*mbind)(void *start, unsigned long bytes, int policy, const unsigned long *nodes,
                  unsigned long max_node, unsigned flags);
    long (*move_pages)(int pid, unsigned long count, void **pages, const int *nodes, int *status,
                       int flags);
};

static void library_close(struct numa_library *library)
{
    if (library->handle)
        dlclose(library->handle);
    free(library);
}

#ifdef TSR_STATIC

/* A static program brings its own C library: another that dlopen loads beside it need not fit. */
static struct numa_library *library_open(void)
{
    return NULL;
}

#else

/* ISO C has no conversion from dlsym's object pointer to a function pointer; POSIX has. */
static bool find_symbol(struct numa_library *library, const char *name, void *function)
{
    void *symbol = dlsym(library->handle, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

/* NULL where there is no libnuma, or it says that the kernel has no NUMA. */
static struct numa_library *library_open(void)
{
    struct numa_library *l = mem_alloc(1, sizeof *l);
    if (!l)
        return NULL;
    /* It keeps tables in static memory and frees not all of them: once loaded it stays. */
    l->handle = dlopen("libnuma.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    bool complete = l->handle && find_symbol(l, "numa_available", &l->numa_available) &&
                    find_symbol(l, "numa_max_node", &l->numa_max_node) &&
                    find_symbol(l, "numa_node_of_cpu", &l->numa_node_of_cpu) &&
                    find_symbol(l, "numa_distance", &l->numa_distance) &&
                    find_symbol(l, "numa_get_mems_allowed", &l->numa_get_mems_allowed) &&
                    find_symbol(l, "numa_bitmask_isbitset", &l->numa_bitmask_isbitset) &&
                    find_symbol(l, "numa_bitmask_free", &l->numa_bitmask_free) &&
                    find_symbol(l, "mbind", &l->mbind) &&
                    find_symbol(l, "move_pages", &l->move_pages);
    if (complete && l->numa_available() >= 0)
        return l;
    library_close(l);
    return NULL;
}

#endif

/* ---- The machine ----------------------------------------------------------------------------- */

/* Memory of a node, /sys/devices/system/node/nodeN/meminfo:
 * https://docs.kernel.org/admin-guide/mm/numaperf.html, proc_meminfo(5). */
static void read_memory(struct topology_node *node)
{
    char path[96], line[256];
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/meminfo", node->id);
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    while (fgets(line, sizeof line, file)) {
        char name[32];
        unsigned long long kilobytes;
        if (sscanf(line, "Node %*d %31[^:]: %llu kB", name, &kilobytes) != 2)
            continue;
        if (!strcmp(name, "MemTotal"))
            node->total_bytes = kilobytes << 10;
        else if (!strcmp(name, "MemFree") || !strcmp(name, "Active(file)") ||
                 !strcmp(name, "Inactive(file)"))
            node->available_bytes += kilobytes << 10;
    }
    fclose(file);
}

static void read_raw(const struct numa_library *library, struct raw_topology *raw)
{
    enum { MOST = sizeof raw->nodes / sizeof raw->nodes[0] };
    struct bitmask *allowed = library->numa_get_mems_allowed();
    int n = library->numa_max_node() + 1;
    raw->n_nodes = n < MOST ? n : MOST;
    for (int i = 0; i < raw->n_nodes; i++) {
        raw->nodes[i].id = i;
        if (!allowed || library->numa_bitmask_isbitset(allowed, (unsigned)i))
            read_memory(&raw->nodes[i]);
        for (int j = 0; j < raw->n_nodes; j++)
            raw->distance[i][j] = (uint8_t)library->numa_distance(i, j);
    }
    if (allowed)
        library->numa_bitmask_free(allowed);
    long n_cpus = sysconf(_SC_NPROCESSORS_CONF);
    for (int cpu = 0; cpu < n_cpus && cpu < CPU_CORES_MAX; cpu++) {
        int node = library->numa_node_of_cpu(cpu);
        raw->node_of_cpu[cpu] = (uint8_t)(node >= 0 && node < raw->n_nodes ? node : 0);
    }
}

/* The one of the chosen nodes (indices into raw->nodes) that is nearest to `from`. */
static int nearest(const struct raw_topology *raw, int from, const int *chosen, int n_chosen)
{
    int best = 0;
    for (int i = 0; i < n_chosen; i++) {
        if (chosen[i] == from)
            return i;
        if (raw->distance[from][chosen[i]] < raw->distance[from][chosen[best]])
            best = i;
    }
    return best;
}

void topology_reduce(const struct raw_topology *raw, struct topology *topology)
{
    int chosen[NODES_MAX], n = 0;
    for (int i = 0; i < raw->n_nodes && n < NODES_MAX; i++)
        if (raw->nodes[i].total_bytes)
            chosen[n++] = i;
    topology->n_nodes = n ? n : 1;
    topology->nodes[0].id = -1;
    for (int i = 0; i < n; i++)
        topology->nodes[i] = raw->nodes[chosen[i]];
    for (int cpu = 0; cpu < CPU_CORES_MAX; cpu++)
        topology->node_of_cpu[cpu] =
            (uint8_t)(n ? nearest(raw, raw->node_of_cpu[cpu], chosen, n) : 0);
}

void topology_close(struct topology *topology)
{
    if (!topology)
        return;
    if (topology->library)
        library_close(topology->library);
    free(topology);
}

int topology_open(struct topology **out, struct tsr_error *error)
{
    *out = NULL;
    struct topology *topology = mem_alloc(1, sizeof *topology);
    struct raw_topology *raw = mem_alloc(1, sizeof *raw);
    if (!topology || !raw) {
        free(topology);
        free(raw);
        return error_set(error, TSR_ENOMEM, "out of memory");
    }
    topology->library = library_open();
    if (topology->library)
        read_raw(topology->library, raw);
    topology_reduce(raw, topology);
    free(raw);
    *out = topology;
    return 0;
}

/* Without the library: what nobody shares nobody has to count. */
int topology_copy(const struct topology *from, struct topology **out, struct tsr_error *error)
{
    *out = mem_alloc(1, sizeof **out);
    if (!*out)
        return error_set(error, TSR_ENOMEM, "out of memory");
    **out = *from;
    (*out)->library = NULL;
    return 0;
}

int topology_here(const struct topology *topology)
{
    int cpu = sched_getcpu();
    return cpu >= 0 && cpu < CPU_CORES_MAX ? topology->node_of_cpu[cpu] : 0;
}

/* ---- Memory ---------------------------------------------------------------------------------- */

/* `nodes` is a mask of indices. */
static int set_policy(const struct topology *topology, void *memory, size_t bytes, int policy,
                      unsigned nodes)
{
    unsigned long mask = 0; /* of the kernel's numbers: raw nodes are fewer than its bits */
    if (!topology->library)
        return ENOSYS;
    for (int i = 0; i < topology->n_nodes; i++) {
        if (nodes >> i & 1 && topology->nodes[i].id < 0)
            return ENOSYS;
        if (nodes >> i & 1)
            mask |= 1ul << topology->nodes[i].id;
    }
    /* The kernel counts one bit less than it is told. */
    long status = topology->library->mbind(memory, bytes, policy, &mask, 8 * sizeof mask + 1, 0);
    return status == 0 ? 0 : errno;
}

int topology_bind(const struct topology *topology, void *memory, size_t bytes, int node)
{
    return set_policy(topology, memory, bytes, POLICY_BIND, 1u << node);
}

int topology_interleave(const struct topology *topology, void *memory, size_t bytes)
{
    return set_policy(topology, memory, bytes, POLICY_INTERLEAVE, (1u << topology->n_nodes) - 1);
}

static int node_index(const struct topology *topology, int id)
{
    for (int i = 0; i < topology->n_nodes; i++)
        if (topology->nodes[i].id == id)
            return i;
    return -1;
}

bool topology_residency(const struct topology *topology, const void *memory, size_t bytes,
                        uint64_t *node_bytes)
{
    enum { SAMPLES = 4096 };
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n_pages = bytes / page;
    size_t n = n_pages < SAMPLES ? n_pages : SAMPLES;
    if (!topology->library || topology->nodes[0].id < 0)
        return false;
    if (n == 0)
        return true;
    void **pages = mem_alloc(n, sizeof *pages);
    int *status = mem_alloc(n, sizeof *status);
    bool known = false;
    for (size_t i = 0; pages && i < n; i++) /* spread evenly; n_pages * i stays far from 2^64 */
        pages[i] = (void *)((uintptr_t)memory + n_pages * i / n * page);
    if (pages && status)
        known = topology->library->move_pages(0, n, pages, NULL, status, 0) == 0;
    size_t count[NODES_MAX] = {0}, found = 0;
    for (size_t i = 0; known && i < n; i++) {
        /* A negative errno for an absent page, or one that the kernel is about to move. */
        int node = node_index(topology, status[i]);
        if (node >= 0) {
            count[node]++;
            found++;
        }
    }
    for (int i = 0; found && i < topology->n_nodes; i++)
        node_bytes[i] += (uint64_t)((double)bytes * (double)count[i] / (double)found);
    free(pages);
    free(status);
    return known;
}
