/* Definition of the gradient of log-probabilities and entropies with respect to a fragment
 * of logits, in place: with x = scale z - largest - log sum = log p,
 *   d log p_t / d z_v = scale ([v = t] - p_v), d entropy / d z_v = -scale p_v (x_v +
 * entropy).
 */
#include "kernels/ref/ref.h"

int ref_logprob_backward(const struct logprob_backward_args *a)
{
    for (long n = 0; n < a->N; n++) {
        const float *state = a->state + n * LOGPROB_STATE, *g = a->dout + n * LOGPROB_OUT;
        float *z = a->logits + n * a->columns;
        long t = a->target[n] - a->first;

        for (long v = 0; v < a->columns; v++) {
            double x = (double)a->scale * z[v] - state[0] - state[1], p = exp(x);
            double slope = v == t ? -expm1(x) : -p;

            slope = g[0] * slope - (p > 0 ? g[1] * p * (x + state[2]) : 0);
            z[v] = a->target[n] < 0 ? 0 : (float)(a->scale * slope);
        }
    }
    return 0;
}
