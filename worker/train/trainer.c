/* The trainer's step; see trainer.h. Fails with the codes of what it calls; after a failure
 * other than a skipped step the trainer can only be closed. */
#include "worker/train/trainer.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "worker/data/pack.h"

struct part { /* a micro-batch: sequences [first, first + n) of the batch */
    size_t first, n;
};

struct trainer {
    struct trainer_setup setup;
    const struct backend *backend;
    struct tape *tape;
    struct packer *packer;
    struct optim optim;
    size_t S, O, micro_tokens;
    size_t capacity; /* examples the buffers below hold */
    uint32_t *seq;   /* (n * S) sequence numbers of the batch */
    struct part *part;
    size_t n_parts;
    int *label;
    float *out, *d_out, *value, *d_value;
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
    t->micro_tokens = s->micro_tokens ? (size_t)s->micro_tokens : TRAINER_MICRO_TOKENS;
    r = optim_open(&t->optim, s->model, &s->optim, e);
    if (r)
        goto fail;
    r = ERR_NOMEM;
    t->tape = tape_new(t->backend, e);
    if (!t->tape)
        goto fail;
    t->packer = packer_new(s->sequences, (long)t->micro_tokens, e);
    if (!t->packer)
        goto fail;
    *out = t;
    return 0;
fail:
    trainer_close(t);
    return r;
}

static void free_buffers(struct trainer *t)
{
    mem_free(t->seq);
    mem_free(t->part);
    mem_free(t->label);
    mem_free(t->out);
    mem_free(t->d_out);
    mem_free(t->value);
    mem_free(t->d_value);
    t->seq = NULL;
    t->part = NULL;
    t->label = NULL;
    t->out = t->d_out = t->value = t->d_value = NULL;
    t->capacity = 0;
}

void trainer_close(struct trainer *t)
{
    if (!t)
        return;
    packer_free(t->packer);
    tape_free(t->tape);
    optim_close(&t->optim);
    free_buffers(t);
    mem_free(t);
}

struct optim *trainer_optim(struct trainer *t)
{
    return &t->optim;
}

static int reserve(struct trainer *t, size_t n, struct err *e)
{
    size_t m = n * t->S;

    if (n <= t->capacity)
        return 0;
    free_buffers(t);
    t->seq = mem_array(m, sizeof *t->seq);
    t->part = mem_array(m, sizeof *t->part);
    t->label = mem_array(n, sizeof *t->label);
    t->out = mem_array(m * t->O, sizeof *t->out);
    t->d_out = mem_array(m * t->O, sizeof *t->d_out);
    t->value = mem_array(m, sizeof *t->value);
    t->d_value = mem_array(m, sizeof *t->d_value);
    if (!t->seq || !t->part || !t->label || !t->out || !t->d_out || !t->value ||
        !t->d_value)
        return err_set(e, ERR_NOMEM, "batch of %zu examples: out of memory", n);
    t->capacity = n;
    return 0;
}

static size_t tokens_of(const struct trainer *t, size_t first, size_t n)
{
    const size_t *offset = t->setup.sequences->offset;
    size_t tokens = 0;

    for (size_t i = first; i < first + n; i++)
        tokens += offset[t->seq[i] + 1] - offset[t->seq[i]];
    return tokens;
}

/* Cut m sequences into parts of at most micro_tokens, in units of `unit` sequences (a unit
 * that is longer stands alone). */
static void cut(struct trainer *t, size_t m, size_t unit)
{
    size_t have = 0;

    t->n_parts = 0;
    for (size_t i = 0; i < m; i += unit) {
        size_t tokens = tokens_of(t, i, unit);

        if (!t->n_parts || have + tokens > t->micro_tokens) {
            t->part[t->n_parts++] = (struct part){i, 0};
            have = 0;
        }
        t->part[t->n_parts - 1].n += unit;
        have += tokens;
    }
}

/* Whole examples to a part, where the stage allows parts and each example fits into one. */
static int cut_by_example(struct trainer *t, size_t n)
{
    if (!t->setup.stage->separable)
        return 0;
    for (size_t i = 0; i < n; i++)
        if (t->S > 1 && tokens_of(t, i * t->S, t->S) > t->micro_tokens)
            return 0;
    cut(t, n * t->S, t->S);
    return 1;
}

/* Forward of one part; its outputs go to t->out and t->value. */
static int forward(struct trainer *t, const struct part *p, enum tape_mode mode,
                   uint64_t key, struct model_out *o, struct err *e)
{
    struct packed in;
    size_t next = 0;
    int r;

    tape_reset(t->tape, mode);
    if (t->setup.dropout)
        tape_set_dropout(t->tape, key);
    r = packer_fill(t->packer, t->seq + p->first, p->n, &next, &in, e);
    if (r)
        return r;
    invariant(next == p->n);
    r = model_forward(t->setup.model, t->tape, &in, NULL, o, e);
    if (!r)
        r = tape_result(t->tape, e);
    if (r)
        return r;
    invariant((size_t)o->logits->rows == p->n && (size_t)o->logits->cols == t->O);
    if (t->backend->copy_out(t->out + p->first * t->O, o->logits->data,
                             p->n * t->O * sizeof(float)) ||
        (o->value &&
         t->backend->copy_out(t->value + p->first, o->value->data, p->n * sizeof(float))))
        return err_set(e, ERR_DEVICE, "outputs: %s", t->backend->error());
    return 0;
}

static int backward(struct trainer *t, const struct part *p, const struct model_out *o,
                    struct err *e)
{
    int r = tape_seed(t->tape, o->logits, t->d_out + p->first * t->O);

    if (!r && o->value)
        r = tape_seed(t->tape, o->value, t->d_value + p->first);
    if (r) /* kept by the tape, which has the reason */
        return tape_result(t->tape, e);
    return tape_backward(t->tape, e);
}

/* The stage's loss over n examples from `first`; adds to the result. */
static int take_loss(struct trainer *t, long step, const uint32_t *example, size_t first,
                     size_t n, size_t total, struct step_result *out, struct err *e)
{
    size_t at = first * t->S;
    struct metric_list part = {.n = 0};
    double loss = 0;
    struct stage_batch b = {.n = n,
                            .n_total = total,
                            .step = step,
                            .example = example + first,
                            .label = t->label + first,
                            .out = t->out + at * t->O,
                            .value =
                                model_has_value_head(t->setup.model) ? t->value + at : NULL,
                            .d_out = t->d_out + at * t->O,
                            .d_value = t->d_value + at};
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

/* Where a loss that is not finite began: a parameter, or the outputs, or the loss. */
static const char *find_origin(struct trainer *t, size_t m)
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
    for (size_t i = 0; i < m * t->O; i++)
        if (!isfinite(t->out[i]))
            return "logits";
    return "loss";
}

/* Forward, loss and backward of the whole batch. */
static int run_parts(struct trainer *t, long step, const uint32_t *example, size_t n,
                     uint64_t key, struct step_result *out, struct err *e)
{
    int single = cut_by_example(t, n), r = 0;
    struct model_out o;

    if (!single) {
        cut(t, n * t->S, 1);
        single = t->n_parts == 1;
        for (size_t i = 0; !single && i < t->n_parts; i++) {
            enum tape_mode mode = t->setup.dropout ? TAPE_TRAIN : TAPE_INFER;

            r = forward(t, &t->part[i], mode, key, &o, e);
            if (r)
                return r;
        }
        if (!single)
            r = take_loss(t, step, example, 0, n, n, out, e);
    }
    for (size_t i = 0; !r && i < t->n_parts; i++) {
        struct part *p = &t->part[i];

        if (!isfinite(out->loss))
            break;
        r = forward(t, p, TAPE_TRAIN, key, &o, e);
        if (!r && single)
            r = take_loss(t, step, example, p->first / t->S, p->n / t->S, n, out, e);
        if (!r && isfinite(out->loss))
            r = backward(t, p, &o, e);
    }
    return r;
}

/* Norm, clip and update; or the name of the tensor that forbids it. */
static int update(struct trainer *t, long step, struct step_result *out, struct err *e)
{
    const struct trainer_setup *s = &t->setup;
    double factor = sched_factor(&s->sched, step), scale = 1;
    int bad, r;

    out->lr = s->optim.lr * factor;
    r = optim_reduce_all(&t->optim, s->comm, e);
    if (!r)
        r = optim_norm(&t->optim, &out->grad_norm, &bad, e);
    if (r)
        return r;
    if (bad >= 0 || !isfinite(out->grad_norm)) {
        out->bad = bad >= 0 ? t->optim.param[bad]->name : "gradient norm";
        return 0;
    }
    /* As torch.nn.utils.clip_grad_norm_: the small term keeps a zero norm harmless. */
    if (s->clip > 0 && s->clip < out->grad_norm + 1e-6)
        scale = s->clip / (out->grad_norm + 1e-6);
    return optim_step(&t->optim, factor, scale, e);
}

int trainer_step(struct trainer *t, long step, const uint32_t *example, size_t n,
                 struct step_result *out, struct err *e)
{
    const struct trainer_setup *s = &t->setup;
    uint64_t key = rng_key(s->run->seed, RNG_DROPOUT, (uint64_t)step, 0);
    int r = reserve(t, n, e);

    memset(out, 0, sizeof *out);
    if (r)
        return r;
    for (size_t i = 0; i < n; i++) {
        t->label[i] = s->run->label[example[i]];
        for (size_t j = 0; j < t->S; j++)
            t->seq[i * t->S + j] = (uint32_t)(example[i] * t->S + j);
    }
    memset(t->d_out, 0, n * t->S * t->O * sizeof *t->d_out);
    memset(t->d_value, 0, n * t->S * sizeof *t->d_value);
    out->tokens = tokens_of(t, 0, n * t->S);

    r = run_parts(t, step, example, n, key, out, e);
    if (r)
        return r;
    if (!isfinite(out->loss)) {
        out->lr = s->optim.lr * sched_factor(&s->sched, step);
        out->bad = find_origin(t, n * t->S);
    } else {
        r = update(t, step, out, e);
    }
    if (!r && out->bad)
        r = optim_skip(&t->optim, e);
    if (!r && !out->bad && s->stage->after_step)
        s->stage->after_step(s->run, &out->metrics);
    return r;
}
