/* hone check: every problem of a job at once, then its plan: rows, tokens, steps,
 * parameters and peak memory per rank of each stage, before anything is started.
 *
 * The memory of a stage is planned in memory.h. */
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
#include "worker/train/job.h"
#include "worker/train/memory.h"
#include "worker/train/precision.h"
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
    long steps, longest;
    double epochs, tokens_per_epoch, tokens; /* tokens: over all steps */
    size_t truncated, sequences;
    struct memory_plan memory;
};

struct plan {
    int brief;
    struct spec spec;
    struct problems problems;
    struct dataset data[SPLITS];
    struct tok *tok;
    const struct backend *backend; /* on a login node: that of its processors */
    const char *absent;  /* why the device that the job names is not here; or NULL */
    size_t device_bytes; /* memory of the device; 0: none, or not here */
    enum op_precision precision; /* what a run started now would take */
    double speedup;              /* of bf16, where that was measured; else 0 */
    struct encode_spec encode;
    struct model_info info;
    size_t data_bytes; /* of rows and tokenizer, as this process took them */
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
    if (job_encode_spec(s, c->tok, &c->encode, &e)) {
        problems_add(&c->problems, node_get(s->root, "model"), e.mend, "%s", e.msg);
        return;
    }
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

static int plan_memory(struct plan *c, struct stage_plan *t,
                       const struct stage_shape *shape, struct sequences s[SPLITS],
                       struct err *e)
{
    struct memory_request r = {.spec = &c->spec,
                               .stage = t->stage,
                               .shape = shape,
                               .backend = c->backend,
                               .precision = c->precision,
                               .ranks = (int)c->spec.resources.workers,
                               .shard = c->spec.resources.shard_optimizer != SHARD_FALSE,
                               .train = &s[SPLIT_TRAIN],
                               .validation = &s[SPLIT_VALIDATION],
                               .test = &s[SPLIT_TEST],
                               .steps = t->steps,
                               .bucket_mb = c->spec.resources.bucket_mb,
                               .recompute = c->spec.resources.recompute == RECOMPUTE_ON,
                               .data = c->data_bytes};

    if (!c->absent && !c->device_bytes)
        return memory_plan(&r, &t->memory, e);
    return memory_plan_device(&r, c->device_bytes, &t->memory, e);
}

static int plan_stage(struct plan *c, const struct stage_spec *st, struct err *e)
{
    struct stage_plan *t = &c->stage[c->n];
    struct stage_shape shape = {0};
    struct sequences s[SPLITS] = {0};
    const struct sequences *train = &s[SPLIT_TRAIN];
    int rc = 0;

    t->stage = st;
    plan_steps(c, t);
    st->stage->shape(st->config, &c->spec, &shape);
    for (int i = 0; !rc && i < SPLITS; i++)
        rc = encode_dataset(&s[i], &c->data[i], NULL, shape.reward_input, &c->encode, e);
    if (!rc) {
        t->tokens_per_epoch = (double)train->offset[train->n];
        t->longest = (long)train->longest;
        t->truncated = train->truncated;
        t->sequences = train->n;
        t->tokens = t->tokens_per_epoch * t->epochs;
        rc = plan_memory(c, t, &shape, s, e);
    }
    for (int i = 0; i < SPLITS; i++)
        sequences_fini(&s[i]);
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

/* Where to compute. A device that is not here is planned for all the same: this may be a
 * login node. */
static int find_device(struct plan *c, struct err *e)
{
    const char *name = spec_device(&c->spec), *reason = backend_reason(name);
    size_t left;

    c->backend = backend_find(*reason ? "cpu" : name);
    c->backend->set_threads((int)c->spec.resources.threads);
    if (*reason) {
        c->absent = reason;
        problems_warn(&c->problems, c->spec.file,
                      "start the job where it can, or set device: auto",
                      "device \"%s\" cannot be used on this machine: %s", name, reason);
        return 0;
    }
    if (c->backend->memory(&left, &c->device_bytes))
        return err_set(e, ERR_DEVICE, "%s", c->backend->error());
    return 0;
}

static void choose_precision(struct plan *c)
{
    if (c->spec.resources.precision == ASK_AUTO && c->absent)
        c->precision = PRECISION_BF16; /* measured there; this needs more memory */
    else if (c->spec.resources.precision == ASK_AUTO)
        c->precision = precision_auto(c->backend, &c->speedup);
    else
        c->precision = (enum op_precision)(c->spec.resources.precision - ASK_F32);
}

/* Everything after a good spec; failures become problems. */
static void make_plan(struct plan *c)
{
    size_t before = memory_anonymous();
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
    if (find_device(c, &e)) {
        problems_add(&c->problems, NULL, e.mend, "%s", e.msg);
        return;
    }
    if (c->brief) {
        if (plan_briefly(c, &e))
            problems_add(&c->problems, node_get(c->spec.root, "model"), e.mend, "%s",
                         e.msg);
        return;
    }
    c->data_bytes = memory_anonymous();
    c->data_bytes -= before < c->data_bytes ? before : c->data_bytes;
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
        if (c->stage[i].memory.peak > most)
            most = c->stage[i].memory.peak;
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

/* Parts that add up to the peak. */
static void print_memory(const struct plan *c)
{
    char m[40];

    printf("\n%-10s", c->absent || c->device_bytes ? "device" : "memory");
#define X(part) printf(" %10s", #part);
    MEMORY_PARTS(X)
#undef X
    printf("\n");
    for (size_t i = 0; i < c->n; i++) {
        const struct memory_plan *p = &c->stage[i].memory;

        printf("%-10s", c->stage[i].stage->name);
#define X(part) printf(" %10s", str_bytes(m, sizeof m, (double)p->part));
        MEMORY_PARTS(X)
#undef X
        printf("%s\n", p->recompute ? "  (layers recomputed)" : "");
    }
}

/* What lies where, and in how large parts. */
static void print_device(const struct plan *c)
{
    char host[40], all[40];

    printf("\n");
    for (size_t i = 0; i < c->n; i++)
        printf("%-10s at most %ld tokens at once; program, data and exchange (%s) in the "
               "host's memory\n",
               c->stage[i].stage->name, c->stage[i].memory.micro_tokens,
               str_bytes(host, sizeof host, (double)c->stage[i].memory.host));
    if (c->device_bytes)
        printf("%-10s %s\n", "of", str_bytes(all, sizeof all, (double)c->device_bytes));
}

static void print_plan(const struct plan *c)
{
    const struct spec *s = &c->spec;
    char line[256], a[40], b[40], m[40];

    if (c->absent)
        snprintf(line, sizeof line, "%s, not on this machine", spec_device(s));
    else
        c->backend->describe(line, sizeof line);
    printf("job     %s: %zu stage%s, seed %ld%s\n", s->name, s->n_stages,
           s->n_stages == 1 ? "" : "s", s->seed, s->seeds > 1 ? " and on" : "");
    printf("model   %s: %s, %ld layers of width %ld, %s parameters\n", s->model,
           c->info.family, c->info.layers, c->info.width,
           grouped(a, sizeof a, (double)c->stage[0].memory.parameters));
    if (s->task.kind == TASK_CLASSIFY)
        snprintf(a, sizeof a, "%zu labels", s->task.labels.n);
    else
        snprintf(a, sizeof a, "answers");
    printf("data    %zu training, %zu validation, %zu test rows; %s; %ld tokens at most\n",
           c->data[SPLIT_TRAIN].n, c->data[SPLIT_VALIDATION].n, c->data[SPLIT_TEST].n, a,
           s->data.max_tokens);
    printf("device  %s\n", line);
    printf("math    matrix products in %s", model_precision_names[c->precision]);
    if (c->speedup > 0)
        printf(" (auto: two-byte numbers are %.2f times as fast as f32)", c->speedup);
    else if (c->spec.resources.precision == ASK_AUTO && c->absent)
        printf(" (auto: measured where it starts)");
    else if (c->spec.resources.precision == ASK_AUTO)
        printf(" (auto: no instructions for shorter numbers)");
    printf("\n\n");
    printf("%-10s %12s %10s %14s %8s %6s %9s %10s  %s\n", "stage", "parameters",
           "sequences", "tokens", "steps", "batch", "lr", "memory", "needs");
    for (size_t i = 0; i < c->n; i++) {
        const struct stage_plan *t = &c->stage[i];
        const struct stage_spec *st = t->stage;
        char count[40];

        printf("%-10s %12s %10s %14s %8ld %6ld %9g %10s  ", st->name,
               grouped(a, sizeof a, (double)t->memory.parameters),
               grouped(count, sizeof count, (double)t->sequences),
               grouped(b, sizeof b, t->tokens), t->steps, st->common.batch, st->common.lr,
               str_bytes(m, sizeof m, (double)t->memory.peak));
        for (int k = 0; k < st->n_needs; k++)
            printf("%s%s", k ? ", " : "", s->stage[st->needs[k]].name);
        printf("%s\n", st->n_needs ? "" : "-");
    }
    print_memory(c);
    if (c->absent || c->device_bytes)
        print_device(c);
    printf("\npeak memory per rank: about %s%s\n",
           str_bytes(m, sizeof m, (double)peak_bytes(c)),
           c->absent || c->device_bytes ? " of device memory" : "");
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
             t->memory.parameters, t->sequences, t->truncated, t->longest, st->common.batch,
             t->memory.peak);
    json_number(out, st->common.lr);
    str_add(out, ", \"epochs\": ");
    json_number(out, t->epochs);
    str_add(out, ", \"tokens_per_epoch\": ");
    json_number(out, t->tokens_per_epoch);
    str_add(out, ", \"tokens\": ");
    json_number(out, t->tokens);
    if (c->absent || c->device_bytes)
        str_addf(out, ", \"host_bytes\": %zu, \"micro_tokens\": %ld", t->memory.host,
                 t->memory.micro_tokens);
    str_addf(out, ", \"recompute\": %s", t->memory.recompute ? "true" : "false");
    str_addf(out, ", \"memory\": {\"when\": \"%s\"", t->memory.when);
#define X(part) str_addf(out, ", \"" #part "\": %zu", t->memory.part);
    MEMORY_PARTS(X)
#undef X
    str_add(out, "}}");
}

/* Which program, and where the job file names it: whether it exists, the daemon says. */
static void write_notify_json(const struct plan *c, struct str *out)
{
    const char *name = c->spec.notify;
    char where[FILE_PATH_MAX];

    if (!name)
        return;
    spec_place(&c->spec, node_get(c->spec.root, "notify"), where);
    str_add(out, ", \"notify\": {\"program\": ");
    str_add_json(out, name, strlen(name));
    str_add(out, ", \"where\": ");
    str_add_json(out, where, strlen(where));
    str_add_char(out, '}');
}

/* What srun gets; absent: no Slurm. */
static void write_slurm_json(const struct opt_list *options, struct str *out)
{
    str_add(out, ", \"slurm\": [");
    for (size_t i = 0; i < options->n; i++) {
        str_add(out, i ? ", " : "");
        str_add_json(out, options->text[i], strlen(options->text[i]));
    }
    str_add(out, "]");
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
    str_addf(out, ", \"gpus\": %ld",
             strcmp(c->backend->name, "cuda") ? 0 : c->spec.resources.workers);
    write_notify_json(c, out);
    if (c->spec.resources.launcher == LAUNCHER_SLURM)
        write_slurm_json(&c->spec.resources.slurm, out);
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
    problems_init(&c->problems, NULL);
    rc = spec_read(&c->spec, o->words.item[0], o->set.item, &c->problems, e);
    /* Seeds side by side: whether they have room is what a scheduler must know. */
    c->brief = o->brief && c->spec.seeds <= 1;
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
