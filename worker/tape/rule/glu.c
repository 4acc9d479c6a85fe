/* Gated feed-forward: y = act(gate) * up, both halves of one matrix product's output. */
#include "worker/tape/rule.h"

struct glu_node {
    struct tape_node node;
    struct tensor *x, *y;
    enum op_act act;
};

static int backward(struct tape *t, struct tape_node *node)
{
    struct glu_node *n = (struct glu_node *)node;
    long F = n->y->cols;
    struct tape_block *g = tape_grad_new(t, n->x);
    struct glu_backward_args a;

    if (!g)
        return t->err.code;
    a = (struct glu_backward_args){.act = n->act,
                                   .gate = n->x->data,
                                   .dy = n->y->grad,
                                   .ld = 2 * F,
                                   .dgate = g->p,
                                   .N = n->y->rows,
                                   .F = F};
    if (tape_runs(t)) {
        a.up = a.gate + F;
        a.dup = a.dgate + F;
    }
    TAPE_RUN(t, glu_backward, &a);
    return tape_grad_put(t, n->x, g);
}

struct tensor *tape_glu(struct tape *t, struct tensor *x, enum op_act act)
{
    struct glu_args a;
    struct glu_node *n;
    struct tensor *y;

    if (t->err.code)
        return NULL;
    invariant(x->cols % 2 == 0);
    y = tape_tensor(t, x->rows, x->cols / 2, x->needs_grad);
    if (!y)
        return NULL;
    a = (struct glu_args){.act = act,
                          .gate = x->data,
                          .ld = x->cols,
                          .y = y->data,
                          .N = y->rows,
                          .F = y->cols};
    if (tape_runs(t))
        a.up = a.gate + y->cols;
    TAPE_RUN(t, glu, &a);
    n = tape_record(t, sizeof *n, backward, y, NULL);
    if (n) {
        n->x = x;
        n->y = y;
        n->act = act;
    }
    return y;
}
