/* AdamW's bookkeeping: groups, moments, lazily zeroed rows; the arithmetic is the back
 * end's (kernels/op.h: adamw, grad_norm). Fails with ERR_NOMEM, or ERR_DEVICE with the
 * back end's reason. */
#include "worker/train/optim_internal.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

static int device_failed(const struct optim *o, const char *what, struct err *e)
{
    return err_set(e, ERR_DEVICE, "%s: %s", what, o->backend->error());
}

/* May rows that have no gradient yet be left alone? */
static int is_sparse(const struct param *p, const struct optim_options *options)
{
    return p->live && !(p->decay && options->weight_decay != 0);
}

static int list_params(struct optim *o, struct err *e)
{
    size_t n;
    struct param *p = model_params(o->model, &n);

    o->param = mem_array(n + 1, sizeof *o->param);
    o->ready = mem_array(n + 1, sizeof *o->ready);
    o->param_sum = mem_array(n + 1, sizeof *o->param_sum);
    if (!o->param || !o->ready || !o->param_sum)
        return err_set(e, ERR_NOMEM, "optimizer: out of memory");
    for (size_t i = 0; i < n; i++) {
        if (!p[i].trainable)
            continue;
        o->param[o->n++] = &p[i];
        if (!is_sparse(&p[i], &o->options))
            continue;
        o->ready[o->n - 1] = mem_alloc((size_t)p[i].rows);
        if (!o->ready[o->n - 1])
            return err_set(e, ERR_NOMEM, "optimizer state of %s: out of memory", p[i].name);
    }
    return 0;
}

static int add_piece(struct optim *o, int i, size_t first, size_t n, struct err *e)
{
    struct optim_piece *piece = &o->piece[o->n_pieces];
    struct adamw_tensor *t = &o->tensor[o->n_pieces];
    struct param *p = o->param[i];

    o->n_pieces++;
    *piece = (struct optim_piece){i, first, n};
    t->p = p->data + first;
    t->grad = p->grad + first;
    t->n = (long)n;
    t->decay = p->decay ? (float)o->options.weight_decay : 0;
    t->m = o->backend->alloc(n * sizeof *t->m);
    t->v = o->backend->alloc(n * sizeof *t->v);
    if (!t->m || !t->v)
        return err_set(e, ERR_NOMEM, "optimizer state of %s: out of memory", p->name);
    if (o->ready[i]) {
        t->width = p->cols;
        t->live = p->live;
        mem_advise(t->m, n * sizeof *t->m, MEM_SPARSE); /* a device's means nothing */
        mem_advise(t->v, n * sizeof *t->v, MEM_SPARSE);
        return 0;
    }
    if (o->backend->fill_zero(t->m, n * sizeof *t->m) ||
        o->backend->fill_zero(t->v, n * sizeof *t->v))
        return device_failed(o, p->name, e);
    return 0;
}

/* The pieces of all parameters; a sparse one is a single piece. */
static int cut_pieces(struct optim *o, struct err *e)
{
    size_t count = 0, first, n;
    int r = 0;

    for (int i = 0; i < o->n; i++)
        for (int at = 0; optim_grads_own(o, i, &at, &first, &n);)
            count++;
    o->piece = mem_array(count + 1, sizeof *o->piece);
    o->tensor = mem_array(count + 1, sizeof *o->tensor);
    o->sum = mem_array(count + 1, sizeof *o->sum);
    if (!o->piece || !o->tensor || !o->sum)
        return err_set(e, ERR_NOMEM, "optimizer: out of memory");
    for (int i = 0; i < o->n; i++)
        for (int at = 0; !r && optim_grads_own(o, i, &at, &first, &n);)
            r = add_piece(o, i, first, n, e);
    return r;
}

int optim_open(struct optim *o, struct model *m, const struct optim_options *options,
               const struct comm *c, struct err *e)
{
    int r;

    memset(o, 0, sizeof *o);
    o->options = *options;
    o->model = m;
    o->comm = c;
    o->backend = model_get_backend(m);
    r = comm_agree(c, list_params(o, e), e);
    if (!r)
        r = optim_grads_open(o, e);
    if (!r)
        r = comm_agree(c, cut_pieces(o, e), e);
    if (r)
        optim_close(o);
    return r;
}

void optim_close(struct optim *o)
{
    for (int i = 0; i < o->n_pieces; i++) {
        if (o->tensor[i].m)
            o->backend->release(o->tensor[i].m);
        if (o->tensor[i].v)
            o->backend->release(o->tensor[i].v);
    }
    for (int i = 0; i < o->n; i++)
        mem_free(o->ready[i]);
    optim_grads_close(o);
    mem_free(o->piece);
    mem_free(o->tensor);
    mem_free(o->param);
    mem_free(o->ready);
    mem_free(o->sum);
    mem_free(o->param_sum);
    memset(o, 0, sizeof *o);
}

/* Rows that had their first gradient in this step start from zero moments. */
static int ready_rows(struct optim *o, struct err *e)
{
    for (int k = 0; k < o->n_pieces; k++) {
        struct adamw_tensor *t = &o->tensor[k];
        unsigned char *ready = o->ready[o->piece[k].param];
        size_t bytes = (size_t)t->width * sizeof *t->m;

        for (long row = 0; ready && row < t->n / t->width; row++) {
            if (!t->live[row] || ready[row])
                continue;
            if (o->backend->fill_zero(t->m + row * t->width, bytes) ||
                o->backend->fill_zero(t->v + row * t->width, bytes))
                return device_failed(o, o->param[o->piece[k].param]->name, e);
            ready[row] = 1;
        }
    }
    return 0;
}

int optim_norm(struct optim *o, double *norm, int *bad, struct err *e)
{
    struct grad_norm_args a = {o->tensor, o->n_pieces, o->sum};
    double total = 0;
    int r;

    *bad = -1;
    r = comm_agree(o->comm,
                   o->backend->grad_norm(&a) ? device_failed(o, "gradient norm", e) : 0, e);
    if (r)
        return r;
    memset(o->param_sum, 0, (size_t)o->n * sizeof *o->param_sum);
    for (int k = 0; k < o->n_pieces; k++)
        o->param_sum[o->piece[k].param] += o->sum[k];
    r = optim_grads_sum_norms(o, e);
    for (int i = 0; !r && i < o->n; i++) {
        total += o->param_sum[i];
        if (!isfinite(o->param_sum[i]))
            *bad = i;
    }
    *norm = sqrt(total);
    return r;
}

static void clear_touched(struct optim *o)
{
    for (int i = 0; i < o->n; i++)
        if (o->param[i]->touched)
            memset(o->param[i]->touched, 0, (size_t)o->param[i]->rows);
}

static int update(struct optim *o, double factor, double scale, struct err *e)
{
    const struct optim_options *p = &o->options;
    struct adamw_args a = {.tensor = o->tensor,
                           .n = o->n_pieces,
                           .beta1 = p->beta1,
                           .beta2 = p->beta2,
                           .eps = p->eps,
                           .step = o->updates + 1,
                           .grad_scale = (float)scale};
    int r = ready_rows(o, e);

    if (r)
        return r;
    for (int k = 0; k < o->n_pieces; k++) {
        int head = o->param[o->piece[k].param]->new_head && p->head_lr > 0;

        o->tensor[k].lr = (float)((head ? p->head_lr : p->lr) * factor);
    }
    if (o->backend->adamw(&a))
        return device_failed(o, "AdamW", e);
    return optim_grads_zero(o, e);
}

int optim_step(struct optim *o, double factor, double scale, struct err *e)
{
    int r = comm_agree(o->comm, update(o, factor, scale, e), e);

    if (!r)
        r = optim_grads_gather(o, e);
    if (r)
        return r;
    o->updates++;
    clear_touched(o);
    model_touch(o->model);
    return 0;
}

int optim_skip(struct optim *o, struct err *e)
{
    for (int i = 0; i < o->n; i++)
        if (o->backend->fill_zero(o->param[i]->grad, (size_t)o->param[i]->rows *
                                                         (size_t)o->param[i]->cols *
                                                         sizeof(float)))
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

void optim_pieces(const struct optim *o, int i, int *from, int *to)
{
    for (*from = 0; *from < o->n_pieces && o->piece[*from].param < i;)
        ++*from;
    for (*to = *from; *to < o->n_pieces && o->piece[*to].param == i;)
        ++*to;
}

int optim_moment(const struct optim *o, int i, char kind, float *out, struct err *e)
{
    const struct param *p = o->param[i];
    size_t n = (size_t)p->rows * (size_t)p->cols;
    int from, to, r = 0;

    if (o->options.shard) /* the others' parts count as zeros in the sum */
        memset(out, 0, n * sizeof *out);
    optim_pieces(o, i, &from, &to);
    for (int k = from; !r && k < to; k++)
        if (o->backend->copy_out(out + o->piece[k].first,
                                 kind == 'm' ? o->tensor[k].m : o->tensor[k].v,
                                 o->piece[k].n * sizeof *out))
            r = device_failed(o, p->name, e);
    if (!o->options.shard)
        return r;
    r = comm_agree(o->comm, r, e);
    return r ? r : o->comm->all_reduce(o->comm, out, n, e);
}
