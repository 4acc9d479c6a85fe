/* The core of verify: forward and backward on recorded inputs, compared with PyTorch.
 *
 * The head is what the file asks for: `rewards`, `logits` by sequence or by token, or none.
 * Losses (those of transformers): mean cross-entropy over rows; over labels that are not
 * -100, for decoders logits at t-1 against the label of t; or, for rewards,
 * mean -log sigmoid(chosen - rejected), first half of the rows against the second. */
#include "worker/verb/verify.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "worker/model/internal.h"
#include "worker/verb/golden.h"

struct check {
    struct golden g;
    struct model *m;
    struct tape *t;
    struct model_out out;
    float *logits, *d_logits; /* host copies; D or V or C wide */
    double loss;
    struct verify_report *r;
};

/* ---- loss ---------------------------------------------------------------------------- */

/* -log softmax(x)[y]; adds scale times its gradient to d. */
static double row_loss(const float *x, long V, int y, double scale, float *d)
{
    double max = x[0], sum = 0;

    for (long v = 1; v < V; v++)
        max = x[v] > max ? x[v] : max;
    for (long v = 0; v < V; v++)
        sum += exp(x[v] - max);
    for (long v = 0; v < V; v++)
        d[v] += (float)(scale * (exp(x[v] - max) / sum - (v == y)));
    return log(sum) + max - x[y];
}

static int class_loss(struct check *c, struct err *e)
{
    long B = c->out.logits->rows, C = c->out.logits->cols;

    for (long b = 0; b < B; b++) {
        int y = c->g.label[b];

        if (y < 0 || y >= C)
            return err_set(e, ERR_CORRUPT, "labels: %d, but the model has %ld outputs", y,
                           C);
        c->loss += row_loss(c->logits + b * C, C, y, 1.0 / (double)B, c->d_logits + b * C) /
                   (double)B;
    }
    return 0;
}

/* Where the label of token i sits among the logits' rows: the row before it for decoders;
 * -1: no loss. */
static long label_row(const struct check *c, long b, long i)
{
    if (c->g.label[i] == -100)
        return -1;
    if (!c->m->config.causal)
        return i;
    return i > c->g.in.cu_seqlens[b] ? i - 1 : -1;
}

static int token_loss(struct check *c, struct err *e)
{
    long V = c->out.logits->cols, n = 0;

    for (long b = 0; b < c->g.in.B; b++)
        for (long i = c->g.in.cu_seqlens[b]; i < c->g.in.cu_seqlens[b + 1]; i++) {
            if (c->g.label[i] != -100 && (c->g.label[i] < 0 || c->g.label[i] >= V))
                return err_set(e, ERR_CORRUPT, "labels: %d, but the vocabulary has %ld",
                               c->g.label[i], V);
            n += label_row(c, b, i) >= 0;
        }
    for (long b = 0; b < c->g.in.B; b++)
        for (long i = c->g.in.cu_seqlens[b]; i < c->g.in.cu_seqlens[b + 1]; i++) {
            long row = label_row(c, b, i);

            if (row >= 0)
                c->loss += row_loss(c->logits + row * V, V, c->g.label[i], 1.0 / (double)n,
                                    c->d_logits + row * V) /
                           (double)n;
        }
    return 0;
}

static void pair_loss(struct check *c)
{
    long half = c->g.in.B / 2;

    for (long i = 0; i < half; i++) {
        double x = (double)c->logits[i] - c->logits[half + i];

        c->loss += (x < 0 ? log1p(exp(x)) - x : log1p(exp(-x))) / (double)half;
        c->d_logits[i] = (float)(-1 / (1 + exp(x)) / (double)half);
        c->d_logits[half + i] = -c->d_logits[i];
    }
}

/* ---- comparing ----------------------------------------------------------------------- */

static struct verify_row *add_row(struct check *c, const char *name, struct err *e)
{
    struct verify_row *row = &c->r->row[c->r->n];

    row->name = arena_strdup(&c->r->arena, name);
    if (!row->name) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    c->r->n++;
    return row;
}

static int compare(struct check *c, const char *name, const float *got, long n,
                   struct err *e)
{
    const float *want = golden_get(&c->g, name, n, e);
    struct verify_row *row = want ? add_row(c, name, e) : NULL;
    double off = 0, size = 0;

    if (!row)
        return e->code;
    row->n = n;
    row->share = -1;
    for (long i = 0; i < n; i++) {
        double diff = fabs((double)got[i] - want[i]), scale = fabs((double)want[i]);
        double share = diff / (c->r->rtol * (scale > 1 ? scale : 1));

        if (!isfinite(share))
            share = diff = INFINITY;
        off += diff * diff;
        size += (double)want[i] * want[i];
        if (share <= row->share)
            continue;
        row->share = share;
        row->diff = diff;
        row->got = got[i];
        row->want = want[i];
    }
    row->rms = size > 0 ? sqrt(off / size) : off > 0 ? INFINITY : 0;
    c->r->compared++;
    c->r->failed += row->share > 1;
    return 0;
}

static float *host_copy(struct check *c, const float *device, long n, struct err *e)
{
    float *p = mem_array((size_t)n, sizeof *p);

    if (!p) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    if (c->m->options.backend->copy_out(p, device, (size_t)n * sizeof *p)) {
        err_set(e, ERR_DEVICE, "copy from the device: %s", c->m->options.backend->error());
        mem_free(p);
        return NULL;
    }
    return p;
}

/* Compare the elements [from, from + n) of device memory, when the file has the name. */
static int compare_device(struct check *c, const char *name, const float *device, long n,
                          struct err *e)
{
    float *got;
    int rc;

    if (!safetensors_find(&c->g.file, name))
        return 0;
    got = host_copy(c, device, n, e);
    if (!got)
        return e->code;
    rc = compare(c, name, got, n, e);
    mem_free(got);
    return rc;
}

static int compare_tensor(struct check *c, const char *name, const struct tensor *x,
                          struct err *e)
{
    return x ? compare_device(c, name, x->data, x->rows * x->cols, e) : 0;
}

/* First row and mean of each sequence's last hidden states: sentence embeddings. */
static int compare_embeddings(struct check *c, struct err *e)
{
    const struct tensor *h = c->out.hidden;
    const struct packed *in = &c->g.in;
    float *x = host_copy(c, h->data, h->rows * h->cols, e);
    float *first = mem_array((size_t)(in->B * h->cols), sizeof *first);
    float *mean = mem_array((size_t)(in->B * h->cols), sizeof *mean);
    int rc = e->code;

    if (!x || !first || !mean) {
        rc = err_set(e, ERR_NOMEM, "out of memory");
        goto done;
    }
    for (long b = 0; b < in->B; b++)
        for (long j = 0; j < h->cols; j++) {
            long from = in->cu_seqlens[b], to = in->cu_seqlens[b + 1];
            double sum = 0;

            for (long i = from; i < to; i++)
                sum += x[i * h->cols + j];
            mean[b * h->cols + j] = (float)(sum / (double)(to - from));
            first[b * h->cols + j] = x[from * h->cols + j];
        }
    rc = 0;
    if (safetensors_find(&c->g.file, "cls"))
        rc = compare(c, "cls", first, in->B * h->cols, e);
    if (!rc && safetensors_find(&c->g.file, "mean"))
        rc = compare(c, "mean", mean, in->B * h->cols, e);
done:
    mem_free(x);
    mem_free(first);
    mem_free(mean);
    return rc;
}

/* The score at every real position, not only at the last. */
static int compare_all_scores(struct check *c, struct err *e)
{
    const struct tensor *h = c->out.hidden;
    const struct param *head = &c->m->param[c->m->head_w];
    float *x = NULL, *w = NULL, *score = NULL;
    int rc = 0;

    if (!safetensors_find(&c->g.file, "scores_all"))
        return 0;
    x = host_copy(c, h->data, h->rows * h->cols, e);
    w = host_copy(c, head->data, h->cols, e);
    score = mem_array((size_t)h->rows, sizeof *score);
    if (!x || !w || !score) {
        rc = err_set(e, ERR_NOMEM, "out of memory");
        goto done;
    }
    for (long i = 0; i < h->rows; i++) {
        double s = 0;

        for (long j = 0; j < h->cols; j++)
            s += (double)x[i * h->cols + j] * w[j];
        score[i] = (float)s;
    }
    rc = compare(c, "scores_all", score, h->rows, e);
done:
    mem_free(x);
    mem_free(w);
    mem_free(score);
    return rc;
}

static int compare_forward(struct check *c, struct err *e)
{
    char name[32];

    for (long i = 0; i <= c->m->config.dims.L; i++) {
        snprintf(name, sizeof name, "hidden.%ld", i);
        if (compare_tensor(c, name, c->out.layer[i], e))
            return e->code;
    }
    if (compare_tensor(c, "hidden.norm", c->out.norm, e) ||
        compare_tensor(c, "pooled", c->out.pooled, e) ||
        compare_tensor(c, c->m->options.head == HEAD_REWARD ? "rewards" : "logits",
                       c->out.logits, e))
        return e->code;
    if (compare_embeddings(c, e))
        return e->code;
    return c->m->options.head == HEAD_REWARD ? compare_all_scores(c, e) : 0;
}

static int compare_gradient(struct check *c, const struct model_tensor *t, const char *name,
                            long n, struct err *e)
{
    float *got;
    int rc;

    if (!safetensors_find(&c->g.file, name))
        return 0;
    got = fix_to_file(c->m, t, c->m->param[t->param].grad + t->first, e);
    if (!got)
        return e->code;
    rc = compare(c, name, got, n, e);
    mem_free(got);
    return rc;
}

static int compare_gradients(struct check *c, struct err *e)
{
    for (size_t i = 0; i < c->m->n_tensors; i++) {
        const struct model_tensor *t = &c->m->tensor[i];
        char name[512];
        long n = 1;

        if (t->param < 0 || !c->m->param[t->param].grad)
            continue;
        for (int k = 0; k < t->rank; k++)
            n *= t->shape[k];
        snprintf(name, sizeof name, "grad.%s", t->name);
        if (compare_gradient(c, t, name, n, e))
            return e->code;
    }
    return 0;
}

static int compare_loss(struct check *c, struct err *e)
{
    float loss;
    int rc = 0;

    c->logits =
        host_copy(c, c->out.logits->data, c->out.logits->rows * c->out.logits->cols, e);
    c->d_logits =
        mem_array((size_t)(c->out.logits->rows * c->out.logits->cols), sizeof *c->d_logits);
    if (!c->logits || !c->d_logits)
        return err_set(e, ERR_NOMEM, "out of memory");
    if (c->m->options.head == HEAD_REWARD)
        pair_loss(c);
    else
        rc = c->m->options.head == HEAD_CLASSIFY ? class_loss(c, e) : token_loss(c, e);
    loss = (float)c->loss;
    if (rc || (safetensors_find(&c->g.file, "loss") && compare(c, "loss", &loss, 1, e)))
        return e->code;
    tape_seed(c->t, c->out.logits, c->d_logits);
    if (tape_backward(c->t, e))
        return err_wrap(e, "backward");
    return compare_gradients(c, e);
}

/* ---- the whole ----------------------------------------------------------------------- */

static int is_input(const char *name)
{
    static const char *const inputs[] = {"input_ids", "attention_mask", "token_type_ids",
                                         "labels"};

    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        if (!strcmp(inputs[i], name))
            return 1;
    return 0;
}

/* Whatever the file holds beside inputs and what was compared. */
static int list_unknown(struct check *c, struct err *e)
{
    size_t compared = c->r->n;

    for (size_t i = 0; i < c->g.file.n; i++) {
        const char *name = c->g.file.tensor[i].name;
        size_t k = 0;

        while (k < compared && strcmp(c->r->row[k].name, name))
            k++;
        if (k < compared || is_input(name))
            continue;
        if (!add_row(c, name, e))
            return e->code;
        c->r->unknown++;
    }
    return 0;
}

static enum head_kind head_wanted(const struct golden *g, const struct model_info *info)
{
    if (safetensors_find(&g->file, "rewards"))
        return HEAD_REWARD;
    if (!safetensors_find(&g->file, "logits"))
        return HEAD_NONE;
    if (safetensors_find(&g->file, "logits")->shape[0] == g->in.B && !g->token_labels)
        return HEAD_CLASSIFY;
    return info->causal ? HEAD_CAUSAL : HEAD_MASKED;
}

static int open_model(struct check *c, const char *dir, const struct verify_options *v,
                      struct err *e)
{
    struct model_options o = {.dropout = 0,
                              .keep_head = 1,
                              .trainable = 1,
                              .backend = backend_find(v->backend),
                              .precision = v->precision};
    struct model_info info;

    if (!o.backend)
        return err_set(e, ERR_USAGE, "device \"%s\": %s", v->backend,
                       backend_reason(v->backend));
    if (model_read_info(dir, &info, e))
        return e->code;
    o.head = head_wanted(&c->g, &info);
    o.trainable = o.head != HEAD_NONE;
    if (model_default_pooling(dir, o.head, &o.pooling, e))
        return e->code;
    if (model_open(&c->m, dir, &o, e))
        return e->code;
    if (c->m->head_w >= 0 && c->m->param[c->m->head_w].new_head)
        return err_set(e, ERR_CONFIG,
                       "%s: the golden file has outputs, but the checkpoint has no head "
                       "of %s shape",
                       dir, o.head == HEAD_REWARD ? "a score's" : "that");
    return 0;
}

static int run(struct check *c, const char *model, const char *golden,
               const struct verify_options *v, struct err *e)
{
    struct forward_options o = {.keep_layers = 1};
    enum head_kind head;

    if (golden_open(&c->g, golden, e) || open_model(c, model, v, e))
        return e->code;
    c->r->row = arena_array(&c->r->arena, c->g.file.n + 1, sizeof *c->r->row);
    if (!c->r->row)
        return err_set(e, ERR_NOMEM, "out of memory");
    c->t = tape_new(c->m->options.backend, e);
    if (!c->t)
        return e->code;
    tape_reset(c->t, TAPE_TRAIN);
    if (model_forward(c->m, c->t, &c->g.in, &o, &c->out, e))
        return err_wrap(e, "forward");
    if (compare_forward(c, e))
        return e->code;
    head = c->m->options.head;
    if (head == HEAD_REWARD ? c->g.in.B % 2 == 0 : head != HEAD_NONE && c->g.label)
        if (compare_loss(c, e))
            return e->code;
    return list_unknown(c, e);
}

int verify_run(const char *model, const char *golden, const struct verify_options *o,
               struct verify_report *out, struct err *e)
{
    struct check c = {.r = out};
    int rc;

    memset(out, 0, sizeof *out);
    e->code = 0;
    out->rtol = o->rtol;
    rc = run(&c, model, golden, o, e);
    tape_free(c.t);
    model_close(c.m);
    golden_close(&c.g);
    mem_free(c.logits);
    mem_free(c.d_logits);
    return rc;
}

void verify_fini(struct verify_report *r)
{
    arena_fini(&r->arena);
    memset(r, 0, sizeof *r);
}
