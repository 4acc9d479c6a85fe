/* Rows of attention: the online softmax of a block of keys, and its gradient. Columns are
 * keys of the block; those outside lo .. hi-1 are hidden and get probability 0, up to the
 * block's padded width `n`, a multiple of VW. */
#ifndef KERNELS_CPU_ROWS_ATTENTION_H
#define KERNELS_CPU_ROWS_ATTENTION_H

#include "kernels/cpu/loops.h"
#include "kernels/cpu/math.h"

static inline vf lane_numbers(void)
{
    static const float lane[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

    return vf_load(lane);
}

/* `x` where lo <= column < hi, else `hidden`; `column` holds the lanes' columns. */
static inline vf visible(vf column, float lo, float hi, vf x, vf hidden)
{
    x = vf_where_less(column, vf_set1(hi), x, hidden);
    return vf_where_less(column, vf_set1(lo), hidden, x);
}

/* s = exp(scale s - top'), top' = max(*top, max scale s); *sum and *top are brought up to
 * date. Returns the factor of what was summed before, exp(*top - top'). */
static float loop_softmax(float *s, long n, long lo, long hi, float scale, float *top,
                          float *sum)
{
    vf high = vf_set1(*top), total = vf_set1(0), f = vf_set1(scale), lanes = lane_numbers();
    float before = *top, shrink = 1, lane[VW];

    for (long i = 0; i < n; i += VW) {
        vf x = vf_load(s + i) * f, column = lanes + vf_set1((float)i);

        x = visible(column, (float)lo, (float)hi, x, vf_set1(-INFINITY));
        vf_store(s + i, x);
        high = vf_max(high, x);
    }
    *top = vf_top(high);
    high = vf_set1(*top);
    for (long i = 0; i < n; i += VW) {
        vf p = vf_exp(vf_load(s + i) - high);

        vf_store(s + i, p);
        total += p;
    }
    if (*sum > 0) {
        vf_store(lane, vf_exp(vf_set1(before - *top)));
        shrink = lane[0];
    }
    *sum = *sum * shrink + vf_sum(total);
    return shrink;
}

/* In: scores s, dp = dO V^T, keep factors (or NULL). Out: s = P keep, what dV sums;
 * dp = P (dp keep - delta) scale, what dQ and dK sum. */
static void loop_softmax_slope(float *s, float *dp, const float *keep, long n, long lo,
                               long hi, float scale, float lse, float delta)
{
    vf f = vf_set1(scale), less = vf_set1(lse), d = vf_set1(delta), lanes = lane_numbers();

    for (long i = 0; i < n; i += VW) {
        vf p = vf_exp(vf_fma(vf_load(s + i), f, -less)), g = vf_load(dp + i), k;

        p = visible(lanes + vf_set1((float)i), (float)lo, (float)hi, p, vf_set1(0));
        k = keep ? vf_load(keep + i) : vf_set1(1.0f);
        vf_store(s + i, p * k);
        vf_store(dp + i, p * (g * k - d) * f);
    }
}

static float loop_dot(const float *x, const float *y, long n)
{
    vf sum = vf_set1(0);

    for (long i = 0; i < n; i += VW)
        sum = vf_fma(vf_load_up_to(x + i, n - i), vf_load_up_to(y + i, n - i), sum);
    return vf_sum(sum);
}

#endif
