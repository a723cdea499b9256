/* The AMX tile instructions, as inline assembly with full memory operands or clobbers: compilers'
 * intrinsics for them are no barriers (GCC's declare only part of the memory that is read), so
 * that stores just before a tile load may be moved past it.
 *
 * Tile numbers are literals 0..7. A tile has up to 16 rows of up to 64 bytes. The instructions are
 * valid between tile_load_config and tile_release of the same thread. */
#ifndef TESSERA_AMX_TILE_H
#define TESSERA_AMX_TILE_H

#include <stddef.h>
#include <stdint.h>

enum { TILE_COUNT = 8, TILE_ROWS = 16, TILE_ROW_BYTES = 64, TILE_BYTES = 1024 };

/* The memory operand of LDTILECFG, 64 bytes. */
struct tile_config {
    uint8_t palette;   /* 1; 0 is the initial state */
    uint8_t start_row; /* where an interrupted load or store goes on */
    uint8_t reserved[14];
    uint16_t row_bytes[16]; /* of tiles 0 to 7, the rest zero */
    uint8_t rows[16];
};
_Static_assert(sizeof(struct tile_config) == 64, "LDTILECFG reads 64 bytes");

static inline void tile_load_config(const struct tile_config *config)
{
    __asm__ volatile("ldtilecfg %0" : : "m"(*config) : "memory");
}

static inline void tile_store_config(struct tile_config *config)
{
    __asm__ volatile("sttilecfg %0" : "=m"(*config) : : "memory");
}

static inline void tile_release(void) { __asm__ volatile("tilerelease" : : : "memory"); }

/* All eight tiles at full size, 16 rows of 64 bytes. */
static inline void tile_config_full(void)
{
    struct tile_config config = {.palette = 1};
    for (int i = 0; i < TILE_COUNT; i++) {
        config.row_bytes[i] = TILE_ROW_BYTES;
        config.rows[i] = TILE_ROWS;
    }
    tile_load_config(&config);
}

#define TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t : : : "memory")

/* Rows `stride` bytes apart, from or to `base`. */
#define TILE_LOAD(t, base, stride)                                                               \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t                                             \
                     :                                                                           \
                     : "r"((const void *)(base)), "r"((ptrdiff_t)(stride))                       \
                     : "memory")
/* The same with a hint that the data will not be used again soon. */
#define TILE_LOAD_ONCE(t, base, stride)                                                          \
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #t                                           \
                     :                                                                           \
                     : "r"((const void *)(base)), "r"((ptrdiff_t)(stride))                       \
                     : "memory")
#define TILE_STORE(t, base, stride)                                                              \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)"                                         \
                     :                                                                           \
                     : "r"((void *)(base)), "r"((ptrdiff_t)(stride))                             \
                     : "memory")

/* c += a * b. Of int8, s for signed and u for unsigned: the first letter is a's, the second b's.
 * A row of b holds, for each of 16 columns, 4 bytes or 2 bf16 of consecutive k. */
#define TILE_DP(op, c, a, b)                                                                     \
    __asm__ volatile(op " %%tmm" #b ", %%tmm" #a ", %%tmm" #c : : : "memory")
#define TILE_DPBSSD(c, a, b) TILE_DP("tdpbssd", c, a, b)
#define TILE_DPBSUD(c, a, b) TILE_DP("tdpbsud", c, a, b)
#define TILE_DPBUSD(c, a, b) TILE_DP("tdpbusd", c, a, b)
#define TILE_DPBUUD(c, a, b) TILE_DP("tdpbuud", c, a, b)
#define TILE_DPBF16(c, a, b) TILE_DP("tdpbf16ps", c, a, b)

#endif
