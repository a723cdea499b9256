/* What the tile products compute, in software and bit for bit; checked against hardware by
 * tests/kernels/tile_proof.c. */
#ifndef TESSERA_AMX_MODEL_H
#define TESSERA_AMX_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/amx/tile.h"

struct tile {
    _Alignas(64) uint8_t row[TILE_ROWS][TILE_ROW_BYTES];
};

/* c[m, 16] += a[m, 4 * quads] * b[quads, 16 * 4], int32 with wrap-around. Bytes of a and b are
 * signed or not. What lies outside the configured rows and columns must be zero. */
void tile_model_dp_int8(struct tile *c, const struct tile *a, const struct tile *b, int m,
                        int quads, bool a_signed, bool b_signed);

/* c[m, 16] += a[m, 2 * pairs] * b[pairs, 16 * 2], bf16 to float. Even and odd k are accumulated
 * apart by fused multiply-adds from zero, then added to each other and to c, rounding to nearest
 * even; denormals count as zeros, of operands as of results. */
void tile_model_dp_bf16(struct tile *c, const struct tile *a, const struct tile *b, int m,
                        int pairs);

#endif
