#include "load/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"

enum { PAGE = 4096, SAMPLE_STEP = 16 << 20, WRITE_STEP = 32 << 20 };

struct header {
    char magic[8];
    uint32_t layout_version;
    uint32_t header_bytes;
    uint64_t source; /* hash of the files' identities */
    uint64_t plan;   /* hash of every tensor's place */
    uint64_t file_bytes;
    struct {
        uint64_t offset, bytes;
        uint64_t samples; /* hash */
    } arenas[POOL_COUNT][NODES_MAX];
    uint64_t self; /* hash of all before */
};
_Static_assert(sizeof(struct header) <= PAGE, "the header has a page");

struct cache {
    char path[PATH_MAX], temporary[PATH_MAX + 8];
    const char *dir; /* of the caller */
    struct header header; /* as it must be, but for samples and self */
    int file; /* the temporary one, or -1 */
};

/* ---- Hashes ---------------------------------------------------------------------------------- */

uint64_t cache_hash_source(const struct gguf *gguf)
{
    uint64_t seed = gguf_n_files(gguf);
    for (size_t i = 0; i < gguf_n_files(gguf); i++) {
        struct gguf_identity id = gguf_identity_at(gguf, i);
        seed = hash_bytes(seed, &id, sizeof id);
    }
    return seed;
}

static uint64_t hash_place(uint64_t seed, const struct placement *place, int n_nodes)
{
    const struct model_tensor *tensor = place->tensor;
    const struct gguf_tensor *source = tensor->source;
    seed = hash_text(seed, place->name);
    seed = hash_text(seed, place->kernel ? place->kernel->name : "");
    uint64_t numbers[] = {source->type->id, (uint64_t)source->file, source->offset, source->n_bytes,
                          tensor->n, tensor->k, tensor->n_expert, (uint64_t)place->pool};
    seed = hash_bytes(seed, numbers, sizeof numbers);
    for (int node = 0; node < n_nodes; node++) {
        const struct placement_part *part = &place->parts[node];
        uint64_t rows[] = {(uint64_t)part->n0, (uint64_t)part->n1, part->matrix_bytes, part->bytes,
                           part->offset};
        seed = hash_bytes(seed, rows, sizeof rows);
    }
    return seed;
}

static uint64_t hash_plan(const struct plan *plan)
{
    uint64_t seed = hash_number(KERNEL_LAYOUT_VERSION, (uint64_t)plan->n_nodes);
    for (size_t i = 0; i < plan->n_placements; i++)
        seed = hash_place(seed, &plan->placements[i], plan->n_nodes);
    return seed;
}

static uint64_t hash_samples(const struct arena *arena)
{
    uint64_t seed = arena->bytes;
    for (size_t at = 0; at < arena->bytes; at += SAMPLE_STEP) {
        size_t left = arena->bytes - at;
        seed = hash_bytes(seed, arena->data + at, left < PAGE ? left : PAGE);
    }
    size_t last = arena->bytes > PAGE ? arena->bytes - PAGE : 0;
    return hash_bytes(seed, arena->data + last, arena->bytes - last);
}

static uint64_t hash_header(const struct header *header)
{
    return hash_bytes(0, header, offsetof(struct header, self));
}

/* ---- What the file must be ------------------------------------------------------------------- */

static void expect(struct header *header, const struct plan *plan)
{
    *header = (struct header){.magic = "tsrpack",
                              .layout_version = KERNEL_LAYOUT_VERSION,
                              .header_bytes = sizeof *header,
                              .source = cache_hash_source(plan->model->gguf),
                              .plan = hash_plan(plan),
                              .file_bytes = PAGE};
    for (int pool = 0; pool < POOL_COUNT; pool++)
        for (int node = 0; node < plan->n_nodes; node++) {
            uint64_t bytes = plan->arena_bytes[pool][node];
            header->arenas[pool][node].bytes = bytes;
            header->arenas[pool][node].offset = header->file_bytes;
            header->file_bytes += (bytes + PAGE - 1) / PAGE * PAGE;
        }
}

/* "DIR/NAME-HASH.pack": the same model under other settings has a file of its own. */
static bool name_files(struct cache *cache, const struct plan *plan)
{
    const char *path = gguf_path(plan->model->gguf), *slash = strrchr(path, '/');
    char absolute[PATH_MAX];
    if (!realpath(path, absolute))
        snprintf(absolute, sizeof absolute, "%s", path);
    unsigned long long key = hash_text(cache->header.plan, absolute);
    int len = snprintf(cache->path, sizeof cache->path, "%s/%.100s-%016llx.pack", cache->dir,
                       slash ? slash + 1 : path, key);
    snprintf(cache->temporary, sizeof cache->temporary, "%s.tmp", cache->path);
    return len < (int)sizeof cache->path;
}

int cache_create(const char *dir, const struct plan *plan, struct cache **out,
                 struct tsr_error *error)
{
    *out = NULL;
    struct cache *cache = mem_alloc(1, sizeof *cache);
    if (!cache)
        return error_set(error, TSR_ENOMEM, "out of memory");
    cache->file = -1;
    cache->dir = dir;
    expect(&cache->header, plan);
    if (!name_files(cache, plan)) {
        cache_free(cache);
        return error_set(error, TSR_EINVAL, "--pack-cache: the path is too long: %.100s...", dir);
    }
    *out = cache;
    return 0;
}

void cache_free(struct cache *cache)
{
    if (!cache)
        return;
    if (cache->file >= 0) {
        unlink(cache->temporary); /* the lock is ours still */
        close(cache->file);
    }
    free(cache);
}

const char *cache_path(const struct cache *cache)
{
    return cache->path;
}

/* ---- Reading --------------------------------------------------------------------------------- */

static const char *compare_headers(const struct header *is, const struct header *must)
{
    if (memcmp(is->magic, must->magic, sizeof is->magic))
        return "its header is damaged";
    if (is->layout_version != must->layout_version || is->header_bytes != must->header_bytes)
        return "it is of another version of tessera";
    if (is->self != hash_header(is))
        return "its header is damaged";
    if (is->source != must->source)
        return "the model's file has changed";
    if (is->plan != must->plan)
        return "its tensors are placed otherwise";
    return is->file_bytes == must->file_bytes ? NULL : "its arenas have other sizes";
}

static const char *map_arena(int file, uint64_t offset, uint64_t bytes, struct arena *arena)
{
    if (bytes == 0)
        return NULL;
    void *data = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, file, (off_t)offset);
    if (data == MAP_FAILED)
        return "it cannot be mapped";
    *arena = (struct arena){data, bytes};
    return NULL;
}

static const char *map_all(const struct cache *cache, int file,
                           struct arena arenas[POOL_COUNT][NODES_MAX])
{
    struct header header;
    struct stat st;
    if (pread(file, &header, sizeof header, 0) != (ssize_t)sizeof header || fstat(file, &st))
        return "its header is damaged";
    const char *problem = compare_headers(&header, &cache->header);
    if (!problem && (uint64_t)st.st_size != header.file_bytes)
        problem = "it was cut short";
    for (int pool = 0; pool < POOL_COUNT; pool++)
        for (int node = 0; node < NODES_MAX && !problem; node++)
            problem = map_arena(file, cache->header.arenas[pool][node].offset,
                                cache->header.arenas[pool][node].bytes, &arenas[pool][node]);
    for (int pool = 0; pool < POOL_COUNT; pool++)
        for (int node = 0; node < NODES_MAX && !problem; node++)
            if (arenas[pool][node].data &&
                hash_samples(&arenas[pool][node]) != header.arenas[pool][node].samples)
                problem = "its contents are damaged";
    return problem;
}

const char *cache_map(const struct cache *cache, struct arena arenas[POOL_COUNT][NODES_MAX])
{
    int file = open(cache->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return errno == ENOENT ? "there is none yet" : "it cannot be read";
    const char *problem = map_all(cache, file, arenas);
    close(file);
    if (problem)
        arenas_free(arenas);
    return problem;
}

/* ---- Writing --------------------------------------------------------------------------------- */

static int fail(const struct cache *cache, const char *what, struct tsr_error *error)
{
    return error_set(error, TSR_EIO, "--pack-cache: %s: %s: %s", cache->dir, what, strerror(errno));
}

/* Whether the locked file still has its name: its last owner may have finished or removed it. */
static bool still_named(const struct cache *cache)
{
    struct stat open_one, named;
    return !fstat(cache->file, &open_one) && !stat(cache->temporary, &named) &&
           open_one.st_dev == named.st_dev && open_one.st_ino == named.st_ino;
}

int cache_begin(struct cache *cache, bool *busy, struct tsr_error *error)
{
    *busy = false;
    /* What an interrupted process left is used again: the lock says whether it is still there. */
    cache->file = open(cache->temporary, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (cache->file < 0)
        return fail(cache, "no file can be written there", error);
    if (flock(cache->file, LOCK_EX | LOCK_NB) || !still_named(cache)) {
        close(cache->file);
        cache->file = -1;
        *busy = true;
        return 0;
    }
    off_t bytes = (off_t)cache->header.file_bytes;
    if (ftruncate(cache->file, 0) ||
        (fallocate(cache->file, 0, 0, bytes) && errno != EOPNOTSUPP && errno != ENOSYS)) {
        char what[64];
        snprintf(what, sizeof what, "no room for %llu MiB", (unsigned long long)bytes >> 20);
        return fail(cache, what, error);
    }
    return 0;
}

static int write_all(const struct cache *cache, const void *data, size_t bytes, uint64_t offset,
                     struct tsr_error *error)
{
    for (const uint8_t *at = data; bytes;) {
        ssize_t n = pwrite(cache->file, at, bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fail(cache, "writing failed", error);
        at += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

static int write_arena(const struct cache *cache, const struct arena *arena, uint64_t offset,
                       cache_continue_fn *go_on, void *user, struct tsr_error *error)
{
    int status = 0;
    for (size_t at = 0; at < arena->bytes && !status; at += WRITE_STEP) {
        size_t bytes = arena->bytes - at < WRITE_STEP ? arena->bytes - at : WRITE_STEP;
        status = go_on(user) ? write_all(cache, arena->data + at, bytes, offset + at, error)
                             : error_set(error, TSR_ECANCELED, "loading was cancelled");
    }
    return status;
}

/* The new name is on the disk only when its folder is. */
static int take_place(struct cache *cache, struct tsr_error *error)
{
    if (fsync(cache->file) || rename(cache->temporary, cache->path))
        return fail(cache, "writing failed", error);
    close(cache->file);
    cache->file = -1;
    int dir = open(cache->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir >= 0) {
        fsync(dir); /* not all file systems can; the name is there either way */
        close(dir);
    }
    return 0;
}

int cache_write(struct cache *cache, struct arena arenas[POOL_COUNT][NODES_MAX],
                cache_continue_fn *go_on, void *user, struct tsr_error *error)
{
    struct header *header = &cache->header;
    int status = 0;
    for (int pool = 0; pool < POOL_COUNT; pool++)
        for (int node = 0; node < NODES_MAX && !status; node++) {
            if (!arenas[pool][node].data)
                continue;
            header->arenas[pool][node].samples = hash_samples(&arenas[pool][node]);
            status = write_arena(cache, &arenas[pool][node], header->arenas[pool][node].offset,
                                 go_on, user, error);
        }
    header->self = hash_header(header);
    if (!status && ftruncate(cache->file, (off_t)header->file_bytes))
        status = fail(cache, "writing failed", error);
    if (!status)
        status = write_all(cache, header, sizeof *header, 0, error);
    return status ? status : take_place(cache, error);
}
