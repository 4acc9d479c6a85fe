/* AdamW over many tensors (Loshchilov & Hutter 2019) and the gradient norm: one launch
 * each for all of them.
 *
 * The list of tensors is host memory and goes to scratch with the row flags behind it;
 * block k works on chunk k of all chunks, and finds its tensor by the number of the
 * tensor's first chunk. A row whose flag is 0 is skipped: its gradient and moments are 0.
 *
 * The norm is in double: a block's threads, then the chunks of a tensor in order. */
#include "kernels/cuda/common.h"

extern "C" {
#include "base/mem.h"
}

enum { CHUNK = 16 * BLOCK };

struct item {
    float *p, *grad, *m, *v;
    const unsigned char *live;
    long n, width, first; /* first chunk */
    float decay, lr;
    int wide; /* may be read as float4 */
};

struct list {
    const item *at; /* device; n entries and the end */
    int n;
    long chunks;
    void *rest; /* device memory behind it all */
};

/* Tensors and flags to scratch, with `more` bytes of room behind them; decay: rows of
 * tensors with weight decay are not skipped. */
static int upload(const struct adamw_tensor *t, int n, int decay, size_t more, list *out)
{
    size_t bytes = (size_t)(n + 1) * sizeof(item), flags = bytes;
    item *host;
    char *device;
    int rc;

    for (int i = 0; i < n; i++)
        if (t[i].live)
            bytes += (size_t)(t[i].n / t[i].width);
    host = (item *)mem_alloc(bytes);
    if (!host)
        return op_fail(ERR_NOMEM, "out of memory for the list of parameters");
    out->n = n;
    out->chunks = 0;
    for (int i = 0; i < n; i++) {
        host[i] = {t[i].p,
                   t[i].grad,
                   t[i].m,
                   t[i].v,
                   nullptr,
                   t[i].n,
                   t[i].width,
                   out->chunks,
                   t[i].decay,
                   t[i].lr,
                   wide(0, t[i].p, t[i].grad, t[i].m, t[i].v)};
        out->chunks += (t[i].n + CHUNK - 1) / CHUNK;
    }
    host[n].first = out->chunks;
    bytes = (bytes + 15) / 16 * 16;
    device = (char *)cuda_scratch(bytes + more + (size_t)out->chunks * sizeof(double));
    for (int i = 0; device && i < n; i++) {
        size_t rows = t[i].live ? (size_t)(t[i].n / t[i].width) : 0;

        if (!rows || (decay && t[i].decay != 0))
            continue;
        memcpy((char *)host + flags, t[i].live, rows);
        host[i].live = (unsigned char *)device + flags;
        flags += rows;
    }
    rc = device ? cuda_copy_in(device, host, flags) : ERR_NOMEM;
    mem_free(host);
    out->at = (const item *)device;
    out->rest = device + bytes;
    return rc;
}

static GPU_INLINE int find_item(const list &l, long chunk)
{
    int low = 0, high = l.n - 1;

    while (low < high) { /* the last tensor whose first chunk is not behind this one */
        int mid = (low + high + 1) / 2;

        if (l.at[mid].first <= chunk)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

/* Has any row of elements i .. i + 3 a gradient? The others' are zeros, as are their
 * moments, so that to take them along changes nothing. */
static GPU_INLINE bool any_live(const item &t, long i)
{
    for (long r = i / t.width; r <= (min(i + 4, t.n) - 1) / t.width; r++)
        if (t.live[r])
            return true;
    return false;
}

struct adamw_factors {
    float beta1, beta2, rest1, rest2, eps, unbias1, unbias2, grad_scale;
};

GPU_INLINE void adamw_one(const item &t, const adamw_factors &f, float &p, float &g,
                          float &m, float &v)
{
    g *= f.grad_scale;
    m = f.beta1 * m + f.rest1 * g;
    v = f.beta2 * v + f.rest2 * (g * g);
    p -= t.lr * (t.decay * p + m * f.unbias1 / (sqrtf(v * f.unbias2) + f.eps));
    g = 0;
}

static __global__ void adamw_kernel(list l, adamw_factors f)
{
    const item t = l.at[find_item(l, blockIdx.x)];
    long from = (blockIdx.x - t.first) * CHUNK, to = min(t.n, from + CHUNK);

    for (long i = from + 4 * threadIdx.x; i < to; i += 4 * BLOCK) {
        int w = t.wide && i + 4 <= t.n;
        float4 p, g, m, v;

        if (t.live && !any_live(t, i))
            continue;
        p = load4(t.p + i, t.n - i, w);
        g = load4(t.grad + i, t.n - i, w);
        m = load4(t.m + i, t.n - i, w);
        v = load4(t.v + i, t.n - i, w);
        adamw_one(t, f, p.x, g.x, m.x, v.x);
        adamw_one(t, f, p.y, g.y, m.y, v.y);
        adamw_one(t, f, p.z, g.z, m.z, v.z);
        adamw_one(t, f, p.w, g.w, m.w, v.w);
        store4(t.p + i, p, t.n - i, w);
        store4(t.grad + i, g, t.n - i, w);
        store4(t.m + i, m, t.n - i, w);
        store4(t.v + i, v, t.n - i, w);
    }
}

int cuda_adamw(const struct adamw_args *a)
{
    double c1 = 1 - pow(a->beta1, (double)a->step), c2 = 1 - pow(a->beta2, (double)a->step);
    adamw_factors f = {(float)a->beta1,       (float)a->beta2, (float)(1 - a->beta1),
                       (float)(1 - a->beta2), (float)a->eps,   (float)(1 / c1),
                       (float)(1 / c2),       a->grad_scale};
    list l = {};
    int rc = cuda_ready();

    if (a->step < 1)
        return op_fail(ERR_FAILED, "adamw: steps count from 1");
    if (!rc)
        rc = upload(a->tensor, a->n, 1, 0, &l);
    if (rc || !l.chunks)
        return rc;
    LAUNCH(adamw_kernel, dim3((unsigned)l.chunks), dim3(BLOCK), 0, cuda_stream(), l, f);
    return cuda_launched("adamw");
}

static __global__ void square_kernel(list l, double *partial)
{
    __shared__ double part[BLOCK_WARPS];
    const item t = l.at[find_item(l, blockIdx.x)];
    long from = (blockIdx.x - t.first) * CHUNK, to = min(t.n, from + CHUNK);
    double sum = 0;

    for (long i = from + 4 * threadIdx.x; i < to; i += 4 * BLOCK) {
        float4 g;

        if (t.live && !any_live(t, i))
            continue;
        g = load4(t.grad + i, t.n - i, t.wide && i + 4 <= t.n);
        sum += ((double)g.x * g.x + (double)g.y * g.y) +
               ((double)g.z * g.z + (double)g.w * g.w);
    }
    sum = block_sum(sum, part);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

static __global__ void square_sums(list l, const double *partial, double *out)
{
    __shared__ double part[BLOCK_WARPS];
    double sum = 0;

    for (long k = l.at[blockIdx.x].first + threadIdx.x; k < l.at[blockIdx.x + 1].first;
         k += BLOCK)
        sum += partial[k];
    sum = block_sum(sum, part);
    if (threadIdx.x == 0)
        out[blockIdx.x] = sum;
}

int cuda_grad_norm(const struct grad_norm_args *a)
{
    size_t bytes = (size_t)a->n * sizeof(double);
    double *sum;
    list l = {};
    int rc = cuda_ready();

    if (rc || !a->n)
        return rc;
    rc = upload(a->tensor, a->n, 0, bytes, &l);
    if (rc)
        return rc;
    sum = (double *)l.rest;
    if (l.chunks) {
        LAUNCH(square_kernel, dim3((unsigned)l.chunks), dim3(BLOCK), 0, cuda_stream(), l,
               sum + a->n);
        rc = cuda_launched("grad_norm");
    }
    if (!rc) {
        LAUNCH(square_sums, dim3((unsigned)a->n), dim3(BLOCK), 0, cuda_stream(), l,
               (const double *)(sum + a->n), sum);
        rc = cuda_launched("grad_norm");
    }
    return rc ? rc : cuda_copy_out(a->sum, sum, bytes);
}
