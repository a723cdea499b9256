/* Bounded memory and time, failure and text buffers of the template interpreter. */
#include "text/template/machine.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/mem.h"

struct arena_block {
    struct arena_block *next;
    size_t used, size;
    _Alignas(16) char data[];
};

enum { ARENA_BLOCK = 64 << 10 };

void machine_fail(struct machine *m, const char *format, ...)
{
    char text[sizeof m->error->text];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    m->code = error_set(m->error, TSR_ETEMPLATE, "chat template, line %zu: %s", m->line, text);
    longjmp(m->failure, 1);
}

void machine_work(struct machine *m, size_t units)
{
    if (units > MAX_WORK - m->work)
        machine_fail(m, "the template does not come to an end (limit of evaluation steps)");
    m->work += units;
}

void machine_enter(struct machine *m)
{
    if (++m->depth > MAX_DEPTH)
        machine_fail(m, "nested deeper than %d levels", MAX_DEPTH);
    machine_work(m, WORK_PER_NODE);
}

void machine_leave(struct machine *m)
{
    m->depth--;
}

static struct arena_block *new_block(struct machine *m, size_t size)
{
    struct arena_block *block = malloc(sizeof *block + size);
    if (!block) {
        m->code = error_set(m->error, TSR_ENOMEM, "chat template: out of memory");
        longjmp(m->failure, 1);
    }
    *block = (struct arena_block){.size = size};
    return block;
}

void *machine_alloc(struct machine *m, size_t count, size_t size)
{
    size_t bytes;
    if (!mul_size(count, size, &bytes) || bytes > MAX_MEMORY - m->memory)
        machine_fail(m, "the template uses more than %d MiB of memory", MAX_MEMORY >> 20);
    bytes = (bytes + 15) & ~(size_t)15;
    struct arena_block *block = m->blocks;
    if (!block || bytes > block->size - block->used) {
        block = new_block(m, bytes > ARENA_BLOCK / 4 ? bytes : ARENA_BLOCK);
        /* A block for one large thing goes behind the current one, which has room left. */
        struct arena_block **at = m->blocks && block->size == bytes ? &m->blocks->next : &m->blocks;
        block->next = *at;
        *at = block;
    }
    void *memory = block->data + block->used;
    block->used += bytes;
    m->memory = bytes > MAX_MEMORY - m->memory ? MAX_MEMORY : m->memory + bytes;
    return memset(memory, 0, bytes);
}

void machine_free(struct machine *m)
{
    for (struct arena_block *block = m->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    m->blocks = NULL;
}

void *machine_grow(struct machine *m, void *array, size_t n, size_t *capacity, size_t size)
{
    if (n < *capacity)
        return array;
    size_t larger = *capacity ? *capacity * 2 : 8;
    void *copy = machine_alloc(m, larger, size);
    if (n)
        memcpy(copy, array, n * size);
    *capacity = larger;
    return copy;
}

void buffer_add(struct machine *m, struct buffer *b, struct str s)
{
    if (s.len > MAX_OUTPUT - b->len)
        machine_fail(m, "the text is longer than %d MiB", MAX_OUTPUT >> 20);
    machine_work(m, s.len / 8 + 1);
    if (s.len > b->capacity - b->len) {
        size_t larger = 2 * (b->len + s.len) + 32;
        char *copy = machine_alloc(m, larger, 1);
        if (b->len)
            memcpy(copy, b->data, b->len);
        b->data = copy;
        b->capacity = larger;
    }
    if (s.len)
        memcpy(b->data + b->len, s.data, s.len);
    b->len += s.len;
}

void buffer_text(struct machine *m, struct buffer *b, const char *text)
{
    buffer_add(m, b, str_of(text));
}

void buffer_char(struct machine *m, struct buffer *b, char c)
{
    buffer_add(m, b, (struct str){&c, 1});
}

void buffer_codepoint(struct machine *m, struct buffer *b, uint32_t c)
{
    utf8proc_uint8_t bytes[4];
    utf8proc_ssize_t n = utf8proc_encode_char((utf8proc_int32_t)c, bytes);
    buffer_add(m, b, (struct str){(const char *)bytes, n > 0 ? (size_t)n : 0});
}
