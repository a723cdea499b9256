/* Packed weights on disk: the arenas of a plan in one file, mapped at the next start.
 *
 *     header (struct in cache.c, 4096 bytes) | arena | arena | ..    each begins on a page
 *
 * A file is used only if all of this is as at the start at hand: the version of the layouts, the
 * identity of the model's files (device, inode, size, time of change), their directory of tensors
 * and the plan (pool, kernel, and so CPU level, rows and place of each tensor), the sizes of the
 * arenas and of the file, a checksum of the header and one of samples of the contents: the first
 * and the last page of each arena and one page of every 16 MiB. Damage between the samples is not
 * noticed. A new file is written beside the old one and takes its name once it is on the disk. */
#ifndef TESSERA_LOAD_CACHE_H
#define TESSERA_LOAD_CACHE_H

#include "load/arena.h"

struct cache;

/* The cache of a plan in folder `dir`; nothing is opened yet. Errors: TSR_ENOMEM, TSR_EINVAL (a
 * path that is too long). */
int cache_create(const char *dir, const struct plan *plan, struct cache **cache,
                 struct tsr_error *error);
void cache_free(struct cache *cache); /* removes what was begun and not written; NULL is allowed */
const char *cache_path(const struct cache *cache);

/* Maps the arenas, read-only. NULL, or why the file is of no use (static). */
const char *cache_map(const struct cache *cache, struct arena arenas[POOL_COUNT][NODES_MAX]);

/* Tells the files of a model from others, and from themselves before they were changed. */
uint64_t cache_hash_source(const struct gguf *gguf);

/* Opens a new file and makes room in it, before the work of packing is done. `*busy`: another
 * process is writing the same file; nothing was begun. Errors: TSR_EIO, with the folder. */
int cache_begin(struct cache *cache, bool *busy, struct tsr_error *error);

/* False cancels. */
typedef bool cache_continue_fn(void *user);

/* Writes the arenas and puts the file in its place. Errors: TSR_EIO, TSR_ECANCELED. */
int cache_write(struct cache *cache, struct arena arenas[POOL_COUNT][NODES_MAX],
                cache_continue_fn *go_on, void *user, struct tsr_error *error);

#endif
