#include "load/pack.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

/* Source bytes of one piece of work: large enough that taking it costs nothing, small enough that
 * threads end together and progress is smooth. */
enum { CHUNK_BYTES = 1 << 20 };

/* Rows [n0, n1) of one matrix, counted from the first row of its node's part. */
struct chunk {
    const struct placement *place;
    uint32_t expert;
    int n0, n1;
};

struct pack_job {
    const struct weights *weights;
    struct chunk *chunks;
    int first_chunk[NODES_MAX + 1]; /* each node's are together, in the order of the file */
    uint64_t total_bytes;
    _Atomic uint64_t done_bytes;
    _Atomic bool canceled;
    weights_progress_fn *progress;
    void *user;
    size_t page;
};

static size_t row_bytes(const struct model_tensor *tensor)
{
    const struct block_type *type = tensor->source->type;
    return (size_t)tensor->k / type->n_elems * type->n_bytes;
}

/* Rows of a chunk: whole panels. */
static int chunk_rows(const struct placement *place)
{
    int nr = place->kernel->nr;
    size_t rows = CHUNK_BYTES / (row_bytes(place->tensor) + 1);
    int panels = (int)(rows / (size_t)nr);
    return (panels ? panels : 1) * nr;
}

/* Appends the chunks of a tensor's part, or only counts them where `chunks` is NULL. */
static size_t list_chunks(const struct placement *place, int node, struct chunk *chunks)
{
    size_t count = 0;
    int n = place->parts[node].n1 - place->parts[node].n0, step = chunk_rows(place);
    for (uint32_t expert = 0; expert < place->tensor->n_expert; expert++) {
        for (int n0 = 0; n0 < n; n0 += step, count++) {
            if (!chunks)
                continue;
            int n1 = n0 + step < n ? n0 + step : n;
            chunks[count] = (struct chunk){place, expert, n0, n1};
        }
    }
    return count;
}

/* Whole pages inside the range only: neighbours may still be needed. */
static void advise(const void *data, size_t bytes, size_t page, int advice)
{
    uintptr_t begin = ((uintptr_t)data + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)data + bytes) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, advice); /* only a hint: a refusal changes no result */
}

static void pack_chunk(struct pack_job *job, const struct chunk *chunk, int node)
{
    const struct placement *place = chunk->place;
    const struct placement_part *part = &place->parts[node];
    const struct model_tensor *tensor = place->tensor;
    size_t stride = row_bytes(tensor);
    const uint8_t *rows = (const uint8_t *)tensor->source->data +
                          ((size_t)chunk->expert * tensor->n + (size_t)(part->n0 + chunk->n0)) * stride;
    size_t bytes = (size_t)(chunk->n1 - chunk->n0) * stride;
    advise(rows, bytes, job->page, MADV_WILLNEED);
    place->kernel->pack(job->weights->arenas[place->pool][node].data + part->offset +
                            chunk->expert * part->matrix_bytes,
                        rows, part->n1 - part->n0, (int)tensor->k, chunk->n0, chunk->n1);
    advise(rows, bytes, job->page, MADV_DONTNEED);
    atomic_fetch_add(&job->done_bytes, bytes);
}

static void pack_worker(struct worker *worker, void *arg)
{
    struct pack_job *job = arg;
    int node = worker->node; /* all nodes that have parts have workers */
    int first = job->first_chunk[node], end = job->first_chunk[node + 1];
    for (int i = first + team_take_from(worker, node); i < end && !atomic_load(&job->canceled);
         i = first + team_take_from(worker, node)) {
        pack_chunk(job, &job->chunks[i], node);
        if (worker->index == 0 && job->progress &&
            !job->progress(job->user, atomic_load(&job->done_bytes), job->total_bytes))
            atomic_store(&job->canceled, true);
    }
}

/* The chunks of all nodes, or only their number where `chunks` is NULL. */
static size_t list_all(const struct plan *plan, struct chunk *chunks, int *first_chunk)
{
    size_t count = 0;
    for (int node = 0; node < NODES_MAX; node++) {
        first_chunk[node] = (int)count;
        for (size_t i = 0; node < plan->n_nodes && i < plan->n_placements; i++)
            if (plan->placements[i].pool != POOL_MAPPED)
                count += list_chunks(&plan->placements[i], node, chunks ? chunks + count : NULL);
    }
    first_chunk[NODES_MAX] = (int)count;
    return count;
}

static int collect_chunks(const struct plan *plan, struct pack_job *job, struct tsr_error *error)
{
    size_t count = list_all(plan, NULL, job->first_chunk);
    if (count > INT32_MAX)
        return error_set(error, TSR_EFORMAT, "too many pieces of weights to pack");
    job->chunks = mem_alloc(count, sizeof *job->chunks);
    if (!job->chunks)
        return error_set(error, TSR_ENOMEM, "out of memory for packing");
    list_all(plan, job->chunks, job->first_chunk);
    for (size_t i = 0; i < plan->n_placements; i++)
        if (plan->placements[i].pool != POOL_MAPPED)
            job->total_bytes += plan->placements[i].tensor->source->n_bytes;
    return 0;
}

int pack_tensors(const struct plan *plan, struct team *team, const struct weights *weights,
                 weights_progress_fn *progress, void *user, struct tsr_error *error)
{
    struct pack_job job = {.weights = weights,
                           .progress = progress,
                           .user = user,
                           .page = (size_t)sysconf(_SC_PAGESIZE)};
    int status = collect_chunks(plan, &job, error);
    if (status)
        return status;
    team_run(team, team_size(team), pack_worker, &job);
    free(job.chunks);
    if (atomic_load(&job.canceled))
        return error_set(error, TSR_ECANCELED, "loading was cancelled");
    if (progress && !progress(user, job.total_bytes, job.total_bytes))
        return error_set(error, TSR_ECANCELED, "loading was cancelled");
    return 0;
}
