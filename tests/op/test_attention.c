/* Attention over packed sequences: against the reference, gradients against differences,
 * and a sequence's bits alone and among others. */
#include "tests/op/op_test.h"

struct shape {
    int length[5];
    int B, H, K, d, causal, window;
    float p;
};

struct case_data {
    struct batch b;
    float *qkv, *o, *lse, *dout, *dqkv;
    long ld, ldo;
    struct attention_args args;
    struct attention_backward_args back;
};

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
                                      s->causal, s->window, scale, drop};
    c->back = (struct attention_backward_args){
        c->qkv, k,      v,       c->o,      c->dout,   c->lse,          c->ld, c->ld,
        c->ld,  c->ldo, c->dqkv, dk,        dv,        c->b.cu_seqlens, s->B,  c->b.T,
        s->H,   s->K,   s->d,    s->causal, s->window, scale,           drop};
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
static void test_sequences_stand_alone(void **state)
{
    const struct backend *be = tested_backend();

    (void)state;
    for (long i = 0; i < COUNT(shapes); i++) {
        const struct shape *s = &shapes[i];
        struct case_data c;

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

/* Scores of hundreds: neither overflow nor NaN, and what is hidden stays hidden. */
static void test_large_scores(void **state)
{
    const struct backend *be = tested_backend();
    const struct shape s = {{20, 150}, 2, 2, 2, 16, 1, 3, 0};
    struct case_data c;
    struct record want = {0};

    (void)state;
    make_case(&s, &c);
    for (long i = 0; i < c.b.T * c.ld; i++)
        c.qkv[i] *= 12;
    forward(&c, &want);
    memset(c.o, 0, (size_t)(c.b.T * c.ldo) * sizeof *c.o);
    assert_int_equal(be->attention(&c.args), 0);
    for (long t = 0; t < c.b.T; t++)
        assert_close("o", c.o + t * c.ldo, want.v + t * c.ldo, 32, 1e-4);
    mem_free(want.v);
    free_case(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_gradients_against_differences),
        cmocka_unit_test(test_sequences_stand_alone),
        cmocka_unit_test(test_large_scores),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
