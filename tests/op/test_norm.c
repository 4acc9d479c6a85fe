/* Norms with residual and dropout: values, gradients against differences, rows that do not
 * depend on their neighbours, outputs that may lie in the inputs. */
#include "tests/op/op_test.h"

struct shape {
    int kind;
    long N, D;
    int residual;
    float p;
};

static struct op_dropout drop(const struct batch *b, float p)
{
    return (struct op_dropout){p, 5, rng_key(3, 1, 4, 0), b->example, b->position};
}

static void run(const struct backend *be, const void *shape, struct record *out)
{
    const struct shape *s = shape;
    int length = (int)s->N, rms = s->kind == NORM_RMS;
    struct batch b = new_batch(&length, 1);
    long n = s->N * s->D;
    float *x = new_normal(n, 1, 2), *residual = new_normal(n, 2, 1);
    float *w = new_normal(s->D, 3, 1), *bias = new_normal(s->D, 4, 1);
    float *sum = new_floats(n), *y = new_floats(n), *stat = new_floats(2 * s->N);
    float *dy = new_normal(n, 5, 1), *dsum = new_normal(n, 6, 1);
    float *dx = new_floats(n), *dres = new_floats(n), *dw = new_normal(2 * s->D, 7, 1);
    struct norm_args args = {(enum op_norm)s->kind,
                             s->N,
                             s->D,
                             x,
                             s->residual ? residual : NULL,
                             w,
                             rms ? NULL : bias,
                             1e-5f,
                             drop(&b, s->p),
                             sum,
                             y,
                             stat,
                             stat + s->N};
    struct norm_backward_args back = {(enum op_norm)s->kind,
                                      s->N,
                                      s->D,
                                      dy,
                                      s->residual ? dsum : NULL,
                                      sum,
                                      w,
                                      stat,
                                      stat + s->N,
                                      drop(&b, s->p),
                                      dx,
                                      dres,
                                      dw,
                                      rms ? NULL : dw + s->D};

    assert_int_equal(be->norm(&args), 0);
    assert_int_equal(be->norm_backward(&back), 0);
    record_add(out, sum, n);
    record_add(out, y, n);
    record_add(out, stat + (rms ? s->N : 0), (rms ? 1 : 2) * s->N);
    record_add(out, dx, n);
    record_add(out, dres, n);
    record_add(out, dw, 2 * s->D);
    args.sum = s->residual ? residual : x; /* in place */
    assert_int_equal(be->norm(&args), 0);
    assert_same_bits("sum in place", args.sum, sum, n);
    back.dx = dy;
    back.dw = back.db = NULL;
    assert_int_equal(be->norm_backward(&back), 0);
    assert_same_bits("dx in place", dy, dx, n);
    free_batch(&b);
    free_all(12, (void *)x, (void *)residual, (void *)w, (void *)bias, (void *)sum,
             (void *)y, (void *)stat, (void *)dy, (void *)dsum, (void *)dx, (void *)dres,
             (void *)dw);
}

static void test_against_reference(void **state)
{
    static const long size[][2] = {{1, 1},     {3, 7},     {37, 65},
                                   {130, 384}, {700, 257}, {5, 1030}};

    (void)state;
    for (long i = 0; i < COUNT(size); i++) {
        for (int form = 0; form < 8; form++) {
            struct shape s = {form & 1 ? NORM_RMS : NORM_LAYER, size[i][0], size[i][1],
                              form >> 1 & 1, form & 4 ? 0.3f : 0.0f};

            check_case("norm", run, &s, 5e-5);
        }
    }
}

struct forward {
    struct norm_args args;
};

static void forward_norm(void *arg, struct record *y)
{
    struct forward *f = arg;

    assert_int_equal(backend_find("ref")->norm(&f->args), 0);
    record_add(y, f->args.y, f->args.N * f->args.D);
}

static void test_gradients_against_differences(void **state)
{
    enum { N = 6, D = 37 };
    int length = N;
    struct batch b = new_batch(&length, 1);
    float *x = new_normal(N * D, 1, 1), *residual = new_normal(N * D, 2, 1);
    float *w = new_normal(D, 3, 1), *bias = new_normal(D, 4, 1);
    float *sum = new_floats(N * D), *y = new_floats(N * D), *stat = new_floats(2 * N);
    float *weights = new_weights(N * D), *dx = new_floats(N * D), *dres = new_floats(N * D);
    float *dw = new_floats(2 * D);

    (void)state;
    for (int form = 0; form < 8; form++) {
        const struct backend *be = both_backends(form & 1);
        enum op_norm kind = form & 2 ? NORM_RMS : NORM_LAYER;
        struct forward f = {{kind, N, D, x, residual, w, form & 2 ? NULL : bias, 1e-5f,
                             drop(&b, form & 4 ? 0.25f : 0), sum, y, stat, stat + N}};
        struct norm_backward_args back = {kind, N,    D,    weights,  NULL,
                                          sum,  w,    stat, stat + N, f.args.dropout,
                                          dx,   dres, dw,   dw + D};
        struct variable var[] = {{x, dx, N * D},
                                 {residual, dres, N * D},
                                 {w, dw, D},
                                 {bias, dw + D, form & 2 ? 0 : D}};

        memset(dw, 0, 2 * D * sizeof *dw);
        assert_int_equal(be->norm(&f.args), 0);
        assert_int_equal(be->norm_backward(&back), 0);
        for (long i = 0; i < COUNT(var); i++)
            check_gradient("norm", &var[i], forward_norm, &f, 4e-3);
    }
    free_batch(&b);
    free_all(11, (void *)x, (void *)residual, (void *)w, (void *)bias, (void *)sum,
             (void *)y, (void *)stat, (void *)weights, (void *)dx, (void *)dres,
             (void *)dw);
}

static void test_rows_stand_alone(void **state)
{
    const struct backend *be = tested_backend();
    enum { N = 70, D = 100 };
    float *x = new_normal(N * D, 1, 1), *w = new_normal(D, 3, 1), *b = new_normal(D, 4, 1);
    float *y = new_floats(N * D), *one = new_floats(D), *stat = new_floats(2 * N);
    struct norm_args args = {NORM_LAYER, N,   D,    x, NULL, w,       b,
                             1e-12f,     {0}, NULL, y, stat, stat + N};

    (void)state;
    assert_int_equal(be->norm(&args), 0);
    args.N = 1;
    args.y = one;
    for (int r = 0; r < N; r++) {
        args.x = x + r * D;
        assert_int_equal(be->norm(&args), 0);
        assert_same_bits("norm row", one, y + r * D, D);
    }
    args.residual = x;
    assert_int_not_equal(be->norm(&args), 0); /* no room for the sum */
    free_all(6, (void *)x, (void *)w, (void *)b, (void *)y, (void *)one, (void *)stat);
}

/* ---- heads --------------------------------------------------------------------------- */

struct head_shape {
    long T;
    int heads, d, more; /* more: columns that stay as they are */
};

static void run_heads(const struct backend *be, const void *shape, struct record *out)
{
    const struct head_shape *s = shape;
    long ld = (long)s->heads * s->d + s->more, n = s->T * ld, rows = s->T * s->heads;
    float *x = new_normal(n, 1, 2), *dx = new_normal(n, 2, 1), *w = new_normal(s->d, 3, 1);
    float *saved = new_floats(rows * s->d), *rstd = new_floats(rows);
    float *dw = new_normal(s->d, 4, 1);
    struct head_norm_args args = {x, ld, s->T, s->heads, s->d, w, 1e-6f, saved, rstd};
    struct head_norm_backward_args back = {dx, ld,    s->T, s->heads, s->d,
                                           w,  saved, rstd, dw};

    assert_int_equal(be->head_norm(&args), 0);
    assert_int_equal(be->head_norm_backward(&back), 0);
    record_add(out, x, n);
    record_add(out, saved, rows * s->d);
    record_add(out, rstd, rows);
    record_add(out, dx, n);
    record_add(out, dw, s->d);
    free_all(6, (void *)x, (void *)dx, (void *)w, (void *)saved, (void *)rstd, (void *)dw);
}

static void test_heads_against_reference(void **state)
{
    static const struct head_shape shapes[] = {
        {1, 1, 1, 0},     {5, 3, 12, 7},  {70, 4, 12, 24}, {33, 40, 16, 5},
        {90, 2, 128, 64}, {9, 3, 200, 0}, {7, 2, 255, 1}};

    (void)state;
    for (long i = 0; i < COUNT(shapes); i++)
        check_case("head_norm", run_heads, &shapes[i], 5e-5);
}

struct head_forward {
    struct head_norm_args args;
    const float *x; /* what args.x is filled from */
};

static void forward_heads(void *arg, struct record *y)
{
    struct head_forward *f = arg;
    long n = f->args.T * f->args.ld;

    memcpy(f->args.x, f->x, (size_t)n * sizeof *f->x);
    assert_int_equal(backend_find("ref")->head_norm(&f->args), 0);
    record_add(y, f->args.x, n);
}

static void test_gradients_of_heads(void **state)
{
    enum { T = 5, HEADS = 3, SIZE = 12, LD = HEADS * SIZE + 4 };
    float *x = new_normal(T * LD, 1, 1), *w = new_normal(SIZE, 2, 1);
    float *y = new_floats(T * LD), *saved = new_floats(T * HEADS * SIZE);
    float *rstd = new_floats(T * HEADS), *dw = new_floats(SIZE);
    struct head_forward f = {{y, LD, T, HEADS, SIZE, w, 1e-6f, saved, rstd}, x};

    (void)state;
    for (int i = 0; i < 2; i++) {
        float *dx = new_weights(T * LD);
        struct head_norm_backward_args back = {dx, LD, T, HEADS, SIZE, w, saved, rstd, dw};
        struct variable var[] = {{x, dx, T * LD}, {w, dw, SIZE}};
        struct record out = {0};

        memset(dw, 0, SIZE * sizeof *dw);
        forward_heads(&f, &out);
        assert_int_equal(both_backends(i)->head_norm_backward(&back), 0);
        for (long v = 0; v < COUNT(var); v++)
            check_gradient("head_norm", &var[v], forward_heads, &f, 4e-3);
        free_all(2, (void *)out.v, (void *)dx);
    }
    free_all(6, (void *)x, (void *)w, (void *)y, (void *)saved, (void *)rstd, (void *)dw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_gradients_against_differences),
        cmocka_unit_test(test_rows_stand_alone),
        cmocka_unit_test(test_heads_against_reference),
        cmocka_unit_test(test_gradients_of_heads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
