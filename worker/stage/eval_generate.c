/* Evaluation alone: measures the language model of the stage it needs, or the job's own, on
 * the answers of the validation and test splits. No training, no options of its own. */
#include "worker/stage/stage.h"
#include "worker/train/answers.h"

static const struct opt options[] = {OPT_END};

static int init_from(const void *config, const struct spec *spec,
                     const struct stage_spec *s)
{
    (void)config, (void)spec;
    return s->n_needs ? 0 : -1;
}

static void check(const void *config, const struct spec *spec, const struct stage_spec *s,
                  struct problems *p)
{
    (void)config, (void)spec;
    if (s->n_needs > 1)
        problems_add(p, node_get(s->node, "needs"), "keep one of them",
                     "stage %s measures one model, but needs %d stages", s->name,
                     s->n_needs);
}

static void shape(const void *config, const struct spec *spec, struct stage_shape *out)
{
    (void)config, (void)spec;
    *out = (struct stage_shape){.head = HEAD_LOGPROB, .sequences_per_example = 1};
}

const struct stage stage_eval_generate = {
    .name = "eval",
    .help = "measure a language model on answers, without training",
    .kind = TASK_GENERATE,
    .options = options,
    .default_metric = "nll",
    .metrics = answers_metrics,
    .check = check,
    .shape = shape,
    .init_from = init_from,
    .evaluate = answers_evaluate,
};
