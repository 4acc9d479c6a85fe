/* Dropout (Srivastava et al. 2014): dx is the same mask applied to dy. */
#include "worker/tape/rule.h"

struct dropout_node {
    struct tape_node node;
    struct tensor *x, *y;
    struct op_dropout dropout;
};

static int backward(struct tape *t, struct tape_node *node)
{
    struct dropout_node *n = (struct dropout_node *)node;
    struct tape_block *g = tape_grad_pass(t, n->y);
    struct dropout_args a = {.N = n->y->rows, .D = n->y->cols, .dropout = n->dropout};

    if (!g)
        return t->err.code;
    a.x = a.y = g->p;
    TAPE_RUN(t, dropout, &a);
    return tape_grad_put(t, n->x, g);
}

struct tensor *tape_dropout(struct tape *t, struct tensor *x, double p, int in_place)
{
    struct dropout_args a = {0};
    struct dropout_node *n;
    struct tensor *y;

    if (t->err.code)
        return NULL;
    a.dropout = tape_next_dropout(t, p, x->rows != t->batch.T);
    if (a.dropout.p <= 0)
        return x;
    y = in_place ? tape_alias(t, x, x->needs_grad)
                 : tape_tensor(t, x->rows, x->cols, x->needs_grad);
    if (!y)
        return NULL;
    a.x = x->data;
    a.y = y->data;
    a.N = x->rows;
    a.D = x->cols;
    TAPE_RUN(t, dropout, &a);
    n = tape_record(t, sizeof *n, backward, y, NULL);
    if (n) {
        n->x = x;
        n->y = y;
        n->dropout = a.dropout;
    }
    return y;
}
