/* Definition of the activations, y = act(x), with value and slope in double. */
#include "kernels/ref/ref.h"

#define TANH_SCALE 0.79788456080286535588 /* sqrt(2 / pi) */
#define TANH_CUBIC 0.044715

double ref_act_value(enum op_act act, double x)
{
    switch (act) {
    case ACT_GELU_ERF:
        return 0.5 * x * erfc(-x * M_SQRT1_2);
    case ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(TANH_SCALE * (x + TANH_CUBIC * x * x * x)));
    case ACT_RELU:
        return x > 0 ? x : x < 0 ? 0 : x; /* a NaN stays one */
    case ACT_SILU:
        return x / (1 + exp(-x));
    case ACT_TANH:
        return tanh(x);
    case ACT_NONE:
        break;
    }
    return x;
}

double ref_act_slope(enum op_act act, double x)
{
    double t, s;

    switch (act) {
    case ACT_GELU_ERF:
        return 0.5 * erfc(-x * M_SQRT1_2) +
               x * exp(-0.5 * x * x) * (0.5 * M_2_SQRTPI * M_SQRT1_2);
    case ACT_GELU_TANH:
        t = tanh(TANH_SCALE * (x + TANH_CUBIC * x * x * x));
        return 0.5 * (1 + t) +
               0.5 * x * (1 - t * t) * TANH_SCALE * (1 + 3 * TANH_CUBIC * x * x);
    case ACT_RELU:
        return x > 0;
    case ACT_SILU:
        s = 1 / (1 + exp(-x));
        return s * (1 + x * (1 - s));
    case ACT_TANH:
        t = tanh(x);
        return 1 - t * t;
    case ACT_NONE:
        break;
    }
    return 1;
}

int ref_act(const struct act_args *a)
{
    for (long i = 0; i < a->n; i++)
        a->y[i] = (float)ref_act_value(a->act, a->x[i]);
    return 0;
}
