/* Definition of dropout (Srivastava et al. 2014) by the rule of op.h. */
#include "kernels/keep.h"
#include "kernels/ref/ref.h"

int ref_dropout(const struct dropout_args *a)
{
    for (long r = 0; r < a->N; r++)
        for (long c = 0; c < a->D; c++)
            a->y[r * a->D + c] =
                a->x[r * a->D + c] *
                keep_factor(&a->dropout, r, (uint32_t)(c / 4), (int)(c % 4));
    return 0;
}
