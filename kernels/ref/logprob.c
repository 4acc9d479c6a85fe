/* Definition of log-probabilities by fragments of the vocabulary (online softmax: Milakov &
 * Gimelshein 2018). With x = scale z and m the largest x so far, a row keeps
 *   s = sum exp(x - m) and w = sum exp(x - m) (x - m);
 * when m grows by d: w <- exp(-d) (w - d s), s <- exp(-d) s. In the end
 *   log p_t = x_t - m - log s, entropy = log s - w / s. */
#include "kernels/ref/ref.h"

static void add_fragment(const struct logprob_args *a, long n, float *state)
{
    const float *z = a->logits + n * a->columns;
    double top = state[0], sum = state[1], weighted = state[2], grown = top;
    long t = a->target[n] - a->first;

    for (long v = 0; v < a->columns; v++)
        grown = fmax(grown, (float)((double)a->scale * z[v]));
    if (sum > 0) {
        weighted = exp(top - grown) * (weighted - (grown - top) * sum);
        sum *= exp(top - grown);
    }
    for (long v = 0; v < a->columns; v++) {
        double x = (double)a->scale * z[v] - grown, p = exp(x);

        sum += p;
        weighted += p > 0 ? p * x : 0;
    }
    state[0] = (float)grown;
    state[1] = (float)sum;
    state[2] = (float)weighted;
    if (t >= 0 && t < a->columns)
        state[3] = z[t];
}

static void finish_row(const struct logprob_args *a, long n, float *state)
{
    float *out = a->out + n * LOGPROB_OUT;
    double sum = state[1], x = (double)a->scale * state[3] - state[0];

    state[2] = (float)(log(sum) - state[2] / sum);
    state[1] = (float)log(sum);
    if (a->target[n] < 0) {
        out[0] = out[1] = out[2] = out[3] = 0;
        return;
    }
    out[0] = (float)(x - log(sum));
    out[1] = state[2];
    out[2] = (float)((double)a->scale * state[3]) >= state[0];
    out[3] = 1;
}

int ref_logprob(const struct logprob_args *a)
{
    for (long n = 0; n < a->N; n++) {
        float *state = a->state + n * LOGPROB_STATE;

        if (a->first == 0) {
            state[0] = -INFINITY;
            state[1] = state[2] = state[3] = 0;
        }
        add_fragment(a, n, state);
        if (a->first + a->columns == a->V)
            finish_row(a, n, state);
    }
    return 0;
}
