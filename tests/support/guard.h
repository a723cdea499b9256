/* Memory that ends at a page which must not be touched: reads and writes past the end crash. */
#ifndef TESSERA_TESTS_GUARD_H
#define TESSERA_TESTS_GUARD_H

#include <stddef.h>

/* n_bytes, zeroed, that end where the guard page begins; aligned as far as n_bytes is. Ends the
 * program where there is no memory. */
void *guarded(size_t n_bytes);

/* Frees all guarded memory. */
void guarded_free_all(void);

#endif
