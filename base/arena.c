#include "base/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

enum { BLOCK_MIN = 1024 }; /* each block is twice the one before it */

struct arena_block {
    struct arena_block *next;
    size_t used, size;
    _Alignas(16) unsigned char bytes[];
};

static struct arena_block *grow(struct arena *a, size_t size)
{
    size_t want = size > BLOCK_MIN ? size : BLOCK_MIN;
    struct arena_block *b;

    if (a->head && a->head->size * 2 > want && a->head->size < ((size_t)8 << 20))
        want = a->head->size * 2 > size ? a->head->size * 2 : size;
    if (want > SIZE_MAX - sizeof *b)
        return NULL;
    b = mem_alloc(sizeof *b + want);
    if (!b)
        return NULL;
    b->size = want;
    b->next = a->head;
    a->head = b;
    return b;
}

void *arena_alloc(struct arena *a, size_t size)
{
    struct arena_block *b = a->head;
    void *p;

    if (size > SIZE_MAX - 15)
        return NULL;
    size = (size + 15) & ~(size_t)15;
    if ((!b || b->size - b->used < size) && !(b = grow(a, size)))
        return NULL;
    p = b->bytes + b->used;
    b->used += size;
    a->total += size;
    return p;
}

void *arena_array(struct arena *a, size_t n, size_t size)
{
    if (size && n > SIZE_MAX / size)
        return NULL;
    return arena_alloc(a, n * size);
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
    char *p = arena_alloc(a, n + 1);

    return p ? memcpy(p, s, n) : NULL;
}

char *arena_strdup(struct arena *a, const char *s)
{
    return arena_strndup(a, s, strlen(s));
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap;
    char *p;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !(p = arena_alloc(a, (size_t)n + 1)))
        return NULL;
    va_start(ap, fmt);
    vsnprintf(p, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return p;
}

void arena_reset(struct arena *a)
{
    struct arena_block *b = a->head;

    if (!b)
        return;
    for (struct arena_block *next, *p = b->next; p; p = next) {
        next = p->next;
        mem_free(p);
    }
    memset(b->bytes, 0, b->used);
    b->next = NULL;
    b->used = 0;
    a->total = 0;
}

void arena_fini(struct arena *a)
{
    for (struct arena_block *next, *p = a->head; p; p = next) {
        next = p->next;
        mem_free(p);
    }
    a->head = NULL;
    a->total = 0;
}
