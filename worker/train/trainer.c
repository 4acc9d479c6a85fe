/* The trainer's step; see trainer.h. Fails with the codes of what it calls; after a failure
 * other than a skipped step the trainer can only be closed. */
#include "worker/train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "worker/data/pack.h"
#include "worker/dist/shard.h"

enum { NAME_MAX_BYTES = 96, SCALE_FIRST = 65536, SCALE_GROWTH = 2, SCALE_STEPS = 2000 };

const char *const trainer_part_names[TRAINER_PARTS] = {
    "time_data", "time_forward", "time_backward", "time_reduce", "time_optimizer"};

/* Examples with their outputs: example i has S sequences of O outputs. */
struct examples {
    size_t n, capacity;
    uint32_t *number; /* (n) training rows */
    int *label;       /* (n) */
    float *out, *d_out, *value, *d_value;
};

/* What of a batch is this rank's, and how it is cut into micro-batches. */
struct plan {
    size_t n, n_own, tokens; /* examples of the batch, of this rank; tokens of the batch */
    size_t answer;           /* ... that belong to answers */
    uint32_t *example;       /* (n) */
    size_t *length;          /* (n) tokens of the examples */
    int *owner;              /* (n) rank of the examples */
    size_t cap_batch;
    uint32_t *seq; /* (n_own * S) sequence numbers */
    struct pack_part *part;
    size_t n_parts;
    int by_example; /* a part holds whole examples, and needs nothing else for its loss */
};

struct trainer {
    struct trainer_setup setup;
    const struct backend *backend;
    struct tape *tape;
    struct ahead *ahead; /* packs the parts of `plan`, then those of `next` */
    struct optim optim;
    struct loss_scale scale;
    size_t S, O, micro_tokens;
    struct examples own, all; /* of this rank; of the batch (several ranks) */
    struct plan plan, next;   /* of this step; of the one to come, n = 0: not known */
    const uint32_t *expected; /* what the next step will be asked for, n_expected of them */
    size_t n_expected;
    struct part_report *reports; /* (world) */
    float *seed;                 /* gradients of a part's outputs, grows */
    size_t cap_seed;
    char bad[NAME_MAX_BYTES];
    enum trainer_part part; /* that is running, */
    double at;              /* ... and when it began */
};

/* What a rank says of its forward and backward. */
struct part_report {
    double loss;
    char bad[NAME_MAX_BYTES]; /* of a loss that is not finite */
    int n_metrics;
    double metric[METRICS_MAX];
};

int trainer_open(struct trainer **out, const struct trainer_setup *s, struct err *e)
{
    struct trainer *t = mem_alloc(sizeof *t);
    int r;

    *out = NULL;
    if (!t)
        return err_set(e, ERR_NOMEM, "trainer: out of memory");
    t->setup = *s;
    t->backend = model_get_backend(s->model);
    t->S = s->sequences->per_example;
    t->O = (size_t)model_outputs(s->model);
    t->scale.factor = model_get_precision(s->model) == PRECISION_F16 ? SCALE_FIRST : 1;
    t->micro_tokens = s->micro_tokens ? (size_t)s->micro_tokens : TRAINER_MICRO_TOKENS;
    r = optim_open(&t->optim, s->model, &s->optim, s->comm, e);
    if (r)
        goto fail;
    r = ERR_NOMEM;
    t->tape = tape_new(t->backend, e);
    if (!t->tape)
        goto fail;
    tape_reserve(t->tape, s->step_bytes);
    t->ahead = ahead_new(s->sequences, t->backend->device != NULL, e);
    if (!t->ahead)
        goto fail;
    t->reports = mem_array((size_t)s->comm->world, sizeof *t->reports);
    if (!t->reports) {
        err_set(e, ERR_NOMEM, "trainer: out of memory");
        goto fail;
    }
    *out = t;
    return 0;
fail:
    trainer_close(t);
    return r;
}

static void free_examples(struct examples *x)
{
    mem_free(x->number);
    mem_free(x->label);
    mem_free(x->out);
    mem_free(x->d_out);
    mem_free(x->value);
    mem_free(x->d_value);
    memset(x, 0, sizeof *x);
}

static void free_plan(struct plan *p)
{
    mem_free(p->example);
    mem_free(p->length);
    mem_free(p->owner);
    mem_free(p->seq);
    mem_free(p->part);
    memset(p, 0, sizeof *p);
}

void trainer_close(struct trainer *t)
{
    if (!t)
        return;
    ahead_free(t->ahead);
    tape_free(t->tape);
    optim_close(&t->optim);
    free_examples(&t->own);
    free_examples(&t->all);
    free_plan(&t->plan);
    free_plan(&t->next);
    mem_free(t->reports);
    mem_free(t->seed);
    mem_free(t);
}

struct optim *trainer_optim(struct trainer *t)
{
    return &t->optim;
}

struct loss_scale *trainer_scale(struct trainer *t)
{
    return &t->scale;
}

/* ---- the shard ---- */

/* Room for n examples, gradients of their outputs zeroed. */
static int reserve_examples(const struct trainer *t, struct examples *x, size_t n,
                            struct err *e)
{
    size_t m = n * t->S;

    if (n > x->capacity) {
        free_examples(x);
        x->number = mem_array(n, sizeof *x->number);
        x->label = mem_array(n, sizeof *x->label);
        x->out = mem_array(m * t->O, sizeof *x->out);
        x->d_out = mem_array(m * t->O, sizeof *x->d_out);
        x->value = mem_array(m, sizeof *x->value);
        x->d_value = mem_array(m, sizeof *x->d_value);
        if (!x->number || !x->label || !x->out || !x->d_out || !x->value || !x->d_value)
            return err_set(e, ERR_NOMEM, "batch of %zu examples: out of memory", n);
        x->capacity = n;
    }
    x->n = n;
    if (n) {
        memset(x->d_out, 0, m * t->O * sizeof *x->d_out);
        memset(x->d_value, 0, m * sizeof *x->d_value);
    }
    return 0;
}

static int reserve_plan(const struct trainer *t, struct plan *p, size_t n, struct err *e)
{
    if (n > p->cap_batch) {
        free_plan(p);
        p->example = mem_array(n, sizeof *p->example);
        p->length = mem_array(n, sizeof *p->length);
        p->owner = mem_array(n, sizeof *p->owner);
        p->seq = mem_array(n * t->S, sizeof *p->seq);
        p->part = mem_array(n * t->S, sizeof *p->part);
        if (!p->example || !p->length || !p->owner || !p->seq || !p->part)
            return err_set(e, ERR_NOMEM, "batch of %zu examples: out of memory", n);
        p->cap_batch = n;
    }
    p->n = n;
    return 0;
}

static void set_example(struct trainer *t, struct examples *x, size_t i, uint32_t number)
{
    x->number[i] = number;
    x->label[i] = t->setup.run->label[number];
}

static size_t tokens_of(const struct trainer *t, const struct plan *p, size_t first,
                        size_t n)
{
    const size_t *offset = t->setup.sequences->offset;
    size_t tokens = 0;

    for (size_t i = first; i < first + n; i++)
        tokens += offset[p->seq[i] + 1] - offset[p->seq[i]];
    return tokens;
}

/* Which examples of the batch are this rank's. */
static int choose_own(const struct trainer *t, struct plan *p, struct err *e)
{
    const struct comm *c = t->setup.comm;
    const size_t *offset = t->setup.sequences->offset;
    const int *answer = t->setup.sequences->answer;
    int r = 0;

    p->tokens = p->answer = p->n_own = 0;
    for (size_t i = 0; i < p->n; i++) {
        size_t first = (size_t)p->example[i] * t->S;

        p->length[i] = offset[first + t->S] - offset[first];
        p->owner[i] = 0;
        p->tokens += p->length[i];
        for (size_t k = first; answer && k < first + t->S; k++)
            p->answer += offset[k + 1] - offset[k] - (size_t)answer[k];
    }
    if (c->world > 1)
        r = shard_by_tokens(p->length, p->n, c->world, p->owner, e);
    for (size_t i = 0; !r && i < p->n; i++) {
        if (p->owner[i] != c->rank)
            continue;
        for (size_t j = 0; j < t->S; j++)
            p->seq[p->n_own * t->S + j] = (uint32_t)(p->example[i] * t->S + j);
        p->n_own++;
    }
    return r;
}

/* ---- micro-batches ---- */

/* Cut the sequences into parts of at most micro_tokens, in units of `unit` sequences (a
 * unit that is longer stands alone). */
static void cut(const struct trainer *t, struct plan *p, size_t unit)
{
    size_t have = 0;

    p->n_parts = 0;
    for (size_t i = 0; i < p->n_own * t->S; i += unit) {
        size_t tokens = tokens_of(t, p, i, unit);

        if (!p->n_parts || have + tokens > t->micro_tokens) {
            p->part[p->n_parts++] = (struct pack_part){i, 0};
            have = 0;
        }
        p->part[p->n_parts - 1].n += unit;
        have += tokens;
    }
}

/* Whole examples to a part, where the stage allows parts and each example fits into one. */
static int fits_by_example(const struct trainer *t, const struct plan *p)
{
    if (!t->setup.stage->separable)
        return 0;
    for (size_t i = 0; i < p->n_own; i++)
        if (t->S > 1 && tokens_of(t, p, i * t->S, t->S) > t->micro_tokens)
            return 0;
    return 1;
}

/* Several parts that are not by example run forward twice. */
static int runs_again(const struct plan *p)
{
    return !p->by_example && p->n_parts > 1;
}

/* Plan a batch, and have its parts packed after those that are being packed already. */
static int make_plan(struct trainer *t, struct plan *p, const uint32_t *example, size_t n,
                     struct err *e)
{
    int r = reserve_plan(t, p, n, e);

    if (r)
        return r;
    memcpy(p->example, example, n * sizeof *example);
    r = choose_own(t, p, e);
    if (r)
        return r;
    p->by_example = fits_by_example(t, p);
    cut(t, p, p->by_example ? t->S : 1);
    for (int k = 0; !r && k <= runs_again(p); k++)
        r = ahead_add(t->ahead, p->seq, p->part, p->n_parts, e);
    return r;
}

/* The plan of this step, which may have been made in the last one. */
static int take_plan(struct trainer *t, const uint32_t *example, size_t n, struct err *e)
{
    struct plan *p = &t->next, was;
    size_t parts = p->n_parts * (size_t)(1 + runs_again(p));

    if (p->n == n && !memcmp(p->example, example, n * sizeof *example) &&
        ahead_waiting(t->ahead) == parts) {
        was = t->plan;
        t->plan = t->next;
        t->next = was;
        t->next.n = 0;
        return 0;
    }
    ahead_clear(t->ahead);
    p->n = 0;
    return make_plan(t, &t->plan, example, n, e);
}

/* This rank's shard of the batch; the next one's is planned. */
static int take_shard(struct trainer *t, const uint32_t *example, size_t n, struct err *e)
{
    const struct comm *c = t->setup.comm;
    int r = take_plan(t, example, n, e);

    if (!r && t->n_expected)
        r = make_plan(t, &t->next, t->expected, t->n_expected, e);
    t->n_expected = 0;
    if (!r)
        r = reserve_examples(t, &t->own, t->plan.n_own, e);
    if (!r && c->world > 1)
        r = reserve_examples(t, &t->all, n, e);
    for (size_t i = 0, k = 0; !r && i < n; i++) {
        if (c->world > 1)
            set_example(t, &t->all, i, example[i]);
        if (t->plan.owner[i] == c->rank)
            set_example(t, &t->own, k++, example[i]);
    }
    return r;
}

void trainer_expect(struct trainer *t, const uint32_t *example, size_t n)
{
    t->expected = example;
    t->n_expected = n;
}

/* From now on time belongs to `part`. */
static void enter(struct trainer *t, struct step_result *out, enum trainer_part part)
{
    double now = clock_now();

    out->seconds[t->part] += now - t->at;
    t->at = now;
    t->part = part;
    if (t->backend->device)
        t->backend->device->enter((int)part);
}

/* The step is over. A device's own times are those of the step before. */
static void leave(struct trainer *t, struct step_result *out)
{
    double seconds[TRAINER_PARTS];
    char notice[512];

    out->seconds[t->part] += clock_now() - t->at;
    if (t->backend->device && t->backend->device->notice(notice, sizeof notice))
        log_warn("%s", notice);
    if (t->backend->device && t->backend->device->step_seconds(seconds, TRAINER_PARTS))
        memcpy(out->seconds, seconds, sizeof seconds);
}

/* Forward of one part; its outputs go to own.out and own.value. */
static int forward(struct trainer *t, const struct pack_part *p, enum tape_mode mode,
                   uint64_t key, struct model_out *o, struct step_result *out,
                   struct err *e)
{
    const struct forward_options how = {.recompute = t->setup.recompute};
    struct packed in;
    int r;

    enter(t, out, PART_DATA);
    tape_reset(t->tape, mode);
    if (t->setup.dropout)
        tape_set_dropout(t->tape, key);
    r = ahead_next(t->ahead, &in, e);
    if (r)
        return r;
    enter(t, out, PART_FORWARD);
    invariant((size_t)in.B >= p->n);
    r = model_forward(t->setup.model, t->tape, &in, &how, o, e);
    if (!r)
        r = tape_result(t->tape, e);
    if (r)
        return r;
    invariant(o->logits->rows == in.B && (size_t)o->logits->cols == t->O);
    if (t->backend->copy_out(t->own.out + p->first * t->O, o->logits->data,
                             p->n * t->O * sizeof(float)) ||
        (o->value && t->backend->copy_out(t->own.value + p->first, o->value->data,
                                          p->n * sizeof(float))))
        return err_set(e, ERR_DEVICE, "outputs: %s", t->backend->error());
    return 0;
}

/* Gradients of n outputs into the tape, larger by the loss scale: a power of two, so that
 * no bit is lost. Outputs of sequences that only fill the micro-batch up have none. */
static int seed(struct trainer *t, struct tensor *x, const float *grad, size_t n,
                struct err *e)
{
    size_t all = (size_t)x->rows * (size_t)x->cols;

    invariant(n <= all);
    if (all > t->cap_seed) {
        float *more = mem_resize(t->seed, all, sizeof *more);

        if (!more)
            return err_set(e, ERR_NOMEM, "gradients of outputs: out of memory");
        t->seed = more;
        t->cap_seed = all;
    }
    for (size_t i = 0; i < all; i++)
        t->seed[i] = i < n ? grad[i] * (float)t->scale.factor : 0;
    tape_seed(t->tape, x, t->seed);
    return tape_result(t->tape, e);
}

static int backward(struct trainer *t, const struct pack_part *p, const struct model_out *o,
                    struct step_result *out, struct err *e)
{
    int r;

    enter(t, out, PART_BACKWARD);
    r = seed(t, o->logits, t->own.d_out + p->first * t->O, p->n * t->O, e);
    if (!r && o->value)
        r = seed(t, o->value, t->own.d_value + p->first, p->n, e);
    return r ? r : tape_backward(t->tape, e);
}

/* ---- loss ---- */

/* The stage's loss over n examples of x from `first`; adds to the result. */
static int take_loss(struct trainer *t, long step, struct examples *x, size_t first,
                     size_t n, size_t total, struct step_result *out, struct err *e)
{
    size_t at = first * t->S;
    struct metric_list part = {.n = 0};
    double loss = 0;
    struct stage_batch b = {.n = n,
                            .n_total = total,
                            .n_answer = t->plan.answer,
                            .step = step,
                            .example = x->number + first,
                            .label = x->label + first,
                            .out = x->out + at * t->O,
                            .value =
                                model_has_value_head(t->setup.model) ? x->value + at : NULL,
                            .d_out = x->d_out + at * t->O,
                            .d_value = x->d_value + at};
    int r = t->setup.stage->loss(t->setup.run, &b, &loss, &part, e);

    if (r)
        return r;
    out->loss += loss;
    for (int i = 0; i < part.n; i++) {
        int j = 0;

        while (j < out->metrics.n && strcmp(out->metrics.name[j], part.name[i]))
            j++;
        if (j < out->metrics.n)
            out->metrics.value[j] += part.value[i];
        else
            metric_add(&out->metrics, part.name[i], part.value[i]);
    }
    return 0;
}

/* One row an example: outputs, values. */
static void copy_row(const struct trainer *t, float *row, struct examples *x, size_t i,
                     int to_example)
{
    size_t n = t->S * t->O;

    if (to_example) {
        memcpy(x->out + i * n, row, n * sizeof *row);
        memcpy(x->value + i * t->S, row + n, t->S * sizeof *row);
    } else {
        memcpy(row, x->out + i * n, n * sizeof *row);
        memcpy(row + n, x->value + i * t->S, t->S * sizeof *row);
    }
}

/* Outputs of all ranks to all.out and all.value, in the batch's order. */
static int gather_outputs(struct trainer *t, struct err *e)
{
    const struct comm *c = t->setup.comm;
    size_t width = t->S * (t->O + 1), most = 0;
    size_t *count = mem_array((size_t)c->world, sizeof *count);
    float *mine = NULL, *rows = NULL;
    int r = 0;

    for (size_t i = 0; count && i < t->all.n; i++)
        if (++count[t->plan.owner[i]] > most)
            most = count[t->plan.owner[i]];
    mine = mem_array(most * width, sizeof *mine);
    rows = mem_array(most * width * (size_t)c->world, sizeof *rows);
    if (!count || !mine || !rows)
        r = err_set(e, ERR_NOMEM, "outputs of the ranks: out of memory");
    for (size_t i = 0; !r && i < t->own.n; i++)
        copy_row(t, mine + i * width, &t->own, i, 0);
    r = comm_agree(c, r, e);
    if (!r)
        r = c->all_gather(c, mine, most * width * sizeof *mine, rows, e);
    if (!r)
        memset(count, 0, (size_t)c->world * sizeof *count);
    for (size_t i = 0; !r && i < t->all.n; i++) {
        size_t k = (size_t)t->plan.owner[i] * most + count[t->plan.owner[i]]++;

        copy_row(t, rows + k * width, &t->all, i, 1);
    }
    mem_free(count);
    mem_free(mine);
    mem_free(rows);
    return r;
}

/* The loss of the whole batch, the same on every rank; gradients of the own outputs. */
static int whole_loss(struct trainer *t, long step, struct step_result *out, struct err *e)
{
    size_t k = 0, n = t->S * t->O;
    int r;

    if (t->setup.comm->world == 1)
        return take_loss(t, step, &t->own, 0, t->own.n, t->own.n, out, e);
    r = gather_outputs(t, e);
    if (!r)
        r = take_loss(t, step, &t->all, 0, t->all.n, t->all.n, out, e);
    for (size_t i = 0; !r && i < t->all.n; i++) {
        if (t->plan.owner[i] != t->setup.comm->rank)
            continue;
        memcpy(t->own.d_out + k * n, t->all.d_out + i * n, n * sizeof(float));
        memcpy(t->own.d_value + k * t->S, t->all.d_value + i * t->S, t->S * sizeof(float));
        k++;
    }
    return r;
}

/* Where a loss that is not finite began: a parameter, or the outputs, or the loss. */
static const char *find_origin(struct trainer *t)
{
    size_t n;
    struct param *p = model_params(t->setup.model, &n);

    for (size_t i = 0; i < n; i++) {
        struct adamw_tensor x = {.grad = p[i].data, .n = p[i].rows * p[i].cols};
        double sum = 0;
        struct grad_norm_args a = {&x, 1, &sum};

        if (!t->backend->grad_norm(&a) && !isfinite(sum))
            return p[i].name;
    }
    for (size_t i = 0; i < t->own.n * t->S * t->O; i++)
        if (!isfinite(t->own.out[i]))
            return "logits";
    return "loss";
}

/* Backward of part i, whose forward is on the tape. */
static int finish_part(struct trainer *t, long step, size_t i, const struct model_out *o,
                       struct step_result *out, struct err *e)
{
    if (!isfinite(out->loss))
        return 0;
    if (i + 1 == t->plan.n_parts && t->setup.comm->world > 1)
        tape_on_param(t->tape, optim_param_done, &t->optim);
    comm_note(t->setup.comm, COMM_BACKWARD, step);
    return backward(t, &t->plan.part[i], o, out, e);
}

/* Each part from forward to backward: its loss needs nothing else. */
static int run_separable(struct trainer *t, long step, size_t total, uint64_t key,
                         struct step_result *out, struct err *e)
{
    struct model_out o;
    int r = 0;

    for (size_t i = 0; !r && i < t->plan.n_parts && isfinite(out->loss); i++) {
        const struct pack_part *p = &t->plan.part[i];

        comm_note(t->setup.comm, COMM_FORWARD, step);
        r = forward(t, p, TAPE_TRAIN, key, &o, out, e);
        if (!r)
            r = take_loss(t, step, &t->own, p->first / t->S, p->n / t->S, total, out, e);
        if (!r)
            r = finish_part(t, step, i, &o, out, e);
    }
    return r;
}

/* All outputs first, then the loss, then backward; several parts run forward again. */
static int run_whole(struct trainer *t, long step, size_t total, uint64_t key,
                     struct step_result *out, struct err *e)
{
    const struct comm *c = t->setup.comm;
    int again = runs_again(&t->plan), r = 0;
    enum tape_mode first = again && !t->setup.dropout ? TAPE_INFER : TAPE_TRAIN;
    struct model_out o;

    for (size_t i = 0; !r && i < t->plan.n_parts; i++)
        r = forward(t, &t->plan.part[i], first, key, &o, out, e);
    if (t->setup.stage->separable) {
        if (!r)
            r = take_loss(t, step, &t->own, 0, t->own.n, total, out, e);
    } else {
        r = comm_agree(c, r, e);
        if (!r)
            r = whole_loss(t, step, out, e);
    }
    for (size_t i = 0; !r && i < t->plan.n_parts; i++) {
        comm_note(c, COMM_FORWARD, step);
        if (again)
            r = forward(t, &t->plan.part[i], TAPE_TRAIN, key, &o, out, e);
        if (!r)
            r = finish_part(t, step, i, &o, out, e);
    }
    return r;
}

/* Forward, loss and backward of this rank's shard. */
static int run_parts(struct trainer *t, long step, size_t total, uint64_t key,
                     struct step_result *out, struct err *e)
{
    if (t->plan.by_example)
        return run_separable(t, step, total, key, out, e);
    return run_whole(t, step, total, key, out, e);
}

/* Loss, metrics and what is not finite, of all ranks. Rank 0 has examples if any rank has,
 * so its list of metrics is whole. */
static int sum_reports(struct trainer *t, struct step_result *out, struct err *e)
{
    const struct comm *c = t->setup.comm;
    struct part_report own = {.loss = out->loss, .n_metrics = out->metrics.n};
    int r, whole = !t->setup.stage->separable;

    if (!isfinite(out->loss))
        snprintf(own.bad, sizeof own.bad, "%s", find_origin(t));
    memcpy(own.metric, out->metrics.value, sizeof own.metric);
    if (c->world == 1) {
        memcpy(t->bad, own.bad, sizeof t->bad);
        return 0;
    }
    r = c->all_gather(c, &own, sizeof own, t->reports, e);
    if (r)
        return r;
    *t->bad = 0;
    for (int k = 0; k < c->world; k++)
        if (*t->reports[k].bad && !*t->bad)
            memcpy(t->bad, t->reports[k].bad, sizeof t->bad);
    if (whole)
        return 0;
    out->loss = 0;
    memset(out->metrics.value, 0, sizeof out->metrics.value);
    for (int k = 0; k < c->world; k++) {
        out->loss += t->reports[k].loss;
        for (int i = 0; i < out->metrics.n; i++)
            out->metrics.value[i] += t->reports[k].metric[i];
    }
    return 0;
}

/* Norm, clip and update; or the name of the tensor that forbids it. */
static int update(struct trainer *t, struct step_result *out, double factor, struct err *e)
{
    const struct trainer_setup *s = &t->setup;
    double scale = 1;
    int bad, r = optim_norm(&t->optim, &out->grad_norm, &bad, e);

    if (r)
        return r;
    out->grad_norm /= t->scale.factor;
    if (bad >= 0 || !isfinite(out->grad_norm)) {
        out->bad = bad >= 0 ? t->optim.param[bad]->name : "gradient norm";
        return 0;
    }
    /* As torch.nn.utils.clip_grad_norm_: the small term keeps a zero norm harmless. */
    if (s->clip > 0 && s->clip < out->grad_norm + 1e-6)
        scale = s->clip / (out->grad_norm + 1e-6);
    return optim_step(&t->optim, factor, scale / t->scale.factor, e);
}

/* What the step says about the loss scale. */
static void rescale(struct loss_scale *s, int overflow)
{
    if (overflow) {
        s->factor /= SCALE_GROWTH;
        s->good = 0;
    } else if (++s->good == SCALE_STEPS) {
        s->factor *= SCALE_GROWTH;
        s->good = 0;
    }
}

static int run_step(struct trainer *t, long step, const uint32_t *example, size_t n,
                    struct step_result *out, struct err *e)
{
    const struct trainer_setup *s = &t->setup;
    uint64_t key = rng_key(s->run->seed, RNG_DROPOUT, (uint64_t)step, 0);
    double factor = sched_factor(&s->sched, step);
    int r;

    memset(out, 0, sizeof *out);
    out->lr = s->optim.lr * factor;
    t->at = clock_now();
    enter(t, out, PART_DATA);
    comm_note(s->comm, COMM_FORWARD, step);
    r = comm_agree(s->comm, take_shard(t, example, n, e), e);
    if (r)
        return r;
    out->tokens = t->plan.tokens;

    r = run_parts(t, step, n, key, out, e);
    enter(t, out, PART_REDUCE);
    r = comm_agree(s->comm, r, e);
    if (r)
        return r;
    comm_note(s->comm, COMM_REDUCE, step);
    r = sum_reports(t, out, e);
    if (!r)
        r = optim_reduce_all(&t->optim, e);
    enter(t, out, PART_OPTIMIZER);
    comm_note(s->comm, COMM_UPDATE, step);
    if (!r && *t->bad)
        out->bad = t->bad;
    else if (!r)
        r = update(t, out, factor, e);
    if (!r && out->bad)
        r = optim_skip(&t->optim, e);
    leave(t, out);
    if (!r && model_get_precision(s->model) == PRECISION_F16)
        rescale(&t->scale, out->bad != NULL);
    if (!r && !out->bad && s->stage->after_step)
        s->stage->after_step(s->run, &out->metrics);
    return r;
}

int trainer_step(struct trainer *t, long step, const uint32_t *example, size_t n,
                 struct step_result *out, struct err *e)
{
    int r;

    t->backend->step(1);
    r = run_step(t, step, example, n, out, e);
    t->backend->step(0);
    return r;
}
