/* Evaluation alone: measures the classifier of the stage it needs, or the job's own model,
 * on the validation and test splits. No training, no options of its own. */
#include "worker/stage/stage.h"
#include "worker/train/clahf_loss.h"

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
    struct stage_shape shape = {.head = HEAD_CLASSIFY};

    (void)config;
    if (s->n_needs > 1)
        problems_add(p, node_get(s->node, "needs"), "keep one of them",
                     "stage %s measures one model, but needs %d stages", s->name,
                     s->n_needs);
    for (int i = 0; i < s->n_needs; i++) {
        const struct stage_spec *need = &spec->stage[s->needs[i]];

        need->stage->shape(need->config, spec, &shape);
        if (shape.head != HEAD_CLASSIFY)
            problems_add(p, node_get(s->node, "needs"), "needs: [sft]",
                         "stage %s measures classifiers, %s is none", s->name, need->name);
    }
}

static void shape(const void *config, const struct spec *spec, struct stage_shape *out)
{
    (void)config, (void)spec;
    *out = (struct stage_shape){
        .head = HEAD_CLASSIFY, .sequences_per_example = 1, .keep_head = 1};
}

const struct stage stage_eval = {
    .name = "eval",
    .help = "measure a classifier, without training",
    .options = options,
    .default_metric = "accuracy",
    .metrics = clahf_classifier_metrics,
    .check = check,
    .shape = shape,
    .init_from = init_from,
    .evaluate = clahf_evaluate_classifier,
};
