/* Definition of attention's gradient (Dao et al. 2022, section B.2). With P = exp(S - lse),
 * M the dropout factors, delta_i = do_i . o_i:
 *   dV = (P M)^T dO;  dP = M dO V^T;  dS = P (dP - delta);  dQ = scale dS K;
 *   dK = scale dS^T Q. Sums over the query heads of one kv head are part of dK and dV. */
#include <string.h>

#include "base/mem.h"
#include "kernels/fail.h"
#include "kernels/keep.h"
#include "kernels/ref/ref.h"

struct sums {
    double *q, *k, *v; /* one sequence and kv head: (length, d), q of one query head */
};

static int seen(const struct attention_backward_args *a, long i, long j)
{
    if (a->causal && j > i)
        return 0;
    return a->window <= 0 || i - j < a->window;
}

static double dot(const float *x, const float *y, int n)
{
    double sum = 0;

    for (int i = 0; i < n; i++)
        sum += (double)x[i] * y[i];
    return sum;
}

static void backward_pair(const struct attention_backward_args *a, long start, int h,
                          long i, long j, struct sums *g)
{
    int kv = h / (a->H / a->K), d = a->d;
    long t = start + i, u = start + j;
    const float *q = a->q + t * a->ldq + (long)h * d, *k = a->k + u * a->ldk + (long)kv * d;
    const float *v = a->v + u * a->ldv + (long)kv * d;
    const float *o = a->o + t * a->ldo + (long)h * d;
    const float *dout = a->dout + t * a->ldo + (long)h * d;
    double keep = keep_factor(&a->dropout, t, (uint32_t)(h * 65536 + j / 4), (int)(j % 4));
    double p = exp(a->scale * dot(q, k, d) - a->lse[t * a->H + h]);
    double ds = p * (keep * dot(dout, v, d) - dot(dout, o, d)) * a->scale;

    for (int c = 0; c < d; c++) {
        g->v[j * d + c] += p * keep * dout[c];
        g->q[i * d + c] += ds * k[c];
        g->k[j * d + c] += ds * q[c];
    }
}

static void store(float *to, long ld, const double *from, long rows, int d)
{
    for (long r = 0; r < rows; r++)
        for (int c = 0; c < d; c++)
            to[r * ld + c] = (float)from[r * d + c];
}

static void backward_kv_head(const struct attention_backward_args *a, long start,
                             long length, int kv, struct sums *g)
{
    size_t bytes = (size_t)(length * a->d) * sizeof *g->q;
    int group = a->H / a->K;

    memset(g->k, 0, bytes);
    memset(g->v, 0, bytes);
    for (int h = kv * group; h < (kv + 1) * group; h++) {
        memset(g->q, 0, bytes);
        for (long i = 0; i < length; i++)
            for (long j = 0; j < length; j++)
                if (seen(a, i, j))
                    backward_pair(a, start, h, i, j, g);
        store(a->dq + start * a->ldq + (long)h * a->d, a->ldq, g->q, length, a->d);
    }
    store(a->dk + start * a->ldk + (long)kv * a->d, a->ldk, g->k, length, a->d);
    store(a->dv + start * a->ldv + (long)kv * a->d, a->ldv, g->v, length, a->d);
}

int ref_attention_backward(const struct attention_backward_args *a)
{
    size_t n = (size_t)(a->T * a->d);
    double *memory = mem_array(3 * n + 1, sizeof *memory);
    struct sums g = {memory, memory + n, memory + 2 * n};

    if (!memory)
        return op_fail(ERR_NOMEM, "attention_backward: out of memory");
    for (long b = 0; b < a->B; b++)
        for (int kv = 0; kv < a->K; kv++)
            backward_kv_head(a, a->cu_seqlens[b], a->cu_seqlens[b + 1] - a->cu_seqlens[b],
                             kv, &g);
    mem_free(memory);
    return 0;
}
