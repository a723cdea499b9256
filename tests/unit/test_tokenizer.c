/* Tokenizer and detokenizer: the demo model's vocabulary always, golden ids of others where the
 * shared data are present. */
#include "text/tokenizer.h"

#include <jansson.h>
#include <stdlib.h>

#include "tests/support/check.h"

static struct tokenizer *open_tokenizer(const char *path)
{
    struct gguf *gguf;
    struct tokenizer *tokenizer = NULL;
    struct tsr_error error = {0};
    if (gguf_open(path, &gguf, &error) || tokenizer_open(gguf, &tokenizer, &error))
        fail_msg("%s", error.text);
    gguf_close(gguf);
    return tokenizer;
}

/* Ids of text[0..len), malloc'ed. */
static int32_t *encode(const struct tokenizer *tokenizer, const char *text, size_t len,
                       unsigned flags, size_t *n)
{
    struct tsr_error error = {0};
    int64_t count = tokenizer_encode(tokenizer, text, len, flags, NULL, 0, &error);
    if (count < 0)
        fail_msg("%s", error.text);
    *n = (size_t)count;
    int32_t *ids = malloc((*n + 1) * sizeof *ids);
    assert_int_equal(tokenizer_encode(tokenizer, text, len, flags, ids, *n, &error), count);
    return ids;
}

/* The text of ids[0..n), malloc'ed. Each part given out must be whole characters, unless the text
 * has bytes that are none. */
static char *decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t n,
                    bool whole_characters, size_t *len)
{
    struct detokenizer *stream;
    char *text = malloc(n * tokenizer_max_bytes(tokenizer) + 1);
    const char *part;
    size_t n_part;
    assert_int_equal(detokenizer_open(tokenizer, true, &stream), 0);
    *len = 0;
    for (size_t i = 0; i <= n; i++) {
        int code = i < n ? detokenizer_push(stream, ids[i], &part, &n_part)
                         : detokenizer_flush(stream, &part, &n_part);
        assert_int_equal(code, 0);
        /* A continuation byte in front would be the rest of a character cut before. */
        if (whole_characters && n_part > 0) {
            assert_true((part[0] & 0xc0) != 0x80);
            assert_int_equal(i < n ? 0 : n_part, 0); /* nothing is left for the flush */
        }
        memcpy(text + *len, part, n_part);
        *len += n_part;
    }
    text[*len] = 0;
    detokenizer_close(stream);
    return text;
}

static void check_ids(const struct tokenizer *tokenizer, const char *text, size_t len,
                      unsigned flags, const json_t *expected)
{
    size_t n;
    int32_t *ids = encode(tokenizer, text, len, flags, &n);
    if (n != json_array_size(expected))
        fail_msg("\"%s\": %zu ids, not %zu", text, n, json_array_size(expected));
    for (size_t i = 0; i < n; i++) {
        int expected_id = (int)json_integer_value(json_array_get(expected, i));
        if (ids[i] != expected_id)
            fail_msg("\"%s\": id %zu is %d, not %d", text, i, ids[i], expected_id);
    }
    free(ids);
}

static void check_text(const struct tokenizer *tokenizer, const json_t *ids, const json_t *text)
{
    size_t n = json_array_size(ids), len;
    int32_t *id_array = malloc((n + 1) * sizeof *id_array);
    for (size_t i = 0; i < n; i++)
        id_array[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    char *decoded = decode(tokenizer, id_array, n, true, &len);
    assert_int_equal(len, json_string_length(text));
    assert_memory_equal(decoded, json_string_value(text), len);
    free(decoded);
    free(id_array);
}

/* ---- Golden data ----------------------------------------------------------------------------- */

static void check_golden(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "fixtures/tokenizers/%s.vocab.gguf", name);
    const char *vocab = shared_path(path);
    if (!vocab)
        skip();
    struct tokenizer *tokenizer = open_tokenizer(vocab);
    snprintf(path, sizeof path, "fixtures/tokenizers/%s.jsonl", name);
    assert_non_null(shared_path(path));
    char *lines = read_file(shared_path(path), NULL);
    size_t n_cases = 0;
    for (char *line = strtok(lines, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *item = json_loads(line, JSON_ALLOW_NUL, NULL);
        assert_non_null(item);
        const json_t *text = json_object_get(item, "text");
        const json_t *decoded = json_object_get(item, "decoded");
        const json_t *ids = json_object_get(item, "ids");
        bool special = json_is_true(json_object_get(item, "parse_special"));
        check_ids(tokenizer, json_string_value(text), json_string_length(text),
                  special ? TSR_TOKENIZE_SPECIAL : 0, ids);
        check_text(tokenizer, ids, decoded ? decoded : text);
        json_decref(item);
        n_cases++;
    }
    assert_true(n_cases > 100);
    free(lines);
    tokenizer_close(tokenizer);
}

static void test_golden_qwen3(void **state)
{
    check_golden("qwen3");
}

static void test_golden_llama3(void **state)
{
    check_golden("llama3");
}

static void test_golden_llama2(void **state)
{
    check_golden("llama2-spm");
}

static void test_roles_llama3(void **state)
{
    const char *path = shared_path("fixtures/tokenizers/llama3.vocab.gguf");
    if (!path)
        skip();
    struct tokenizer *tokenizer = open_tokenizer(path);
    assert_int_equal(tokenizer_bos(tokenizer), 128000);
    assert_int_equal(tokenizer_eos(tokenizer), 128001);
    assert_int_equal(tokenizer_eot(tokenizer), 128009); /* by its text: the file has no key */
    assert_true(tokenizer_add_bos(tokenizer));
    assert_true(tokenizer_is_end(tokenizer, 128001));
    assert_true(tokenizer_is_end(tokenizer, 128009));
    assert_false(tokenizer_is_end(tokenizer, 128000));
    size_t n;
    int32_t *ids = encode(tokenizer, "", 0, TSR_TOKENIZE_BOS, &n);
    assert_int_equal(n, 1);
    assert_int_equal(ids[0], 128000);
    free(ids);
    tokenizer_close(tokenizer);
}

/* ---- The demo model -------------------------------------------------------------------------- */

enum { DEMO_ENDOFTEXT = 4093, DEMO_IM_START = 4094, DEMO_IM_END = 4095 };

static int open_demo(void **state)
{
    *state = open_tokenizer(source_path("models/tinystories-moe-q4_0.gguf"));
    return 0;
}

static int close_demo(void **state)
{
    tokenizer_close(*state);
    return 0;
}

static void test_demo_prompts(void **state)
{
    char *text = read_test_data("demo.json", NULL);
    json_t *demo = json_loads(text, 0, NULL);
    const json_t *greedy =
        json_object_get(json_object_get(json_object_get(demo, "models"), "q4_0"), "greedy");
    size_t i;
    json_t *item;
    assert_true(json_array_size(greedy) > 0);
    json_array_foreach (greedy, i, item) {
        const json_t *prompt = json_object_get(item, "prompt");
        check_ids(*state, json_string_value(prompt), json_string_length(prompt),
                  TSR_TOKENIZE_SPECIAL, json_object_get(item, "prompt_ids"));
        check_text(*state, json_object_get(item, "ids"), json_object_get(item, "text"));
    }
    json_decref(demo);
    free(text);
}

static void test_demo_roles(void **state)
{
    const struct tokenizer *tokenizer = *state;
    const char *bytes;
    size_t len;
    assert_int_equal(tokenizer_n_tokens(tokenizer), 4096);
    assert_int_equal(tokenizer_eos(tokenizer), DEMO_IM_END);
    assert_int_equal(tokenizer_eot(tokenizer), DEMO_ENDOFTEXT);
    assert_false(tokenizer_add_bos(tokenizer));
    assert_true(tokenizer_is_end(tokenizer, DEMO_ENDOFTEXT));
    assert_true(tokenizer_is_end(tokenizer, DEMO_IM_END));
    assert_false(tokenizer_is_end(tokenizer, DEMO_IM_START));
    assert_false(tokenizer_is_end(tokenizer, -1));
    assert_false(tokenizer_is_end(tokenizer, 4096));

    assert_true(tokenizer_token_bytes(tokenizer, DEMO_IM_END, true, &bytes, &len));
    assert_int_equal(len, strlen("<|im_end|>"));
    assert_memory_equal(bytes, "<|im_end|>", len);
    assert_true(tokenizer_token_bytes(tokenizer, DEMO_IM_END, false, &bytes, &len));
    assert_int_equal(len, 0);
    assert_false(tokenizer_token_bytes(tokenizer, -1, true, &bytes, &len));
    assert_false(tokenizer_token_bytes(tokenizer, 4096, true, &bytes, &len));
}

static void test_demo_special(void **state)
{
    static const char text[] = "<|im_start|>user\nHi<|im_end|><|im_";
    size_t n, n_plain;
    int32_t *ids = encode(*state, text, strlen(text), TSR_TOKENIZE_SPECIAL, &n);
    assert_int_equal(ids[0], DEMO_IM_START);
    size_t n_ends = 0;
    for (size_t i = 0; i < n; i++)
        n_ends += ids[i] == DEMO_IM_END;
    assert_int_equal(n_ends, 1);
    int32_t *plain = encode(*state, text, strlen(text), 0, &n_plain);
    assert_true(n_plain > n);
    for (size_t i = 0; i < n_plain; i++)
        assert_true(plain[i] < DEMO_ENDOFTEXT);
    free(plain);
    free(ids);
}

/* Fewer ids than there are: the count is right, and nothing is written past the capacity. */
static void test_demo_capacity(void **state)
{
    static const char text[] = "Once upon a time, there was a little girl.";
    struct tsr_error error = {0};
    size_t n;
    int32_t *ids = encode(*state, text, strlen(text), 0, &n);
    int32_t few[4] = {-7, -7, -7, -7};
    assert_int_equal(tokenizer_encode(*state, text, strlen(text), 0, few, 3, &error), n);
    assert_memory_equal(few, ids, 3 * sizeof *few);
    assert_int_equal(few[3], -7);
    free(ids);
}

static void check_round_trip(const struct tokenizer *tokenizer, const char *text, size_t len,
                             const char *expected, size_t expected_len, bool whole_characters)
{
    size_t n, n_decoded;
    int32_t *ids = encode(tokenizer, text, len, 0, &n);
    char *decoded = decode(tokenizer, ids, n, whole_characters, &n_decoded);
    assert_int_equal(n_decoded, expected_len);
    assert_memory_equal(decoded, expected, expected_len);
    free(decoded);
    free(ids);
}

static void test_demo_whole_characters(void **state)
{
    static const char *const texts[] = {
        "naïve café, 東京で会いましょう, Привет мир, שלום, مرحبا, สวัสดี",
        "👩‍👩‍👧‍👦🏳️‍🌈 emoji 😀😃😄\n\n\ttab",
        "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \xf4\x8f\xbf\xbf \xee\x80\x80 \xef\xbf\xbd",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        check_round_trip(*state, texts[i], strlen(texts[i]), texts[i], strlen(texts[i]), true);
}

static void test_demo_nfc(void **state)
{
    check_round_trip(*state, "cafe\xcc\x81", 6, "caf\xc3\xa9", 5, true);
}

/* A megabyte of marks on one letter, in the worst order: no time to sort them is taken. */
static void test_demo_endless_marks(void **state)
{
    enum { LEN = 1 << 20 };
    char *text = malloc(LEN);
    for (size_t i = 0; i < LEN; i += 4)
        memcpy(text + i, "\xcc\x81\xcc\xa7", 4);
    check_round_trip(*state, text, LEN, text, LEN, true);
    free(text);
}

/* Bytes below 0xCC make no text that NFC would change, but much that is no UTF-8. */
static void test_demo_random_bytes(void **state)
{
    uint32_t random = 12345;
    char text[200];
    for (int round = 0; round < 500; round++) {
        size_t len = (size_t)round % sizeof text;
        for (size_t i = 0; i < len; i++) {
            random = random * 1664525 + 1013904223;
            text[i] = (char)((random >> 16) % 0xcc);
        }
        check_round_trip(*state, text, len, text, len, false);
    }
}

static void test_demo_every_byte(void **state)
{
    for (int byte = 0; byte < 256; byte++) {
        char text[3] = {'a', (char)byte, 'b'};
        check_round_trip(*state, text, 3, text, 3, false);
    }
}

/* What is cut off stays until the flush; what cannot become a character goes out at once. */
static void test_demo_cut_character(void **state)
{
    struct detokenizer *stream;
    const char *part;
    size_t len, n;
    int32_t *ids = encode(*state, "\xe6\x9d\xff", 3, 0, &n); /* two bytes of a character, and FF */
    assert_int_equal(n, 3);
    assert_int_equal(detokenizer_open(*state, false, &stream), 0);
    assert_int_equal(detokenizer_push(stream, ids[0], &part, &len), 0);
    assert_int_equal(len, 0);
    assert_int_equal(detokenizer_push(stream, ids[1], &part, &len), 0);
    assert_int_equal(len, 0);
    assert_int_equal(detokenizer_push(stream, 4096, &part, &len), TSR_EINVAL);
    assert_int_equal(detokenizer_push(stream, DEMO_IM_END, &part, &len), 0);
    assert_int_equal(len, 0);
    assert_int_equal(detokenizer_push(stream, ids[2], &part, &len), 0);
    assert_int_equal(len, 3);
    assert_memory_equal(part, "\xe6\x9d\xff", 3);
    assert_int_equal(detokenizer_push(stream, ids[0], &part, &len), 0);
    assert_int_equal(len, 0);
    assert_int_equal(detokenizer_flush(stream, &part, &len), 0);
    assert_int_equal(len, 1);
    assert_memory_equal(part, "\xe6", 1);
    assert_int_equal(detokenizer_flush(stream, &part, &len), 0);
    assert_int_equal(len, 0);
    detokenizer_close(stream);
    free(ids);
}

/* One word of a megabyte: merging must not take quadratic time. */
static void test_demo_long_word(void **state)
{
    enum { LEN = 1 << 20 };
    char *text = malloc(LEN);
    for (size_t i = 0; i < LEN; i++)
        text[i] = "abcdefghij"[i % 10];
    check_round_trip(*state, text, LEN, text, LEN, true);
    memset(text, ' ', LEN);
    check_round_trip(*state, text, LEN, text, LEN, true);
    free(text);
}

int main(void)
{
    const struct CMUnitTest golden_tests[] = {
        cmocka_unit_test(test_golden_qwen3),
        cmocka_unit_test(test_golden_llama3),
        cmocka_unit_test(test_golden_llama2),
        cmocka_unit_test(test_roles_llama3),
    };
    const struct CMUnitTest demo_tests[] = {
        cmocka_unit_test(test_demo_prompts),
        cmocka_unit_test(test_demo_roles),
        cmocka_unit_test(test_demo_special),
        cmocka_unit_test(test_demo_capacity),
        cmocka_unit_test(test_demo_whole_characters),
        cmocka_unit_test(test_demo_nfc),
        cmocka_unit_test(test_demo_endless_marks),
        cmocka_unit_test(test_demo_random_bytes),
        cmocka_unit_test(test_demo_every_byte),
        cmocka_unit_test(test_demo_cut_character),
        cmocka_unit_test(test_demo_long_word),
    };
    int failed = cmocka_run_group_tests(golden_tests, NULL, NULL);
    return failed + cmocka_run_group_tests(demo_tests, open_demo, close_demo);
}
