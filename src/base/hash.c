/* FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/) on words, then on the bytes that remain. */
#include "base/hash.h"

#include <string.h>

uint64_t hash_bytes(uint64_t seed, const void *data, size_t bytes)
{
    const uint64_t prime = UINT64_C(0x100000001b3);
    const uint8_t *at = data;
    for (; bytes >= 8; bytes -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        seed = (seed ^ word) * prime;
        seed ^= seed >> 32;
    }
    for (; bytes; bytes--, at++)
        seed = (seed ^ *at) * prime;
    return seed;
}

uint64_t hash_number(uint64_t seed, uint64_t number)
{
    return hash_bytes(seed, &number, sizeof number);
}

uint64_t hash_text(uint64_t seed, const char *text)
{
    return hash_bytes(seed, text, strlen(text) + 1);
}
