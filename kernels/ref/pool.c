/* Definition of pooling: the first, the last, the mean or the sum of each sequence's rows.
 */
#include "kernels/fail.h"
#include "kernels/ref/ref.h"

int ref_pool(const struct pool_args *a)
{
    for (long b = 0; b < a->B; b++) {
        long from = a->cu_seqlens[b], to = a->cu_seqlens[b + 1];

        if (to <= from)
            return op_fail(ERR_FAILED, "pool: sequence %ld is empty", b);
        if (a->kind == POOL_FIRST)
            to = from + 1;
        else if (a->kind == POOL_LAST)
            from = to - 1;
        for (long c = 0; c < a->D; c++) {
            double sum = 0;

            for (long t = from; t < to; t++)
                sum += a->x[t * a->D + c];
            a->y[b * a->D + c] =
                (float)(a->kind == POOL_MEAN ? sum / (double)(to - from) : sum);
        }
    }
    return 0;
}
