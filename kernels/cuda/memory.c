/* Device memory and copies, in stream order.
 *
 * Small copies to the device (token ids, bounds, flags: some in every micro-batch) go
 * through a pinned buffer of two halves, so that the host need not wait for the device: a
 * half is filled again only when the event recorded behind its last copy has passed. Large
 * ones go directly; CUDA stages what is not pinned before it returns, so in both cases the
 * caller may reuse its memory at once. copy_out waits for all that was queued; a large one
 * (a checkpoint's tensors) comes through two pinned pieces: the host takes one while the
 * device fills the other.
 *
 * What was reserved (reserve.c) is given out first; beyond it, and where nothing was, each
 * block is CUDA's own. */
#include <pthread.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

enum { HALF_BYTES = 1 << 20, PIECE_BYTES = 4 << 20 };

static struct {
    pthread_mutex_t lock;
    char *memory; /* pinned, two halves */
    cudaEvent_t passed[2];
    size_t used;
    int half, recorded[2];
} ring = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct {
    pthread_mutex_t lock;
    char *memory; /* pinned, two pieces */
    cudaEvent_t filled[2];
} out = {.lock = PTHREAD_MUTEX_INITIALIZER};

static pthread_mutex_t scratch_lock = PTHREAD_MUTEX_INITIALIZER;
static void *scratch;
static size_t scratch_bytes;

void *cuda_alloc(size_t bytes)
{
    void *p;

    if (cuda_ready())
        return NULL;
    p = cuda_block_take(bytes);
    if (!p && cuda_check(cudaMalloc(&p, bytes ? bytes : 1), "device memory"))
        return NULL;
    return p;
}

void cuda_release(void *p)
{
    if (!p)
        return;
    graph_flush_later(); /* calls that use it, before anything else gets it */
    if (cuda_block_give(p) || cuda_ready())
        return;
    cuda_check(cudaFree(p), "free device memory");
}

static int open_ring(void)
{
    int rc = 0;

    if (ring.memory)
        return 0;
    for (int i = 0; !rc && i < 2; i++)
        if (!ring.passed[i])
            rc = cuda_check(
                cudaEventCreateWithFlags(&ring.passed[i], cudaEventDisableTiming),
                "copies");
    if (!rc)
        rc = cuda_check(cudaMallocHost((void **)&ring.memory, (size_t)2 * HALF_BYTES),
                        "pinned memory");
    return rc;
}

static int open_out(void)
{
    int rc = 0;

    if (out.memory)
        return 0;
    for (int i = 0; !rc && i < 2; i++)
        if (!out.filled[i])
            rc = cuda_check(
                cudaEventCreateWithFlags(&out.filled[i], cudaEventDisableTiming), "copies");
    if (!rc)
        rc = cuda_check(cudaMallocHost((void **)&out.memory, (size_t)2 * PIECE_BYTES),
                        "pinned memory");
    return rc;
}

/* Room for `bytes` in the half in use; else in the other, once its copies have passed. */
static int ring_room(size_t bytes, char **to)
{
    int rc = open_ring();

    if (!rc && ring.used + bytes > HALF_BYTES) {
        rc = cuda_check(cudaEventRecord(ring.passed[ring.half], cuda_stream()), "copies");
        ring.recorded[ring.half] = !rc;
        ring.half ^= 1;
        ring.used = 0;
        if (!rc && ring.recorded[ring.half])
            rc = cuda_check(cudaEventSynchronize(ring.passed[ring.half]), "copies");
    }
    *to = ring.memory + (size_t)ring.half * HALF_BYTES + ring.used;
    ring.used += (bytes + 63) / 64 * 64;
    return rc;
}

int cuda_copy_in(void *device, const void *host, size_t bytes)
{
    int rc = cuda_ready();
    char *pinned;

    if (rc || !bytes)
        return rc;
    if (bytes > HALF_BYTES)
        return cuda_check(
            cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, cuda_stream()),
            "copy to the device");
    pthread_mutex_lock(&ring.lock);
    rc = ring_room(bytes, &pinned);
    if (!rc) {
        memcpy(pinned, host, bytes);
        rc = cuda_check(
            cudaMemcpyAsync(device, pinned, bytes, cudaMemcpyHostToDevice, cuda_stream()),
            "copy to the device");
    }
    pthread_mutex_unlock(&ring.lock);
    return rc;
}

/* Have the device fill piece i. */
static int fill_piece(size_t i, const char *device, size_t bytes)
{
    size_t at = i * PIECE_BYTES, n = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;
    int rc = cuda_check(cudaMemcpyAsync(out.memory + i % 2 * PIECE_BYTES, device + at, n,
                                        cudaMemcpyDeviceToHost, cuda_stream()),
                        "copy from the device");

    return rc ? rc
              : cuda_check(cudaEventRecord(out.filled[i % 2], cuda_stream()), "copies");
}

static int copy_out_pieces(char *host, const char *device, size_t bytes)
{
    size_t count = (bytes + PIECE_BYTES - 1) / PIECE_BYTES;
    int rc = open_out();

    if (!rc)
        rc = fill_piece(0, device, bytes);
    for (size_t i = 0; !rc && i < count; i++) {
        size_t at = i * PIECE_BYTES,
               n = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;

        if (i + 1 < count)
            rc = fill_piece(i + 1, device, bytes);
        if (!rc)
            rc =
                cuda_check(cudaEventSynchronize(out.filled[i % 2]), "copy from the device");
        if (!rc)
            memcpy(host + at, out.memory + i % 2 * PIECE_BYTES, n);
    }
    return rc;
}

int cuda_copy_out(void *host, const void *device, size_t bytes)
{
    int rc = cuda_ready();

    if (rc || !bytes)
        return rc;
    if (bytes > PIECE_BYTES) {
        pthread_mutex_lock(&out.lock);
        rc = copy_out_pieces(host, device, bytes);
        pthread_mutex_unlock(&out.lock);
        return rc ? rc : cuda_ranks_check();
    }
    rc = cuda_check(
        cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, cuda_stream()),
        "copy from the device");
    if (!rc)
        rc = cuda_check(cudaStreamSynchronize(cuda_stream()), "copy from the device");
    return rc ? rc : cuda_ranks_check();
}

int cuda_fill_zero(void *device, size_t bytes)
{
    int rc = cuda_ready();

    if (rc || !bytes)
        return rc;
    return cuda_check(cudaMemsetAsync(device, 0, bytes, cuda_stream()), "fill");
}

/* Scratch of so many bytes; 0: none. With the lock held. */
static void resize_scratch(size_t want)
{
    cuda_release(scratch); /* what is queued comes before what others queue there later */
    scratch_bytes = 0;
    scratch = want ? cuda_alloc(want) : NULL;
    if (scratch)
        scratch_bytes = want;
}

void *cuda_scratch(size_t bytes)
{
    void *p = NULL;

    if (cuda_ready())
        return NULL;
    pthread_mutex_lock(&scratch_lock);
    if (bytes > scratch_bytes)
        resize_scratch(bytes + bytes / 4);
    p = scratch_bytes ? scratch : NULL;
    pthread_mutex_unlock(&scratch_lock);
    return p;
}

const void *cuda_scratch_at(size_t *bytes)
{
    void *p;

    pthread_mutex_lock(&scratch_lock);
    *bytes = scratch_bytes;
    p = scratch;
    pthread_mutex_unlock(&scratch_lock);
    return p;
}

/* ---- at once ---- */

int cuda_in_step;

void cuda_step(int begins)
{
    static int steps;

    cuda_in_step = begins ? ++steps : 0;
}

int cuda_memory(size_t *left, size_t *all)
{
    int rc = cuda_ready();

    *left = *all = 0;
    if (!rc)
        rc = cuda_check(cudaMemGetInfo(left, all), "ask for its memory");
    *left += rc ? 0 : cuda_blocks_bytes();
    return rc;
}

int cuda_reserve(size_t bytes, size_t scratch_want)
{
    int rc = cuda_ready();

    if (!rc)
        rc = cuda_open_products();
    if (!rc)
        rc = graph_open();
    if (!rc)
        graph_clear(); /* of the memory that may be given up */
    pthread_mutex_lock(&ring.lock);
    if (!rc)
        rc = open_ring();
    if (!rc)
        rc = open_out();
    pthread_mutex_unlock(&ring.lock);
    pthread_mutex_lock(&scratch_lock);
    if (!rc)
        resize_scratch(0); /* it may lie in the range that is given up */
    if (!rc)
        rc = cuda_blocks_open(bytes + scratch_want);
    if (!rc)
        resize_scratch(scratch_want);
    if (!rc && scratch_want && !scratch)
        rc = ERR_NOMEM;
    pthread_mutex_unlock(&scratch_lock);
    return rc;
}
