/* Strings of the template language: UTF-8, seen as sequences of code points. Bytes that are not
 * UTF-8 count as one character each and are kept as they are. */
#include "text/template/value.h"

#include <string.h>

#include <utf8proc.h>

uint32_t text_decode(struct str s, size_t at, size_t *bytes)
{
    utf8proc_int32_t c;
    size_t left = s.len - at;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s.data + at,
                                          left < 4 ? (utf8proc_ssize_t)left : 4, &c);
    *bytes = n > 0 ? (size_t)n : 1;
    return n > 0 ? (uint32_t)c : 0xfffd;
}

size_t text_char(struct str s, size_t at)
{
    size_t bytes;
    text_decode(s, at, &bytes);
    return bytes;
}

size_t text_length(struct machine *m, struct str s)
{
    size_t n = 0;
    machine_work(m, s.len / 4);
    for (size_t at = 0; at < s.len; at += text_char(s, at))
        n++;
    return n;
}

bool text_is_space(uint32_t c)
{
    return c == ' ' || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f) || c == 0x85 ||
           c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

size_t text_find(struct machine *m, struct str s, struct str needle, size_t from)
{
    if (from > s.len)
        return s.len + 1;
    machine_work(m, (s.len - from) / 8 + 1);
    if (needle.len == 0)
        return from;
    const char *hit = memmem(s.data + from, s.len - from, needle.data, needle.len);
    return hit ? (size_t)(hit - s.data) : s.len + 1;
}

static bool strips(struct machine *m, struct str s, size_t at, size_t n, const struct str *set)
{
    machine_work(m, 1);
    if (set)
        return text_find(m, *set, str_sub(s, at, at + n), 0) <= set->len;
    size_t bytes;
    return text_is_space(text_decode(s, at, &bytes));
}

struct str text_strip(struct machine *m, struct str s, const struct str *set, int sides)
{
    size_t begin = 0, end = s.len;
    while ((sides & STRIP_LEFT) && begin < end) {
        size_t n = text_char(s, begin);
        if (!strips(m, s, begin, n, set))
            break;
        begin += n;
    }
    while ((sides & STRIP_RIGHT) && end > begin) {
        size_t last = end - 1;
        while (last > begin && end - last < 4 && ((unsigned char)s.data[last] & 0xc0) == 0x80)
            last--;
        if (last + text_char(s, last) != end)
            last = end - 1;
        if (!strips(m, s, last, end - last, set))
            break;
        end = last;
    }
    return str_sub(s, begin, end);
}

static bool is_letter(uint32_t c)
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

struct str text_case(struct machine *m, struct str s, enum text_case how)
{
    struct buffer out = {0};
    bool start = true;
    for (size_t at = 0, bytes; at < s.len; at += bytes) {
        uint32_t c = text_decode(s, at, &bytes);
        bool upper = how == CASE_UPPER || (start && how != CASE_LOWER);
        utf8proc_int32_t mapped =
            upper ? utf8proc_toupper((utf8proc_int32_t)c) : utf8proc_tolower((utf8proc_int32_t)c);
        if ((uint32_t)mapped == c)
            buffer_add(m, &out, str_sub(s, at, at + bytes));
        else
            buffer_codepoint(m, &out, (uint32_t)mapped);
        start = how == CASE_TITLE && !is_letter(c) && c != '\'';
    }
    return buffer_str(&out);
}

struct str text_replace(struct machine *m, struct str s, struct str from, struct str to,
                        int64_t limit)
{
    struct buffer out = {0};
    size_t done = 0, at = 0;
    for (; limit != 0; limit -= limit > 0) {
        size_t hit = text_find(m, s, from, at);
        if (hit > s.len)
            break;
        buffer_add(m, &out, str_sub(s, done, hit));
        buffer_add(m, &out, to);
        done = hit + from.len;
        at = done;
        if (from.len == 0)
            at += at < s.len ? text_char(s, at) : 1;
    }
    buffer_add(m, &out, str_sub(s, done, s.len));
    return buffer_str(&out);
}
