/* What the codes of a packed unit mean, for scalar and vector kernels alike:
 *
 *     weight = scale * value - minimum,   value = table[code] or code - offset
 *
 * A unit (32 k) has one scale and minimum for each column, or two, for k 0..15 and 16..31. */
#ifndef TESSERA_KERNELS_UNIT_H
#define TESSERA_KERNELS_UNIT_H

#include "kernels/layout.h"
#include "kernels/scalar/blocks.h"

/* Where a type's codes are unsigned with an offset: weight = scale * (code - offset). */
static inline int unit_offset(uint32_t block_id)
{
    switch (block_id) {
    case BLOCK_Q4_0: return 8;
    case BLOCK_Q5_0: return 16;
    case BLOCK_Q3_K: return 4;
    case BLOCK_Q6_K: return 32;
    default: return 0;
    }
}

/* The table that 4-bit codes index, NULL where codes are numbers. */
static inline const int8_t *unit_table(uint32_t block_id)
{
    return block_id == BLOCK_MXFP4                                      ? mxfp4_values
           : block_id == BLOCK_IQ4_NL || block_id == BLOCK_IQ4_XS ? iq4_values
                                                                        : NULL;
}

/* Scales for k 0..15 and k 16..31 of a unit differ. */
static inline bool unit_has_halves(uint32_t block_id)
{
    return block_id == BLOCK_Q2_K || block_id == BLOCK_Q3_K || block_id == BLOCK_Q6_K;
}

#endif
