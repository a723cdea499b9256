/* Words of each pre-tokenizer. The expectations follow from the published regular expressions; they
 * were cross-checked with another regular-expression engine. */
#include "text/pretokenizer.h"

#include "tests/support/check.h"

/* "A|B|C" of the words A, B and C. */
static int append_word(void *user, const char *word, size_t len)
{
    char *joined = user;
    size_t n = strlen(joined);
    assert_true(n + len + 2 < 512);
    if (n > 0)
        joined[n++] = '|';
    memcpy(joined + n, word, len);
    joined[n + len] = 0;
    return 0;
}

static void check_words(const char *kind_name, const char *text, const char *expected)
{
    struct pretokenizer *pretokenizer;
    struct tsr_error error = {0};
    char joined[512] = "";
    const struct pretokenizer_kind *kind = pretokenizer_find(kind_name, strlen(kind_name));
    assert_non_null(kind);
    assert_int_equal(pretokenizer_open(kind, &pretokenizer, &error), 0);
    assert_int_equal(
        pretokenizer_split(pretokenizer, text, strlen(text), append_word, joined, &error), 0);
    assert_string_equal(joined, expected);
    pretokenizer_close(pretokenizer);
}

static void test_contractions(void **state)
{
    check_words("qwen2", "I'M sure we'll", "I|'M| sure| we|'ll");
    check_words("gpt-2", "I'M sure we'll", "I|'|M| sure| we|'ll");
    check_words("gpt-4o", "I'M sure we'll", "I'M| sure| we'll");
}

static void test_numbers(void **state)
{
    check_words("qwen2", "in 12345", "in| |1|2|3|4|5");
    check_words("llama-bpe", "in 12345", "in| |123|45");
    check_words("gpt-2", "in 12345", "in| 12345");
    check_words("deepseek-v3", "in 12345", "in| |123|45");
    check_words("deepseek-llm", "in 12345", "in| |12345");
    check_words("default", "in 12345", "in| |123|45");
}

static void test_white_space(void **state)
{
    check_words("qwen2", "a   b\n\n  c  ", "a|  | b|\n\n| | c|  ");
    check_words("gpt-2", "a   b\n\n  c  ", "a|  | b|\n\n | c|  ");
    check_words("deepseek-llm", "a   b\n\n  c  ", "a|  | b|\n|\n| | c|  ");
    /* U+180E is a format character, not space. */
    check_words("qwen2", "a \xe1\xa0\x8e", "a| \xe1\xa0\x8e");
}

static void test_scripts(void **state)
{
    check_words("qwen2", "日本語テスト", "日本語テスト");
    check_words("deepseek-v3", "a日本語b", "a|日本語|b");
    check_words("deepseek-llm", "a日本b", "a|日本|b");
    check_words("gpt-4o", "helloWorld", "hello|World");
    check_words("deepseek-v3", "x.append(y)", "x|.append|(y|)");
}

static void test_case_variants_of_a_name(void **state)
{
    check_words("llama3", "abc 1234", "abc| |123|4");
    check_words("llama-v3", "abc 1234", "abc| |123|4");
    check_words("llama4", "aB/\n", "a|B|/\n");
}

static void test_unknown_name(void **state)
{
    assert_null(pretokenizer_find("qwen", 4));
    assert_null(pretokenizer_find("qwen2x", 6));
    assert_null(pretokenizer_find("", 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contractions),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_white_space),
        cmocka_unit_test(test_scripts),
        cmocka_unit_test(test_case_variants_of_a_name),
        cmocka_unit_test(test_unknown_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
