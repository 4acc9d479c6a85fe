/* Sums of gradients over a cluster; the plan is in cluster.h.
 *
 * A segment of the host's window holds, for each rank, flags and a row of gradients, and
 * with a sharded optimizer one row of parameters for all:
 *
 *     ready (L, buckets) | summed (L, buckets) | param (n) | grad of rank 0 (n) | ...
 *
 * ready[r][b] = step's number: rank r's gradients of bucket b are complete. Buckets are
 * summed from the last to the first, as backward completes them, each as soon as the whole
 * host is ready: within grad_start() where the others were faster, else in grad_wait(). The
 * rails' sums start in that same order on every rank, as MPI wants it.
 *
 * Sums are x_0 + x_1 + ... in order of the host's ranks, then of the rail by MPI. */
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "worker/dist/cluster_internal.h"

enum { ALIGN = 16 /* floats */, PAGE = 4096, BLOCK = 1024 };

struct grads {
    struct window_segment segment;
    _Atomic uint32_t *ready, *summed; /* (L, buckets) */
    float **row;                      /* (L) gradients of the host's ranks */
    float *own_memory, *own_param;    /* without a window */
    size_t *slice;                    /* (buckets, 2): what this rank sums over its host */
    unsigned char *started;           /* (buckets) in this step */
    struct mpi_request **request;     /* (buckets) of the rail */
    int next;                         /* bucket to sum next, -1: all are */
    uint32_t number;                  /* of the step, from 1 */
    int *count, *at;                  /* (H) parts of a slice */
    struct err err;                   /* what failed in grad_start() */
};

/* Boundary i of p parts of [lo, hi). */
static size_t part(size_t lo, size_t hi, int i, int p)
{
    size_t n = hi - lo;

    return i == p ? hi : lo + n / (size_t)p * (size_t)i / ALIGN * ALIGN;
}

static size_t page_up(size_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

static void set_parts(const struct cluster *k, struct comm_grad *g, struct grads *s)
{
    for (int b = 0; b < g->buckets; b++) {
        size_t lo = part(g->bound[b], g->bound[b + 1], k->local, k->locals);
        size_t hi = part(g->bound[b], g->bound[b + 1], k->local + 1, k->locals);

        s->slice[2 * b] = lo;
        s->slice[2 * b + 1] = hi;
        g->from[b] = g->shard ? part(lo, hi, k->host_index, k->hosts) : g->bound[b];
        g->to[b] = g->shard ? part(lo, hi, k->host_index + 1, k->hosts) : g->bound[b + 1];
    }
}

static int alone(const struct cluster *k)
{
    return k->locals == 1;
}

static int map_rows(struct cluster *k, struct comm_grad *g, struct grads *s, struct err *e)
{
    size_t bytes = page_up(g->n * sizeof(float)), L = (size_t)k->locals;
    size_t flags = page_up(2 * L * (size_t)g->buckets * sizeof *s->ready);
    char *p;
    int r;

    if (alone(k)) {
        s->row[0] = s->own_memory = mem_aligned(64, bytes);
        s->own_param = g->shard ? mem_aligned(64, bytes) : NULL;
        if (!s->own_memory || (g->shard && !s->own_param))
            return err_set(e, ERR_NOMEM, "gradients of %zu bytes: out of memory", bytes);
        memset(s->own_memory, 0, bytes);
        g->grad = s->own_memory;
        g->param = s->own_param;
        return 0;
    }
    r = window_segment_open(&k->window, &s->segment,
                            flags + bytes * (L + (g->shard ? 1 : 0)), e);
    if (r)
        return err_wrap(e, "gradients of %d ranks", k->locals);
    s->ready = s->segment.p;
    s->summed = s->ready + L * (size_t)g->buckets;
    p = (char *)s->segment.p + flags;
    g->param = g->shard ? (float *)p : NULL;
    p += g->shard ? bytes : 0;
    for (size_t i = 0; i < L; i++)
        s->row[i] = (float *)(p + i * bytes);
    g->grad = s->row[k->local];
    return 0;
}

static void begin_step(struct comm_grad *g, struct grads *s)
{
    s->number++;
    s->next = g->buckets - 1;
    memset(s->started, 0, (size_t)g->buckets);
}

int cluster_grad_open(const struct comm *c, struct comm_grad *g, struct err *e)
{
    struct cluster *k = c->state;
    size_t B = (size_t)g->buckets, H = (size_t)k->hosts;
    struct grads *s = mem_alloc(sizeof *s);
    int r = 0;

    g->state = s;
    if (s) {
        s->row = mem_array((size_t)k->locals, sizeof *s->row);
        s->slice = mem_array(2 * B + 1, sizeof *s->slice);
        s->started = mem_alloc(B + 1);
        s->request = mem_array(B + 1, sizeof(struct mpi_request *));
        s->count = mem_array(H, sizeof *s->count);
        s->at = mem_array(H, sizeof *s->at);
        g->from = mem_array(B + 1, sizeof *g->from);
        g->to = mem_array(B + 1, sizeof *g->to);
    }
    if (!s || !s->row || !s->slice || !s->started || !s->request || !s->count || !s->at ||
        !g->from || !g->to)
        r = err_set(e, ERR_NOMEM, "gradients: out of memory");
    r = comm_agree(c, r, e);
    if (!r) {
        set_parts(k, g, s);
        r = comm_agree(c, map_rows(k, g, s, e), e);
    }
    if (r) {
        cluster_grad_close(c, g);
        return r;
    }
    begin_step(g, s);
    return 0;
}

void cluster_grad_close(const struct comm *c, struct comm_grad *g)
{
    struct grads *s = g->state;

    (void)c;
    mem_free(g->from);
    mem_free(g->to);
    g->from = g->to = NULL;
    g->grad = g->param = NULL;
    g->state = NULL;
    if (!s)
        return;
    window_segment_close(&s->segment);
    mem_free(s->own_memory);
    mem_free(s->own_param);
    mem_free(s->row);
    mem_free(s->slice);
    mem_free(s->started);
    mem_free(s->request);
    mem_free(s->count);
    mem_free(s->at);
    mem_free(s);
}

/* ---- sums ---- */

static _Atomic uint32_t *flag(_Atomic uint32_t *flags, const struct comm_grad *g, int rank,
                              int bucket)
{
    return flags + (size_t)rank * (size_t)g->buckets + (size_t)bucket;
}

static void raise_flag(const struct cluster *k, _Atomic uint32_t *word, uint32_t number)
{
    atomic_store_explicit(word, number, memory_order_release);
    if (!alone(k))
        window_wake(word);
}

static int is_ready(const struct cluster *k, const struct comm_grad *g,
                    const struct grads *s, int bucket)
{
    for (int r = 0; !alone(k) && r < k->locals; r++)
        if (atomic_load_explicit(flag(s->ready, g, r, bucket), memory_order_acquire) !=
            s->number)
            return 0;
    return s->started[bucket];
}

/* own[lo..hi) = the sum over the host's ranks, block by block while it is in cache. */
static void sum_slice(const struct cluster *k, const struct grads *s, size_t lo, size_t hi)
{
    float *own = s->row[k->local];
    float sum[BLOCK];

    for (size_t at = lo; at < hi; at += BLOCK) {
        size_t n = hi - at < BLOCK ? hi - at : BLOCK;

        memcpy(sum, s->row[0] + at, n * sizeof *sum);
        for (int r = 1; r < k->locals; r++) {
            const float *x = s->row[r] + at;

            for (size_t i = 0; i < n; i++)
                sum[i] += x[i];
        }
        memcpy(own + at, sum, n * sizeof *sum);
    }
}

static void sum_bucket(struct cluster *k, struct grads *s, int b)
{
    size_t lo = s->slice[2 * b], hi = s->slice[2 * b + 1];
    int error;

    if (!alone(k))
        sum_slice(k, s, lo, hi);
    s->request[b] = NULL;
    if (k->hosts == 1 || hi == lo || s->err.code || k->broken.code)
        return;
    error = k->mpi->sum(k->rail, s->row[k->local] + lo, hi - lo, &s->request[b]);
    if (error)
        cluster_mpi_error(k, error, "sum of gradients", &s->err);
}

/* Sum what is ready; with `wait` everything. */
static void progress(struct cluster *k, const struct comm_grad *g, struct grads *s,
                     int wait)
{
    for (; s->next >= 0; s->next--) {
        for (int r = 0; wait && !alone(k) && r < k->locals; r++) {
            _Atomic uint32_t *word = flag(s->ready, g, r, s->next);

            while (atomic_load_explicit(word, memory_order_acquire) != s->number)
                window_wait(&k->window, word, s->number - 1);
        }
        if (!is_ready(k, g, s, s->next))
            return;
        sum_bucket(k, s, s->next);
    }
}

/* MPI moves on only while it is asked. */
static void nudge(struct cluster *k, const struct comm_grad *g, struct grads *s)
{
    for (int b = g->buckets - 1; b > s->next; b--) {
        int done = 0, error;

        if (!s->request[b])
            continue;
        error = k->mpi->done(s->request[b], &done);
        if (error)
            cluster_mpi_error(k, error, "sum of gradients", &s->err);
        if (done)
            s->request[b] = NULL;
        return;
    }
}

void cluster_grad_start(const struct comm *c, struct comm_grad *g, int bucket)
{
    struct cluster *k = c->state;
    struct grads *s = g->state;

    if (s->started[bucket])
        return;
    s->started[bucket] = 1;
    if (!alone(k))
        raise_flag(k, flag(s->ready, g, k->local, bucket), s->number);
    progress(k, g, s, 0);
    nudge(k, g, s);
}

/* The sums of the other ranks' slices, where every rank wants all of them. */
static void fetch_slices(struct cluster *k, struct comm_grad *g, struct grads *s)
{
    for (int b = g->buckets - 1; b >= 0; b--)
        for (int i = 1; i < k->locals; i++) {
            int r = (k->local + i) % k->locals;
            _Atomic uint32_t *word = flag(s->summed, g, r, b);
            size_t lo = part(g->bound[b], g->bound[b + 1], r, k->locals);
            size_t hi = part(g->bound[b], g->bound[b + 1], r + 1, k->locals);

            while (atomic_load_explicit(word, memory_order_acquire) != s->number)
                window_wait(&k->window, word, s->number - 1);
            memcpy(s->row[k->local] + lo, s->row[r] + lo, (hi - lo) * sizeof(float));
        }
}

int cluster_grad_wait(const struct comm *c, struct comm_grad *g, struct err *e)
{
    struct cluster *k = c->state;
    struct grads *s = g->state;
    int r = 0;

    for (int b = g->buckets - 1; b >= 0; b--)
        cluster_grad_start(c, g, b);
    progress(k, g, s, 1);
    for (int b = g->buckets - 1; !r && b >= 0; b--) {
        if (s->request[b] && !s->err.code)
            r = cluster_wait(k, s->request[b], "sum of gradients", e);
        s->request[b] = NULL;
        if (!r && !g->shard && !alone(k))
            raise_flag(k, flag(s->summed, g, k->local, b), s->number);
    }
    if (!r && s->err.code) {
        *e = s->err;
        r = e->code;
    }
    if (!r && !g->shard && !alone(k))
        fetch_slices(k, g, s);
    begin_step(g, s);
    return r ? r : c->barrier(c, e);
}

int cluster_param_gather(const struct comm *c, struct comm_grad *g, struct err *e)
{
    struct cluster *k = c->state;
    struct grads *s = g->state;
    int r = 0;

    if (!g->shard)
        return 0;
    for (int b = 0; !r && k->hosts > 1 && b < g->buckets; b++) {
        size_t lo = s->slice[2 * b], hi = s->slice[2 * b + 1];
        struct mpi_request *request;

        for (int h = 0; h < k->hosts; h++) {
            size_t from = part(lo, hi, h, k->hosts);

            s->at[h] = (int)(from - lo);
            s->count[h] = (int)(part(lo, hi, h + 1, k->hosts) - from);
        }
        r = cluster_finish(
            k, k->mpi->gather_parts(k->rail, g->param + lo, s->count, s->at, &request),
            &request, "gather of parameters", e);
    }
    return r ? r : c->barrier(c, e);
}
