/* Softmax cross-entropy, forward and gradient: one block a row, three passes over it. With
 * L = log sum exp z, log p_v = z_v - L (kernels/ref/cross_entropy.c has the equations).
 *
 * Labels lie on the device; one out of range is found there, and the host waits for it. */
#include "kernels/cuda/common.h"

static __global__ void cross_entropy_kernel(cross_entropy_args a, unsigned long long *bad)
{
    __shared__ float part[BLOCK_WARPS];
    const float *z = a.logits + blockIdx.x * a.V;
    float *dz = a.dlogits ? a.dlogits + blockIdx.x * a.V : nullptr;
    long n = blockIdx.x, y = a.label[n];
    float top = -INFINITY, sum = 0, total = 0, V = (float)a.V, log_sum, log_p, f = -1;

    if (y == -100) {
        if (threadIdx.x == 0)
            a.loss[n] = 0;
        for (long v = threadIdx.x; dz && v < a.V; v += BLOCK)
            dz[v] = 0;
        return;
    }
    if (y < 0 || y >= a.V) { /* the first such row, and its label */
        if (threadIdx.x == 0)
            atomicMax(bad, (unsigned long long)(0x7fffffff - n) << 32 | (uint32_t)y);
        return;
    }
    for (long v = threadIdx.x; v < a.V; v += BLOCK)
        top = fmaxf(top, z[v]);
    top = block_max(top, part);
    for (long v = threadIdx.x; v < a.V; v += BLOCK) {
        sum += expf(z[v] - top);
        total += z[v] - top;
    }
    sum = block_sum(sum, part);
    total = block_sum(total, part);
    log_sum = logf(sum);
    log_p = z[y] - top - log_sum;
    if (a.focal > 0) {
        float rest = -expm1f(log_p), power = powf(rest, a.focal); /* rest: 1 - p_y */

        f = -power;
        if (rest > 0)
            f += a.focal * power / rest * expf(log_p) * log_p;
        log_p *= power;
    }
    if (threadIdx.x == 0)
        a.loss[n] = -(1 - a.smoothing) * log_p - a.smoothing * (total / V - log_sum);
    if (!dz)
        return;
    __syncthreads(); /* z[y] is read; dz may lie in z */
    for (long v = threadIdx.x; v < a.V; v += BLOCK) {
        float q = a.smoothing / V + (v == y ? 1 - a.smoothing : 0);

        dz[v] = a.scale * f * (q - expf(z[v] - top - log_sum));
    }
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
    LAUNCH(cross_entropy_kernel, dim3((unsigned)a->N), dim3(BLOCK), 0, cuda_stream(), *a,
           bad);
    rc = cuda_launched("cross_entropy");
    if (!rc)
        rc = cuda_copy_out(&found, bad, sizeof found);
    if (!rc && found)
        rc = op_fail(ERR_FAILED, "cross_entropy: label %d of row %ld is not below %ld",
                     (int)(uint32_t)found, 0x7fffffff - (long)(found >> 32), a->V);
    return rc;
}
