/* Packing of codes into panels (kernels/layout.h), and back. Four codes of a column that lie side
 * by side in a vector are handled as one 32-bit word: "word g" of a unit is k = 4g .. 4g+3. */
#include <string.h>

#include "kernels/layout.h"

/* ---- Transposing ---- */

/* Vectors of the baseline instruction set, written with the compilers' own extension. */
typedef uint32_t quad __attribute__((vector_size(16)));
typedef uint8_t bytes16 __attribute__((vector_size(16)));

#if defined(__clang__)
#define SHUFFLE(type, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(type, a, b, ...) __builtin_shuffle(a, b, (type){__VA_ARGS__})
#endif

static inline quad load_quad(const uint8_t *from)
{
    quad q;
    memcpy(&q, from, sizeof q);
    return q;
}

/* Four words of four rows to four columns of `to`, 64 bytes apart. */
static inline void transpose_quads(uint8_t *to, const uint8_t *from, size_t stride)
{
    quad a = load_quad(from), b = load_quad(from + stride);
    quad c = load_quad(from + 2 * stride), d = load_quad(from + 3 * stride);
    quad ac0 = SHUFFLE(quad, a, c, 0, 4, 1, 5), ac1 = SHUFFLE(quad, a, c, 2, 6, 3, 7);
    quad bd0 = SHUFFLE(quad, b, d, 0, 4, 1, 5), bd1 = SHUFFLE(quad, b, d, 2, 6, 3, 7);
    quad out[4] = {SHUFFLE(quad, ac0, bd0, 0, 4, 1, 5), SHUFFLE(quad, ac0, bd0, 2, 6, 3, 7),
                   SHUFFLE(quad, ac1, bd1, 0, 4, 1, 5), SHUFFLE(quad, ac1, bd1, 2, 6, 3, 7)};
    for (int i = 0; i < 4; i++)
        memcpy(to + VECTOR_BYTES * i, &out[i], sizeof out[i]);
}

void panel_transpose(void *to, const void *from, size_t stride, int n_words)
{
    const uint8_t *in = from;
    uint8_t *out = to;
    int i = 0;
    /* A cache line of a row at once: rows a power of two apart would push each other out. */
    for (; i + 16 <= n_words; i += 16)
        for (int c = 0; c < PANEL_COLUMNS; c += 4)
            for (int j = i; j < i + 16; j += 4)
                transpose_quads(out + VECTOR_BYTES * j + 4 * c, in + (size_t)c * stride + 4 * j,
                                stride);
    for (; i + 4 <= n_words; i += 4)
        for (int c = 0; c < PANEL_COLUMNS; c += 4)
            transpose_quads(out + VECTOR_BYTES * i + 4 * c, in + (size_t)c * stride + 4 * i, stride);
    for (; i < n_words; i++)
        for (int c = 0; c < PANEL_COLUMNS; c++)
            memcpy(out + VECTOR_BYTES * i + 4 * c, in + (size_t)c * stride + 4 * i, 4);
}

/* The first n bytes of 16 rows to n rows. Four rounds of interleaving the first half of the rows
 * with the second turn rows into columns. */
static void transpose_bytes(uint8_t *to, const uint8_t from[PANEL_COLUMNS][16], int n)
{
    bytes16 rows[16], next[16];
    memcpy(rows, from, sizeof rows);
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 8; i++) {
            next[2 * i] = SHUFFLE(bytes16, rows[i], rows[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20,
                                  5, 21, 6, 22, 7, 23);
            next[2 * i + 1] = SHUFFLE(bytes16, rows[i], rows[i + 8], 8, 24, 9, 25, 10, 26, 11, 27,
                                      12, 28, 13, 29, 14, 30, 15, 31);
        }
        memcpy(rows, next, sizeof rows);
    }
    memcpy(to, rows, (size_t)n * 16);
}

/* ---- Panels of codes ---- */

/* Word (vector v, column c) of a plane. */
static const uint32_t *plane_word(const uint8_t *plane, int v, int c)
{
    return (const uint32_t *)(plane + VECTOR_BYTES * v) + c;
}

static void unpack_unit(const struct panel_format *format, const uint8_t *planes, int c,
                        uint32_t w[UNIT_VECTORS])
{
    int bits = format->bits;
    const uint8_t *plane = planes;
    int shift = 0;
    for (int g = 0; g < 8; g++)
        w[g] = bits == 8 ? *plane_word(plane, g, c) : 0;
    if (bits >= 4 && bits < 8) {
        for (int g = 0; g < 8; g++)
            w[g] = *plane_word(plane, g % 4, c) >> (g / 4 * 4) & 0x0f0f0f0f;
        plane += 4 * VECTOR_BYTES;
        shift = 4;
    }
    if (bits - shift == 2 || bits - shift == 3) {
        for (int g = 0; g < 8; g++)
            w[g] |= (*plane_word(plane, g / 4, c) >> (g % 4 * 2) & 0x03030303) << shift;
        plane += 2 * VECTOR_BYTES;
        shift += 2;
    }
    if (bits - shift == 1)
        for (int g = 0; g < 8; g++)
            w[g] |= (*plane_word(plane, 0, c) >> g & 0x01010101) << shift;
}

static void pack_head(const struct panel_format *format, uint8_t *head,
                      const struct column_blocks *blocks)
{
    for (int i = 0; i < format->n_half; i++, head += 32)
        memcpy(head, blocks->half[i], 32);
    if (format->n_byte)
        transpose_bytes(head, blocks->byte, format->n_byte);
}

static void unpack_head(const struct panel_format *format, const uint8_t *head, int c,
                        uint16_t half[2], uint8_t byte[16])
{
    for (int i = 0; i < format->n_half; i++, head += 32)
        memcpy(&half[i], head + 2 * c, 2);
    for (int i = 0; i < format->n_byte; i++, head += 16)
        byte[i] = head[c];
}

/* Bytes of a row of k weights, and of one block, in the file. */
static size_t file_block_bytes(const struct panel_format *format)
{
    return block_type_find(format->block_id)->n_bytes;
}

size_t panel_packed_bytes(const struct panel_format *format, int n, int k)
{
    size_t panels = (size_t)(n + PANEL_COLUMNS - 1) / PANEL_COLUMNS;
    return panels * panel_bytes(format, k);
}

/* Sixteen streams at a time are more than the hardware follows: the next panel's rows, which lie
 * behind this one's, are fetched in their order instead. */
static void prefetch(const uint8_t *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(from + i);
}

/* One panel: `n_columns` rows of the file, the rest of its columns zeros. */
static void pack_panel(const struct panel_format *format, uint8_t *panel, const uint8_t *rows,
                       int n_columns, int k, bool more)
{
    size_t block_bytes = file_block_bytes(format);
    int n_blocks = k / format->block_k;
    int block_words = format->block_k / UNIT_K * (format->unit_bytes / VECTOR_BYTES);
    uint8_t *codes = panel, *head = panel + panel_codes_bytes(format, k);
    struct column_blocks columns;
    if (n_columns < PANEL_COLUMNS)
        memset(&columns, 0, sizeof columns);
    size_t stride = (size_t)n_blocks * block_bytes, step = PANEL_COLUMNS * block_bytes;
    const uint8_t *next = rows + PANEL_COLUMNS * stride;
    for (int b = 0; b < n_blocks; b++, rows += block_bytes, next += step) {
        if (more)
            prefetch(next, step);
        format->arrange(rows, stride, n_columns, &columns);
        panel_transpose(codes, columns.words, sizeof columns.words[0], block_words);
        pack_head(format, head, &columns);
        codes += (size_t)block_words * VECTOR_BYTES;
        head += format->head_bytes;
    }
    memset(head, 0, (size_t)(panel + panel_bytes(format, k) - head));
}

void panel_pack(const struct panel_format *format, void *packed, const void *rows, int n, int k,
                int n0, int n1)
{
    size_t row_bytes = (size_t)(k / format->block_k) * file_block_bytes(format);
    for (int j = n0; j < n1; j += PANEL_COLUMNS) {
        uint8_t *panel = (uint8_t *)packed + (size_t)(j / PANEL_COLUMNS) * panel_bytes(format, k);
        int columns = n1 - j < PANEL_COLUMNS ? n1 - j : PANEL_COLUMNS;
        pack_panel(format, panel, (const uint8_t *)rows + (size_t)(j - n0) * row_bytes, columns, k,
                   j + 2 * PANEL_COLUMNS <= n1);
    }
}

static void unpack_panel(const struct panel_format *format, uint8_t *rows, const uint8_t *panel,
                         int n_columns, int k)
{
    size_t block_bytes = file_block_bytes(format);
    int n_blocks = k / format->block_k, units = format->block_k / UNIT_K;
    const uint8_t *codes = panel, *head = panel + panel_codes_bytes(format, k);
    uint32_t words[MAX_BLOCK_K / 4];
    for (int b = 0; b < n_blocks; b++) {
        for (int c = 0; c < n_columns; c++) {
            uint16_t half[2];
            uint8_t byte[16];
            for (int u = 0; u < units; u++)
                unpack_unit(format, codes + u * format->unit_bytes, c, words + u * UNIT_VECTORS);
            unpack_head(format, head, c, half, byte);
            format->join(rows + ((size_t)c * (size_t)n_blocks + (size_t)b) * block_bytes,
                         (uint8_t *)words, half, byte);
        }
        codes += units * format->unit_bytes;
        head += format->head_bytes;
    }
}

void panel_unpack(const struct panel_format *format, void *rows, const void *packed, int n, int k,
                  int n0, int n1)
{
    size_t row_bytes = (size_t)(k / format->block_k) * file_block_bytes(format);
    for (int j = n0; j < n1; j += PANEL_COLUMNS) {
        const uint8_t *panel =
            (const uint8_t *)packed + (size_t)(j / PANEL_COLUMNS) * panel_bytes(format, k);
        int columns = n1 - j < PANEL_COLUMNS ? n1 - j : PANEL_COLUMNS;
        unpack_panel(format, (uint8_t *)rows + (size_t)(j - n0) * row_bytes, panel, columns, k);
    }
}
