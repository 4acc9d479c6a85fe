/* Log-probabilities from fragments of the vocabulary: reference against back end, gradients
 * of log p and of the entropy against differences, fragments of any width against one, a
 * row alone against the row among others, ignored rows, large logits. */
#include "tests/op/op_test.h"

struct shape {
    long N, V, columns;
    double scale, spread;
};

struct work {
    float *z; /* (N, V) */
    float *state, *out, *dout, *dz;
    int *target;
};

static struct work new_work(const struct shape *s)
{
    struct work w = {.z = new_normal(s->N * s->V, 1, s->spread),
                     .state = new_floats(s->N * LOGPROB_STATE),
                     .out = new_floats(s->N * LOGPROB_OUT),
                     .dout = new_weights(s->N * LOGPROB_OUT),
                     .dz = new_floats(s->N * s->V),
                     .target = mem_array((size_t)s->N, sizeof *w.target)};

    assert_non_null(w.target);
    for (long n = 0; n < s->N; n++) {
        w.target[n] = n % 7 == 4 ? -100 : (int)((n * 131 + s->V - 1) % s->V);
        for (long k = 2; k < LOGPROB_OUT; k++) /* these have no gradient */
            w.dout[n * LOGPROB_OUT + k] = 0;
    }
    return w;
}

static void free_work(struct work *w)
{
    free_all(6, (void *)w->z, (void *)w->state, (void *)w->out, (void *)w->dout,
             (void *)w->dz, (void *)w->target);
}

/* Columns from .. of (N, V), as a fragment, or back. */
static void copy_columns(float *fragment, float *whole, const struct shape *s, long from,
                         long n, int back)
{
    for (long r = 0; r < s->N; r++) {
        float *f = fragment + r * n, *z = whole + r * s->V + from;

        memcpy(back ? z : f, back ? f : z, (size_t)n * sizeof *f);
    }
}

static void forward(const struct backend *be, const struct shape *s, struct work *w)
{
    float *fragment = new_floats(s->N * s->columns);

    for (long v = 0; v < s->V; v += s->columns) {
        long n = s->V - v < s->columns ? s->V - v : s->columns;
        struct logprob_args a = {.logits = fragment,
                                 .N = s->N,
                                 .V = s->V,
                                 .first = v,
                                 .columns = n,
                                 .scale = (float)s->scale,
                                 .target = w->target,
                                 .state = w->state,
                                 .out = w->out};

        copy_columns(fragment, w->z, s, v, n, 0);
        assert_int_equal(be->logprob(&a), 0);
    }
    mem_free(fragment);
}

static void backward(const struct backend *be, const struct shape *s, struct work *w)
{
    float *fragment = new_floats(s->N * s->columns);

    for (long v = 0; v < s->V; v += s->columns) {
        long n = s->V - v < s->columns ? s->V - v : s->columns;
        struct logprob_backward_args a = {.logits = fragment,
                                          .N = s->N,
                                          .first = v,
                                          .columns = n,
                                          .scale = (float)s->scale,
                                          .target = w->target,
                                          .state = w->state,
                                          .dout = w->dout};

        copy_columns(fragment, w->z, s, v, n, 0);
        assert_int_equal(be->logprob_backward(&a), 0);
        copy_columns(fragment, w->dz, s, v, n, 1);
    }
    mem_free(fragment);
}

static void run(const struct backend *be, const void *shape, struct record *out)
{
    const struct shape *s = shape;
    struct work w = new_work(s);

    forward(be, s, &w);
    backward(be, s, &w);
    record_add(out, w.out, s->N * LOGPROB_OUT);
    record_add(out, w.dz, s->N * s->V);
    for (long n = 0; n < s->N; n++) {
        const float *y = w.out + n * LOGPROB_OUT;

        assert_true(y[3] == (float)(w.target[n] >= 0));
        assert_true(w.target[n] >= 0 ? y[0] <= 1e-6f && y[1] > -1e-4f
                                     : !y[0] && !y[1] && !y[2] && !w.dz[n * s->V]);
    }
    free_work(&w);
}

static const struct shape shapes[] = {
    {1, 1, 1, 1, 1},       {3, 2, 1, 1, 1},           {9, 17, 5, 0.7, 2},
    {16, 64, 64, 1, 3},    {5, 1037, 256, 1.5, 2},    {33, 300, 299, 1, 1},
    {8, 3000, 2048, 1, 4}, {4, 5000, 1111, 0.25, 40}, {6, 130, 64, 1, 1e4},
};

static void test_against_reference(void **state)
{
    (void)state;
    for (long i = 0; i < COUNT(shapes); i++)
        check_case("logprob", run, &shapes[i], 2e-5);
}

/* Log-probabilities of whole rows in double. */
static void test_definition(void **state)
{
    (void)state;
    for (long i = 0; i < COUNT(shapes); i++) {
        const struct shape *s = &shapes[i];
        struct work w = new_work(s);

        forward(tested_backend(), s, &w);
        for (long n = 0; n < s->N; n++) {
            const float *z = w.z + n * s->V, *y = w.out + n * LOGPROB_OUT;
            double top = -INFINITY, sum = 0, entropy = 0, log_p;

            if (w.target[n] < 0)
                continue;
            for (long v = 0; v < s->V; v++)
                top = fmax(top, (double)(float)s->scale * z[v]);
            for (long v = 0; v < s->V; v++)
                sum += exp((double)(float)s->scale * z[v] - top);
            for (long v = 0; v < s->V; v++) {
                double x = (double)(float)s->scale * z[v] - top - log(sum);

                entropy -= x > -700 ? exp(x) * x : 0;
            }
            log_p = (double)(float)s->scale * z[w.target[n]] - top - log(sum);
            assert_true(fabs(y[0] - log_p) <= 1e-5 + 1e-6 * fabs(log_p));
            assert_true(fabs(y[1] - entropy) <= 2e-5 + 1e-5 * entropy);
            assert_int_equal(y[2] == 1, (float)s->scale * z[w.target[n]] >= (float)top);
        }
        free_work(&w);
    }
}

struct forward_arg {
    struct shape s;
    struct work w;
};

static void forward_reference(void *arg, struct record *y)
{
    struct forward_arg *f = arg;

    forward(backend_find("ref"), &f->s, &f->w);
    for (long i = 0; i < f->s.N * LOGPROB_OUT; i++)
        if (i % LOGPROB_OUT > 1) /* the share of the likeliest jumps */
            f->w.out[i] = 0;
    record_add(y, f->w.out, f->s.N * LOGPROB_OUT);
}

static void test_gradient_against_differences(void **state)
{
    static const struct shape small[] = {
        {8, 11, 4, 1, 1.5}, {6, 23, 23, 0.7, 1}, {5, 40, 7, 2, 1}};

    (void)state;
    for (int i = 0; i < 2 * COUNT(small); i++) {
        struct forward_arg f = {.s = small[i / 2], .w = new_work(&small[i / 2])};
        struct variable var = {f.w.z, f.w.dz, f.s.N * f.s.V};

        forward(both_backends(i & 1), &f.s, &f.w);
        backward(both_backends(i & 1), &f.s, &f.w);
        check_gradient("logprob", &var, forward_reference, &f, 4e-3);
        free_work(&f.w);
    }
}

/* Row n of a batch, and the same row as a batch of one. */
static void test_rows_do_not_depend_on_neighbours(void **state)
{
    struct shape s = {7, 613, 100, 0.8, 3}, one = s;
    struct work w = new_work(&s);

    (void)state;
    one.N = 1;
    forward(tested_backend(), &s, &w);
    backward(tested_backend(), &s, &w);
    for (long n = 0; n < s.N; n++) {
        struct work alone = new_work(&one);

        memcpy(alone.z, w.z + n * s.V, (size_t)s.V * sizeof *w.z);
        memcpy(alone.dout, w.dout + n * LOGPROB_OUT, LOGPROB_OUT * sizeof *w.dout);
        alone.target[0] = w.target[n];
        forward(tested_backend(), &one, &alone);
        backward(tested_backend(), &one, &alone);
        assert_same_bits("alone", alone.out, w.out + n * LOGPROB_OUT, LOGPROB_OUT);
        assert_same_bits("alone", alone.dz, w.dz + n * s.V, s.V);
        free_work(&alone);
    }
    free_work(&w);
}

static void test_what_is_not_finite_shows(void **state)
{
    struct shape s = {3, 50, 20, 1, 1};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct work w = new_work(&s);

        w.z[7] = NAN;              /* of row 0 */
        w.z[s.V + 30] = -INFINITY; /* of row 1: a token that cannot come */
        w.z[2 * s.V + 45] = INFINITY;
        w.target[1] = 3;
        forward(both_backends(i), &s, &w);
        backward(both_backends(i), &s, &w);
        assert_true(isnan(w.out[0]));
        assert_true(isfinite(w.out[LOGPROB_OUT]) && isfinite(w.out[LOGPROB_OUT + 1]));
        for (long v = 0; v < s.V; v++)
            assert_true(isfinite(w.dz[s.V + v]));
        assert_true(w.dz[s.V + 30] == 0);
        assert_false(isfinite(w.out[2 * LOGPROB_OUT]));
        free_work(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_definition),
        cmocka_unit_test(test_gradient_against_differences),
        cmocka_unit_test(test_rows_do_not_depend_on_neighbours),
        cmocka_unit_test(test_what_is_not_finite_shows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
