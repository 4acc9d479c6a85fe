/* Activations and gated units: values, slopes against differences, bias gradients. */
#include "tests/op/op_test.h"

struct shape {
    long N, D;
    int act;
};

static void run_act(const struct backend *be, const void *shape, struct record *out)
{
    const struct shape *s = shape;
    float *x = new_normal(s->N * s->D, 1, 3), *y = new_floats(s->N * s->D);
    struct act_args args = {(enum op_act)s->act, x, y, s->N * s->D};

    assert_int_equal(be->act(&args), 0);
    record_add(out, y, args.n);
    args.y = x; /* in place */
    assert_int_equal(be->act(&args), 0);
    assert_same_bits("act in place", x, y, args.n);
    free_all(2, (void *)x, (void *)y);
}

static void run_backward(const struct backend *be, const void *shape, struct record *out)
{
    const struct shape *s = shape;
    long n = s->N * s->D;
    float *x = new_normal(n, 1, 2), *dy = new_normal(n, 2, 1), *dx = new_floats(n);
    float *dbias = new_normal(s->D, 3, 1);
    struct act_backward_args args = {(enum op_act)s->act, x, dy, dx, dbias, s->N, s->D};

    assert_int_equal(be->act_backward(&args), 0);
    record_add(out, dx, n);
    record_add(out, dbias, s->D);
    args.dx = dy; /* in place, without bias */
    args.dbias = NULL;
    assert_int_equal(be->act_backward(&args), 0);
    assert_same_bits("act_backward in place", dy, dx, n);
    free_all(4, (void *)x, (void *)dy, (void *)dx, (void *)dbias);
}

static void run_glu(const struct backend *be, const void *shape, struct record *out)
{
    const struct shape *s = shape;
    long n = s->N * s->D, ld = 2 * s->D + 1;
    float *x = new_normal(s->N * ld, 1, 2), *y = new_floats(n), *dy = new_normal(n, 2, 1);
    float *dx = new_floats(s->N * ld);
    struct glu_args args = {(enum op_act)s->act, x, x + s->D, ld, y, s->N, s->D};
    struct glu_backward_args back = {(enum op_act)s->act, x,    x + s->D, dy, ld, dx,
                                     dx + s->D,           s->N, s->D};

    assert_int_equal(be->glu(&args), 0);
    assert_int_equal(be->glu_backward(&back), 0);
    record_add(out, y, n);
    record_add(out, dx, s->N * ld);
    free_all(4, (void *)x, (void *)y, (void *)dy, (void *)dx);
}

static void test_against_reference(void **state)
{
    static const long size[][2] = {{1, 1}, {3, 5}, {33, 17}, {70, 129}, {257, 1031}};

    (void)state;
    for (long i = 0; i < COUNT(size); i++) {
        for (int act = ACT_NONE; act <= ACT_TANH; act++) {
            struct shape s = {size[i][0], size[i][1], act};

            check_case("act", run_act, &s, 5e-7);
            check_case("act_backward", run_backward, &s, 5e-6);
            if (act == ACT_SILU || act == ACT_GELU_TANH || act == ACT_GELU_ERF)
                check_case("glu", run_glu, &s, 5e-6);
        }
    }
}

/* Relative accuracy far into the tails, where a value is small but not zero. */
static void test_gelu_tails(void **state)
{
    const struct backend *ref = backend_find("ref"), *be = tested_backend();
    enum { N = 4001 };
    float *x = new_floats(N), *want = new_floats(N), *got = new_floats(N);
    struct act_args args = {ACT_GELU_ERF, x, want, N};

    (void)state;
    for (int i = 0; i < N; i++)
        x[i] = (float)(-12 + i * 0.006);
    assert_int_equal(ref->act(&args), 0);
    args.y = got;
    assert_int_equal(be->act(&args), 0);
    for (int i = 0; i < N; i++)
        assert_true(fabs((double)got[i] - want[i]) <= 6e-6 * fabs((double)want[i]));
    x[0] = NAN;
    x[1] = -INFINITY;
    x[2] = INFINITY;
    for (int act = ACT_NONE; act <= ACT_TANH; act++) {
        args.act = (enum op_act)act;
        assert_int_equal(be->act(&args), 0);
        assert_true(isnan(got[0]));
        assert_true(act == ACT_TANH ? got[2] == 1 : isinf(got[2]));
    }
    free_all(3, (void *)x, (void *)want, (void *)got);
}

struct forward {
    struct act_args act;
    struct glu_args glu;
};

static void forward_act(void *arg, struct record *y)
{
    struct forward *f = arg;

    assert_int_equal(backend_find("ref")->act(&f->act), 0);
    record_add(y, f->act.y, f->act.n);
}

static void forward_glu(void *arg, struct record *y)
{
    struct forward *f = arg;

    assert_int_equal(backend_find("ref")->glu(&f->glu), 0);
    record_add(y, f->glu.y, f->glu.N * f->glu.F);
}

static void test_slopes_against_differences(void **state)
{
    enum { N = 9, D = 21 };
    float *x = new_normal(N * 2 * D, 1, 1), *y = new_floats(N * D);
    float *w = new_weights(N * D), *dx = new_floats(N * 2 * D);

    (void)state;
    for (int i = 0; i < N * 2 * D; i++) /* keep ReLU's corner out of reach */
        if (fabsf(x[i]) < 0.05f)
            x[i] = 0.1f;
    for (int act = ACT_NONE; act <= ACT_TANH; act++) {
        for (int i = 0; i < 2; i++) {
            enum op_act a = (enum op_act)act;
            struct forward f = {{a, x, y, N * D}, {a, x, x + D, 2 * D, y, N, D}};
            struct act_backward_args back = {a, x, w, dx, NULL, N, D};
            struct glu_backward_args glu = {a, x, x + D, w, 2 * D, dx, dx + D, N, D};
            struct variable var = {x, dx, N * D};

            assert_int_equal(both_backends(i)->act_backward(&back), 0);
            check_gradient("act", &var, forward_act, &f, 2e-3);
            var.n = N * 2 * D;
            assert_int_equal(both_backends(i)->glu_backward(&glu), 0);
            check_gradient("glu", &var, forward_glu, &f, 2e-3);
        }
    }
    free_all(4, (void *)x, (void *)y, (void *)w, (void *)dx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_gelu_tails),
        cmocka_unit_test(test_slopes_against_differences),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
