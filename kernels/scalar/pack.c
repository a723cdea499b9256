/* Packing of codes into panels (kernels/layout.h), and back. Four codes of a column that lie side
 * by side in a vector are handled as one 32-bit word: "word g" of a unit is k = 4g .. 4g+3. */
#include <string.h>

#include "kernels/layout.h"

/* Codes of a file block, of all columns of a panel. */
struct code_block {
    uint32_t words[PANEL_COLUMNS][MAX_BLOCK_K / 4];
    uint16_t half[PANEL_COLUMNS][2];
    uint8_t byte[PANEL_COLUMNS][16];
};

/* Word (vector v, column c) of a plane. */
static uint32_t *plane_word(uint8_t *plane, int v, int c)
{
    return (uint32_t *)(plane + VECTOR_BYTES * v) + c;
}

static void pack_unit(const struct panel_format *format, uint8_t *planes,
                      const struct code_block *block, int unit)
{
    int bits = format->bits;
    for (int c = 0; c < PANEL_COLUMNS; c++) {
        const uint32_t *w = block->words[c] + unit * UNIT_VECTORS;
        uint8_t *plane = planes;
        int shift = 0; /* of the lowest bit that is not stored yet */
        if (bits == 8)
            for (int g = 0; g < 8; g++)
                *plane_word(plane, g, c) = w[g];
        if (bits >= 4 && bits < 8) {
            for (int v = 0; v < 4; v++)
                *plane_word(plane, v, c) =
                    (w[v] & 0x0f0f0f0f) | (w[v + 4] & 0x0f0f0f0f) << 4;
            plane += 4 * VECTOR_BYTES;
            shift = 4;
        }
        if (bits - shift == 2 || bits - shift == 3) {
            for (int v = 0; v < 2; v++) {
                uint32_t word = 0;
                for (int i = 0; i < 4; i++)
                    word |= (w[4 * v + i] >> shift & 0x03030303) << (2 * i);
                *plane_word(plane, v, c) = word;
            }
            plane += 2 * VECTOR_BYTES;
            shift += 2;
        }
        if (bits - shift == 1) {
            uint32_t word = 0;
            for (int g = 0; g < 8; g++)
                word |= (w[g] >> shift & 0x01010101) << g;
            *plane_word(plane, 0, c) = word;
        }
    }
}

static void unpack_unit(const struct panel_format *format, const uint8_t *planes,
                        struct code_block *block, int unit)
{
    int bits = format->bits;
    uint8_t *from = (uint8_t *)planes; /* plane_word gives both readers and writers a place */
    for (int c = 0; c < PANEL_COLUMNS; c++) {
        uint32_t *w = block->words[c] + unit * UNIT_VECTORS;
        uint8_t *plane = from;
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
}

static void pack_head(const struct panel_format *format, uint8_t *head,
                      const struct code_block *block)
{
    for (int i = 0; i < format->n_half; i++, head += 32)
        for (int c = 0; c < PANEL_COLUMNS; c++)
            memcpy(head + 2 * c, &block->half[c][i], 2);
    for (int i = 0; i < format->n_byte; i++, head += 16)
        for (int c = 0; c < PANEL_COLUMNS; c++)
            head[c] = block->byte[c][i];
}

static void unpack_head(const struct panel_format *format, const uint8_t *head,
                        struct code_block *block)
{
    for (int i = 0; i < format->n_half; i++, head += 32)
        for (int c = 0; c < PANEL_COLUMNS; c++)
            memcpy(&block->half[c][i], head + 2 * c, 2);
    for (int i = 0; i < format->n_byte; i++, head += 16)
        for (int c = 0; c < PANEL_COLUMNS; c++)
            block->byte[c][i] = head[c];
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

/* One panel: `n_columns` rows of the file, the rest of its columns zeros. */
static void pack_panel(const struct panel_format *format, uint8_t *panel, const uint8_t *rows,
                       int n_columns, int k)
{
    size_t block_bytes = file_block_bytes(format);
    int n_blocks = k / format->block_k, units = format->block_k / UNIT_K;
    uint8_t *codes = panel, *head = panel + panel_codes_bytes(format, k);
    struct code_block block;
    memset(&block, 0, sizeof block);
    for (int b = 0; b < n_blocks; b++) {
        for (int c = 0; c < n_columns; c++)
            format->split(rows + ((size_t)c * (size_t)n_blocks + (size_t)b) * block_bytes,
                          (uint8_t *)block.words[c], block.half[c], block.byte[c]);
        for (int u = 0; u < units; u++, codes += format->unit_bytes)
            pack_unit(format, codes, &block, u);
        pack_head(format, head, &block);
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
        pack_panel(format, panel, (const uint8_t *)rows + (size_t)(j - n0) * row_bytes, columns, k);
    }
}

static void unpack_panel(const struct panel_format *format, uint8_t *rows, const uint8_t *panel,
                         int n_columns, int k)
{
    size_t block_bytes = file_block_bytes(format);
    int n_blocks = k / format->block_k, units = format->block_k / UNIT_K;
    const uint8_t *codes = panel, *head = panel + panel_codes_bytes(format, k);
    struct code_block block;
    for (int b = 0; b < n_blocks; b++, head += format->head_bytes) {
        for (int u = 0; u < units; u++, codes += format->unit_bytes)
            unpack_unit(format, codes, &block, u);
        unpack_head(format, head, &block);
        for (int c = 0; c < n_columns; c++)
            format->join(rows + ((size_t)c * (size_t)n_blocks + (size_t)b) * block_bytes,
                         (uint8_t *)block.words[c], block.half[c], block.byte[c]);
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
