/* The order of a file: header, metadata, directory of tensors, padding, data. The first three are
 * kept in memory until their counts are known. Random weights are made in place, in windows of the
 * file that all CPUs map, fill and unmap again, so that a model larger than what this process may
 * keep resident is written at the speed of memory. */
#include "bench/gguf_writer.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/random_weights.h"

enum { VERSION = 3, CHUNK_BYTES = 16 << 20, MAX_THREADS = 256 };

struct buffer {
    char *bytes;
    size_t n, capacity;
};

struct pending {
    const struct block_type *type;
    uint64_t n_bytes, seed;
    uint64_t offset; /* from the start of the data */
    const void *data;
    float sigma; /* of random weights */
};

struct gguf_writer {
    int fd;
    bool own_file; /* the writer opened it */
    bool hole;
    tsr_progress_fn *progress;
    void *user;
    char *path;
    struct buffer metadata, directory;
    uint64_t n_values, n_tensors, data_bytes;
    uint32_t alignment;
    struct pending *tensors;
};

static void put(struct buffer *buffer, const void *bytes, size_t n)
{
    if (buffer->n + n > buffer->capacity || !buffer->bytes) {
        buffer->capacity = 2 * (buffer->n + n) + 64;
        buffer->bytes = realloc(buffer->bytes, buffer->capacity);
    }
    if (!buffer->bytes)
        err(1, "gguf_writer");
    if (n)
        memcpy(buffer->bytes + buffer->n, bytes, n);
    buffer->n += n;
}

static void put_u32(struct buffer *buffer, uint32_t value)
{
    put(buffer, &value, sizeof value);
}

static void put_u64(struct buffer *buffer, uint64_t value)
{
    put(buffer, &value, sizeof value);
}

static void put_string(struct buffer *buffer, const char *string)
{
    put_u64(buffer, strlen(string));
    put(buffer, string, strlen(string));
}

/* Everything that a value holds behind its key and type comes with later puts. */
static struct buffer *start_value(struct gguf_writer *writer, const char *key,
                                  enum gguf_value_type type)
{
    put_string(&writer->metadata, key);
    put_u32(&writer->metadata, type);
    writer->n_values++;
    return &writer->metadata;
}

static size_t number_size(enum gguf_value_type type)
{
    switch (type) {
    case GGUF_U8: case GGUF_I8: case GGUF_BOOL:
        return 1;
    case GGUF_U16: case GGUF_I16:
        return 2;
    case GGUF_U32: case GGUF_I32: case GGUF_F32:
        return 4;
    case GGUF_U64: case GGUF_I64: case GGUF_F64:
        return 8;
    default:
        errx(1, "gguf_writer: value type %d is no number", type);
    }
}

struct gguf_writer *gguf_writer_open_fd(int fd, const char *path)
{
    struct gguf_writer *writer = calloc(1, sizeof *writer);
    if (!writer || !(writer->path = strdup(path)))
        err(1, "%s", path);
    writer->fd = fd;
    writer->alignment = 32;
    return writer;
}

struct gguf_writer *gguf_writer_open(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        err(1, "%s", path);
    struct gguf_writer *writer = gguf_writer_open_fd(fd, path);
    writer->own_file = true;
    return writer;
}

void gguf_writer_alignment(struct gguf_writer *writer, uint32_t alignment)
{
    gguf_writer_int(writer, "general.alignment", GGUF_U32, alignment);
    writer->alignment = alignment;
}

void gguf_writer_int(struct gguf_writer *writer, const char *key, enum gguf_value_type type,
                     int64_t value)
{
    put(start_value(writer, key, type), &value, number_size(type));
}

void gguf_writer_f32(struct gguf_writer *writer, const char *key, float value)
{
    put(start_value(writer, key, GGUF_F32), &value, sizeof value);
}

void gguf_writer_string(struct gguf_writer *writer, const char *key, const char *value)
{
    put_string(start_value(writer, key, GGUF_STRING), value);
}

void gguf_writer_strings(struct gguf_writer *writer, const char *key, const char *const *values,
                         size_t n)
{
    struct buffer *buffer = start_value(writer, key, GGUF_ARRAY);
    put_u32(buffer, GGUF_STRING);
    put_u64(buffer, n);
    for (size_t i = 0; i < n; i++)
        put_string(buffer, values[i]);
}

void gguf_writer_array(struct gguf_writer *writer, const char *key, enum gguf_value_type type,
                       const void *values, size_t n)
{
    struct buffer *buffer = start_value(writer, key, GGUF_ARRAY);
    put_u32(buffer, type);
    put_u64(buffer, n);
    put(buffer, values, n * number_size(type));
}

void gguf_writer_raw(struct gguf_writer *writer, const char *key, enum gguf_value_type type,
                     const void *bytes, size_t n_bytes)
{
    put(start_value(writer, key, type), bytes, n_bytes);
}

static uint64_t pad(const struct gguf_writer *writer, uint64_t n)
{
    return (n + writer->alignment - 1) / writer->alignment * writer->alignment;
}

void gguf_writer_tensor(struct gguf_writer *writer, const char *name, enum block_id type,
                        int n_dims, const uint64_t *dims, const void *data)
{
    const struct block_type *block = block_type_find(type);
    if (!block)
        errx(1, "gguf_writer: %s: block type %d", name, type);
    struct pending tensor = {.type = block, .data = data, .n_bytes = block->n_bytes, .sigma = 0.02f,
                             .offset = writer->data_bytes};
    for (const char *c = name; *c; c++)
        tensor.seed = tensor.seed * 31 + (unsigned char)*c;

    put_string(&writer->directory, name);
    put_u32(&writer->directory, (uint32_t)n_dims);
    uint64_t n_elems = 1;
    for (int d = 0; d < n_dims; d++) {
        put_u64(&writer->directory, dims[d]);
        n_elems *= dims[d];
    }
    put_u32(&writer->directory, type);
    put_u64(&writer->directory, writer->data_bytes);

    tensor.n_bytes *= n_elems / block->n_elems;
    writer->data_bytes += pad(writer, tensor.n_bytes);
    writer->tensors = realloc(writer->tensors, (writer->n_tensors + 1) * sizeof tensor);
    if (!writer->tensors)
        err(1, "gguf_writer");
    writer->tensors[writer->n_tensors++] = tensor;
}

void gguf_writer_deviation(struct gguf_writer *writer, float sigma)
{
    writer->tensors[writer->n_tensors - 1].sigma = sigma;
}

void gguf_writer_progress(struct gguf_writer *writer, tsr_progress_fn *progress, void *user)
{
    writer->progress = progress;
    writer->user = user;
}

void gguf_writer_hole(struct gguf_writer *writer)
{
    writer->hole = true;
}

/* ---- Writing --------------------------------------------------------------------------------- */

static uint64_t head_bytes(const struct gguf_writer *writer)
{
    const uint64_t header = 4 + sizeof(uint32_t) + 2 * sizeof(uint64_t);
    return header + writer->metadata.n + writer->directory.n;
}

uint64_t gguf_writer_bytes(const struct gguf_writer *writer)
{
    uint64_t head = head_bytes(writer);
    return writer->n_tensors ? pad(writer, head) + writer->data_bytes : head;
}

/* Room for the whole file: where a disk is full that is an error here, not a signal later. */
static void reserve_file(struct gguf_writer *writer)
{
    off_t size = (off_t)gguf_writer_bytes(writer);
    bool allocate = writer->own_file && !writer->hole;
    int status = allocate                      ? posix_fallocate(writer->fd, 0, size)
                 : ftruncate(writer->fd, size) ? errno
                                               : 0;
    if (status)
        errx(1, "%s: %s", writer->path, strerror(status));
}

static void write_at(const struct gguf_writer *writer, const void *bytes, uint64_t n, uint64_t at)
{
    for (uint64_t done = 0; done < n;) {
        ssize_t written =
            pwrite(writer->fd, (const char *)bytes + done, n - done, (off_t)(at + done));
        if (written < 0)
            err(1, "%s", writer->path);
        done += (uint64_t)written;
    }
}

/* What all threads share: each takes the next chunk of random weights. */
struct fill_job {
    const struct gguf_writer *writer;
    uint64_t data_at; /* of the first tensor, in the file */
    atomic_uint_fast64_t next, done_bytes;
    atomic_bool stop;
    pthread_t caller; /* the one that reports */
};

static uint64_t chunk_bytes(const struct pending *tensor)
{
    return CHUNK_BYTES / tensor->type->n_bytes * tensor->type->n_bytes;
}

static uint64_t n_chunks(const struct pending *tensor)
{
    uint64_t bytes = chunk_bytes(tensor);
    return tensor->data ? 0 : (tensor->n_bytes + bytes - 1) / bytes;
}

static void fill_chunk(struct fill_job *job, const struct pending *tensor, uint64_t chunk)
{
    uint64_t begin = chunk * chunk_bytes(tensor), n = tensor->n_bytes - begin;
    n = n < chunk_bytes(tensor) ? n : chunk_bytes(tensor);
    uint64_t at = job->data_at + tensor->offset + begin;
    uint64_t lead = at % (uint64_t)sysconf(_SC_PAGESIZE);
    char *window = mmap(NULL, n + lead, PROT_READ | PROT_WRITE, MAP_SHARED, job->writer->fd,
                        (off_t)(at - lead));
    if (window == MAP_FAILED)
        err(1, "%s", job->writer->path);
    uint64_t state = tensor->seed ^ chunk * 0xd1342543de82ef95;
    random_weights(tensor->type, window + lead, n, tensor->sigma, &state);
    munmap(window, n + lead);
    atomic_fetch_add(&job->done_bytes, n);
}

static void report(struct fill_job *job)
{
    const struct gguf_writer *writer = job->writer;
    if (writer->progress && pthread_equal(pthread_self(), job->caller) &&
        !writer->progress(writer->user, "making weights", atomic_load(&job->done_bytes),
                          writer->data_bytes))
        atomic_store(&job->stop, true);
}

static void *fill_main(void *arg)
{
    struct fill_job *job = arg;
    uint64_t first = 0; /* number of the tensor's first chunk */
    uint64_t item = atomic_fetch_add(&job->next, 1);
    for (uint64_t t = 0; t < job->writer->n_tensors; t++) {
        const struct pending *tensor = &job->writer->tensors[t];
        for (; item < first + n_chunks(tensor) && !atomic_load(&job->stop);
             item = atomic_fetch_add(&job->next, 1)) {
            fill_chunk(job, tensor, item - first);
            report(job);
        }
        first += n_chunks(tensor);
    }
    return NULL;
}

static int count_threads(const struct gguf_writer *writer)
{
    uint64_t n_items = 0;
    for (uint64_t t = 0; t < writer->n_tensors; t++)
        n_items += n_chunks(&writer->tensors[t]);
    cpu_set_t cpus;
    int n = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
    n = n < MAX_THREADS ? n : MAX_THREADS;
    return n_items < (uint64_t)n ? (int)n_items : n;
}

/* A thread that cannot be started leaves its chunks to the others. */
static bool fill_random(struct gguf_writer *writer, uint64_t data_at)
{
    struct fill_job job = {.writer = writer, .data_at = data_at, .caller = pthread_self()};
    pthread_t threads[MAX_THREADS];
    int n_threads = 0, wanted = count_threads(writer) - 1;
    while (n_threads < wanted && !pthread_create(&threads[n_threads], NULL, fill_main, &job))
        n_threads++;
    fill_main(&job);
    for (int i = 0; i < n_threads; i++)
        pthread_join(threads[i], NULL);
    return !atomic_load(&job.stop);
}

bool gguf_writer_close(struct gguf_writer *writer)
{
    struct buffer head = {0};
    put(&head, "GGUF", 4);
    put_u32(&head, VERSION);
    put_u64(&head, writer->n_tensors);
    put_u64(&head, writer->n_values);
    put(&head, writer->metadata.bytes, writer->metadata.n);
    put(&head, writer->directory.bytes, writer->directory.n);
    reserve_file(writer);
    write_at(writer, head.bytes, head.n, 0);
    uint64_t data_at = pad(writer, head.n);
    for (uint64_t i = 0; i < writer->n_tensors && !writer->hole; i++)
        if (writer->tensors[i].data)
            write_at(writer, writer->tensors[i].data, writer->tensors[i].n_bytes,
                     data_at + writer->tensors[i].offset);
    bool done = writer->hole || fill_random(writer, data_at);
    if (writer->own_file && close(writer->fd))
        err(1, "%s", writer->path);
    free(head.bytes);
    free(writer->metadata.bytes);
    free(writer->directory.bytes);
    free(writer->tensors);
    free(writer->path);
    free(writer);
    return done;
}
