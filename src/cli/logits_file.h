/* Files of log-probabilities, in the format of llama.cpp's llama-perplexity
 * (tools/perplexity/perplexity.cpp): either program reads what the other wrote.
 *
 *     "_logits_"   uint32 n_ctx   int32 n_vocab   int32 n_chunks   int32 ids[n_chunks][n_ctx]
 *     uint16 rows[n_chunks][n_ctx - 1 - n_ctx / 2][log_row_codes(n_vocab)]
 *
 * A chunk's rows are those of positions n_ctx / 2 .. n_ctx - 2. Little-endian. */
#ifndef TESSERA_CLI_LOGITS_FILE_H
#define TESSERA_CLI_LOGITS_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cli/options.h"

struct logits_file {
    const char *path;
    FILE *file;
    int n_ctx, n_vocab, n_chunks;
    int32_t *ids; /* [n_chunks, n_ctx]; free() */
};

/* Positions of a chunk that are predictions with enough before them. */
static inline int chunk_rows(int n_ctx)
{
    return n_ctx - 1 - n_ctx / 2;
}

/* Reads all but the rows. False after reporting; `file` is to be closed either way. */
bool logits_file_open(const struct options *options, struct logits_file *file);

/* Writes all but the rows, as `file` says. False after reporting. */
bool logits_file_create(const struct options *options, struct logits_file *file);

/* The rows of the next chunk. False after reporting. */
bool logits_file_read(const struct options *options, struct logits_file *file, uint16_t *rows);
bool logits_file_write(const struct options *options, struct logits_file *file,
                       const uint16_t *rows);

/* False after reporting that not all could be written. */
bool logits_file_close(const struct options *options, struct logits_file *file);

#endif
