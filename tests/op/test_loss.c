/* Softmax cross-entropy with smoothing, focal weight and ignored rows; dropout decisions
 * against the rule of op.h; addition. */
#include "kernels/keep.h"
#include "tests/op/op_test.h"

struct shape {
    long N, V;
    float smoothing, focal, scale, spread;
};

static int *new_labels(long N, long V)
{
    int *label = mem_array((size_t)N, sizeof *label);

    for (long n = 0; n < N; n++)
        label[n] = n % 5 == 3 ? -100 : (int)(n * 7 % V);
    return label;
}

static void run(const struct backend *be, const void *shape, struct record *out)
{
    const struct shape *s = shape;
    float *z = new_normal(s->N * s->V, 1, s->spread), *loss = new_floats(s->N);
    float *dz = new_floats(s->N * s->V);
    int *label = new_labels(s->N, s->V);
    struct cross_entropy_args args = {z,    label, s->smoothing, s->focal, s->scale,
                                      loss, dz,    s->N,         s->V};

    assert_int_equal(be->cross_entropy(&args), 0);
    record_add(out, loss, s->N);
    record_add(out, dz, s->N * s->V);
    args.dlogits = NULL;
    assert_int_equal(be->cross_entropy(&args), 0);
    assert_same_bits("loss alone", loss, out->v, s->N);
    args.dlogits = z; /* in place */
    assert_int_equal(be->cross_entropy(&args), 0);
    assert_same_bits("in place", z, dz, s->N * s->V);
    for (long n = 3; n < s->N; n += 5)
        assert_true(loss[n] == 0 && dz[n * s->V] == 0);
    free_all(4, (void *)z, (void *)loss, (void *)dz, (void *)label);
}

static void test_against_reference(void **state)
{
    static const struct shape shapes[] = {
        {1, 1, 0, 0, 1, 1},      {16, 5, 0, 0, 0.25f, 2},   {16, 5, 0.1f, 0, 1, 2},
        {33, 17, 0, 2, 1, 2},    {64, 3000, 0, 0, 0.1f, 4}, {9, 1037, 0.2f, 0, 1, 1},
        {12, 40, 0, 0.5f, 1, 1}, {8, 6, 0, 0, 1, 60},       {7, 64, 0, 1, 3, 30},
    };

    (void)state;
    for (long i = 0; i < COUNT(shapes); i++)
        check_case("cross_entropy", run, &shapes[i], 1e-5);
}

static void forward(void *arg, struct record *y)
{
    struct cross_entropy_args a = *(struct cross_entropy_args *)arg;
    float total = 0;

    a.dlogits = NULL;
    assert_int_equal(backend_find("ref")->cross_entropy(&a), 0);
    for (long n = 0; n < a.N; n++)
        total += a.loss[n];
    record_add(y, &total, 1);
}

static void test_gradient_against_differences(void **state)
{
    static const float kind[][2] = {{0, 0}, {0.1f, 0}, {0, 2}, {0, 0.5f}};
    enum { N = 8, V = 11 };
    float *z = new_normal(N * V, 1, 1.5), *loss = new_floats(N), *dz = new_floats(N * V);
    float *w = new_weights(1);
    int *label = new_labels(N, V);

    (void)state;
    for (int i = 0; i < 8; i++) {
        struct cross_entropy_args args = {
            z, label, kind[i / 2][0], kind[i / 2][1], w[0], loss, dz, N, V};
        struct variable var = {z, dz, N * V};

        assert_int_equal(both_backends(i & 1)->cross_entropy(&args), 0);
        check_gradient("cross_entropy", &var, forward, &args, 4e-3);
    }
    free_all(5, (void *)z, (void *)loss, (void *)dz, (void *)w, (void *)label);
}

static void test_bad_labels_are_errors(void **state)
{
    float z[4] = {0}, loss[2];
    int label[2] = {0, 2};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct cross_entropy_args args = {z, label, 0, 0, 1, loss, NULL, 2, 2};

        assert_int_not_equal(both_backends(i)->cross_entropy(&args), 0);
        assert_non_null(strstr(both_backends(i)->error(), "label 2"));
        args.smoothing = 0.1f;
        args.focal = 1;
        assert_int_not_equal(both_backends(i)->cross_entropy(&args), 0);
    }
}

struct drop_shape {
    long N, D;
    float p;
};

static void run_dropout(const struct backend *be, const void *shape, struct record *out)
{
    const struct drop_shape *s = shape;
    int length[2] = {(int)s->N / 2, (int)(s->N - s->N / 2)};
    struct batch b = new_batch(length, 2);
    float *x = new_normal(s->N * s->D, 1, 1), *y = new_floats(s->N * s->D);
    struct dropout_args args = {
        x, y, s->N, s->D, {s->p, 11, rng_key(9, 8, 7, 6), b.example, b.position}};

    assert_int_equal(be->dropout(&args), 0);
    record_add(out, y, s->N * s->D);
    for (long r = 0; r < s->N; r++) {
        for (long c = 0; s->p > 0 && c < s->D; c++) {
            uint32_t counter[4] = {b.example[r], b.position[r], (uint32_t)(c / 4), 11},
                     w[4];
            float want = x[r * s->D + c];

            rng_philox(counter, args.dropout.key, w);
            want *= (double)w[c % 4] < s->p * 4294967296.0 ? 0.0f : 1.0f / (1.0f - s->p);
            assert_same_bits("dropout", &y[r * s->D + c], &want, 1);
        }
    }
    args.y = x; /* in place */
    assert_int_equal(be->dropout(&args), 0);
    assert_same_bits("dropout in place", x, y, s->N * s->D);
    free_batch(&b);
    free_all(2, (void *)x, (void *)y);
}

static void test_dropout_is_the_rule(void **state)
{
    static const struct drop_shape shapes[] = {
        {1, 1, 0.5f}, {5, 33, 0.1f}, {40, 100, 0}, {300, 515, 0.3f}, {3, 1030, 0.999f}};

    (void)state;
    for (long i = 0; i < COUNT(shapes); i++)
        check_case("dropout", run_dropout, &shapes[i], 0);
}

static void run_add(const struct backend *be, const void *shape, struct record *out)
{
    long n = *(const long *)shape;
    float *x = new_normal(n, 1, 1), *y = new_normal(n, 2, 1);
    struct add_args args = {x, y, n};

    assert_int_equal(be->add(&args), 0);
    record_add(out, y, n);
    free_all(2, (void *)x, (void *)y);
}

static void test_add(void **state)
{
    static const long sizes[] = {1, 31, 400001};

    (void)state;
    for (long i = 0; i < COUNT(sizes); i++)
        check_case("add", run_add, &sizes[i], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_gradient_against_differences),
        cmocka_unit_test(test_bad_labels_are_errors),
        cmocka_unit_test(test_dropout_is_the_rule),
        cmocka_unit_test(test_add),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
