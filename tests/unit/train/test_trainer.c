/* The trainer's step on a tiny model: micro-batches, rows nobody touched, steps that are
 * not finite, dropout that follows the example and not its place, the loss scale of f16. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/tiny_checkpoint.h"
#include "worker/train/trainer.h"

enum { ROWS = 12, LEN = 6 };

static enum op_precision precision; /* of the fixtures */
static char root[] = "/tmp/hone-trainer-XXXXXX";

struct fixture {
    struct model *model;
    struct trainer *trainer;
    struct stage_spec spec;
    double config[512];
    struct stage_run run;
    int label[ROWS];
    int ids[ROWS * LEN];
    size_t offset[ROWS + 1];
    struct sequences seq;
};

static void ok(int r, const struct err *e)
{
    if (r)
        fail_msg("%s", e->msg);
}

/* Rows use the token ids 5 ... 5 + ROWS alone. */
static void open_fixture(struct fixture *f, double dropout, long micro_tokens)
{
    struct model_options o = {.backend = backend_find("auto"),
                              .head = HEAD_CLASSIFY,
                              .outputs = 3,
                              .pooling = POOLING_MEAN,
                              .trainable = 1,
                              .dropout = dropout,
                              .precision = precision,
                              .seed = 1};
    struct trainer_setup s = {.comm = comm_self(),
                              .stage = stage_find("sft", TASK_CLASSIFY),
                              .run = &f->run,
                              .sequences = &f->seq,
                              .optim = {1e-2, 0, 0.9, 0.999, 1e-8, 0},
                              .clip = 1,
                              .dropout = dropout > 0,
                              .micro_tokens = micro_tokens};
    struct err e;

    memset(f, 0, sizeof *f);
    for (int i = 0; i < ROWS; i++) {
        f->label[i] = i % 3;
        f->offset[i + 1] = f->offset[i] + (size_t)(2 + i % (LEN - 1));
        for (size_t t = f->offset[i]; t < f->offset[i + 1]; t++)
            f->ids[t] = 5 + (i + (int)t) % ROWS;
    }
    f->seq =
        (struct sequences){.n = ROWS, .per_example = 1, .ids = f->ids, .offset = f->offset};
    assert_non_null(s.stage);
    assert_true(s.stage->config_size <= sizeof f->config);
    opt_defaults(s.stage->options, f->config);
    f->spec = (struct stage_spec){.stage = s.stage, .name = "sft", .config = f->config};
    f->run = (struct stage_run){.stage = &f->spec,
                                .config = f->config,
                                .label = f->label,
                                .n_rows = ROWS,
                                .K = 3,
                                .seed = 1};
    ok(model_open(&f->model, root, &o, &e), &e);
    s.model = f->model;
    sched_init(&s.sched, SCHEDULE_CONSTANT, 0, 100);
    ok(trainer_open(&f->trainer, &s, &e), &e);
}

static void close_fixture(struct fixture *f)
{
    trainer_close(f->trainer);
    model_close(f->model);
}

static struct step_result step(struct fixture *f, long number, const uint32_t *example,
                               size_t n)
{
    struct step_result r;
    struct err e;

    ok(trainer_step(f->trainer, number, example, n, &r, &e), &e);
    return r;
}

static struct param *find(struct model *m, const char *name)
{
    size_t n;
    struct param *p = model_params(m, &n);

    for (size_t i = 0; i < n; i++)
        if (!strcmp(p[i].name, name))
            return &p[i];
    fail_msg("no parameter %s", name);
    return NULL;
}

static const uint32_t batch[] = {7, 2, 9, 0, 4, 11, 5, 1};

static void micro_batches(void **state)
{
    struct fixture one, many;

    (void)state;
    open_fixture(&one, 0.1, 0);
    open_fixture(&many, 0.1, 7);
    for (long i = 0; i < 3; i++) {
        struct step_result a = step(&one, i, batch, 8), b = step(&many, i, batch, 8);

        assert_true(fabs(a.loss - b.loss) <= 1e-6 * a.loss);
        assert_true(fabs(a.grad_norm - b.grad_norm) <= 1e-6 * a.grad_norm);
        assert_int_equal(a.tokens, b.tokens);
    }
    close_fixture(&one);
    close_fixture(&many);
}

/* Told of the next batch, of another one, or of none: the same bits. */
static void expected_batches(void **state)
{
    static const uint32_t other[] = {3, 6, 8, 10, 2};
    struct fixture plain, told;

    (void)state;
    open_fixture(&plain, 0.1, 9);
    open_fixture(&told, 0.1, 9);
    for (long i = 0; i < 12; i++) {
        const uint32_t *now = i % 2 ? other : batch, *next = i % 2 ? batch : other;
        size_t n = i % 2 ? 5 : 8, n_next = i % 2 ? 8 : 5;
        struct step_result a = step(&plain, i, now, n), b;

        if (i % 3 == 0) /* right, and every sixth step a lie */
            trainer_expect(told.trainer, i % 6 ? next : now, i % 6 ? n_next : n);
        b = step(&told, i, now, n);
        assert_true(a.loss == b.loss && a.grad_norm == b.grad_norm);
        assert_int_equal(a.tokens, b.tokens);
    }
    close_fixture(&plain);
    trainer_expect(told.trainer, batch, 8);
    close_fixture(&told);
}

/* The same examples in another order are the same step, dropout on. */
static void place_does_not_matter(void **state)
{
    static const uint32_t turned[] = {1, 5, 11, 4, 0, 9, 2, 7};
    struct fixture f, g;
    struct step_result a, b, c;

    (void)state;
    open_fixture(&f, 0.3, 0);
    open_fixture(&g, 0.3, 0);
    a = step(&f, 0, batch, 8);
    b = step(&g, 0, turned, 8);
    assert_true(fabs(a.loss - b.loss) <= 1e-6 * a.loss);
    assert_true(fabs(a.grad_norm - b.grad_norm) <= 1e-6 * a.grad_norm);
    close_fixture(&g);
    open_fixture(&g, 0.3, 0);
    c = step(&g, 1, batch, 8);
    assert_true(fabs(a.loss - c.loss) > 1e-6 * a.loss); /* another step, other zeros */
    close_fixture(&f);
    close_fixture(&g);
}

static void untouched_rows(void **state)
{
    struct fixture f;
    struct param *word;
    struct optim *o;
    float *before;
    struct err e;

    (void)state;
    open_fixture(&f, 0, 0);
    word = find(f.model, "embed.word");
    before = mem_array((size_t)(word->rows * word->cols), sizeof *before);
    memcpy(before, word->data, (size_t)(word->rows * word->cols) * sizeof *before);
    for (long i = 0; i < 3; i++)
        step(&f, i, batch, 8);
    for (long row = 0; row < word->rows; row++) {
        int used = row >= 5 && row < 5 + ROWS;
        int same = !memcmp(before + row * word->cols, word->data + row * word->cols,
                           (size_t)word->cols * sizeof *before);

        assert_int_equal(same, !used);
    }
    o = trainer_optim(f.trainer);
    for (int i = 0; i < o->n; i++) {
        int *rows;
        long n;

        ok(optim_rows(o, i, &rows, &n, &e), &e);
        if (o->param[i] == word)
            assert_int_equal(n, ROWS);
        mem_free(rows);
    }
    mem_free(before);
    close_fixture(&f);
}

static void not_finite(void **state)
{
    struct fixture f;
    struct step_result r;
    struct param *p, *other;
    float keep, was;

    (void)state;
    open_fixture(&f, 0, 0);
    p = find(f.model, "layer.1.ff.in.w");
    other = find(f.model, "head.w");
    was = other->data[0];
    keep = p->data[3];
    p->data[3] = NAN;
    model_touch(f.model);
    r = step(&f, 0, batch, 8);
    assert_non_null(r.bad);
    assert_string_equal(r.bad, "layer.1.ff.in.w");
    assert_true(other->data[0] == was);
    assert_int_equal(trainer_optim(f.trainer)->updates, 0);
    p->data[3] = keep;
    model_touch(f.model);
    r = step(&f, 1, batch, 8); /* nothing of the bad step is left */
    assert_null(r.bad);
    assert_true(isfinite(r.loss) && r.grad_norm > 0);
    assert_true(other->data[0] != was);
    close_fixture(&f);
}

/* Near f32: products of rounded operands, nothing else. */
static void f16_is_near_f32(void **state)
{
    struct fixture f32, f16;

    (void)state;
    open_fixture(&f32, 0.1, 0);
    precision = PRECISION_F16;
    open_fixture(&f16, 0.1, 7); /* its parts are scaled one by one */
    precision = PRECISION_F32;
    assert_true(trainer_scale(f32.trainer)->factor == 1);
    for (long i = 0; i < 4; i++) {
        struct step_result a = step(&f32, i, batch, 8), b = step(&f16, i, batch, 8);

        assert_null(b.bad);
        assert_true(fabs(a.loss - b.loss) <= 2e-3 * a.loss);
        assert_true(fabs(a.grad_norm - b.grad_norm) <= 5e-3 * a.grad_norm);
        assert_true(a.loss != b.loss);
    }
    assert_true(trainer_scale(f16.trainer)->factor == 65536);
    assert_int_equal(trainer_scale(f16.trainer)->good, 4);
    assert_true(trainer_scale(f32.trainer)->factor == 1);
    close_fixture(&f32);
    close_fixture(&f16);
}

/* An overflow skips the step, names its tensor and halves the scale; where gradients fit
 * again training goes on as if nothing had been. */
static void f16_overflow(void **state)
{
    struct fixture f, calm;
    struct step_result r, want;
    struct param *p;
    float was;
    long skipped = 0;

    (void)state;
    precision = PRECISION_F16;
    open_fixture(&f, 0, 0);
    open_fixture(&calm, 0, 0);
    precision = PRECISION_F32;
    p = find(f.model, "layer.0.ff.in.w");
    was = p->data[0];
    trainer_scale(f.trainer)->factor = 0x1p30;
    trainer_scale(f.trainer)->good = 7;
    for (r = step(&f, 0, batch, 8); r.bad; r = step(&f, 0, batch, 8)) {
        skipped++;
        assert_non_null(strstr(r.bad, "layer."));
        assert_true(trainer_scale(f.trainer)->factor == ldexp(1, 30 - (int)skipped));
        assert_int_equal(trainer_scale(f.trainer)->good, 0);
        assert_int_equal(trainer_optim(f.trainer)->updates, 0);
        assert_true(p->data[0] == was);
        assert_true(skipped < 20);
    }
    assert_in_range(skipped, 5, 15);
    assert_int_equal(trainer_scale(f.trainer)->good, 1);
    assert_true(p->data[0] != was);
    want = step(&calm, 0, batch, 8);
    assert_true(fabs(r.grad_norm - want.grad_norm) < 2e-3 * want.grad_norm);
    assert_true(r.loss == want.loss);
    close_fixture(&f);
    close_fixture(&calm);
}

static void f16_growth(void **state)
{
    struct fixture f;

    (void)state;
    precision = PRECISION_F16;
    open_fixture(&f, 0, 0);
    precision = PRECISION_F32;
    trainer_scale(f.trainer)->factor = 128;
    trainer_scale(f.trainer)->good = 1998;
    step(&f, 0, batch, 8);
    assert_true(trainer_scale(f.trainer)->factor == 128);
    assert_int_equal(trainer_scale(f.trainer)->good, 1999);
    step(&f, 1, batch, 8);
    assert_true(trainer_scale(f.trainer)->factor == 256);
    assert_int_equal(trainer_scale(f.trainer)->good, 0);
    close_fixture(&f);
}

static int set_up(void **state)
{
    struct err e;

    (void)state;
    return mkdtemp(root) && !tiny_checkpoint(root, 2, 3, &e) ? 0 : -1;
}

static int clean_up(void **state)
{
    struct err e;

    (void)state;
    return file_remove_tree(root, &e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(micro_batches),
        cmocka_unit_test(expected_batches),
        cmocka_unit_test(place_does_not_matter),
        cmocka_unit_test(untouched_rows),
        cmocka_unit_test(not_finite),
        cmocka_unit_test(f16_is_near_f32),
        cmocka_unit_test(f16_overflow),
        cmocka_unit_test(f16_growth),
    };

    return cmocka_run_group_tests(tests, set_up, clean_up);
}
