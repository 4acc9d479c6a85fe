/* Definition of the gradient of the RMS norm of heads. With u = saved rstd and g = dy w:
 *   dx = rstd (g - u mean(g u)), dw += sum over tokens and heads of dy u. */
#include "base/mem.h"
#include "kernels/fail.h"
#include "kernels/ref/ref.h"

int ref_head_norm_backward(const struct head_norm_backward_args *a)
{
    double *dw = mem_array((size_t)a->d, sizeof *dw);

    if (!dw)
        return op_fail(ERR_NOMEM, "head_norm_backward: out of memory");
    for (long r = 0; r < a->T * a->heads; r++) {
        float *dx = a->dx + r / a->heads * a->ld + r % a->heads * a->d;
        const float *saved = a->saved + r * a->d;
        double rstd = a->rstd[r], mgu = 0;

        for (int c = 0; c < a->d; c++) {
            double u = saved[c] * rstd;

            mgu += (double)dx[c] * a->w[c] * u;
            dw[c] += dx[c] * u;
        }
        mgu /= a->d;
        for (int c = 0; c < a->d; c++)
            dx[c] = (float)(rstd * ((double)dx[c] * a->w[c] - saved[c] * rstd * mgu));
    }
    for (int c = 0; c < a->d && a->dw; c++)
        a->dw[c] = (float)(a->dw[c] + dw[c]);
    mem_free(dw);
    return 0;
}
