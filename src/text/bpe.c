/* Byte-level BPE.
 *
 * Method: https://github.com/openai/gpt-2/blob/master/src/encoder.py, with the normalisation and
 * the words of the model's tokenizer.json.
 *
 * Bytes that are no valid UTF-8 are outside what the regular expressions can see: each becomes the
 * token of that one byte, and the text on both sides is encoded as if it stood alone. So every
 * string of bytes can be encoded, and decodes to itself (in NFC, where the model has it).
 */
#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "text/utf8.h"

struct bpe_slot {
    int32_t left, right;
    uint32_t rank_plus_1; /* 0: free */
    int32_t id;           /* what the pair becomes */
};

/* ---- Merges ---------------------------------------------------------------------------------- */

/* The slot of this pair, or the free one where it belongs. */
static struct bpe_slot *find_pair(const struct bpe *bpe, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t hash = pair * 0x9e3779b97f4a7c15u;
    for (uint32_t i = (uint32_t)(hash >> 32);; i++) {
        struct bpe_slot *slot = &bpe->slots[i & bpe->slot_mask];
        if (slot->rank_plus_1 == 0 || (slot->left == left && slot->right == right))
            return slot;
    }
}

static bool token_is(const struct vocab *vocab, int32_t id, const char *bytes, size_t len)
{
    return id >= 0 && (uint32_t)id < vocab->n_tokens && vocab->tokens[id].len == len &&
           memcmp(vocab_bytes(vocab, id), bytes, len) == 0;
}

/* `text` is "LEFT RIGHT", the space never first: a byte-level token spells a space otherwise.
 * `last` is the id of the merge before: files are mostly sorted so that this one is the next. */
static bool read_merge(const struct vocab *vocab, const struct gguf_string *text, char *bytes,
                       int32_t last, struct bpe_slot *merge)
{
    const char *space = text->len > 1 ? memchr(text->data + 1, ' ', text->len - 1) : NULL;
    if (!space)
        return false;
    size_t n_left = (size_t)(space - text->data), n_right = text->len - n_left - 1;
    n_left = byte_level_decode(text->data, n_left, bytes);
    n_right = byte_level_decode(space + 1, n_right, bytes + n_left);
    merge->left = vocab_find(vocab, bytes, n_left);
    merge->right = vocab_find(vocab, bytes + n_left, n_right);
    merge->id = token_is(vocab, last, bytes, n_left + n_right)       ? last
                : token_is(vocab, last + 1, bytes, n_left + n_right) ? last + 1
                : vocab_find(vocab, bytes, n_left + n_right);
    return merge->left >= 0 && merge->right >= 0 && merge->id >= 0;
}

static int index_merges(struct bpe *bpe, const struct gguf *gguf, const struct gguf_array *texts,
                        char *bytes, struct tsr_error *error)
{
    struct bpe_slot merge = {.id = -1};
    for (uint32_t rank = 0; rank < texts->count; rank++) {
        const struct gguf_string *text = &texts->strings[rank];
        if (!read_merge(bpe->vocab, text, bytes, merge.id, &merge))
            return error_set(error, TSR_EFORMAT,
                             "%s: tokenizer.ggml.merges[%u] (\"%s\") is not two tokens that make"
                             " a third",
                             gguf_path(gguf), rank, gguf_printable(text->data, text->len).text);
        struct bpe_slot *slot = find_pair(bpe, merge.left, merge.right);
        merge.rank_plus_1 = rank + 1;
        if (slot->rank_plus_1 == 0)
            *slot = merge;
    }
    return 0;
}

static int read_merges(struct bpe *bpe, const struct gguf *gguf, struct tsr_error *error)
{
    static const char key[] = "tokenizer.ggml.merges";
    struct gguf_array texts;
    if (!gguf_find(gguf, key))
        return error_set(error, TSR_EFORMAT, "%s: no %s", gguf_path(gguf), key);
    if (!gguf_get_array(gguf, key, GGUF_STRING, &texts, error))
        return TSR_EFORMAT;
    if (texts.count > INT32_MAX / 2)
        return error_set(error, TSR_EFORMAT, "%s: %s has %llu elements", gguf_path(gguf), key,
                         (unsigned long long)texts.count);
    size_t max_len = 0;
    for (uint64_t i = 0; i < texts.count; i++)
        max_len = texts.strings[i].len > max_len ? texts.strings[i].len : max_len;
    uint32_t n_slots = 64;
    while (n_slots / 3 * 2 < texts.count) /* at most two thirds full */
        n_slots *= 2;
    bpe->slots = mem_alloc(n_slots, sizeof *bpe->slots);
    bpe->slot_mask = n_slots - 1;
    char *bytes = mem_alloc(max_len, 1);
    int code = bpe->slots && bytes
                   ? index_merges(bpe, gguf, &texts, bytes, error)
                   : error_set(error, TSR_ENOMEM, "%s: out of memory for %llu merges",
                               gguf_path(gguf), (unsigned long long)texts.count);
    free(bytes);
    return code;
}

int bpe_open(struct bpe *bpe, const struct vocab *vocab, const struct gguf *gguf,
             struct tsr_error *error)
{
    static const char key[] = "tokenizer.ggml.pre";
    struct gguf_string name = {"default", strlen("default")};
    *bpe = (struct bpe){.vocab = vocab};
    if (gguf_find(gguf, key) && !gguf_get_string(gguf, key, &name, error))
        return TSR_EFORMAT;
    bpe->kind = pretokenizer_find(name.data, name.len);
    if (!bpe->kind)
        return error_set(error, TSR_EUNSUPPORTED, "%s: pre-tokenizer \"%s\" is not supported",
                         gguf_path(gguf), gguf_printable(name.data, name.len).text);
    int code = pretokenizer_open(bpe->kind, &bpe->pretokenizer, error);
    if (!code)
        code = read_merges(bpe, gguf, error);
    if (code)
        bpe_close(bpe);
    return code;
}

void bpe_close(struct bpe *bpe)
{
    pretokenizer_close(bpe->pretokenizer);
    free(bpe->slots);
    *bpe = (struct bpe){0};
}

/* ---- Encoding -------------------------------------------------------------------------------- */

static bool pair_rule(const void *rules, const char *word, const struct symbol *left,
                      const struct symbol *right, struct merge *merge)
{
    const struct bpe_slot *slot = find_pair(rules, left->id, right->id);
    *merge = (struct merge){slot->rank_plus_1, slot->id};
    return slot->rank_plus_1 != 0;
}

struct encoding {
    const struct bpe *bpe;
    struct merger *merger;
    struct id_sink *sink;
    struct tsr_error *error;
};

static int encode_byte(const struct encoding *encoding, unsigned char byte, int32_t *id)
{
    *id = encoding->bpe->vocab->byte_ids[byte];
    if (*id < 0)
        return error_set(encoding->error, TSR_EFORMAT,
                         "the vocabulary has no token for the byte 0x%02x", byte);
    return 0;
}

static int encode_word(void *user, const char *word, size_t len)
{
    const struct encoding *encoding = user;
    const struct bpe *bpe = encoding->bpe;
    struct merger *merger = encoding->merger;
    int32_t id = bpe->kind->ignore_merges ? vocab_find(bpe->vocab, word, len) : -1;
    if (id >= 0) {
        id_sink_put(encoding->sink, id);
        return 0;
    }
    if (merger_reserve(merger, len))
        return error_set(encoding->error, TSR_ENOMEM, "out of memory for a word of %zu bytes", len);
    for (size_t i = 0; i < len; i++) {
        struct symbol *symbol = &merger->symbols[i];
        *symbol = (struct symbol){.start = (uint32_t)i, .len = 1};
        int code = encode_byte(encoding, (unsigned char)word[i], &symbol->id);
        if (code)
            return code;
    }
    merger_run(merger, len, word, pair_rule, bpe);
    for (int32_t i = 0; i >= 0; i = merger->symbols[i].next)
        id_sink_put(encoding->sink, merger->symbols[i].id);
    return 0;
}

/* Text whose characters all lie below U+0300 is NFC: the first combining mark is U+0300, CC 80. */
static bool is_surely_nfc(const char *text, size_t len)
{
    unsigned char max = 0;
    for (size_t i = 0; i < len; i++)
        max = (unsigned char)text[i] > max ? (unsigned char)text[i] : max;
    return max < 0xcc;
}

/* Whether some character carries more combining marks than any language would give it. To sort them
 * takes utf8proc quadratic time: minutes for a megabyte. Such text is encoded as it is. */
static bool has_endless_marks(const char *text, size_t len)
{
    enum { MAX_MARKS = 1024 };
    int n_marks = 0;
    for (size_t i = 0; i < len && n_marks <= MAX_MARKS;) {
        utf8proc_int32_t code;
        i += (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + i,
                                      (utf8proc_ssize_t)(len - i), &code);
        const utf8proc_property_t *property = utf8proc_get_property(code);
        bool is_mark = property->combining_class || property->category == UTF8PROC_CATEGORY_MN;
        n_marks = is_mark ? n_marks + 1 : 0;
    }
    return n_marks > MAX_MARKS;
}

static bool needs_nfc(const char *text, size_t len)
{
    return !is_surely_nfc(text, len) && !has_endless_marks(text, len);
}

/* `text` is valid UTF-8. */
static int encode_valid(const struct encoding *encoding, const char *text, size_t len)
{
    const struct bpe *bpe = encoding->bpe;
    utf8proc_uint8_t *normal = NULL;
    if (bpe->kind->nfc && needs_nfc(text, len)) {
        utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len,
                                          &normal, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        if (n < 0)
            return error_set(encoding->error, n == UTF8PROC_ERROR_NOMEM ? TSR_ENOMEM : TSR_EINVAL,
                             "the text cannot be normalised to NFC: %s", utf8proc_errmsg(n));
        text = (const char *)normal;
        len = (size_t)n;
    }
    int code = pretokenizer_split(bpe->pretokenizer, text, len, encode_word, (void *)encoding,
                                  encoding->error);
    free(normal);
    return code;
}

int bpe_encode(const struct bpe *bpe, const char *text, size_t len, struct merger *merger,
               struct id_sink *sink, struct tsr_error *error)
{
    const struct encoding encoding = {bpe, merger, sink, error};
    for (size_t done = 0; done < len;) {
        size_t run = utf8_valid_run(text + done, len - done);
        int code = run ? encode_valid(&encoding, text + done, run) : 0;
        if (code)
            return code;
        done += run;
        if (done < len) {
            int32_t id;
            code = encode_byte(&encoding, (unsigned char)text[done++], &id);
            if (code)
                return code;
            id_sink_put(sink, id);
        }
    }
    return 0;
}
