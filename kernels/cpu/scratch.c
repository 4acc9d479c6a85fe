/* Buffers that operators need for the length of one call. Kept in a small pool, so that
 * large ones do not fault their pages in anew on every call. The pool is the process's;
 * a buffer in use belongs to one caller. */
#include <pthread.h>
#include <stdint.h>

#include "base/mem.h"
#include "kernels/cpu/cpu.h"

enum { POOL_MAX = 256, HEADER = 64 };

struct header {
    size_t bytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct header *idle[POOL_MAX];
static int n_idle;

void *cpu_scratch_take(size_t bytes)
{
    struct header *h = NULL;
    int best = -1;

    pthread_mutex_lock(&lock);
    for (int i = 0; i < n_idle; i++)
        if (idle[i]->bytes >= bytes && (best < 0 || idle[i]->bytes < idle[best]->bytes))
            best = i;
    if (best >= 0) {
        h = idle[best];
        idle[best] = idle[--n_idle];
    } else if (n_idle) { /* too small: make room for a larger one */
        mem_free(idle[--n_idle]);
    }
    pthread_mutex_unlock(&lock);
    if (!h && bytes < SIZE_MAX / 2) {
        bytes += bytes / 4;
        h = mem_aligned(64, (bytes + 2 * HEADER - 1) / HEADER * HEADER);
        if (h)
            h->bytes = bytes;
    }
    return h ? (char *)h + HEADER : NULL;
}

void cpu_scratch_give(void *p)
{
    struct header *h = p ? (struct header *)(void *)((char *)p - HEADER) : NULL;

    if (!h)
        return;
    pthread_mutex_lock(&lock);
    if (n_idle < POOL_MAX) {
        idle[n_idle++] = h;
        h = NULL;
    }
    pthread_mutex_unlock(&lock);
    mem_free(h);
}
