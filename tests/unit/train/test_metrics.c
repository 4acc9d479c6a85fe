/* Classification metrics against scikit-learn's recorded values, definitions at the edges,
 * temperature, bootstrap. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "worker/train/metrics.h"

enum { K = 7 };

static void near(double got, double want, double tol)
{
    if (!(fabs(got - want) <= tol))
        fail_msg("got %.12g, want %.12g", got, want);
}

static json_t *recorded(void)
{
    const char *shared = getenv("HONE_SHARED");
    char path[1024];
    json_t *root = NULL;
    struct err e;

    snprintf(path, sizeof path, "%s/fixtures/golden/vectors/metrics.json",
             shared ? shared : "../shared");
    if (!file_exists(path)) {
        print_message("skipped: %s is not here\n", path);
        skip();
    }
    if (json_read(path, 1 << 22, &root, &e))
        fail_msg("%s", e.msg);
    return root;
}

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static int integer(const json_t *o, const char *key, size_t i)
{
    return (int)json_integer_value(json_array_get(json_object_get(o, key), i));
}

static void check_case(const json_t *one)
{
    size_t n = json_array_size(json_object_get(one, "gold"));
    double *p = mem_array(n * K, sizeof *p);
    int *label = mem_array(n, sizeof *label);
    const json_t *want = json_object_get(one, "confusion");
    long got[K * K];
    struct class_metrics m;
    struct err e;

    for (size_t i = 0; i < n; i++) {
        label[i] = integer(one, "gold", i);
        p[i * K + (size_t)integer(one, "predicted", i)] = 1;
    }
    assert_int_equal(metrics_classify(p, label, n, K, &m, &e), 0);
    near(m.accuracy, number(one, "accuracy"), 1e-12);
    near(m.macro_f1, number(one, "macro_f1"), 1e-12);
    near(m.mcc, number(one, "mcc"), 1e-12);
    metrics_confusion(p, label, n, K, got);
    for (size_t y = 0; y < json_array_size(want); y++)
        for (size_t k = 0; k < json_array_size(want); k++) {
            int a = integer(one, "labels", y), b = integer(one, "labels", k);

            assert_int_equal(got[a * K + b], json_integer_value(json_array_get(
                                                 json_array_get(want, y), k)));
        }
    mem_free(p);
    mem_free(label);
}

static void test_scikit_learn(void **state)
{
    json_t *root = recorded(), *one;
    const char *name;

    (void)state;
    assert_true(json_object_size(json_object_get(root, "classification")) > 10);
    json_object_foreach(json_object_get(root, "classification"), name, one) check_case(one);
    json_decref(root);
}

/* A row whose largest probability is c: among enough classes the rest stays below it. */
enum { MANY = 1000 };
static void spread(double *p, double c)
{
    for (int k = 1; k < MANY; k++)
        p[k] = (1 - c) / (MANY - 1);
    p[0] = c;
}

static void test_ece(void **state)
{
    json_t *root = recorded(), *one;
    const char *name;

    (void)state;
    json_object_foreach(json_object_get(root, "ece"), name, one)
    {
        const json_t *c = json_object_get(one, "confidence");
        size_t n = json_array_size(c);
        double *p = mem_array(n * MANY, sizeof *p);
        int *label = mem_array(n, sizeof *label), zero = 0;
        struct class_metrics m;
        struct err e;

        for (size_t j = 0; j < n; j++) {
            double x = json_number_value(json_array_get(c, j));

            zero |= x == 0; /* no distribution has that */
            spread(p + j * MANY, x);
            label[j] = integer(one, "correct", j) ? 0 : 1;
        }
        assert_int_equal(metrics_classify(p, label, n, MANY, &m, &e), 0);
        if (!zero)
            near(m.ece, number(one, "ece"), 1e-12);
        mem_free(p);
        mem_free(label);
    }
    json_decref(root);
}

/* Kappa, MAE and the reliability bins from their definitions. */
static void test_ordinal(void **state)
{
    enum { N = 300, C = 5 };
    static double p[N * C];
    static int label[N];
    double o[C][C] = {{0}}, r[C] = {0}, c[C] = {0}, up = 0, down = 0, mae = 0;
    struct reliability_bin bin[METRIC_BINS];
    struct class_metrics m;
    struct rng rng;
    struct err e;
    double ece = 0;
    size_t rows = 0;

    (void)state;
    rng_init(&rng, 5);
    for (int i = 0; i < N; i++) {
        float z[C];
        int best = 0;

        label[i] = (int)rng_below(&rng, C);
        for (int k = 0; k < C; k++)
            z[k] = (float)(2 * rng_normal(&rng) - 0.7 * abs(k - label[i]));
        metrics_softmax(z, 1, C, 1, p + i * C);
        for (int k = 1; k < C; k++)
            best = p[i * C + k] > p[i * C + best] ? k : best;
        o[label[i]][best]++;
        r[label[i]]++;
        c[best]++;
        mae += (double)abs(best - label[i]) / N;
    }
    for (int i = 0; i < C; i++)
        for (int j = 0; j < C; j++) {
            up += (i - j) * (i - j) * o[i][j];
            down += (i - j) * (i - j) * r[i] * c[j] / N;
        }
    assert_int_equal(metrics_classify(p, label, N, C, &m, &e), 0);
    near(m.qwk, 1 - up / down, 1e-12);
    near(m.mae, mae, 1e-12);
    metrics_reliability(p, label, N, C, bin);
    for (int b = 0; b < METRIC_BINS; b++) {
        rows += bin[b].n;
        ece += (double)bin[b].n / N * fabs(bin[b].accuracy - bin[b].confidence);
    }
    assert_int_equal(rows, N);
    near(ece, m.ece, 1e-12);
}

/* Ties go to the lower id; nothing is divided by zero. */
static void test_edges(void **state)
{
    const double tie[] = {0.4, 0.4, 0.2}, sure[] = {0, 1};
    int zero = 0, one = 1;
    struct class_metrics m;
    struct err e;

    (void)state;
    metrics_classify(tie, &zero, 1, 3, &m, &e);
    assert_true(m.accuracy == 1 && m.mcc == 0 && m.qwk == 0);
    metrics_classify(sure, &one, 1, 2, &m, &e);
    assert_true(m.accuracy == 1 && m.ece == 0 && m.nll == 0 && m.confidence == 1);
    metrics_classify(sure, &zero, 1, 2, &m, &e);
    assert_true(m.accuracy == 0 && m.ece == 1 && isfinite(m.nll));
    metrics_classify(NULL, NULL, 0, 2, &m, &e);
    assert_true(m.n == 0 && m.accuracy == 0 && m.nll == 0);
}

/* Labels drawn from softmax(z): T = 1 is right; logits twice as large need T = 2. */
static void test_temperature(void **state)
{
    enum { N = 20000, C = 4 };
    float *z = mem_array(N * C, sizeof *z);
    int *label = mem_array(N, sizeof *label);
    struct rng rng;
    double t;

    (void)state;
    rng_init(&rng, 11);
    for (int i = 0; i < N; i++) {
        double p[C], u = rng_uniform(&rng);

        for (int k = 0; k < C; k++)
            z[i * C + k] = (float)(1.5 * rng_normal(&rng));
        metrics_softmax(z + i * C, 1, C, 1, p);
        while (label[i] < C - 1 && u >= p[label[i]])
            u -= p[label[i]++];
    }
    t = metrics_fit_temperature(z, label, N, C);
    near(t, 1, 0.03);
    for (int i = 0; i < N * C; i++)
        z[i] *= 2;
    near(metrics_fit_temperature(z, label, N, C), 2 * t, 1e-4);
    mem_free(z);
    mem_free(label);
}

/* Of a mean the bootstrap's standard error is sd / sqrt(n); of a model against itself it is
 * zero; the same seed gives the same bits. */
static void test_bootstrap(void **state)
{
    enum { N = 500, C = 3 };
    static double p[N * C], q[N * C];
    static int label[N];
    struct class_metrics m, se, again, d;
    struct rng rng;
    struct err e;

    (void)state;
    rng_init(&rng, 3);
    for (int i = 0; i < N; i++) {
        float z[C];

        label[i] = (int)rng_below(&rng, C);
        for (int k = 0; k < C; k++)
            z[k] = (float)(rng_normal(&rng) + (k == label[i]));
        metrics_softmax(z, 1, C, 1, p + i * C);
        metrics_softmax(z, 1, C, 3, q + i * C);
    }
    metrics_classify(p, label, N, C, &m, &e);
    assert_int_equal(metrics_bootstrap(p, NULL, label, N, C, 7, &se, &e), 0);
    assert_int_equal(metrics_bootstrap(p, NULL, label, N, C, 7, &again, &e), 0);
    assert_memory_equal(&se, &again, sizeof se);
    near(se.accuracy, sqrt(m.accuracy * (1 - m.accuracy) / N), 0.15 * se.accuracy);
    assert_int_equal(metrics_bootstrap(p, p, label, N, C, 7, &d, &e), 0);
    assert_true(d.accuracy == 0 && d.ece == 0 && d.nll == 0 && d.qwk == 0);
    /* Temperature keeps every decision, so the difference in accuracy has no error. */
    assert_int_equal(metrics_bootstrap(q, p, label, N, C, 7, &d, &e), 0);
    assert_true(d.accuracy == 0 && d.nll > 0 && d.nll < se.nll);
}

static void test_out_of_memory(void **state)
{
    double p[] = {0.2, 0.8};
    int label = 1, failed = 1;
    long live = mem_live();

    (void)state;
    for (long n = 0; failed; n++) {
        struct class_metrics m;
        struct err e;
        int r;

        mem_fail_at(n);
        r = metrics_bootstrap(p, p, &label, 1, 2, 1, &m, &e);
        failed = mem_failed();
        mem_fail_at(-1);
        assert_int_equal(r, failed ? ERR_NOMEM : 0);
    }
    assert_int_equal(mem_live(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scikit_learn), cmocka_unit_test(test_ece),
        cmocka_unit_test(test_ordinal),      cmocka_unit_test(test_edges),
        cmocka_unit_test(test_temperature),  cmocka_unit_test(test_bootstrap),
        cmocka_unit_test(test_out_of_memory)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
