/* Products are chosen before a step: after model_prepare() a step and an evaluation meet
 * none that is new, in f32 and bf16, with and without recomputation; without it a step
 * times nothing all the same. On a device, or an emulated one. */
#include <stdlib.h>

#include "tests/unit/model/tiny.h"

enum { RESERVED = 32 << 20, SCRATCH = 4 << 20 };

static const int lengths[] = {9, 1, 17};
static const struct tiny_spec shapes[] = {
    {TINY_BERT, HEAD_CLASSIFY, POOLING_MODEL, .value_head = 1, .dropout = 0.1, .layers = 2},
    {TINY_LLAMA, HEAD_REWARD, POOLING_MODEL, .dropout = 0.1, .layers = 2},
    {TINY_BERT, HEAD_MASKED, POOLING_MODEL, .layers = 1},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static const struct backend *device(void)
{
    const struct backend *be = backend_find("cuda");

    if (!be || !be->devices())
        skip();
    setenv("HONE_CUDA_TUNE", "8", 1);
    assert_int_equal(be->reserve(RESERVED, SCRATCH), 0);
    return be;
}

static void run(struct model *m, enum tape_mode mode, int recompute)
{
    static struct tiny_batch batch;
    static float seed[64 * 128];
    const struct forward_options o = {.recompute = recompute};
    const struct backend *be = m->options.backend;
    struct model_out r;
    struct tape *t;
    struct err e;

    tiny_pack(&batch, m, lengths, 3, 1);
    t = tape_new(be, &e);
    assert_non_null(t);
    tape_reset(t, mode);
    tape_set_dropout(t, 3);
    if (model_forward(m, t, &batch.in, &o, &r, &e))
        fail_msg("%s", e.msg);
    if (mode == TAPE_TRAIN) {
        tape_seed(t, r.logits, seed);
        if (r.value)
            tape_seed(t, r.value, seed);
        if (tape_backward(t, &e))
            fail_msg("%s", e.msg);
    }
    tape_free(t);
}

static void step(struct model *m, int recompute)
{
    const struct backend *be = m->options.backend;

    be->step(1);
    run(m, TAPE_TRAIN, recompute);
    be->step(0);
    run(m, TAPE_INFER, 0);
}

static size_t chosen(const struct backend *be, int all)
{
    return be->choices->get(NULL, 0, all);
}

static void set_precision(struct model *m, enum op_precision p)
{
    for (size_t i = 0; i < m->n_params; i++)
        m->param[i].precision = p;
}

static void test_nothing_is_left(void **state)
{
    const struct backend *be = device();
    struct model m;
    struct err e;

    (void)state;
    for (size_t s = 0; s < N_SHAPES; s++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            size_t before = chosen(be, 1), after;

            tiny_init(&m, be, &shapes[s]);
            set_precision(&m, bf16 ? PRECISION_BF16 : PRECISION_F32);
            if (model_prepare(&m, &e))
                fail_msg("%s", e.msg);
            after = chosen(be, 1);
            assert_true(after > before);
            step(&m, 0);
            step(&m, 1);
            assert_int_equal(chosen(be, 1), after);
            tiny_fini(&m);
        }
    assert_int_equal(chosen(be, 0), chosen(be, 1)); /* all were timed */
}

static void test_no_timing_in_a_step(void **state)
{
    const struct tiny_spec wide = {TINY_BERT, HEAD_CLASSIFY, POOLING_MEAN, .scale = 3};
    const struct backend *be = device();
    unsigned long timed = be->choices->changes();
    size_t before = chosen(be, 1);
    struct model m;

    (void)state;
    tiny_init(&m, be, &wide);
    step(&m, 0);
    assert_true(chosen(be, 1) > before);
    assert_int_equal(be->choices->changes(), timed);
    tiny_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_left),
        cmocka_unit_test(test_no_timing_in_a_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
