/* Patterns are Perl's (https://www.pcre.org/current/doc/html/pcre2pattern.html), found anywhere in
 * a tensor's name. */
#include "plan/overrides.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/mem.h"

struct override_matcher {
    const char *const *texts;
    size_t n;
    pcre2_match_data *match;
    pcre2_code *patterns[];
};

/* Reads "cpu,mapped". False where a name is unknown or comes twice. */
static bool read_pools(const char *names, struct pool_list *pools)
{
    pools->n = 0;
    for (;;) {
        size_t len = strcspn(names, ",");
        int pool = 0;
        while (pool < POOL_COUNT && (strlen(plan_pool_name((enum plan_pool)pool)) != len ||
                                     memcmp(plan_pool_name((enum plan_pool)pool), names, len)))
            pool++;
        for (int i = 0; i < pools->n; i++)
            if ((int)pools->pools[i] == pool)
                return false;
        if (pool == POOL_COUNT)
            return false;
        pools->pools[pools->n++] = (enum plan_pool)pool;
        if (!names[len])
            return true;
        names += len + 1;
    }
}

static int compile(const char *text, const struct plan_override *override, pcre2_code **code,
                   struct tsr_error *error)
{
    int number;
    PCRE2_SIZE offset;
    *code = pcre2_compile((PCRE2_SPTR)override->pattern, PCRE2_ZERO_TERMINATED, 0, &number,
                          &offset, NULL);
    if (*code)
        return 0;
    PCRE2_UCHAR message[160];
    pcre2_get_error_message(number, message, sizeof message);
    return error_set(error, TSR_EINVAL, "-ot '%s': at character %zu: %s", text, offset + 1,
                     (const char *)message);
}

static int read_override(const char *text, struct plan_override *override, pcre2_code **code,
                         struct tsr_error *error)
{
    const char *equals = strrchr(text, '='); /* a pattern may hold some, names of pools do not */
    if (!equals || equals == text)
        return error_set(error, TSR_EINVAL, "-ot '%s': is not of the form REGEX=POOL", text);
    if (!read_pools(equals + 1, &override->pools))
        return error_set(error, TSR_EINVAL,
                         "-ot '%s': '%s' is not a pool or a list of them: amx, cpu, mapped", text,
                         equals + 1);
    override->pattern = strndup(text, (size_t)(equals - text));
    if (!override->pattern)
        return error_set(error, TSR_ENOMEM, "out of memory for a plan");
    return compile(text, override, code, error);
}

int overrides_open(const char *const *texts, size_t n, struct plan_override *overrides,
                   struct override_matcher **out, struct tsr_error *error)
{
    *out = NULL;
    size_t bytes;
    struct override_matcher *matcher = NULL;
    if (mul_size(n, sizeof(pcre2_code *), &bytes) && add_size(bytes, sizeof *matcher, &bytes))
        matcher = mem_alloc(1, bytes);
    if (matcher)
        matcher->match = pcre2_match_data_create(1, NULL);
    if (!matcher || !matcher->match) {
        free(matcher);
        return error_set(error, TSR_ENOMEM, "out of memory for a plan");
    }
    matcher->texts = texts;
    matcher->n = n;
    for (size_t i = 0; i < n; i++) {
        int status = read_override(texts[i], &overrides[i], &matcher->patterns[i], error);
        if (status) {
            overrides_close(matcher);
            return status;
        }
    }
    *out = matcher;
    return 0;
}

void overrides_close(struct override_matcher *matcher)
{
    if (!matcher)
        return;
    for (size_t i = 0; i < matcher->n; i++)
        pcre2_code_free(matcher->patterns[i]);
    pcre2_match_data_free(matcher->match);
    free(matcher);
}

int overrides_find(const struct override_matcher *matcher, const char *name, int *index,
                   struct tsr_error *error)
{
    *index = -1;
    for (size_t i = 0; i < matcher->n; i++) {
        int found = pcre2_match(matcher->patterns[i], (PCRE2_SPTR)name, strlen(name), 0, 0,
                                matcher->match, NULL);
        if (found >= 0) {
            *index = (int)i;
            return 0;
        }
        if (found != PCRE2_ERROR_NOMATCH)
            return error_set(error, TSR_EINVAL, "-ot '%s': the pattern takes too long on %s",
                             matcher->texts[i], name);
    }
    return 0;
}
