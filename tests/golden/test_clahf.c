/* ClaHF against PyTorch: ranking losses of K = 2 and 5 candidates with the scores of four
 * poolings and all gradients; three runs of five PPO updates through the trainer itself
 * (forward, loss, backward, clipping, AdamW), every recorded quantity of every step, and
 * the parameters at the end. Key biases of attention are left out: their gradient is zero,
 * and AdamW makes steps of the rounding noise. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/model/internal.h"
#include "worker/train/clahf_loss.h"
#include "worker/train/infer.h"
#include "worker/train/trainer.h"
#include "worker/verb/golden.h"

enum { ROWS_MAX = 64, CLASSES = 5 };
static const double FORWARD_TOL = 5e-5, STEP_TOL = 2e-4, PARAM_TOL = 5e-5;

struct folder {
    char dir[1024];
    struct golden g;
    json_t *json;
    struct model *m;
    struct sequences s;
    int label[ROWS_MAX];
};

static const char *text(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static void near(const char *what, double got, double want, double tol)
{
    if (fabs(got - want) > tol * fmax(1, fabs(want)))
        fail_msg("%s: got %.9g, want %.9g", what, got, want);
}

static enum pooling pooling_of(const char *name)
{
    for (int i = 0; pooling_names[i]; i++)
        if (!strcmp(pooling_names[i], name))
            return (enum pooling)i;
    assert_string_equal(name, "pooler");
    return POOLING_MODEL;
}

/* The recorded head belongs to every pooling; our files give it to the pooler's alone. */
static void load_head(struct folder *f)
{
    static const char *const names[] = {"classifier.weight", "classifier.bias"};
    int slot[] = {f->m->head_w, f->m->head_b};
    char path[1100];
    struct safetensors file;
    struct err e;
    float x[4096];

    snprintf(path, sizeof path, "%s/model.safetensors", f->dir);
    assert_int_equal(safetensors_open(&file, path, &e), 0);
    for (int i = 0; i < 2; i++) {
        const struct safetensors_tensor *t = safetensors_find(&file, names[i]);
        struct param *p = &f->m->param[slot[i]];

        assert_non_null(t);
        assert_true(t->elements <= 4096);
        assert_int_equal(t->elements, p->rows * p->cols);
        assert_int_equal(safetensors_read_f32(&file, t, 0, t->elements, x, &e), 0);
        assert_int_equal(
            f->m->options.backend->copy_in(p->data, x, t->elements * sizeof *x), 0);
    }
    safetensors_close(&file);
    model_touch(f->m);
}

static void open_model(struct folder *f, const char *pooling, enum head_kind head,
                       int value_head)
{
    struct model_options o = {.backend = backend_find("cpu"),
                              .head = head,
                              .outputs = head == HEAD_REWARD ? 1 : CLASSES,
                              .pooling = pooling_of(pooling),
                              .value_head = value_head,
                              .trainable = 1,
                              .keep_head = 1};
    struct err e = {0};

    model_close(f->m);
    f->m = NULL;
    if (model_open(&f->m, f->dir, &o, &e))
        fail_msg("%s: %s", f->dir, e.msg);
    load_head(f);
}

/* 0: the folder is not here. */
static int open_folder(struct folder *f, const char *name, size_t per_example)
{
    const char *shared = getenv("HONE_SHARED");
    char path[1100];
    struct err e = {0};
    size_t n;

    memset(f, 0, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "%s/fixtures/golden/clahf/%s",
             shared ? shared : "../shared", name);
    if (!file_exists(f->dir)) {
        print_message("skipped: %s is not here\n", f->dir);
        return 0;
    }
    snprintf(path, sizeof path, "%s/golden.safetensors", f->dir);
    if (golden_open(&f->g, path, &e))
        fail_msg("%s", e.msg);
    snprintf(path, sizeof path, "%s/golden.json", f->dir);
    if (json_read(path, 1 << 20, &f->json, &e))
        fail_msg("%s", e.msg);
    n = (size_t)f->g.in.B;
    assert_true(n <= ROWS_MAX);
    f->s.n = n;
    f->s.per_example = per_example;
    f->s.ids = f->g.in.ids;
    f->s.offset = mem_array(n + 1, sizeof *f->s.offset);
    assert_non_null(f->s.offset);
    for (size_t i = 0; i <= n; i++)
        f->s.offset[i] = (size_t)f->g.in.cu_seqlens[i];
    return 1;
}

static void close_folder(struct folder *f)
{
    mem_free(f->s.offset);
    model_close(f->m);
    json_decref(f->json);
    golden_close(&f->g);
}

static const float *recorded(struct folder *f, const char *name, long n)
{
    struct err e = {0};
    const float *x = golden_get(&f->g, name, n, &e);

    if (!x)
        fail_msg("%s: %s", name, e.msg);
    return x;
}

/* ---- reward model -------------------------------------------------------------------- */

static void check_poolings(struct folder *f)
{
    static const char *const names[] = {"cls", "last_token", "mean", "pooler"};

    for (int i = 0; i < 4; i++) {
        char name[64];
        const float *want;
        float got[ROWS_MAX];
        struct err e = {0};

        snprintf(name, sizeof name, "rewards_%s", names[i]);
        want = recorded(f, name, f->g.in.B);
        open_model(f, names[i], HEAD_REWARD, 0);
        if (infer_outputs(f->m, &f->s, NULL, got, NULL, &e))
            fail_msg("%s", e.msg);
        for (long j = 0; j < f->g.in.B; j++)
            near(name, (double)got[j], (double)want[j], FORWARD_TOL);
    }
}

/* Candidate j is the one at rank j. */
static void check_losses(struct folder *f, int K)
{
    const float *r = recorded(f, "rewards", f->g.in.B);
    double full = 0, top = 0, rest = 0, d[CLASSES], list[CLASSES];
    long n = f->g.in.B / K;

    for (long i = 0; i < n; i++) {
        for (int k = 0; k < K; k++)
            list[k] = (double)r[i * K + k];
        full +=
            clahf_rank_loss(list, K, RANK_FULL, number(f->json, "alpha"), d) / (double)n;
        top += clahf_rank_loss(list, K, RANK_TOP1, 0.3, d) / (double)n;
        rest += clahf_rank_loss(list, K, RANK_FULL, 0, d) / (double)n;
    }
    near("loss", full, number(f->json, "loss"), 2e-6);
    near("loss of the published code", rest, number(f->json, "compat_code_loss"), 2e-6);
    if (K > 2) {
        near("top-1 loss", top, number(f->json, "top1_loss"), 2e-6);
        near("pairwise loss", rest, number(f->json, "pairwise_loss"), 2e-6);
    }
}

struct rm_run {
    int order[CLASSES * CLASSES];
    int label[ROWS_MAX];
    struct stage_run run;
};

/* The stage's configuration at its defaults, but for what the JSON text says. */
static void *configure(const struct stage *stage, const char *json)
{
    struct err e = {0};
    struct arena a = {0};
    struct problems p;
    struct node *map;
    void *config = mem_alloc(stage->config_size + 1);

    assert_non_null(config);
    problems_init(&p, "test");
    assert_int_equal(node_parse(&a, "test", json, strlen(json), &map, &e), 0);
    opt_defaults(stage->options, config);
    opt_apply(stage->options, config, map, "", NULL, &a, &p);
    assert_int_equal(p.errors, 0);
    problems_fini(&p);
    arena_fini(&a);
    return config;
}

static void open_rm(struct rm_run *x, int K)
{
    memset(x, 0, sizeof *x);
    for (int k = 0; k < K; k++)
        x->order[k] = k; /* of label 0, the only one here */
    x->run = (struct stage_run){.K = K, .order = x->order};
    x->run.config = configure(stage_find("rm", TASK_CLASSIFY), "{\"alpha\": 0.8}");
}

static void check_accuracy(struct folder *f, struct rm_run *x, int K)
{
    struct metric_list m = {.n = 0};
    struct err e = {0};
    size_t n = (size_t)(f->g.in.B / K);

    assert_int_equal(
        stage_find("rm", TASK_CLASSIFY)
            ->evaluate(&x->run, x->label, n, recorded(f, "rewards", f->g.in.B), &m, &e),
        0);
    near("top-1 accuracy", metric_get(&m, "top1_accuracy"),
         number(f->json, "top1_accuracy"), 1e-6);
    near("strict order", metric_get(&m, "ordered_accuracy"),
         number(f->json, "strict_order"), 1e-6);
    near("evaluated loss", metric_get(&m, "loss"), number(f->json, "loss"), 2e-6);
}

/* grad.<name> of every parameter in the file. */
static size_t check_gradients(struct folder *f)
{
    size_t compared = 0;

    for (size_t i = 0; i < f->m->n_tensors; i++) {
        const struct model_tensor *t = &f->m->tensor[i];
        const char *name = t->name;
        char key[300];
        float got[65536];
        long n = 1;
        const float *want;

        if (t->param < 0 || !f->m->param[t->param].grad)
            continue;
        if (str_starts(name, "hone_"))
            name += 5;
        snprintf(key, sizeof key, "grad.%s", name);
        if (!safetensors_find(&f->g.file, key))
            continue;
        for (int k = 0; k < t->rank; k++)
            n *= t->shape[k];
        assert_true(n <= 65536);
        want = recorded(f, key, n);
        assert_int_equal(
            f->m->options.backend->copy_out(got, f->m->param[t->param].grad + t->first,
                                            (size_t)n * sizeof *got),
            0);
        for (long j = 0; j < n; j++)
            near(key, (double)got[j], (double)want[j], FORWARD_TOL);
        compared++;
    }
    return compared;
}

static void check_backward(struct folder *f, struct rm_run *x, int K)
{
    size_t n = (size_t)(f->g.in.B / K), want = 0;
    struct tape *t;
    struct model_out out;
    float d_out[ROWS_MAX] = {0};
    struct stage_batch b = {.n = n, .n_total = n, .label = x->label, .d_out = d_out};
    struct metric_list m = {.n = 0};
    struct err e = {0};
    double loss;

    open_model(f, text(f->json, "pooling"), HEAD_REWARD, 0);
    t = tape_new(f->m->options.backend, &e);
    assert_non_null(t);
    tape_reset(t, TAPE_TRAIN);
    if (model_forward(f->m, t, &f->g.in, NULL, &out, &e))
        fail_msg("%s", e.msg);
    b.out = out.logits->data;
    assert_int_equal(stage_find("rm", TASK_CLASSIFY)->loss(&x->run, &b, &loss, &m, &e), 0);
    near("loss of the stage", loss, number(f->json, "loss"), 2e-6);
    assert_int_equal(tape_seed(t, out.logits, d_out), 0);
    if (tape_backward(t, &e))
        fail_msg("%s", e.msg);
    for (size_t i = 0; i < f->g.file.n; i++)
        want += str_starts(f->g.file.tensor[i].name, "grad.");
    assert_true(want > 20);
    assert_int_equal(check_gradients(f), want);
    tape_free(t);
}

static void check_rm(const char *name, int K)
{
    struct folder f;
    struct rm_run x;

    if (!open_folder(&f, name, (size_t)K))
        skip();
    open_rm(&x, K);
    check_poolings(&f);
    check_losses(&f, K);
    check_accuracy(&f, &x, K);
    check_backward(&f, &x, K);
    mem_free((void *)x.run.config);
    close_folder(&f);
}

static void test_rm_k2(void **state)
{
    (void)state;
    check_rm("rm_k2", 2);
}

static void test_rm_k5(void **state)
{
    (void)state;
    check_rm("rm_k5", 5);
}

/* ---- PPO ----------------------------------------------------------------------------- */

/* A stage that does what stage_ppo does, but with recorded actions, and keeps everything
 * that was recorded. */
struct replay {
    struct ppo_form form;
    struct kl_control control;
    const float *reward, *ref; /* (n, K) */
    const int64_t *action;     /* (n), or NULL: argmax */
    struct ppo_arm arm[ROWS_MAX];
    double kl[ROWS_MAX], adjusted[ROWS_MAX], value[ROWS_MAX];
    struct ppo_result result;
};

static int argmax(const float *z, int K)
{
    int best = 0;

    for (int k = 1; k < K; k++)
        best = z[k] > z[best] ? k : best;
    return best;
}

static int replay_loss(struct stage_run *run, const struct stage_batch *b, double *loss,
                       struct metric_list *m, struct err *e)
{
    struct replay *r = run->tables;
    const float *ref[ROWS_MAX], *reward[ROWS_MAX];
    double entropy[ROWS_MAX], work[5 * CLASSES], dz[ROWS_MAX * CLASSES], dv[ROWS_MAX];
    int K = run->K;
    struct ppo_batch x = {.n = b->n,
                          .n_total = b->n_total,
                          .K = K,
                          .arms = 1,
                          .beta = run->state[0],
                          .logits = b->out,
                          .value = b->value,
                          .ref = ref,
                          .reward = reward,
                          .arm = r->arm,
                          .kl = r->kl,
                          .entropy = entropy,
                          .adjusted = r->adjusted,
                          .work = work,
                          .d_logits = dz,
                          .d_value = dv};

    (void)e;
    for (size_t i = 0; i < b->n; i++) {
        size_t at = b->example[i];

        ref[i] = r->ref + at * (size_t)K;
        reward[i] = r->reward + at * (size_t)K;
        r->arm[i].action =
            r->action ? (int)r->action[at] : argmax(b->out + i * (size_t)K, K);
        r->value[i] = (double)b->value[i];
    }
    clahf_ppo_loss(&r->form, &x, &r->result);
    for (size_t i = 0; i < b->n * (size_t)K; i++)
        b->d_out[i] = (float)dz[i];
    for (size_t i = 0; i < b->n; i++)
        b->d_value[i] = (float)dv[i];
    *loss = r->result.loss;
    metric_add(m, "kl", r->result.kl);
    return 0;
}

static void replay_after(struct stage_run *run, const struct metric_list *m)
{
    struct replay *r = run->tables;

    run->state[0] = clahf_next_beta(&r->control, run->state[0], metric_get(m, "kl"));
}

static const struct stage replay_stage = {
    .name = "replay", .loss = replay_loss, .after_step = replay_after};

static void each(const json_t *step, const char *key, size_t i, double got)
{
    char what[64];

    snprintf(what, sizeof what, "%s[%zu]", key, i);
    near(what, got, json_number_value(json_array_get(json_object_get(step, key), i)),
         STEP_TOL);
}

static void check_step(const struct replay *r, const json_t *step, size_t n,
                       const struct step_result *s)
{
    for (size_t i = 0; i < n; i++) {
        each(step, "actions", i, r->arm[i].action);
        each(step, "ratio", i, r->arm[i].ratio);
        each(step, "kl_each", i, r->kl[i]);
        each(step, "adjusted_reward", i, r->adjusted[i]);
        each(step, "advantage_raw", i, r->arm[i].raw);
        each(step, "advantage", i, r->arm[i].advantage);
        each(step, "value", i, r->value[i]);
    }
    near("loss", s->loss, number(step, "loss"), STEP_TOL);
    near("policy loss", r->result.policy_loss, number(step, "policy_loss"), STEP_TOL);
    near("value loss", r->result.value_loss, number(step, "value_loss"), STEP_TOL);
    near("kl", r->result.kl, number(step, "kl"), STEP_TOL);
    near("gradient norm", s->grad_norm, number(step, "grad_norm"), STEP_TOL);
    near("clip fraction", r->result.clip_fraction, number(step, "clip_fraction"), 1e-9);
}

static size_t check_parameters(struct folder *f)
{
    char path[1100];
    struct safetensors file;
    struct err e = {0};
    size_t compared = 0;

    snprintf(path, sizeof path, "%s/final.safetensors", f->dir);
    assert_int_equal(safetensors_open(&file, path, &e), 0);
    for (size_t i = 0; i < f->m->n_tensors; i++) {
        const struct model_tensor *t = &f->m->tensor[i];
        const char *name = str_starts(t->name, "hone_") ? t->name + 5 : t->name;
        const struct safetensors_tensor *want = safetensors_find(&file, name);
        float got[65536], x[65536];

        if (t->param < 0 || strstr(name, "key.bias"))
            continue;
        assert_non_null(want);
        assert_true(want->elements <= 65536);
        assert_int_equal(safetensors_read_f32(&file, want, 0, want->elements, x, &e), 0);
        assert_int_equal(
            f->m->options.backend->copy_out(got, f->m->param[t->param].data + t->first,
                                            want->elements * sizeof *got),
            0);
        for (size_t j = 0; j < want->elements; j++)
            near(name, (double)got[j], (double)x[j], PARAM_TOL);
        compared++;
    }
    safetensors_close(&file);
    return compared;
}

static struct trainer *open_trainer(struct folder *f, const struct stage *stage,
                                    struct stage_run *run)
{
    const json_t *o = json_object_get(f->json, "options");
    struct trainer_setup s = {
        .model = f->m,
        .comm = comm_self(),
        .stage = stage,
        .run = run,
        .sequences = &f->s,
        .optim = {.lr = number(o, "lr"), .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
        .clip = number(o, "clip_grad_norm")};
    struct trainer *t;
    struct err e = {0};

    run->label = f->label;
    run->n_rows = f->s.n;
    run->K = CLASSES;
    run->state[0] = number(o, "beta_start");
    sched_init(&s.sched, SCHEDULE_CONSTANT, 0, 100);
    if (trainer_open(&t, &s, &e))
        fail_msg("%s", e.msg);
    return t;
}

static const int64_t *read_actions(struct folder *f, int64_t out[ROWS_MAX])
{
    const struct safetensors_tensor *t = safetensors_find(&f->g.file, "actions");
    struct err e = {0};

    if (!t)
        return NULL;
    assert_int_equal(t->elements, f->s.n);
    assert_int_equal(safetensors_read(&f->g.file, t, 0, t->elements, out, &e), 0);
    return out;
}

static struct replay *new_replay(struct folder *f, int64_t action[ROWS_MAX])
{
    const json_t *o = json_object_get(f->json, "options");
    int code = !strcmp(text(f->json, "compat"), "code");
    struct replay *r = mem_alloc(sizeof *r);
    long n = f->g.in.B;

    assert_non_null(r);
    r->form = (struct ppo_form){.code = code,
                                .kl_grad = code,
                                .whiten = json_is_true(json_object_get(o, "whiten")),
                                .clip_ratio = number(o, "clip_ratio"),
                                .value_coef = number(o, "value_coef")};
    r->control =
        (struct kl_control){.target = number(o, "target"),
                            .eta = code ? 1 / number(o, "horizon") : number(o, "eta"),
                            .error_clip = code ? 0.2 : 0,
                            .low = number(o, "beta_min"),
                            .high = number(o, "beta_max")};
    r->reward = recorded(f, "reward_table", n * CLASSES);
    r->ref = recorded(f, "ref_logprobs", n * CLASSES);
    r->action = read_actions(f, action);
    return r;
}

static void check_ppo(const char *name)
{
    struct folder f;
    struct stage_run run = {.seed = 1};
    struct replay *r;
    struct trainer *t;
    struct err e = {0};
    int64_t action[ROWS_MAX];
    const json_t *steps;
    size_t n;

    if (!open_folder(&f, name, 1))
        skip();
    steps = json_object_get(f.json, "steps");
    n = f.s.n / json_array_size(steps);
    open_model(&f, text(json_object_get(f.json, "options"), "pooling"), HEAD_CLASSIFY, 1);
    r = new_replay(&f, action);
    run.tables = r;
    t = open_trainer(&f, &replay_stage, &run);
    for (size_t i = 0; i < json_array_size(steps); i++) {
        const json_t *step = json_array_get(steps, i);
        uint32_t example[ROWS_MAX];
        struct step_result s;

        for (size_t j = 0; j < n; j++)
            example[j] = (uint32_t)(i * n + j);
        near("beta", run.state[0], number(step, "beta"), 1e-6);
        if (trainer_step(t, (long)i, example, n, &s, &e))
            fail_msg("%s", e.msg);
        assert_null(s.bad);
        check_step(r, step, n, &s);
        near("next beta", run.state[0], number(step, "beta_next"), 1e-5);
    }
    assert_true(check_parameters(&f) > 30);
    trainer_close(t);
    mem_free(r);
    close_folder(&f);
}

static void test_ppo_paper(void **state)
{
    (void)state;
    check_ppo("ppo_paper");
}

static void test_ppo_paper_whiten(void **state)
{
    (void)state;
    check_ppo("ppo_paper_whiten");
}

static void test_ppo_code(void **state)
{
    (void)state;
    check_ppo("ppo_code");
}

/* The stage itself, as a job runs it with `compat: code`. */
static void test_stage_ppo(void **state)
{
    const struct stage *stage = stage_find("ppo", TASK_CLASSIFY);
    struct folder f;
    struct stage_run run = {.seed = 1};
    struct ppo_tables tables;
    struct trainer *t;
    struct err e = {0};
    const json_t *steps;
    size_t n;

    (void)state;
    if (!open_folder(&f, "ppo_code", 1))
        skip();
    steps = json_object_get(f.json, "steps");
    n = f.s.n / json_array_size(steps);
    open_model(&f, text(json_object_get(f.json, "options"), "pooling"), HEAD_CLASSIFY, 1);
    run.config = configure(stage, "{\"compat\": \"code\"}");
    tables.reward = (float *)recorded(&f, "reward_table", f.g.in.B * CLASSES);
    tables.ref = (float *)recorded(&f, "ref_logprobs", f.g.in.B * CLASSES);
    run.tables = &tables;
    t = open_trainer(&f, stage, &run);
    for (size_t i = 0; i < json_array_size(steps); i++) {
        const json_t *step = json_array_get(steps, i);
        uint32_t example[ROWS_MAX];
        struct step_result s;

        for (size_t j = 0; j < n; j++)
            example[j] = (uint32_t)(i * n + j);
        if (trainer_step(t, (long)i, example, n, &s, &e))
            fail_msg("%s", e.msg);
        near("loss", s.loss, number(step, "loss"), STEP_TOL);
        near("kl", metric_get(&s.metrics, "kl"), number(step, "kl"), STEP_TOL);
        near("beta", metric_get(&s.metrics, "beta"), number(step, "beta"), 1e-9);
        near("next beta", run.state[0], number(step, "beta_next"), 1e-9);
        near("gradient norm", s.grad_norm, number(step, "grad_norm"), STEP_TOL);
    }
    assert_true(check_parameters(&f) > 30);
    trainer_close(t);
    mem_free((void *)run.config);
    close_folder(&f);
}

/* With the policy's own logits as reference, looked up from a table that inference made,
 * the first ratio is 1 and the first KL is 0, to the last bit; with several micro-batches
 * as well. */
static void test_first_ratio(void **state)
{
    static const char *const compat[] = {"{\"compat\": \"paper\"}",
                                         "{\"compat\": \"code\"}", "{\"action\": \"all\"}"};
    const struct stage *stage = stage_find("ppo", TASK_CLASSIFY);
    struct folder f;

    (void)state;
    if (!open_folder(&f, "ppo_paper", 1))
        skip();
    for (int c = 0; c < 3; c++) {
        struct stage_run run = {.seed = 1};
        float ref[ROWS_MAX * CLASSES];
        struct ppo_tables tables = {.ref = ref};
        uint32_t example[] = {3, 17, 0, 29, 8, 11};
        struct step_result s;
        struct trainer *t;
        struct err e = {0};

        open_model(&f, "cls", HEAD_CLASSIFY, c < 2);
        assert_int_equal(infer_outputs(f.m, &f.s, NULL, ref, NULL, &e), 0);
        tables.reward = (float *)recorded(&f, "reward_table", f.g.in.B * CLASSES);
        run.config = configure(stage, compat[c]);
        run.tables = &tables;
        t = open_trainer(&f, stage, &run);
        if (trainer_step(t, 0, example, 6, &s, &e))
            fail_msg("%s", e.msg);
        assert_true(metric_get(&s.metrics, "kl") == 0);
        if (c < 2) /* a sum of six sixths; with all actions of p_k / n */
            assert_true(fabs(metric_get(&s.metrics, "ratio") - 1) < 1e-15);
        assert_true(metric_get(&s.metrics, "clip_fraction") == 0);
        trainer_close(t);
        mem_free((void *)run.config);
    }
    close_folder(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rm_k2),      cmocka_unit_test(test_rm_k5),
        cmocka_unit_test(test_ppo_paper),  cmocka_unit_test(test_ppo_paper_whiten),
        cmocka_unit_test(test_ppo_code),   cmocka_unit_test(test_stage_ppo),
        cmocka_unit_test(test_first_ratio)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
