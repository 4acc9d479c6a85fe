/* AdamW and the gradient norm: against the reference, rows that are skipped equal to rows
 * that are not, gradients zeroed. */
#include "tests/op/op_test.h"

enum { TENSORS = 4 };

struct shape {
    long n[TENSORS];
    long width; /* of tensor 0, which has row flags; 0: none */
    float decay;
};

struct tensors {
    struct adamw_tensor t[TENSORS];
    unsigned char *live;
};

static void make(const struct shape *s, struct tensors *x)
{
    memset(x, 0, sizeof *x);
    for (int i = 0; i < TENSORS; i++) {
        struct adamw_tensor *t = &x->t[i];
        uint64_t stream = (uint64_t)(10 * i);

        *t = (struct adamw_tensor){
            .n = s->n[i], .decay = i % 2 ? 0 : s->decay, .lr = 0.01f * (float)(i + 1)};
        t->p = new_normal(t->n, stream + 1, 1);
        t->grad = new_normal(t->n, stream + 2, 1);
        t->m = new_normal(t->n, stream + 3, 0.1);
        t->v = new_normal(t->n, stream + 4, 0.1);
        for (long j = 0; j < t->n; j++)
            t->v[j] = t->v[j] * t->v[j];
    }
    if (!s->width)
        return;
    long rows = s->n[0] / s->width;
    x->live = mem_array((size_t)rows, 1);
    for (long r = 0; r < rows; r++) {
        x->live[r] = r % 7 < 3;
        for (long c = 0; !x->live[r] && c < s->width; c++)
            x->t[0].grad[r * s->width + c] = x->t[0].m[r * s->width + c] =
                x->t[0].v[r * s->width + c] = 0;
    }
    x->t[0].width = s->width;
    x->t[0].live = x->live;
}

static void drop(struct tensors *x)
{
    for (int i = 0; i < TENSORS; i++)
        free_all(4, (void *)x->t[i].p, (void *)x->t[i].grad, (void *)x->t[i].m,
                 (void *)x->t[i].v);
    mem_free(x->live);
}

static void step(const struct backend *be, struct tensors *x, struct record *out)
{
    struct adamw_args args = {x->t, TENSORS, 0.9, 0.999, 1e-8, 3, 0.5f};
    double sum[TENSORS];
    struct grad_norm_args norm = {x->t, TENSORS, sum};
    float f[TENSORS];

    assert_int_equal(be->grad_norm(&norm), 0);
    assert_int_equal(be->adamw(&args), 0);
    for (int i = 0; i < TENSORS; i++) {
        f[i] = (float)sum[i];
        record_add(out, x->t[i].p, x->t[i].n);
        record_add(out, x->t[i].m, x->t[i].n);
        record_add(out, x->t[i].v, x->t[i].n);
        for (long j = 0; j < x->t[i].n; j++)
            assert_true(x->t[i].grad[j] == 0);
    }
    record_add(out, f, TENSORS);
}

static void run(const struct backend *be, const void *shape, struct record *out)
{
    struct tensors x;

    make(shape, &x);
    step(be, &x, out);
    drop(&x);
}

static const struct shape shapes[] = {
    {{1, 2, 3, 5}, 0, 0.01f},
    {{70 * 11, 33, 1, 1025}, 11, 0},
    {{70 * 11, 33, 1, 1025}, 11, 0.1f},
    {{300 * 384, 70001, 0, 40000}, 384, 0},
};

static void test_against_reference(void **state)
{
    (void)state;
    for (long i = 0; i < COUNT(shapes); i++)
        check_case("adamw", run, &shapes[i], 2e-6);
}

/* Skipping rows that never had a gradient changes no bit. */
static void test_skipped_rows_equal_dense(void **state)
{
    (void)state;
    for (long i = 1; i < COUNT(shapes); i++) {
        for (int which = 0; which < 2; which++) {
            struct tensors x, y;
            struct record sparse = {0}, dense = {0};

            make(&shapes[i], &x);
            make(&shapes[i], &y);
            y.t[0].live = NULL;
            step(both_backends(which), &x, &sparse);
            step(both_backends(which), &y, &dense);
            assert_same_bits("skipped rows", sparse.v, dense.v, dense.n - TENSORS);
            assert_close("norm", sparse.v + dense.n - TENSORS, dense.v + dense.n - TENSORS,
                         TENSORS, 1e-6);
            mem_free(sparse.v);
            mem_free(dense.v);
            drop(&x);
            drop(&y);
        }
    }
}

static void test_not_finite_gradients_show(void **state)
{
    float grad[20] = {0};
    struct adamw_tensor t = {.grad = grad, .n = 20};
    double sum;
    struct grad_norm_args args = {&t, 1, &sum};

    (void)state;
    for (int i = 0; i < 2; i++) {
        for (int at = 0; at < 20; at++) {
            grad[at] = NAN;
            assert_int_equal(both_backends(i)->grad_norm(&args), 0);
            assert_true(isnan(sum));
            grad[at] = -INFINITY;
            assert_int_equal(both_backends(i)->grad_norm(&args), 0);
            assert_true(isinf(sum));
            grad[at] = 0;
        }
    }
}

static void test_steps_count_from_one(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct adamw_args args = {NULL, 0, 0.9, 0.999, 1e-8, 0, 1};

        assert_int_not_equal(both_backends(i)->adamw(&args), 0);
        assert_non_null(strstr(both_backends(i)->error(), "from 1"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_skipped_rows_equal_dense),
        cmocka_unit_test(test_not_finite_gradients_show),
        cmocka_unit_test(test_steps_count_from_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
