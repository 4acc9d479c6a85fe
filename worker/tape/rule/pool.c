/* (B,D) from (T,D): the first row, the pooled row, or the mean of each sequence.
 *
 * "Last" pools the row that tape_set_batch() was told: bounds are shifted so that it is
 * the last one. Rows after the last bound belong to no sequence then; they are zeroed. */
#include "worker/tape/rule.h"

struct pool_node {
    struct tape_node node;
    struct tensor *x, *y;
    enum op_pool kind;
};

static const int *bounds_of(const struct tape *t, enum op_pool kind)
{
    return kind == POOL_LAST ? t->batch.pool_seqlens : t->batch.cu_seqlens;
}

static int backward(struct tape *t, struct tape_node *node)
{
    struct pool_node *n = (struct pool_node *)node;
    struct tape_block *g = tape_grad_new(t, n->x);
    struct pool_backward_args a;

    if (!g)
        return t->err.code;
    a = (struct pool_backward_args){.kind = n->kind,
                                    .dy = n->y->grad,
                                    .dx = g->p,
                                    .cu_seqlens = bounds_of(t, n->kind),
                                    .B = t->batch.B,
                                    .T = n->x->rows,
                                    .D = n->x->cols};
    if (tape_runs(t) && n->kind == POOL_LAST)
        tape_check(t, t->be->fill_zero(g->p, g->bytes), "fill_zero");
    TAPE_RUN(t, pool_backward, &a);
    return tape_grad_put(t, n->x, g);
}

struct tensor *tape_pool(struct tape *t, struct tensor *x, enum op_pool kind)
{
    struct pool_args a;
    struct pool_node *n;
    struct tensor *y;

    if (t->err.code)
        return NULL;
    invariant(x->rows == t->batch.T);
    y = tape_tensor(t, t->batch.B, x->cols, x->needs_grad);
    if (!y)
        return NULL;
    a = (struct pool_args){.kind = kind,
                           .x = x->data,
                           .y = y->data,
                           .cu_seqlens = bounds_of(t, kind),
                           .B = t->batch.B,
                           .T = x->rows,
                           .D = x->cols};
    TAPE_RUN(t, pool, &a);
    n = tape_record(t, sizeof *n, backward, y, NULL);
    if (n) {
        n->x = x;
        n->y = y;
        n->kind = kind;
    }
    return y;
}
