/* Definition of the gated unit's gradient: dgate = dy * up * act'(gate), dup = dy *
 * act(gate). */
#include "kernels/ref/ref.h"

int ref_glu_backward(const struct glu_backward_args *a)
{
    for (long r = 0; r < a->N; r++) {
        for (long c = 0; c < a->F; c++) {
            long i = r * a->ld + c;
            double dy = a->dy[r * a->F + c], g = a->gate[i], u = a->up[i];

            a->dgate[i] = (float)(dy * u * ref_act_slope(a->act, g));
            a->dup[i] = (float)(dy * ref_act_value(a->act, g));
        }
    }
    return 0;
}
