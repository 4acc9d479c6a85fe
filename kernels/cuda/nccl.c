/* Sums over the devices of several processes, by NCCL (struct backend_ranks).
 *
 * The library is loaded at run time (HONE_NCCL=FILE names another, "off" none), so that the
 * back end serves a machine that has none. Communicators are non-blocking: a call that is
 * not done returns "in progress" and is asked again, so that another thread can end it.
 * Collectives run on a stream of their own, of the highest priority; events order it behind
 * the operators' stream and back.
 *
 * Two bytes a value: NCCL would round after each addition; so each rank sends each other
 * one its part as bf16 (n (p - 1) / p values, as a ring would), which sums what it gets in
 * f32 in order of rank.
 *
 * Invariant: after an abort nothing is queued and nothing is believed: cuda_ranks_check().
 * Fails with ERR_DEVICE, naming the device, the collective and NCCL's words. */
#include "kernels/cuda/cuda.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

#if __has_include(<nccl.h>)
#include <nccl.h>

/* Non-blocking communicators are as old as this. */
enum { VERSION_LEAST = NCCL_VERSION(2, 14, 3), RING = 1024, GOODBYE_SECONDS = 5 };

#define NCCL_FUNCTIONS(X)                                                                  \
    X(ncclGetVersion)                                                                      \
    X(ncclGetUniqueId)                                                                     \
    X(ncclGetErrorString)                                                                  \
    X(ncclCommInitRankConfig)                                                              \
    X(ncclCommGetAsyncError)                                                               \
    X(ncclCommFinalize)                                                                    \
    X(ncclCommDestroy)                                                                     \
    X(ncclCommAbort)                                                                       \
    X(ncclGroupStart)                                                                      \
    X(ncclGroupEnd)                                                                        \
    X(ncclAllReduce)                                                                       \
    X(ncclReduceScatter)                                                                   \
    X(ncclReduce)                                                                          \
    X(ncclAllGather)                                                                       \
    X(ncclBroadcast)                                                                       \
    X(ncclSend)                                                                            \
    X(ncclRecv)

static struct {
    void *file;
    int version;
    char reason[256];
#define X(f) __typeof__(&f) f;
    NCCL_FUNCTIONS(X)
#undef X
} nccl;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Atomic int aborted; /* some group was */

struct backend_group {
    ncclComm_t comm;
    int rank, world;
    cudaStream_t stream;
    cudaEvent_t before;    /* of the operators' stream */
    cudaEvent_t end[RING]; /* of collective number i, at i % RING */
    _Atomic long queued, recorded, done;
    _Atomic int dead;
    pthread_mutex_t lock; /* of comm: a call to it, or its end */
    char *wire;           /* (n + world * part) bf16 */
    size_t wire_bytes;
};

/* ---- the library ---- */

static void load(void)
{
    const char *path = getenv("HONE_NCCL");

    path = path && *path ? path : "libnccl.so.2";
    if (!strcmp(path, "off")) {
        snprintf(nccl.reason, sizeof nccl.reason, "HONE_NCCL=off");
        return;
    }
    nccl.file = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!nccl.file) {
        snprintf(nccl.reason, sizeof nccl.reason, "%s", dlerror());
        return;
    }
#define X(f)                                                                               \
    *(void **)&nccl.f = dlsym(nccl.file, #f);                                              \
    if (!nccl.f && !*nccl.reason)                                                          \
        snprintf(nccl.reason, sizeof nccl.reason,                                          \
                 "%.128s lacks " #f ": install NCCL 2.14 or newer", path);
    NCCL_FUNCTIONS(X)
#undef X
    if (*nccl.reason)
        return;
    if (nccl.ncclGetVersion(&nccl.version) || nccl.version < VERSION_LEAST) {
        snprintf(nccl.reason, sizeof nccl.reason,
                 "%.128s is version %d, older than 2.14.3: install a newer NCCL", path,
                 nccl.version);
        nccl.version = 0;
    }
}

static int version(char *why, size_t n)
{
    pthread_once(&once, load);
    snprintf(why, n, "%s", nccl.reason);
    return *nccl.reason ? 0 : nccl.version;
}

/* "<device>: <what>: <words>" */
static int failed(int code, const char *what, const char *words)
{
    char device[160];

    cuda_describe(device, sizeof device);
    return op_fail(code, "%s: %s: %s", device, what, words);
}

static int nccl_failed(ncclResult_t rc, const char *what)
{
    char words[192];

    snprintf(words, sizeof words,
             "NCCL: %.100s (NCCL_DEBUG=INFO in the environment says more)",
             nccl.ncclGetErrorString(rc));
    return failed(ERR_DEVICE, what, words);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int is_dead(struct backend_group *g)
{
    return op_fail(ERR_DEVICE, "sums over the ranks were ended (%ld of %ld done)",
                   atomic_load(&g->done), atomic_load(&g->queued));
}

/* Until a call is no longer in progress. given_up: asked now and then, may be NULL. */
static int settle(struct backend_group *g, ncclResult_t rc, const char *what, double until,
                  int (*given_up)(void *), void *arg)
{
    for (long turn = 0; rc == ncclInProgress; turn++) {
        ncclResult_t asked = ncclSuccess;

        pthread_mutex_lock(&g->lock);
        if (atomic_load(&g->dead)) {
            pthread_mutex_unlock(&g->lock);
            return is_dead(g);
        }
        asked = nccl.ncclCommGetAsyncError(g->comm, &rc);
        pthread_mutex_unlock(&g->lock);
        if (asked)
            rc = asked;
        if (rc == ncclInProgress && until > 0 && now() > until)
            return failed(ERR_DEVICE, what,
                          "NCCL has not come to an end in time (NCCL_DEBUG=INFO in the "
                          "environment says more)");
        if (rc == ncclInProgress && given_up && given_up(arg))
            return failed(ERR_STOPPED, what, "another rank has failed");
        if (rc == ncclInProgress)
            usleep(turn < 100 ? 10 : 500);
    }
    return rc ? nccl_failed(rc, what) : 0;
}

/* ---- a group ---- */

static int card(struct backend_card *d)
{
    struct cudaDeviceProp p;
    int rc = cuda_ready(), index = 0;

    memset(d, 0, sizeof *d);
    if (!rc)
        rc = cuda_check(cudaGetDevice(&index), "the device in use");
    if (!rc)
        rc = cuda_check(cudaGetDeviceProperties(&p, index), "the device in use");
    if (rc)
        return rc;
    d->index = index;
    snprintf(d->name, sizeof d->name, "%.95s", p.name);
    for (int i = 0; i < 16; i++)
        snprintf(d->id + 2 * i, 3, "%02x", (unsigned char)p.uuid.bytes[i]);
    return 0;
}

static int group_id(char id[BACKEND_GROUP_ID])
{
    ncclUniqueId u;
    ncclResult_t rc = nccl.ncclGetUniqueId(&u);

    _Static_assert(sizeof u == BACKEND_GROUP_ID, "an id as NCCL makes it");
    if (rc)
        return nccl_failed(rc, "a name for the ranks");
    memcpy(id, &u, sizeof u);
    return 0;
}

static int open_streams(struct backend_group *g)
{
    int least = 0, most = 0, rc;

    rc = cuda_check(cudaDeviceGetStreamPriorityRange(&least, &most), "sums over the ranks");
    if (!rc)
        rc = cuda_check(
            cudaStreamCreateWithPriority(&g->stream, cudaStreamNonBlocking, most),
            "sums over the ranks");
    if (!rc)
        rc = cuda_check(cudaEventCreateWithFlags(&g->before, cudaEventDisableTiming),
                        "sums over the ranks");
    for (int i = 0; !rc && i < RING; i++)
        rc = cuda_check(cudaEventCreateWithFlags(&g->end[i], cudaEventDisableTiming),
                        "sums over the ranks");
    return rc;
}

static void close_group(struct backend_group *g);

static int open_group(struct backend_group **out, const char id[BACKEND_GROUP_ID], int rank,
                      int world, double seconds, int (*given_up)(void *), void *arg)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    struct backend_group *g;
    ncclUniqueId u;
    ncclResult_t init;
    int rc = cuda_ready();

    *out = NULL;
    if (rc)
        return rc;
    g = mem_alloc(sizeof *g);
    if (!g)
        return op_fail(ERR_NOMEM, "sums over the ranks: out of memory");
    g->rank = rank;
    g->world = world;
    pthread_mutex_init(&g->lock, NULL);
    memcpy(&u, id, sizeof u);
    config.blocking = 0;
    atomic_store(&g->dead, 1); /* until there is a communicator */
    rc = open_streams(g);
    if (!rc) {
        atomic_store(&g->dead, 0);
        init = nccl.ncclCommInitRankConfig(&g->comm, world, u, rank, &config);
        rc = settle(g, init, "connection of the ranks", now() + seconds, given_up, arg);
        if (rc)
            atomic_store(&g->dead, 1);
        if (rc && g->comm && (init == ncclSuccess || init == ncclInProgress))
            nccl.ncclCommAbort(g->comm);
    }
    if (rc) {
        close_group(g);
        return rc;
    }
    *out = g;
    return 0;
}

/* g->lock is held, or nobody else is left. */
static void count_done(struct backend_group *g, char *failed, size_t n)
{
    cudaError_t e = cudaSuccess;

    while (atomic_load(&g->done) < atomic_load(&g->recorded)) {
        e = cudaEventQuery(g->end[atomic_load(&g->done) % RING]);
        if (e)
            break;
        atomic_fetch_add(&g->done, 1);
    }
    if (e && e != cudaErrorNotReady)
        snprintf(failed, n, "%s", cudaGetErrorString(e));
    cudaGetLastError(); /* "not ready" is no error of what comes next */
}

static void look(struct backend_group *g, struct backend_progress *p)
{
    ncclResult_t rc = ncclSuccess, asked;

    memset(p, 0, sizeof *p);
    if (cuda_ready()) {
        snprintf(p->failed, sizeof p->failed, "%s", op_error());
        return;
    }
    pthread_mutex_lock(&g->lock);
    p->queued = atomic_load(&g->queued);
    count_done(g, p->failed, sizeof p->failed);
    p->done = atomic_load(&g->done);
    if (!atomic_load(&g->dead) && !*p->failed) {
        asked = nccl.ncclCommGetAsyncError(g->comm, &rc);
        rc = asked ? asked : rc;
        if (rc && rc != ncclInProgress)
            snprintf(p->failed, sizeof p->failed, "NCCL: %s", nccl.ncclGetErrorString(rc));
    }
    pthread_mutex_unlock(&g->lock);
}

static void abort_group(struct backend_group *g)
{
    struct timespec until;
    int held;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 2; /* a call that hangs must not keep us from ending it */
    held = !pthread_mutex_timedlock(&g->lock, &until);
    atomic_store(&aborted, 1);
    if (!atomic_exchange(&g->dead, 1) && !cuda_ready())
        nccl.ncclCommAbort(g->comm);
    if (held)
        pthread_mutex_unlock(&g->lock);
}

int cuda_ranks_check(void)
{
    return atomic_load(&aborted)
               ? op_fail(ERR_DEVICE, "the sums over the ranks were ended before their time")
               : 0;
}

/* Every rank closes: a communicator with nothing left says goodbye, another is ended. */
static void say_goodbye(struct backend_group *g)
{
    struct backend_progress p;
    double until = now() + GOODBYE_SECONDS;

    do {
        look(g, &p);
    } while (!*p.failed && p.done < p.queued && now() < until && !usleep(200));
    if (*p.failed || p.done < p.queued ||
        settle(g, nccl.ncclCommFinalize(g->comm), "end of the sums", until, NULL, NULL)) {
        abort_group(g);
        return;
    }
    atomic_store(&g->dead, 1);
    nccl.ncclCommDestroy(g->comm);
}

static void close_group(struct backend_group *g)
{
    if (!g)
        return;
    if (!cuda_ready()) {
        if (!atomic_load(&g->dead))
            say_goodbye(g);
        for (int i = 0; i < RING && g->end[i]; i++)
            cudaEventDestroy(g->end[i]);
        if (g->before)
            cudaEventDestroy(g->before);
        if (g->stream)
            cudaStreamDestroy(g->stream);
        cuda_release(g->wire);
    }
    pthread_mutex_destroy(&g->lock);
    mem_free(g);
}

/* ---- collectives ---- */

/* What follows on g's stream comes after the operators queued so far. */
static int begin(struct backend_group *g)
{
    int rc = cuda_ready();

    if (!rc)
        rc = graph_flush();
    if (!rc && atomic_load(&g->dead))
        return is_dead(g);
    while (!rc && atomic_load(&g->queued) - atomic_load(&g->done) >= RING) {
        struct backend_progress p;

        look(g, &p);
        if (*p.failed)
            rc = op_fail(ERR_DEVICE, "%s", p.failed);
        usleep(50);
    }
    if (!rc)
        rc = cuda_check(cudaEventRecord(g->before, cuda_stream()), "sums over the ranks");
    if (!rc)
        rc =
            cuda_check(cudaStreamWaitEvent(g->stream, g->before, 0), "sums over the ranks");
    if (!rc)
        atomic_fetch_add(&g->queued, 1);
    return rc;
}

static int end(struct backend_group *g)
{
    long number = atomic_load(&g->queued) - 1;
    int rc = cuda_check(cudaEventRecord(g->end[number % RING], g->stream),
                        "sums over the ranks");

    if (!rc)
        atomic_store(&g->recorded, number + 1);
    return rc;
}

/* Calls of NCCL as one, between begin_calls() and end_calls(). */
static int begin_calls(struct backend_group *g)
{
    pthread_mutex_lock(&g->lock);
    if (!atomic_load(&g->dead)) {
        nccl.ncclGroupStart();
        return 0;
    }
    pthread_mutex_unlock(&g->lock);
    return is_dead(g);
}

/* rc: of the first call that failed. */
static int end_calls(struct backend_group *g, ncclResult_t rc, const char *what)
{
    ncclResult_t last = nccl.ncclGroupEnd();

    pthread_mutex_unlock(&g->lock);
    return settle(g, rc && rc != ncclInProgress ? rc : last, what, 0, NULL, NULL);
}

static int sum_whole(struct backend_group *g, float *x, size_t n)
{
    int rc = begin_calls(g);

    if (rc)
        return rc;
    return end_calls(g,
                     nccl.ncclAllReduce(x, x, n, ncclFloat32, ncclSum, g->comm, g->stream),
                     "sum of gradients");
}

/* Equal parts, and what the last rank has beyond. */
static int sum_parts(struct backend_group *g, float *x, size_t n)
{
    size_t each = backend_share(n, 1, g->world), tail = (size_t)g->world * each;
    ncclResult_t rc = ncclSuccess;
    int r = begin_calls(g);

    if (r)
        return r;
    if (each)
        rc = nccl.ncclReduceScatter(x, x + (size_t)g->rank * each, each, ncclFloat32,
                                    ncclSum, g->comm, g->stream);
    if (!rc && n > tail)
        rc = nccl.ncclReduce(x + tail, x + tail, n - tail, ncclFloat32, ncclSum,
                             g->world - 1, g->comm, g->stream);
    return end_calls(g, rc, "sum of gradients");
}

static int gather_parts(struct backend_group *g, void *x, size_t n, ncclDataType_t type,
                        size_t bytes)
{
    size_t each = backend_share(n, 1, g->world), tail = (size_t)g->world * each;
    char *p = x, *rest = p + tail * bytes;
    ncclResult_t rc = ncclSuccess;
    int r = begin_calls(g);

    if (r)
        return r;
    if (each)
        rc = nccl.ncclAllGather(p + (size_t)g->rank * each * bytes, p, each, type, g->comm,
                                g->stream);
    if (!rc && n > tail)
        rc = nccl.ncclBroadcast(rest, rest, n - tail, type, g->world - 1, g->comm,
                                g->stream);
    return end_calls(g, rc, "gather of parts");
}

static int need_wire(struct backend_group *g, size_t bytes)
{
    if (bytes <= g->wire_bytes)
        return 0;
    cuda_release(g->wire);
    g->wire_bytes = 0;
    g->wire = cuda_alloc(bytes);
    if (!g->wire)
        return ERR_NOMEM;
    g->wire_bytes = bytes;
    return 0;
}

/* Each rank's part to it, as bf16. in: (world, own) */
static int exchange(struct backend_group *g, char *out, char *in, size_t n, size_t own)
{
    ncclResult_t rc = ncclSuccess;
    int r = begin_calls(g);

    if (r)
        return r;
    for (int k = 0; !rc && k < g->world; k++) {
        size_t from = backend_share(n, k, g->world);
        size_t count = backend_share(n, k + 1, g->world) - from;

        if (count)
            rc = nccl.ncclSend(out + 2 * from, count, ncclBfloat16, k, g->comm, g->stream);
        if (!rc && own)
            rc = nccl.ncclRecv(in + 2 * own * (size_t)k, own, ncclBfloat16, k, g->comm,
                               g->stream);
    }
    return end_calls(g, rc, "exchange of gradients");
}

static size_t wire_room(size_t n)
{
    return (n + 127) / 128 * 128;
}

static int sum_two_bytes(struct backend_group *g, float *x, size_t n, int parts)
{
    size_t from = backend_share(n, g->rank, g->world);
    size_t own = backend_share(n, g->rank + 1, g->world) - from;
    int rc = need_wire(g, 2 * (wire_room(n) + (size_t)g->world * own));
    char *in = g->wire + 2 * wire_room(n);

    if (!rc)
        rc = cuda_to_wire(g->wire, x, n, g->stream);
    if (!rc)
        rc = exchange(g, g->wire, in, n, own);
    if (!rc)
        rc = cuda_sum_wire(x + from, in, g->world, own, g->stream);
    if (rc || parts)
        return rc;
    rc = cuda_to_wire(g->wire + 2 * from, x + from, own, g->stream);
    if (!rc)
        rc = gather_parts(g, g->wire, n, ncclBfloat16, 2);
    return rc ? rc : cuda_from_wire(x, g->wire, n, g->stream);
}

/* The largest part, the last rank's, has less than a line a rank beyond the others'. */
static int reserve(struct backend_group *g, size_t n)
{
    size_t most = n / (size_t)g->world + (size_t)(g->world * BACKEND_PART_ALIGN);

    return need_wire(g, 2 * (wire_room(n) + (size_t)g->world * most));
}

static int sum(struct backend_group *g, float *x, size_t n, int parts, int two_bytes)
{
    int rc = begin(g);

    if (rc)
        return rc;
    if (two_bytes)
        rc = sum_two_bytes(g, x, n, parts);
    else
        rc = parts ? sum_parts(g, x, n) : sum_whole(g, x, n);
    return rc ? rc : end(g);
}

static int gather(struct backend_group *g, float *x, size_t n)
{
    int rc = begin(g);

    if (!rc)
        rc = gather_parts(g, x, n, ncclFloat32, sizeof *x);
    return rc ? rc : end(g);
}

static int join(struct backend_group *g)
{
    long last = atomic_load(&g->recorded);
    int rc = cuda_ready();

    if (!rc)
        rc = graph_flush();
    if (rc || !last)
        return rc;
    return cuda_check(cudaStreamWaitEvent(cuda_stream(), g->end[(last - 1) % RING], 0),
                      "sums over the ranks");
}

static int rows(float *packed, float *table, const int *id, long n, long cols, int back)
{
    int rc = cuda_ready();

    if (!rc)
        rc = graph_flush();
    return rc ? rc : cuda_copy_rows(packed, table, id, n, cols, back);
}

const struct backend_ranks cuda_ranks = {.version = version,
                                         .card = card,
                                         .links = cuda_links,
                                         .group_id = group_id,
                                         .open = open_group,
                                         .close = close_group,
                                         .abort = abort_group,
                                         .look = look,
                                         .sum = sum,
                                         .gather = gather,
                                         .join = join,
                                         .reserve = reserve,
                                         .rows = rows};
#else
static int version(char *why, size_t n)
{
    snprintf(why, n, "this build had no nccl.h");
    return 0;
}

int cuda_ranks_check(void)
{
    return 0;
}

const struct backend_ranks cuda_ranks = {.version = version, .links = cuda_links};
#endif
