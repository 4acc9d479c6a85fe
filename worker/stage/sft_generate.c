/* Supervised fine-tuning of a causal language model (docs/MATH.md): the mean over all
 * answer tokens of a batch of -log p(token | what stands before it). Tokens of prompts are
 * read, and not learned; an answer ends with the end-of-text token.
 *
 * The model gives sums over each answer (HEAD_LOGPROB), never logits of a vocabulary; means
 * are over tokens, so long answers count more than short ones, as in transformers. */
#include "worker/stage/stage.h"
#include "worker/train/answers.h"

static const struct opt options[] = {OPT_END};

static void shape(const void *config, const struct spec *spec, struct stage_shape *out)
{
    (void)config, (void)spec;
    *out = (struct stage_shape){.head = HEAD_LOGPROB, .sequences_per_example = 1};
}

static int loss(struct stage_run *run, const struct stage_batch *b, double *out,
                struct metric_list *m, struct err *e)
{
    double tokens = (double)b->n_answer;

    (void)run, (void)e;
    for (size_t i = 0; i < b->n; i++)
        b->d_out[i * LOGPROB_OUT + ANSWER_LOGP] = (float)(-1 / tokens);
    *out = -answers_sum(b->out, b->n, ANSWER_LOGP) / tokens;
    metric_add(m, "accuracy", answers_sum(b->out, b->n, ANSWER_LIKELIEST) / tokens);
    metric_add(m, "entropy", answers_sum(b->out, b->n, ANSWER_ENTROPY) / tokens);
    return 0;
}

const struct stage stage_sft_generate = {
    .name = "sft",
    .help = "supervised fine-tuning of a language model on answers",
    .kind = TASK_GENERATE,
    .options = options,
    .default_lr = 2e-5,
    .default_epochs = 3,
    .default_dropout = -1,
    .default_metric = "nll",
    .metrics = answers_metrics,
    .separable = 1,
    .shape = shape,
    .loss = loss,
    .evaluate = answers_evaluate,
};
