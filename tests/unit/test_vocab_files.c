/* Tokenizers of small generated files: both kinds, what metadata changes, and what is refused. */
#include "text/tokenizer.h"

#include <stdlib.h>

#include "tests/support/check.h"
#include "bench/gguf_writer.h"

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, BYTE = 6, MAX_TOKENS = 300 };

/* A vocabulary in the making. */
struct words {
    const char *texts[MAX_TOKENS];
    int32_t types[MAX_TOKENS];
    float scores[MAX_TOKENS];
    size_t n;
};

static void add(struct words *words, const char *text, int32_t type, float score)
{
    assert_true(words->n < MAX_TOKENS);
    words->texts[words->n] = text;
    words->types[words->n] = type;
    words->scores[words->n++] = score;
}

static struct gguf_writer *start_file(const char *path, const char *model, const char *pre,
                                      const struct words *words)
{
    struct gguf_writer *writer = gguf_writer_open(path);
    gguf_writer_string(writer, "general.architecture", "llama");
    gguf_writer_string(writer, "tokenizer.ggml.model", model);
    if (pre)
        gguf_writer_string(writer, "tokenizer.ggml.pre", pre);
    gguf_writer_strings(writer, "tokenizer.ggml.tokens", words->texts, words->n);
    gguf_writer_array(writer, "tokenizer.ggml.token_type", GGUF_I32, words->types, words->n);
    return writer;
}

static int open_file(const char *path, struct tokenizer **tokenizer, struct tsr_error *error)
{
    struct gguf *gguf;
    *error = (struct tsr_error){0};
    assert_int_equal(gguf_open(path, &gguf, error), 0);
    int code = tokenizer_open(gguf, tokenizer, error);
    gguf_close(gguf);
    return code;
}

static struct tokenizer *open_valid(const char *path)
{
    struct tokenizer *tokenizer;
    struct tsr_error error;
    if (open_file(path, &tokenizer, &error))
        fail_msg("%s", error.text);
    return tokenizer;
}

static void check_refused(const char *path, int code, const char *what)
{
    struct tokenizer *tokenizer;
    struct tsr_error error;
    assert_int_equal(open_file(path, &tokenizer, &error), code);
    assert_int_equal(error.code, code);
    assert_null(tokenizer);
    if (!strstr(error.text, what) || !strstr(error.text, path))
        fail_msg("\"%s\" names not both \"%s\" and the file", error.text, what);
}

/* `expected` ends with -1. */
static void check_ids(const struct tokenizer *tokenizer, const char *text, unsigned flags,
                      const int32_t *expected)
{
    int32_t ids[64];
    struct tsr_error error = {0};
    int64_t n = tokenizer_encode(tokenizer, text, strlen(text), flags, ids, 64, &error);
    if (n < 0)
        fail_msg("%s", error.text);
    assert_true(n < 64);
    ids[n] = -1;
    for (int i = 0; i <= n; i++) {
        if (ids[i] != expected[i])
            fail_msg("\"%s\": id %d is %d, not %d", text, i, ids[i], expected[i]);
    }
}

#define CHECK_IDS(tokenizer, text, flags, ...)                                                     \
    check_ids(tokenizer, text, flags, (const int32_t[]){__VA_ARGS__, -1})

/* ---- Byte-level BPE -------------------------------------------------------------------------- */

/* a b c Ġ, then merged ones, then special ones. */
enum { A, B, C, SPACE, AB, ABC, SPACE_A, CAB, THINK, THINK_MORE, START, END, EMPTY };

static const char *const merges[] = {"a b", "ab c", "Ġ a"};
static const size_t n_merges = sizeof merges / sizeof *merges;

static struct words bpe_words(void)
{
    struct words words = {0};
    const char *normal[] = {"a", "b", "c", "Ġ", "ab", "abc", "Ġa", "cab"};
    for (size_t i = 0; i < sizeof normal / sizeof *normal; i++)
        add(&words, normal[i], NORMAL, 0);
    add(&words, "<t>", USER_DEFINED, 0);
    add(&words, "<t><t>", USER_DEFINED, 0);
    add(&words, "<|start|>", CONTROL, 0);
    add(&words, "<|im_end|>", CONTROL, 0);
    add(&words, "", CONTROL, 0);
    return words;
}

static struct gguf_writer *start_bpe(const char *path, const char *pre)
{
    struct words words = bpe_words();
    struct gguf_writer *writer = start_file(path, "gpt2", pre, &words);
    gguf_writer_strings(writer, "tokenizer.ggml.merges", merges, n_merges);
    return writer;
}

static void test_bpe(void **state)
{
    const char *path = temp_path("bpe.gguf");
    gguf_writer_close(start_bpe(path, "gpt-2"));
    struct tokenizer *tokenizer = open_valid(path);
    CHECK_IDS(tokenizer, "abc ab acab", 0, ABC, SPACE, AB, SPACE_A, C, AB);
    CHECK_IDS(tokenizer, "cab", 0, C, AB);
    CHECK_IDS(tokenizer, "", TSR_TOKENIZE_BOS, -1);
    assert_int_equal(tokenizer_bos(tokenizer), -1);
    assert_int_equal(tokenizer_eos(tokenizer), -1);
    assert_int_equal(tokenizer_eot(tokenizer), END); /* by its text */
    assert_true(tokenizer_is_end(tokenizer, END));
    assert_false(tokenizer_is_end(tokenizer, START));
    tokenizer_close(tokenizer);
}

static void test_bpe_special(void **state)
{
    const char *path = temp_path("special.gguf");
    gguf_writer_close(start_bpe(path, "gpt-2"));
    struct tokenizer *tokenizer = open_valid(path);
    /* USER_DEFINED always, the longest first; CONTROL only with the flag. */
    CHECK_IDS(tokenizer, "a<t>b", 0, A, THINK, B);
    CHECK_IDS(tokenizer, "<t><t><t>", 0, THINK_MORE, THINK);
    CHECK_IDS(tokenizer, "<|start|>a<|im_end|>", TSR_TOKENIZE_SPECIAL, START, A, END);
    struct tsr_error error = {0};
    assert_int_equal(tokenizer_encode(tokenizer, "<|start|>", 9, 0, NULL, 0, &error), TSR_EFORMAT);
    assert_non_null(strstr(error.text, "0x3c")); /* no token for '<' */
    tokenizer_close(tokenizer);
}

static void test_bpe_whole_words(void **state)
{
    const char *path = temp_path("whole.gguf");
    struct gguf_writer *writer = start_bpe(path, "llama-bpe");
    gguf_writer_int(writer, "tokenizer.ggml.bos_token_id", GGUF_U32, START);
    gguf_writer_int(writer, "tokenizer.ggml.eos_token_id", GGUF_U32, END);
    gguf_writer_int(writer, "tokenizer.ggml.add_eos_token", GGUF_BOOL, 1);
    gguf_writer_close(writer);
    struct tokenizer *tokenizer = open_valid(path);
    CHECK_IDS(tokenizer, "cab", 0, CAB); /* no merge makes it */
    CHECK_IDS(tokenizer, "cabc", 0, C, ABC);
    assert_true(tokenizer_add_bos(tokenizer)); /* the pre-tokenizer's own habit */
    CHECK_IDS(tokenizer, "cab", TSR_TOKENIZE_BOS, START, CAB, END);
    tokenizer_close(tokenizer);
}

static void test_bpe_without_pre(void **state)
{
    const char *path = temp_path("default.gguf");
    gguf_writer_close(start_bpe(path, NULL));
    struct tokenizer *tokenizer = open_valid(path);
    CHECK_IDS(tokenizer, "abc ab", 0, ABC, SPACE, AB);
    tokenizer_close(tokenizer);
}

static void test_bpe_refused(void **state)
{
    struct words words = bpe_words();
    const char *path = temp_path("refused.gguf");
    gguf_writer_close(start_bpe(path, "qwen99"));
    check_refused(path, TSR_EUNSUPPORTED, "qwen99");

    gguf_writer_close(start_file(path, "bert", NULL, &words));
    check_refused(path, TSR_EUNSUPPORTED, "bert");

    gguf_writer_close(start_file(path, "gpt2", "gpt-2", &words));
    check_refused(path, TSR_EFORMAT, "tokenizer.ggml.merges");

    static const char *const bad_merges[][1] = {{"ab"}, {"a x"}, {"b a"}, {""}};
    for (size_t i = 0; i < sizeof bad_merges / sizeof *bad_merges; i++) {
        struct gguf_writer *writer = start_file(path, "gpt2", "gpt-2", &words);
        gguf_writer_strings(writer, "tokenizer.ggml.merges", bad_merges[i], 1);
        gguf_writer_close(writer);
        check_refused(path, TSR_EFORMAT, "tokenizer.ggml.merges[0]");
    }
}

static void test_metadata_refused(void **state)
{
    const char *path = temp_path("metadata.gguf");
    struct gguf_writer *writer = start_bpe(path, "gpt-2");
    gguf_writer_int(writer, "tokenizer.ggml.eos_token_id", GGUF_U32, EMPTY + 1);
    gguf_writer_close(writer);
    check_refused(path, TSR_EFORMAT, "tokenizer.ggml.eos_token_id");

    writer = start_bpe(path, "gpt-2");
    gguf_writer_int(writer, "tokenizer.ggml.add_bos_token", GGUF_BOOL, 1);
    gguf_writer_close(writer);
    check_refused(path, TSR_EFORMAT, "tokenizer.ggml.add_bos_token");

    writer = start_bpe(path, "gpt-2");
    gguf_writer_string(writer, "tokenizer.ggml.bos_token_id", "one");
    gguf_writer_close(writer);
    check_refused(path, TSR_EFORMAT, "tokenizer.ggml.bos_token_id");

    writer = gguf_writer_open(path);
    gguf_writer_string(writer, "general.architecture", "llama");
    gguf_writer_close(writer);
    check_refused(path, TSR_EFORMAT, "tokenizer.ggml.model");

    writer = gguf_writer_open(path);
    gguf_writer_string(writer, "tokenizer.ggml.model", "gpt2");
    gguf_writer_close(writer);
    check_refused(path, TSR_EFORMAT, "tokenizer.ggml.tokens");

    struct words words = bpe_words();
    writer = gguf_writer_open(path);
    gguf_writer_string(writer, "tokenizer.ggml.model", "gpt2");
    gguf_writer_strings(writer, "tokenizer.ggml.tokens", words.texts, words.n);
    gguf_writer_array(writer, "tokenizer.ggml.token_type", GGUF_I32, words.types, words.n - 1);
    gguf_writer_close(writer);
    check_refused(path, TSR_EFORMAT, "tokenizer.ggml.token_type");
}

/* ---- SentencePiece --------------------------------------------------------------------------- */

/* After <unk>, <s>, </s> and, with byte tokens, 256 of them: the pieces below. */
static const struct {
    const char *text;
    float score;
} pieces[] = {{"▁", -9},  {"a", -9},  {"b", -9},   {"ab", -2},
              {"▁a", -3}, {"bb", -1}, {"▁ab", -4}, {"▁▁", -5}};
enum { P_SPACE, P_A, P_B, P_AB, P_SPACE_A, P_BB, P_SPACE_AB, P_SPACES, P_INNER };

static struct words spm_words(bool bytes)
{
    static char names[256][8];
    struct words words = {0};
    add(&words, "<unk>", UNKNOWN, 0);
    add(&words, "<s>", CONTROL, 0);
    add(&words, "</s>", CONTROL, 0);
    for (int byte = 0; bytes && byte < 256; byte++) {
        snprintf(names[byte], sizeof names[byte], "<0x%02X>", byte);
        add(&words, names[byte], BYTE, 0);
    }
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        add(&words, pieces[i].text, NORMAL, pieces[i].score);
    return words;
}

static struct gguf_writer *start_spm(const char *path, const struct words *words)
{
    struct gguf_writer *writer = start_file(path, "llama", "default", words);
    gguf_writer_array(writer, "tokenizer.ggml.scores", GGUF_F32, words->scores, words->n);
    gguf_writer_int(writer, "tokenizer.ggml.bos_token_id", GGUF_U32, 1);
    gguf_writer_int(writer, "tokenizer.ggml.eos_token_id", GGUF_U32, 2);
    gguf_writer_int(writer, "tokenizer.ggml.unknown_token_id", GGUF_U32, 0);
    return writer;
}

static void test_spm(void **state)
{
    enum { N = 3 + 256 }; /* the first piece */
    const char *path = temp_path("spm.gguf");
    struct words words = spm_words(true);
    gguf_writer_close(start_spm(path, &words));
    struct tokenizer *tokenizer = open_valid(path);
    CHECK_IDS(tokenizer, "ab", 0, N + P_SPACE_AB); /* a+b first, then the space */
    CHECK_IDS(tokenizer, "abb", 0, N + P_SPACE_A, N + P_BB); /* b+b beats a+b */
    CHECK_IDS(tokenizer, "a  b", 0, N + P_SPACE_A, N + P_SPACES, N + P_B);
    CHECK_IDS(tokenizer, "aé", 0, N + P_SPACE_A, 3 + 0xc3, 3 + 0xa9); /* byte fallback */
    CHECK_IDS(tokenizer, "\xff", 0, N + P_SPACE, 3 + 0xff);
    CHECK_IDS(tokenizer, "<s>", TSR_TOKENIZE_SPECIAL | TSR_TOKENIZE_BOS, 1, 1);
    CHECK_IDS(tokenizer, "<unk>", TSR_TOKENIZE_SPECIAL, 0);
    CHECK_IDS(tokenizer, "", 0, -1);
    tokenizer_close(tokenizer);
}

static void test_spm_stream(void **state)
{
    static const int32_t ids[] = {1, 259 + P_SPACE_A, 259 + P_SPACES, 3 + 0xc3, 3 + 0xa9};
    static const char *const special[] = {"<s>", " a", "  ", "", "é"};
    static const char *const plain[] = {"", "a", "  ", "", "é"}; /* without the space prefix */
    const char *path = temp_path("stream.gguf"), *part;
    size_t len;
    struct words words = spm_words(true);
    gguf_writer_close(start_spm(path, &words));
    struct tokenizer *tokenizer = open_valid(path);
    for (int with_special = 0; with_special < 2; with_special++) {
        const char *const *expected = with_special ? special : plain;
        struct detokenizer *stream;
        assert_int_equal(detokenizer_open(tokenizer, with_special, &stream), 0);
        for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
            assert_int_equal(detokenizer_push(stream, ids[i], &part, &len), 0);
            assert_int_equal(len, strlen(expected[i]));
            assert_memory_equal(part, expected[i], len);
        }
        detokenizer_close(stream);
    }
    tokenizer_close(tokenizer);
}

/* No byte tokens, no space prefix, and a token with a space inside. */
static void test_spm_bare(void **state)
{
    enum { N = 3 };
    const char *path = temp_path("bare.gguf");
    struct words words = spm_words(false);
    add(&words, "b▁a", NORMAL, -0.5f);
    struct gguf_writer *writer = start_spm(path, &words);
    gguf_writer_int(writer, "tokenizer.ggml.add_space_prefix", GGUF_BOOL, 0);
    gguf_writer_close(writer);
    struct tokenizer *tokenizer = open_valid(path);
    CHECK_IDS(tokenizer, "ab", 0, N + P_AB);
    CHECK_IDS(tokenizer, "aé", 0, N + P_A, 0, 0); /* <unk> for each byte */
    CHECK_IDS(tokenizer, "b a", 0, N + P_INNER);
    tokenizer_close(tokenizer);
}

static void test_spm_refused(void **state)
{
    const char *path = temp_path("refused.gguf");
    struct words words = spm_words(true);
    gguf_writer_close(start_file(path, "llama", NULL, &words));
    check_refused(path, TSR_EFORMAT, "tokenizer.ggml.scores");

    struct gguf_writer *writer = start_file(path, "llama", NULL, &words);
    gguf_writer_array(writer, "tokenizer.ggml.scores", GGUF_F32, words.scores, 1);
    gguf_writer_close(writer);
    check_refused(path, TSR_EFORMAT, "tokenizer.ggml.scores");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bpe),
        cmocka_unit_test(test_bpe_special),
        cmocka_unit_test(test_bpe_whole_words),
        cmocka_unit_test(test_bpe_without_pre),
        cmocka_unit_test(test_bpe_refused),
        cmocka_unit_test(test_metadata_refused),
        cmocka_unit_test(test_spm),
        cmocka_unit_test(test_spm_stream),
        cmocka_unit_test(test_spm_bare),
        cmocka_unit_test(test_spm_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
