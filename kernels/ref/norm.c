/* Definition of dropout + residual + norm: s = dropout(x) + residual, y = norm(s) w + b.
 * Layer norm (Ba et al. 2016) has a two-pass biased variance; RMS norm (Zhang & Sennrich
 * 2019) no mean and no b. s is rounded before the statistics: backward reads it so. */
#include "kernels/fail.h"
#include "kernels/keep.h"
#include "kernels/ref/ref.h"

static void norm_row(const struct norm_args *a, const float *s, long r)
{
    double mean = 0, square = 0, rstd;

    if (a->kind == NORM_LAYER) {
        for (long c = 0; c < a->D; c++)
            mean += s[c];
        mean /= (double)a->D;
    }
    for (long c = 0; c < a->D; c++)
        square += (s[c] - mean) * (s[c] - mean);
    rstd = 1 / sqrt(square / (double)a->D + a->eps);
    for (long c = 0; c < a->D; c++) {
        double b = a->b ? a->b[c] : 0;

        a->y[r * a->D + c] = (float)((s[c] - mean) * rstd * a->w[c] + b);
    }
    if (a->kind == NORM_LAYER)
        a->mean[r] = (float)mean;
    a->rstd[r] = (float)rstd;
}

int ref_norm(const struct norm_args *a)
{
    if (!a->sum && (a->residual || a->dropout.p > 0))
        return op_fail(ERR_FAILED, "norm: a residual or dropout needs room for the sum");
    for (long r = 0; r < a->N; r++) {
        const float *s = a->sum ? a->sum + r * a->D : a->x + r * a->D;

        for (long c = 0; a->sum && c < a->D; c++) {
            long i = r * a->D + c;
            float x = a->x[i];

            if (a->dropout.p > 0)
                x *= keep_factor(&a->dropout, r, (uint32_t)(c / 4), (int)(c % 4));
            a->sum[i] = a->residual ? x + a->residual[i] : x;
        }
        norm_row(a, s, r);
    }
    return 0;
}
