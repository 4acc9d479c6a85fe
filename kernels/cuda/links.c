/* How fast the host and each device of this process exchange data through pinned memory,
 * and which devices reach each other's memory directly: what hone doctor shows.
 *
 * Measured on a thread of its own, since it makes one device after the other its own. Each
 * device is asked for COPY_BYTES of its memory. Fails with ERR_DEVICE or ERR_NOMEM; what
 * was measured until then stands. */
#include "kernels/cuda/cuda.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

enum { COPY_BYTES = 32 << 20, TRIES = 3, MESSAGE = 512 };

struct task {
    struct backend_links *links;
    int rc;
    char why[MESSAGE];
};

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Bytes a second, the best of a few. */
static int time_copies(void *to, const void *from, enum cudaMemcpyKind kind,
                       cudaStream_t stream, double *rate)
{
    int rc = 0;

    *rate = 0;
    for (int i = 0; !rc && i < TRIES; i++) {
        double start = now(), seconds;

        rc = cuda_check(cudaMemcpyAsync(to, from, COPY_BYTES, kind, stream), "copies");
        if (!rc)
            rc = cuda_check(cudaStreamSynchronize(stream), "copies");
        seconds = now() - start;
        if (!rc && seconds > 0 && COPY_BYTES / seconds > *rate)
            *rate = COPY_BYTES / seconds;
    }
    return rc;
}

static int measure_device(struct backend_links *l, int i, void *pinned)
{
    cudaStream_t stream = NULL;
    void *there = NULL;
    int rc = cuda_check(cudaSetDevice(i), "take the device");

    if (!rc)
        rc =
            cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "copies");
    if (!rc)
        rc = cuda_check(cudaMalloc(&there, COPY_BYTES), "memory for copies");
    if (!rc)
        rc = time_copies(there, pinned, cudaMemcpyHostToDevice, stream, &l->to_device[i]);
    if (!rc)
        rc = time_copies(pinned, there, cudaMemcpyDeviceToHost, stream, &l->from_device[i]);
    for (int k = 0; !rc && k < l->n; k++) {
        int can = 0;

        if (k != i)
            rc = cuda_check(cudaDeviceCanAccessPeer(&can, i, k), "access to its peers");
        l->peer[i][k] = can != 0;
    }
    if (there)
        cudaFree(there);
    if (stream)
        cudaStreamDestroy(stream);
    return rc;
}

static void *measure(void *arg)
{
    struct task *t = arg;
    struct backend_links *l = t->links;
    void *pinned = NULL;

    t->rc = cuda_check(cudaMallocHost(&pinned, COPY_BYTES), "pinned memory");
    if (!t->rc)
        memset(pinned, 0, COPY_BYTES);
    for (int i = 0; !t->rc && i < l->n; i++)
        t->rc = measure_device(l, i, pinned);
    if (pinned)
        cudaFreeHost(pinned);
    if (t->rc)
        strncat(t->why, op_error(), sizeof t->why - 1);
    return NULL;
}

int cuda_links(struct backend_links *l)
{
    struct task t = {.links = l};
    pthread_t thread;

    memset(l, 0, sizeof *l);
    l->n = cuda_devices() < BACKEND_LINKS_MAX ? cuda_devices() : BACKEND_LINKS_MAX;
    if (pthread_create(&thread, NULL, measure, &t))
        return op_fail(ERR_FAILED, "a thread to measure the devices");
    pthread_join(thread, NULL);
    return t.rc ? op_fail(t.rc, "%s", t.why) : 0;
}
