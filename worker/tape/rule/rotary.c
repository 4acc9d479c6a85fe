/* Rotary positions (Su et al. 2021), in place on the first heads of a fused q,k,v matrix.
 *
 * A rotation's transpose is its inverse, so backward turns the gradient back in place. The
 * producer (a linear without activation) never needs what is written over. */
#include "worker/tape/rule.h"

struct rotary_node {
    struct tape_node node;
    struct tensor *x, *y;
    struct rotary_args args;
};

static int backward(struct tape *t, struct tape_node *node)
{
    struct rotary_node *n = (struct rotary_node *)node;
    struct tape_block *g = tape_grad_pass(t, n->y);

    if (!g)
        return t->err.code;
    n->args.x = g->p;
    n->args.inverse = 1;
    TAPE_RUN(t, rotary, &n->args);
    return tape_grad_put(t, n->x, g);
}

struct tensor *tape_rotary(struct tape *t, struct tensor *x, int heads, int d, int rot,
                           int interleaved, const float *freq)
{
    struct rotary_args a;
    struct rotary_node *n;
    struct tensor *y;

    if (t->err.code)
        return NULL;
    invariant(rot > 0 && rot <= d && rot % 2 == 0 && (long)heads * d <= x->cols);
    a = (struct rotary_args){.ld = x->cols,
                             .T = x->rows,
                             .heads = heads,
                             .d = d,
                             .rot = rot,
                             .interleaved = interleaved,
                             .position = t->batch.position,
                             .freq = freq};
    y = tape_alias(t, x, x->needs_grad);
    if (!y)
        return NULL;
    a.x = y->data;
    TAPE_RUN(t, rotary, &a);
    n = tape_record(t, sizeof *n, backward, y, NULL);
    if (n) {
        n->x = x;
        n->y = y;
        n->args = a;
    }
    tape_release(t, x);
    return y;
}
