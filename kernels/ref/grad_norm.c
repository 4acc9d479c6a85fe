/* Definition of the sum of squares of each tensor's gradient, in double. */
#include "kernels/ref/ref.h"

int ref_grad_norm(const struct grad_norm_args *a)
{
    for (int i = 0; i < a->n; i++) {
        double sum = 0;

        for (long j = 0; j < a->tensor[i].n; j++)
            sum += (double)a->tensor[i].grad[j] * a->tensor[i].grad[j];
        a->sum[i] = sum;
    }
    return 0;
}
