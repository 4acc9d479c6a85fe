/* Rows of the norms and the softmax losses: sums over a row go to VW lanes in order and
 * over the lanes in one fixed order, so a row's bits depend on the row alone. */
#ifndef KERNELS_CPU_ROWS_NORM_H
#define KERNELS_CPU_ROWS_NORM_H

#include "kernels/cpu/loops.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/rows_keep.h"

/* Lanes beyond a row's end, set to 0 in a value that is not 0 there. */
static inline vf vf_cut(vf v, long n)
{
    float lane[VW];

    if (n >= VW)
        return v;
    vf_store(lane, v);
    for (long i = n; i < VW; i++)
        lane[i] = 0;
    return vf_load(lane);
}

static inline void norm_row(const struct norm_args *a, const float *s, long r)
{
    float *y = a->y + r * a->D, mean = 0, rstd, D = (float)a->D;
    vf sum = vf_set1(0), m, f;

    for (long c = 0; a->kind == NORM_LAYER && c < a->D; c += VW)
        sum += vf_load_up_to(s + c, a->D - c);
    mean = vf_sum(sum) / D;
    m = vf_set1(mean);
    sum = vf_set1(0);
    for (long c = 0; c < a->D; c += VW) {
        vf x = vf_cut(vf_load_up_to(s + c, a->D - c) - m, a->D - c);

        sum = vf_fma(x, x, sum);
    }
    rstd = 1.0f / sqrtf(vf_sum(sum) / D + a->eps);
    f = vf_set1(rstd);
    for (long c = 0; c < a->D; c += VW) {
        long n = a->D - c;
        vf u = (vf_load_up_to(s + c, n) - m) * f, w = vf_load_up_to(a->w + c, n);
        vf b = vf_set1(0);

        if (a->b)
            b = vf_load_up_to(a->b + c, n);
        vf_store_up_to(y + c, vf_fma(u, w, b), n);
    }
    if (a->kind == NORM_LAYER)
        a->mean[r] = mean;
    a->rstd[r] = rstd;
}

/* s = dropout(x) + residual on row r; s may be x or the residual. */
static inline void norm_sum(const struct norm_args *a, long r, float *s)
{
    enum { PART = 512 };
    const float *x = a->x + r * a->D,
                *residual = a->residual ? a->residual + r * a->D : NULL;
    float factor[PART];

    for (long c = 0; c < a->D; c += PART) {
        long n = a->D - c < PART ? a->D - c : PART;

        if (a->dropout.p > 0)
            loop_keep(&a->dropout, r, (uint32_t)(c / 4), n, factor);
        for (long i = 0; i < n; i += VW) {
            vf v = vf_load_up_to(x + c + i, n - i);

            if (a->dropout.p > 0)
                v *= vf_load_up_to(factor + i, n - i);
            if (residual)
                v += vf_load_up_to(residual + c + i, n - i);
            vf_store_up_to(s + c + i, v, n - i);
        }
    }
}

static void loop_norm(const struct norm_args *a, long from, long to)
{
    for (long r = from; r < to; r++) {
        if (a->sum)
            norm_sum(a, r, a->sum + r * a->D);
        norm_row(a, (a->sum ? a->sum : a->x) + r * a->D, r);
    }
}

/* Rows from .. to-1; dw and db receive (+=) their sums over these rows. */
static void loop_norm_backward(const struct norm_backward_args *a, long from, long to,
                               float *dw, float *db)
{
    int layer = a->kind == NORM_LAYER;

    for (long r = from; r < to; r++) {
        const float *dy = a->dy + r * a->D, *s = a->sum + r * a->D;
        const float *dsum = a->dsum ? a->dsum + r * a->D : NULL;
        float *dres = a->dresidual ? a->dresidual + r * a->D : NULL;
        float *dx = a->dx ? a->dx + r * a->D : NULL, *ds = dx ? dx : dres;
        vf rstd = vf_set1(a->rstd[r]), mean = vf_set1(layer ? a->mean[r] : 0);
        vf g_sum = vf_set1(0), gu_sum = vf_set1(0), g_mean, gu_mean;

        for (long c = 0; c < a->D; c += VW) {
            long n = a->D - c;
            vf d = vf_load_up_to(dy + c, n), g = d * vf_load_up_to(a->w + c, n);
            vf u = (vf_load_up_to(s + c, n) - mean) * rstd; /* d and g are 0 past the end */

            g_sum += g;
            gu_sum = vf_fma(g, u, gu_sum);
            vf_store_up_to(dw + c, vf_fma(d, u, vf_load_up_to(dw + c, n)), n);
            vf_store_up_to(db + c, d + vf_load_up_to(db + c, n), n);
        }
        g_mean = vf_set1(layer ? vf_sum(g_sum) / (float)a->D : 0);
        gu_mean = vf_set1(vf_sum(gu_sum) / (float)a->D);
        for (long c = 0; c < a->D && ds; c += VW) {
            long n = a->D - c;
            vf g = vf_load_up_to(dy + c, n) * vf_load_up_to(a->w + c, n);
            vf u = (vf_load_up_to(s + c, n) - mean) * rstd;
            vf v = rstd * (g - g_mean - u * gu_mean);

            if (dsum)
                v += vf_load_up_to(dsum + c, n);
            vf_store_up_to(ds + c, v, n);
            if (dres && dres != ds)
                vf_store_up_to(dres + c, v, n);
        }
        if (dx && a->dropout.p > 0)
            loop_dropout(&a->dropout, r, dx, dx, a->D);
    }
}

/* One row of V logits with label y: the loss, and its gradient into dz unless NULL. */
static float loop_cross_entropy(const struct cross_entropy_args *a, const float *z, int y,
                                float *dz)
{
    vf top = vf_set1(-INFINITY), sum = vf_set1(0), total = vf_set1(0), lift;
    float high, log_sum, log_p, loss, f = a->scale, smooth = a->smoothing / (float)a->V;

    for (long v = 0; v < a->V; v += VW) {
        if (v + VW <= a->V)
            top = vf_max(top, vf_load(z + v));
        else
            for (long i = v; i < a->V; i++)
                top = vf_max(top, vf_set1(z[i]));
    }
    high = vf_top(top);
    lift = vf_set1(high);
    for (long v = 0; v < a->V; v += VW) {
        vf x = vf_load_up_to(z + v, a->V - v);

        sum += vf_cut(vf_exp(x - lift), a->V - v);
        total += vf_cut(x - lift, a->V - v);
    }
    log_sum = logf(vf_sum(sum));
    log_p = z[y] - high - log_sum;
    loss = -(1.0f - a->smoothing) * log_p -
           a->smoothing * (vf_sum(total) / (float)a->V - log_sum);
    if (a->focal > 0) {
        double g = a->focal, rest = -expm1((double)log_p);

        loss = (float)(-pow(rest, g) * log_p);
        f *= (float)(pow(rest, g) -
                     (rest > 0 ? g * pow(rest, g - 1) * exp((double)log_p) * log_p : 0));
    }
    if (dz) {
        vf shift = vf_set1(high), less = vf_set1(log_sum), factor = vf_set1(f);
        float q = 1.0f - a->smoothing, p = expf(log_p);

        for (long v = 0; v < a->V; v += VW) {
            vf prob = vf_exp(vf_load_up_to(z + v, a->V - v) - shift - less);

            vf_store_up_to(dz + v, (prob - vf_set1(smooth)) * factor, a->V - v);
        }
        dz[y] = f * (p - smooth - q);
    }
    return loss;
}

#endif
