/* hone check: every problem of a job at once, then its plan: rows, tokens, steps,
 * parameters and peak memory per rank of each stage, before anything is started.
 *
 * Memory of a stage = weights + gradients + two AdamW moments (4 bytes each) + packed
 * copies of matrices (4 or, in bf16, 2) + what a dry run of the largest micro-batch holds +
 * token ids + rows. Code, libraries and the allocator's slack come on top. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/args.h"
#include "base/json.h"
#include "base/mem.h"
#include "worker/model/model.h"
#include "worker/spec/spec.h"
#include "worker/stage/stage.h"
#include "worker/tok/tok.h"
#include "worker/train/precision.h"
#include "worker/train/trainer.h"
#include "worker/verb/verb.h"

enum { STAGES_SHOWN = 64 };

struct check_args {
    int json, brief;
    struct arg_list set, words;
};

static const struct arg_flag flags[] = {
    ARG_LIST("--set", "KEY=VALUE", "override a key, e.g. stages.sft.lr=3e-5",
             struct check_args, set),
    ARG_SWITCH("--json", "one JSON document: problems and plan", struct check_args, json),
    ARG_SWITCH("--brief", "plan without tokens and memory, for schedulers",
               struct check_args, brief),
    ARG_END,
};
static const struct arg_spec usage = {
    "hone check",
    "JOB.yaml [--set KEY=VALUE]... [--json] [--brief]",
    "Shows every problem of a job file at once, then the plan.",
    flags,
    1,
    1,
    offsetof(struct check_args, words)};

struct stage_plan {
    const struct stage_spec *stage;
    long steps, parameters, longest;
    double epochs, tokens_per_epoch, tokens; /* tokens: over all steps */
    size_t truncated, sequences, bytes;
};

struct plan {
    int brief;
    struct spec spec;
    struct problems problems;
    struct dataset data[SPLITS];
    struct tok *tok;
    const struct backend *backend;
    enum op_precision precision; /* what a run started now would take */
    double speedup;              /* of bf16, where that was measured; else 0 */
    struct encode_spec encode;
    struct model_info info;
    struct stage_plan stage[STAGES_SHOWN];
    size_t n;
};

static void load_data(struct plan *c)
{
    const struct spec *s = &c->spec;
    size_t rows[SPLITS];
    struct err e = {0};

    if (dataset_load_all(c->data, &s->data, s->task.labels.text, s->task.labels.n,
                         &c->problems, &e)) {
        /* Bad rows are among the problems already; other failures are not. */
        if (!c->problems.errors || e.code == ERR_IO || e.code == ERR_NOMEM)
            problems_add_at(&c->problems, "", e.mend, "%s", e.msg);
        return;
    }
    for (int i = 0; i < SPLITS; i++)
        rows[i] = c->data[i].n;
    spec_check_rows(s, rows, &c->problems);
}

static int wants_reward(const struct spec *s)
{
    for (size_t i = 0; i < s->n_stages; i++) {
        struct stage_shape shape = {0};

        s->stage[i].stage->shape(s->stage[i].config, s, &shape);
        if (shape.reward_input)
            return 1;
    }
    return 0;
}

/* Tokenizer, and room for the candidates within max_tokens. */
static void check_tokens(struct plan *c)
{
    const struct spec *s = &c->spec;
    const struct node *data = node_get(s->root, "data");
    const struct node *at = node_get(data, "max_tokens");
    struct err e = {0};
    char mend[64];
    long least;

    if (tok_open(&c->tok, s->model, &e)) {
        problems_add(&c->problems, node_get(s->root, "model"), e.mend, "%s", e.msg);
        return;
    }
    c->encode = (struct encode_spec){.tok = c->tok,
                                     .max_tokens = s->data.max_tokens,
                                     .prefix = s->task.prefix,
                                     .candidate = s->task.candidate_text,
                                     .n_candidates = (int)s->task.labels.n};
    if (c->info.vocab && tok_vocab_size(c->tok) > c->info.vocab)
        problems_warn(&c->problems, s->model, "take both from one checkpoint",
                      "the tokenizer has ids up to %ld, the model's vocabulary has %ld "
                      "rows: a text with one of the others stops the run",
                      tok_vocab_size(c->tok) - 1, c->info.vocab);
    if (!wants_reward(s))
        return;
    least = encode_least_tokens(&c->encode, c->data[SPLIT_TRAIN].pairs, &e);
    if (least < 0) {
        problems_add(&c->problems, data, e.mend, "%s", e.msg);
    } else if (s->data.max_tokens < least) {
        snprintf(mend, sizeof mend, "set data.max_tokens to at least %ld", least);
        problems_add(&c->problems, at ? at : data, mend,
                     "\"max_tokens\" is %ld: no room beside the longest candidate",
                     s->data.max_tokens);
    }
}

/* How many different ids stand in the sequences; all where that cannot be found out. */
static size_t distinct_ids(const struct sequences *s, long vocab)
{
    unsigned char *seen = mem_alloc((size_t)vocab);
    int *ids = mem_array(s->longest + 1, sizeof *ids);
    struct store_buf buf = {0};
    size_t n = 0;
    struct err e;
    int ok = seen && ids;

    for (size_t i = 0; ok && i < s->n; i++) {
        ok = !sequences_read(s, i, &buf, ids, NULL, &e);
        for (size_t k = 0; ok && k < s->offset[i + 1] - s->offset[i]; k++)
            if (ids[k] >= 0 && ids[k] < vocab && !seen[ids[k]]) {
                seen[ids[k]] = 1;
                n++;
            }
    }
    store_buf_fini(&buf);
    mem_free(seen);
    mem_free(ids);
    return ok ? n : (size_t)vocab;
}

/* Weights, gradients, moments and packed copies. Of an embedding table, gradients and
 * moments exist for rows that occur alone (a page more or less: two rows for one). */
static size_t param_bytes(struct model *m, size_t ids, long vocab, long *elements)
{
    int narrow = model_get_precision(m) == PRECISION_BF16 && model_get_backend(m)->bf16();
    size_t n, bytes = 0;
    const struct param *p = model_params(m, &n);

    *elements = 0;
    for (size_t i = 0; i < n; i++) {
        size_t size = (size_t)p[i].rows * (size_t)p[i].cols * sizeof(float);
        int matrix = p[i].rows > 1 && p[i].cols > 1 && !p[i].touched;
        size_t sparse = 2 * ids * (size_t)p[i].cols * sizeof(float), state = size;

        if (p[i].touched && p[i].rows == vocab && sparse < size)
            state = sparse;
        *elements += p[i].rows * p[i].cols;
        bytes +=
            size + (p[i].trainable ? 3 * state : 0) + (matrix ? 2 * size >> narrow : 0);
    }
    return bytes;
}

static int plan_memory(struct plan *c, struct stage_plan *t, const struct sequences *s,
                       const struct stage_shape *shape, struct err *e)
{
    const struct common_options *o = &t->stage->common;
    struct model_options m = {
        .backend = c->backend,
        .head = shape->head,
        .outputs = shape->head == HEAD_CLASSIFY ? (long)c->spec.task.labels.n : 1,
        .pooling = (enum pooling)o->pooling,
        .value_head = shape->value_head,
        .trainable = t->stage->stage->loss != NULL,
        .keep_head = 0,
        .dropout = o->dropout,
        .precision = c->precision,
        .seed = (uint64_t)c->spec.seed};
    long micro = o->micro_tokens ? o->micro_tokens : TRAINER_MICRO_TOKENS, B;
    struct model *model = NULL;
    size_t step = 0;
    int rc = 0;

    if (o->pooling < 0)
        rc = model_default_pooling(c->spec.model, shape->head, &m.pooling, e);
    if (!rc)
        rc = model_open(&model, c->spec.model, &m, e);
    if (rc)
        return rc;
    B = micro / (t->longest ? t->longest : 1);
    if (B > o->batch * shape->sequences_per_example)
        B = o->batch * shape->sequences_per_example;
    rc = model_plan(model, B < 1 ? 1 : B, t->longest, &step, e);
    t->bytes = step + param_bytes(model, distinct_ids(s, c->info.vocab), c->info.vocab,
                                  &t->parameters);
    model_close(model);
    return rc;
}

static void plan_steps(struct plan *c, struct stage_plan *t)
{
    const struct common_options *o = &t->stage->common;
    long per_epoch = ((long)c->data[SPLIT_TRAIN].n + o->batch - 1) / o->batch;

    if (!t->stage->stage->loss)
        return;
    t->steps = o->steps ? o->steps : (long)ceil(o->epochs * (double)per_epoch - 1e-9);
    t->steps = t->steps < 1 ? 1 : t->steps;
    t->epochs = (double)t->steps / (double)per_epoch;
}

static int plan_stage(struct plan *c, const struct stage_spec *st, struct err *e)
{
    const struct dataset *d = &c->data[SPLIT_TRAIN];
    struct stage_plan *t = &c->stage[c->n];
    struct stage_shape shape = {0};
    struct sequences s = {0};
    int rc;

    t->stage = st;
    plan_steps(c, t);
    st->stage->shape(st->config, &c->spec, &shape);
    rc = encode_dataset(&s, d, NULL, shape.reward_input, &c->encode, e);
    if (rc)
        return rc;
    t->tokens_per_epoch = (double)s.offset[s.n];
    t->longest = (long)s.longest;
    t->truncated = s.truncated;
    t->sequences = s.n;
    t->tokens = t->tokens_per_epoch * t->epochs;
    rc = plan_memory(c, t, &s, &shape, e);
    t->bytes += sequences_bytes(&s);
    for (int i = 0; i < SPLITS; i++)
        t->bytes += dataset_bytes(&c->data[i]);
    sequences_fini(&s);
    c->n++;
    return rc;
}

/* Stages and steps alone; the model's tensors are looked at once. */
static int plan_briefly(struct plan *c, struct err *e)
{
    const struct stage_spec *first = &c->spec.stage[0];
    struct model_options m = {.backend = c->backend, .head = HEAD_NONE};
    struct model *model = NULL;
    int rc = 0;

    for (size_t i = 0; i < c->spec.n_stages && i < STAGES_SHOWN; i++) {
        c->stage[i].stage = &c->spec.stage[i];
        plan_steps(c, &c->stage[c->n++]);
    }
    if (first->common.pooling < 0)
        rc = model_default_pooling(c->spec.model, HEAD_CLASSIFY, &m.pooling, e);
    if (!rc)
        rc = model_open(&model, c->spec.model, &m, e);
    model_close(model);
    return rc;
}

static void choose_precision(struct plan *c)
{
    if (c->spec.resources.precision == ASK_AUTO)
        c->precision = precision_auto(c->backend, &c->speedup);
    else
        c->precision = (enum op_precision)(c->spec.resources.precision - ASK_F32);
}

/* Everything after a good spec; failures become problems. */
static void make_plan(struct plan *c)
{
    struct err e = {0};

    load_data(c);
    if (c->problems.errors)
        return;
    if (model_read_info(c->spec.model, &c->info, &e)) {
        problems_add(&c->problems, node_get(c->spec.root, "model"), e.mend, "%s", e.msg);
        return;
    }
    check_tokens(c);
    if (c->problems.errors)
        return;
    c->backend = backend_find(spec_device(&c->spec));
    c->backend->set_threads((int)c->spec.resources.threads);
    if (c->brief) {
        if (plan_briefly(c, &e))
            problems_add(&c->problems, node_get(c->spec.root, "model"), e.mend, "%s",
                         e.msg);
        return;
    }
    choose_precision(c);
    for (size_t i = 0; i < c->spec.n_stages && i < STAGES_SHOWN; i++)
        if (plan_stage(c, &c->spec.stage[i], &e)) {
            problems_add(&c->problems, node_get(c->spec.root, "model"), e.mend, "%s",
                         e.msg);
            return;
        }
}

static size_t peak_bytes(const struct plan *c)
{
    size_t most = 0;

    for (size_t i = 0; i < c->n; i++)
        if (c->stage[i].bytes > most)
            most = c->stage[i].bytes;
    return most;
}

/* 24811 -> "24,811" */
static const char *grouped(char *buf, size_t n, double x)
{
    char plain[40];
    size_t len, k = 0;

    snprintf(plain, sizeof plain, "%.0f", x);
    len = strlen(plain);
    for (size_t i = 0; i < len && k + 2 < n; i++) {
        if (i && (len - i) % 3 == 0)
            buf[k++] = ',';
        buf[k++] = plain[i];
    }
    buf[k] = '\0';
    return buf;
}

static void print_plan(const struct plan *c)
{
    const struct spec *s = &c->spec;
    char line[256], a[40], b[40], m[40];

    c->backend->describe(line, sizeof line);
    printf("job     %s: %zu stage%s, seed %ld%s\n", s->name, s->n_stages,
           s->n_stages == 1 ? "" : "s", s->seed, s->seeds > 1 ? " and on" : "");
    printf("model   %s: %s, %ld layers of width %ld, %s parameters\n", s->model,
           c->info.family, c->info.layers, c->info.width,
           grouped(a, sizeof a, (double)c->stage[0].parameters));
    printf("data    %zu training, %zu validation, %zu test rows; %zu labels; %ld tokens at "
           "most\n",
           c->data[SPLIT_TRAIN].n, c->data[SPLIT_VALIDATION].n, c->data[SPLIT_TEST].n,
           s->task.labels.n, s->data.max_tokens);
    printf("device  %s\n", line);
    printf("math    matrix products in %s", model_precision_names[c->precision]);
    if (c->speedup > 0)
        printf(" (auto: bf16 is %.2f times as fast as f32)", c->speedup);
    else if (c->spec.resources.precision == ASK_AUTO)
        printf(" (auto: no instructions for bf16)");
    printf("\n\n");
    printf("%-10s %12s %10s %14s %8s %6s %9s %10s  %s\n", "stage", "parameters",
           "sequences", "tokens", "steps", "batch", "lr", "memory", "needs");
    for (size_t i = 0; i < c->n; i++) {
        const struct stage_plan *t = &c->stage[i];
        const struct stage_spec *st = t->stage;
        char count[40];

        printf("%-10s %12s %10s %14s %8ld %6ld %9g %10s  ", st->name,
               grouped(a, sizeof a, (double)t->parameters),
               grouped(count, sizeof count, (double)t->sequences),
               grouped(b, sizeof b, t->tokens), t->steps, st->common.batch, st->common.lr,
               str_bytes(m, sizeof m, (double)t->bytes));
        for (int k = 0; k < st->n_needs; k++)
            printf("%s%s", k ? ", " : "", s->stage[st->needs[k]].name);
        printf("%s\n", st->n_needs ? "" : "-");
    }
    printf("\npeak memory per rank: at most about %s\n",
           str_bytes(m, sizeof m, (double)peak_bytes(c)));
}

static void write_stage_json(const struct plan *c, const struct stage_plan *t,
                             struct str *out)
{
    const struct stage_spec *st = t->stage;

    str_addf(out, "{\"name\": \"%s\", \"algorithm\": \"%s\", \"needs\": [", st->name,
             st->stage->name);
    for (int k = 0; k < st->n_needs; k++)
        str_addf(out, "%s\"%s\"", k ? ", " : "", c->spec.stage[st->needs[k]].name);
    str_addf(out, "], \"steps\": %ld", t->steps);
    if (c->brief) {
        str_add_char(out, '}');
        return;
    }
    str_addf(out,
             ", \"parameters\": %ld, \"sequences\": %zu, \"truncated\": %zu, \"longest\": "
             "%ld, \"batch\": %ld, \"peak_bytes\": %zu, \"lr\": ",
             t->parameters, t->sequences, t->truncated, t->longest, st->common.batch,
             t->bytes);
    json_number(out, st->common.lr);
    str_add(out, ", \"epochs\": ");
    json_number(out, t->epochs);
    str_add(out, ", \"tokens_per_epoch\": ");
    json_number(out, t->tokens_per_epoch);
    str_add(out, ", \"tokens\": ");
    json_number(out, t->tokens);
    str_add_char(out, '}');
}

static void write_json(const struct plan *c, struct str *out)
{
    str_addf(out, "{\"ok\": %s, \"problems\": ", c->problems.errors ? "false" : "true");
    problems_write_json(&c->problems, out);
    str_add(out, ", \"plan\": ");
    if (c->problems.errors) {
        str_add(out, "null}\n");
        return;
    }
    str_add(out, "{\"name\": ");
    str_add_json(out, c->spec.name, strlen(c->spec.name));
    str_add(out, ", \"model\": ");
    str_add_json(out, c->spec.model, strlen(c->spec.model));
    str_addf(out, ", \"seeds\": %ld, \"workers\": %ld, \"threads\": %ld", c->spec.seeds,
             c->spec.resources.workers, c->spec.resources.threads);
    str_addf(out,
             ", \"family\": \"%s\", \"rows\": {\"train\": %zu, \"validation\": %zu, "
             "\"test\": %zu}, \"labels\": %zu",
             c->info.family, c->data[SPLIT_TRAIN].n, c->data[SPLIT_VALIDATION].n,
             c->data[SPLIT_TEST].n, c->spec.task.labels.n);
    if (!c->brief)
        str_addf(out, ", \"precision\": \"%s\", \"peak_bytes\": %zu",
                 model_precision_names[c->precision], peak_bytes(c));
    str_add(out, ", \"stages\": [");
    for (size_t i = 0; i < c->n; i++) {
        str_add(out, i ? ", " : "");
        write_stage_json(c, &c->stage[i], out);
    }
    str_add(out, "]}}\n");
}

static int run_check(const struct check_args *o, struct err *e)
{
    struct plan *c = mem_alloc(sizeof *c);
    struct str json = {0};
    int rc;

    if (!c) {
        err_set(e, ERR_NOMEM, "check: out of memory");
        err_print(e, "hone");
        return e->code;
    }
    c->brief = o->brief;
    problems_init(&c->problems, NULL);
    rc = spec_read(&c->spec, o->words.item[0], o->set.item, &c->problems, e);
    if (!rc) {
        make_plan(c);
        rc = problems_result(&c->problems, e);
    }
    problems_print(&c->problems, "hone");
    if (o->json) {
        write_json(c, &json);
        if (str_failed(&json)) {
            rc = err_set(e, ERR_NOMEM, "check: out of memory");
            err_print(e, "hone");
        } else {
            fputs(str_get(&json), stdout);
        }
    } else if (!rc && !c->brief) {
        print_plan(c);
    } else if (c->problems.errors > 1) {
        fprintf(stderr, "hone: %d problems\n", c->problems.errors);
    }
    str_fini(&json);
    for (int i = 0; i < SPLITS; i++)
        dataset_fini(&c->data[i]);
    tok_close(c->tok);
    problems_fini(&c->problems);
    spec_fini(&c->spec);
    mem_free(c);
    return rc;
}

int verb_check(int argc, char **argv)
{
    struct check_args o = {0};
    struct err e = {0};
    int rc = args_parse(&usage, argc, argv, &o, &e);

    if (rc)
        return verb_result(rc, &e);
    /* Problems have been printed one by one. */
    return err_exit_status(run_check(&o, &e));
}
