/* Contexts as files: a header, the ids, the keys and values of all positions, head by head as in
 * the cache, and a hash of all before it. Numbers are little-endian, as on every machine that this
 * runs on. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "session.h"

static const char MAGIC[8] = "TSRCTX1"; /* with the version of the format */

struct header {
    char magic[8];
    uint64_t model; /* hash_model */
    uint32_t kv_type;
    uint32_t n_past;
};

/* A file and the hash of what was read or written so far. */
struct stream {
    FILE *file;
    uint64_t hash;
    bool failed;
};

static void put(struct stream *s, void *data, size_t bytes)
{
    s->hash = hash_bytes(s->hash, data, bytes);
    s->failed |= fwrite(data, 1, bytes, s->file) != bytes;
}

static void get(struct stream *s, void *data, size_t bytes)
{
    s->failed = s->failed || fread(data, 1, bytes, s->file) != bytes;
    if (!s->failed)
        s->hash = hash_bytes(s->hash, data, bytes);
}

/* What tells models apart wherever their files lie: the numbers that attention and experts depend
 * on, and of every tensor its name, type, size and first bytes. */
static uint64_t hash_model(const tsr_engine *engine)
{
    enum { SAMPLE = 4096 };
    const struct model_params *p = &engine->model->params;
    const double numbers[] = {
        p->n_layer,   p->n_head_kv,  p->d_k,       p->d_v,             p->n_expert_used, p->rms_eps,
        p->rope.base, p->rope.scale, p->rope.yarn, p->rope.n_ctx_orig, p->rope.n_rot, p->attn_scale,
    };
    uint64_t hash = hash_bytes(hash_text(0, engine->arch), numbers, sizeof numbers);
    for (size_t i = 0; i < gguf_n_tensors(engine->gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(engine->gguf, i);
        size_t sample = tensor->n_bytes < SAMPLE ? (size_t)tensor->n_bytes : SAMPLE;
        hash = hash_text(hash, tensor->name);
        hash = hash_number(hash, tensor->type->id);
        hash = hash_number(hash, tensor->n_bytes);
        hash = hash_bytes(hash, tensor->data, sample);
    }
    return hash;
}

static struct header header_of(const tsr_session *session)
{
    struct header header = {.model = hash_model(session->engine),
                            .kv_type = session->kv.type,
                            .n_past = session->n_past};
    memcpy(header.magic, MAGIC, sizeof MAGIC);
    return header;
}

typedef void move_fn(struct stream *s, void *data, size_t bytes);

/* Keys and values of the first n positions, to or from the file. */
static void move_cache(struct stream *s, const struct kv_cache *kv, uint32_t n_layer, size_t n,
                       move_fn *move)
{
    for (int layer = 0; layer < (int)n_layer; layer++)
        for (int head = 0; head < (int)kv->n_head_kv; head++) {
            move(s, kv_keys(kv, layer, head), n * kv->k_stride);
            move(s, kv_values(kv, layer, head), n * kv->v_stride);
        }
}

/* ---- Saving ---------------------------------------------------------------------------------- */

static void write_session(struct stream *s, const tsr_session *session)
{
    struct header header = header_of(session);
    put(s, &header, sizeof header);
    put(s, session->ids, session->n_past * sizeof *session->ids);
    move_cache(s, &session->kv, session->engine->model->params.n_layer, session->n_past, put);
    uint64_t hash = s->hash;
    put(s, &hash, sizeof hash);
}

static int save(const tsr_session *session, const char *path, struct tsr_error *error)
{
    char temporary[4096];
    int len = snprintf(temporary, sizeof temporary, "%s.%d.tmp", path, (int)getpid());
    if (len >= (int)sizeof temporary)
        return error_set(error, TSR_EINVAL, "%.100s...: the path is too long", path);
    struct stream s = {.file = fopen(temporary, "wb")};
    if (!s.file)
        return error_set(error, TSR_EIO, "%s: %s", path, strerror(errno));
    write_session(&s, session);
    s.failed |= fclose(s.file) != 0;
    if (!s.failed && rename(temporary, path) == 0)
        return 0;
    int status = error_set(error, TSR_EIO, "%s: %s", path, strerror(errno));
    unlink(temporary);
    return status;
}

int tsr_session_save(tsr_session *session, const char *path)
{
    struct tsr_error error = {0};
    int status = save(session, path, &error);
    return status ? engine_fail(session->engine, &error) : 0;
}

/* ---- Loading --------------------------------------------------------------------------------- */

static uint64_t file_bytes(const tsr_session *session, uint32_t n_past)
{
    const struct kv_cache *kv = &session->kv;
    uint64_t rows = (uint64_t)session->engine->model->params.n_layer * kv->n_head_kv;
    uint64_t position = sizeof *session->ids + rows * (kv->k_stride + kv->v_stride);
    return sizeof(struct header) + n_past * position + sizeof(uint64_t);
}

static int check_header(const tsr_session *session, const struct stream *s,
                        const struct header *header, const char *path, struct tsr_error *error)
{
    struct header own = header_of(session);
    struct stat stat;
    if (s->failed || memcmp(header->magic, MAGIC, sizeof MAGIC))
        return error_set(error, TSR_EFORMAT, "%s: is no saved context of this version", path);
    if (header->model != own.model)
        return error_set(error, TSR_ESTALE, "%s: was saved with another model", path);
    if (header->kv_type != own.kv_type) {
        const struct block_type *type = block_type_find(header->kv_type);
        return error_set(error, TSR_ESTALE,
                         "%s: was saved with keys and values in %s, this session keeps %s", path,
                         type ? type->name : "another type", block_type_find(own.kv_type)->name);
    }
    if (header->n_past > session->n_ctx)
        return error_set(error, TSR_ECONTEXT,
                         "%s: has %" PRIu32 " tokens, the context holds %" PRIu32
                         ": use a larger -c", path, header->n_past, session->n_ctx);
    if (fstat(fileno(s->file), &stat))
        return error_set(error, TSR_EIO, "%s: %s", path, strerror(errno));
    if ((uint64_t)stat.st_size != file_bytes(session, header->n_past))
        return error_set(error, TSR_EFORMAT, "%s: is cut short or damaged", path);
    return 0;
}

static bool ids_are_known(const tsr_session *session, uint32_t n)
{
    uint32_t n_vocab = session->engine->model->params.n_vocab;
    for (uint32_t i = 0; i < n; i++)
        if (session->ids[i] < 0 || (uint32_t)session->ids[i] >= n_vocab)
            return false;
    return true;
}

static int load(tsr_session *session, struct stream *s, const char *path, struct tsr_error *error)
{
    struct header header;
    uint64_t hash, found;
    get(s, &header, sizeof header);
    int status = check_header(session, s, &header, path, error);
    if (status)
        return status;
    get(s, session->ids, header.n_past * sizeof *session->ids);
    move_cache(s, &session->kv, session->engine->model->params.n_layer, header.n_past, get);
    hash = s->hash;
    get(s, &found, sizeof found);
    if (s->failed || found != hash || !ids_are_known(session, header.n_past))
        return error_set(error, TSR_EFORMAT, "%s: is cut short or damaged", path);
    session->n_past = header.n_past;
    return 0;
}

int tsr_session_load(tsr_session *session, const char *path)
{
    struct tsr_error error = {0};
    struct stream s = {.file = fopen(path, "rb")};
    int status;
    session->n_past = 0;
    session->has_logits = false;
    if (s.file) {
        status = load(session, &s, path, &error);
        fclose(s.file);
    } else {
        status = error_set(&error, TSR_EIO, "%s: %s", path, strerror(errno));
    }
    return status ? engine_fail(session->engine, &error) : 0;
}
