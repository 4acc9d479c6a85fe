/* The losses of ClaHF as pure functions: arrays in, loss and gradients out, in double.
 *
 * SFT: cross-entropy with label smoothing and focal weight. RM: ranking of K candidates.
 * PPO: one update of a classifier as policy. Formulas and sources: docs/MATH.md; gradients
 * are checked by finite differences in tests/stage. Nothing here can fail: sizes are the
 * caller's duty, and values that are not finite come out as such. */
#ifndef WORKER_TRAIN_CLAHF_LOSS_H
#define WORKER_TRAIN_CLAHF_LOSS_H

#include <stddef.h>

#include "worker/stage/stage.h"

/* log p and p of K logits; either may be NULL. */
void clahf_log_softmax(const float *z, int K, double *logp, double *p);

/* (1 - p_y)^focal times cross-entropy with targets (1 - s) onehot(y) + s / K.
 * dz: (K) gradient; p: (K) probabilities. Returns the loss. */
double clahf_sft_loss(const float *z, int y, int K, double smoothing, double focal,
                      double *dz, double *p);

/* r: (K) scores, best first (0 is gold). K = 2: -log sigmoid(r_0 - r_1), unscaled. dr: (K)
 * gradient. Returns the loss. */
enum rank_loss { RANK_FULL, RANK_TOP1, RANK_PAIR };
double clahf_rank_loss(const double *r, int K, enum rank_loss kind, double alpha,
                       double *dr);

/* What a PPO stage keeps in stage_run.tables: (n_rows, K) each, mem_alloc'ed. */
struct ppo_tables {
    float *reward, *ref; /* scores; logits of the reference */
};

enum ppo_action { PPO_SAMPLE, PPO_ARGMAX, PPO_ALL };
enum ppo_old { PPO_OLD_REF, PPO_OLD_ROLLOUT };

struct ppo_form {
    int code;    /* log(p + 1e-8) as in the published code, else log p */
    int kl_grad; /* gradient flows through the KL in A (and through A's mean and std) */
    int whiten;
    enum ppo_old old;
    double clip_ratio, value_coef, entropy_coef;
};

/* An action that is weighed: one an example, or with PPO_ALL each of the K labels. */
struct ppo_arm {
    int action;
    double weight; /* 1, or p_old(action) */
    double ratio;
    double raw, advantage; /* before and after whitening */
    double slope;          /* d loss / d advantage, then d loss / d raw */
};

struct ppo_batch {
    size_t n, n_total;
    int K, arms; /* arms an example: 1 or K */
    double beta;
    const float *logits;        /* (n, K) of the policy */
    const float *value;         /* (n), or NULL: no value head, A = R */
    const float *const *ref;    /* (n) K logits of the reference */
    const float *const *reward; /* (n) K scores */
    struct ppo_arm *arm;        /* (n, arms) in: action; out: the rest */
    double *kl, *entropy;       /* (n) out */
    double *adjusted; /* (n) out: R = r - beta KL, expected under p with PPO_ALL */
    double *work;     /* (5 K) */
    double *d_logits, *d_value; /* out: (n, K); (n), unused without value */
};

/* Sums over the n examples / n_total. */
struct ppo_result {
    double loss, policy_loss, value_loss, kl, entropy, reward, ratio, clip_fraction;
};

void clahf_ppo_loss(const struct ppo_form *f, const struct ppo_batch *b,
                    struct ppo_result *out);

/* The KL controller: beta (1 + eta error), error = KL / target - 1 clipped to
 * +- error_clip (0: not clipped), result within [low, high]. Paper eq. 11. */
struct kl_control {
    double target, eta, error_clip, low, high;
};
double clahf_next_beta(const struct kl_control *c, double beta, double kl);

/* stage->evaluate() of every classifier: the metrics of metrics.h by name, mae and qwk
 * where the labels are ordered. */
int clahf_evaluate_classifier(struct stage_run *run, const int *label, size_t n,
                              const float *logits, struct metric_list *m, struct err *e);
extern const char *const clahf_classifier_metrics[]; /* that it gives */

/* Do the labels have an order that MAE and kappa can measure? */
int clahf_is_ordinal(const struct spec *spec);

#endif
