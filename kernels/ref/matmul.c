/* Definition of the matrix product: c = act(op(a) op(b) + bias), or c += op(a) op(b).
 * Dot products in double, in the order of K. Fails only on contradictory arguments. */
#include "kernels/bf16.h"
#include "kernels/f16.h"
#include "kernels/fail.h"
#include "kernels/ref/ref.h"

int ref_matmul(const struct matmul_args *a)
{
    if (a->accumulate && (a->bias || a->act != ACT_NONE || a->pre))
        return op_fail(ERR_FAILED, "matmul: accumulate excludes bias and activation");
    for (long m = 0; m < a->M; m++) {
        for (long n = 0; n < a->N; n++) {
            float *c = &a->c[m * a->ldc + n];
            double sum = a->bias ? a->bias[n] : 0;

            for (long k = 0; k < a->K; k++) {
                double x = a->trans_a ? a->a[k * a->lda + m] : a->a[m * a->lda + k];
                double y = a->trans_b ? a->b[n * a->ldb + k] : a->b[k * a->ldb + n];

                if (a->precision == PRECISION_BF16)
                    sum += (double)bf16_round((float)x) * bf16_round((float)y);
                else if (a->precision == PRECISION_F16)
                    sum += (double)f16_round((float)x) * f16_round((float)y);
                else
                    sum += x * y;
            }
            if (a->accumulate) {
                *c = (float)(*c + sum);
                continue;
            }
            if (a->pre)
                a->pre[m * a->ldc + n] = (float)sum;
            *c = (float)ref_act_value(a->act, sum);
        }
    }
    return 0;
}
