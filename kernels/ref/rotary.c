/* Definition of rotary positions (Su et al. 2021): the pair (x, y) turns by the angle
 * position * freq[i]: (x cos - y sin, x sin + y cos); the inverse turns back. */
#include "kernels/ref/ref.h"

int ref_rotary(const struct rotary_args *a)
{
    int half = a->rot / 2;

    for (long t = 0; t < a->T; t++) {
        for (int h = 0; h < a->heads; h++) {
            float *x = a->x + t * a->ld + (long)h * a->d;

            for (int i = 0; i < half; i++) {
                int p = a->interleaved ? 2 * i : i,
                    q = a->interleaved ? 2 * i + 1 : i + half;
                double angle = (double)a->position[t] * a->freq[i];
                double c = cos(angle), s = a->inverse ? -sin(angle) : sin(angle);
                double u = x[p], v = x[q];

                x[p] = (float)(u * c - v * s);
                x[q] = (float)(u * s + v * c);
            }
        }
    }
    return 0;
}
