/* Panels of F32, F16 and BF16 weights, as drawn in layout.h. */
#include "kernels/scalar/float_panels.h"

#include <string.h>

#include "kernels/layout.h"

static int panel_count(int n)
{
    return (n + PANEL_COLUMNS - 1) / PANEL_COLUMNS;
}

size_t float_packed_bytes_32(int n, int k)
{
    return (size_t)panel_count(n) * float_panel_bytes(k, 4);
}

size_t float_packed_bytes_16(int n, int k)
{
    return (size_t)panel_count(n) * float_panel_bytes(k, 2);
}

/* Where column j of a panel has its weight k, in weights. */
static size_t plain_index(int k, int j)
{
    return (size_t)k * PANEL_COLUMNS + (size_t)j;
}

static size_t paired_index(int k, int j)
{
    return (size_t)(k / 2 * PANEL_COLUMNS + j) * 2 + (size_t)(k & 1);
}

/* pack and unpack of one type; the rows of a file need not be aligned, hence memcpy. */
#define PACK(pack, type, index)                                                                    \
    pack(void *packed, const void *rows, int n, int k, int n0, int n1)                             \
    {                                                                                              \
        const char *row = rows;                                                                    \
        for (int c0 = n0; c0 < n1; c0 += PANEL_COLUMNS) {                                          \
            type *panel = (type *)packed + (size_t)c0 * (size_t)float_panel_k(k);                  \
            memset(panel, 0, float_panel_bytes(k, sizeof(type)));                                  \
            for (int j = 0; j < PANEL_COLUMNS && c0 + j < n; j++, row += (size_t)k * sizeof(type)) \
                for (int i = 0; i < k; i++)                                                        \
                    memcpy(panel + index(i, j), row + (size_t)i * sizeof(type), sizeof(type));     \
        }                                                                                          \
    }

#define UNPACK(unpack, type, index)                                                                \
    unpack(void *rows, const void *packed, int n, int k, int n0, int n1)                           \
    {                                                                                              \
        char *row = rows;                                                                          \
        for (int c0 = n0; c0 < n1; c0 += PANEL_COLUMNS) {                                          \
            const type *panel = (const type *)packed + (size_t)c0 * (size_t)float_panel_k(k);      \
            for (int j = 0; j < PANEL_COLUMNS && c0 + j < n; j++, row += (size_t)k * sizeof(type)) \
                for (int i = 0; i < k; i++)                                                        \
                    memcpy(row + (size_t)i * sizeof(type), panel + index(i, j), sizeof(type));     \
        }                                                                                          \
    }

static void PACK(pack_any_f32, uint32_t, plain_index)
static void PACK(pack_any_bf16, uint16_t, paired_index)
void PACK(float_pack_f16, uint16_t, plain_index)
void UNPACK(float_unpack_f32, uint32_t, plain_index)
void UNPACK(float_unpack_f16, uint16_t, plain_index)
void UNPACK(float_unpack_bf16, uint16_t, paired_index)

/* Full panels of an even k are transposed words: a weight, or a pair of them. */
#define PACK_WORDS(name, type)                                                                     \
    void float_pack_##name(void *packed, const void *rows, int n, int k, int n0, int n1)           \
    {                                                                                              \
        size_t row_bytes = (size_t)k * sizeof(type);                                               \
        const char *row = rows;                                                                    \
        for (; k % 2 == 0 && n0 + PANEL_COLUMNS <= n1; n0 += PANEL_COLUMNS) {                      \
            panel_transpose((char *)packed + (size_t)n0 * row_bytes, row, row_bytes,               \
                            (int)(row_bytes / sizeof(uint32_t)));                                  \
            row += PANEL_COLUMNS * row_bytes;                                                      \
        }                                                                                          \
        pack_any_##name(packed, row, n, k, n0, n1);                                                \
    }

PACK_WORDS(f32, uint32_t)
PACK_WORDS(bf16, uint16_t)

void float_copy_rows(const struct quantize_args *q)
{
    for (int i = 0; i < q->m; i++)
        memcpy((float *)((char *)q->a + (size_t)i * q->a_stride) + q->k0,
               q->x + (size_t)i * q->ldx, (size_t)(q->k1 - q->k0) * sizeof(float));
}
