/* Arenas: memory for anything with a phase (a request, a job, a file being parsed).
 * Allocation is a pointer bump; everything goes at once with arena_fini().
 *
 * Invariant: pointers stay valid until arena_reset() or arena_fini(). A zeroed arena is
 * ready for use; arena_fini() accepts it, and may be called twice. NULL: out of memory. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

struct arena_block;

struct arena {
    struct arena_block *head;
    size_t total; /* bytes handed out since the last reset */
};

void *arena_alloc(struct arena *a, size_t size);           /* zeroed, 16-aligned */
void *arena_array(struct arena *a, size_t n, size_t size); /* overflow-checked */
char *arena_strdup(struct arena *a, const char *s);
char *arena_strndup(struct arena *a, const char *s, size_t n);
char *arena_printf(struct arena *a, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void arena_reset(struct arena *a); /* keeps the newest block for reuse */
void arena_fini(struct arena *a);

#endif
