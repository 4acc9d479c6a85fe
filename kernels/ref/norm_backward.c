/* Definition of the norm's gradient. With u = (s - mean) rstd and g = dy w:
 *   layer: ds = rstd (g - mean(g) - u mean(g u)) + dsum;   RMS: ds = rstd (g - u mean(g u))
 *   dw += sum over rows of dy u, db += sum of dy; dresidual = ds, dx = dropout'(ds). */
#include "base/mem.h"
#include "kernels/fail.h"
#include "kernels/keep.h"
#include "kernels/ref/ref.h"

static void backward_row(const struct norm_backward_args *a, long r, double *dw, double *db)
{
    const float *dy = a->dy + r * a->D, *s = a->sum + r * a->D;
    double mean = a->kind == NORM_LAYER ? a->mean[r] : 0, rstd = a->rstd[r];
    double mg = 0, mgu = 0;

    for (long c = 0; c < a->D; c++) {
        double u = (s[c] - mean) * rstd, g = (double)dy[c] * a->w[c];

        mg += g;
        mgu += g * u;
        dw[c] += dy[c] * u;
        db[c] += dy[c];
    }
    mg = a->kind == NORM_LAYER ? mg / (double)a->D : 0;
    mgu /= (double)a->D;
    for (long c = 0; c < a->D; c++) {
        long i = r * a->D + c;
        double u = (s[c] - mean) * rstd, g = (double)dy[c] * a->w[c];
        float ds = (float)(rstd * (g - mg - u * mgu) + (a->dsum ? a->dsum[i] : 0));

        if (a->dresidual)
            a->dresidual[i] = ds;
        if (a->dx)
            a->dx[i] = a->dropout.p > 0 ? ds * keep_factor(&a->dropout, r,
                                                           (uint32_t)(c / 4), (int)(c % 4))
                                        : ds;
    }
}

int ref_norm_backward(const struct norm_backward_args *a)
{
    double *dw = mem_array((size_t)a->D * 2, sizeof *dw), *db = dw + a->D;

    if (!dw)
        return op_fail(ERR_NOMEM, "norm_backward: out of memory");
    for (long r = 0; r < a->N; r++)
        backward_row(a, r, dw, db);
    for (long c = 0; c < a->D; c++) {
        if (a->dw)
            a->dw[c] = (float)(a->dw[c] + dw[c]);
        if (a->db)
            a->db[c] = (float)(a->db[c] + db[c]);
    }
    mem_free(dw);
    return 0;
}
