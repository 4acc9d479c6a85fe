/* Recomputation (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost",
 * arXiv:1604.06174): of a block of the network only its inputs stay until backward, which
 * runs the block's forward again, recording this time, and then backwards.
 *
 * The second forward has the inputs and the dropout sites of the first, so its bits; what
 * has reached the inputs' gradients by then goes into the block and comes back, so sums
 * have the order they would have without. A parameter of the block is used nowhere else:
 * tape_on_param() counts its uses when they are recorded.
 *
 * Fails as the block does. */
#include "worker/tape/rule.h"

struct recompute_node {
    struct tape_node node;
    void (*run)(struct tape *t, void *arg, struct tensor **x);
    void *arg;
    int n;
    uint32_t site; /* the block's first */
    struct tensor *x[TAPE_STREAMS_MAX], *y[TAPE_STREAMS_MAX];
};

static void move_grad(struct tensor *from, struct tensor *to)
{
    to->grad_block = from->grad_block;
    to->grad = from->grad;
    from->grad_block = NULL;
    from->grad = NULL;
}

static void give_data(struct tape *t, struct tensor *x)
{
    tape_give(t, x->data_block);
    x->data_block = NULL;
    x->data = NULL;
}

static int backward(struct tape *t, struct tape_node *node)
{
    struct recompute_node *n = (struct recompute_node *)node;
    struct tensor *x[TAPE_STREAMS_MAX], *y[TAPE_STREAMS_MAX];
    uint32_t site = t->site;

    for (int i = 0; i < n->n; i++) {
        give_data(t, n->y[i]);
        x[i] = y[i] = tape_alias(t, n->x[i], n->x[i]->needs_grad);
        if (!x[i])
            return t->err.code;
        move_grad(n->x[i], x[i]);
    }
    t->site = n->site;
    n->run(t, n->arg, y);
    t->site = site;
    if (t->err.code)
        return t->err.code;
    for (int i = 0; i < n->n; i++)
        move_grad(n->y[i], y[i]);
    tape_walk(t, node);
    for (int i = 0; !t->err.code && i < n->n; i++) {
        move_grad(x[i], n->x[i]);
        give_data(t, x[i]);
    }
    return t->err.code;
}

void tape_recompute(struct tape *t,
                    void (*run)(struct tape *t, void *arg, struct tensor **x), void *arg,
                    struct tensor **x, int n)
{
    struct recompute_node block = {.run = run, .arg = arg, .n = n, .site = t->site}, *r;
    struct tensor *own[TAPE_STREAMS_MAX];

    invariant(n > 0 && n <= TAPE_STREAMS_MAX && !tape_infers(t) && !t->quiet);
    for (int i = 0; !t->err.code && i < n; i++) {
        block.x[i] = x[i];
        x[i] = own[i] = tape_alias(t, x[i], x[i]->needs_grad);
    }
    if (t->err.code)
        return;
    t->quiet = 1;
    run(t, arg, x);
    t->quiet = 0;
    for (int i = 0; !t->err.code && i < n; i++) {
        give_data(t, own[i]);
        block.y[i] = x[i];
    }
    r = tape_record(t, sizeof *r, backward, x[0], n > 1 ? x[1] : NULL);
    if (!r)
        return;
    block.node = r->node;
    *r = block;
}
