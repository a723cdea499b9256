/* What every part of the template interpreter shares: bounded memory and time, failure, strings.
 *
 * All memory of one rendering, source to result, lies in one arena and is freed at once. A failure
 * leaves the interpreter through longjmp to template_render, the only place that owns anything;
 * so no function in this folder may hold a resource outside the arena across a call that can fail.
 */
#ifndef TESSERA_TEXT_TEMPLATE_MACHINE_H
#define TESSERA_TEXT_TEMPLATE_MACHINE_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    MAX_DEPTH = 400,       /* nesting of expressions, blocks, calls and values */
    MAX_OUTPUT = 64 << 20, /* bytes of rendered text */
    MAX_MEMORY = 256 << 20,
    MAX_WORK = 1 << 28, /* units of work, see machine_work */
    WORK_PER_NODE = 8,
    MAX_RANGE = 100000, /* as Jinja's sandbox has it */
};

struct str {
    const char *data;
    size_t len;
};

struct arena_block;

struct machine {
    struct tsr_error *error;
    jmp_buf failure;
    int code;    /* set before the jump */
    size_t line; /* of the template, 1-based: what is being parsed or evaluated */
    struct arena_block *blocks;
    size_t memory;
    size_t work;
    size_t depth;
    struct buffer *out; /* where print statements write */
    bool has_now;       /* the caller gave the time, for strftime_now */
    int64_t now;        /* seconds since 1970, UTC */
};

/* Fails with TSR_ETEMPLATE and "chat template, line N: " before the message. */
_Noreturn __attribute__((format(printf, 2, 3))) void machine_fail(struct machine *m,
                                                                  const char *format, ...);

/* Counts work, about a nanosecond a unit; fails when the template used up what it may. */
void machine_work(struct machine *m, size_t units);

/* Around every recursion. A failure in between needs no leave. */
void machine_enter(struct machine *m);
void machine_leave(struct machine *m);

/* Zeroed memory of count * size bytes that lives as long as the machine; never NULL. */
void *machine_alloc(struct machine *m, size_t count, size_t size);
void machine_free(struct machine *m);

/* Doubles an array of the arena when it is full. */
void *machine_grow(struct machine *m, void *array, size_t n, size_t *capacity, size_t size);

/* Arguments for a "%.*s" that quotes a string in an error. */
#define QUOTE(s) (int)((s).len < 200 ? (s).len : 200), (s).data

static inline struct str str_of(const char *text)
{
    return (struct str){text, __builtin_strlen(text)};
}

static inline struct str str_sub(struct str s, size_t begin, size_t end)
{
    return (struct str){s.data + begin, end - begin};
}

static inline bool str_equal(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || __builtin_memcmp(a.data, b.data, a.len) == 0);
}

static inline bool str_is(struct str s, const char *text)
{
    return str_equal(s, str_of(text));
}

/* Text that grows. */
struct buffer {
    char *data;
    size_t len, capacity;
};

void buffer_add(struct machine *m, struct buffer *b, struct str s);
void buffer_text(struct machine *m, struct buffer *b, const char *text);
void buffer_char(struct machine *m, struct buffer *b, char c);
void buffer_codepoint(struct machine *m, struct buffer *b, uint32_t c);

static inline struct str buffer_str(const struct buffer *b)
{
    return (struct str){b->data ? b->data : "", b->len};
}

#endif
