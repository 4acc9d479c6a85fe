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
    x = make_float4(act_value(a.act, x.x), act_value(a.act, x.y), act_value(a.act, x.z),
                    act_value(a.act, x.w));
    store4(a.y + i, x, a.n - i, w);
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
        g = g * make_float4(act_slope(a.act, x.x), act_slope(a.act, x.y),
                            act_slope(a.act, x.z), act_slope(a.act, x.w));
    }
    store4(a.dx + i, g, n - i, w);
}

int cuda_act_backward(const struct act_backward_args *a)
{
    long n = a->N * a->D;
    int rc = cuda_ready();

    if (rc || !n)
        return rc;
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

static __global__ void glu_kernel(glu_args a)
{
    long i = (long)blockIdx.x * BLOCK + threadIdx.x, r = i / a.F, c = i % a.F;

    if (r < a.N)
        a.y[i] = act_value(a.act, a.gate[r * a.ld + c]) * a.up[r * a.ld + c];
}

int cuda_glu(const struct glu_args *a)
{
    long n = a->N * a->F;
    int rc = cuda_ready();

    if (rc || !n)
        return rc;
    LAUNCH(glu_kernel, dim3(blocks(n, BLOCK)), dim3(BLOCK), 0, cuda_stream(), *a);
    return cuda_launched("glu");
}

static __global__ void glu_backward_kernel(glu_backward_args a)
{
    long i = (long)blockIdx.x * BLOCK + threadIdx.x, r = i / a.F, c = i % a.F;
    long j = r * a.ld + c;
    float dy, gate, up;

    if (r >= a.N)
        return;
    dy = a.dy[i];
    gate = a.gate[j];
    up = a.up[j];
    a.dgate[j] = dy * up * act_slope(a.act, gate);
    a.dup[j] = dy * act_value(a.act, gate);
}

int cuda_glu_backward(const struct glu_backward_args *a)
{
    long n = a->N * a->F;
    int rc = cuda_ready();

    if (rc || !n)
        return rc;
    LAUNCH(glu_backward_kernel, dim3(blocks(n, BLOCK)), dim3(BLOCK), 0, cuda_stream(), *a);
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
