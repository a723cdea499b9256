/* A hash that tells files and plans apart; not one for adversaries. */
#ifndef TESSERA_BASE_HASH_H
#define TESSERA_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* Each takes the hash so far (0 or any seed at the start) and returns that with the data added. */
uint64_t hash_bytes(uint64_t seed, const void *data, size_t bytes);
uint64_t hash_number(uint64_t seed, uint64_t number);
uint64_t hash_text(uint64_t seed, const char *text); /* with its end */

#endif
