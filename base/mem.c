#include "base/mem.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, HUGE_PAGE = 2 << 20 };

static atomic_long fail_in = -1;
static atomic_int fired;
static atomic_long live;

static int must_fail(void)
{
    if (atomic_load_explicit(&fail_in, memory_order_relaxed) < 0)
        return 0;
    if (atomic_fetch_sub(&fail_in, 1) != 0)
        return 0;
    fired = 1;
    return 1;
}

static void *counted(void *p)
{
    if (p)
        atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return p;
}

void *mem_alloc(size_t size)
{
    return must_fail() ? NULL : counted(calloc(1, size ? size : 1));
}

void *mem_array(size_t n, size_t size)
{
    if (size && n > SIZE_MAX / size)
        return NULL;
    return mem_alloc(n * size);
}

void *mem_resize(void *p, size_t n, size_t size)
{
    void *q;

    if ((size && n > SIZE_MAX / size) || must_fail())
        return NULL;
    q = realloc(p, n && size ? n * size : 1);
    if (q && !p)
        counted(q);
    return q;
}

void *mem_aligned(size_t alignment, size_t size)
{
    void *p = NULL;

    if (must_fail() || size > SIZE_MAX - alignment)
        return NULL;
    size = (size + alignment - 1) / alignment * alignment;
    if (size >= HUGE_PAGE && alignment < HUGE_PAGE)
        alignment = HUGE_PAGE;
    if (posix_memalign(&p, alignment, size ? size : alignment))
        return NULL;
    mem_advise(p, size, MEM_DENSE);
    return counted(p);
}

void mem_advise(void *p, size_t size, enum mem_use use)
{
    uintptr_t unit = use == MEM_DENSE ? HUGE_PAGE : PAGE;
    uintptr_t from = ((uintptr_t)p + unit - 1) / unit * unit;
    uintptr_t to = ((uintptr_t)p + size) / unit * unit;

    if (from < to)
        madvise((void *)from, to - from,
                use == MEM_DENSE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

char *mem_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = mem_alloc(n);

    return p ? memcpy(p, s, n) : NULL;
}

void mem_free(void *p)
{
    if (p)
        atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    free(p);
}

void mem_fail_at(long n)
{
    fired = 0;
    fail_in = n;
}

int mem_failed(void)
{
    return fired;
}

long mem_live(void)
{
    return live;
}
