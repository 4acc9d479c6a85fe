/* Definition of the RMS norm of heads (Zhang & Sennrich 2019, on each head as Qwen3 has
 * it): saved = x, rstd = 1 / sqrt(mean(saved^2) + eps), x = saved rstd w. */
#include "kernels/ref/ref.h"

int ref_head_norm(const struct head_norm_args *a)
{
    for (long r = 0; r < a->T * a->heads; r++) {
        float *x = a->x + r / a->heads * a->ld + r % a->heads * a->d;
        float *saved = a->saved + r * a->d;
        double square = 0, rstd;

        for (int c = 0; c < a->d; c++) {
            saved[c] = x[c];
            square += (double)x[c] * x[c];
        }
        rstd = 1 / sqrt(square / a->d + a->eps);
        for (int c = 0; c < a->d; c++)
            x[c] = (float)(saved[c] * rstd * a->w[c]);
        a->rstd[r] = (float)rstd;
    }
    return 0;
}
