/* Reading the vocabulary of a GGUF file.
 *
 * Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer
 * Byte alphabet: bytes_to_unicode of https://github.com/openai/gpt-2/blob/master/src/encoder.py
 */
#include "text/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Most lookups end in the slot itself: tokens of up to eight bytes are whole in `head`. */
struct vocab_slot {
    uint64_t head;      /* the token's bytes, or a hash where there are more than eight */
    uint32_t len;       /* bytes of the token */
    uint32_t id_plus_1; /* 0: free */
};

/* Texts of tokens that end a turn or a document, whatever the metadata says. */
static const struct {
    const char *text;
    bool end_of_turn; /* may stand in for a missing eot_token_id */
} end_texts[] = {
    {"<|eot_id|>", true},        /* Llama 3 */
    {"<|im_end|>", true},        /* ChatML */
    {"<end_of_turn>", true},     /* Gemma */
    {"<|end|>", true},           /* Phi; in vocabularies with <|return|> only a message ends */
    {"<|eot|>", true},           /* Llama 4 */
    {"<|return|>", false},       /* gpt-oss */
    {"<|call|>", false},
    {"<|eom_id|>", false},       /* Llama 3: end of message, a tool answers */
    {"<|eom|>", false},
    {"<|endoftext|>", false},
    {"<|end_of_text|>", false},
    {"<｜end▁of▁sentence｜>", false}, /* DeepSeek */
    {"</s>", false},
    {"<eos>", false},
};

/* ---- Spellings ------------------------------------------------------------------------------- */

/* Printable Latin-1 characters stand for themselves, the other 68 bytes for U+0100 and up. */
static bool byte_is_printable(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
}

/* The byte that character `code` (below 0x144) stands for, -1: none. */
static int byte_level_byte(unsigned code)
{
    if (code < 0x100)
        return byte_is_printable(code) ? (int)code : -1;
    unsigned n = code - 0x100; /* the n-th byte that is not printable */
    if (n < 0x21)
        return (int)n;
    if (n < 0x21 + 0x22)
        return (int)(n - 0x21 + 0x7f);
    return n == 0x21 + 0x22 ? 0xad : -1;
}

size_t byte_level_decode(const char *text, size_t len, char *out)
{
    size_t n_out = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned c = (unsigned char)text[i];
        /* C2..C5 lead the two-byte characters U+0080..U+017F. */
        if (c >= 0xc2 && c <= 0xc5 && i + 1 < len) {
            int byte = byte_level_byte((c & 0x1f) << 6 | ((unsigned char)text[i + 1] & 0x3f));
            if (byte >= 0) {
                out[n_out++] = (char)byte;
                i++;
                continue;
            }
        }
        out[n_out++] = text[i];
    }
    return n_out;
}

/* "<0x41>" */
static bool parse_byte_piece(const struct gguf_string *text, char *out)
{
    char digits[3] = {0};
    if (text->len != 6 || memcmp(text->data, "<0x", 3) != 0 || text->data[5] != '>')
        return false;
    memcpy(digits, text->data + 3, 2);
    char *end;
    *out = (char)strtoul(digits, &end, 16);
    return end == digits + 2;
}

size_t piece_decode(const char *text, size_t len, char *out)
{
    static const char space[] = "\xe2\x96\x81"; /* U+2581 */
    size_t n_out = 0;
    for (size_t i = 0; i < len; n_out++) {
        bool is_space = len - i >= 3 && memcmp(text + i, space, 3) == 0;
        out[n_out] = is_space ? ' ' : text[i];
        i += is_space ? 3 : 1;
    }
    return n_out;
}

static size_t token_decode(const struct gguf_string *text, enum vocab_spelling spelling,
                           uint8_t type, char *out)
{
    if (type == TOKEN_BYTE && parse_byte_piece(text, out))
        return 1;
    if (type == TOKEN_NORMAL || type == TOKEN_UNUSED) {
        return spelling == VOCAB_BYTE_LEVEL ? byte_level_decode(text->data, text->len, out)
                                            : piece_decode(text->data, text->len, out);
    }
    memcpy(out, text->data, text->len);
    return text->len;
}

/* ---- Bytes to id ----------------------------------------------------------------------------- */

static const uint64_t hash_factor = 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio */

static uint64_t head_of(const char *bytes, size_t len)
{
    uint64_t hash = 0, tail = 0;
    for (; len > 8; bytes += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, bytes, sizeof word);
        hash = (hash ^ word) * hash_factor;
        hash ^= hash >> 29;
    }
    for (size_t i = 0; i < len; i++)
        tail = tail << 8 | (unsigned char)bytes[i];
    return hash ^ tail;
}

/* The slot that holds these bytes, or the free one where they belong. */
static struct vocab_slot *find_slot(const struct vocab *vocab, const char *bytes, size_t len)
{
    uint64_t head = head_of(bytes, len);
    for (uint32_t i = (uint32_t)((head ^ head >> 32) * hash_factor >> 32);; i++) {
        struct vocab_slot *slot = &vocab->slots[i & vocab->slot_mask];
        if (slot->id_plus_1 == 0)
            return slot;
        if (slot->head != head || slot->len != len)
            continue;
        const char *other = vocab_bytes(vocab, (int32_t)(slot->id_plus_1 - 1));
        if (len <= 8 || memcmp(other, bytes, len) == 0)
            return slot;
    }
}

int32_t vocab_find(const struct vocab *vocab, const char *bytes, size_t len)
{
    if (len > vocab->max_len)
        return -1;
    return (int32_t)find_slot(vocab, bytes, len)->id_plus_1 - 1;
}

static int index_tokens(struct vocab *vocab)
{
    uint32_t n_slots = 64;
    while (n_slots / 3 * 2 < vocab->n_tokens) /* at most two thirds full */
        n_slots *= 2;
    vocab->slots = mem_alloc(n_slots, sizeof *vocab->slots);
    if (!vocab->slots)
        return TSR_ENOMEM;
    vocab->slot_mask = n_slots - 1;
    for (uint32_t id = 0; id < vocab->n_tokens; id++) {
        const struct token *token = &vocab->tokens[id];
        if (token_is_control(token)) /* found through vocab_match_special only */
            continue;
        const char *bytes = vocab->bytes + token->offset;
        struct vocab_slot *slot = find_slot(vocab, bytes, token->len);
        bool better = slot->id_plus_1 == 0 ||
                      (token->type == TOKEN_NORMAL &&
                       vocab->tokens[slot->id_plus_1 - 1].type != TOKEN_NORMAL);
        if (better)
            *slot = (struct vocab_slot){head_of(bytes, token->len), token->len, id + 1};
    }
    return 0;
}

/* ---- Special tokens -------------------------------------------------------------------------- */

static int compare_bytes(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return order ? order : (a_len > b_len) - (a_len < b_len);
}

static int compare_specials(const void *a, const void *b, void *user)
{
    const struct vocab *vocab = user;
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    int order = compare_bytes(vocab_bytes(vocab, x), vocab->tokens[x].len, vocab_bytes(vocab, y),
                              vocab->tokens[y].len);
    return order ? order : (x > y) - (x < y);
}

static bool token_is_special(const struct token *token)
{
    return token->len > 0 && (token_is_control(token) || token->type == TOKEN_USER_DEFINED);
}

static int collect_specials(struct vocab *vocab)
{
    for (uint32_t id = 0; id < vocab->n_tokens; id++)
        vocab->n_specials += token_is_special(&vocab->tokens[id]);
    vocab->specials = mem_alloc(vocab->n_specials, sizeof *vocab->specials);
    if (!vocab->specials)
        return TSR_ENOMEM;
    uint32_t n = 0;
    for (uint32_t id = 0; id < vocab->n_tokens; id++) {
        if (!token_is_special(&vocab->tokens[id]))
            continue;
        vocab->specials[n++] = (int32_t)id;
        vocab->special_starts[(unsigned char)*vocab_bytes(vocab, (int32_t)id)] = true;
    }
    qsort_r(vocab->specials, n, sizeof *vocab->specials, compare_specials, vocab);
    return 0;
}

/* First special in [low, high), all alike in their first `depth` bytes, whose next byte is not less
 * than `byte`. Those that end at `depth` come first of all. */
static uint32_t special_bound(const struct vocab *vocab, uint32_t low, uint32_t high,
                              uint32_t depth, unsigned byte)
{
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int32_t id = vocab->specials[middle];
        bool less = vocab->tokens[id].len <= depth ||
                    (unsigned char)vocab_bytes(vocab, id)[depth] < byte;
        if (less)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int32_t vocab_match_special(const struct vocab *vocab, const char *text, size_t len, bool control)
{
    if (len == 0 || !vocab->special_starts[(unsigned char)text[0]])
        return -1;
    int32_t found = -1;
    uint32_t low = 0, high = vocab->n_specials;
    for (uint32_t depth = 0; depth < len && low < high; depth++) {
        unsigned byte = (unsigned char)text[depth];
        low = special_bound(vocab, low, high, depth, byte);
        high = special_bound(vocab, low, high, depth, byte + 1);
        if (low == high)
            break;
        const struct token *token = &vocab->tokens[vocab->specials[low]];
        if (token->len == depth + 1 && (control || !token_is_control(token)))
            found = vocab->specials[low];
    }
    return found;
}

/* ---- Ids with a role ------------------------------------------------------------------------- */

static int read_id(const struct vocab *vocab, const struct gguf *gguf, const char *key, int32_t *id,
                   struct tsr_error *error)
{
    uint32_t value;
    *id = -1;
    if (!gguf_find(gguf, key))
        return 0;
    if (!gguf_get_u32(gguf, key, &value, error))
        return TSR_EFORMAT;
    if (value >= vocab->n_tokens)
        return error_set(error, TSR_EFORMAT, "%s: %s is %u, but the vocabulary has %u tokens",
                         gguf_path(gguf), key, value, vocab->n_tokens);
    *id = (int32_t)value;
    return 0;
}

static void mark_end(struct vocab *vocab, int32_t id)
{
    if (id >= 0)
        vocab->tokens[id].end = true;
}

static bool token_has_text(const struct vocab *vocab, int32_t id, const char *text)
{
    size_t len = strlen(text);
    return vocab->tokens[id].len == len && memcmp(vocab_bytes(vocab, id), text, len) == 0;
}

static int32_t find_control(const struct vocab *vocab, const char *text)
{
    for (uint32_t i = 0; i < vocab->n_specials; i++) {
        int32_t id = vocab->specials[i];
        if (vocab->tokens[id].type == TOKEN_CONTROL && token_has_text(vocab, id, text))
            return id;
    }
    return -1;
}

static int find_roles(struct vocab *vocab, const struct gguf *gguf, struct tsr_error *error)
{
    int code;
    if ((code = read_id(vocab, gguf, "tokenizer.ggml.bos_token_id", &vocab->bos, error)) ||
        (code = read_id(vocab, gguf, "tokenizer.ggml.eos_token_id", &vocab->eos, error)) ||
        (code = read_id(vocab, gguf, "tokenizer.ggml.eot_token_id", &vocab->eot, error)) ||
        (code = read_id(vocab, gguf, "tokenizer.ggml.eom_token_id", &vocab->eom, error)) ||
        (code = read_id(vocab, gguf, "tokenizer.ggml.unknown_token_id", &vocab->unknown, error)))
        return code;

    bool has_return = find_control(vocab, "<|return|>") >= 0;
    for (size_t i = 0; i < sizeof end_texts / sizeof *end_texts; i++) {
        if (has_return && strcmp(end_texts[i].text, "<|end|>") == 0)
            continue;
        int32_t id = find_control(vocab, end_texts[i].text);
        mark_end(vocab, id);
        if (end_texts[i].end_of_turn && vocab->eot < 0)
            vocab->eot = id;
    }
    mark_end(vocab, vocab->eos);
    mark_end(vocab, vocab->eot);
    mark_end(vocab, vocab->eom);
    return 0;
}

/* ---- Opening --------------------------------------------------------------------------------- */

static int read_types(struct vocab *vocab, const struct gguf *gguf, struct tsr_error *error)
{
    static const char key[] = "tokenizer.ggml.token_type";
    struct gguf_array types = {0};
    bool present = gguf_find(gguf, key) != NULL;
    if (present && !gguf_get_array(gguf, key, GGUF_I32, &types, error))
        return TSR_EFORMAT;
    if (present && types.count != vocab->n_tokens)
        return error_set(error, TSR_EFORMAT, "%s: %s has %llu elements for %u tokens",
                         gguf_path(gguf), key, (unsigned long long)types.count, vocab->n_tokens);
    for (uint32_t id = 0; id < vocab->n_tokens; id++) {
        int64_t type = present ? gguf_array_int(&types, id) : TOKEN_NORMAL;
        bool known = type >= TOKEN_NORMAL && type <= TOKEN_BYTE;
        vocab->tokens[id].type = known ? (uint8_t)type : TOKEN_NORMAL;
    }
    return 0;
}

static int decode_tokens(struct vocab *vocab, const struct gguf_array *texts,
                         enum vocab_spelling spelling)
{
    /* No token gets longer by decoding. */
    size_t n_bytes = 0;
    for (uint32_t id = 0; id < vocab->n_tokens; id++) {
        if (!add_size(n_bytes, texts->strings[id].len, &n_bytes) || n_bytes > UINT32_MAX)
            return TSR_ENOMEM;
    }
    vocab->bytes = mem_alloc(n_bytes, 1);
    if (!vocab->bytes)
        return TSR_ENOMEM;
    memset(vocab->byte_ids, -1, sizeof vocab->byte_ids);
    uint32_t offset = 0;
    for (uint32_t id = 0; id < vocab->n_tokens; id++) {
        struct token *token = &vocab->tokens[id];
        token->offset = offset;
        token->len = (uint32_t)token_decode(&texts->strings[id], spelling, token->type,
                                            vocab->bytes + offset);
        offset += token->len;
        if (token->len > vocab->max_len)
            vocab->max_len = token->len;
        bool is_byte = token->type == (spelling == VOCAB_BYTE_LEVEL ? TOKEN_NORMAL : TOKEN_BYTE);
        if (is_byte && token->len == 1)
            vocab->byte_ids[(unsigned char)vocab->bytes[token->offset]] = (int32_t)id;
    }
    return 0;
}

int vocab_open(struct vocab *vocab, const struct gguf *gguf, enum vocab_spelling spelling,
               struct tsr_error *error)
{
    static const char key[] = "tokenizer.ggml.tokens";
    struct gguf_array texts;
    *vocab = (struct vocab){0};
    if (!gguf_find(gguf, key))
        return error_set(error, TSR_EFORMAT, "%s: no %s", gguf_path(gguf), key);
    if (!gguf_get_array(gguf, key, GGUF_STRING, &texts, error))
        return TSR_EFORMAT;
    if (texts.count == 0 || texts.count > INT32_MAX / 2)
        return error_set(error, TSR_EFORMAT, "%s: %s has %llu elements", gguf_path(gguf), key,
                         (unsigned long long)texts.count);
    vocab->n_tokens = (uint32_t)texts.count;
    vocab->tokens = mem_alloc(vocab->n_tokens, sizeof *vocab->tokens);
    int code = vocab->tokens ? read_types(vocab, gguf, error) : TSR_ENOMEM;
    if (!code)
        code = decode_tokens(vocab, &texts, spelling);
    if (!code)
        code = index_tokens(vocab);
    if (!code)
        code = collect_specials(vocab);
    if (!code)
        code = find_roles(vocab, gguf, error);
    if (code == TSR_ENOMEM)
        error_set(error, code, "%s: out of memory for %u tokens", gguf_path(gguf), vocab->n_tokens);
    if (code)
        vocab_close(vocab);
    return code;
}

void vocab_close(struct vocab *vocab)
{
    free(vocab->tokens);
    free(vocab->bytes);
    free(vocab->slots);
    free(vocab->specials);
    *vocab = (struct vocab){0};
}
