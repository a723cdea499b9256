/* Ids back to text, as a stream: bytes of a character that is not whole yet wait for the next. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"
#include "text/utf8.h"

struct detokenizer {
    const struct tokenizer *tokenizer;
    bool special;
    bool drop_space; /* nothing was given out yet, and encoding put a space in front */
    size_t n_given;  /* bytes at the start of buffer that the last call gave out */
    size_t n;        /* bytes in buffer */
    char buffer[];   /* the start of a character (at most 3 bytes) and the longest token */
};

int detokenizer_open(const struct tokenizer *tokenizer, bool special, struct detokenizer **stream)
{
    struct detokenizer *s = malloc(sizeof *s + 3 + (size_t)tokenizer_max_bytes(tokenizer));
    *stream = s;
    if (!s)
        return TSR_ENOMEM;
    *s = (struct detokenizer){
        .tokenizer = tokenizer,
        .special = special,
        .drop_space = tokenizer_space_prefix(tokenizer),
    };
    return 0;
}

void detokenizer_close(struct detokenizer *stream)
{
    free(stream);
}

/* Bytes of the buffer that will not change with what follows: all but the start of a character at
 * the very end. Bytes that cannot be part of a character pass through. */
static size_t whole_bytes(const char *bytes, size_t n)
{
    size_t i = 0;
    while (i < n) {
        i += utf8_valid_run(bytes + i, n - i);
        if (i == n || utf8_char(bytes + i, n - i) == 0)
            return i;
        i++;
    }
    return n;
}

static void drop_given(struct detokenizer *stream)
{
    stream->n -= stream->n_given;
    memmove(stream->buffer, stream->buffer + stream->n_given, stream->n);
    stream->n_given = 0;
}

int detokenizer_push(struct detokenizer *stream, int32_t id, const char **text, size_t *len)
{
    const char *bytes;
    size_t n_bytes;
    drop_given(stream);
    *text = stream->buffer;
    *len = 0;
    if (!tokenizer_token_bytes(stream->tokenizer, id, stream->special, &bytes, &n_bytes))
        return TSR_EINVAL;
    if (n_bytes > 0 && stream->drop_space) {
        stream->drop_space = false;
        if (*bytes == ' ') {
            bytes++;
            n_bytes--;
        }
    }
    memcpy(stream->buffer + stream->n, bytes, n_bytes);
    stream->n += n_bytes;
    *len = stream->n_given = whole_bytes(stream->buffer, stream->n);
    return 0;
}

int detokenizer_flush(struct detokenizer *stream, const char **text, size_t *len)
{
    drop_given(stream);
    *text = stream->buffer;
    *len = stream->n_given = stream->n;
    return 0;
}
