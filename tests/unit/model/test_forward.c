/* The forward's promises: training and inference give the same bits, so do a text alone
 * and in a batch, with dropout too; a plan counts what a step holds; warm steps allocate
 * nothing; wrong tokens are refused by name. On every back end of this machine. */
#include "tests/unit/model/tiny.h"

enum { OUT_MAX = 64 * 128 };

static const char *const backends[] = {"ref", "cpu"};
/* A sequence whose answer is asked for has two tokens at least. */
static const int lengths[] = {9, 1, 17, 4, 30, 2, 12, 23};
static const int answered[] = {9, 2, 17, 4, 30, 2, 12, 23};
enum { N_LENGTHS = sizeof lengths / sizeof lengths[0] };

static const struct tiny_spec shapes[] = {
    {TINY_BERT, HEAD_CLASSIFY, POOLING_MODEL, .value_head = 1, .scale = 4, .dropout = 0.1},
    {TINY_BERT, HEAD_CLASSIFY, POOLING_MEAN, .scale = 4, .dropout = 0.1},
    {TINY_BERT, HEAD_REWARD, POOLING_LAST_TOKEN, .scale = 2, .dropout = 0.1},
    {TINY_BERT, HEAD_MASKED, POOLING_MODEL, .scale = 2},
    {TINY_LLAMA, HEAD_CAUSAL, POOLING_MODEL, .scale = 4},
    {TINY_LLAMA, HEAD_REWARD, POOLING_MODEL, .scale = 2, .dropout = 0.1},
    {TINY_LLAMA, HEAD_LOGPROB, POOLING_MODEL, .scale = 2, .dropout = 0.1},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

struct fixture {
    struct model m;
    struct tape *t;
    struct tiny_batch batch;
};

static void pack_all(struct fixture *f)
{
    tiny_pack(&f->batch, &f->m, f->m.options.head == HEAD_LOGPROB ? answered : lengths,
              N_LENGTHS, 10);
}

static void open_fixture(struct fixture *f, const struct backend *be,
                         const struct tiny_spec *s)
{
    struct err e;

    tiny_init(&f->m, be, s);
    pack_all(f);
    f->t = tape_new(be, &e);
    assert_non_null(f->t);
}

static void close_fixture(struct fixture *f)
{
    tape_free(f->t);
    tiny_fini(&f->m);
}

/* Logits then values; returns how many. */
static long forward(struct fixture *f, enum tape_mode mode, uint64_t key, int keep,
                    float *out)
{
    const struct backend *be = f->m.options.backend;
    struct forward_options o = {.keep_layers = keep};
    struct model_out r;
    struct err e;
    long n;

    tape_reset(f->t, mode);
    if (key)
        tape_set_dropout(f->t, key);
    if (model_forward(&f->m, f->t, &f->batch.in, &o, &r, &e))
        fail_msg("%s", e.msg);
    n = r.logits->rows * r.logits->cols;
    assert_true(n + 64 <= OUT_MAX);
    be->copy_out(out, r.logits->data, (size_t)n * sizeof *out);
    if (r.value) {
        be->copy_out(out + n, r.value->data, (size_t)r.value->rows * sizeof *out);
        n += r.value->rows;
    }
    return n;
}

static void each(void (*check)(struct fixture *f))
{
    static struct fixture f;

    for (size_t b = 0; b < sizeof backends / sizeof backends[0]; b++)
        for (size_t s = 0; s < N_SHAPES; s++) {
            open_fixture(&f, backend_find(backends[b]), &shapes[s]);
            check(&f);
            close_fixture(&f);
        }
}

static void infer_is_train(struct fixture *f)
{
    static float a[OUT_MAX], b[OUT_MAX];
    long n = forward(f, TAPE_TRAIN, 0, 0, a);

    assert_int_equal(n, forward(f, TAPE_INFER, 0, 0, b));
    assert_memory_equal(a, b, (size_t)n * sizeof *a);
    /* Dropout is off in inference whatever the key; pooling early changes no bit. */
    assert_int_equal(n, forward(f, TAPE_INFER, 77, 1, b));
    assert_memory_equal(a, b, (size_t)n * sizeof *a);
    assert_int_equal(n, forward(f, TAPE_TRAIN, 0, 1, b));
    assert_memory_equal(a, b, (size_t)n * sizeof *a);
}

static void neighbours(struct fixture *f, uint64_t key)
{
    static float all[OUT_MAX], one[OUT_MAX];
    long n = forward(f, TAPE_TRAIN, key, 0, all), at = 0;
    enum head_kind head = f->m.options.head;
    int whole = head == HEAD_CAUSAL || head == HEAD_MASKED; /* a row a token */
    const int *length = head == HEAD_LOGPROB ? answered : lengths;
    long cols = whole ? f->m.config.dims.V : n / N_LENGTHS - (f->m.value_w >= 0);

    for (int b = 0; b < N_LENGTHS; b++) {
        long rows = whole ? lengths[b] : 1;

        tiny_pack(&f->batch, &f->m, &length[b], 1, 10 + (uint32_t)b);
        forward(f, TAPE_TRAIN, key, 0, one);
        assert_memory_equal(all + at * cols, one, (size_t)(rows * cols) * sizeof *one);
        if (f->m.value_w >= 0)
            assert_memory_equal(&all[n - N_LENGTHS + b], &one[cols], sizeof *one);
        at += rows;
    }
    pack_all(f);
}

static void batch_neighbours(struct fixture *f)
{
    neighbours(f, 0);
    neighbours(f, 4711);
}

static void dropout_keys(struct fixture *f)
{
    static float a[OUT_MAX], b[OUT_MAX];
    long n;

    if (f->m.config.dropout == 0)
        return;
    n = forward(f, TAPE_TRAIN, 5, 0, a);
    forward(f, TAPE_TRAIN, 5, 1, b);
    assert_memory_equal(a, b, (size_t)n * sizeof *a);
    forward(f, TAPE_TRAIN, 6, 0, b);
    assert_memory_not_equal(a, b, (size_t)n * sizeof *a);
}

static void train_step(struct fixture *f, enum tape_mode mode, uint64_t key)
{
    static float seed[OUT_MAX];
    struct model_out r;
    struct err e;

    for (int i = 0; i < OUT_MAX; i++)
        seed[i] = 0.01f * (float)(i % 7 - 3);
    tape_reset(f->t, mode);
    if (key)
        tape_set_dropout(f->t, key);
    if (model_forward(&f->m, f->t, &f->batch.in, NULL, &r, &e))
        fail_msg("%s", e.msg);
    tape_seed(f->t, r.logits, seed);
    if (r.value)
        tape_seed(f->t, r.value, seed);
    if (tape_backward(f->t, &e))
        fail_msg("%s", e.msg);
}

static void plan_is_peak(struct fixture *f)
{
    for (uint64_t key = 0; key < 2; key++) {
        size_t planned;

        train_step(f, TAPE_PLAN, key);
        planned = tape_peak(f->t);
        train_step(f, TAPE_TRAIN, key);
        assert_int_equal(tape_peak(f->t), planned);
        train_step(f, TAPE_TRAIN, key);
        assert_int_equal(tape_peak(f->t), planned);
    }
}

/* model_plan() is that dry run for given lengths; a plan of inference needs no more than
 * inference does. */
static void plan_by_shape(struct fixture *f)
{
    static const int equal[] = {11, 4, 11};
    static const size_t length[] = {11, 4, 11};
    static float out[1 << 20];
    size_t planned;
    struct err e;

    tiny_pack(&f->batch, &f->m, equal, 3, 0);
    if (model_plan(&f->m, length, 3, 1, &planned, &e))
        fail_msg("%s", e.msg);
    train_step(f, TAPE_PLAN, 1);
    assert_int_equal(tape_peak(f->t), planned);
    if (model_plan(&f->m, length, 3, 0, &planned, &e))
        fail_msg("%s", e.msg);
    forward(f, TAPE_INFER, 0, 0, out);
    forward(f, TAPE_INFER, 0, 0, out); /* in one chunk, as the plan */
    assert_int_equal(tape_peak(f->t), planned);
    pack_all(f);
}

/* The same bits whatever the number of threads. */
static void same_gradients(struct fixture *f)
{
    const struct backend *be = f->m.options.backend;

    for (int round = 0; round < 4; round++) {
        static float first[1 << 20];
        size_t at = 0;

        be->set_threads(round); /* 0: all */
        train_step(f, TAPE_TRAIN, 3);
        for (size_t i = 0; i < f->m.n_params; i++) {
            struct param *p = &f->m.param[i];
            size_t n = (size_t)(p->rows * p->cols);
            float *g = mem_array(n, sizeof *g);

            be->copy_out(g, p->grad, n * sizeof *g);
            be->fill_zero(p->grad, n * sizeof *g);
            assert_true(at + n <= sizeof first / sizeof *first);
            if (round)
                assert_memory_equal(first + at, g, n * sizeof *g);
            memcpy(first + at, g, n * sizeof *g);
            at += n;
            mem_free(g);
        }
    }
    be->set_threads(0);
}

static void test_infer_is_train(void **state)
{
    (void)state;
    each(infer_is_train);
}

static void test_batch_neighbours(void **state)
{
    (void)state;
    each(batch_neighbours);
}

static void test_dropout_keys(void **state)
{
    (void)state;
    each(dropout_keys);
}

static void test_plan_is_peak(void **state)
{
    (void)state;
    each(plan_is_peak);
    each(plan_by_shape);
}

static void test_same_gradients(void **state)
{
    (void)state;
    each(same_gradients);
}

/* ---- memory -------------------------------------------------------------------------- */

static const struct backend *counted;
static long allocations;

static void *counting_alloc(size_t bytes)
{
    allocations++;
    return counted->alloc(bytes);
}

static void test_warm_steps_allocate_nothing(void **state)
{
    static struct fixture f;
    struct backend be;

    (void)state;
    counted = backend_find("cpu");
    be = *counted;
    be.alloc = counting_alloc;
    open_fixture(&f, &be, &shapes[0]);
    train_step(&f, TAPE_TRAIN, 1);
    train_step(&f, TAPE_TRAIN, 1);
    allocations = 0;
    for (int i = 0; i < 5; i++) {
        static float out[OUT_MAX];

        train_step(&f, TAPE_TRAIN, 1);
        forward(&f, TAPE_INFER, 0, 0, out);
    }
    assert_int_equal(allocations, 0);
    close_fixture(&f);
}

/* A deeper model needs more memory to train, not to infer. */
static void test_inference_memory_is_bounded(void **state)
{
    static struct fixture f;
    static float out[OUT_MAX];
    size_t infer[2], train[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct tiny_spec s = {TINY_BERT, HEAD_CLASSIFY, POOLING_MEAN, .scale = 2};

        s.layers = i ? 6 : 2;
        open_fixture(&f, backend_find("cpu"), &s);
        forward(&f, TAPE_INFER, 0, 0, out);
        infer[i] = tape_peak(f.t);
        train_step(&f, TAPE_PLAN, 0);
        train[i] = tape_peak(f.t);
        close_fixture(&f);
    }
    assert_int_equal(infer[0], infer[1]);
    assert_true(train[1] > 2 * train[0]);
}

static long fail_after;

static void *failing_alloc(size_t bytes)
{
    return fail_after-- > 0 ? counted->alloc(bytes) : NULL;
}

static void test_out_of_memory(void **state)
{
    static struct fixture f;
    struct model_out r;
    struct backend be;
    struct err e;

    (void)state;
    counted = backend_find("ref");
    be = *counted;
    open_fixture(&f, &be, &shapes[0]);
    be.alloc = failing_alloc;
    fail_after = 0;
    tape_reset(f.t, TAPE_TRAIN);
    assert_int_equal(model_forward(&f.m, f.t, &f.batch.in, NULL, &r, &e), ERR_NOMEM);
    assert_non_null(strstr(e.mend, "micro_tokens"));
    assert_null(r.logits);
    be.alloc = counted->alloc;
    train_step(&f, TAPE_TRAIN, 1);
    close_fixture(&f);
}

/* The 1st, 2nd, ... host allocation fails until a whole step meets no failure. */
static void test_every_allocation(void **state)
{
    static struct fixture f;
    static float seed[OUT_MAX];
    long live = mem_live();
    int failed = 1;

    (void)state;
    open_fixture(&f, backend_find("ref"), &shapes[2]);
    for (long n = 0; failed; n++) {
        struct tape *t;
        struct model_out r;
        struct err e = {0};
        int rc = ERR_NOMEM;

        mem_fail_at(n);
        t = tape_new(f.m.options.backend, &e);
        if (t) {
            tape_reset(t, TAPE_TRAIN);
            tape_set_dropout(t, 1);
            rc = model_forward(&f.m, t, &f.batch.in, NULL, &r, &e);
            if (!rc && !tape_seed(t, r.logits, seed))
                rc = tape_backward(t, &e);
            else if (!rc)
                rc = tape_result(t, &e);
        }
        failed = mem_failed();
        mem_fail_at(-1);
        assert_int_equal(rc, failed ? ERR_NOMEM : 0);
        assert_true(!failed || e.msg[0]);
        tape_free(t);
    }
    close_fixture(&f);
    assert_int_equal(mem_live(), live);
}

/* ---- wrong input --------------------------------------------------------------------- */

static void refuse(struct fixture *f, const char *words)
{
    struct model_out r;
    struct err e;

    tape_reset(f->t, TAPE_TRAIN);
    assert_int_equal(model_forward(&f->m, f->t, &f->batch.in, NULL, &r, &e), ERR_CONFIG);
    if (!strstr(e.msg, words))
        fail_msg("\"%s\" lacks \"%s\"", e.msg, words);
}

static void test_wrong_input(void **state)
{
    static struct fixture f;
    static const int too_long[] = {3, 41};

    (void)state;
    open_fixture(&f, backend_find("ref"), &shapes[0]);
    f.batch.ids[10] = 50;
    refuse(&f, "sequence 2 of the batch: token id 50");
    f.batch.ids[10] = -1;
    refuse(&f, "token id -1");
    f.batch.ids[10] = 1;
    f.batch.types[0] = 2;
    refuse(&f, "token type 2");
    tiny_pack(&f.batch, &f.m, too_long, 2, 0);
    refuse(&f, "sequence 1 of the batch has 41 tokens, but the model has 40");
    close_fixture(&f);
    open_fixture(&f, backend_find("ref"), &shapes[N_SHAPES - 1]);
    tiny_pack(&f.batch, &f.m, lengths, N_LENGTHS, 0);
    refuse(&f, "sequence 1 of the batch has no answer");
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_infer_is_train),
        cmocka_unit_test(test_batch_neighbours),
        cmocka_unit_test(test_dropout_keys),
        cmocka_unit_test(test_plan_is_peak),
        cmocka_unit_test(test_same_gradients),
        cmocka_unit_test(test_warm_steps_allocate_nothing),
        cmocka_unit_test(test_inference_memory_is_bounded),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_every_allocation),
        cmocka_unit_test(test_wrong_input),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
