/* RMS norm of the heads of q and of k, in place on the first columns of a fused q,k,v
 * matrix. What is written over is kept for backward; the producer (a linear without
 * activation) never needs it. */
#include "worker/tape/rule.h"

enum { Q, K, SIDES };
enum { KEEP_SAVED, KEEP_RSTD = SIDES }; /* one of each a side */

struct head_norm_node {
    struct tape_node node;
    struct tensor *x, *y;
    struct head_norm_spec spec;
};

static int heads_of(const struct head_norm_spec *s, int side)
{
    return side == Q ? s->H : s->K;
}

static long column(const struct head_norm_spec *s, int side)
{
    return side == Q ? 0 : (long)s->H * s->d;
}

static int backward(struct tape *t, struct tape_node *node)
{
    struct head_norm_node *n = (struct head_norm_node *)node;
    struct tape_block *g = tape_grad_pass(t, n->y);

    if (!g)
        return t->err.code;
    for (int side = 0; side < SIDES; side++) {
        struct param *w = n->spec.w[side];
        struct head_norm_backward_args a = {.ld = n->x->cols,
                                            .T = n->x->rows,
                                            .heads = heads_of(&n->spec, side),
                                            .d = n->spec.d,
                                            .w = w->data,
                                            .saved = node->keep[KEEP_SAVED + side]->p,
                                            .rstd = node->keep[KEEP_RSTD + side]->p,
                                            .dw = param_trains(w) ? w->grad : NULL};

        if (tape_runs(t))
            a.dx = g->p + column(&n->spec, side);
        TAPE_RUN(t, head_norm_backward, &a);
    }
    if (n->x->needs_grad)
        return tape_grad_put(t, n->x, g);
    tape_give(t, g);
    return t->err.code;
}

struct tensor *tape_head_norm(struct tape *t, struct tensor *x,
                              const struct head_norm_spec *s)
{
    struct tape_block *keep[2 * SIDES] = {NULL};
    struct head_norm_node *n;
    struct tensor *y;

    if (t->err.code)
        return NULL;
    invariant(column(s, K) + (long)s->K * s->d <= x->cols);
    y = tape_alias(t, x, x->needs_grad || param_trains(s->w[Q]) || param_trains(s->w[K]));
    if (!y)
        return NULL;
    for (int side = 0; side < SIDES; side++) {
        size_t rows = (size_t)x->rows * (size_t)heads_of(s, side);
        struct head_norm_args a = {.ld = x->cols,
                                   .T = x->rows,
                                   .heads = heads_of(s, side),
                                   .d = s->d,
                                   .w = s->w[side]->data,
                                   .eps = s->eps};

        invariant(s->w[side]->rows * s->w[side]->cols == s->d);
        keep[KEEP_SAVED + side] = tape_take(t, rows * (size_t)s->d * sizeof(float));
        keep[KEEP_RSTD + side] = tape_take(t, rows * sizeof(float));
        if (t->err.code)
            return NULL;
        if (tape_runs(t))
            a.x = y->data + column(s, side);
        a.saved = keep[KEEP_SAVED + side]->p;
        a.rstd = keep[KEEP_RSTD + side]->p;
        TAPE_RUN(t, head_norm, &a);
    }
    n = tape_record(t, sizeof *n, backward, y, NULL);
    for (int i = 0; i < 2 * SIDES; i++)
        if (n)
            n->node.keep[i] = keep[i];
        else
            tape_give(t, keep[i]);
    if (n) {
        n->x = x;
        n->y = y;
        n->spec = *s;
    }
    tape_release(t, x);
    return y;
}
