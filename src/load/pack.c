#include "load/pack.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

/* Source bytes of one piece of work: large enough that taking it costs nothing, small enough that
 * threads end together and progress is smooth. */
enum { CHUNK_BYTES = 1 << 20 };

/* A worker takes a few chunks in a row, so that two of them seldom fill, and have the kernel clear,
 * the same huge page; fewer where there are not many for each. */
enum { RUN_CHUNKS = 8, RUNS_PER_WORKER = 8 };

/* So many chunks ahead the kernel is asked to read. */
enum { READ_AHEAD = 2 * RUN_CHUNKS };

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

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
    const struct kernel_set *kernels;
    size_t transpose_bytes; /* that a chunk of a transposed tensor takes at most */
    uint8_t *transposed;    /* [n_workers, transpose_bytes]; NULL: there are none */
    uint64_t total_bytes;
    _Atomic uint64_t done_bytes;
    _Atomic bool canceled;
    weights_progress_fn *progress;
    void *user;
    size_t page;
};

static size_t row_bytes(const struct model_tensor *tensor)
{
    const struct block_type *type = tensor->type;
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

/* Rows of a chunk in the file; of a transposed tensor the whole matrix. */
static const uint8_t *source(const struct chunk *chunk, int node, size_t *bytes)
{
    const struct model_tensor *tensor = chunk->place->tensor;
    const struct block_type *type = tensor->source->type;
    size_t stride = (size_t)tensor->source->dims[0] / type->n_elems * type->n_bytes;
    size_t row = (size_t)chunk->place->parts[node].n0 + (size_t)chunk->n0;
    size_t count = (size_t)(chunk->n1 - chunk->n0);
    if (tensor->transposed) {
        row = 0;
        count = tensor->k;
    }
    *bytes = count * stride;
    return (const uint8_t *)tensor->source->data +
           ((size_t)chunk->expert * tensor->expert_rows + tensor->row0 + row) * stride;
}

/* Only a hint: a refusal changes no result. Whole pages inside the range only: neighbours may still
 * be needed. */
static void advise(const void *data, size_t bytes, size_t page, int advice)
{
    uintptr_t begin = ((uintptr_t)data + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)data + bytes) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, advice);
}

static void read_ahead(const struct pack_job *job, int i, int node)
{
    size_t bytes;
    if (i >= job->first_chunk[node + 1])
        return;
    const uint8_t *rows = source(&job->chunks[i], node, &bytes);
    advise(rows, bytes, job->page, MADV_WILLNEED);
}

/* Floats as elements of a type that has no blocks. */
static void encode(const struct kernel_set *kernels, enum block_id type, void *to,
                   const float *from, size_t n)
{
    if (type == BLOCK_F16)
        kernels->rows.f32_to_f16(to, from, n);
    else if (type == BLOCK_BF16)
        kernels->rows.f32_to_bf16(to, from, n);
    else
        memcpy(to, from, n * sizeof *from);
}

/* The memory of `transpose`: the rows, a row of the file as floats, and what of it is used. */
static size_t transpose_bytes(const struct placement *place)
{
    const struct model_tensor *tensor = place->tensor;
    size_t count = (size_t)chunk_rows(place);
    return act_round_up(count * row_bytes(tensor), 64) +
           act_round_up(count * tensor->type->n_bytes, 64) +
           act_round_up((size_t)tensor->source->dims[0] * sizeof(float), 64);
}

/* Columns [n0, n1) of a matrix of the file as rows, in the worker's memory: an element of each at a
 * time, so that the file is read in its order. */
static const uint8_t *transpose(const struct pack_job *job, const struct chunk *chunk, int node,
                                const uint8_t *rows, int worker)
{
    const struct model_tensor *tensor = chunk->place->tensor;
    const struct block_type *type = tensor->source->type;
    size_t row_width = (size_t)tensor->source->dims[0], element = tensor->type->n_bytes;
    size_t first = (size_t)chunk->place->parts[node].n0 + (size_t)chunk->n0;
    size_t count = (size_t)(chunk->n1 - chunk->n0);
    uint8_t *to = job->transposed + (size_t)worker * job->transpose_bytes;
    uint8_t *encoded = to + act_round_up(count * row_bytes(tensor), 64);
    float *row = (float *)(void *)(encoded + act_round_up(count * element, 64));
    for (size_t i = 0; i < tensor->k; i++) {
        type->dequantize(rows + i * (row_width / type->n_elems * type->n_bytes), row, row_width);
        encode(job->kernels, (enum block_id)tensor->type->id, encoded, row + first, count);
        for (size_t j = 0; j < count; j++)
            memcpy(to + j * row_bytes(tensor) + i * element, encoded + j * element, element);
    }
    return to;
}

static void pack_chunk(struct pack_job *job, const struct chunk *chunk, int node, int worker)
{
    const struct placement *place = chunk->place;
    const struct placement_part *part = &place->parts[node];
    const struct model_tensor *tensor = place->tensor;
    size_t bytes;
    const uint8_t *rows = source(chunk, node, &bytes);
    advise(rows, bytes, job->page, MADV_POPULATE_READ); /* one call in place of many page faults */
    const uint8_t *from = tensor->transposed ? transpose(job, chunk, node, rows, worker) : rows;
    place->kernel->pack(job->weights->arenas[place->pool][node].data + part->offset +
                            chunk->expert * part->matrix_bytes,
                        from, part->n1 - part->n0, (int)tensor->k, chunk->n0, chunk->n1);
    advise(rows, bytes, job->page, MADV_DONTNEED);
    atomic_fetch_add(&job->done_bytes, (size_t)(chunk->n1 - chunk->n0) * row_bytes(tensor));
}

static void pack_worker(struct worker *worker, void *arg)
{
    struct pack_job *job = arg;
    int node = worker->node; /* all nodes that have parts have workers */
    int first = job->first_chunk[node], end = job->first_chunk[node + 1];
    int run = (end - first) / (RUNS_PER_WORKER * worker->count);
    run = run < 1 ? 1 : run > RUN_CHUNKS ? RUN_CHUNKS : run;
    for (;;) {
        int begin = first + team_take_from(worker, node) * run;
        if (begin >= end)
            return;
        for (int i = begin; i < begin + run && i < end; i++) {
            if (atomic_load(&job->canceled))
                return;
            read_ahead(job, i + READ_AHEAD, node);
            pack_chunk(job, &job->chunks[i], node, worker->index);
            if (worker->index == 0 && job->progress &&
                !job->progress(job->user, atomic_load(&job->done_bytes), job->total_bytes))
                atomic_store(&job->canceled, true);
        }
    }
}

static int compare_place(const void *a, const void *b)
{
    const struct gguf_tensor *x = (*(const struct placement *const *)a)->tensor->source;
    const struct gguf_tensor *y = (*(const struct placement *const *)b)->tensor->source;
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* What has to be packed, in the order of the file; returns how many there are. */
static size_t list_packed(const struct plan *plan, const struct placement **places)
{
    size_t n = 0;
    for (size_t i = 0; i < plan->n_placements; i++)
        if (plan->placements[i].pool != POOL_MAPPED)
            places[n++] = &plan->placements[i];
    qsort(places, n, sizeof *places, compare_place);
    return n;
}

/* The chunks of all nodes, or only their number where `chunks` is NULL. */
static size_t list_all(const struct placement *const *places, size_t n_places, int n_nodes,
                       struct chunk *chunks, int *first_chunk)
{
    size_t count = 0;
    for (int node = 0; node < NODES_MAX; node++) {
        first_chunk[node] = (int)count;
        for (size_t i = 0; node < n_nodes && i < n_places; i++)
            count += list_chunks(places[i], node, chunks ? chunks + count : NULL);
    }
    first_chunk[NODES_MAX] = (int)count;
    return count;
}

static int collect_chunks(const struct plan *plan, struct pack_job *job, struct tsr_error *error)
{
    const struct placement **places = mem_alloc(plan->n_placements, sizeof *places);
    if (!places)
        return error_set(error, TSR_ENOMEM, "out of memory for packing");
    size_t n_places = list_packed(plan, places);
    size_t count = list_all(places, n_places, plan->n_nodes, NULL, job->first_chunk);
    int status = 0;
    if (count > INT32_MAX - RUN_CHUNKS)
        status = error_set(error, TSR_EFORMAT, "too many pieces of weights to pack");
    else if (!(job->chunks = mem_alloc(count, sizeof *job->chunks)))
        status = error_set(error, TSR_ENOMEM, "out of memory for packing");
    else
        list_all(places, n_places, plan->n_nodes, job->chunks, job->first_chunk);
    for (size_t i = 0; i < n_places; i++) {
        const struct model_tensor *tensor = places[i]->tensor;
        job->total_bytes += (uint64_t)tensor->n_expert * tensor->n * row_bytes(tensor);
        if (tensor->transposed && transpose_bytes(places[i]) > job->transpose_bytes)
            job->transpose_bytes = transpose_bytes(places[i]);
    }
    free(places);
    return status;
}

int pack_tensors(const struct plan *plan, struct team *team, const struct weights *weights,
                 weights_progress_fn *progress, void *user, struct tsr_error *error)
{
    struct pack_job job = {.weights = weights,
                           .kernels = plan->kernels,
                           .progress = progress,
                           .user = user,
                           .page = (size_t)sysconf(_SC_PAGESIZE)};
    int status = collect_chunks(plan, &job, error);
    if (!status && job.transpose_bytes) {
        job.transposed = mem_alloc((size_t)team_size(team), job.transpose_bytes);
        if (!job.transposed)
            status = error_set(error, TSR_ENOMEM, "out of memory for packing");
    }
    if (!status)
        team_run(team, team_size(team), pack_worker, &job);
    free(job.transposed);
    free(job.chunks);
    if (status)
        return status;
    if (atomic_load(&job.canceled))
        return error_set(error, TSR_ECANCELED, "loading was cancelled");
    if (progress && !progress(user, job.total_bytes, job.total_bytes))
        return error_set(error, TSR_ECANCELED, "loading was cancelled");
    return 0;
}
