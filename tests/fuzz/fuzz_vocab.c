/* Any bytes as a model file whose vocabulary is opened and used: a wrong one is refused in one
 * line, any other can encode or say why not, and decode what it encoded. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_error(const struct tsr_error *error, int64_t code)
{
    check(code < 0 && error->code == code && *error->text && !strchr(error->text, '\n'));
}

static void use(const struct tokenizer *tokenizer, unsigned flags)
{
    static const char text[] = "ab abc  cab\n<t><|im_end|> 12 \xff\xc3\xa9 caf\xcc\x81";
    enum { MAX_IDS = 2 * sizeof text + 3 }; /* each byte with a space prefix, BOS, EOS */
    int32_t ids[MAX_IDS];
    struct tsr_error error = {0};
    struct detokenizer *stream;
    const char *part;
    size_t len;
    int64_t n = tokenizer_encode(tokenizer, text, sizeof text - 1, flags, ids, MAX_IDS, &error);
    if (n < 0) {
        check_error(&error, n);
        return;
    }
    check(n <= MAX_IDS);
    check(detokenizer_open(tokenizer, flags & TSR_TOKENIZE_SPECIAL, &stream) == 0);
    for (int64_t i = 0; i < n; i++) {
        check(detokenizer_push(stream, ids[i], &part, &len) == 0);
        tokenizer_is_end(tokenizer, ids[i]);
    }
    check(detokenizer_flush(stream, &part, &len) == 0);
    detokenizer_close(stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tsr_error error = {0};
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    if (gguf_open_memory(data, size, &gguf, &error))
        return 0;
    int code = tokenizer_open(gguf, &tokenizer, &error);
    gguf_close(gguf); /* a tokenizer keeps nothing of it */
    if (code) {
        check(!tokenizer);
        check_error(&error, code);
        return 0;
    }
    use(tokenizer, 0);
    use(tokenizer, TSR_TOKENIZE_BOS | TSR_TOKENIZE_SPECIAL);
    tokenizer_close(tokenizer);
    return 0;
}
