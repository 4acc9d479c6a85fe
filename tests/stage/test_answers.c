/* The loss and the metrics of language models, arrays in and arrays out: means over answer
 * tokens of the whole step, whatever the parts it is taken in. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/train/answers.h"

enum { N = 3 };
/* Answers of 2, 5 and 1 tokens: log p, entropy, likeliest ones, tokens. */
static const float out[N * LOGPROB_OUT] = {-1.5f, 2.5f, 1,     2,    -6, 3,
                                           4,     5,    -0.5f, 0.5f, 0,  1};

static const struct stage *sft(void)
{
    const struct stage *s = stage_find("sft", TASK_GENERATE);

    assert_non_null(s);
    return s;
}

static double take(size_t first, size_t n, float *d_out, struct metric_list *m)
{
    struct stage_run run = {.K = 0};
    struct stage_batch b = {.n = n,
                            .n_total = N,
                            .n_answer = 8,
                            .out = out + first * LOGPROB_OUT,
                            .d_out = d_out + first * LOGPROB_OUT};
    double loss;
    struct err e;

    assert_int_equal(sft()->loss(&run, &b, &loss, m, &e), 0);
    return loss;
}

static void test_loss(void **state)
{
    float whole[N * LOGPROB_OUT] = {0}, parts[N * LOGPROB_OUT] = {0};
    struct metric_list m = {.n = 0}, one = {.n = 0}, two = {.n = 0};
    double loss = take(0, N, whole, &m);

    (void)state;
    assert_true(fabs(loss - 1) < 1e-12);
    assert_true(fabs(metric_get(&m, "accuracy") - 5.0 / 8) < 1e-12);
    assert_true(fabs(metric_get(&m, "entropy") - 6.0 / 8) < 1e-12);
    for (int i = 0; i < N * LOGPROB_OUT; i++)
        assert_true(whole[i] == (i % LOGPROB_OUT ? 0 : -0.125f));
    assert_true(fabs(take(0, 1, parts, &one) + take(1, 2, parts, &two) - loss) < 1e-12);
    assert_memory_equal(parts, whole, sizeof whole);
    assert_true(fabs(metric_get(&one, "accuracy") + metric_get(&two, "accuracy") -
                     metric_get(&m, "accuracy")) < 1e-12);
}

static void test_metrics(void **state)
{
    static const struct {
        const char *name;
        double value;
    } want[] = {{"nll", 1},           {"perplexity", 2.718281828459045},
                {"accuracy", 0.625},  {"entropy", 0.75},
                {"answer_tokens", 8}, {"n", 3}};
    struct stage_run run = {.K = 0};
    const struct stage *eval = stage_find("eval", TASK_GENERATE);
    struct metric_list m = {.n = 0};
    struct err e;

    (void)state;
    assert_non_null(eval);
    assert_null(eval->loss);
    assert_int_equal(eval->evaluate(&run, NULL, N, out, &m, &e), 0);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        assert_true(fabs(metric_get(&m, want[i].name) - want[i].value) < 1e-9);
    for (const char *const *name = sft()->metrics; *name; name++)
        assert_false(isnan(metric_get(&m, *name)));
    assert_null(stage_find("rm", TASK_GENERATE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_loss),
                                       cmocka_unit_test(test_metrics)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
