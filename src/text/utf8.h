/* UTF-8 as Unicode defines it: no surrogates, no overlong forms, nothing above U+10FFFF
 * (https://www.unicode.org/versions/Unicode15.0.0/ch03.pdf, table 3-7). */
#ifndef TESSERA_TEXT_UTF8_H
#define TESSERA_TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bytes of the character at s[0..n), 1 to 4; 0 when the n bytes are the start of a character that
 * goes on after them; -1 when no character can start so. */
static inline int utf8_char(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    if (n == 0)
        return 0;
    if (u[0] < 0x80)
        return 1;
    if (u[0] < 0xc2 || u[0] > 0xf4)
        return -1;
    int len = u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;
    /* The second byte is what rules out overlong forms, surrogates and values too large. */
    unsigned char low = u[0] == 0xe0 ? 0xa0 : u[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char high = u[0] == 0xed ? 0x9f : u[0] == 0xf4 ? 0x8f : 0xbf;
    if (n > 1 && (u[1] < low || u[1] > high))
        return -1;
    for (size_t i = 2; i < n && i < (size_t)len; i++) {
        if ((u[i] & 0xc0) != 0x80)
            return -1;
    }
    return n < (size_t)len ? 0 : len;
}

/* Length of the longest start of s[0..n) that is whole valid characters. */
static inline size_t utf8_valid_run(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint64_t word;
        if (n - i >= sizeof word) {
            memcpy(&word, s + i, sizeof word);
            if ((word & 0x8080808080808080u) == 0) {
                i += sizeof word;
                continue;
            }
        }
        int len = utf8_char(s + i, n - i);
        if (len <= 0)
            return i;
        i += (size_t)len;
    }
    return i;
}

#endif
