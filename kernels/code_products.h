/* The panels and records of products of packed codes; included at the end of each instruction set's
 * source, which has defined
 *
 *     MR, CHUNK_UNITS     rows of a register block, units that are unpacked at once at most
 *     struct unit         an unpacked unit of 32 k x 16 columns
 *     struct traits       what instances differ in; traits_of(block_id, bits, block_k)
 *     unpack_unit         one unit of codes with its head to a struct unit
 *     multiply_chunk      all rows times some unpacked units, added to C (set by the first unit)
 */

/* How far ahead of unpacking memory is asked for codes; bytes of codes that one row, or a few,
 * unpack at once: longer bursts wait for memory, which then waits for the products. */
enum { PREFETCH_UNITS = 16, ONE_ROW_BURST = 1024, FEW_ROWS_BURST = 2048 };

static inline int units_at_once(int m, int unit_bytes)
{
    int burst = (m == 1 ? ONE_ROW_BURST : FEW_ROWS_BURST) / unit_bytes;
    return m > MR || burst > CHUNK_UNITS ? CHUNK_UNITS : burst;
}

/* Asks for unit u of a panel and its head. u may be one of the first of the panel that is read
 * after it, `next`; NULL: none is. Hardware prefetches neither over the heads' stream to another
 * panel's codes nor, soon enough, the few heads of a panel. */
static inline __attribute__((always_inline)) void
prefetch_unit(const struct panel_format *format, const struct traits t, const uint8_t *panel, int k,
              int u, const uint8_t *next)
{
    const int n_units = k / UNIT_K, units_in_block = t.block_k / UNIT_K;
    if (u >= n_units) {
        if (!next)
            return;
        panel = next;
        u = u - n_units < n_units ? u - n_units : n_units - 1;
    }
    const char *codes = (const char *)panel + (size_t)(u * t.bits) * VECTOR_BYTES;
    for (int i = 0; i < t.bits; i++) /* a unit is so many cache lines */
        _mm_prefetch(codes + 64 * i, _MM_HINT_T0);
    const char *head = (const char *)panel + panel_codes_bytes(format, k) +
                       (size_t)(u / units_in_block) * (size_t)format->head_bytes;
    for (int at = 0; u % units_in_block == 0 && at < format->head_bytes; at += 64)
        _mm_prefetch(head + at, _MM_HINT_T0);
}

static inline __attribute__((always_inline)) void gemm_type(const struct gemm_args *g,
                                                            const struct traits t)
{
    struct unit *units = g->scratch;
    const struct panel_format *format = panel_format_find(t.block_id);
    const int units_in_block = t.block_k / UNIT_K, n_units = g->k / UNIT_K;
    const int unit_bytes = t.bits * VECTOR_BYTES, chunk = units_at_once(g->m, unit_bytes);
    for (int j = g->n0; j < g->n1; j += PANEL_COLUMNS) {
        const uint8_t *codes =
            (const uint8_t *)g->w + (size_t)(j / PANEL_COLUMNS) * panel_bytes(format, g->k);
        const uint8_t *heads = codes + panel_codes_bytes(format, g->k);
        int columns = g->n1 - j < PANEL_COLUMNS ? g->n1 - j : PANEL_COLUMNS;
        const uint8_t *next =
            j + PANEL_COLUMNS < g->n1 ? codes + panel_bytes(format, g->k) : g->next;
        for (int first = 0; first < n_units; first += chunk) {
            int count = n_units - first < chunk ? n_units - first : chunk;
            for (int u = first; u < first + count; u++) {
                prefetch_unit(format, t, codes, g->k, u + PREFETCH_UNITS, next);
                unpack_unit(&units[u - first], t, codes + (size_t)u * (size_t)unit_bytes,
                            heads + (size_t)(u / units_in_block) * (size_t)format->head_bytes,
                            u % units_in_block);
            }
            multiply_chunk(g, t, units, first, count, g->c + (j - g->n0), columns);
        }
    }
}

static size_t scratch_bytes(int k)
{
    return CHUNK_UNITS * sizeof(struct unit);
}

/* type, bits of a code, k of a file block */
#define CODE_BITS(X)                                                                               \
    X(Q4_0, 4, 32) X(Q4_1, 4, 32) X(Q5_0, 5, 32) X(Q5_1, 5, 32) X(Q8_0, 8, 32) X(Q2_K, 2, 256)     \
    X(Q3_K, 3, 256) X(Q4_K, 4, 256) X(Q5_K, 5, 256) X(Q6_K, 6, 256) X(IQ4_NL, 4, 32)               \
    X(IQ4_XS, 4, 256) X(MXFP4, 4, 32)

#define DEFINE_GEMM(type, bits, block_k)                                                           \
    static void gemm_##type(const struct gemm_args *args)                                          \
    {                                                                                              \
        gemm_type(args, traits_of(BLOCK_##type, bits, block_k));                                   \
    }
CODE_BITS(DEFINE_GEMM)

/* NAME and FLAGS: of the instruction set. */
#define CODE_RECORD(type, bits, block_k)                                                           \
    {.name = NAME " " #type,                                                                       \
     .cpu_flags = FLAGS,                                                                           \
     .block_id = BLOCK_##type,                                                                     \
     .act_format = ACT_Q8,                                                                         \
     .mr = MR,                                                                                     \
     .nr = PANEL_COLUMNS,                                                                          \
     .kr = 4,                                                                                      \
     .quantize_rows = avx2_quantize_rows,                                                          \
     .scratch_bytes = scratch_bytes,                                                               \
     .gemm = gemm_##type},

static const struct gemm_kernel code_kernels[] = {CODE_BITS(CODE_RECORD)};
