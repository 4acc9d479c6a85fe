/* Definition of attention over packed sequences: o = softmax(scale q k^T + mask) v, and
 * lse = log sum exp of the scaled scores. One row of scores at a time, in double; dropout
 * acts on the probabilities after normalisation. */
#include "base/mem.h"
#include "kernels/fail.h"
#include "kernels/keep.h"
#include "kernels/ref/ref.h"

struct head {
    long start, length; /* of the sequence */
    int h, kv;
};

static int seen(const struct attention_args *a, long i, long j)
{
    if (a->causal && j > i)
        return 0;
    return a->window <= 0 || i - j < a->window;
}

static void attend_row(const struct attention_args *a, struct head s, long i, double *p,
                       double *o)
{
    long t = s.start + i;
    const float *q = a->q + t * a->ldq + (long)s.h * a->d;
    double top = -INFINITY, sum = 0;

    for (long j = 0; j < s.length; j++) {
        const float *k = a->k + (s.start + j) * a->ldk + (long)s.kv * a->d;

        p[j] = 0;
        for (int c = 0; c < a->d; c++)
            p[j] += (double)q[c] * k[c];
        p[j] = seen(a, i, j) ? p[j] * a->scale : -INFINITY;
        top = fmax(top, p[j]);
    }
    for (long j = 0; j < s.length; j++)
        sum += p[j] = exp(p[j] - top);
    for (int c = 0; c < a->d; c++)
        o[c] = 0;
    for (long j = 0; j < s.length; j++) {
        const float *v = a->v + (s.start + j) * a->ldv + (long)s.kv * a->d;
        double keep =
            keep_factor(&a->dropout, t, (uint32_t)(s.h * 65536 + j / 4), (int)(j % 4));

        for (int c = 0; c < a->d; c++)
            o[c] += p[j] / sum * keep * v[c];
    }
    for (int c = 0; c < a->d; c++)
        a->o[t * a->ldo + (long)s.h * a->d + c] = (float)o[c];
    if (a->lse)
        a->lse[t * a->H + s.h] = (float)(top + log(sum));
}

int ref_attention(const struct attention_args *a)
{
    double *p = mem_array((size_t)(a->T + a->d), sizeof *p);

    if (!p)
        return op_fail(ERR_NOMEM, "attention: out of memory");
    for (long b = 0; b < a->B; b++) {
        for (int h = 0; h < a->H; h++) {
            struct head s = {a->cu_seqlens[b], a->cu_seqlens[b + 1] - a->cu_seqlens[b], h,
                             h / (a->H / a->K)};

            for (long i = 0; i < s.length; i++)
                attend_row(a, s, i, p, p + a->T);
        }
    }
    mem_free(p);
    return 0;
}
