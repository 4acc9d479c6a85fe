/* AdamW's bookkeeping: groups, moments, lazily zeroed rows; the arithmetic is the back
 * end's (kernels/op.h: adamw, grad_norm). Fails with ERR_NOMEM, or ERR_DEVICE with the
 * back end's reason. */
#include "worker/train/optim.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

static int device_failed(const struct optim *o, const char *what, struct err *e)
{
    return err_set(e, ERR_DEVICE, "%s: %s", what, o->backend->error());
}

static int add_tensor(struct optim *o, struct param *p, struct err *e)
{
    struct adamw_tensor *t = &o->tensor[o->n];
    size_t n = (size_t)p->rows * (size_t)p->cols;
    double decay = p->decay ? o->options.weight_decay : 0;

    t->p = p->data;
    t->grad = p->grad;
    t->n = (long)n;
    t->decay = (float)decay;
    t->m = o->backend->alloc(n * sizeof *t->m);
    t->v = o->backend->alloc(n * sizeof *t->v);
    o->param[o->n] = p;
    o->n++;
    if (!t->m || !t->v)
        return err_set(e, ERR_NOMEM, "optimizer state of %s: out of memory", p->name);
    if (p->live && decay == 0) {
        t->width = p->cols;
        t->live = p->live;
        o->ready[o->n - 1] = mem_alloc((size_t)p->rows);
        if (!o->ready[o->n - 1])
            return err_set(e, ERR_NOMEM, "optimizer state of %s: out of memory", p->name);
        return 0;
    }
    if (o->backend->fill_zero(t->m, n * sizeof *t->m) ||
        o->backend->fill_zero(t->v, n * sizeof *t->v))
        return device_failed(o, p->name, e);
    return 0;
}

int optim_open(struct optim *o, struct model *m, const struct optim_options *options,
               struct err *e)
{
    size_t n;
    struct param *p = model_params(m, &n);
    int r;

    memset(o, 0, sizeof *o);
    o->options = *options;
    o->model = m;
    o->backend = model_get_backend(m);
    o->tensor = mem_array(n, sizeof *o->tensor);
    o->param = mem_array(n, sizeof *o->param);
    o->ready = mem_array(n, sizeof *o->ready);
    o->sum = mem_array(n, sizeof *o->sum);
    if (!o->tensor || !o->param || !o->ready || !o->sum) {
        optim_close(o);
        return err_set(e, ERR_NOMEM, "optimizer: out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        if (!p[i].trainable)
            continue;
        r = add_tensor(o, &p[i], e);
        if (r) {
            optim_close(o);
            return r;
        }
    }
    return 0;
}

void optim_close(struct optim *o)
{
    for (int i = 0; i < o->n; i++) {
        if (o->tensor[i].m)
            o->backend->release(o->tensor[i].m);
        if (o->tensor[i].v)
            o->backend->release(o->tensor[i].v);
        mem_free(o->ready[i]);
    }
    mem_free(o->tensor);
    mem_free(o->param);
    mem_free(o->ready);
    mem_free(o->sum);
    memset(o, 0, sizeof *o);
}

/* Rows that had their first gradient in this step start from zero moments. */
static int ready_rows(struct optim *o, struct err *e)
{
    for (int i = 0; i < o->n; i++) {
        struct adamw_tensor *t = &o->tensor[i];
        size_t bytes = (size_t)t->width * sizeof *t->m;

        for (long row = 0; o->ready[i] && row < t->n / t->width; row++) {
            if (!t->live[row] || o->ready[i][row])
                continue;
            if (o->backend->fill_zero(t->m + row * t->width, bytes) ||
                o->backend->fill_zero(t->v + row * t->width, bytes))
                return device_failed(o, o->param[i]->name, e);
            o->ready[i][row] = 1;
        }
    }
    return 0;
}

int optim_reduce_all(struct optim *o, const struct comm *c, struct err *e)
{
    for (int i = 0; i < o->n; i++) {
        int r = c->all_reduce(c, o->tensor[i].grad, (size_t)o->tensor[i].n, e);

        if (r)
            return r;
    }
    return 0;
}

int optim_norm(struct optim *o, double *norm, int *bad, struct err *e)
{
    struct grad_norm_args a = {o->tensor, o->n, o->sum};
    double total = 0;

    *bad = -1;
    if (o->backend->grad_norm(&a))
        return device_failed(o, "gradient norm", e);
    for (int i = 0; i < o->n; i++) {
        total += o->sum[i];
        if (!isfinite(o->sum[i]))
            *bad = i;
    }
    *norm = sqrt(total);
    return 0;
}

static void clear_touched(struct optim *o)
{
    for (int i = 0; i < o->n; i++)
        if (o->param[i]->touched)
            memset(o->param[i]->touched, 0, (size_t)o->param[i]->rows);
}

int optim_step(struct optim *o, double factor, double scale, struct err *e)
{
    const struct optim_options *p = &o->options;
    struct adamw_args a = {.tensor = o->tensor,
                           .n = o->n,
                           .beta1 = p->beta1,
                           .beta2 = p->beta2,
                           .eps = p->eps,
                           .step = o->updates + 1,
                           .grad_scale = (float)scale};
    int r = ready_rows(o, e);

    if (r)
        return r;
    for (int i = 0; i < o->n; i++) {
        int head = o->param[i]->new_head && p->head_lr > 0;

        o->tensor[i].lr = (float)((head ? p->head_lr : p->lr) * factor);
    }
    if (o->backend->adamw(&a))
        return device_failed(o, "AdamW", e);
    o->updates++;
    clear_touched(o);
    model_touch(o->model);
    return 0;
}

int optim_skip(struct optim *o, struct err *e)
{
    for (int i = 0; i < o->n; i++)
        if (o->backend->fill_zero(o->tensor[i].grad,
                                  (size_t)o->tensor[i].n * sizeof(float)))
            return device_failed(o, o->param[i]->name, e);
    clear_touched(o);
    return 0;
}

int optim_rows(const struct optim *o, int i, int **rows, long *n, struct err *e)
{
    long count = 0, all = o->param[i]->rows;

    *rows = NULL;
    *n = all;
    if (!o->ready[i])
        return 0;
    *rows = mem_array((size_t)all + 1, sizeof **rows);
    if (!*rows)
        return err_set(e, ERR_NOMEM, "optimizer state: out of memory");
    for (long row = 0; row < all; row++)
        if (o->ready[i][row])
            (*rows)[count++] = (int)row;
    *n = count;
    return 0;
}
