/* s = dropout(x) + residual; y = norm(s).
 *
 * Backward: ds = norm'(dy) + (gradient of s from elsewhere); d residual = ds;
 * dx = dropout'(ds). Without dropout x and the residual share one gradient block. s lies
 * in x's memory: what produces x never needs its output to go backward. */
#include "worker/tape/rule.h"

enum { KEEP_MEAN, KEEP_RSTD };

struct norm_node {
    struct tape_node node;
    struct tensor *x, *residual, *sum, *y;
    struct norm_spec spec;
    struct op_dropout dropout;
};

static void zero_grad(struct tape *t, struct tensor *x)
{
    int accumulate;
    float *g = tape_grad_target(t, x, &accumulate);

    if (tape_runs(t) && !accumulate)
        tape_check(t, t->be->fill_zero(g, x->grad_block->bytes), "fill_zero");
}

static int backward(struct tape *t, struct tape_node *node)
{
    struct norm_node *n = (struct norm_node *)node;
    struct param *w = n->spec.w, *b = n->spec.b;
    int to_x = n->x->needs_grad, to_residual = n->residual && n->residual->needs_grad;
    struct tape_block *dx, *dresidual = NULL, *dsum = NULL;
    struct norm_backward_args a = {.kind = n->spec.kind,
                                   .N = n->y->rows,
                                   .D = n->y->cols,
                                   .sum = n->sum->data,
                                   .w = w->data,
                                   .mean = node->keep[KEEP_MEAN]->p,
                                   .rstd = node->keep[KEEP_RSTD]->p,
                                   .dropout = n->dropout,
                                   .dw = param_trains(w) ? w->grad : NULL,
                                   .db = param_trains(b) ? b->grad : NULL};

    if (!n->y->grad_block)
        zero_grad(t, n->y);
    dx = tape_grad_pass(t, n->y);
    if (to_residual && n->dropout.p > 0)
        dresidual = tape_grad_new(t, n->residual);
    if (t->err.code)
        return t->err.code;
    dsum = n->sum->grad_block;
    n->sum->grad_block = NULL;
    n->sum->grad = NULL;
    a.dy = dx->p;
    a.dsum = dsum ? dsum->p : NULL;
    a.dx = to_x || to_residual ? dx->p : NULL;
    a.dresidual = dresidual ? dresidual->p : NULL;
    TAPE_RUN(t, norm_backward, &a);
    tape_give(t, dsum);
    if (to_residual && !dresidual) {
        dresidual = dx;
        dx->refs++;
    }
    if (to_residual)
        tape_grad_put(t, n->residual, dresidual);
    if (to_x)
        return tape_grad_put(t, n->x, dx);
    tape_give(t, dx);
    return t->err.code;
}

static void run(struct tape *t, const struct norm_node *n, float *mean, float *rstd)
{
    struct norm_args a = {.kind = n->spec.kind,
                          .N = n->x->rows,
                          .D = n->x->cols,
                          .x = n->x->data,
                          .residual = n->residual ? n->residual->data : NULL,
                          .w = n->spec.w->data,
                          .b = n->spec.b ? n->spec.b->data : NULL,
                          .eps = n->spec.eps,
                          .dropout = n->dropout,
                          .sum = n->sum != n->x ? n->sum->data : NULL,
                          .y = n->y->data,
                          .mean = mean,
                          .rstd = rstd};

    TAPE_RUN(t, norm, &a);
}

struct tensor *tape_norm(struct tape *t, struct tensor *x, struct tensor *residual,
                         const struct norm_spec *spec, double dropout, struct tensor **sum)
{
    struct norm_node *n, plain = {0};
    struct tape_block *mean, *rstd;
    struct tensor *s, *y;
    int in_grad, needs_grad;

    if (t->err.code)
        return NULL;
    invariant(spec->w->rows * spec->w->cols == x->cols);
    invariant(!residual || (residual->rows == x->rows && residual->cols == x->cols));
    invariant(residual || dropout == 0);
    in_grad = x->needs_grad || (residual && residual->needs_grad);
    needs_grad = in_grad || param_trains(spec->w) || param_trains(spec->b);
    s = residual ? tape_alias(t, x, in_grad) : x;
    y = tape_tensor(t, x->rows, x->cols, needs_grad);
    mean = tape_take(t, (size_t)x->rows * sizeof(float));
    rstd = tape_take(t, (size_t)x->rows * sizeof(float));
    if (t->err.code)
        return NULL;
    n = tape_record(t, sizeof *n, backward, y, residual ? s : NULL);
    if (!n)
        n = &plain;
    n->x = x;
    n->residual = residual;
    n->sum = s;
    n->y = y;
    n->spec = *spec;
    n->dropout = residual ? tape_next_dropout(t, dropout, x->rows != t->batch.T)
                          : (struct op_dropout){0};
    run(t, n, mean->p, rstd->p);
    if (n != &plain) {
        n->node.keep[KEEP_MEAN] = mean;
        n->node.keep[KEEP_RSTD] = rstd;
        tape_adds_to(&n->node, spec->w);
        tape_adds_to(&n->node, spec->b);
    } else {
        tape_give(t, mean);
        tape_give(t, rstd);
    }
    if (residual)
        tape_release(t, x);
    if (sum)
        *sum = s;
    else if (residual)
        tape_release(t, s);
    return t->err.code ? NULL : y;
}
