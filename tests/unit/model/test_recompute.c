/* Recomputation changes no bit of outputs and gradients, with dropout, over several
 * micro-batches and with frozen tables; parameters are done in the same order; a plan
 * counts what a step holds; of one more layer only its input stays; every host allocation
 * that fails is told. On the host's back ends and on a device. */
#include "tests/unit/model/tiny.h"

enum { OUT_MAX = 64 * 128, GRADS_MAX = 1 << 19 };

static const char *const backends[] = {"ref", "cpu"};
static const int lengths[] = {9, 1, 17, 4, 30, 2, 12, 23};
enum { N_LENGTHS = sizeof lengths / sizeof lengths[0] };

static const struct tiny_spec shapes[] = {
    {TINY_BERT, HEAD_CLASSIFY, POOLING_MODEL, .value_head = 1, .dropout = 0.1, .layers = 3},
    {TINY_BERT, HEAD_CLASSIFY, POOLING_MEAN, .scale = 2, .dropout = 0.1, .layers = 4},
    {TINY_BERT, HEAD_MASKED, POOLING_MODEL, .dropout = 0.1, .layers = 2},
    {TINY_LLAMA, HEAD_CAUSAL, POOLING_MODEL, .dropout = 0.1, .layers = 3},
    {TINY_LLAMA, HEAD_REWARD, POOLING_MODEL, .scale = 2, .dropout = 0.1, .layers = 4},
    {TINY_LLAMA, HEAD_CLASSIFY, POOLING_MEAN, .layers = 1},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

struct fixture {
    struct model m;
    struct tape *t;
    struct tiny_batch batch;
    const struct param *done[TINY_PARAMS_MAX];
    int n_done;
};

static void open_fixture(struct fixture *f, const struct backend *be,
                         const struct tiny_spec *s)
{
    struct err e;

    memset(f, 0, sizeof *f);
    tiny_init(&f->m, be, s);
    tiny_pack(&f->batch, &f->m, lengths, N_LENGTHS, 10);
    f->t = tape_new(be, &e);
    assert_non_null(f->t);
}

static void close_fixture(struct fixture *f)
{
    tape_free(f->t);
    tiny_fini(&f->m);
}

static void note(void *arg, struct param *p)
{
    struct fixture *f = arg;

    assert_true(f->n_done < TINY_PARAMS_MAX);
    f->done[f->n_done++] = p;
}

/* Forward and backward; out: logits and values, where it is given. The peak. */
static size_t train(struct fixture *f, enum tape_mode mode, int recompute, uint64_t key,
                    float *out)
{
    static float seed[OUT_MAX];
    const struct backend *be = f->m.options.backend;
    const struct forward_options o = {.recompute = recompute};
    struct model_out r;
    struct err e;
    size_t n;

    for (int i = 0; i < OUT_MAX; i++)
        seed[i] = 0.01f * (float)(i % 7 - 3);
    tape_reset(f->t, mode);
    if (key)
        tape_set_dropout(f->t, key);
    if (model_forward(&f->m, f->t, &f->batch.in, &o, &r, &e))
        fail_msg("%s", e.msg);
    n = (size_t)(r.logits->rows * r.logits->cols);
    assert_true(n + 64 <= OUT_MAX);
    if (out) {
        be->copy_out(out, r.logits->data, n * sizeof *out);
        if (r.value)
            be->copy_out(out + n, r.value->data, (size_t)r.value->rows * sizeof *out);
    }
    tape_seed(f->t, r.logits, seed);
    if (r.value)
        tape_seed(f->t, r.value, seed);
    f->n_done = 0;
    tape_on_param(f->t, note, f);
    if (tape_backward(f->t, &e))
        fail_msg("%s", e.msg);
    return tape_peak(f->t);
}

/* All gradients, which are zeroed; how many. */
static size_t take_gradients(struct fixture *f, float *out)
{
    const struct backend *be = f->m.options.backend;
    size_t at = 0;

    for (size_t i = 0; i < f->m.n_params; i++) {
        struct param *p = &f->m.param[i];
        size_t n = (size_t)(p->rows * p->cols);

        assert_true(at + n <= GRADS_MAX);
        assert_int_equal(p->pending, 0);
        be->copy_out(out + at, p->grad, n * sizeof *out);
        be->fill_zero(p->grad, n * sizeof *out);
        at += n;
    }
    return at;
}

/* Two micro-batches in one gradient. */
static size_t accumulate(struct fixture *f, int recompute, float *out, float *grad)
{
    memset(out, 0, OUT_MAX * sizeof *out);
    train(f, TAPE_TRAIN, recompute, 5, out);
    tiny_pack(&f->batch, &f->m, lengths + 3, N_LENGTHS - 3, 40);
    train(f, TAPE_TRAIN, recompute, 6, NULL);
    tiny_pack(&f->batch, &f->m, lengths, N_LENGTHS, 10);
    return take_gradients(f, grad);
}

static void same_bits(struct fixture *f)
{
    static float a[OUT_MAX], b[OUT_MAX], ga[GRADS_MAX], gb[GRADS_MAX];
    const struct param *done[TINY_PARAMS_MAX];
    int n_done;
    size_t n, moved = 0;

    n = accumulate(f, 0, a, ga);
    memcpy(done, f->done, sizeof done);
    n_done = f->n_done;
    assert_int_equal(accumulate(f, 1, b, gb), n);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_equal(ga, gb, n * sizeof *ga);
    assert_int_equal(f->n_done, n_done);
    assert_memory_equal(done, f->done, (size_t)n_done * sizeof *done);
    for (size_t i = 0; i < n; i++)
        moved += ga[i] != 0;
    assert_true(moved > n / 4);
}

static void frozen_tables(struct fixture *f)
{
    for (size_t i = 0; i < f->m.n_params; i++)
        f->m.param[i].trainable = strncmp(f->m.param[i].name, "embed.", 6) != 0;
    same_bits(f);
}

static void plan_is_peak(struct fixture *f)
{
    for (uint64_t key = 0; key < 2; key++) {
        size_t planned = train(f, TAPE_PLAN, 1, key, NULL);

        assert_int_equal(train(f, TAPE_TRAIN, 1, key, NULL), planned);
        assert_int_equal(train(f, TAPE_TRAIN, 1, key, NULL), planned);
        assert_true(f->m.config.dims.L < 3 || planned < train(f, TAPE_PLAN, 0, key, NULL));
    }
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

static void test_same_bits(void **state)
{
    (void)state;
    each(same_bits);
    each(frozen_tables);
}

/* The first BERT and the first Llama, where there is a device, or an emulated one. */
static void test_same_bits_on_device(void **state)
{
    const struct backend *be = backend_find("cuda");
    static struct fixture f;

    (void)state;
    if (!be || !be->devices())
        skip();
    for (size_t s = 0; s < N_SHAPES; s += 3) {
        open_fixture(&f, be, &shapes[s]);
        same_bits(&f);
        close_fixture(&f);
    }
}

static void test_plan_is_peak(void **state)
{
    (void)state;
    each(plan_is_peak);
}

/* A layer more takes its input's memory; of pre-norm the stream's and its norm's. */
static void test_inputs_stay(void **state)
{
    static const enum tiny_kind kinds[] = {TINY_BERT, TINY_LLAMA};
    static struct fixture f;

    (void)state;
    for (size_t k = 0; k < 2; k++) {
        size_t peak[2], inputs = 0;

        for (int deep = 0; deep < 2; deep++) {
            struct tiny_spec s = {kinds[k], HEAD_CLASSIFY, POOLING_MEAN, .scale = 4};

            s.layers = deep ? 7 : 4;
            open_fixture(&f, backend_find("cpu"), &s);
            peak[deep] = train(&f, TAPE_PLAN, 1, 1, NULL);
            inputs = (size_t)(f.batch.in.T * f.m.config.dims.D) * sizeof(float) * (k + 1);
            close_fixture(&f);
        }
        assert_true(peak[1] - peak[0] >= 3 * inputs);
        assert_true(peak[1] - peak[0] <= 3 * inputs + 3 * inputs / 8);
    }
}

/* The 1st, 2nd, ... host allocation fails until a whole step meets no failure; what is not
 * done then is forgotten. */
static void test_every_allocation(void **state)
{
    static const struct forward_options how = {.recompute = 1};
    static float seed[OUT_MAX], grad[GRADS_MAX];
    static struct fixture f;
    long live = mem_live();
    int failed = 1;

    (void)state;
    open_fixture(&f, backend_find("ref"), &shapes[4]);
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
            rc = model_forward(&f.m, t, &f.batch.in, &how, &r, &e);
            if (!rc && !tape_seed(t, r.logits, seed))
                rc = tape_backward(t, &e);
            else if (!rc)
                rc = tape_result(t, &e);
        }
        failed = mem_failed();
        mem_fail_at(-1);
        assert_int_equal(rc, failed ? ERR_NOMEM : 0);
        if (t)
            tape_reset(t, TAPE_TRAIN);
        take_gradients(&f, grad);
        tape_free(t);
    }
    close_fixture(&f);
    assert_int_equal(mem_live(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),        cmocka_unit_test(test_same_bits_on_device),
        cmocka_unit_test(test_plan_is_peak),     cmocka_unit_test(test_inputs_stay),
        cmocka_unit_test(test_every_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
