/* Definition of pooling's gradient: the row goes back to where it came from (for the sum to
 * every row, for the mean 1/n of it), every other row becomes 0. */
#include "kernels/fail.h"
#include "kernels/ref/ref.h"

int ref_pool_backward(const struct pool_backward_args *a)
{
    for (long b = 0; b < a->B; b++) {
        long from = a->cu_seqlens[b], to = a->cu_seqlens[b + 1];

        if (to <= from)
            return op_fail(ERR_FAILED, "pool_backward: sequence %ld is empty", b);
        for (long t = from; t < to; t++) {
            double f = a->kind == POOL_MEAN    ? 1 / (double)(to - from)
                       : a->kind == POOL_SUM   ? 1
                       : a->kind == POOL_FIRST ? t == from
                                               : t == to - 1;

            for (long c = 0; c < a->D; c++)
                a->dx[t * a->D + c] = f != 0 ? (float)(a->dy[b * a->D + c] * f) : 0;
        }
    }
    return 0;
}
