/* The rules of the pools: what each takes, and why it refuses the rest. */
#ifndef TESSERA_PLAN_POOLS_H
#define TESSERA_PLAN_POOLS_H

#include "plan/plan.h"

/* The pool's kernel for the tensor's type; its gemm is NULL where it has none. */
const struct gemm_kernel *pool_kernel(enum plan_pool pool, const struct kernel_set *kernels,
                                      const struct model_tensor *tensor);

/* Why the pool does not take the tensor, NULL where it does as far as role and type go. no_tiles:
 * why there are none, NULL where there are. */
const char *pool_refuses(enum plan_pool pool, const struct kernel_set *kernels,
                         const char *no_tiles, const struct model_tensor *tensor);

/* The pools that a tensor is offered to, in order, unless an override says otherwise. Where there
 * are no tiles, POOL_AMX is not one of them. */
struct pool_list pool_priority(const char *no_tiles);

#endif
