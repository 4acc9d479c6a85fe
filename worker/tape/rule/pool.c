/* (B,D) from (T,D): the first row, the pooled row, the mean or the sum of each sequence; or
 * of other bounds of the caller's.
 *
 * "Last" pools the row that tape_set_batch() was told: bounds are shifted so that it is
 * the last one. Rows after the last bound belong to no sequence then; they are zeroed. */
#include "worker/tape/rule.h"

struct pool_node {
    struct tape_node node;
    struct tensor *x, *y;
    const int *bounds;
    enum op_pool kind;
};

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
                                    .cu_seqlens = n->bounds,
                                    .B = n->y->rows,
                                    .T = n->x->rows,
                                    .D = n->x->cols};
    if (tape_runs(t) && n->kind == POOL_LAST)
        tape_check(t, t->be->fill_zero(g->p, g->bytes), "fill_zero");
    TAPE_RUN(t, pool_backward, &a);
    return tape_grad_put(t, n->x, g);
}

struct tensor *tape_pool_by(struct tape *t, struct tensor *x, enum op_pool kind,
                            const int *bounds, long n)
{
    struct pool_args a;
    struct pool_node *node;
    struct tensor *y;

    if (t->err.code)
        return NULL;
    y = tape_tensor(t, n, x->cols, x->needs_grad);
    if (!y)
        return NULL;
    a = (struct pool_args){.kind = kind,
                           .x = x->data,
                           .y = y->data,
                           .cu_seqlens = bounds,
                           .B = n,
                           .T = x->rows,
                           .D = x->cols};
    TAPE_RUN(t, pool, &a);
    node = tape_record(t, sizeof *node, backward, y, NULL);
    if (node) {
        node->x = x;
        node->y = y;
        node->bounds = bounds;
        node->kind = kind;
    }
    return y;
}

struct tensor *tape_pool(struct tape *t, struct tensor *x, enum op_pool kind)
{
    if (t->err.code)
        return NULL;
    invariant(x->rows == t->batch.T);
    if (kind == POOL_LAST)
        return tape_pool_by(t, x, kind, t->batch.pool_seqlens, t->batch.rows);
    return tape_pool_by(t, x, kind, t->batch.cu_seqlens, t->batch.B);
}
