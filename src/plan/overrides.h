/* Overrides of the pools that tensors are offered to: "REGEX=POOL[,POOL...]". */
#ifndef TESSERA_PLAN_OVERRIDES_H
#define TESSERA_PLAN_OVERRIDES_H

#include "plan/plan.h"

struct override_matcher;

/* Reads texts[n] and compiles their patterns. Fills overrides[n]: the patterns are freed with
 * free(), also after an error. Errors: TSR_EINVAL (a text that is none; the message names it and
 * the flag), TSR_ENOMEM. */
int overrides_open(const char *const *texts, size_t n, struct plan_override *overrides,
                   struct override_matcher **matcher, struct tsr_error *error);
void overrides_close(struct override_matcher *matcher);

/* Index of the first override whose pattern is found in the name, -1 for none. Errors: TSR_EINVAL
 * (a pattern that takes too long). */
int overrides_find(const struct override_matcher *matcher, const char *name, int *index,
                   struct tsr_error *error);

#endif
