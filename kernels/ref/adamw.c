/* Definition of AdamW (Loshchilov & Hutter 2019), bias-corrected, over many tensors:
 *   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
 *   p -= lr (decay p + (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)).
 * Moments are rounded to f32 before they are used: they are what a checkpoint holds. */
#include "kernels/fail.h"
#include "kernels/ref/ref.h"

int ref_adamw(const struct adamw_args *a)
{
    double c1 = 1 - pow(a->beta1, (double)a->step), c2 = 1 - pow(a->beta2, (double)a->step);

    if (a->step < 1)
        return op_fail(ERR_FAILED, "adamw: steps count from 1");
    for (int i = 0; i < a->n; i++) {
        const struct adamw_tensor *t = &a->tensor[i];

        for (long j = 0; j < t->n; j++) {
            double g = (double)t->grad[j] * a->grad_scale;

            t->m[j] = (float)(a->beta1 * t->m[j] + (1 - a->beta1) * g);
            t->v[j] = (float)(a->beta2 * t->v[j] + (1 - a->beta2) * g * g);
            t->p[j] =
                (float)(t->p[j] - t->lr * (t->decay * (double)t->p[j] +
                                           t->m[j] / c1 / (sqrt(t->v[j] / c2) + a->eps)));
            t->grad[j] = 0;
        }
    }
    return 0;
}
