/* Supervised fine-tuning of a causal language model (docs/MATH.md): the mean over all
 * answer tokens of a batch of -log p(token | what stands before it). Tokens of prompts are
 * read, and not learned; an answer ends with the end-of-text token.
 *
 * The model gives sums over each answer (HEAD_LOGPROB), never logits of a vocabulary; means
 * are over tokens, so long answers count more than short ones, as in transformers. */
#include <math.h>

#include "worker/stage/stage.h"

enum { OUT_LOGP, OUT_ENTROPY, OUT_LIKELIEST, OUT_TOKENS };

static const struct opt options[] = {OPT_END};

static void shape(const void *config, const struct spec *spec, struct stage_shape *out)
{
    (void)config, (void)spec;
    *out = (struct stage_shape){.head = HEAD_LOGPROB, .sequences_per_example = 1};
}

/* Column k of n answers. */
static double sum_of(const float *out, size_t n, int k)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += out[i * LOGPROB_OUT + (size_t)k];
    return sum;
}

static int loss(struct stage_run *run, const struct stage_batch *b, double *out,
                struct metric_list *m, struct err *e)
{
    double tokens = (double)b->n_answer;

    (void)run, (void)e;
    for (size_t i = 0; i < b->n; i++)
        b->d_out[i * LOGPROB_OUT + OUT_LOGP] = (float)(-1 / tokens);
    *out = -sum_of(b->out, b->n, OUT_LOGP) / tokens;
    metric_add(m, "accuracy", sum_of(b->out, b->n, OUT_LIKELIEST) / tokens);
    metric_add(m, "entropy", sum_of(b->out, b->n, OUT_ENTROPY) / tokens);
    return 0;
}

static int evaluate(struct stage_run *run, const int *label, size_t n, const float *out,
                    struct metric_list *m, struct err *e)
{
    double tokens = sum_of(out, n, OUT_TOKENS), nll = -sum_of(out, n, OUT_LOGP) / tokens;

    (void)run, (void)label, (void)e;
    metric_add(m, "nll", nll);
    metric_add(m, "perplexity", exp(nll));
    metric_add(m, "accuracy", sum_of(out, n, OUT_LIKELIEST) / tokens);
    metric_add(m, "entropy", sum_of(out, n, OUT_ENTROPY) / tokens);
    metric_add(m, "answer_tokens", tokens);
    metric_add(m, "n", (double)n);
    return 0;
}

static const char *const metrics[] = {"nll", "perplexity", "accuracy", NULL};

const struct stage stage_sft_generate = {
    .name = "sft",
    .help = "supervised fine-tuning of a language model on answers",
    .kind = TASK_GENERATE,
    .options = options,
    .default_lr = 2e-5,
    .default_epochs = 3,
    .default_dropout = -1,
    .default_metric = "nll",
    .metrics = metrics,
    .separable = 1,
    .shape = shape,
    .loss = loss,
    .evaluate = evaluate,
};
