/* Definition of the gated unit (Shazeer 2020): y = act(gate) * up. */
#include "kernels/ref/ref.h"

int ref_glu(const struct glu_args *a)
{
    for (long r = 0; r < a->N; r++)
        for (long c = 0; c < a->F; c++)
            a->y[r * a->F + c] = (float)(ref_act_value(a->act, a->gate[r * a->ld + c]) *
                                         a->up[r * a->ld + c]);
    return 0;
}
