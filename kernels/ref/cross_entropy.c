/* Definition of softmax cross-entropy with label smoothing or focal weight. With z the
 * logits, L = log sum exp z, log p_v = z_v - L:
 *   plain and smoothed: loss = -sum q_v log p_v, d loss / d z_v = p_v - q_v;
 *   focal (Lin et al. 2017): loss = -(1 - p)^g log p with p = p_y, and with
 *   f = g (1 - p)^(g-1) p log p - (1 - p)^g:  d loss / d z_v = f ([v = y] - p_v). */
#include "kernels/fail.h"
#include "kernels/ref/ref.h"

static void cross_entropy_row(const struct cross_entropy_args *a, long n, int y)
{
    const float *z = a->logits + n * a->V;
    float *dz = a->dlogits ? a->dlogits + n * a->V : NULL;
    double top = -INFINITY, sum = 0, total = 0, log_sum, log_p, rest, f = -1,
           V = (double)a->V, smoothing = a->smoothing;

    for (long v = 0; v < a->V; v++)
        top = fmax(top, z[v]);
    for (long v = 0; v < a->V; v++) {
        sum += exp(z[v] - top);
        total += z[v];
    }
    log_sum = top + log(sum);
    log_p = z[y] - log_sum;
    rest = -expm1(log_p); /* 1 - p_y without cancellation */
    a->loss[n] = (float)(-(1 - smoothing) * log_p - smoothing * (total / V - log_sum));
    if (a->focal > 0) {
        double g = a->focal;

        a->loss[n] = (float)(-pow(rest, g) * log_p);
        f = (rest > 0 ? g * pow(rest, g - 1) * exp(log_p) * log_p : 0) - pow(rest, g);
    }
    for (long v = 0; dz && v < a->V; v++) {
        double p = exp(z[v] - log_sum), q = smoothing / V;

        if (v == y)
            q += 1 - smoothing;
        dz[v] = (float)(a->scale * f * (q - p));
    }
}

int ref_cross_entropy(const struct cross_entropy_args *a)
{
    if (a->focal > 0 && a->smoothing > 0)
        return op_fail(ERR_FAILED, "cross_entropy: focal and smoothing exclude each other");
    for (long n = 0; n < a->N; n++) {
        int y = a->label[n];

        if (y == -100) {
            a->loss[n] = 0;
            for (long v = 0; a->dlogits && v < a->V; v++)
                a->dlogits[n * a->V + v] = 0;
            continue;
        }
        if (y < 0 || y >= a->V)
            return op_fail(ERR_FAILED,
                           "cross_entropy: label %d of row %ld is not below %ld", y, n,
                           a->V);
        cross_entropy_row(a, n, y);
    }
    return 0;
}
