/* bf16: the upper half of an f32, rounded to nearest even. What every host back end must
 * agree on.
 *
 * Invariant: a NaN stays one (quiet, its sign and upper payload kept); what is too large
 * becomes infinity, as in any rounding. */
#ifndef KERNELS_BF16_H
#define KERNELS_BF16_H

#include <stdint.h>
#include <string.h>

static inline float bf16_round(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof u);
    if ((u & 0x7fffffff) > 0x7f800000)
        u |= 0x400000;
    else
        u += 0x7fff + (u >> 16 & 1);
    u &= 0xffff0000;
    memcpy(&x, &u, sizeof x);
    return x;
}

#endif
