/* Supervised fine-tuning of a classifier (docs/MATH.md): cross-entropy of softmax(f(x)),
 * with label smoothing and the focal weight of Lin et al. 2017 as options.
 *
 * Source of the defaults: ClaHF, Appendix (10 epochs, batch 16, learning rate 2e-5, best
 * epoch by validation accuracy). */
#include "base/mem.h"
#include "worker/stage/stage.h"
#include "worker/train/clahf_loss.h"

struct config {
    double label_smoothing, focal;
};

static const struct opt options[] = {
    OPT_FLOAT(struct config, label_smoothing, 0, 0, 0.999,
              "share of the target that is "
              "spread over all labels"),
    OPT_FLOAT(struct config, focal, 0, 0, 20, "exponent of (1 - p) in front of the loss"),
    OPT_END,
};

static void shape(const void *config, const struct spec *spec, struct stage_shape *out)
{
    (void)config, (void)spec;
    *out = (struct stage_shape){
        .head = HEAD_CLASSIFY, .sequences_per_example = 1, .keep_head = 1};
}

static int loss(struct stage_run *run, const struct stage_batch *b, double *out,
                struct metric_list *m, struct err *e)
{
    const struct config *c = run->config;
    size_t K = (size_t)run->K;
    double *dz = mem_array(2 * K, sizeof *dz), total = 0, right = 0;

    if (!dz)
        return err_set(e, ERR_NOMEM, "loss: out of memory");
    for (size_t i = 0; i < b->n; i++) {
        const float *z = b->out + i * K;
        size_t best = 0;

        total += clahf_sft_loss(z, b->label[i], run->K, c->label_smoothing, c->focal, dz,
                                dz + K);
        for (size_t k = 0; k < K; k++) {
            b->d_out[i * K + k] = (float)(dz[k] / (double)b->n_total);
            best = z[k] > z[best] ? k : best;
        }
        right += (int)best == b->label[i];
    }
    *out = total / (double)b->n_total;
    metric_add(m, "accuracy", right / (double)b->n_total);
    mem_free(dz);
    return 0;
}

const struct stage stage_sft = {
    .name = "sft",
    .help = "supervised fine-tuning of a classifier",
    .options = options,
    .config_size = sizeof(struct config),
    .default_lr = 2e-5,
    .default_epochs = 10,
    .default_dropout = -1,
    .default_metric = "accuracy",
    .metrics = clahf_classifier_metrics,
    .separable = 1,
    .shape = shape,
    .loss = loss,
    .evaluate = clahf_evaluate_classifier,
};
