/* Memory beside pages which must not be touched: reads and writes past it crash. */
#ifndef TESSERA_TESTS_GUARD_H
#define TESSERA_TESTS_GUARD_H

#include <stddef.h>

/* n_bytes, zeroed, that end where the guard page begins; aligned as far as n_bytes is. Ends the
 * program where there is no memory. */
void *guarded(size_t n_bytes);

/* The same, but beginning where a guard page ends. */
void *guarded_after(size_t n_bytes);

/* Frees all guarded memory. */
void guarded_free_all(void);

#endif
