/* Matrix products in f32, bf16 and f16: against the reference, bits over threads, rows over
 * M, packed weights. In the two-byte types the reference rounds the operands and is exact
 * from there, so all meet the same tolerance. TF32 is no more than its bits away. */
#include "tests/op/op_test.h"

struct shape {
    long M, N, K, pad;
    int trans_a, trans_b, accumulate, bias, act, pre;
    enum op_precision precision;
};

enum { PRECISIONS = 3 }; /* and TF32, which the reference takes for f32 */

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
        .precision = s->precision,
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
                                   {48, 384, 40},   {2, 64, 1030}, {61, 40, 513},
                                   {203, 211, 390}, {33, 3, 1537}};

    (void)state;
    for (long i = 0; i < COUNT(size); i++) {
        for (int form = 0; form < (i % 2 ? 16 : 24) + 8 * (i % 3); form++) {
            struct shape s = {size[i][0], size[i][1],    size[i][2],   form & 8 ? 3 : 0,
                              form & 1,   form >> 1 & 1, form >> 2 & 1};

            s.precision = (enum op_precision)(form >> 4);
            s.pad += s.precision != PRECISION_F32 && form & 1;

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
    for (int i = 0; i <= PRECISION_BF16; i++) { /* f16 goes the same way */
        s.precision = t.precision = (enum op_precision)i;
        check_case("matmul", run, &s, 2e-5);
        check_case("matmul", run, &t, 2e-5);
    }
}

/* A row alone, within a few and within many: the same bits. */
static void check_rows(enum op_precision precision, int trans_a)
{
    const struct backend *be = tested_backend();
    static const long many[] = {1, 2, 13, 14, 15, 40, 111};
    enum { M = 111, N = 75, K = 700 };
    float *a = new_normal(M * K, 1, 1), *b = new_normal(N * K, 2, 1);
    float *want = new_floats(M * N), *c = new_floats(M * N);
    struct matmul_args args = {M,    N, K, a,    trans_a ? M : K, trans_a,
                               b,    K, 1, NULL, ACT_NONE,        NULL,
                               want, N, 0, NULL, precision};

    assert_int_equal(be->matmul(&args), 0);
    args.c = c;
    for (long i = 0; i < COUNT(many); i++) {
        for (long m = 0; m + many[i] <= M; m += many[i]) {
            args.M = many[i];
            args.a = a + (trans_a ? m : m * K);
            assert_int_equal(be->matmul(&args), 0);
            assert_same_bits("rows", c, want + m * N, many[i] * N);
        }
    }
    free_all(4, (void *)a, (void *)b, (void *)want, (void *)c);
}

static void test_rows_do_not_depend_on_m(void **state)
{
    (void)state;
    for (int form = 0; form < 2 * PRECISIONS; form++)
        check_rows((enum op_precision)(form >> 1), form & 1);
}

/* First use, second use (kept panels) and after a change of the weight: equal to plain. */
static void check_packed(enum op_precision precision)
{
    const struct backend *be = tested_backend();
    enum { M = 37, N = 83, K = 450 };
    float *a = new_normal(M * K, 1, 1), *b = new_normal(N * K, 2, 1);
    float *want = new_floats(M * N), *c = new_floats(M * N);
    struct op_pack pack = {.version = 1};
    struct matmul_args args = {M,    N,        K,    a, K, 0, b,     K,        1,
                               NULL, ACT_NONE, NULL, c, N, 0, &pack, precision};
    struct matmul_args plain = args;

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

static void test_packed_weight(void **state)
{
    (void)state;
    check_packed(PRECISION_F32);
    check_packed(PRECISION_BF16);
    check_packed(PRECISION_F16);
}

/* To nearest, ties to even; nothing else is lost: bias, sums and c are f32. */
static void test_bf16_rounds_operands(void **state)
{
    static const float in[] = {1 + 0x1p-8f,   1 + 3 * 0x1p-8f, 1 + 0x1p-7f, -1 - 0x1.1p-8f,
                               0x1.fffffep9f, 3e-30f,          1e30f,       0x1.01p-100f};
    static const float want[] = {1,       1 + 0x1p-6f, 1 + 0x1p-7f, -1 - 0x1p-7f,
                                 0x1p10f, 0x1.e6p-99f, 0x1.94p99f,  0x1p-100f};

    (void)state;
    for (int i = 0; i < 2; i++) {
        const struct backend *be = both_backends(i);

        for (long k = 0; k < COUNT(in); k++) {
            float b = 0x1p60f, bias = 0x1.000002p0f, c[2];
            struct matmul_args args = {.M = 1,
                                       .N = 1,
                                       .K = 1,
                                       .a = &in[k],
                                       .lda = 1,
                                       .b = &b,
                                       .ldb = 1,
                                       .c = c,
                                       .ldc = 1,
                                       .precision = PRECISION_BF16};

            assert_int_equal(be->matmul(&args), 0);
            assert_true(c[0] == want[k] * b);
            args.a = &b;
            args.b = &in[k];
            assert_int_equal(be->matmul(&args), 0);
            assert_true(c[0] == want[k] * b);
            b = 0;
            args.bias = &bias;
            assert_int_equal(be->matmul(&args), 0);
            assert_true(c[0] == bias);
        }
    }
}

/* The same; what f16 has no number for is infinity, small numbers are multiples of 2^-24.
 */
static void test_f16_rounds_operands(void **state)
{
    static const float in[] = {1 + 0x1p-11f, 1 + 3 * 0x1p-11f, 1 + 0x1p-10f, -65519, 65520,
                               0x1p-25f,     0x1.8p-24f,       -0x1.8p-16f,  1e30f,  2051};
    static const float want[] = {1, 1 + 0x1p-9f, 1 + 0x1p-10f, -65504,   INFINITY,
                                 0, 0x1p-23f,    -0x1.8p-16f,  INFINITY, 2052};

    (void)state;
    for (int i = 0; i < 2; i++) {
        const struct backend *be = both_backends(i);

        for (long k = 0; k < COUNT(in); k++) {
            float b = 0x1p-12f, bias = 0x1.000002p0f, c[2];
            struct matmul_args args = {.M = 1,
                                       .N = 1,
                                       .K = 1,
                                       .a = &in[k],
                                       .lda = 1,
                                       .b = &b,
                                       .ldb = 1,
                                       .c = c,
                                       .ldc = 1,
                                       .precision = PRECISION_F16};

            assert_int_equal(be->matmul(&args), 0);
            assert_true(c[0] == want[k] * b);
            args.a = &b;
            args.b = &in[k];
            assert_int_equal(be->matmul(&args), 0);
            assert_true(c[0] == want[k] * b);
            if (isinf(want[k]))
                continue;
            b = 0;
            args.bias = &bias;
            assert_int_equal(be->matmul(&args), 0);
            assert_true(c[0] == bias);
        }
    }
}

/* f32 on the host; on a GPU off by what the operands lose. */
static void test_tf32(void **state)
{
    const struct backend *be = tested_backend();
    enum { M = 33, N = 70, K = 300 };
    float *a = new_normal(M * K, 1, 1), *b = new_normal(N * K, 2, 1);
    float *f32 = new_floats(M * N), *c = new_floats(M * N);
    struct matmul_args args = {
        .M = M, .N = N, .K = K, .a = a, .lda = K, .b = b, .ldb = K, .trans_b = 1, .ldc = N};

    (void)state;
    args.c = f32;
    assert_int_equal(be->matmul(&args), 0);
    args.c = c;
    args.precision = PRECISION_TF32;
    assert_int_equal(be->matmul(&args), 0);
    if (is_host())
        assert_same_bits("tf32", c, f32, M * N);
    for (long i = 0; i < M * N; i++)
        assert_true(fabsf(c[i] - f32[i]) < 0x1p-11f * 4 * sqrtf(K));
    free_all(4, (void *)a, (void *)b, (void *)f32, (void *)c);
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
    const struct backend *be = tested_backend();
    float a[2] = {NAN, 1}, b[4] = {1, 1, INFINITY, 1}, c[2];
    struct matmul_args args = {
        .M = 1, .N = 2, .K = 2, .a = a, .lda = 2, .b = b, .ldb = 2, .c = c, .ldc = 2};

    (void)state;
    for (int i = 0; i < PRECISIONS; i++) {
        args.precision = (enum op_precision)i;
        a[0] = NAN;
        assert_int_equal(be->matmul(&args), 0);
        assert_true(isnan(c[0]) && isnan(c[1]));
        a[0] = 1;
        assert_int_equal(be->matmul(&args), 0);
        assert_true(isinf(c[0]) && c[1] == 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_aliasing_strides),
        cmocka_unit_test(test_rows_do_not_depend_on_m),
        cmocka_unit_test(test_packed_weight),
        cmocka_unit_test(test_bf16_rounds_operands),
        cmocka_unit_test(test_f16_rounds_operands),
        cmocka_unit_test(test_tf32),
        cmocka_unit_test(test_contradiction_is_an_error),
        cmocka_unit_test(test_nan_and_infinity_pass),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
