/* Activations, gated units, dropout, addition: elementwise, four elements a thread. */
#include "kernels/cuda/common.h"

#include "kernels/cuda/columns.h"

static __global__ void act_kernel(act_args a, int w)
{
    long i = 4 * ((long)blockIdx.x * BLOCK + threadIdx.x);
    float4 x;

    if (i >= a.n)
        return;
    w = w && i + 4 <= a.n;
    x = load4(a.x + i, a.n - i, w);
    store4(a.y + i, act_value4(a.act, x), a.n - i, w);
}

int cuda_act(const struct act_args *a)
{
    int rc = cuda_ready();

    if (rc || !a->n)
        return rc;
    LAUNCH(act_kernel, dim3(blocks(a->n, 4 * BLOCK)), dim3(BLOCK), 0, cuda_stream(), *a,
           wide(0, a->x, a->y));
    return cuda_launched("act");
}

static __global__ void act_backward_kernel(act_backward_args a, long n, int w)
{
    long i = 4 * ((long)blockIdx.x * BLOCK + threadIdx.x);
    float4 x = {}, g;

    if (i >= n)
        return;
    w = w && i + 4 <= n;
    g = load4(a.dy + i, n - i, w);
    if (a.act != ACT_NONE) {
        x = load4(a.x + i, n - i, w);
        g = g * act_slope4(a.act, x);
    }
    store4(a.dx + i, g, n - i, w);
}

int cuda_act_backward(const struct act_backward_args *a)
{
    long n = a->N * a->D;
    int rc = cuda_ready();

    if (rc || !n)
        return rc;
    if (a->act != ACT_NONE && a->dbias)
        return columns_act(a);
    if (a->act != ACT_NONE || a->dx != a->dy) {
        const float *x = a->act == ACT_NONE ? nullptr : a->x;

        LAUNCH(act_backward_kernel, dim3(blocks(n, 4 * BLOCK)), dim3(BLOCK), 0,
               cuda_stream(), *a, n, wide(0, x, a->dy, a->dx));
        rc = cuda_launched("act_backward");
    }
    if (!rc && a->dbias)
        rc = columns_add(a->dx, a->N, a->D, a->dbias);
    return rc;
}

static __global__ void glu_kernel(glu_args a, int w)
{
    long groups = (a.F + 3) / 4, i = (long)blockIdx.x * BLOCK + threadIdx.x;
    long r = i / groups, c = i % groups * 4, at = r * a.ld + c, left = a.F - c;

    if (r < a.N)
        store4(a.y + r * a.F + c,
               act_value4(a.act, load4(a.gate + at, left, w)) * load4(a.up + at, left, w),
               left, w);
}

int cuda_glu(const struct glu_args *a)
{
    long n = a->N * ((a->F + 3) / 4);
    int rc = cuda_ready();

    if (rc || !n)
        return rc;
    LAUNCH(glu_kernel, dim3(blocks(n, BLOCK)), dim3(BLOCK), 0, cuda_stream(), *a,
           wide(a->F | a->ld, a->gate, a->up, a->y));
    return cuda_launched("glu");
}

static __global__ void glu_backward_kernel(glu_backward_args a, int w)
{
    long groups = (a.F + 3) / 4, i = (long)blockIdx.x * BLOCK + threadIdx.x;
    long r = i / groups, c = i % groups * 4, at = r * a.ld + c, left = a.F - c;
    float4 dy, gate, up;

    if (r >= a.N)
        return;
    dy = load4(a.dy + r * a.F + c, left, w);
    gate = load4(a.gate + at, left, w);
    up = load4(a.up + at, left, w);
    store4(a.dgate + at, dy * up * act_slope4(a.act, gate), left, w);
    store4(a.dup + at, dy * act_value4(a.act, gate), left, w);
}

int cuda_glu_backward(const struct glu_backward_args *a)
{
    long n = a->N * ((a->F + 3) / 4);
    int rc = cuda_ready();

    if (rc || !n)
        return rc;
    LAUNCH(glu_backward_kernel, dim3(blocks(n, BLOCK)), dim3(BLOCK), 0, cuda_stream(), *a,
           wide(a->F | a->ld, a->gate, a->up, a->dy) && wide(0, a->dgate, a->dup));
    return cuda_launched("glu_backward");
}

static __global__ void dropout_kernel(dropout_args a, keep k, int w)
{
    long groups = (a.D + 3) / 4, i = (long)blockIdx.x * BLOCK + threadIdx.x;
    long r = i / groups, c = i % groups * 4, at = r * a.D + c;

    if (r < a.N)
        store4(a.y + at,
               load4(a.x + at, a.D - c, w) * keep_factors(k, r, (uint32_t)(c / 4)), a.D - c,
               w);
}

int cuda_dropout(const struct dropout_args *a)
{
    long n = a->N * ((a->D + 3) / 4);
    int rc = cuda_ready();

    if (rc || !n)
        return rc;
    LAUNCH(dropout_kernel, dim3(blocks(n, BLOCK)), dim3(BLOCK), 0, cuda_stream(), *a,
           keep_of(a->dropout), wide(a->D, a->x, a->y));
    return cuda_launched("dropout");
}

static __global__ void add_kernel(add_args a, int w)
{
    long i = 4 * ((long)blockIdx.x * BLOCK + threadIdx.x);

    if (i >= a.n)
        return;
    w = w && i + 4 <= a.n;
    store4(a.y + i, load4(a.y + i, a.n - i, w) + load4(a.x + i, a.n - i, w), a.n - i, w);
}

int cuda_add(const struct add_args *a)
{
    int rc = cuda_ready();

    if (rc || !a->n)
        return rc;
    LAUNCH(add_kernel, dim3(blocks(a->n, 4 * BLOCK)), dim3(BLOCK), 0, cuda_stream(), *a,
           wide(0, a->x, a->y));
    return cuda_launched("add");
}
