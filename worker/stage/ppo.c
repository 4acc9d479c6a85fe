/* PPO of a classifier against the ranking reward model (ClaHF eq. 10-14; docs/MATH.md). The
 * policy starts from the job's SFT stage, which stays on as the frozen reference.
 *
 * The reward model and the reference never change: prepare() gets the scores of all K
 * candidates and the reference's logits for every row the run visits, once
 * (worker/train/table.h), and the steps look them up. Inference and training share one
 * forward and one log-softmax, so the first ratio is exactly 1.
 *
 * `compat: code` changes four defaults and one formula: action argmax, whitening, gradient
 * through KL and through the advantage's mean and deviation, and log(p + 1e-8). Sampled
 * actions are keyed by (seed, step, row): they do not depend on batch layout. */
#include "base/mem.h"
#include "worker/stage/stage.h"
#include "worker/train/clahf_loss.h"
#include "worker/train/table.h"

enum { COMPAT_PAPER, COMPAT_CODE };
enum { STATE_BETA };
static const uint64_t RNG_ACTION = 0x61637431;

struct config {
    int compat, action, old, whiten, kl_grad; /* -1: by compat */
    double clip_ratio, value_coef, entropy_coef;
    double beta, target, eta, error_clip, beta_min, beta_max;
};

static const char *const compat_names[] = {"paper", "code", NULL};
static const char *const action_names[] = {"sample", "argmax", "all", NULL};
static const char *const old_names[] = {"ref", "rollout", NULL};
static const char *const switch_names[] = {"false", "true", NULL};

static const struct opt options[] = {
    OPT_ENUM(struct config, compat, COMPAT_PAPER, compat_names,
             "the paper, or the published code"),
    OPT_ENUM(struct config, action, -1, action_names,
             "drawn from the policy, its best, or the expectation over all labels; "
             "default: sample (paper), argmax (code)"),
    OPT_ENUM(
        struct config, old, PPO_OLD_REF, old_names,
        "denominator of the ratio: the frozen SFT model, or the policy at the rollout"),
    OPT_ENUM(struct config, whiten, -1, switch_names,
             "normalise advantages over the batch; default: false (paper), true (code)"),
    OPT_ENUM(
        struct config, kl_grad, -1, switch_names,
        "gradient through the KL in the advantage; default: false (paper), true (code)"),
    OPT_FLOAT(struct config, clip_ratio, 0.2, 0, 1, "epsilon"),
    OPT_FLOAT(struct config, value_coef, 0.25, 0, 100, "gamma; 0: no value head"),
    OPT_FLOAT(struct config, entropy_coef, 0, 0, 100, "entropy bonus"),
    OPT_FLOAT(struct config, beta, 0.1, 0, 1e6, "KL coefficient at the start"),
    OPT_FLOAT(struct config, target, 0.1, 1e-9, 1e6, "KL the controller aims at"),
    OPT_FLOAT(struct config, eta, 1e-4, 0, 10,
              "gain of the controller (code: 1 / horizon)"),
    OPT_FLOAT(struct config, error_clip, 0.2, 0, 1e6,
              "largest relative error of the controller; 0: any"),
    OPT_FLOAT(struct config, beta_min, 1e-4, 0, 1e6, "least KL coefficient"),
    OPT_FLOAT(struct config, beta_max, 1, 0, 1e6, "largest KL coefficient"),
    OPT_END,
};

static enum ppo_action action_of(const struct config *c)
{
    if (c->action >= 0)
        return (enum ppo_action)c->action;
    return c->compat == COMPAT_CODE ? PPO_ARGMAX : PPO_SAMPLE;
}

static struct ppo_form form_of(const struct config *c)
{
    int code = c->compat == COMPAT_CODE;

    return (struct ppo_form){.code = code,
                             .kl_grad = c->kl_grad < 0 ? code : c->kl_grad,
                             .whiten = c->whiten < 0 ? code : c->whiten,
                             .old = (enum ppo_old)c->old,
                             .clip_ratio = c->clip_ratio,
                             .value_coef = c->value_coef,
                             .entropy_coef = c->entropy_coef};
}

static int init_from(const void *config, const struct spec *spec,
                     const struct stage_spec *s)
{
    (void)config;
    return spec_find_need(spec, s, "sft");
}

static void check(const void *config, const struct spec *spec, const struct stage_spec *s,
                  struct problems *p)
{
    static const char *const roles[] = {"sft", "rm"};
    const struct config *c = config;

    for (int i = 0; i < 2; i++)
        if (spec_find_need(spec, s, roles[i]) < 0)
            problems_add(p, s->node, "needs: [sft, rm], and both among the stages",
                         "stage %s needs a stage %s", s->name, roles[i]);
    if (c->beta_min > c->beta_max)
        problems_add(p, node_get(s->node, "beta_min"), NULL,
                     "stage %s: beta_min %g is above beta_max %g", s->name, c->beta_min,
                     c->beta_max);
    else if (c->beta < c->beta_min || c->beta > c->beta_max)
        problems_add(p, node_get(s->node, "beta"), NULL,
                     "stage %s: beta %g is not within beta_min %g and beta_max %g", s->name,
                     c->beta, c->beta_min, c->beta_max);
}

static void shape(const void *config, const struct spec *spec, struct stage_shape *out)
{
    const struct config *c = config;

    (void)spec;
    /* With all actions the baseline is the exact expectation: nothing to learn. */
    *out = (struct stage_shape){.head = HEAD_CLASSIFY,
                                .value_head = c->value_coef > 0 && action_of(c) != PPO_ALL,
                                .sequences_per_example = 1,
                                .keep_head = 1};
}

static void release(struct stage_run *run)
{
    struct ppo_tables *t = run->tables;

    if (!t)
        return;
    mem_free(t->reward);
    mem_free(t->ref);
    mem_free(t);
    run->tables = NULL;
}

static int prepare(struct stage_run *run, struct err *e)
{
    const struct config *c = run->config;
    const struct stage_spec *s = run->stage;
    int sft = spec_find_need(run->spec, s, "sft"), rm = spec_find_need(run->spec, s, "rm");
    struct table_request reward = {.name = "reward",
                                   .need = run->spec->stage[s->needs[rm]].name,
                                   .head = HEAD_REWARD,
                                   .reward_input = 1};
    struct table_request ref = {.name = "reference",
                                .need = run->spec->stage[s->needs[sft]].name,
                                .head = HEAD_CLASSIFY};
    struct ppo_tables *t = mem_alloc(sizeof *t);
    int r;

    if (!t)
        return err_set(e, ERR_NOMEM, "tables: out of memory");
    run->tables = t;
    run->state[STATE_BETA] = c->beta;
    r = table_compute(run, &reward, &t->reward, e);
    return r ? r : table_compute(run, &ref, &t->ref, e);
}

static int draw(const struct stage_run *run, const struct stage_batch *b, size_t i,
                const double *p)
{
    struct rng rng;
    double u;
    int k = 0;

    rng_init(&rng,
             rng_key(run->seed, RNG_ACTION, (uint64_t)b->step, (uint64_t)b->example[i]));
    u = rng_uniform(&rng);
    while (k < run->K - 1 && u >= p[k])
        u -= p[k++];
    return k;
}

static int choose(const struct stage_run *run, const struct stage_batch *b, size_t i,
                  double *p)
{
    const float *z = b->out + i * (size_t)run->K;
    int best = 0;

    if (action_of(run->config) == PPO_SAMPLE) {
        clahf_log_softmax(z, run->K, NULL, p);
        return draw(run, b, i, p);
    }
    for (int k = 1; k < run->K; k++)
        best = z[k] > z[best] ? k : best;
    return best;
}

/* Everything that one call of the loss works in. */
struct work {
    struct ppo_arm *arm;
    const float **row; /* (2 n) reference and reward */
    double *number;
};

static int work_new(struct work *w, size_t n, size_t K, size_t arms, struct err *e)
{
    w->arm = mem_array(n * arms, sizeof *w->arm);
    w->row = mem_array(2 * n, sizeof *w->row);
    w->number = mem_array(n * (K + 4) + 5 * K, sizeof *w->number);
    return w->arm && w->row && w->number ? 0 : err_set(e, ERR_NOMEM, "loss: out of memory");
}

static void work_free(struct work *w)
{
    mem_free(w->arm);
    mem_free(w->row);
    mem_free(w->number);
}

/* Look up the tables and set the actions. */
static double fill(const struct stage_run *run, const struct stage_batch *b,
                   struct ppo_batch *x, const float **ref, const float **reward)
{
    const struct ppo_tables *t = run->tables;
    size_t K = (size_t)run->K;
    double gold = 0;

    for (size_t i = 0; i < b->n; i++) {
        struct ppo_arm *arm = x->arm + i * (size_t)x->arms;

        ref[i] = t->ref + b->example[i] * K;
        reward[i] = t->reward + b->example[i] * K;
        if (x->arms == 1) {
            arm->action = choose(run, b, i, x->work);
            gold += arm->action == b->label[i];
            continue;
        }
        clahf_log_softmax(b->out + i * K, run->K, NULL, x->work);
        gold += x->work[b->label[i]];
        for (int k = 0; k < x->arms; k++)
            arm[k].action = k;
    }
    return gold / (double)b->n_total;
}

static int loss(struct stage_run *run, const struct stage_batch *b, double *out,
                struct metric_list *m, struct err *e)
{
    const struct config *c = run->config;
    struct ppo_form form = form_of(c);
    size_t K = (size_t)run->K, n = b->n, arms = action_of(c) == PPO_ALL ? K : 1;
    struct ppo_result r;
    struct work w;
    struct ppo_batch x = {.n = n,
                          .n_total = b->n_total,
                          .K = run->K,
                          .arms = (int)arms,
                          .beta = run->state[STATE_BETA],
                          .logits = b->out,
                          .value = b->value};
    double gold;
    int rc = work_new(&w, n, K, arms, e);

    if (rc)
        goto out;
    x.arm = w.arm;
    x.ref = w.row;
    x.reward = w.row + n;
    x.kl = w.number;
    x.entropy = x.kl + n;
    x.adjusted = x.entropy + n;
    x.d_value = x.adjusted + n;
    x.d_logits = x.d_value + n;
    x.work = x.d_logits + n * K;
    gold = fill(run, b, &x, w.row, w.row + n);
    clahf_ppo_loss(&form, &x, &r);
    for (size_t i = 0; i < n * K; i++)
        b->d_out[i] = (float)x.d_logits[i];
    for (size_t i = 0; b->value && i < n; i++)
        b->d_value[i] = (float)x.d_value[i];
    *out = r.loss;
    metric_add(m, "reward", r.reward);
    metric_add(m, "kl", r.kl);
    /* Parts of a batch add up, so beta counts by its share. */
    metric_add(m, "beta", x.beta * (double)n / (double)b->n_total);
    metric_add(m, "policy_loss", r.policy_loss);
    metric_add(m, "value_loss", r.value_loss);
    metric_add(m, "ratio", r.ratio);
    metric_add(m, "clip_fraction", r.clip_fraction);
    metric_add(m, "entropy", r.entropy);
    metric_add(m, "gold_rate", gold);
out:
    work_free(&w);
    return rc;
}

static void after_step(struct stage_run *run, const struct metric_list *m)
{
    const struct config *c = run->config;
    struct kl_control k = {.target = c->target,
                           .eta = c->eta,
                           .error_clip = c->error_clip,
                           .low = c->beta_min,
                           .high = c->beta_max};

    run->state[STATE_BETA] =
        clahf_next_beta(&k, run->state[STATE_BETA], metric_get(m, "kl"));
}

static const char *const uses[] = {"sft", "rm", NULL};

const struct stage stage_ppo = {
    .name = "ppo",
    .help = "the classifier as a policy, against the reward model",
    .options = options,
    .config_size = sizeof(struct config),
    .default_lr = 1e-6,
    .default_epochs = 10,
    .default_dropout = 0,
    .default_metric = "accuracy",
    .metrics = clahf_classifier_metrics,
    .uses = uses,
    .loss_wanders = 1,
    .check = check,
    .shape = shape,
    .init_from = init_from,
    .prepare = prepare,
    .release = release,
    .loss = loss,
    .after_step = after_step,
    .evaluate = clahf_evaluate_classifier,
};
