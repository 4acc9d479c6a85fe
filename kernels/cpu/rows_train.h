/* Runs of the optimizer: AdamW's update and the sum of squares. */
#ifndef KERNELS_CPU_ROWS_TRAIN_H
#define KERNELS_CPU_ROWS_TRAIN_H

#include "kernels/cpu/loops.h"
#include "kernels/cpu/simd.h"

/* Elements from .. to-1. With s = sqrt(1 - b2^t) the step is
 *   lr s / (1 - b1^t) * m / (sqrt(v) + s eps), one root and one division. */
static void loop_adamw(const struct adamw_tensor *t, const struct adamw_step *k, long from,
                       long to)
{
    vf b1 = vf_set1(k->beta1), b2 = vf_set1(k->beta2), r1 = vf_set1(k->rest1);
    vf r2 = vf_set1(k->rest2), scale = vf_set1(k->grad_scale), eps = vf_set1(k->eps);
    vf rate = vf_set1(-t->lr * k->rate), decay = vf_set1(-t->lr * t->decay);
    int decays = t->decay != 0;

    for (long i = from; i < to; i += VW) {
        long n = to - i;
        vf g = vf_load_up_to(t->grad + i, n) * scale, p = vf_load_up_to(t->p + i, n);
        vf m = vf_fma(b1, vf_load_up_to(t->m + i, n), r1 * g);
        vf v = vf_fma(b2, vf_load_up_to(t->v + i, n), r2 * g * g);

        if (decays)
            p = vf_fma(decay, p, p);
        vf_store_up_to(t->p + i, vf_fma(rate, m / (vf_sqrt(v) + eps), p), n);
        vf_store_up_to(t->m + i, m, n);
        vf_store_up_to(t->v + i, v, n);
        vf_store_up_to(t->grad + i, vf_set1(0), n);
    }
}

/* The sum of squares of n elements in double: 8 partial sums, added in order. */
static double loop_square_sum(const float *x, long n)
{
    enum { HALF = VW / 2, PARTS = 8 / HALF };
    typedef float half __attribute__((vector_size(HALF * sizeof(float))));
    typedef double vd __attribute__((vector_size(HALF * sizeof(double))));
    vd sum[PARTS] = {0};
    double total = 0;
    long i = 0;

    for (; i + 8 <= n; i += 8) {
        for (int k = 0; k < PARTS; k++) {
            half f;
            vd d;

            memcpy(&f, x + i + k * HALF, sizeof f);
            d = __builtin_convertvector(f, vd);
            sum[k] += d * d;
        }
    }
    for (int k = 0; k < 8; k++)
        total += sum[k / HALF][k % HALF];
    for (; i < n; i++)
        total += (double)x[i] * x[i];
    return total;
}

#endif
