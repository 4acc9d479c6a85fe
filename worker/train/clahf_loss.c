/* ClaHF's losses; see clahf_loss.h.
 *
 * PPO, with e = 1e-8 (published code) or 0 (paper), l(a) = log(p(a) + e):
 *
 *     KL   = sum_k p_k (l_k - lref_k)          rho = exp(l(a) - lold(a))
 *     A    = r(a) - beta KL - V                whitened: (A - mean) / (std + 1e-8)
 *     loss = -mean min(rho A, clip(rho) A) + gamma mean (V - R)^2 - c mean H
 *
 * The gradient w.r.t. logits has three parts: through rho, through H, and with kl_grad
 * through the KL in A. With PPO_ALL the mean over a ~ p_old is taken exactly, and A's
 * baseline is the expected reward under p, held constant. */
#include "worker/train/clahf_loss.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "worker/train/metrics.h"

static const double CODE_EPS = 1e-8, STD_EPS = 1e-8;

void clahf_log_softmax(const float *z, int K, double *logp, double *p)
{
    double most = z[0], sum = 0;

    for (int k = 1; k < K; k++)
        most = z[k] > most ? z[k] : most;
    for (int k = 0; k < K; k++)
        sum += exp((double)z[k] - most);
    sum = log(sum);
    for (int k = 0; k < K; k++) {
        double l = (double)z[k] - most - sum;

        if (logp)
            logp[k] = l;
        if (p)
            p[k] = exp(l);
    }
}

/* ---- SFT ----------------------------------------------------------------------------- */

double clahf_sft_loss(const float *z, int y, int K, double smoothing, double focal,
                      double *dz, double *p)
{
    double ce = 0, rest = 0, weight = 1, slope = 0, py;

    clahf_log_softmax(z, K, dz, p); /* dz holds log p for a moment */
    for (int k = 0; k < K; k++) {
        double t = smoothing / K + (k == y ? 1 - smoothing : 0);

        ce -= t * dz[k];
        dz[k] = p[k] - t;
        rest += k == y ? 0 : p[k];
    }
    if (focal > 0) {
        /* d (1-p_y)^g / d z_m = -g (1-p_y)^(g-1) p_y (delta - p_m) */
        weight = pow(rest, focal);
        slope = rest > 0 ? focal * pow(rest, focal - 1) : 0;
    }
    py = p[y];
    for (int k = 0; k < K; k++)
        dz[k] = weight * dz[k] - ce * slope * py * ((k == y) - p[k]);
    return weight * ce;
}

/* ---- RM ------------------------------------------------------------------------------ */

/* scale * -log sigmoid(r_j - r_k) and its gradient. */
static double add_pair(const double *r, int j, int k, double scale, double *dr)
{
    double x = r[j] - r[k];
    double tail = exp(-fabs(x));                   /* no overflow for either sign */
    double down = (x < 0 ? 1 : tail) / (1 + tail); /* sigmoid(-x) */

    dr[j] -= scale * down;
    dr[k] += scale * down;
    return scale * (log1p(tail) + (x < 0 ? -x : 0));
}

double clahf_rank_loss(const double *r, int K, enum rank_loss kind, double alpha,
                       double *dr)
{
    double pairs = (double)(K - 1) * (K - 2) / 2, loss = 0;
    double top = kind == RANK_FULL ? alpha : 1, rest = kind == RANK_FULL ? 1 - alpha : 0;

    memset(dr, 0, (size_t)K * sizeof *dr);
    if (K == 2)
        return add_pair(r, 0, 1, 1, dr);
    if (kind == RANK_PAIR) {
        double all = (double)K * (K - 1) / 2;

        for (int j = 0; j < K; j++)
            for (int k = j + 1; k < K; k++)
                loss += add_pair(r, j, k, 1 / all, dr);
        return loss;
    }
    for (int k = 1; top != 0 && k < K; k++)
        loss += add_pair(r, 0, k, top / (K - 1), dr);
    for (int j = 1; rest != 0 && j < K; j++)
        for (int k = j + 1; k < K; k++)
            loss += add_pair(r, j, k, rest / pairs, dr);
    return loss;
}

/* ---- PPO ----------------------------------------------------------------------------- */

/* Distributions of one example; all (K). */
struct view {
    double *logp, *p; /* plain log p */
    double *l, *lref; /* log(p + e) of policy and reference */
};

static struct view look(const struct ppo_form *f, const struct ppo_batch *b, size_t i)
{
    int K = b->K;
    struct view v = {b->work, b->work + K, b->work + 2 * K, b->work + 3 * K};

    clahf_log_softmax(b->logits + i * (size_t)K, K, v.logp, v.p);
    clahf_log_softmax(b->ref[i], K, v.lref, NULL);
    for (int k = 0; k < K; k++) {
        v.l[k] = f->code ? log(v.p[k] + CODE_EPS) : v.logp[k];
        if (f->code)
            v.lref[k] = log(exp(v.lref[k]) + CODE_EPS);
    }
    return v;
}

/* KL, entropy, rewards, ratios and raw advantages of one example. */
static void forward(const struct ppo_form *f, const struct ppo_batch *b, size_t i)
{
    struct view v = look(f, b, i);
    const float *r = b->reward[i];
    struct ppo_arm *arm = b->arm + i * (size_t)b->arms;
    double kl = 0, entropy = 0, reward = 0, base;

    for (int k = 0; k < b->K; k++) {
        kl += v.p[k] * (v.l[k] - v.lref[k]);
        entropy -= v.p[k] > 0 ? v.p[k] * v.logp[k] : 0;
        reward += v.p[k] * (double)r[k];
    }
    if (b->arms == 1)
        reward = r[arm->action];
    b->kl[i] = kl;
    b->entropy[i] = entropy;
    b->adjusted[i] = reward - b->beta * kl;
    base = b->arms > 1 ? reward - b->beta * kl : b->value ? (double)b->value[i] : 0;
    for (int j = 0; j < b->arms; j++) {
        int a = arm[j].action;
        double old = f->old == PPO_OLD_REF ? v.lref[a] : v.l[a];

        arm[j].weight = b->arms > 1 ? exp(old) : 1;
        arm[j].ratio = exp(v.l[a] - old);
        arm[j].raw = (double)r[a] - b->beta * kl - base;
        arm[j].advantage = arm[j].raw;
    }
}

/* Whitening with the unbiased standard deviation; one value alone stays as it is. */
static double whiten(const struct ppo_batch *b, double *std)
{
    size_t n = b->n * (size_t)b->arms;
    double mean = 0, sum = 0;

    for (size_t i = 0; i < n; i++)
        mean += b->arm[i].raw / (double)n;
    for (size_t i = 0; i < n; i++)
        sum += (b->arm[i].raw - mean) * (b->arm[i].raw - mean);
    *std = n > 1 ? sqrt(sum / (double)(n - 1)) : 0;
    for (size_t i = 0; n > 1 && i < n; i++)
        b->arm[i].advantage = (b->arm[i].raw - mean) / (*std + STD_EPS);
    return mean;
}

/* slope: from d loss / d whitened to d loss / d raw, through mean and deviation. */
static void unwhiten(const struct ppo_batch *b, double mean, double std)
{
    size_t n = b->n * (size_t)b->arms;
    double s = std + STD_EPS, g = 0, gx = 0;

    if (n < 2)
        return;
    for (size_t i = 0; i < n; i++) {
        g += b->arm[i].slope / (double)n;
        gx += b->arm[i].slope * (b->arm[i].raw - mean);
    }
    for (size_t i = 0; i < n; i++) {
        struct ppo_arm *arm = &b->arm[i];
        double x = arm->raw - mean;

        arm->slope =
            std > 0 ? (arm->slope - g) / s - x * gx / ((double)(n - 1) * std * s * s) : 0;
    }
}

static double clip(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

/* Policy objective of one arm; d_ratio receives d objective / d ratio. */
static double objective(const struct ppo_form *f, struct ppo_arm *arm, double *d_ratio)
{
    double clipped = clip(arm->ratio, 1 - f->clip_ratio, 1 + f->clip_ratio);
    int inside = arm->ratio * arm->advantage <= clipped * arm->advantage;

    *d_ratio = inside ? arm->advantage : 0;
    arm->slope = inside ? arm->ratio : clipped; /* d objective / d advantage */
    return inside ? arm->ratio * arm->advantage : clipped * arm->advantage;
}

/* Gradient w.r.t. the logits of example i, once every slope is d loss / d raw. */
static void backward(const struct ppo_form *f, const struct ppo_batch *b, size_t i)
{
    struct view v = look(f, b, i);
    double *dz = b->d_logits + i * (size_t)b->K, *c = b->work + 4 * b->K;
    const struct ppo_arm *arm = b->arm + i * (size_t)b->arms;
    double n = (double)b->n_total, d_kl = 0, mean = 0, e = f->code ? CODE_EPS : 0;

    for (int k = 0; k < b->K; k++)
        dz[k] = f->entropy_coef / n * v.p[k] * (v.logp[k] + b->entropy[i]);
    for (int j = 0; j < b->arms; j++) {
        struct ppo_arm x = arm[j];
        double d_ratio, d_l, pa = v.p[x.action];

        objective(f, &x, &d_ratio);
        d_l = -x.weight * d_ratio * x.ratio / n * (pa / (pa + e));
        for (int k = 0; k < b->K; k++)
            dz[k] += d_l * ((k == x.action) - v.p[k]);
        d_kl -= b->beta * arm[j].slope;
    }
    if (!f->kl_grad)
        return;
    for (int k = 0; k < b->K; k++) {
        c[k] = v.l[k] - v.lref[k] + v.p[k] / (v.p[k] + e);
        mean += v.p[k] * c[k];
    }
    for (int k = 0; k < b->K; k++)
        dz[k] += d_kl * v.p[k] * (c[k] - mean);
}

static void value_loss(const struct ppo_form *f, const struct ppo_batch *b,
                       struct ppo_result *out)
{
    double n = (double)b->n_total;

    for (size_t i = 0; b->value && i < b->n; i++) {
        double error = (double)b->value[i] - b->adjusted[i];

        out->value_loss += error * error / n;
        b->d_value[i] = 2 * f->value_coef * error / n;
    }
}

void clahf_ppo_loss(const struct ppo_form *f, const struct ppo_batch *b,
                    struct ppo_result *out)
{
    double n = (double)b->n_total, mean = 0, std = 0;

    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < b->n; i++)
        forward(f, b, i);
    if (f->whiten)
        mean = whiten(b, &std);
    for (size_t i = 0; i < b->n; i++) {
        for (int j = 0; j < b->arms; j++) {
            struct ppo_arm *arm = &b->arm[i * (size_t)b->arms + (size_t)j];
            double d_ratio, gain = objective(f, arm, &d_ratio);

            arm->slope *= -arm->weight / n;
            out->policy_loss -= arm->weight * gain / n;
            out->ratio += arm->weight * arm->ratio / n;
            out->clip_fraction +=
                fabs(arm->ratio - 1) > f->clip_ratio ? arm->weight / n : 0;
        }
        out->kl += b->kl[i] / n;
        out->entropy += b->entropy[i] / n;
        out->reward += (b->adjusted[i] + b->beta * b->kl[i]) / n;
    }
    if (f->whiten)
        unwhiten(b, mean, std);
    value_loss(f, b, out);
    for (size_t i = 0; i < b->n; i++)
        backward(f, b, i);
    out->loss =
        out->policy_loss + f->value_coef * out->value_loss - f->entropy_coef * out->entropy;
}

double clahf_next_beta(const struct kl_control *c, double beta, double kl)
{
    double error = (kl - c->target) / c->target;

    if (c->error_clip > 0)
        error = clip(error, -c->error_clip, c->error_clip);
    return clip(beta * (1 + c->eta * error), c->low, c->high);
}

/* ---- evaluation ---------------------------------------------------------------------- */

int clahf_is_ordinal(const struct spec *spec)
{
    return spec->task.order == ORDER_ORDINAL && spec->task.labels.n > 2;
}

const char *const clahf_classifier_metrics[] = {"accuracy", "macro_f1", "mcc", "ece",
                                                "nll",      "mae",      "qwk", NULL};

int clahf_evaluate_classifier(struct stage_run *run, const int *label, size_t n,
                              const float *logits, struct metric_list *m, struct err *e)
{
    double *p = mem_array(n * (size_t)run->K + 1, sizeof *p);
    struct class_metrics c;
    int r;

    if (!p)
        return err_set(e, ERR_NOMEM, "metrics of %zu rows: out of memory", n);
    metrics_softmax(logits, n, run->K, 1, p);
    r = metrics_classify(p, label, n, run->K, &c, e);
    mem_free(p);
    if (r)
        return r;
    metric_add(m, "accuracy", c.accuracy);
    metric_add(m, "macro_f1", c.macro_f1);
    metric_add(m, "mcc", c.mcc);
    metric_add(m, "ece", c.ece);
    metric_add(m, "nll", c.nll);
    if (clahf_is_ordinal(run->spec)) {
        metric_add(m, "mae", c.mae);
        metric_add(m, "qwk", c.qwk);
    }
    metric_add(m, "confidence", c.confidence);
    metric_add(m, "n", (double)c.n);
    return 0;
}
