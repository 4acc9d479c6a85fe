/* Losses over rows of logits; a block takes a row. kernels/ref/cross_entropy.c and
 * logprob.c have the equations.
 *
 * Softmax cross-entropy with its gradient: a row of up to ROW_MAX columns waits in
 * registers and is read once; a longer one is read a second time for the gradient.
 * Log-probabilities by fragments read a fragment once. Statistics are taken online: a
 * thread keeps its own largest value and its sums relative to it, the block brings them
 * together.
 *
 * Labels of cross_entropy lie on the device; one out of range is found there, and the host
 * waits for it. Every thread writes the columns that it read, so gradients may lie in
 * place.
 */
#include "kernels/cuda/common.h"

enum { GROUP_COLUMNS = 4 * BLOCK, ROW_MAX = 8 * GROUP_COLUMNS };

/* Of some columns: the largest, and relative to it sum exp(x) and sum exp(x) x. */
struct running {
    float top, sum, weighted;
};

GPU_INLINE void raise(running &r, float top)
{
    if (!(top > r.top))
        return;
    if (r.sum > 0) {
        float grown = top - r.top, shrink = expf(-grown);

        r.weighted = shrink * (r.weighted - grown * r.sum);
        r.sum *= shrink;
    }
    r.top = top;
}

/* Beyond -100 exp is 0, which times minus infinity would be no number. */
GPU_INLINE void add_one(running &r, float z, float scale)
{
    float x = fmaf(z, scale, -r.top), p = expf(x);

    r.sum += p;
    r.weighted = fmaf(p, fmaxf(x, -100.0f), r.weighted);
}

GPU_INLINE void add_four(running &r, float4 z, float scale, long left)
{
    float top = z.x;

    if (left > 1)
        top = fmaxf(top, z.y);
    if (left > 2)
        top = fmaxf(top, z.z);
    if (left > 3)
        top = fmaxf(top, z.w);
    raise(r, top * scale);
    add_one(r, z.x, scale);
    if (left > 1)
        add_one(r, z.y, scale);
    if (left > 2)
        add_one(r, z.z, scale);
    if (left > 3)
        add_one(r, z.w, scale);
}

/* Those of all threads; every thread ends with the same bits. */
GPU_INLINE running block_running(running r, float *part)
{
    float top = block_max(r.top, part);

    raise(r, top);
    r.sum = block_sum(r.sum, part);
    r.weighted = block_sum(r.weighted, part);
    return r;
}

/* ---- cross-entropy ---- */

struct row_loss {
    float loss, f; /* f: of [v = y] - p_v in the gradient */
};

/* log_p, log_sum of the row; rest: the mean of z - top, for smoothing. */
static GPU_INLINE row_loss finish_row(const cross_entropy_args &a, float log_p,
                                      float log_sum, float rest)
{
    row_loss r = {0, -1};

    if (a.focal > 0) {
        float other = -expm1f(log_p), power = powf(other, a.focal); /* other: 1 - p_y */

        r.f = -power;
        if (other > 0)
            r.f += a.focal * power / other * expf(log_p) * log_p;
        log_p *= power;
    }
    r.loss = -(1 - a.smoothing) * log_p - a.smoothing * (rest - log_sum);
    return r;
}

struct slope {
    float top, log_sum, q, own, f; /* q: of every column; own: of the label besides */
    long y;
};

GPU_INLINE float slope_of(const slope &s, float z, long v)
{
    return s.f * (s.q + (v == s.y ? s.own : 0) - expf(z - s.top - s.log_sum));
}

GPU_INLINE float4 slope_of(const slope &s, float4 z, long v)
{
    return make_float4(slope_of(s, z.x, v), slope_of(s, z.y, v + 1),
                       slope_of(s, z.z, v + 2), slope_of(s, z.w, v + 3));
}

/* The row's sum of z - z0, in the order of the threads' columns. */
GPU_INLINE float total_of(float4 z, float z0, long left)
{
    float sum = z.x - z0;

    if (left > 1)
        sum += z.y - z0;
    if (left > 2)
        sum += z.z - z0;
    if (left > 3)
        sum += z.w - z0;
    return sum;
}

/* GROUPS groups of four a thread stay in registers; 0: the row is too long for that. */
template <int GROUPS>
static __global__ void cross_entropy_kernel(cross_entropy_args a, unsigned long long *bad,
                                            int w)
{
    __shared__ float part[BLOCK_WARPS];
    float4 kept[GROUPS ? GROUPS : 1];
    long n = blockIdx.x, y = a.label[n], first = 4 * threadIdx.x;
    const float *z = a.logits + n * a.V;
    float *dz = a.dlogits ? a.dlogits + n * a.V : nullptr, chosen, total = 0,
          V = (float)a.V;
    running r = {-INFINITY, 0, 0};
    row_loss loss;
    slope s;

    if (y == -100) {
        if (threadIdx.x == 0)
            a.loss[n] = 0;
        for (long v = first; dz && v < a.V; v += GROUP_COLUMNS)
            store4(dz + v, make_float4(0, 0, 0, 0), a.V - v, w);
        return;
    }
    if (y < 0 || y >= a.V) { /* the first such row, and its label */
        if (threadIdx.x == 0)
            atomicMax(bad, (unsigned long long)(0x7fffffff - n) << 32 | (uint32_t)y);
        return;
    }
    chosen = z[y]; /* before the sums: after them dz may lie there */
#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
        long v = first + i * GROUP_COLUMNS;

        if (v < a.V) {
            kept[i] = load4(z + v, a.V - v, w);
            add_four(r, kept[i], 1, a.V - v);
            total += total_of(kept[i], chosen, a.V - v);
        }
    }
    for (long v = first; !GROUPS && v < a.V; v += GROUP_COLUMNS) {
        float4 x = load4(z + v, a.V - v, w);

        add_four(r, x, 1, a.V - v);
        total += total_of(x, chosen, a.V - v);
    }
    r = block_running(r, part);
    total = block_sum(total, part) / V + (chosen - r.top);
    s = {r.top, logf(r.sum), a.smoothing / V, 1 - a.smoothing, 0, y};
    loss = finish_row(a, chosen - r.top - s.log_sum, s.log_sum, total);
    s.f = a.scale * loss.f;
    if (threadIdx.x == 0)
        a.loss[n] = loss.loss;
    if (!dz)
        return;
#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
        long v = first + i * GROUP_COLUMNS;

        if (v < a.V)
            store4(dz + v, slope_of(s, kept[i], v), a.V - v, w);
    }
    for (long v = first; !GROUPS && v < a.V; v += GROUP_COLUMNS)
        store4(dz + v, slope_of(s, load4(z + v, a.V - v, w), v), a.V - v, w);
}

static void launch_cross_entropy(const struct cross_entropy_args *a,
                                 unsigned long long *bad)
{
    dim3 grid((unsigned)a->N), block(BLOCK);
    int w = wide(a->V, a->logits, a->dlogits);

    if (a->V <= GROUP_COLUMNS)
        LAUNCH(cross_entropy_kernel<1>, grid, block, 0, cuda_stream(), *a, bad, w);
    else if (a->V <= 2 * GROUP_COLUMNS)
        LAUNCH(cross_entropy_kernel<2>, grid, block, 0, cuda_stream(), *a, bad, w);
    else if (a->V <= 4 * GROUP_COLUMNS)
        LAUNCH(cross_entropy_kernel<4>, grid, block, 0, cuda_stream(), *a, bad, w);
    else if (a->V <= ROW_MAX)
        LAUNCH(cross_entropy_kernel<8>, grid, block, 0, cuda_stream(), *a, bad, w);
    else
        LAUNCH(cross_entropy_kernel<0>, grid, block, 0, cuda_stream(), *a, bad, w);
}

int cuda_cross_entropy(const struct cross_entropy_args *a)
{
    unsigned long long *bad, found = 0;
    int rc = cuda_ready();

    if (a->focal > 0 && a->smoothing > 0)
        return op_fail(ERR_FAILED, "cross_entropy: focal and smoothing exclude each other");
    if (rc || !a->N || !a->V)
        return rc;
    bad = (unsigned long long *)cuda_scratch(sizeof *bad);
    if (!bad || cuda_fill_zero(bad, sizeof *bad))
        return ERR_DEVICE;
    launch_cross_entropy(a, bad);
    rc = cuda_launched("cross_entropy");
    if (!rc)
        rc = cuda_copy_out(&found, bad, sizeof found);
    if (!rc && found)
        rc = op_fail(ERR_FAILED, "cross_entropy: label %d of row %ld is not below %ld",
                     (int)(uint32_t)found, 0x7fffffff - (long)(found >> 32), a->V);
    return rc;
}

/* ---- log-probabilities by fragments of the vocabulary ---- */

static __global__ void logprob_kernel(logprob_args a, int w)
{
    __shared__ float part[BLOCK_WARPS];
    long n = blockIdx.x, t = a.target[n];
    const float *z = a.logits + n * a.columns;
    float *state = a.state + n * LOGPROB_STATE, *out = a.out + n * LOGPROB_OUT;
    float chosen, log_sum, entropy;
    running r = {-INFINITY, 0, 0};

    for (long v = 4 * threadIdx.x; v < a.columns; v += GROUP_COLUMNS)
        add_four(r, load4(z + v, a.columns - v, w), a.scale, a.columns - v);
    r = block_running(r, part);
    if (threadIdx.x)
        return;
    chosen = a.first ? state[3] : 0;
    if (t >= a.first && t < a.first + a.columns)
        chosen = z[t - a.first];
    if (a.first) {
        running before = {state[0], state[1], state[2]};

        raise(before, r.top);
        raise(r, before.top);
        r.sum += before.sum;
        r.weighted += before.weighted;
    }
    log_sum = r.sum;
    entropy = r.weighted;
    if (a.first + a.columns == a.V) {
        log_sum = logf(r.sum);
        entropy = log_sum - r.weighted / r.sum;
        out[0] = t < 0 ? 0 : fmaf(chosen, a.scale, -r.top) - log_sum;
        out[1] = t < 0 ? 0 : entropy;
        out[2] = t >= 0 && chosen * a.scale >= r.top;
        out[3] = t >= 0;
    }
    state[0] = r.top;
    state[1] = log_sum;
    state[2] = entropy;
    state[3] = chosen;
}

int cuda_logprob(const struct logprob_args *a)
{
    int rc = cuda_ready();

    if (rc || !a->N)
        return rc;
    LAUNCH(logprob_kernel, dim3((unsigned)a->N), dim3(BLOCK), 0, cuda_stream(), *a,
           wide(a->columns, a->logits));
    return cuda_launched("logprob");
}

static __global__ void logprob_backward_kernel(logprob_backward_args a, int w)
{
    long n = blockIdx.x, t = a.target[n];
    float *z = a.logits + n * a.columns;
    const float *state = a.state + n * LOGPROB_STATE, *g = a.dout + n * LOGPROB_OUT;
    float top = state[0], log_sum = state[1], entropy = state[2];
    float to_log = t < 0 ? 0 : a.scale * g[0], to_entropy = t < 0 ? 0 : a.scale * g[1];

    for (long v = 4 * threadIdx.x; v < a.columns; v += GROUP_COLUMNS) {
        float4 x = load4(z + v, a.columns - v, w);
        float *e = &x.x;

#pragma unroll
        for (int i = 0; i < 4; i++) {
            float log_p = fmaf(e[i], a.scale, -top) - log_sum, p = expf(log_p);
            float own = a.first + v + i == t ? -expm1f(log_p) : -p;

            e[i] = t < 0
                       ? 0
                       : to_log * own - to_entropy * p * (fmaxf(log_p, -100.0f) + entropy);
        }
        store4(z + v, x, a.columns - v, w);
    }
}

int cuda_logprob_backward(const struct logprob_backward_args *a)
{
    int rc = cuda_ready();

    if (rc || !a->N)
        return rc;
    LAUNCH(logprob_backward_kernel, dim3((unsigned)a->N), dim3(BLOCK), 0, cuda_stream(), *a,
           wide(a->columns, a->logits));
    return cuda_launched("logprob_backward");
}
