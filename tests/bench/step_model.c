/* The model of the step; see step_model.h. */
#include "tests/bench/step_model.h"

#include <math.h>

int step_params(const struct step_net *net, struct step_param *out, double *total)
{
    double D = (double)net->D, F = (double)net->F;
    double shapes[] = {3 * D * D, D * D, (net->gated ? 2 : 1) * D * F, D * F};
    double word = (double)net->V * D;
    int n = 0;

    if (!net->sparse)
        out[n++] = (struct step_param){word, 0};
    if (net->P)
        out[n++] = (struct step_param){(double)net->P * D, 0};
    *total = word + (double)net->P * D;
    for (long l = 0; l < net->L; l++) {
        for (int i = 0; i < 4; i++) {
            /* dx and dw; the scores of attention fall to the first matrix. */
            double scores = i ? 0 : 8 * (double)net->tokens * D;

            out[n++] = (struct step_param){shapes[i], 4 * shapes[i] + scores};
            *total += shapes[i];
        }
        out[n++] = (struct step_param){4 * D, 0}; /* norms */
        *total += 4 * D;
    }
    return n;
}

double step_all_reduce(const struct step_box *box, double bytes)
{
    double n = box->gpus;
    double ring = 2 * (n - 1) / n * bytes / box->link + 2 * (n - 1) * box->latency;
    double tree = 2 * bytes / box->link + 2 * ceil(log2(n)) * box->latency;

    return n < 2 ? 0 : ring < tree ? ring : tree;
}

double step_exposed(const struct step_box *box, const struct step_bucket *bucket, int n,
                    double end)
{
    double free = 0;

    for (int i = 0; i < n; i++) {
        free = bucket[i].ready > free ? bucket[i].ready : free;
        free += step_all_reduce(box, bucket[i].bytes);
    }
    return free > end ? free - end : 0;
}

/* Bytes that kernels which only touch memory move for a token in a layer: forward reads and
 * writes about 10 rows of D and 4 of F, backward twice as many, f32. */
static double touched(const struct step_net *net)
{
    return 3 * 4.0 * (10 * (double)net->D + 4 * (double)net->F);
}

static int fill_buckets(const struct step_param *p, int n, double backward, double flops,
                        int width, double size, struct step_bucket *out)
{
    double at = 0, bytes = 0;
    int count = 0;

    for (int i = n - 1; i >= 0; i--) {
        at += flops > 0 ? p[i].flops / flops * backward : 0;
        bytes += p[i].elements * width;
        while (bytes > 0 && (bytes >= size || i == 0) && count < STEP_BUCKETS_MAX) {
            double part = bytes < 2 * size ? bytes : size;

            out[count++] = (struct step_bucket){part, at};
            bytes -= part;
        }
    }
    return count;
}

void step_predict(const struct step_box *box, const struct step_net *net, double tokens,
                  int width, double bucket, int graphs, struct step_time *out)
{
    static struct step_param p[STEP_PARAMS_MAX];
    static struct step_bucket b[STEP_BUCKETS_MAX];
    double total, flops = 0, dense = 0, memory, calls, launches, sparse;
    int n = step_params(net, p, &total), count;

    for (int i = 0; i < n; i++) {
        flops += p[i].flops;
        dense += p[i].elements;
    }
    memory = tokens * (double)net->L * touched(net) / box->bandwidth;
    calls = (double)net->L * net->kernels + net->others;
    launches = graphs ? ceil(calls / STEP_PIECE) * box->graph + calls * box->node
                      : calls * box->launch;
    out->forward = tokens * flops / 2 / (box->efficiency * box->peak) + memory / 3;
    out->backward = tokens * flops / (box->efficiency * box->peak) + memory * 2 / 3;
    if (out->forward < launches / 3)
        out->forward = launches / 3;
    if (out->backward < launches * 2 / 3)
        out->backward = launches * 2 / 3;
    /* p, m, v, gradient read; p, m, v and a two-byte copy written; gradient cleared, and
     * read once for its norm. A sparse table: rows that were met. */
    sparse = net->sparse ? (double)net->V : 0;
    sparse = (tokens < sparse ? tokens : sparse) * (double)net->D;
    out->optimizer = (dense + sparse) * (4 * 4 + 3 * 4 + 2 + 4 + 4) / box->bandwidth;
    count = fill_buckets(p, n, out->backward, flops, width, bucket, b);
    out->exposed = step_exposed(box, b, count, out->backward);
    if (net->sparse) { /* f32 rows that any rank has met, behind backward */
        double rows =
            tokens * box->gpus < (double)net->V ? tokens * box->gpus : (double)net->V;

        out->exposed += step_all_reduce(box, rows * (double)net->D * 4);
    }
    if (box->gpus < 2)
        out->exposed = 0;
    out->alone = step_all_reduce(box, dense * width);
    out->total = out->forward + out->backward + out->exposed + out->optimizer;
}

static double share_at(const struct step_box *box, const struct step_net *net,
                       double tokens, int width, double bucket, struct step_time *out)
{
    step_predict(box, net, tokens, width, bucket, 1, out);
    return (out->total - out->exposed) / out->total;
}

double step_tokens_at(const struct step_box *box, const struct step_net *net, double share,
                      int width, double bucket, struct step_time *out)
{
    double low = 1, high = 1;

    while (share_at(box, net, high, width, bucket, out) < share && high < 1e9)
        high *= 2;
    while (high - low > 1) {
        double mid = floor((low + high) / 2);

        if (share_at(box, net, mid, width, bucket, out) < share)
            low = mid;
        else
            high = mid;
    }
    share_at(box, net, high, width, bucket, out);
    return high;
}
