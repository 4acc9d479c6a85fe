/* Log-probabilities without whole logits: the tape's rule over several fragments against
 * plain logits and a softmax in double, forward and all gradients; its memory against that
 * of the logits; the same bits whatever the rows beside a row. */
#include <math.h>

#include "tests/unit/model/tiny.h"
#include "worker/tape/rule.h"

enum { N = 37, D = 24, V = 4500 };
static const double temperature = 1.25;

struct fixture {
    const struct backend *be;
    struct tape *t;
    struct param w, b;
    float x[N * D], seed[N * LOGPROB_OUT];
    int target[N];
};

static void fill(struct rng *r, float *x, long n, double sd)
{
    for (long i = 0; i < n; i++)
        x[i] = (float)(sd * rng_normal(r));
}

static void open_fixture(struct fixture *f, const char *backend)
{
    struct err e;
    struct rng r;

    memset(f, 0, sizeof *f);
    rng_init(&r, 3);
    f->be = backend_find(backend);
    f->t = tape_new(f->be, &e);
    assert_non_null(f->t);
    f->w = (struct param){.name = "w", .rows = V, .cols = D, .trainable = 1};
    f->b = (struct param){.name = "b", .rows = 1, .cols = V, .trainable = 1};
    f->w.data = tiny_memory(f->be, &r, V * D, 0, 0.4);
    f->w.grad = tiny_memory(f->be, &r, V * D, 0, 0);
    f->b.data = tiny_memory(f->be, &r, V, 0, 0.4);
    f->b.grad = tiny_memory(f->be, &r, V, 0, 0);
    f->w.pack[0].version = f->w.pack[1].version = 1;
    fill(&r, f->x, N * D, 1);
    fill(&r, f->seed, N * LOGPROB_OUT, 1);
    for (int n = 0; n < N; n++) {
        f->target[n] = n == 5 ? -100 : (int)rng_below(&r, V);
        f->seed[n * LOGPROB_OUT + 2] = f->seed[n * LOGPROB_OUT + 3] = 0;
    }
}

static void close_fixture(struct fixture *f)
{
    tape_free(f->t);
    f->be->pack_free(&f->w.pack[0]);
    f->be->pack_free(&f->w.pack[1]);
    f->be->release(f->w.data);
    f->be->release(f->w.grad);
    f->be->release(f->b.data);
    f->be->release(f->b.grad);
}

/* Rows from .. of x as an input with a gradient. */
static struct tensor *input(struct fixture *f, long from, long n)
{
    struct tensor *x = tape_tensor(f->t, n, D, 1);

    assert_non_null(x);
    f->be->copy_in(x->data, f->x + from * D, (size_t)(n * D) * sizeof *f->x);
    return x;
}

/* Of one row: what is asked for, and the logits' gradient in place of them. */
static void expect_row(const struct fixture *f, int n, float *z, double out[2])
{
    double top = -INFINITY, sum = 0, entropy = 0, less;
    const float *g = f->seed + n * LOGPROB_OUT;
    int t = f->target[n];

    for (int v = 0; v < V; v++)
        top = fmax(top, z[v] / temperature);
    for (int v = 0; v < V; v++)
        sum += exp(z[v] / temperature - top);
    less = top + log(sum);
    for (int v = 0; v < V; v++) {
        double log_p = z[v] / temperature - less;

        entropy -= exp(log_p) * log_p;
    }
    out[0] = t < 0 ? 0 : z[t] / temperature - less;
    out[1] = t < 0 ? 0 : entropy;
    for (int v = 0; v < V; v++) {
        double log_p = z[v] / temperature - less, p = exp(log_p);

        z[v] = t < 0 ? 0
                     : (float)((g[0] * ((v == t) - p) - g[1] * p * (log_p + entropy)) /
                               temperature);
    }
}

static void take(const struct backend *be, float *to, float *device, long n, int zero)
{
    assert_int_equal(be->copy_out(to, device, (size_t)n * sizeof *to), 0);
    if (zero)
        assert_int_equal(be->fill_zero(device, (size_t)n * sizeof *to), 0);
}

static void near(const char *what, const float *got, const float *want, long n)
{
    double top = 0;

    for (long i = 0; i < n; i++)
        top = fmax(top, fabs((double)want[i]));
    for (long i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= 2e-5 * (top + fabs((double)want[i]))))
            fail_msg("%s: element %ld is %.8g, want %.8g", what, i, got[i], want[i]);
}

static void against_logits(const char *backend)
{
    static struct fixture f;
    static float z[N * V], out[N * LOGPROB_OUT], got[2][V * D + N * D + V];
    struct tensor *x, *y;
    struct err e;

    open_fixture(&f, backend);
    tape_reset(f.t, TAPE_TRAIN);
    x = input(&f, 0, N);
    y = tape_logprob(f.t, x, &f.w, &f.b, f.target, temperature);
    assert_non_null(y);
    take(f.be, out, y->data, N * LOGPROB_OUT, 0);
    tape_seed(f.t, y, f.seed);
    assert_int_equal(tape_backward(f.t, &e), 0);
    take(f.be, got[0], f.w.grad, V * D, 1);
    take(f.be, got[0] + V * D, x->grad, N * D, 0);
    take(f.be, got[0] + V * D + N * D, f.b.grad, V, 1);

    tape_reset(f.t, TAPE_TRAIN);
    x = input(&f, 0, N);
    y = tape_linear(f.t, x, &f.w, &f.b, ACT_NONE);
    take(f.be, z, y->data, N * V, 0);
    for (int n = 0; n < N; n++) {
        double want[2];

        expect_row(&f, n, z + n * V, want);
        for (int i = 0; i < 2; i++)
            assert_true(fabs(out[n * LOGPROB_OUT + i] - want[i]) <=
                        1e-5 * (1 + fabs(want[i])));
        assert_true(out[n * LOGPROB_OUT + 3] == (float)(f.target[n] >= 0));
    }
    tape_seed(f.t, y, z);
    assert_int_equal(tape_backward(f.t, &e), 0);
    take(f.be, got[1], f.w.grad, V * D, 1);
    take(f.be, got[1] + V * D, x->grad, N * D, 0);
    take(f.be, got[1] + V * D + N * D, f.b.grad, V, 1);
    near("dw", got[0], got[1], V * D);
    near("dx", got[0] + V * D, got[1] + V * D, N * D);
    near("db", got[0] + V * D + N * D, got[1] + V * D + N * D, V);
    close_fixture(&f);
}

static void test_against_whole_logits(void **state)
{
    (void)state;
    against_logits("ref");
    against_logits("cpu");
}

static void test_rows_do_not_depend_on_neighbours(void **state)
{
    static struct fixture f;
    static float all[N * LOGPROB_OUT];
    float one[LOGPROB_OUT];
    struct tensor *y;

    (void)state;
    open_fixture(&f, "cpu");
    tape_reset(f.t, TAPE_INFER);
    y = tape_logprob(f.t, input(&f, 0, N), &f.w, &f.b, f.target, temperature);
    take(f.be, all, y->data, N * LOGPROB_OUT, 0);
    for (int n = 0; n < N; n += 9) {
        tape_reset(f.t, TAPE_INFER);
        y = tape_logprob(f.t, input(&f, n, 1), &f.w, &f.b, f.target + n, temperature);
        take(f.be, one, y->data, LOGPROB_OUT, 0);
        assert_memory_equal(one, all + n * LOGPROB_OUT, sizeof one);
    }
    close_fixture(&f);
}

/* 16,384 rows of 131,072 logits would be 8 GiB; a fragment of them is planned. */
static void test_memory_is_bounded(void **state)
{
    enum { ROWS = 16384, WORDS = 131072 };
    struct param w = {.name = "w", .rows = WORDS, .cols = D, .trainable = 1};
    static int target[ROWS];
    static float unused;
    struct tensor *x, *y;
    struct tape *t;
    struct err e;
    size_t peak;

    (void)state;
    w.data = &unused; /* a plan touches nothing */
    w.grad = &unused;
    t = tape_new(backend_find("cpu"), &e);
    assert_non_null(t);
    tape_reset(t, TAPE_PLAN);
    x = tape_tensor(t, ROWS, D, 1);
    y = tape_logprob(t, x, &w, NULL, target, 1);
    tape_seed(t, y, NULL);
    assert_int_equal(tape_backward(t, &e), 0);
    peak = tape_peak(t);
    assert_true(peak > LOGPROB_FRAGMENT / 2);
    assert_true(peak < LOGPROB_FRAGMENT + (size_t)ROWS * (2 * D + 16) * sizeof(float));
    tape_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_whole_logits),
        cmocka_unit_test(test_rows_do_not_depend_on_neighbours),
        cmocka_unit_test(test_memory_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
