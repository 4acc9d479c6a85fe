/* How fast this machine is at what training is made of: matrix products of a layer's shape
 * with packed weights, and streaming through memory (STREAM's triad, McCalpin 1995).
 *
 * The best of several tries counts: others use the machine too. */
#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "worker/verb/doctor.h"

enum {
    M = 512, /* tokens of a micro-batch, and MiniLM's first feed-forward matrix */
    K = 384,
    N = 1536,
    TRIES_MIN = 4,
    TRIAD_FLOATS = 16 << 20, /* beyond the caches */
    TRIAD_TRIES = 5,
    TRIAD_THREADS = 64
};
static const double product_seconds = 0.12;

static void fill(float *x, size_t n, uint64_t seed)
{
    struct rng r;

    rng_init(&r, seed);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)rng_u32(&r) * 0x1p-32f - 0.5f;
}

/* FLOP/s; 0 and *e when the operator fails. */
static double product(const struct backend *be, const struct matmul_args *a, int threads,
                      struct err *e)
{
    double start, best = 0;

    be->set_threads(threads);
    start = clock_now();
    for (int i = 0; i < TRIES_MIN || clock_now() - start < product_seconds; i++) {
        double before = clock_now(), rate;

        if (be->matmul(a)) {
            err_set(e, ERR_DEVICE, "matrix product: %s", be->error());
            return 0;
        }
        rate = 2.0 * M * N * K / (clock_now() - before);
        best = i && rate > best ? rate : best; /* the first packs the weights */
    }
    return best;
}

/* With one thread and with all. */
static int product_rates(const struct speed *s, const struct backend *be,
                         struct matmul_args *a, enum op_precision precision, double *one,
                         double *all, struct err *e)
{
    struct op_pack pack = {.version = 1};

    a->precision = precision;
    a->pack = &pack;
    *one = product(be, a, 1, e);
    *all = *one > 0 ? product(be, a, s->threads, e) : 0;
    be->pack_free(&pack);
    return *all > 0 ? 0 : e->code;
}

static int measure_products(struct speed *s, const struct backend *be, struct err *e)
{
    float *a = be->alloc(sizeof(float) * M * K), *b = be->alloc(sizeof(float) * N * K);
    float *c = be->alloc(sizeof(float) * M * N);
    struct matmul_args args = {.M = M,
                               .N = N,
                               .K = K,
                               .a = a,
                               .lda = K,
                               .b = b,
                               .ldb = K,
                               .trans_b = 1,
                               .c = c,
                               .ldc = N};
    int rc = a && b && c ? 0 : err_set(e, ERR_NOMEM, "matrix product: out of memory");

    if (!rc) {
        fill(a, (size_t)M * K, 1);
        fill(b, (size_t)N * K, 2);
        rc = product_rates(s, be, &args, PRECISION_F32, &s->f32_one, &s->f32_all, e);
        if (!rc)
            rc = product_rates(s, be, &args, PRECISION_BF16, &s->bf16_one, &s->bf16_all, e);
        s->bf16 = be->bf16();
    }
    be->set_threads(s->threads);
    be->release(a);
    be->release(b);
    be->release(c);
    return rc;
}

/* ---- memory -------------------------------------------------------------------------- */

struct stripe {
    float *a;
    const float *b, *c;
    size_t n;
    pthread_mutex_t *start;
    pthread_barrier_t *gate; /* NULL: do nothing */
    double seconds;          /* of the best try */
};

static void triad(float *a, const float *b, const float *c, size_t n, float s)
{
    for (size_t i = 0; i < n; i++)
        a[i] = b[i] + s * c[i];
}

static void *run_stripe(void *arg)
{
    struct stripe *t = arg;

    pthread_mutex_lock(t->start);
    pthread_mutex_unlock(t->start);
    for (int i = 0; t->gate && i <= TRIAD_TRIES; i++) {
        double start, seconds;

        pthread_barrier_wait(t->gate);
        start = clock_now();
        triad(t->a, t->b, t->c, t->n, (float)i);
        pthread_barrier_wait(t->gate);
        seconds = clock_now() - start;
        if (i == 1 || (i > 1 && seconds < t->seconds)) /* the first brings in the pages */
            t->seconds = seconds;
    }
    return NULL;
}

/* As many of the n stripes as there are threads to be had, or 0. Threads wait for `start`
 * until their number, which the barrier needs, is known. */
static int run_stripes(struct stripe *t, int n)
{
    pthread_mutex_t start = PTHREAD_MUTEX_INITIALIZER;
    pthread_t id[TRIAD_THREADS];
    pthread_barrier_t gate;
    int started = 1, ready;

    pthread_mutex_lock(&start);
    for (int i = 0; i < n; i++)
        t[i].start = &start;
    while (started < n && !pthread_create(&id[started], NULL, run_stripe, &t[started]))
        started++;
    ready = !pthread_barrier_init(&gate, NULL, (unsigned)started);
    for (int i = 0; i < started; i++)
        t[i].gate = ready ? &gate : NULL;
    pthread_mutex_unlock(&start);
    run_stripe(&t[0]);
    for (int i = 1; i < started; i++)
        pthread_join(id[i], NULL);
    if (ready)
        pthread_barrier_destroy(&gate);
    pthread_mutex_destroy(&start);
    return ready ? started : 0;
}

static int measure_triad(struct speed *s, struct err *e)
{
    int n = s->threads < TRIAD_THREADS ? s->threads : TRIAD_THREADS;
    float *x = mem_array((size_t)TRIAD_FLOATS * 3, sizeof *x);
    struct stripe t[TRIAD_THREADS];

    if (!x)
        return err_set(e, ERR_NOMEM, "memory speed: out of memory");
    for (int i = 0; i < n; i++) {
        size_t from = (size_t)TRIAD_FLOATS / (size_t)n * (size_t)i;

        t[i] = (struct stripe){.a = x + from,
                               .b = x + TRIAD_FLOATS + from,
                               .c = x + 2 * (size_t)TRIAD_FLOATS + from,
                               .n = (size_t)TRIAD_FLOATS / (size_t)n};
    }
    memset(x + TRIAD_FLOATS, 0, 2 * sizeof *x * (size_t)TRIAD_FLOATS);
    n = run_stripes(t, n);
    if (n)
        s->triad = 3 * sizeof *x * (double)t[0].n * n / t[0].seconds;
    mem_free(x);
    return n ? 0 : err_set(e, ERR_FAILED, "memory speed: no barrier for threads");
}

int speed_measure(struct speed *s, const struct backend *be, struct err *e)
{
    int rc;

    memset(s, 0, sizeof *s);
    be->set_threads(0);
    s->threads = be->threads();
    rc = measure_products(s, be, e);
    return rc ? rc : measure_triad(s, e);
}
