/* The panels and records of products of packed codes; included at the end of each instruction set's
 * source, which has defined
 *
 *     MR                  rows of a register block, at most ACT_ROWS
 *     INLINE              what functions are that must see constants
 *     struct traits       what instances differ in; traits_of(block_id, bits, block_k)
 *     CHUNK_VARIANTS(X)   X(name, traits) of the ways to multiply unpacked units, CHUNK_name their
 *                         numbers, chunk_variant(traits) that of a type
 *     struct unit         an unpacked unit of 32 k x 16 columns: codes, struct unit_scales scales
 *     unpack_scales       the scales of a unit from the head of its block
 *     unpack_unit         a unit, scales and all
 *     struct operand      a unit that is packed or unpacked, with its scales
 *     struct sums         MR rows of 16 columns in registers; zero_sums, load_sums, store_sums
 *     multiply_unit       adds rows times an operand to sums
 *     NAME, FLAGS         of the instruction set, for its records
 *
 * Up to MR rows multiply codes as they are unpacked in registers, so that one row reads weights as
 * fast as memory gives them. For more rows a chunk of a panel is unpacked once into L1. */

/* Units that are unpacked at once (12 KiB: half of an L1 that two hyperthreads share), and how far
 * ahead of its use memory is asked for. */
enum { CHUNK_UNITS = 16, PREFETCH_UNITS = 16 };

/* Columns j .. j + 15 of a packed matrix. */
struct panel {
    const struct panel_format *format;
    const uint8_t *codes, *heads;
    const uint8_t *next; /* the panel that is read after it; NULL: none is */
    int n_units;
};

static inline struct panel panel_at(const struct gemm_args *g, const struct panel_format *format,
                                    int j)
{
    const size_t bytes = panel_bytes(format, g->k);
    const uint8_t *codes = (const uint8_t *)g->w + (size_t)(j / PANEL_COLUMNS) * bytes;
    return (struct panel){
        .format = format,
        .codes = codes,
        .heads = codes + panel_codes_bytes(format, g->k),
        .next = j + PANEL_COLUMNS < g->n1 ? codes + bytes : g->next,
        .n_units = g->k / UNIT_K,
    };
}

static inline const uint8_t *unit_planes(const struct panel *panel, const struct traits t, int u)
{
    return panel->codes + (size_t)(u * t.bits) * VECTOR_BYTES;
}

static inline const uint8_t *unit_head(const struct panel *panel, const struct traits t, int u)
{
    return panel->heads + (size_t)(u / (t.block_k / UNIT_K)) * (size_t)panel->format->head_bytes;
}

/* Asks for unit u, which may be one of the first of the next panel, and its head. Hardware
 * prefetches neither over the heads' stream to another panel's codes nor, soon enough, the few
 * heads of a panel. */
INLINE void prefetch_unit(const struct panel *panel, const struct traits t, int u)
{
    const int units_in_block = t.block_k / UNIT_K;
    struct panel of = *panel;
    if (u >= of.n_units) {
        if (!of.next)
            return;
        of.heads = of.next + (of.heads - of.codes);
        of.codes = of.next;
        u = u - of.n_units < of.n_units ? u - of.n_units : of.n_units - 1;
    }
    for (int i = 0; i < t.bits; i++) /* a unit is so many cache lines */
        _mm_prefetch((const char *)unit_planes(&of, t, u) + 64 * i, _MM_HINT_T0);
    for (int at = 0; u % units_in_block == 0 && at < of.format->head_bytes; at += 64)
        _mm_prefetch((const char *)unit_head(&of, t, u) + at, _MM_HINT_T0);
}

/* All rows of g (`rows`, 1 .. MR) times a panel. */
INLINE void multiply_few(const struct gemm_args *g, const struct traits t,
                         const struct panel *panel, int rows, float *c, int n_columns)
{
    const struct act_rows x = act_rows_at(g, 0, rows, 0, t.halves);
    struct sums sums;
    zero_sums(&sums, rows);
    for (int u = 0; u < panel->n_units; u++) {
        prefetch_unit(panel, t, u + PREFETCH_UNITS);
        struct unit_scales scales;
        unpack_scales(&scales, t, unit_head(panel, t, u), u % (t.block_k / UNIT_K));
        const struct operand b = {
            .is_packed = true, .planes = unit_planes(panel, t, u), .scales = &scales};
        multiply_unit(t, &b, &x, u, rows, &sums);
    }
    store_sums(&sums, rows, c, g->ldc, n_columns);
}

/* `rows` (1 .. MR) rows from `row` on times a chunk of n_units, added to C [rows, n_columns], which
 * the first chunk sets. */
INLINE void multiply_block(const struct gemm_args *g, const struct traits t,
                           const struct unit *units, int first_unit, int n_units, int row, int rows,
                           float *c, int n_columns)
{
    const struct act_rows x = act_rows_at(g, row, rows, first_unit, t.halves);
    struct sums sums;
    c += (size_t)row * g->ldc;
    if (first_unit == 0)
        zero_sums(&sums, rows);
    else
        load_sums(&sums, rows, c, g->ldc, n_columns);
    for (int u = 0; u < n_units; u++) {
        const struct operand b = {.codes = units[u].codes, .scales = &units[u].scales};
        multiply_unit(t, &b, &x, u, rows, &sums);
    }
    store_sums(&sums, rows, c, g->ldc, n_columns);
}

/* CALL(n) for n == rows, up to MR, with n a constant. */
#define FOR_ROWS(rows, CALL)                                                                       \
    switch (rows) {                                                                                \
    case 1: CALL(1); break;                                                                        \
    case 2: CALL(2); break;                                                                        \
    case 3: CALL(3); break;                                                                        \
    case 4: CALL(4); break;                                                                        \
    case 5: if (MR >= 5) CALL(5); break;                                                           \
    case 6: if (MR >= 6) CALL(6); break;                                                           \
    case 7: if (MR >= 7) CALL(7); break;                                                           \
    case 8: if (MR >= 8) CALL(8); break;                                                           \
    default: break;                                                                                \
    }

INLINE void multiply_chunk(const struct gemm_args *g, const struct traits t,
                           const struct unit *units, int first_unit, int n_units, float *c,
                           int n_columns)
{
    int i = 0;
    for (; i + MR <= g->m; i += MR)
        multiply_block(g, t, units, first_unit, n_units, i, MR, c, n_columns);
#define BLOCK(rows) multiply_block(g, t, units, first_unit, n_units, i, rows, c, n_columns)
    FOR_ROWS(g->m - i, BLOCK)
#undef BLOCK
}

/* One function for all types whose unpacked units are multiplied alike. */
typedef void chunk_fn(const struct gemm_args *g, const struct unit *units, int first_unit,
                      int n_units, float *c, int n_columns);

#define DEFINE_CHUNK(name, ...)                                                                    \
    static __attribute__((noinline)) void chunk_##name(                                            \
        const struct gemm_args *g, const struct unit *units, int first_unit, int n_units,          \
        float *c, int n_columns)                                                                   \
    {                                                                                              \
        const struct traits t = {__VA_ARGS__};                                                     \
        multiply_chunk(g, t, units, first_unit, n_units, c, n_columns);                            \
    }
CHUNK_VARIANTS(DEFINE_CHUNK)

#define CHUNK_ENTRY(name, ...) [CHUNK_##name] = chunk_##name,
static chunk_fn *const chunks[] = {CHUNK_VARIANTS(CHUNK_ENTRY)};

INLINE void multiply_many(const struct gemm_args *g, const struct traits t,
                          const struct panel *panel, float *c, int n_columns)
{
    struct unit *units = g->scratch;
    for (int first = 0; first < panel->n_units; first += CHUNK_UNITS) {
        int left = panel->n_units - first, count = left < CHUNK_UNITS ? left : CHUNK_UNITS;
        for (int u = first; u < first + count; u++) {
            prefetch_unit(panel, t, u + PREFETCH_UNITS);
            unpack_unit(&units[u - first], t, unit_planes(panel, t, u), unit_head(panel, t, u),
                        u % (t.block_k / UNIT_K));
        }
        chunks[chunk_variant(t)](g, units, first, count, c, n_columns);
    }
}

INLINE void gemm_type(const struct gemm_args *g, const struct traits t)
{
    const struct panel_format *format = panel_format_find(t.block_id);
    for (int j = g->n0; j < g->n1; j += PANEL_COLUMNS) {
        const struct panel panel = panel_at(g, format, j);
        float *c = g->c + (j - g->n0);
        int n_columns = g->n1 - j < PANEL_COLUMNS ? g->n1 - j : PANEL_COLUMNS;
        if (g->m > MR) {
            multiply_many(g, t, &panel, c, n_columns);
            continue;
        }
#define FEW(rows) multiply_few(g, t, &panel, rows, c, n_columns)
        FOR_ROWS(g->m, FEW)
#undef FEW
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
