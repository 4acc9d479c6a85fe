/* Elementary functions on vectors.
 *
 * exp: 2^n e^r with |r| <= ln2 / 2 and the polynomial of Cephes' expf, about 1 ulp; 0 below
 * -87.33, infinity above 88.02. Normal distribution function: for x >= 0
 *     Phi(-x) = exp(-x^2/2) G(1 / (1 + x/4)),  G = half the scaled complementary error
 * function, a polynomial of degree 9 fitted with relative error 1.2e-8 for x in 0 .. 13.3
 * (beyond that exp is 0); so the left tail is relatively exact, not only absolutely. */
#ifndef KERNELS_CPU_MATH_H
#define KERNELS_CPU_MATH_H

#include "kernels/cpu/simd.h"
#include "kernels/op.h"

static inline vf vf_exp(vf x)
{
    vf lo = vf_set1(-87.33f), hi = vf_set1(88.02f);
    vf z = vf_min(hi, vf_max(lo, x)), r, p;
    vf n = vf_round(z * vf_set1(1.44269504088896341f));

    r = vf_fma(n, vf_set1(-0.693359375f), z);
    r = vf_fma(n, vf_set1(2.12194440e-4f), r);
    p = vf_set1(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set1(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set1(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set1(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set1(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set1(5.0000001201e-1f));
    p = vf_fma(p, r * r, r) + vf_set1(1.0f);
    p = vf_scale2(p, n);
    p = vf_where_less(x, lo, vf_set1(0), p);
    return vf_where_less(hi, x, vf_set1(INFINITY), p);
}

static inline vf vf_sigmoid(vf x)
{
    return vf_set1(1.0f) / (vf_set1(1.0f) + vf_exp(-x));
}

/* Near 0 the odd polynomial of Cephes' tanhf, else 1 - 2 / (e^2x + 1). */
static inline vf vf_tanh(vf x)
{
    vf z = x * x, p = vf_set1(-5.70498872745e-3f), far;

    p = vf_fma(p, z, vf_set1(2.06390887954e-2f));
    p = vf_fma(p, z, vf_set1(-5.37397155531e-2f));
    p = vf_fma(p, z, vf_set1(1.33314422036e-1f));
    p = vf_fma(p, z, vf_set1(-3.33332819422e-1f));
    p = vf_fma(p * z, x, x);
    far = vf_set1(1.0f) - vf_set1(2.0f) / (vf_exp(x + x) + vf_set1(1.0f));
    return vf_where_less(vf_abs(x), vf_set1(0.625f), p, far);
}

/* Phi(x), and exp(-x^2 / 2) on the way. */
static inline vf vf_phi(vf x, vf *bell)
{
    vf z = vf_min(vf_set1(14.0f), vf_abs(x)), square = z * z, rest = vf_fma(z, z, -square),
       t, g, e;
    vf zero = vf_set1(0), one = vf_set1(1.0f), half = vf_set1(-0.5f);

    t = one / vf_fma(z, vf_set1(0.25f), one);
    e = vf_exp(square * half);
    e = vf_fma(e, rest * half, e); /* what the rounding of the square left */
    g = vf_set1(3.469322691e-02f);
    g = vf_fma(g, t, vf_set1(-2.002135110e-01f));
    g = vf_fma(g, t, vf_set1(4.044625842e-01f));
    g = vf_fma(g, t, vf_set1(-3.460691340e-01f));
    g = vf_fma(g, t, vf_set1(3.149767557e-01f));
    g = vf_fma(g, t, vf_set1(-2.603769293e-02f));
    g = vf_fma(g, t, vf_set1(1.235380677e-01f));
    g = vf_fma(g, t, vf_set1(9.439264337e-02f));
    g = vf_fma(g, t, vf_set1(1.002814190e-01f));
    g = vf_fma(g, t, vf_set1(-2.436485289e-05f));
    *bell = e;
    g = g * e;
    return vf_where_less(x, zero, g, one - g);
}

#define TANH_SCALE 0.79788456080286535588f /* sqrt(2 / pi) */
#define TANH_CUBIC 0.044715f

static inline __attribute__((always_inline)) vf vf_act(const enum op_act act, vf x)
{
    vf cubic, bell;

    switch (act) {
    case ACT_GELU_ERF:
        return x * vf_phi(x, &bell);
    case ACT_GELU_TANH: /* 0.5 (1 + tanh u) = sigmoid(2u) */
        cubic = vf_fma(vf_set1(TANH_CUBIC) * x * x, x, x);
        return x * vf_sigmoid(vf_set1(2 * TANH_SCALE) * cubic);
    case ACT_RELU:
        return vf_max(vf_set1(0), x);
    case ACT_SILU:
        return x * vf_sigmoid(x);
    case ACT_TANH:
        return vf_tanh(x);
    case ACT_NONE:
        break;
    }
    return x;
}

static inline __attribute__((always_inline)) vf vf_act_slope(const enum op_act act, vf x)
{
    vf one = vf_set1(1.0f), s, t, phi, bell;

    switch (act) {
    case ACT_GELU_ERF:
        phi = vf_phi(x, &bell);
        return vf_fma(x * vf_set1(0.398942280401432678f), bell, phi);
    case ACT_GELU_TANH:
        t = vf_fma(vf_set1(TANH_CUBIC) * x * x, x, x);
        s = vf_sigmoid(vf_set1(2 * TANH_SCALE) * t);
        t = vf_fma(vf_set1(3 * TANH_CUBIC) * x, x, one) * vf_set1(2 * TANH_SCALE);
        return vf_fma(x * s * (one - s), t, s);
    case ACT_RELU:
        return vf_where_less(vf_set1(0), x, one, vf_set1(0));
    case ACT_SILU:
        s = vf_sigmoid(x);
        return s * vf_fma(x, one - s, one);
    case ACT_TANH:
        t = vf_tanh(x);
        return vf_fma(-t, t, one);
    case ACT_NONE:
        break;
    }
    return one;
}

/* Run `body` with a constant `act`, so that the switches above fold away. */
#define ACT_SWITCH(which, body)                                                            \
    switch (which) {                                                                       \
    case ACT_NONE:                                                                         \
        body(ACT_NONE);                                                                    \
        break;                                                                             \
    case ACT_GELU_ERF:                                                                     \
        body(ACT_GELU_ERF);                                                                \
        break;                                                                             \
    case ACT_GELU_TANH:                                                                    \
        body(ACT_GELU_TANH);                                                               \
        break;                                                                             \
    case ACT_RELU:                                                                         \
        body(ACT_RELU);                                                                    \
        break;                                                                             \
    case ACT_SILU:                                                                         \
        body(ACT_SILU);                                                                    \
        break;                                                                             \
    case ACT_TANH:                                                                         \
        body(ACT_TANH);                                                                    \
        break;                                                                             \
    }

#endif
