/* Pre-tokenizers: the table of regular expressions and their application.
 *
 * Each pattern is the one in the model's tokenizer.json (source named beside it), so PCRE2 needs
 * UTF and UCP. Two changes: characters outside ASCII are written as code points, and \s is spelled
 * out as the White_Space property, because PCRE2's \s also holds U+180E, which left that property
 * with Unicode 6.3. A list of patterns is a "Sequence" of "Split"s with behaviour "Isolated": the
 * matches of one pattern and what lies between them are each split further by the next.
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
    SPACE "?[A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}"
    "\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}"
    "\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}"
    "\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}"
    "\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}"
    "\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}"
    "\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}"
    "\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}"
    "\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}"
    "\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}"
    "\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}"
    "\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}"
    "\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}"
    "\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}"
    "\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}"
    "\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}"
    "\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}]+",
    SPACE "?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+",
    "(?<!" SPACE ")" SPACE "++$",
    "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+",
    "\\p{N}+",
    NULL,
};

/* https://huggingface.co/deepseek-ai/DeepSeek-V3/blob/main/tokenizer.json */
static const char *const deepseek_v3_patterns[] = {
    "\\p{N}{1,3}",
    "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
    "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACE "*[\\r\\n]+|" TRAILING_SPACE "|" SPACE "+",
    NULL,
};

/* o200k_base of https://github.com/openai/tiktoken/blob/main/tiktoken_ext/openai_public.py, and
 * https://huggingface.co/meta-llama/Llama-4-Scout-17B-16E/blob/main/tokenizer.json */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
static const char *const gpt4o_patterns[] = {
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" CONTRACTION "?|"
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" CONTRACTION "?|"
    "\\p{N}{1,3}| ?[^" WHITE "\\p{L}\\p{N}]+[\\r\\n/]*|"
    SPACE "*[\\r\\n]+|" TRAILING_SPACE "|" SPACE "+",
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
