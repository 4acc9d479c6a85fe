/* What the reference operators share: activations in double and their derivatives.
 *
 * GELU (Hendrycks & Gimpel 2016): x Phi(x); tanh form 0.5 x (1 + tanh(sqrt(2/pi) (x +
 * 0.044715 x^3))). SiLU: x sigmoid(x). */
#ifndef KERNELS_REF_REF_H
#define KERNELS_REF_REF_H

#include <math.h>

#include "kernels/backend.h"

double ref_act_value(enum op_act act, double x);
double ref_act_slope(enum op_act act, double x);

#endif
