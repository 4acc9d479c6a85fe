/* Attention over packed sequences: against the reference, gradients against differences,
 * and a sequence's bits alone and among others. */
#include "tests/op/op_test.h"

struct shape {
    int length[5];
    int B, H, K, d, causal, window;
    float p;
    enum op_precision precision;
};

struct case_data {
    struct batch b;
    float *qkv, *o, *lse, *dout, *dqkv;
    long ld, ldo;
    struct attention_args args;
    struct attention_backward_args back;
};

/* To 8 bits: nothing is lost where operands are rounded, only probabilities and their
 * gradients are. */
static void shorten(float *x, long n)
{
    for (long i = 0; i < n; i++)
        x[i] = ldexpf(rintf(x[i] * 32), -5);
}

/* q, k and v are column blocks of one matrix, as the model has them; o has padding. */
static void make_case(const struct shape *s, struct case_data *c)
{
    struct op_dropout drop;

    c->b = new_batch(s->length, s->B);
    drop = (struct op_dropout){s->p, 3, rng_key(1, 2, 3, 0), c->b.example, c->b.position};
    c->ld = (long)(s->H + 2 * s->K) * s->d;
    c->ldo = (long)s->H * s->d + 2;
    c->qkv = new_normal(c->b.T * c->ld, 1, 1);
    c->o = new_floats(c->b.T * c->ldo);
    c->lse = new_floats(c->b.T * s->H);
    c->dout = new_weights(c->b.T * c->ldo);
    c->dqkv = new_floats(c->b.T * c->ld);
    float *k = c->qkv + s->H * s->d, *v = k + s->K * s->d;
    float *dk = c->dqkv + s->H * s->d, *dv = dk + s->K * s->d;
    float scale = 1.0f / sqrtf((float)s->d);
    c->args = (struct attention_args){c->qkv,    k,         v,     c->ld,  c->ld,
                                      c->ld,     c->ldo,    c->o,  c->lse, c->b.cu_seqlens,
                                      s->B,      c->b.T,    s->H,  s->K,   s->d,
                                      s->causal, s->window, scale, drop,   s->precision};
    c->back = (struct attention_backward_args){
        c->qkv, k,      v,           c->o,    c->dout, c->lse,    c->ld,
        c->ld,  c->ld,  c->ldo,      c->dqkv, dk,      dv,        c->b.cu_seqlens,
        s->B,   c->b.T, s->H,        s->K,    s->d,    s->causal, s->window,
        scale,  drop,   s->precision};
    if (s->precision != PRECISION_F32) {
        shorten(c->qkv, c->b.T * c->ld);
        shorten(c->dout, c->b.T * c->ldo);
    }
}

static void free_case(struct case_data *c)
{
    free_batch(&c->b);
    free_all(5, (void *)c->qkv, (void *)c->o, (void *)c->lse, (void *)c->dout,
             (void *)c->dqkv);
}

static void run(const struct backend *be, const void *shape, struct record *out)
{
    struct case_data c;

    make_case(shape, &c);
    assert_int_equal(be->attention(&c.args), 0);
    assert_int_equal(be->attention_backward(&c.back), 0);
    record_add(out, c.o, c.b.T * c.ldo);
    record_add(out, c.lse, c.b.T * c.args.H);
    record_add(out, c.dqkv, c.b.T * c.ld);
    free_case(&c);
}

static const struct shape shapes[] = {
    {{1}, 1, 1, 1, 1, 0, 0, 0},
    {{5, 1, 17}, 3, 2, 2, 32, 0, 0, 0},
    {{25, 31, 40, 12}, 4, 3, 3, 32, 0, 0, 0.1f},
    {{60, 200, 3}, 3, 2, 1, 64, 1, 0, 0},
    {{129, 57, 300}, 3, 4, 2, 20, 1, 40, 0.2f},
    {{140, 9}, 2, 6, 2, 33, 0, 25, 0},
    {{513}, 1, 2, 1, 48, 1, 0, 0},
    {{30, 61}, 2, 2, 2, 100, 0, 0, 0},
    {{70, 33, 5}, 3, 4, 2, 128, 0, 30, 0.1f},
    {{17, 50}, 2, 2, 1, 256, 1, 0, 0.1f},
    {{64, 80, 50, 70, 60}, 5, 12, 12, 32, 0, 0, 0},
};

static void test_against_reference(void **state)
{
    (void)state;
    for (long i = 0; i < COUNT(shapes); i++)
        check_case("attention", run, &shapes[i], 2e-5);
}

/* Two bytes an element: tiles of 64, 128 queries and 16, 32, 64 keys, and one more or less;
 * one or several a sequence; every head size, and some between. */
static const struct shape short_shapes[] = {
    {{1}, 1, 1, 1, 1, 0, 0, 0},
    {{5, 1, 17}, 3, 2, 2, 32, 0, 0, 0},
    {{127, 1, 129, 63, 65}, 5, 2, 2, 32, 0, 0, 0.1f},
    {{60, 200, 3}, 3, 2, 1, 64, 1, 0, 0},
    {{129, 57, 300}, 3, 4, 2, 20, 1, 40, 0.2f},
    {{140, 9}, 2, 6, 2, 37, 0, 25, 0},
    {{260}, 1, 3, 1, 64, 1, 70, 0.3f},
    {{30, 61}, 2, 2, 2, 100, 0, 0, 0},
    {{64, 96}, 2, 4, 1, 64, 0, 0, 0},
    {{70, 133, 5}, 3, 4, 2, 128, 0, 30, 0.1f},
    {{193, 31}, 2, 2, 1, 128, 1, 0, 0},
    {{17, 50}, 2, 2, 1, 256, 1, 0, 0.1f},
    {{66, 15}, 2, 1, 1, 129, 0, 20, 0},
};

static void assert_rows_close(const char *what, const float *got, const float *want,
                              long rows, long from, long cols, long ld, double rtol)
{
    char name[64];

    for (long r = 0; r < rows; r++) {
        snprintf(name, sizeof name, "%s, row %ld", what, r);
        assert_close(name, got + r * ld + from, want + r * ld + from, cols, rtol);
    }
}

static void check_short(const struct shape *s, double rtol)
{
    const struct backend *be = tested_backend();
    struct record want = {0}, got = {0}, again = {0};
    struct case_data c;
    long o, lse;

    make_case(s, &c);
    o = c.b.T * c.ldo;
    lse = c.b.T * s->H;
    run(backend_find("ref"), s, &want);
    run(be, s, &got);
    run(be, s, &again);
    assert_same_bits("again", again.v, got.v, got.n);
    assert_close("lse", got.v + o, want.v + o, lse, 2e-6);
    assert_rows_close("o", got.v, want.v, c.b.T, 0, (long)s->H * s->d, c.ldo, rtol);
    assert_close("dq, dk, dv", got.v + o + lse, want.v + o + lse, c.b.T * c.ld, rtol);
    free_all(3, (void *)want.v, (void *)got.v, (void *)again.v);
    free_case(&c);
}

static void test_two_bytes(void **state)
{
    (void)state;
    for (long i = 0; i < COUNT(short_shapes); i++) {
        struct shape s = short_shapes[i];

        s.precision = PRECISION_BF16;
        check_short(&s, 1e-2);
        s.precision = PRECISION_F16;
        check_short(&s, 2e-3);
    }
}

static void forward(void *arg, struct record *y)
{
    struct case_data *c = arg;

    assert_int_equal(backend_find("ref")->attention(&c->args), 0);
    record_add(y, c->o, c->b.T * c->ldo);
}

static void test_gradients_against_differences(void **state)
{
    static const struct shape small[] = {
        {{7, 3, 11}, 3, 2, 2, 8, 0, 0, 0},
        {{7, 3, 11}, 3, 4, 2, 8, 1, 0, 0},
        {{9, 14}, 2, 2, 1, 16, 1, 4, 0.25f},
        {{20}, 1, 2, 2, 5, 0, 0, 0.5f},
    };

    (void)state;
    for (long i = 0; i < COUNT(small); i++) {
        for (int which = 0; which < 2; which++) {
            struct case_data c;

            make_case(&small[i], &c);
            struct variable var = {c.qkv, c.dqkv, c.b.T * c.ld};
            assert_int_equal(backend_find("ref")->attention(&c.args), 0);
            assert_int_equal(both_backends(which)->attention_backward(&c.back), 0);
            check_gradient("attention", &var, forward, &c, 4e-3);
            free_case(&c);
        }
    }
}

/* The same sequence alone: its rows and its gradients have the same bits. */
static void check_alone(const struct shape *shape, long count, enum op_precision precision)
{
    const struct backend *be = tested_backend();

    for (long i = 0; i < count; i++) {
        struct shape one = shape[i], *s = &one;
        struct case_data c;

        one.precision = precision;
        make_case(s, &c);
        struct record all = {0};
        run(be, s, &all);
        for (int b = 0; b < s->B; b++) {
            long t = c.b.cu_seqlens[b], n = s->length[b];
            int bounds[2] = {0, (int)n};
            float *lse = c.lse;

            c.args.q = c.back.q = c.qkv + t * c.ld;
            c.args.k = c.back.k = c.args.q + s->H * s->d;
            c.args.v = c.back.v = c.args.k + s->K * s->d;
            c.back.dout = c.dout + t * c.ldo;
            c.args.cu_seqlens = c.back.cu_seqlens = bounds;
            c.args.B = c.back.B = 1;
            c.args.T = c.back.T = n;
            c.args.dropout.example = c.back.dropout.example = c.b.example + t;
            c.args.dropout.position = c.back.dropout.position = c.b.position + t;
            assert_int_equal(be->attention(&c.args), 0);
            assert_int_equal(be->attention_backward(&c.back), 0);
            assert_same_bits("lse alone", lse, all.v + c.b.T * c.ldo + t * s->H, n * s->H);
            assert_same_bits("o alone", c.o, all.v + t * c.ldo, n * c.ldo);
            assert_same_bits("gradient alone", c.dqkv,
                             all.v + c.b.T * (c.ldo + s->H) + t * c.ld, n * c.ld);
        }
        mem_free(all.v);
        free_case(&c);
    }
}

static void test_sequences_stand_alone(void **state)
{
    (void)state;
    check_alone(shapes, COUNT(shapes), PRECISION_F32);
    check_alone(short_shapes + 1, 3, PRECISION_BF16);
    check_alone(short_shapes + 1, 3, PRECISION_F16);
}

/* Scores of hundreds: neither overflow nor NaN, and what is hidden stays hidden. */
static void check_large_scores(enum op_precision precision, double rtol)
{
    const struct backend *be = tested_backend();
    const struct shape s = {{20, 150}, 2, 2, 2, 16, 1, 3, 0, precision};
    struct case_data c;
    struct record want = {0};

    make_case(&s, &c);
    for (long i = 0; i < c.b.T * c.ld; i++)
        c.qkv[i] *= 12;
    forward(&c, &want);
    memset(c.o, 0, (size_t)(c.b.T * c.ldo) * sizeof *c.o);
    assert_int_equal(be->attention(&c.args), 0);
    for (long t = 0; t < c.b.T; t++)
        assert_close("o", c.o + t * c.ldo, want.v + t * c.ldo, 32, rtol);
    mem_free(want.v);
    free_case(&c);
}

static void test_large_scores(void **state)
{
    (void)state;
    check_large_scores(PRECISION_F32, 1e-4);
    check_large_scores(PRECISION_BF16, 1e-2);
    check_large_scores(PRECISION_F16, 2e-3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_two_bytes),
        cmocka_unit_test(test_gradients_against_differences),
        cmocka_unit_test(test_sequences_stand_alone),
        cmocka_unit_test(test_large_scores),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
