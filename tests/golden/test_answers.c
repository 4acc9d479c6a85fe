/* Language models asked for the log-probabilities of answers alone (HEAD_LOGPROB): the loss
 * that PyTorch recorded, and the gradient of every parameter that whole logits give (which
 * `verify` holds against PyTorch's, test_families.c). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "worker/model/model.h"
#include "worker/verb/golden.h"

struct run {
    struct golden g;
    struct model *m;
    struct tape *t;
    struct model_out out;
    long tokens; /* of all answers */
    int answer[16];
};

/* Labels of a golden file are the ids from some place of each row on. */
static void find_answers(struct run *r)
{
    struct packed *in = &r->g.in;

    assert_true(in->B <= 16 && r->g.token_labels);
    for (long b = 0; b < in->B; b++) {
        int first = in->cu_seqlens[b], end = in->cu_seqlens[b + 1], i = first;

        while (i < end && r->g.label[i] == -100)
            i++;
        r->answer[b] = i - first;
        for (; i < end; i++, r->tokens++)
            assert_int_equal(r->g.label[i], in->ids[i]);
    }
    in->answer = r->answer;
}

static void open_run(struct run *r, const char *family, const char *backend,
                     enum head_kind head)
{
    const char *shared = getenv("HONE_SHARED");
    char dir[1024], golden[1100];
    struct model_options o = {
        .backend = backend_find(backend), .head = head, .trainable = 1};
    struct err e;

    *r = (struct run){.tokens = 0};
    snprintf(dir, sizeof dir, "%s/fixtures/golden/families/%s",
             shared ? shared : "../shared", family);
    snprintf(golden, sizeof golden, "%s/golden.safetensors", dir);
    if (!file_exists(golden)) {
        print_message("skipped: %s is not here\n", golden);
        skip();
    }
    if (golden_open(&r->g, golden, &e) || model_open(&r->m, dir, &o, &e))
        fail_msg("%s", e.msg);
    find_answers(r);
    r->t = tape_new(o.backend, &e);
    assert_non_null(r->t);
    tape_reset(r->t, TAPE_TRAIN);
    if (model_forward(r->m, r->t, &r->g.in, NULL, &r->out, &e))
        fail_msg("%s", e.msg);
}

static void close_run(struct run *r)
{
    tape_free(r->t);
    model_close(r->m);
    golden_close(&r->g);
}

/* -mean of log p, by the head; backward. */
static double answer_loss(struct run *r)
{
    const struct backend *be = model_get_backend(r->m);
    float out[16 * LOGPROB_OUT], seed[16 * LOGPROB_OUT] = {0};
    double sum = 0, counted = 0;
    struct err e;

    assert_int_equal(r->out.logits->rows, r->g.in.B);
    be->copy_out(out, r->out.logits->data, (size_t)(r->g.in.B * LOGPROB_OUT) * sizeof *out);
    for (long b = 0; b < r->g.in.B; b++) {
        sum -= out[b * LOGPROB_OUT];
        counted += out[b * LOGPROB_OUT + 3];
        seed[b * LOGPROB_OUT] = (float)(-1 / (double)r->tokens);
    }
    assert_true(counted == (double)r->tokens);
    tape_seed(r->t, r->out.logits, seed);
    if (tape_backward(r->t, &e))
        fail_msg("%s", e.msg);
    return sum / (double)r->tokens;
}

/* The gradient of the same loss with respect to whole logits; backward. */
static void logits_backward(struct run *r)
{
    const struct backend *be = model_get_backend(r->m);
    const struct packed *in = &r->g.in;
    long V = r->out.logits->cols;
    float *z = mem_array((size_t)(in->T * V), sizeof *z);
    struct err e;

    assert_non_null(z);
    be->copy_out(z, r->out.logits->data, (size_t)(in->T * V) * sizeof *z);
    for (long i = 0; i < in->T; i++) {
        int last = i + 1 == in->T || in->position[i + 1] == 0;
        int target = last ? -100 : r->g.label[i + 1];
        double top = -INFINITY, sum = 0;

        for (long v = 0; v < V; v++)
            top = fmax(top, z[i * V + v]);
        for (long v = 0; v < V; v++)
            sum += exp(z[i * V + v] - top);
        for (long v = 0; v < V; v++) {
            double p = exp(z[i * V + v] - top) / sum;

            z[i * V + v] =
                target < 0 ? 0 : (float)((p - (v == target)) / (double)r->tokens);
        }
    }
    tape_seed(r->t, r->out.logits, z);
    if (tape_backward(r->t, &e))
        fail_msg("%s", e.msg);
    mem_free(z);
}

static void same_gradient(const struct backend *be, const struct param *got,
                          const struct param *want)
{
    size_t n = (size_t)(got->rows * got->cols);
    float *a = mem_array(n, sizeof *a), *b = mem_array(n, sizeof *b);

    assert_non_null(a);
    assert_non_null(b);
    be->copy_out(a, got->grad, n * sizeof *a);
    be->copy_out(b, want->grad, n * sizeof *b);
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)a[i] - b[i]) <= 2e-5 * fmax(1, fabs((double)b[i]))))
            fail_msg("%s: element %zu is %.9g, want %.9g", got->name, i, a[i], b[i]);
    mem_free(a);
    mem_free(b);
}

static void check(const char *family, const char *backend)
{
    static struct run answers, whole;
    struct param *p, *q;
    const float *want;
    double loss;
    size_t n, m;
    struct err e;

    open_run(&answers, family, backend, HEAD_LOGPROB);
    loss = answer_loss(&answers);
    want = golden_get(&answers.g, "loss", 1, &e);
    assert_non_null(want);
    if (fabs(loss - *want) > 5e-6)
        fail_msg("%s: loss %.9g, PyTorch %.9g", family, loss, (double)*want);
    open_run(&whole, family, backend, HEAD_CAUSAL);
    logits_backward(&whole);
    p = model_params(answers.m, &n);
    q = model_params(whole.m, &m);
    assert_int_equal(n, m);
    for (size_t i = 0; i < n; i++)
        same_gradient(model_get_backend(answers.m), &p[i], &q[i]);
    close_run(&answers);
    close_run(&whole);
}

static void test_families(void **state)
{
    static const char *const families[] = {"llama", "llama3.2-style", "gpt2",
                                           "qwen2", "mistral",        "qwen3"};

    (void)state;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        check(families[i], "ref");
        check(families[i], "cpu");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_families)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
