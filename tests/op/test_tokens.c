/* Embeddings and their sorted gradient, pooling, rotary positions. */
#include "tests/op/op_test.h"

struct shape {
    long T, D, rows;
    int tables;
};

/* order and start of embedding_backward from the indices, by counting. */
static long sort_tokens(const int *index, long T, long rows, int *order, int *start)
{
    long n = 0, segments = 0;

    for (long row = 0; row < rows; row++) {
        long before = n;

        for (long t = 0; t < T; t++)
            if (index[t] == row)
                order[n++] = (int)t;
        if (n > before)
            start[segments++] = (int)before;
    }
    start[segments] = (int)n;
    return segments;
}

static void run_embedding(const struct backend *be, const void *shape, struct record *out)
{
    const struct shape *s = shape;
    float *table = new_normal(s->rows * s->D, 1, 1), *y = new_floats(s->T * s->D);
    float *dy = new_normal(s->T * s->D, 2, 1), *dtable = new_normal(s->rows * s->D, 3, 1);
    int *index[OP_TABLES_MAX], *order = mem_array((size_t)s->T, sizeof *order);
    int *start = mem_array((size_t)s->rows + 1, sizeof *start);
    struct embedding_args args = {.n = s->tables, .y = y, .T = s->T, .D = s->D};
    struct rng r;

    rng_init(&r, 5);
    for (int i = 0; i < OP_TABLES_MAX; i++) {
        index[i] = mem_array((size_t)s->T, sizeof *index[i]);
        for (long t = 0; t < s->T; t++)
            index[i][t] = (int)rng_below(&r, (uint32_t)s->rows);
        args.table[i] = table;
        args.index[i] = index[i];
    }
    struct embedding_backward_args back = {
        index[0], order, start, sort_tokens(index[0], s->T, s->rows, order, start),
        s->T,     s->D,  dy,    dtable};
    assert_int_equal(be->embedding(&args), 0);
    assert_int_equal(be->embedding_backward(&back), 0);
    record_add(out, y, s->T * s->D);
    record_add(out, dtable, s->rows * s->D);
    free_all(9, (void *)table, (void *)y, (void *)dy, (void *)dtable, (void *)index[0],
             (void *)index[1], (void *)index[2], (void *)order, (void *)start);
}

static void test_embedding(void **state)
{
    static const struct shape shapes[] = {
        {1, 1, 1, 1}, {40, 33, 7, 3}, {300, 384, 2, 2}, {900, 130, 400, 1}};

    (void)state;
    for (long i = 0; i < COUNT(shapes); i++)
        check_case("embedding", run_embedding, &shapes[i], 2e-5);
}

struct pool_shape {
    int length[4];
    long B, D;
    int kind;
};

static void run_pool(const struct backend *be, const void *shape, struct record *out)
{
    const struct pool_shape *s = shape;
    struct batch b = new_batch(s->length, s->B);
    float *x = new_normal(b.T * s->D, 1, 1), *y = new_floats(s->B * s->D);
    float *dy = new_normal(s->B * s->D, 2, 1), *dx = new_normal(b.T * s->D, 3, 1);
    enum op_pool kind = (enum op_pool)s->kind;
    struct pool_args args = {kind, x, y, b.cu_seqlens, s->B, b.T, s->D};
    struct pool_backward_args back = {kind, dy, dx, b.cu_seqlens, s->B, b.T, s->D};

    assert_int_equal(be->pool(&args), 0);
    assert_int_equal(be->pool_backward(&back), 0);
    record_add(out, y, s->B * s->D);
    record_add(out, dx, b.T * s->D);
    free_batch(&b);
    free_all(4, (void *)x, (void *)y, (void *)dy, (void *)dx);
}

static void forward_pool(void *arg, struct record *y)
{
    struct pool_args *a = arg;

    assert_int_equal(backend_find("ref")->pool(a), 0);
    record_add(y, a->y, a->B * a->D);
}

static void test_pool(void **state)
{
    static const int length[] = {5, 1, 9};

    (void)state;
    for (int kind = POOL_FIRST; kind <= POOL_SUM; kind++) {
        struct pool_shape s = {{5, 1, 9}, 3, 13, kind},
                          large = {{400, 90, 2, 700}, 4, 390, kind};
        struct batch b = new_batch(length, 3);
        float *x = new_normal(b.T * s.D, 1, 1), *y = new_floats(s.B * s.D);
        float *dy = new_weights(s.B * s.D), *dx = new_floats(b.T * s.D);
        struct pool_args args = {(enum op_pool)kind, x, y, b.cu_seqlens, 3, b.T, s.D};
        struct pool_backward_args back = {
            (enum op_pool)kind, dy, dx, b.cu_seqlens, 3, b.T, s.D};

        check_case("pool", run_pool, &s, 2e-6);
        check_case("pool", run_pool, &large, 2e-5);
        for (int i = 0; i < 2; i++) {
            struct variable var = {x, dx, b.T * s.D};

            assert_int_equal(both_backends(i)->pool_backward(&back), 0);
            check_gradient("pool", &var, forward_pool, &args, 2e-3);
        }
        free_batch(&b);
        free_all(4, (void *)x, (void *)y, (void *)dy, (void *)dx);
    }
}

static void test_pool_refuses_empty_sequences(void **state)
{
    int bounds[3] = {0, 2, 2};
    float x[8] = {0}, y[8];

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct pool_args args = {POOL_MEAN, x, y, bounds, 2, 2, 4};
        struct pool_backward_args back = {POOL_MEAN, x, y, bounds, 2, 2, 4};

        assert_int_not_equal(both_backends(i)->pool(&args), 0);
        assert_non_null(strstr(both_backends(i)->error(), "empty"));
        assert_int_not_equal(both_backends(i)->pool_backward(&back), 0);
    }
}

struct rotary_shape {
    int heads, d, rot, interleaved, inverse, far;
};

static void run_rotary(const struct backend *be, const void *shape, struct record *out)
{
    const struct rotary_shape *s = shape;
    static const int length[] = {70, 1, 300};
    struct batch b = new_batch(length, 3);
    long ld = (long)s->heads * s->d + 3;
    float *x = new_normal(b.T * ld, 1, 1), *freq = new_floats(s->rot / 2);
    struct rotary_args args = {
        x, ld, b.T, s->heads, s->d, s->rot, s->interleaved, s->inverse, b.position, freq};

    for (long t = 0; t < b.T; t++)
        b.position[t] += (uint32_t)s->far;
    for (int i = 0; i < s->rot / 2; i++)
        freq[i] = powf(10000.0f, -2.0f * (float)i / (float)s->rot);
    assert_int_equal(be->rotary(&args), 0);
    record_add(out, x, b.T * ld);
    free_batch(&b);
    free_all(2, (void *)x, (void *)freq);
}

static void test_rotary(void **state)
{
    (void)state;
    for (int form = 0; form < 8; form++) {
        struct rotary_shape s = {
            3, 20, form & 4 ? 12 : 20, form & 1, form >> 1 & 1, form & 1 ? 1000 : 0};

        check_case("rotary", run_rotary, &s, 2e-6);
    }
}

static void test_rotary_turns_back(void **state)
{
    uint32_t position[4] = {0, 1, 17, 900};
    float freq[4] = {1, 0.3f, 0.1f, 0.01f}, *x = new_normal(4 * 8, 1, 1);
    float *old = new_normal(4 * 8, 1, 1);

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct rotary_args args = {x, 8, 4, 1, 8, 8, i, 0, position, freq};

        assert_int_equal(tested_backend()->rotary(&args), 0);
        args.inverse = 1;
        assert_int_equal(tested_backend()->rotary(&args), 0);
        assert_close("turned back", x, old, 32, 2e-6);
    }
    free_all(2, (void *)x, (void *)old);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_pool),
        cmocka_unit_test(test_pool_refuses_empty_sequences),
        cmocka_unit_test(test_rotary),
        cmocka_unit_test(test_rotary_turns_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
