/* Pre-tokenizers: the table of regular expressions and their application.
 *
 * Each pattern is the one in the model's tokenizer.json (source named beside it), so PCRE2 needs
 * UTF and UCP. One change: \s is spelled out as the White_Space property, because PCRE2's \s also
 * holds U+180E, which left that property with Unicode 6.3. A list of patterns is a "Sequence" of
 * "Split"s with behaviour "Isolated": the matches of one pattern and what lies between them are
 * each split further by the next.
 */
#include "text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#define WHITE "\\t-\\r\\x{85}\\p{Z}"
#define SPACE "[" WHITE "]"
#define TRAILING_SPACE SPACE "+(?![^" WHITE "])"
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"

/* https://huggingface.co/Qwen/Qwen3-30B-A3B/blob/main/tokenizer.json */
static const char *const qwen2_patterns[] = {
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^" WHITE "\\p{L}\\p{N}]+[\\r\\n]*|"
    SPACE "*[\\r\\n]+|" TRAILING_SPACE "|" SPACE "+",
    NULL,
};

/* https://huggingface.co/meta-llama/Meta-Llama-3-8B/blob/main/tokenizer.json */
static const char *const llama3_patterns[] = {
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^" WHITE "\\p{L}\\p{N}]+[\\r\\n]*|"
    SPACE "*[\\r\\n]+|" TRAILING_SPACE "|" SPACE "+",
    NULL,
};

/* https://github.com/openai/gpt-2/blob/master/src/encoder.py */
static const char *const gpt2_patterns[] = {
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WHITE "\\p{L}\\p{N}]+|" TRAILING_SPACE "|"
    SPACE "+",
    NULL,
};

/* "default" of https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp: what files
 * from before the key existed were tokenized with. */
static const char *const default_patterns[] = {
    "[\\p{P}$+<=>^~|]+",
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WHITE "\\p{L}\\p{N}]+|" TRAILING_SPACE,
    "\\p{N}+",
    "[0-9][0-9][0-9]",
    NULL,
};

/* https://huggingface.co/deepseek-ai/deepseek-llm-7b-base/blob/main/tokenizer.json. The pattern for
 * space at the end is anchored to the start of the space, which changes no match but keeps the
 * search linear. */
static const char *const deepseek_llm_patterns[] = {
    "[\\r\\n]",
    SPACE "?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗ"
    "ὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗ"
    "Ａ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
    SPACE "?[!-/:-~！-／：-～‘-‟\\x{3000}-。]+",
    "(?<!" SPACE ")" SPACE "++$",
    "[一-龥ࠀ-一가-\\x{d7ff}]+",
    "\\p{N}+",
    NULL,
};

/* https://huggingface.co/deepseek-ai/DeepSeek-V3/blob/main/tokenizer.json */
static const char *const deepseek_v3_patterns[] = {
    "\\p{N}{1,3}",
    "[一-龥\\x{3040}-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACE "*[\\r\\n]+|" TRAILING_SPACE "|" SPACE "+",
    NULL,
};

/* o200k_base of https://github.com/openai/tiktoken/blob/main/tiktoken_ext/openai_public.py, and
 * https://huggingface.co/meta-llama/Llama-4-Scout-17B-16E/blob/main/tokenizer.json */
static const char *const gpt4o_patterns[] = {
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+" CONTRACTION "?|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" CONTRACTION "?|"
    "\\p{N}{1,3}| ?[^" WHITE "\\p{L}\\p{N}]+[\\r\\n/]*|" SPACE "*[\\r\\n]+|" TRAILING_SPACE "|" SPACE "+",
    NULL,
};

static const struct pretokenizer_kind kinds[] = {
    {.name = "default", .patterns = default_patterns},
    {.name = "gpt-2", .patterns = gpt2_patterns},
    {.name = "qwen2", .patterns = qwen2_patterns, .nfc = true},
    {.name = "llama-bpe", .patterns = llama3_patterns, .ignore_merges = true, .add_bos = true},
    {.name = "llama3", .patterns = llama3_patterns, .ignore_merges = true, .add_bos = true},
    {.name = "llama-v3", .patterns = llama3_patterns, .ignore_merges = true, .add_bos = true},
    {.name = "deepseek-llm", .patterns = deepseek_llm_patterns},
    {.name = "deepseek-v3", .patterns = deepseek_v3_patterns},
    {.name = "gpt-4o", .patterns = gpt4o_patterns},
    {.name = "llama4", .patterns = gpt4o_patterns},
};

const struct pretokenizer_kind *pretokenizer_find(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strlen(kinds[i].name) == len && memcmp(kinds[i].name, name, len) == 0)
            return &kinds[i];
    }
    return NULL;
}

enum { MAX_PATTERNS = 6 };

struct pretokenizer {
    int n_patterns;
    pcre2_code *patterns[MAX_PATTERNS];
};

int pretokenizer_open(const struct pretokenizer_kind *kind, struct pretokenizer **pretokenizer,
                      struct tsr_error *error)
{
    *pretokenizer = calloc(1, sizeof **pretokenizer);
    if (!*pretokenizer)
        return error_set(error, TSR_ENOMEM, "out of memory for pre-tokenizer %s", kind->name);
    for (int i = 0; kind->patterns[i]; i++) {
        int code;
        PCRE2_SIZE offset;
        pcre2_code *pattern =
            pcre2_compile((PCRE2_SPTR)kind->patterns[i], PCRE2_ZERO_TERMINATED,
                          PCRE2_UTF | PCRE2_UCP, &code, &offset, NULL);
        if (!pattern) {
            pretokenizer_close(*pretokenizer);
            *pretokenizer = NULL;
            return error_set(error, TSR_EUNSUPPORTED,
                             "pattern %d of pre-tokenizer %s: PCRE2 error %d at offset %zu", i,
                             kind->name, code, (size_t)offset);
        }
        /* Where there is no JIT, or it may not run, pcre2_match interprets the pattern. */
        pcre2_jit_compile(pattern, PCRE2_JIT_COMPLETE);
        (*pretokenizer)->patterns[(*pretokenizer)->n_patterns++] = pattern;
    }
    return 0;
}

void pretokenizer_close(struct pretokenizer *pretokenizer)
{
    if (!pretokenizer)
        return;
    for (int i = 0; i < pretokenizer->n_patterns; i++)
        pcre2_code_free(pretokenizer->patterns[i]);
    free(pretokenizer);
}

struct split {
    const struct pretokenizer *pretokenizer;
    pcre2_match_data *match;
    pretokenizer_word *word;
    void *user;
    struct tsr_error *error;
};

/* Splits a piece by patterns[level] and on. Look-around sees this piece only. */
static int split_piece(const struct split *split, int level, const char *piece, size_t len)
{
    if (len == 0)
        return 0;
    if (level == split->pretokenizer->n_patterns)
        return split->word(split->user, piece, len);
    size_t done = 0;
    while (done < len) {
        int found = pcre2_match(split->pretokenizer->patterns[level], (PCRE2_SPTR)piece, len, done,
                                PCRE2_NO_UTF_CHECK, split->match, NULL);
        if (found < 0 && found != PCRE2_ERROR_NOMATCH)
            return error_set(split->error, TSR_EINVAL,
                             "the text cannot be split into words: PCRE2 error %d", found);
        size_t start = len, end = len;
        if (found >= 0) {
            const PCRE2_SIZE *ovector = pcre2_get_ovector_pointer(split->match);
            start = ovector[0];
            end = ovector[1]; /* no pattern matches the empty string, so end > start */
        }
        int code = split_piece(split, level + 1, piece + done, start - done);
        if (!code)
            code = split_piece(split, level + 1, piece + start, end - start);
        if (code)
            return code;
        done = end;
    }
    return 0;
}

int pretokenizer_split(const struct pretokenizer *pretokenizer, const char *text, size_t len,
                       pretokenizer_word *word, void *user, struct tsr_error *error)
{
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    if (!match)
        return error_set(error, TSR_ENOMEM, "out of memory to split a text");
    struct split split = {pretokenizer, match, word, user, error};
    int code = split_piece(&split, 0, text, len);
    pcre2_match_data_free(match);
    return code;
}
