/* Gradients of the whole model against finite differences: for each parameter, along one
 * random direction u, (f(p + h u) - f(p - h u)) / 2h against <grad, u>. f is a fixed random
 * combination of all outputs; everything is f32 with the reference back end. */
#include "tests/unit/model/tiny.h"

#include <math.h>

enum { OUT_MAX = 64 * 128 };

struct outputs {
    float logits[OUT_MAX], value[64];
    long n_logits, n_value;
};

static void run(struct model *m, struct tape *t, const struct packed *in, uint64_t key,
                struct model_out *out, struct outputs *o)
{
    const struct backend *be = m->options.backend;
    struct err e;

    tape_reset(t, TAPE_TRAIN);
    if (key)
        tape_set_dropout(t, key);
    if (model_forward(m, t, in, NULL, out, &e))
        fail_msg("%s", e.msg);
    o->n_logits = out->logits->rows * out->logits->cols;
    o->n_value = out->value ? out->value->rows : 0;
    assert_true(o->n_logits <= OUT_MAX);
    be->copy_out(o->logits, out->logits->data, (size_t)o->n_logits * sizeof(float));
    if (out->value)
        be->copy_out(o->value, out->value->data, (size_t)o->n_value * sizeof(float));
}

static double combine(const struct outputs *o, const struct outputs *weight)
{
    double f = 0;

    for (long i = 0; i < o->n_logits; i++)
        f += (double)o->logits[i] * weight->logits[i];
    for (long i = 0; i < o->n_value; i++)
        f += (double)o->value[i] * weight->value[i];
    return f;
}

static void shift(const struct backend *be, struct param *p, const float *base,
                  const float *u, double h)
{
    long n = p->rows * p->cols;
    float *x = mem_array((size_t)n, sizeof *x);

    for (long i = 0; i < n; i++)
        x[i] = (float)(base[i] + h * u[i]);
    be->copy_in(p->data, x, (size_t)n * sizeof *x);
    p->pack[0].version++;
    p->pack[1].version++;
    mem_free(x);
}

static void check_param(struct model *m, struct tape *t, const struct packed *in,
                        uint64_t key, struct param *p, const struct outputs *weight)
{
    static struct outputs o;
    const struct backend *be = m->options.backend;
    size_t n = (size_t)(p->rows * p->cols);
    float *base = mem_array(n, sizeof *base), *g = mem_array(n, sizeof *g),
          *u = mem_array(n, sizeof *u);
    double h = 4e-3, want = 0, norm = 0, hi, lo, got;
    struct model_out out;
    struct rng r;

    rng_init(&r, 99 + n);
    be->copy_out(base, p->data, n * sizeof *base);
    be->copy_out(g, p->grad, n * sizeof *g);
    for (size_t i = 0; i < n; i++) {
        /* Mostly along the gradient, so that there is something to see. */
        u[i] = g[i];
        norm += (double)u[i] * u[i];
    }
    norm = sqrt(norm) + 1e-12;
    for (size_t i = 0; i < n; i++) {
        u[i] = (float)(u[i] / norm + 0.3 * rng_normal(&r) / sqrt((double)n));
        want += (double)u[i] * g[i];
    }
    shift(be, p, base, u, h);
    run(m, t, in, key, &out, &o);
    hi = combine(&o, weight);
    shift(be, p, base, u, -h);
    run(m, t, in, key, &out, &o);
    lo = combine(&o, weight);
    shift(be, p, base, u, 0);
    got = (hi - lo) / (2 * h);
    if (fabs(got - want) > 1.5e-2 * fabs(want) + 1e-3)
        fail_msg("%s: finite difference %g, gradient %g", p->name, got, want);
    mem_free(base);
    mem_free(g);
    mem_free(u);
}

static void check(const struct tiny_spec *s)
{
    static const int plain[] = {7, 1, 12, 5}, answered[] = {7, 2, 12, 5};
    static int answer[] = {3, 1, 11, 2};
    const int *length = s->head == HEAD_LOGPROB ? answered : plain;
    static struct tiny_batch batch;
    static struct outputs o, weight;
    const struct backend *be = backend_find("ref");
    uint64_t key = s->dropout > 0 ? 1234 : 0;
    struct model_out out;
    struct tape *t;
    struct model m;
    struct err e;
    struct rng r;

    tiny_init(&m, be, s);
    tiny_pack(&batch, &m, length, 4, 3);
    batch.in.answer = answer;
    t = tape_new(be, &e);
    assert_non_null(t);
    rng_init(&r, 5);
    for (int i = 0; i < OUT_MAX; i++)
        weight.logits[i] = (float)(0.2 * rng_normal(&r));
    for (int i = 0; s->head == HEAD_LOGPROB && i < OUT_MAX; i++)
        if (i % LOGPROB_OUT > 1) /* counts have no gradient */
            weight.logits[i] = 0;
    for (int i = 0; i < 64; i++)
        weight.value[i] = (float)rng_normal(&r);
    run(&m, t, &batch.in, key, &out, &o);
    tape_seed(t, out.logits, weight.logits);
    if (out.value)
        tape_seed(t, out.value, weight.value);
    if (tape_backward(t, &e))
        fail_msg("%s", e.msg);
    for (size_t i = 0; i < m.n_params; i++)
        check_param(&m, t, &batch.in, key, &m.param[i], &weight);
    tape_free(t);
    tiny_fini(&m);
}

static void test_bert(void **state)
{
    (void)state;
    check(&(struct tiny_spec){TINY_BERT, HEAD_CLASSIFY, POOLING_MODEL, .value_head = 1});
    check(&(struct tiny_spec){TINY_BERT, HEAD_CLASSIFY, POOLING_MEAN, .value_head = 1});
    check(&(struct tiny_spec){TINY_BERT, HEAD_REWARD, POOLING_CLS});
    check(&(struct tiny_spec){TINY_BERT, HEAD_REWARD, POOLING_LAST_TOKEN});
}

static void test_bert_dropout(void **state)
{
    (void)state;
    check(&(struct tiny_spec){TINY_BERT, HEAD_CLASSIFY, POOLING_MODEL, .value_head = 1,
                              .dropout = 0.2});
    check(&(struct tiny_spec){TINY_BERT, HEAD_CLASSIFY, POOLING_MEAN, .dropout = 0.2});
    check(&(struct tiny_spec){TINY_LLAMA, HEAD_CAUSAL, POOLING_MODEL, .dropout = 0.2});
}

static void test_masked(void **state)
{
    (void)state;
    check(&(struct tiny_spec){TINY_BERT, HEAD_MASKED, POOLING_MODEL});
}

static void test_llama(void **state)
{
    (void)state;
    check(&(struct tiny_spec){TINY_LLAMA, HEAD_CAUSAL, POOLING_MODEL});
    check(&(struct tiny_spec){TINY_LLAMA, HEAD_REWARD, POOLING_MODEL});
    check(&(struct tiny_spec){TINY_LLAMA, HEAD_REWARD, POOLING_EOS, .value_head = 1});
    check(&(struct tiny_spec){TINY_LLAMA, HEAD_CLASSIFY, POOLING_MEAN});
    check(&(struct tiny_spec){TINY_LLAMA, HEAD_LOGPROB, POOLING_MODEL});
    check(&(struct tiny_spec){TINY_LLAMA, HEAD_LOGPROB, POOLING_MODEL, .dropout = 0.2});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bert),
        cmocka_unit_test(test_bert_dropout),
        cmocka_unit_test(test_masked),
        cmocka_unit_test(test_llama),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
