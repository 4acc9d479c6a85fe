/* Host memory: every allocation in the project goes through here, so that a test can make
 * the n-th one fail and count what was not given back.
 *
 * Invariant: a block from mem_alloc() is zeroed; sizes are checked for overflow; NULL
 * means out of memory and nothing else. mem_free(NULL) is allowed. */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stddef.h>

void *mem_alloc(size_t size);                     /* zeroed; NULL: out of memory */
void *mem_array(size_t n, size_t size);           /* n * size bytes, zeroed */
void *mem_resize(void *p, size_t n, size_t size); /* realloc; new bytes undefined */
void *mem_aligned(size_t alignment, size_t size); /* not zeroed; mem_free() frees */
/* What a fresh block will be: written whole (fault it in by huge pages: a page fault costs
 * as much as filling its 4 KiB; blocks of mem_aligned() are taken for this when they are
 * large), or touched here and there (every huge page would be memory for nothing). A word
 * to the system, which may not listen: nothing fails. */
enum mem_use { MEM_DENSE, MEM_SPARSE };
void mem_advise(void *p, size_t size, enum mem_use use);

char *mem_strdup(const char *s);
void mem_free(void *p);

/* Test control: fail the n-th allocation from now (0 = next), -1 = never. */
void mem_fail_at(long n);
int mem_failed(void); /* did the armed failure fire? */
long mem_live(void);  /* blocks allocated and not freed */

#endif
