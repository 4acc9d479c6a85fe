/* What the operator tests share. A case runs one operator of a back end on inputs that
 * depend on its shape alone and appends every output to a record; check_case() then holds
 * the back end under test (the CPU's, or the one that HONE_TEST_BACKEND names) against the
 * reference, against itself on a second run, and on 1, 2, 3 and 4 threads, bit for bit.
 *
 * Gradients are held against central differences of the reference's forward along a random
 * direction (f32 outputs: steps of 2^-7 leave about 1e-4). */
#ifndef TESTS_OP_OP_TEST_H
#define TESTS_OP_OP_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "kernels/backend.h"
#include "tests/op/mirror.h"

#define COUNT(a) ((long)(sizeof(a) / sizeof(a)[0]))

struct record {
    float *v;
    long n;
};

static inline void record_add(struct record *r, const float *v, long n)
{
    r->v = mem_resize(r->v, (size_t)(r->n + n + 1), sizeof *r->v);
    assert_non_null(r->v);
    if (n > 0)
        memcpy(r->v + r->n, v, (size_t)n * sizeof *v);
    r->n += n;
}

static inline float *new_floats(long n)
{
    float *p = mem_array((size_t)(n > 0 ? n : 1), sizeof *p);

    assert_non_null(p);
    return p;
}

/* n numbers of a stream, nearly normal (the sum of four uniform ones). */
static inline float *new_normal(long n, uint64_t stream, double scale)
{
    float *p = new_floats(n);
    uint64_t key = rng_key(7, stream, 0, 0);

    for (long i = 0; i < n; i++) {
        uint32_t counter[4] = {(uint32_t)i}, w[4];

        rng_philox(counter, key, w);
        p[i] = (float)(scale * 1.7320508 *
                       (((double)w[0] + w[1] + w[2] + w[3]) * 0x1p-32 - 2));
    }
    return p;
}

static inline void free_all(int n, ...)
{
    va_list ap;

    va_start(ap, n);
    for (int i = 0; i < n; i++)
        mem_free(va_arg(ap, void *));
    va_end(ap);
}

/* B sequences of the given lengths, with what dropout asks for. */
struct batch {
    long B, T;
    int *cu_seqlens;
    uint32_t *position, *example;
};

static inline struct batch new_batch(const int *length, long B)
{
    struct batch b = {.B = B};

    b.cu_seqlens = mem_array((size_t)B + 1, sizeof *b.cu_seqlens);
    for (long i = 0; i < B; i++) {
        b.T += length[i];
        b.cu_seqlens[i + 1] = (int)b.T;
    }
    b.position = mem_array((size_t)b.T + 1, sizeof *b.position);
    b.example = mem_array((size_t)b.T + 1, sizeof *b.example);
    for (long i = 0; i < B; i++) {
        for (int t = b.cu_seqlens[i]; t < b.cu_seqlens[i + 1]; t++) {
            b.position[t] = (uint32_t)(t - b.cu_seqlens[i]);
            b.example[t] = (uint32_t)(100 + i);
        }
    }
    return b;
}

static inline void free_batch(struct batch *b)
{
    free_all(3, (void *)b->cu_seqlens, (void *)b->position, (void *)b->example);
}

static inline void assert_close(const char *what, const float *got, const float *want,
                                long n, double rtol)
{
    double top = 0, worst = 0;
    long at = 0;

    for (long i = 0; i < n; i++)
        top = fmax(top, fabs((double)want[i]));
    for (long i = 0; i < n; i++) {
        double off = fabs((double)got[i] - want[i]);
        double d = off > 0 ? off / (fabs((double)want[i]) + 0.5 * top) : 0;

        if (isnan(got[i]) != isnan(want[i]))
            d = INFINITY;
        if (d > worst) {
            worst = d;
            at = i;
        }
    }
    if (!(worst <= rtol))
        fail_msg("%s: element %ld of %ld is %.9g, the reference has %.9g (%.2g > %.2g)",
                 what, at, n, got[at], want[at], worst, rtol);
}

static inline void assert_same_bits(const char *what, const float *a, const float *b,
                                    long n)
{
    for (long i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a))
            fail_msg("%s: element %ld of %ld: %.9g and %.9g", what, i, n, a[i], b[i]);
}

static inline int is_host(void)
{
    const char *name = getenv("HONE_TEST_BACKEND");

    return !name || !strcmp(name, "cpu");
}

static inline const struct backend *tested_backend(void)
{
    const char *name = getenv("HONE_TEST_BACKEND");

    if (is_host())
        return backend_find("cpu");
    if (*backend_reason(name))
        fail_msg("HONE_TEST_BACKEND=%s: %s", name, backend_reason(name));
    return mirror_of(backend_find(name));
}

static inline const struct backend *both_backends(int i)
{
    return i ? tested_backend() : backend_find("ref");
}

typedef void (*op_case)(const struct backend *be, const void *shape, struct record *out);

static inline void check_case(const char *what, op_case run, const void *shape, double rtol)
{
    const struct backend *ref = backend_find("ref"), *be = tested_backend();
    struct record want = {0}, got = {0}, again = {0};

    run(ref, shape, &want);
    be->set_threads(1);
    run(be, shape, &got);
    assert_int_equal(got.n, want.n);
    assert_close(what, got.v, want.v, want.n, rtol);
    for (int threads = 1; threads <= (is_host() ? 4 : 1); threads++) {
        be->set_threads(threads);
        again.n = 0;
        run(be, shape, &again);
        assert_same_bits(what, again.v, got.v, got.n);
    }
    be->set_threads(0);
    free_all(3, (void *)want.v, (void *)got.v, (void *)again.v);
}

/* One input of a differentiable case: its value and the gradient under test. */
struct variable {
    float *x;
    const float *grad;
    long n;
};

/* The weights of weighted(): the gradient of the loss with respect to the output. */
static inline float *new_weights(long n)
{
    return new_normal(n, 999, 1);
}

static inline double weighted(const struct record *y)
{
    float *w = new_weights(y->n);
    double sum = 0;

    for (long i = 0; i < y->n; i++)
        sum += (double)w[i] * y->v[i];
    mem_free(w);
    return sum;
}

static inline void check_gradient(const char *what, const struct variable *var,
                                  void (*forward)(void *arg, struct record *y), void *arg,
                                  double rtol)
{
    double h = 0.0078125, loss[2], slope = 0, size = 0;
    float *dir = new_normal(var->n, 555, 1), *old = new_floats(var->n);

    memcpy(old, var->x, (size_t)var->n * sizeof *old);
    for (int side = 0; side < 2; side++) {
        struct record y = {0};

        for (long i = 0; i < var->n; i++)
            var->x[i] = old[i] + (float)((side ? -h : h) * dir[i]);
        forward(arg, &y);
        loss[side] = weighted(&y);
        mem_free(y.v);
    }
    memcpy(var->x, old, (size_t)var->n * sizeof *old);
    for (long i = 0; i < var->n; i++) {
        slope += (double)var->grad[i] * dir[i];
        size += (double)var->grad[i] * var->grad[i];
    }
    if (!(fabs(slope - (loss[0] - loss[1]) / (2 * h)) <= rtol * sqrt(size)))
        fail_msg("%s: gradient along a direction %.6g, differences %.6g (norm %.3g)", what,
                 slope, (loss[0] - loss[1]) / (2 * h), sqrt(size));
    free_all(2, (void *)dir, (void *)old);
}

#endif
