/* Any bytes through the demo model's tokenizer and back. The first byte holds the flags. Without
 * special tokens the text must come back in NFC, its invalid bytes as they were. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "tests/support/files.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* Opened once and kept until the program ends. */
static const struct tokenizer *demo_tokenizer(void)
{
    static struct tokenizer *tokenizer;
    struct gguf *gguf;
    if (!tokenizer) {
        check(gguf_open(source_path("models/tinystories-moe-q4_0.gguf"), &gguf, NULL) == 0);
        check(tokenizer_open(gguf, &tokenizer, NULL) == 0);
        gguf_close(gguf);
    }
    return tokenizer;
}

struct bytes {
    char *data;
    size_t len;
};

static void append(struct bytes *bytes, const void *data, size_t len)
{
    bytes->data = realloc(bytes->data, bytes->len + len + 1);
    check(bytes->data != NULL);
    memcpy(bytes->data + bytes->len, data, len);
    bytes->len += len;
}

static struct bytes decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t n)
{
    struct bytes text = {0};
    struct detokenizer *stream;
    const char *part;
    size_t len;
    check(detokenizer_open(tokenizer, true, &stream) == 0);
    for (size_t i = 0; i < n; i++) {
        check(detokenizer_push(stream, ids[i], &part, &len) == 0);
        append(&text, part, len);
    }
    check(detokenizer_flush(stream, &part, &len) == 0);
    append(&text, part, len);
    detokenizer_close(stream);
    return text;
}

static struct bytes normalise(const char *text, size_t len)
{
    struct bytes normal = {0};
    for (size_t i = 0; i < len; i++) {
        utf8proc_uint8_t *nfc;
        size_t run = utf8_valid_run(text + i, len - i);
        if (run > 0) {
            utf8proc_ssize_t n =
                utf8proc_map((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)run, &nfc,
                             UTF8PROC_STABLE | UTF8PROC_COMPOSE);
            check(n >= 0);
            append(&normal, nfc, (size_t)n);
            free(nfc);
        }
        i += run;
        if (i < len)
            append(&normal, text + i, 1);
    }
    return normal;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct tokenizer *tokenizer = demo_tokenizer();
    if (size == 0)
        return 0;
    unsigned flags = data[0] & (TSR_TOKENIZE_BOS | TSR_TOKENIZE_SPECIAL);
    size_t len = size - 1;
    char *text = malloc(len ? len : 1); /* no more, so that a sanitizer sees a read behind it */
    check(text != NULL);
    memcpy(text, data + 1, len);

    int64_t n = tokenizer_encode(tokenizer, text, len, flags, NULL, 0, NULL);
    check(n >= 0);
    int32_t *ids = malloc((size_t)n * sizeof *ids + 1);
    check(ids && tokenizer_encode(tokenizer, text, len, flags, ids, (size_t)n, NULL) == n);
    struct bytes decoded = decode(tokenizer, ids, (size_t)n);
    if (!(flags & TSR_TOKENIZE_SPECIAL)) {
        struct bytes expected = normalise(text, len);
        check(decoded.len == expected.len);
        check(len == 0 || memcmp(decoded.data, expected.data, decoded.len) == 0);
        free(expected.data);
    }
    free(decoded.data);
    free(ids);
    free(text);
    return 0;
}
