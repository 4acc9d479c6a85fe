/* Definition of dx = dy * act'(x) and of the bias gradient dbias += column sums of dx.
 * The sums are taken over the rounded dx, so that a bias sees what a weight sees. */
#include "kernels/ref/ref.h"

int ref_act_backward(const struct act_backward_args *a)
{
    if (a->act != ACT_NONE || a->dx != a->dy)
        for (long i = 0; i < a->N * a->D; i++)
            a->dx[i] = a->act == ACT_NONE
                           ? a->dy[i]
                           : (float)(a->dy[i] * ref_act_slope(a->act, a->x[i]));
    if (!a->dbias)
        return 0;
    for (long c = 0; c < a->D; c++) {
        double sum = a->dbias[c];

        for (long r = 0; r < a->N; r++)
            sum += a->dx[r * a->D + c];
        a->dbias[c] = (float)sum;
    }
    return 0;
}
