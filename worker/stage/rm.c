/* The ranking reward model (ClaHF eq. 6-9; docs/MATH.md): a scalar score for a text with
 * each of its K candidate labels, trained to put them in the order of preference.
 *
 * `init: sft` starts from the encoder of the job's SFT stage and is the default where the
 * stage needs it; `init: base` (the paper) from the job's model. alpha = 0 in `loss: full`
 * leaves the gold candidate unranked and is refused for K > 2, unless `compat: code`: the
 * published code has alpha fixed at 0, which is its default there; a given one counts. */
#include "base/mem.h"
#include "worker/stage/stage.h"
#include "worker/train/clahf_loss.h"

enum { COMPAT_PAPER, COMPAT_CODE };
enum { INIT_SFT, INIT_BASE };

struct config {
    double alpha;
    int loss; /* enum rank_loss */
    int init; /* -1: not given */
    int compat;
};

static const char *const loss_names[] = {"full", "top1", "pair", NULL};
static const char *const init_names[] = {"sft", "base", NULL};
static const char *const compat_names[] = {"paper", "code", NULL};

static const char *const alpha_words[] = {"auto", NULL};
static const double alpha_values[] = {-1};

static const struct opt options[] = {
    {"alpha", OPT_TYPE_FLOAT, offsetof(struct config, alpha), -1, 0, 1,
     .help = "weight of gold against the others; auto: 0.8, with compat: code 0",
     .words = alpha_words, .word_values = alpha_values},
    OPT_ENUM(struct config, loss, RANK_FULL, loss_names, "which pairs count"),
    OPT_ENUM(struct config, init, -1, init_names,
             "where the encoder comes from; default: sft where the stage needs it"),
    OPT_ENUM(struct config, compat, COMPAT_PAPER, compat_names,
             "the paper, or the published code (alpha 0)"),
    OPT_END,
};

static double alpha_of(const struct config *c)
{
    return c->alpha >= 0 ? c->alpha : c->compat == COMPAT_CODE ? 0 : 0.8;
}

static int init_from(const void *config, const struct spec *spec,
                     const struct stage_spec *s)
{
    const struct config *c = config;

    return c->init == INIT_BASE ? -1 : spec_find_need(spec, s, "sft");
}

static void check(const void *config, const struct spec *spec, const struct stage_spec *s,
                  struct problems *p)
{
    const struct config *c = config;
    const struct node *alpha = node_get(s->node, "alpha");

    if (c->init == INIT_SFT && spec_find_need(spec, s, "sft") < 0)
        problems_add(p, node_get(s->node, "init"), "needs: [sft], and a stage sft",
                     "stage %s: init: sft, but it needs no sft stage", s->name);
    if (c->compat == COMPAT_PAPER && c->loss == RANK_FULL && c->alpha == 0 &&
        spec->task.labels.n > 2)
        problems_add(p, alpha, "alpha: 0.8, or compat: code",
                     "stage %s: alpha 0 would leave the gold label unranked", s->name);
}

static void shape(const void *config, const struct spec *spec, struct stage_shape *out)
{
    (void)config;
    *out = (struct stage_shape){.head = HEAD_REWARD,
                                .sequences_per_example = (int)spec->task.labels.n,
                                .reward_input = 1};
}

/* Scores of one list, best candidate first. */
static void rank(const struct stage_run *run, int label, const float *score, double *r)
{
    const int *order = run->order + label * run->K;

    for (int k = 0; k < run->K; k++)
        r[k] = score[order[k]];
}

struct order_counts {
    double top1, strict, pairs;
};

static void count(const double *r, int K, struct order_counts *c)
{
    int top = 1, strict = 1, right = 0;

    for (int j = 0; j < K; j++)
        for (int k = j + 1; k < K; k++) {
            int above = r[j] > r[k];

            right += above;
            top &= j > 0 || above;
            strict &= above; /* in order: every pair is */
        }
    c->top1 += top;
    c->strict += strict;
    c->pairs += right / ((double)K * (K - 1) / 2);
}

static double list_loss(const struct config *c, const double *r, int K, double *dr)
{
    return clahf_rank_loss(r, K, (enum rank_loss)c->loss, alpha_of(c), dr);
}

static int loss(struct stage_run *run, const struct stage_batch *b, double *out,
                struct metric_list *m, struct err *e)
{
    const struct config *c = run->config;
    size_t K = (size_t)run->K;
    double *r = mem_array(2 * K, sizeof *r), n = (double)b->n_total, total = 0;
    struct order_counts right = {0};

    if (!r)
        return err_set(e, ERR_NOMEM, "loss: out of memory");
    for (size_t i = 0; i < b->n; i++) {
        const int *order = run->order + b->label[i] * run->K;
        double *dr = r + K;

        rank(run, b->label[i], b->out + i * K, r);
        total += list_loss(c, r, run->K, dr);
        count(r, run->K, &right);
        for (size_t k = 0; k < K; k++)
            b->d_out[i * K + (size_t)order[k]] = (float)(dr[k] / n);
    }
    *out = total / n;
    metric_add(m, "top1_accuracy", right.top1 / n);
    metric_add(m, "ordered_accuracy", right.strict / n);
    mem_free(r);
    return 0;
}

static int evaluate(struct stage_run *run, const int *label, size_t n, const float *out,
                    struct metric_list *m, struct err *e)
{
    size_t K = (size_t)run->K;
    double *r = mem_array(2 * K, sizeof *r), total = 0, margin = 0;
    struct order_counts right = {0};

    if (!r)
        return err_set(e, ERR_NOMEM, "evaluation: out of memory");
    for (size_t i = 0; i < n; i++) {
        rank(run, label[i], out + i * K, r);
        total += list_loss(run->config, r, run->K, r + K);
        count(r, run->K, &right);
        for (size_t k = 1; k < K; k++)
            margin += (r[0] - r[k]) / (double)(K - 1);
    }
    mem_free(r);
    metric_add(m, "top1_accuracy", right.top1 / (double)n);
    metric_add(m, "ordered_accuracy", right.strict / (double)n);
    metric_add(m, "pair_accuracy", right.pairs / (double)n);
    metric_add(m, "loss", total / (double)n);
    metric_add(m, "margin", margin / (double)n);
    metric_add(m, "n", (double)n);
    return 0;
}

static const char *const metrics[] = {"top1_accuracy", "ordered_accuracy", "loss", NULL};

const struct stage stage_rm = {
    .name = "rm",
    .help = "ranking reward model over the label candidates",
    .options = options,
    .config_size = sizeof(struct config),
    .default_lr = 1e-5,
    .default_epochs = 10,
    .default_dropout = -1,
    .default_metric = "top1_accuracy",
    .metrics = metrics,
    .separable = 1,
    .check = check,
    .shape = shape,
    .init_from = init_from,
    .loss = loss,
    .evaluate = evaluate,
};
