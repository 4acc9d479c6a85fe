/* See answers.h. */
#include "worker/train/answers.h"

#include <math.h>

const char *const answers_metrics[] = {"nll", "perplexity", "accuracy", NULL};

double answers_sum(const float *out, size_t n, int k)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += out[i * LOGPROB_OUT + (size_t)k];
    return sum;
}

int answers_evaluate(struct stage_run *run, const int *label, size_t n, const float *out,
                     struct metric_list *m, struct err *e)
{
    double tokens = answers_sum(out, n, ANSWER_TOKENS);
    double nll = -answers_sum(out, n, ANSWER_LOGP) / tokens;

    (void)run, (void)label, (void)e;
    metric_add(m, "nll", nll);
    metric_add(m, "perplexity", exp(nll));
    metric_add(m, "accuracy", answers_sum(out, n, ANSWER_LIKELIEST) / tokens);
    metric_add(m, "entropy", answers_sum(out, n, ANSWER_ENTROPY) / tokens);
    metric_add(m, "answer_tokens", tokens);
    metric_add(m, "n", (double)n);
    return 0;
}
