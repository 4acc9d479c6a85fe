/* Training against PyTorch, step by step, through the real trainer: loss, gradient norm,
 * rate, and the parameters at the end. Key biases are left out of the last comparison:
 * their gradient is zero, AdamW turns its rounding noise into steps. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/ckpt/safetensors.h"
#include "worker/train/trainer.h"

enum { ROWS_MAX = 512, IDS_MAX = 1 << 16 };

struct golden {
    struct safetensors file;
    json_t *json;
    struct row row[ROWS_MAX];
    int label[ROWS_MAX];
    struct sequences seq;
    int ids[IDS_MAX];
    size_t offset[ROWS_MAX + 1];
    struct sft_config_space {
        double align;
        char bytes[4096];
    } config; /* of stage sft, its size is the stage's own */
    struct stage_spec stage;
    struct stage_run run;
};

static struct golden g;

static const char *shared(const char *below, char *out, size_t n)
{
    const char *root = getenv("HONE_SHARED");

    snprintf(out, n, "%s/%s", root ? root : "../shared", below);
    if (!file_exists(out)) {
        print_message("skipped: %s is not there\n", out);
        skip();
    }
    return out;
}

static void ok(int r, const struct err *e)
{
    if (r)
        fail_msg("%s", e->msg);
}

static long long *read_i64(const char *name, size_t *n)
{
    const struct safetensors_tensor *t = safetensors_find(&g.file, name);
    long long *x;
    struct err e;

    assert_non_null(t);
    assert_int_equal(t->dtype, DTYPE_I64);
    x = mem_array(t->elements, sizeof *x);
    ok(safetensors_read(&g.file, t, 0, t->elements, x, &e), &e);
    *n = t->elements;
    return x;
}

static void open_golden(const char *folder)
{
    char dir[1024], path[1100];
    struct err e;

    memset(&g, 0, sizeof g);
    shared(folder, dir, sizeof dir);
    snprintf(path, sizeof path, "%s/golden.safetensors", dir);
    ok(safetensors_open(&g.file, path, &e), &e);
    snprintf(path, sizeof path, "%s/golden.json", dir);
    ok(json_read(path, 1 << 24, &g.json, &e), &e);
    g.stage.stage = stage_find("sft", TASK_CLASSIFY);
    assert_non_null(g.stage.stage);
    assert_true(g.stage.stage->config_size <= sizeof g.config);
    opt_defaults(g.stage.stage->options, &g.config);
    g.stage.name = "sft";
    g.stage.config = &g.config;
    opt_defaults(common_options, &g.stage.common);
}

static void close_golden(void)
{
    json_decref(g.json);
    safetensors_close(&g.file);
}

/* Right-padded rows of the file as sequences. */
static void take_rows(void)
{
    size_t n, m, k, T;
    long long *ids = read_i64("input_ids", &n), *mask = read_i64("attention_mask", &m);
    long long *label = read_i64("labels", &k);
    size_t used = 0;

    T = n / k;
    assert_true(k <= ROWS_MAX && n <= IDS_MAX && m == n);
    for (size_t i = 0; i < k; i++) {
        g.offset[i] = used;
        for (size_t t = 0; t < T; t++)
            if (mask[i * T + t])
                g.ids[used++] = (int)ids[i * T + t];
        g.label[i] = (int)label[i];
    }
    g.offset[k] = used;
    g.seq = (struct sequences){.n = k, .per_example = 1, .ids = g.ids, .offset = g.offset};
    g.run.n_rows = k;
    mem_free(ids);
    mem_free(mask);
    mem_free(label);
}

static double at(const json_t *list, long i)
{
    return json_number_value(json_array_get(list, (size_t)i));
}

static void near(const char *what, long step, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance * fmax(1, fabs(want))))
        fail_msg("%s at step %ld: %.9g, PyTorch has %.9g", what, step, got, want);
}

static struct trainer_setup setup(struct model *m)
{
    g.run.stage = &g.stage;
    g.run.config = &g.config;
    g.run.label = g.label;
    g.run.K = 5;
    return (struct trainer_setup){.model = m,
                                  .comm = comm_self(),
                                  .stage = g.stage.stage,
                                  .run = &g.run,
                                  .sequences = &g.seq,
                                  .optim = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8}};
}

static int is_key_bias(const char *name)
{
    return strstr(name, ".key.bias") != NULL;
}

/* The saved model against final.safetensors, tensor by tensor. */
static void compare_final(struct model *m, const char *final)
{
    char dir[] = "/tmp/hone-golden-XXXXXX", path[64];
    struct safetensors got, want;
    struct err e;

    assert_non_null(mkdtemp(dir));
    ok(model_save(m, dir, NULL, &e), &e);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    ok(safetensors_open(&got, path, &e), &e);
    ok(safetensors_open(&want, final, &e), &e);
    for (size_t i = 0; i < want.n; i++) {
        const struct safetensors_tensor *w = &want.tensor[i];
        const struct safetensors_tensor *t = safetensors_find(&got, w->name);
        float *a, *b;

        if (w->dtype != DTYPE_F32 || is_key_bias(w->name))
            continue;
        assert_non_null(t);
        assert_int_equal(t->elements, w->elements);
        a = mem_array(w->elements, sizeof *a);
        b = mem_array(w->elements, sizeof *b);
        ok(safetensors_read_f32(&got, t, 0, t->elements, a, &e), &e);
        ok(safetensors_read_f32(&want, w, 0, w->elements, b, &e), &e);
        for (size_t k = 0; k < w->elements; k++)
            near(w->name, (long)k, a[k], b[k], 2e-5);
        mem_free(a);
        mem_free(b);
    }
    safetensors_close(&got);
    safetensors_close(&want);
    ok(file_remove_tree(dir, &e), &e);
}

/* micro_tokens small enough for several micro-batches must give the same numbers. */
static void bert_sft_with(long micro_tokens)
{
    static const char folder[] = "fixtures/golden/training/bert_sft";
    struct model_options o = {.backend = backend_find("auto"),
                              .head = HEAD_CLASSIFY,
                              .outputs = 5,
                              .pooling = POOLING_MODEL,
                              .trainable = 1,
                              .keep_head = 1,
                              .dropout = 0};
    json_t *steps, *loss, *norm, *lr;
    char dir[1024], final[1100];
    struct trainer_setup s;
    struct trainer *t;
    struct model *m;
    struct err e;
    long long *rows;
    size_t n;

    open_golden(folder);
    take_rows();
    shared(folder, dir, sizeof dir);
    ok(model_open(&m, dir, &o, &e), &e);
    s = setup(m);
    s.optim.lr = 1e-3;
    s.optim.weight_decay = 0.05;
    s.clip = 1;
    s.micro_tokens = micro_tokens;
    sched_init(&s.sched, SCHEDULE_LINEAR, 0.1, 20);
    ok(trainer_open(&t, &s, &e), &e);
    rows = read_i64("rows", &n);
    steps = json_object_get(g.json, "steps");
    loss = json_object_get(steps, "loss");
    norm = json_object_get(steps, "grad_norm");
    lr = json_object_get(steps, "lr");
    for (long step = 0; step < 20; step++) {
        uint32_t example[8];
        struct step_result r;

        for (int i = 0; i < 8; i++)
            example[i] = (uint32_t)rows[step * 8 + i];
        ok(trainer_step(t, step, example, 8, &r, &e), &e);
        assert_null(r.bad);
        near("loss", step, r.loss, at(loss, step), 2e-5);
        near("gradient norm", step, r.grad_norm, at(norm, step), 2e-5);
        near("rate", step, r.lr, at(lr, step), 1e-12);
    }
    snprintf(final, sizeof final, "%s/final.safetensors", dir);
    compare_final(m, final);
    trainer_close(t);
    model_close(m);
    mem_free(rows);
    close_golden();
}

static void bert_sft(void **state)
{
    (void)state;
    bert_sft_with(0);
}

static void bert_sft_micro_batches(void **state)
{
    (void)state;
    bert_sft_with(20);
}

/* Rows of sst5 as the recording had them: file order, no truncation. */
static void take_sst5(const struct tok *tok, size_t n)
{
    char path[1024], line[1 << 14];
    struct encode_spec spec = {.tok = tok, .max_tokens = 512};
    static char text[ROWS_MAX][1024];
    struct err e;
    FILE *f = fopen(shared("data/sst5/train.jsonl", path, sizeof path), "r");

    assert_non_null(f);
    for (size_t i = 0; i < n; i++) {
        json_t *v;
        const char *s;
        long label;

        assert_non_null(fgets(line, sizeof line, f));
        ok(json_parse(path, line, strlen(line), &v, &e), &e);
        ok(json_get_string(v, "text", 1, &s, &e), &e);
        ok(json_get_long(v, "label", 1, &label, &e), &e);
        snprintf(text[i], sizeof text[i], "%s", s);
        g.row[i] = (struct row){.text = {text[i]}, .len = {strlen(s)}};
        g.label[i] = (int)label;
        json_decref(v);
    }
    fclose(f);
    g.run.n_rows = n;
    ok(encode_policy(&g.seq, g.row, n, &spec, &e), &e);
}

static void set_param(struct model *m, const char *slot, const char *tensor)
{
    const struct safetensors_tensor *t = safetensors_find(&g.file, tensor);
    size_t n;
    struct param *p = model_params(m, &n);
    struct err e;

    assert_non_null(t);
    for (size_t i = 0; i < n; i++) {
        float *x;

        if (strcmp(p[i].name, slot))
            continue;
        assert_int_equal(p[i].rows * p[i].cols, t->elements);
        x = mem_array(t->elements, sizeof *x);
        ok(safetensors_read_f32(&g.file, t, 0, t->elements, x, &e), &e);
        assert_int_equal(
            model_get_backend(m)->copy_in(p[i].data, x, t->elements * sizeof *x), 0);
        mem_free(x);
        model_touch(m);
        return;
    }
    fail_msg("the model has no parameter %s", slot);
}

static void minilm(void **state)
{
    const char *dir = getenv("HONE_MODEL");
    struct model_options o = {.backend = backend_find("auto"),
                              .head = HEAD_CLASSIFY,
                              .outputs = 5,
                              .pooling = POOLING_MEAN,
                              .trainable = 1,
                              .dropout = 0};
    struct trainer_setup s;
    json_t *sft;
    struct trainer *t;
    struct model *m;
    struct tok *tok;
    struct err e;

    (void)state;
    if (!dir) {
        print_message("skipped: HONE_MODEL does not name all-MiniLM-L6-v2\n");
        skip();
    }
    open_golden("fixtures/golden/minilm");
    ok(tok_open(&tok, dir, &e), &e);
    take_sst5(tok, 480);
    ok(model_open(&m, dir, &o, &e), &e);
    set_param(m, "head.w", "head.weight");
    set_param(m, "head.b", "head.bias");
    s = setup(m);
    s.optim.lr = 2e-5;
    sched_init(&s.sched, SCHEDULE_CONSTANT, 0, 30);
    ok(trainer_open(&t, &s, &e), &e);
    sft = json_object_get(g.json, "sft");
    for (long step = 0; step < 30; step++) {
        uint32_t example[16];
        struct step_result r;

        for (int i = 0; i < 16; i++)
            example[i] = (uint32_t)(step * 16 + i);
        ok(trainer_step(t, step, example, 16, &r, &e), &e);
        near("loss", step, r.loss, at(json_object_get(sft, "loss"), step), 5e-5);
        near("gradient norm", step, r.grad_norm,
             at(json_object_get(sft, "grad_norm"), step), 5e-5);
    }
    trainer_close(t);
    model_close(m);
    sequences_fini(&g.seq);
    tok_close(tok);
    close_golden();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bert_sft),
                                       cmocka_unit_test(bert_sft_micro_batches),
                                       cmocka_unit_test(minilm)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
