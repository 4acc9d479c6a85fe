/* The device memory that was reserved: one range, taken from CUDA at once and given out in
 * blocks; the book-keeping is on the host. A freed block may be given out again at once,
 * since everything that runs on the device runs in the order of one stream.
 *
 * Invariant: the blocks, used and free, lie in order and cover the range; no two free ones
 * are neighbours. A block is the lowest free range that is large enough, so what lives long
 * and is asked for early lies low. Fails when CUDA has no range of that size. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/cuda.h"

enum { BLOCK_ALIGN = 256 };

struct block {
    size_t at, bytes;
    int used;
};

static struct {
    pthread_mutex_t lock;
    char *base;
    size_t bytes;
    struct block *block;
    size_t n, cap;
} range = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int insert(size_t i, struct block b)
{
    if (range.n == range.cap) {
        size_t cap = range.cap ? 2 * range.cap : 64;
        struct block *more = mem_resize(range.block, cap, sizeof *more);

        if (!more)
            return ERR_NOMEM;
        range.block = more;
        range.cap = cap;
    }
    memmove(range.block + i + 1, range.block + i, (range.n - i) * sizeof *range.block);
    range.block[i] = b;
    range.n++;
    return 0;
}

static void remove_at(size_t i)
{
    range.n--;
    memmove(range.block + i, range.block + i + 1, (range.n - i) * sizeof *range.block);
}

/* The first part of free block i; the rest stays free. */
static char *use(size_t i, size_t bytes)
{
    struct block b = range.block[i];

    if (b.bytes > bytes && insert(i + 1, (struct block){b.at + bytes, b.bytes - bytes, 0}))
        return NULL;
    range.block[i] = (struct block){b.at, bytes, 1};
    return range.base + b.at;
}

void *cuda_block_take(size_t bytes)
{
    char *p = NULL;
    size_t i = 0;

    bytes = (bytes + !bytes + BLOCK_ALIGN - 1) / BLOCK_ALIGN * BLOCK_ALIGN;
    pthread_mutex_lock(&range.lock);
    while (i < range.n && (range.block[i].used || range.block[i].bytes < bytes))
        i++;
    if (i < range.n)
        p = use(i, bytes);
    pthread_mutex_unlock(&range.lock);
    return p;
}

/* Free block i joins its free neighbours. */
static void join(size_t i)
{
    if (i + 1 < range.n && !range.block[i + 1].used) {
        range.block[i].bytes += range.block[i + 1].bytes;
        remove_at(i + 1);
    }
    if (i > 0 && !range.block[i - 1].used) {
        range.block[i - 1].bytes += range.block[i].bytes;
        remove_at(i);
    }
}

int cuda_block_give(void *p)
{
    size_t at, low = 0, high;
    int ours;

    pthread_mutex_lock(&range.lock);
    high = range.n;
    ours = range.base && (char *)p >= range.base && (char *)p < range.base + range.bytes;
    at = ours ? (size_t)((char *)p - range.base) : 0;
    while (ours && low < high) {
        size_t mid = (low + high) / 2;

        if (range.block[mid].at < at)
            low = mid + 1;
        else
            high = mid;
    }
    if (ours) {
        if (low == range.n || range.block[low].at != at || !range.block[low].used)
            abort(); /* given back twice, or no block's beginning */
        range.block[low].used = 0;
        join(low);
    }
    pthread_mutex_unlock(&range.lock);
    return ours;
}

size_t cuda_blocks_bytes(void)
{
    size_t bytes;

    pthread_mutex_lock(&range.lock);
    bytes = range.bytes;
    pthread_mutex_unlock(&range.lock);
    return bytes;
}

/* Take the range; with the lock held and none there. */
static int take_range(size_t bytes)
{
    void *p = NULL;
    int rc;

    rc = cuda_check(cudaMalloc(&p, bytes), "reserve device memory");
    if (rc)
        return rc;
    range.base = p;
    range.bytes = bytes;
    range.n = 0;
    return insert(0, (struct block){0, bytes, 0});
}

int cuda_blocks_open(size_t bytes)
{
    int rc = 0, used;

    bytes = (bytes + !bytes + BLOCK_ALIGN - 1) / BLOCK_ALIGN * BLOCK_ALIGN;
    pthread_mutex_lock(&range.lock);
    used = range.n > 1 || (range.n == 1 && range.block[0].used);
    if (!used && range.base && range.bytes < bytes) {
        rc = cuda_check(cudaFree(range.base), "free device memory");
        range.base = NULL;
        range.bytes = range.n = 0;
    }
    if (!rc && !range.base)
        rc = take_range(bytes);
    pthread_mutex_unlock(&range.lock);
    return rc;
}
