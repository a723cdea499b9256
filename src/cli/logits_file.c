#include "cli/logits_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "cli/prediction.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are copied as they are");

struct header {
    char magic[8];
    int32_t n_ctx, n_vocab, n_chunks;
};
_Static_assert(sizeof(struct header) == 20, "as the file has it");

static const char magic[8] = {'_', 'l', 'o', 'g', 'i', 't', 's', '_'};

static bool report(const struct options *options, const struct logits_file *file,
                   const char *problem)
{
    fail(options->command, "%s: %s", file->path, problem);
    return false;
}

/* Of the rows of a chunk. */
static size_t n_codes(const struct logits_file *file)
{
    return (size_t)chunk_rows(file->n_ctx) * log_row_codes(file->n_vocab);
}

static bool read_header(const struct options *options, struct logits_file *file)
{
    struct header header;
    if (fread(&header, sizeof header, 1, file->file) != 1 ||
        memcmp(header.magic, magic, sizeof magic) != 0)
        return report(options, file,
                      "no file of logits (tessera perplexity "
                      "--kl-divergence-base writes them)");
    enum { MOST = 1 << 24 };
    if (header.n_ctx < 4 || header.n_ctx > MOST || header.n_vocab < 1 || header.n_vocab > MOST ||
        header.n_chunks < 1 || header.n_chunks > INT32_MAX / header.n_ctx)
        return report(options, file, "damaged: sizes out of range");
    file->n_ctx = header.n_ctx;
    file->n_vocab = header.n_vocab;
    file->n_chunks = header.n_chunks;
    return true;
}

/* That all is there is known before hours are spent. */
static bool check_size(const struct options *options, const struct logits_file *file)
{
    uint64_t ids = (uint64_t)file->n_chunks * (uint64_t)file->n_ctx * sizeof *file->ids;
    uint64_t rows = (uint64_t)file->n_chunks * n_codes(file) * sizeof(uint16_t);
    if (fseeko(file->file, 0, SEEK_END))
        return report(options, file, strerror(errno));
    if ((uint64_t)ftello(file->file) != sizeof(struct header) + ids + rows)
        return report(options, file,
                      "damaged: not as long as its numbers of chunks and tokens say");
    return !fseeko(file->file, sizeof(struct header), SEEK_SET) ||
           report(options, file, strerror(errno));
}

static bool read_ids(const struct options *options, struct logits_file *file)
{
    size_t n = (size_t)file->n_chunks * (size_t)file->n_ctx;
    file->ids = malloc(n * sizeof *file->ids);
    if (!file->ids)
        return report(options, file, "out of memory");
    if (fread(file->ids, sizeof *file->ids, n, file->file) != n)
        return report(options, file, "cut off");
    for (size_t i = 0; i < n; i++)
        if (file->ids[i] < 0 || file->ids[i] >= file->n_vocab)
            return report(options, file, "damaged: a token outside the vocabulary");
    return true;
}

bool logits_file_open(const struct options *options, struct logits_file *file)
{
    file->file = fopen(file->path, "rb");
    if (!file->file)
        return report(options, file, strerror(errno));
    return read_header(options, file) && check_size(options, file) && read_ids(options, file);
}

bool logits_file_create(const struct options *options, struct logits_file *file)
{
    struct header header = {
        .n_ctx = file->n_ctx, .n_vocab = file->n_vocab, .n_chunks = file->n_chunks};
    memcpy(header.magic, magic, sizeof magic);
    size_t n = (size_t)file->n_chunks * (size_t)file->n_ctx;
    file->file = fopen(file->path, "wb");
    if (!file->file || fwrite(&header, sizeof header, 1, file->file) != 1 ||
        fwrite(file->ids, sizeof *file->ids, n, file->file) != n)
        return report(options, file, strerror(errno));
    return true;
}

bool logits_file_read(const struct options *options, struct logits_file *file, uint16_t *rows)
{
    return fread(rows, sizeof *rows, n_codes(file), file->file) == n_codes(file) ||
           report(options, file, "cut off");
}

bool logits_file_write(const struct options *options, struct logits_file *file,
                       const uint16_t *rows)
{
    return fwrite(rows, sizeof *rows, n_codes(file), file->file) == n_codes(file) ||
           report(options, file, strerror(errno));
}

bool logits_file_close(const struct options *options, struct logits_file *file)
{
    FILE *stream = file->file;
    file->file = NULL;
    free(file->ids);
    file->ids = NULL;
    return !stream || fclose(stream) == 0 || report(options, file, strerror(errno));
}
