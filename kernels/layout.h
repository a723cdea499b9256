/* The packed layouts of weights, shared by every instruction set.
 *
 * A matrix [n, k] is cut into panels of NR = 16 columns (rows of the file's tensor); the last panel
 * is filled up with zeros. A panel holds two streams, each read once and in order:
 *
 *     codes: for every unit of 32 k, its bit planes      heads: for every file block, its scales
 *
 * Vector g (0..7) of a unit is 64 bytes, the codes of k = 4g .. 4g+3 of the 16 columns:
 *
 *     byte 4c + j  <->  column c, k = 4g + j             (KR = 4: a row of an int8 tile of AMX, or
 *                                                         the operand of a 4-way dot product)
 *
 * Codes of fewer than 8 bits are spread over planes of the same byte order:
 *
 *     plane 4 (256 bytes)  byte b of vector v: low nibble of vector v, high nibble of vector v + 4
 *     plane 2 (128 bytes)  byte b of vector v: bits 2i, 2i+1 of vector 4v + i
 *     plane 1  (64 bytes)  byte b: bit g of vector g
 *     plane 8 (512 bytes)  the vectors themselves
 *
 *     bits  planes     types
 *       2   2          Q2_K
 *       3   2, 1       Q3_K: plane 1 is bit 2
 *       4   4          Q4_0 Q4_1 Q4_K IQ4_NL IQ4_XS MXFP4 (the last three: indices of a table)
 *       5   4, 1       Q5_0 Q5_1 Q5_K: plane 1 is bit 4
 *       6   4, 2       Q6_K: plane 2 is bits 4 and 5
 *       8   8          Q8_0
 *
 * The head of a file block: the 16 columns' f16 scales, then f16 mins where there are any, then
 * arrays of 16 bytes, one for each sub-block: scales, then mins. 6-bit scales take a byte, which
 * is all that a packed matrix is larger than its file (under 4%).
 *
 * Panels of floating-point weights are one stream. F32 and F16: for each k in turn the weights of
 * the 16 columns, [k rounded up to even][16].
 *
 *          column 0  1  ..  15
 *     k 0         .  .       .
 *     k 1         .  .       .
 *     ..
 *
 * BF16: for each pair of k in turn the pairs of the 16 columns, the operand order of VDPBF16PS and
 * of a tile row of TDPBF16PS, [k rounded up to even / 2][16][2].
 *
 *          column 0       1           15
 *     k 0, 1      .  .    .  .  ..    .  .
 *     k 2, 3      .  .    .  .  ..    .  .
 *     ..
 *
 * An odd k is followed by a zero, so that kernels take k in pairs and panels are multiples of 64
 * bytes.
 */
#ifndef TESSERA_KERNELS_LAYOUT_H
#define TESSERA_KERNELS_LAYOUT_H

#include "kernels/kernel.h"

enum {
    PANEL_COLUMNS = 16,
    UNIT_K = 32,
    UNIT_VECTORS = 8,
    VECTOR_BYTES = 64,
    UNIT_CODES = UNIT_VECTORS * VECTOR_BYTES, /* codes of a unit, one byte each */
    MAX_BLOCK_K = 256,
    MAX_HEAD_BYTES = 16 * (2 * 2 + 16),
};

/* A file block of all columns of a panel, ready to be transposed. `words`: a column's bytes of all
 * vectors of the planes, unit after unit, so that words[c][i] belongs to bytes 4c .. 4c+3 of vector
 * i. */
struct column_blocks {
    uint32_t words[PANEL_COLUMNS][MAX_BLOCK_K / 4];
    uint16_t half[2][PANEL_COLUMNS];
    uint8_t byte[PANEL_COLUMNS][16];
};

/* Fills the first n_columns from file blocks `stride` bytes apart. */
typedef void arrange_fn(const uint8_t *blocks, size_t stride, int n_columns,
                        struct column_blocks *to);

struct panel_format {
    uint32_t block_id;
    int block_k;     /* 32 or 256 */
    int bits;        /* of a code */
    int n_half;      /* f16 arrays of a head: scales, mins */
    int n_byte;      /* byte arrays of a head */
    int unit_bytes;  /* planes of a unit */
    int head_bytes;  /* of a file block */
    arrange_fn *arrange;
    /* Back, for one column: exactly the file's block, from its codes, one byte each [block_k], and
     * its head: f16 fields, then bytes. */
    void (*join)(void *block, const uint8_t *codes, const uint16_t half[2],
                 const uint8_t byte[16]);
};

/* NULL for types that have no packed layout of codes. */
const struct panel_format *panel_format_find(uint32_t block_id);

static inline size_t panel_codes_bytes(const struct panel_format *format, int k)
{
    return (size_t)(k / UNIT_K) * (size_t)format->unit_bytes;
}

static inline size_t panel_bytes(const struct panel_format *format, int k)
{
    size_t heads = (size_t)(k / format->block_k) * (size_t)format->head_bytes;
    return act_round_up(panel_codes_bytes(format, k) + heads, 64);
}

/* The `packed_bytes`, `pack` and `unpack` of kernel records, with the format made explicit. */
size_t panel_packed_bytes(const struct panel_format *format, int n, int k);
void panel_pack(const struct panel_format *format, void *packed, const void *rows, int n, int k,
                int n0, int n1);
void panel_unpack(const struct panel_format *format, void *rows, const void *packed, int n, int k,
                  int n0, int n1);

/* 32-bit words of 16 rows (`stride` bytes apart, unaligned) to columns: word i of row c becomes the
 * c-th of the i-th 64 bytes. */
void panel_transpose(void *to, const void *from, size_t stride, int n_words);

/* Panels of F32, F16 and BF16. */
static inline int float_panel_k(int k) { return k + (k & 1); }

/* Bytes of a panel of weights of `weight_bytes` (2 or 4) each. */
static inline size_t float_panel_bytes(int k, size_t weight_bytes)
{
    return (size_t)float_panel_k(k) * PANEL_COLUMNS * weight_bytes;
}

#endif
