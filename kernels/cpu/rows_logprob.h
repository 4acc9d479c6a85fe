/* Rows of log-probabilities by fragments of the vocabulary; kernels/ref/logprob.c has the
 * equations. `state` is that of op.h. */
#ifndef KERNELS_CPU_ROWS_LOGPROB_H
#define KERNELS_CPU_ROWS_LOGPROB_H

#include "kernels/cpu/loops.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/rows_norm.h"

/* Below this exp is 0; keeps 0 times minus infinity out of the sums. */
#define LOGPROB_FLOOR -100.0f

static float loop_largest(const float *z, long n, float scale, float top)
{
    vf high = vf_set1(top), f = vf_set1(scale);
    float last;
    long v = 0;

    for (; v + VW <= n; v += VW)
        high = vf_max(high, vf_load(z + v) * f);
    last = vf_top(high);
    for (; v < n; v++)
        last = z[v] * scale > last ? z[v] * scale : last;
    return last;
}

/* n logits of a row more: state[0 .. 2] is brought up to date. */
static void loop_logprob(const float *z, long n, float scale, float *state)
{
    float top = loop_largest(z, n, scale, state[0]), lane[VW];
    vf sum = vf_set1(0), weighted = vf_set1(0), f = vf_set1(scale), lift = vf_set1(-top);

    for (long v = 0; v < n; v += VW) {
        vf x = vf_fma(vf_load_up_to(z + v, n - v), f, lift);
        vf p = vf_cut(vf_exp(x), n - v);

        sum += p;
        weighted = vf_fma(p, vf_max(vf_set1(LOGPROB_FLOOR), x), weighted);
    }
    if (state[1] > 0) {
        float grown = top - state[0];

        vf_store(lane, vf_exp(vf_set1(-grown)));
        state[2] = lane[0] * (state[2] - grown * state[1]);
        state[1] *= lane[0];
    }
    state[0] = top;
    state[1] += vf_sum(sum);
    state[2] += vf_sum(weighted);
}

/* z = its gradient; t: the target's place in it, where it lies in it; g: d loss / d out. */
static void loop_logprob_slope(float *z, long n, float scale, long t, const float *state,
                               const float *g)
{
    vf f = vf_set1(scale), lift = vf_set1(-state[0]), less = vf_set1(state[1]);
    vf to_log = vf_set1(-g[0] * scale), to_entropy = vf_set1(-g[1] * scale);
    vf entropy = vf_set1(state[2]);
    float own = 0;

    if (t >= 0 && t < n) {
        float x = fmaf(z[t], scale, -state[0]) - state[1];

        own = scale * (-g[0] * expm1f(x) - g[1] * expf(x) * (x + state[2]));
    }
    for (long v = 0; v < n; v += VW) {
        vf x = vf_fma(vf_load_up_to(z + v, n - v), f, lift) - less, p = vf_exp(x);
        vf h = vf_max(vf_set1(LOGPROB_FLOOR), x) + entropy;

        vf_store_up_to(z + v, p * vf_fma(to_entropy, h, to_log), n - v);
    }
    if (t >= 0 && t < n)
        z[t] = own;
}

#endif
