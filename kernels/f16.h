/* f16 (IEEE 754 binary16): an f32 rounded to the nearest number that f16 has, ties to even.
 * What every host back end must agree on.
 *
 * Invariant: a NaN stays one; 65520 and more become infinity; below 2^-14 the numbers are
 * multiples of 2^-24. */
#ifndef KERNELS_F16_H
#define KERNELS_F16_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define F16_MOST 65504.0f

static inline float f16_round(float x)
{
    float size = fabsf(x);
    uint32_t u;

    if (!(size < 65520.0f)) /* infinities and NaN pass */
        return isnan(x) ? x : copysignf(INFINITY, x);
    if (size < 0x1p-14f) /* between 1/2 and 1 an f32 has steps of 2^-24 */
        return copysignf((size + 0.5f) - 0.5f, x);
    memcpy(&u, &x, sizeof u);
    u += 0xfff + (u >> 13 & 1);
    u &= 0xffffe000;
    memcpy(&x, &u, sizeof x);
    return x;
}

#endif
