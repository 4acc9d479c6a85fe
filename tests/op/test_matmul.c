/* Matrix products: against the reference, bits over threads, rows over M, packed weights,
 * and the gradient's two products against differences. */
#include "tests/op/op_test.h"

struct shape {
    long M, N, K, pad;
    int trans_a, trans_b, accumulate, bias, act, pre;
};

static struct matmul_args arguments(const struct shape *s, const float *a, const float *b,
                                    const float *bias, float *c, float *pre)
{
    return (struct matmul_args){
        .M = s->M,
        .N = s->N,
        .K = s->K,
        .a = a,
        .lda = (s->trans_a ? s->M : s->K) + s->pad,
        .trans_a = s->trans_a,
        .b = b,
        .ldb = (s->trans_b ? s->K : s->N) + s->pad,
        .trans_b = s->trans_b,
        .bias = s->bias ? bias : NULL,
        .act = (enum op_act)s->act,
        .pre = s->pre ? pre : NULL,
        .c = c,
        .ldc = s->N + s->pad,
        .accumulate = s->accumulate,
    };
}

static void run(const struct backend *be, const void *shape, struct record *out)
{
    const struct shape *s = shape;
    long na = (s->trans_a ? s->K : s->M) * ((s->trans_a ? s->M : s->K) + s->pad);
    long nb = (s->trans_b ? s->N : s->K) * ((s->trans_b ? s->K : s->N) + s->pad);
    long nc = s->M * (s->N + s->pad);
    float *a = new_normal(na, 1, 1 / sqrt((double)s->K)), *b = new_normal(nb, 2, 1),
          *c = new_normal(nc, 3, 1);
    float *bias = new_normal(s->N, 4, 1), *pre = new_floats(nc);
    struct matmul_args args = arguments(s, a, b, bias, c, pre);

    assert_int_equal(be->matmul(&args), 0);
    record_add(out, c, nc);
    if (s->pre)
        record_add(out, pre, nc);
    free_all(5, (void *)a, (void *)b, (void *)c, (void *)bias, (void *)pre);
}

static void test_against_reference(void **state)
{
    static const long size[][3] = {{1, 1, 1},       {1, 5, 3},     {14, 32, 8},
                                   {15, 33, 9},     {7, 97, 131},  {53, 31, 17},
                                   {29, 384, 40},   {2, 64, 1030}, {61, 40, 513},
                                   {203, 211, 390}, {33, 3, 1537}};

    (void)state;
    for (long i = 0; i < COUNT(size); i++) {
        for (int form = 0; form < 16; form++) {
            struct shape s = {size[i][0], size[i][1],    size[i][2],   form & 8 ? 3 : 0,
                              form & 1,   form >> 1 & 1, form >> 2 & 1};

            if (!s.accumulate) {
                s.bias = form & 1 || form & 8;
                s.act = (int)(i + form) % 6;
                s.pre = form >> 1 & 1;
            }
            check_case("matmul", run, &s, 2e-5);
        }
    }
}

/* Strides that fall on the same cache sets take another path. */
static void test_aliasing_strides(void **state)
{
    struct shape s = {45, 70, 1024, 0, 0, 1, 0, 1, ACT_GELU_ERF, 1};
    struct shape t = {1024, 70, 45, 0, 1, 0, 1};

    (void)state;
    check_case("matmul", run, &s, 2e-5);
    check_case("matmul", run, &t, 2e-5);
}

/* A row alone, within a few and within many: the same bits. */
static void test_rows_do_not_depend_on_m(void **state)
{
    const struct backend *be = backend_find("cpu");
    static const long many[] = {1, 2, 13, 14, 15, 40, 111};
    enum { M = 111, N = 75, K = 700 };
    float *a = new_normal(M * K, 1, 1), *b = new_normal(N * K, 2, 1);
    float *want = new_floats(M * N), *c = new_floats(M * N);
    struct matmul_args args = {M, N,    K,        a,    K,    0, b, K,
                               1, NULL, ACT_NONE, NULL, want, N, 0, NULL};

    (void)state;
    assert_int_equal(be->matmul(&args), 0);
    args.c = c;
    for (long i = 0; i < COUNT(many); i++) {
        for (long m = 0; m + many[i] <= M; m += many[i]) {
            args.M = many[i];
            args.a = a + m * K;
            assert_int_equal(be->matmul(&args), 0);
            assert_same_bits("rows", c, want + m * N, many[i] * N);
        }
    }
    free_all(4, (void *)a, (void *)b, (void *)want, (void *)c);
}

/* First use, second use (kept panels) and after a change of the weight: equal to plain. */
static void test_packed_weight(void **state)
{
    const struct backend *be = backend_find("cpu");
    enum { M = 37, N = 83, K = 450 };
    float *a = new_normal(M * K, 1, 1), *b = new_normal(N * K, 2, 1);
    float *want = new_floats(M * N), *c = new_floats(M * N);
    struct op_pack pack = {.version = 1};
    struct matmul_args args = {M, N,    K,        a,    K, 0, b, K,
                               1, NULL, ACT_NONE, NULL, c, N, 0, &pack};
    struct matmul_args plain = args;

    (void)state;
    plain.pack = NULL;
    plain.c = want;
    for (int form = 0; form < 2; form++) {
        for (int use = 0; use < 8; use++) {
            if (use % 4 == 3) {
                b[5] += 1;
                pack.version++;
            }
            args.trans_b = plain.trans_b = !form;
            args.ldb = plain.ldb = form ? N : K;
            assert_int_equal(be->matmul(&plain), 0);
            assert_int_equal(be->matmul(&args), 0);
            assert_same_bits("packed", c, want, M * N);
        }
        be->pack_free(&pack);
        assert_null(pack.data);
        pack.version++;
    }
    free_all(4, (void *)a, (void *)b, (void *)want, (void *)c);
}

static void test_contradiction_is_an_error(void **state)
{
    float one[1] = {1};

    (void)state;
    for (int i = 0; i < 2; i++) {
        const struct backend *be = both_backends(i);
        struct matmul_args args = {.M = 1,
                                   .N = 1,
                                   .K = 1,
                                   .a = one,
                                   .lda = 1,
                                   .b = one,
                                   .ldb = 1,
                                   .bias = one,
                                   .c = one,
                                   .ldc = 1,
                                   .accumulate = 1};

        assert_int_not_equal(be->matmul(&args), 0);
        assert_non_null(strstr(be->error(), "accumulate"));
    }
}

static void test_nan_and_infinity_pass(void **state)
{
    const struct backend *be = backend_find("cpu");
    float a[2] = {NAN, 1}, b[4] = {1, 1, INFINITY, 1}, c[2];
    struct matmul_args args = {
        .M = 1, .N = 2, .K = 2, .a = a, .lda = 2, .b = b, .ldb = 2, .c = c, .ldc = 2};

    (void)state;
    assert_int_equal(be->matmul(&args), 0);
    assert_true(isnan(c[0]) && isnan(c[1]));
    a[0] = 1;
    assert_int_equal(be->matmul(&args), 0);
    assert_true(isinf(c[0]) && c[1] == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_aliasing_strides),
        cmocka_unit_test(test_rows_do_not_depend_on_m),
        cmocka_unit_test(test_packed_weight),
        cmocka_unit_test(test_contradiction_is_an_error),
        cmocka_unit_test(test_nan_and_infinity_pass),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
