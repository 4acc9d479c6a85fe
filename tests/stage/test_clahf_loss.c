/* ClaHF's losses: gradients by finite differences in every form, values worked out by hand,
 * the KL controller, and what must hold whatever the numbers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "worker/train/clahf_loss.h"

enum { N = 4, K = 5 };

static void near(const char *what, double got, double want, double tol)
{
    if (!(fabs(got - want) <= tol * fmax(1, fabs(want))))
        fail_msg("%s: got %.12g, want %.12g", what, got, want);
}

/* Central difference where the step is what f32 made of it. */
struct nudge {
    float *at, was;
    double step;
};

static void up(struct nudge *n, float *at)
{
    n->at = at;
    n->was = *at;
    *at = n->was + 1e-3f;
    n->step = (double)*at;
}

static void down(struct nudge *n)
{
    *n->at = n->was - 1e-3f;
    n->step -= (double)*n->at;
}

static void back(struct nudge *n)
{
    *n->at = n->was;
}

/* ---- SFT ----------------------------------------------------------------------------- */

static void test_sft_gradient(void **state)
{
    static const double form[][2] = {{0, 0}, {0.1, 0}, {0, 2}, {0.2, 0.5}, {0, 1}};
    struct rng rng;

    (void)state;
    rng_init(&rng, 1);
    for (size_t f = 0; f < sizeof form / sizeof *form; f++)
        for (int y = 0; y < K; y++) {
            double dz[K], p[K], ignored[K], sum = 0;
            float z[K];

            for (int k = 0; k < K; k++)
                z[k] = (float)(2 * rng_normal(&rng));
            clahf_sft_loss(z, y, K, form[f][0], form[f][1], dz, p);
            for (int k = 0; k < K; k++) {
                struct nudge n;
                double a, b;

                up(&n, &z[k]);
                a = clahf_sft_loss(z, y, K, form[f][0], form[f][1], ignored, p);
                down(&n);
                b = clahf_sft_loss(z, y, K, form[f][0], form[f][1], ignored, p);
                back(&n);
                near("d sft", dz[k], (a - b) / n.step, 2e-6);
                sum += dz[k];
            }
            near("sum over logits", sum, 0, 1e-12);
        }
}

static void test_sft_values(void **state)
{
    const float z[] = {1, 3, -2};
    double lse = log(exp(1) + exp(3) + exp(-2)), dz[3], p[3];
    const float huge[] = {-500, 500};

    (void)state;
    near("cross-entropy", clahf_sft_loss(z, 0, 3, 0, 0, dz, p), lse - 1, 1e-12);
    near("smoothed", clahf_sft_loss(z, 0, 3, 0.3, 0, dz, p),
         lse - 0.7 * 1 - 0.1 * (1 + 3 - 2), 1e-12);
    near("focal", clahf_sft_loss(z, 1, 3, 0, 2, dz, p),
         pow(1 - exp(3 - lse), 2) * (lse - 3), 1e-12);
    near("far off", clahf_sft_loss(huge, 0, 2, 0, 2, dz, p), 1000, 1e-12);
    near("certain", clahf_sft_loss(huge, 1, 2, 0, 2, dz, p), 0, 1e-12);
    assert_true(isfinite(dz[0]) && isfinite(dz[1]));
}

/* ---- RM ------------------------------------------------------------------------------ */

static void test_rank_gradient(void **state)
{
    struct rng rng;

    (void)state;
    rng_init(&rng, 2);
    for (int k = 2; k <= K; k++)
        for (int kind = RANK_FULL; kind <= RANK_PAIR; kind++)
            for (double alpha = 0; alpha <= 1; alpha += 0.4) {
                double r[K], dr[K], ignored[K];

                for (int j = 0; j < k; j++)
                    r[j] = 2 * rng_normal(&rng);
                clahf_rank_loss(r, k, (enum rank_loss)kind, alpha, dr);
                for (int j = 0; j < k; j++) {
                    double was = r[j], a, b;

                    r[j] = was + 1e-5;
                    a = clahf_rank_loss(r, k, (enum rank_loss)kind, alpha, ignored);
                    r[j] = was - 1e-5;
                    b = clahf_rank_loss(r, k, (enum rank_loss)kind, alpha, ignored);
                    r[j] = was;
                    near("d rank", dr[j], (a - b) / 2e-5, 1e-8);
                }
            }
}

static double softplus(double x)
{
    return log1p(exp(x));
}

static void test_rank_values(void **state)
{
    const double r[] = {1, 0.5, -2}, far[] = {-1000, 1000}, equal[] = {3, 3, 3, 3};
    double a = softplus(-0.5), b = softplus(-3), c = softplus(-2.5), dr[4];

    (void)state;
    near("full", clahf_rank_loss(r, 3, RANK_FULL, 0.8, dr), 0.8 * (a + b) / 2 + 0.2 * c,
         1e-12);
    near("top1", clahf_rank_loss(r, 3, RANK_TOP1, 0.1, dr), (a + b) / 2, 1e-12);
    near("pair", clahf_rank_loss(r, 3, RANK_PAIR, 0.1, dr), (a + b + c) / 3, 1e-12);
    near("alpha 0", clahf_rank_loss(r, 3, RANK_FULL, 0, dr), c, 1e-12);
    assert_true(dr[0] == 0); /* gold is not ranked then */
    near("two", clahf_rank_loss(r, 2, RANK_FULL, 0.8, dr), a, 1e-12);
    near("no overflow", clahf_rank_loss(far, 2, RANK_FULL, 0.8, dr), 2000, 1e-12);
    near("equal scores", clahf_rank_loss(equal, 4, RANK_FULL, 0.8, dr), log(2), 1e-12);
}

/* ---- PPO ----------------------------------------------------------------------------- */

struct case_of {
    float z[N * K], value[N], ref[N * K], reward[N * K];
    const float *ref_row[N], *reward_row[N];
    struct ppo_arm arm[N * K];
    double kl[N], entropy[N], adjusted[N], work[5 * K], dz[N * K], dv[N];
    struct ppo_form form;
    struct ppo_batch b;
    struct ppo_result r;
};

static void make(struct case_of *c, int bits, uint64_t seed)
{
    struct rng rng;

    memset(c, 0, sizeof *c);
    rng_init(&rng, seed);
    for (int i = 0; i < N * K; i++) {
        c->z[i] = (float)rng_normal(&rng);
        c->ref[i] = c->z[i] + (float)(0.7 * rng_normal(&rng));
        c->reward[i] = (float)rng_normal(&rng);
    }
    c->form = (struct ppo_form){.code = bits & 1,
                                .kl_grad = bits >> 1 & 1,
                                .whiten = bits >> 2 & 1,
                                .clip_ratio = 0.2,
                                .value_coef = 0.25,
                                .entropy_coef = bits >> 3 & 1 ? 0.3 : 0};
    c->b = (struct ppo_batch){.n = N,
                              .n_total = N,
                              .K = K,
                              .arms = bits >> 4 & 1 ? K : 1,
                              .beta = 0.4,
                              .logits = c->z,
                              .value = bits >> 5 & 1 ? NULL : c->value,
                              .ref = c->ref_row,
                              .reward = c->reward_row,
                              .arm = c->arm,
                              .kl = c->kl,
                              .entropy = c->entropy,
                              .adjusted = c->adjusted,
                              .work = c->work,
                              .d_logits = c->dz,
                              .d_value = c->dv};
    for (int i = 0; i < N; i++) {
        c->value[i] = (float)rng_normal(&rng);
        c->ref_row[i] = c->ref + i * K;
        c->reward_row[i] = c->reward + i * K;
        for (int j = 0; j < c->b.arms; j++)
            c->arm[i * c->b.arms + j].action = c->b.arms > 1 ? j : (int)rng_below(&rng, K);
    }
}

/* The loss as automatic differentiation sees it: what is held constant comes from `fixed`,
 * the pass at the original logits. Written from the formulas, apart from the engine. */
static double surrogate(const struct case_of *c, const struct case_of *fixed)
{
    double e = c->form.code ? 1e-8 : 0, adv[N * K], mean = 0, var = 0, loss = 0;
    int arms = c->b.arms, m = N * arms;

    for (int i = 0; i < N; i++) {
        double lp[K], p[K], lr[K], kl = 0, h = 0;

        clahf_log_softmax(c->z + i * K, K, lp, p);
        clahf_log_softmax(c->ref + i * K, K, lr, NULL);
        for (int k = 0; k < K; k++) {
            h -= p[k] * lp[k];
            kl += p[k] * (log(p[k] + e) - log(exp(lr[k]) + e));
        }
        loss -= c->form.entropy_coef * h / N;
        for (int j = 0; j < arms; j++) {
            double was = fixed->arm[i * arms + j].raw;

            adv[i * arms + j] =
                c->form.kl_grad ? was - c->b.beta * (kl - fixed->kl[i]) : was;
        }
    }
    for (int j = 0; j < m; j++)
        mean += adv[j] / m;
    for (int j = 0; j < m; j++)
        var += (adv[j] - mean) * (adv[j] - mean) / (m - 1);
    for (int i = 0; i < N; i++) {
        double p[K], lr[K];

        clahf_log_softmax(c->z + i * K, K, NULL, p);
        clahf_log_softmax(c->ref + i * K, K, lr, NULL);
        for (int j = 0; j < arms; j++) {
            int a = c->arm[i * arms + j].action;
            double old = exp(lr[a]) + e, ratio = (p[a] + e) / old, A = adv[i * arms + j];
            double clipped = fmin(fmax(ratio, 1 - 0.2), 1 + 0.2);

            if (c->form.whiten)
                A = (A - mean) / (sqrt(var) + 1e-8);
            loss -= (arms > 1 ? old : 1) * fmin(ratio * A, clipped * A) / N;
        }
    }
    return loss;
}

/* Does a ratio of example i lie so near the clip that a difference would straddle it? */
static int at_kink(const struct case_of *c, int i)
{
    int found = 0;

    for (int j = 0; j < c->b.arms; j++) {
        double far = fabs(c->arm[i * c->b.arms + j].ratio - 1);

        found |= fabs(far - 0.2) < 2e-3;
    }
    return found;
}

static void test_ppo_gradient(void **state)
{
    static struct case_of c, moved;
    int checked = 0;

    (void)state;
    for (int bits = 0; bits < 64; bits++) {
        make(&c, bits, 100 + (uint64_t)bits);
        clahf_ppo_loss(&c.form, &c.b, &c.r);
        near("policy loss and entropy", c.r.policy_loss - c.form.entropy_coef * c.r.entropy,
             surrogate(&c, &c), 1e-6);
        for (int i = 0; i < N * K; i++) {
            struct nudge n;
            double a, b;

            if (at_kink(&c, i / K))
                continue;
            checked++;
            moved = c;
            up(&n, &moved.z[i]);
            a = surrogate(&moved, &c);
            down(&n);
            b = surrogate(&moved, &c);
            near("d ppo", c.dz[i], (a - b) / n.step, 2e-5);
        }
        for (int i = 0; c.b.value && i < N; i++)
            near("d value", c.dv[i], 2 * 0.25 * ((double)c.value[i] - c.adjusted[i]) / N,
                 1e-12);
    }
}

/* The policy is its own reference: ratio and KL are exact, nothing is clipped. */
static void test_ppo_start(void **state)
{
    static struct case_of c;

    (void)state;
    for (int bits = 0; bits < 64; bits++) {
        make(&c, bits, 7);
        memcpy(c.ref, c.z, sizeof c.ref);
        clahf_ppo_loss(&c.form, &c.b, &c.r);
        for (int j = 0; j < N * c.b.arms; j++)
            assert_true(c.arm[j].ratio == 1);
        assert_true(c.r.kl == 0 && c.r.clip_fraction == 0);
    }
}

static void test_ppo_values(void **state)
{
    static struct case_of c, d;

    (void)state;
    make(&c, 0, 3);
    clahf_ppo_loss(&c.form, &c.b, &c.r);
    for (int i = 0; i < N; i++) {
        double r = (double)c.reward[i * K + c.arm[i].action];

        near("R", c.adjusted[i], r - 0.4 * c.kl[i], 1e-12);
        near("A", c.arm[i].raw, c.adjusted[i] - (double)c.value[i], 1e-12);
        assert_true(c.kl[i] > 0);
    }
    /* Without a value head A = R. */
    make(&d, 32, 3);
    clahf_ppo_loss(&d.form, &d.b, &d.r);
    near("A without value", d.arm[0].raw, d.adjusted[0], 1e-12);
    near("no value loss", d.r.value_loss, 0, 0);
    /* Whitened: mean 0, unbiased variance 1. */
    make(&c, 4, 3);
    clahf_ppo_loss(&c.form, &c.b, &c.r);
    {
        double mean = 0, var = 0;

        for (int i = 0; i < N; i++)
            mean += c.arm[i].advantage / N;
        for (int i = 0; i < N; i++)
            var += (c.arm[i].advantage - mean) * (c.arm[i].advantage - mean) / (N - 1);
        near("mean", mean, 0, 1e-12);
        near("variance", var, 1, 1e-6);
    }
    /* old: rollout has ratio 1 whatever the reference. */
    make(&c, 0, 3);
    c.form.old = PPO_OLD_ROLLOUT;
    clahf_ppo_loss(&c.form, &c.b, &c.r);
    assert_true(c.arm[0].ratio == 1 && c.arm[3].ratio == 1 && c.r.kl > 0);
}

/* One example, equal advantages: whitening divides by nothing. */
static void test_ppo_guards(void **state)
{
    static struct case_of c;

    (void)state;
    make(&c, 1 | 2 | 4, 3);
    c.b.n = c.b.n_total = 1;
    clahf_ppo_loss(&c.form, &c.b, &c.r);
    assert_true(c.arm[0].advantage == c.arm[0].raw);
    make(&c, 1 | 2 | 4, 3);
    for (int i = 0; i < N; i++) {
        memcpy(c.z + i * K, c.z, K * sizeof *c.z);
        memcpy(c.ref + i * K, c.ref, K * sizeof *c.ref);
        c.value[i] = 0;
        c.arm[i].action = 1;
        c.reward[i * K + 1] = 0.5f;
    }
    clahf_ppo_loss(&c.form, &c.b, &c.r);
    for (int i = 0; i < N * K; i++)
        assert_true(c.dz[i] == 0);
    assert_true(c.r.policy_loss == 0);
    /* Certain policy against a reference that excludes its choice. */
    make(&c, 1 | 2 | 4, 3);
    for (int k = 0; k < K; k++) {
        c.z[k] = k ? -200 : 200;
        c.ref[k] = k ? 200 : -200;
    }
    clahf_ppo_loss(&c.form, &c.b, &c.r);
    for (int i = 0; i < N * K; i++)
        assert_true(isfinite(c.dz[i]));
}

static void test_controller(void **state)
{
    const struct kl_control paper = {0.1, 0.1, 0, 1e-4, 1},
                            code = {0.1, 1e-4, 0.2, 1e-4, 1};

    (void)state;
    near("paper", clahf_next_beta(&paper, 0.1, 0.25), 0.1 * 1.15, 1e-12);
    near("paper, no KL", clahf_next_beta(&paper, 0.1, 0), 0.09, 1e-12);
    near("code is clipped", clahf_next_beta(&code, 0.1, 5), 0.1 * (1 + 2e-5), 1e-12);
    near("and below", clahf_next_beta(&code, 0.1, 0), 0.1 * (1 - 2e-5), 1e-12);
    near("upper bound", clahf_next_beta(&paper, 1, 9), 1, 0);
    near("lower bound", clahf_next_beta(&paper, 1e-4, 0), 1e-4, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sft_gradient),  cmocka_unit_test(test_sft_values),
        cmocka_unit_test(test_rank_gradient), cmocka_unit_test(test_rank_values),
        cmocka_unit_test(test_ppo_gradient),  cmocka_unit_test(test_ppo_start),
        cmocka_unit_test(test_ppo_values),    cmocka_unit_test(test_ppo_guards),
        cmocka_unit_test(test_controller)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
