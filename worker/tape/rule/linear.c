/* y = act(x w^T + b), the weight as PyTorch stores it: (out, in).
 *
 * Backward: dz = dy act'(z); dw += dz^T x; db += column sums of dz; dx = dz w.
 * The value before the activation is kept only where a gradient will need it. All three
 * products have the weight's precision. */
#include "worker/tape/rule.h"

struct linear_node {
    struct tape_node node;
    struct tensor *x, *y;
    struct param *w, *b;
    enum op_act act;
};

static int weight_gradient(struct tape *t, const struct linear_node *n, const float *dz)
{
    struct param *w = n->w;
    struct matmul_args a = {.M = w->rows,
                            .N = w->cols,
                            .K = n->x->rows,
                            .a = dz,
                            .lda = w->rows,
                            .trans_a = 1,
                            .b = n->x->data,
                            .ldb = w->cols,
                            .c = w->grad,
                            .ldc = w->cols,
                            .accumulate = 1,
                            .precision = w->precision};

    tape_matmul(t, &a);
    tape_touch_rows(t, w);
    return t->err.code;
}

static int backward(struct tape *t, struct tape_node *node)
{
    struct linear_node *n = (struct linear_node *)node;
    long N = n->w->rows, K = n->w->cols, T = n->x->rows;
    float *dz = n->act == ACT_NONE ? n->y->grad : tape_grad_own(t, n->y);
    struct act_backward_args act = {.act = n->act,
                                    .x = n->act == ACT_NONE ? NULL : node->keep[0]->p,
                                    .dy = dz,
                                    .dx = dz,
                                    .dbias = param_trains(n->b) ? n->b->grad : NULL,
                                    .N = T,
                                    .D = N};

    if (n->act != ACT_NONE || act.dbias)
        TAPE_RUN(t, act_backward, &act);
    if (param_trains(n->w))
        weight_gradient(t, n, dz);
    if (n->x->needs_grad) {
        struct matmul_args a = {.M = T,
                                .N = K,
                                .K = N,
                                .a = dz,
                                .lda = N,
                                .b = n->w->data,
                                .ldb = K,
                                .ldc = K,
                                .pack = &n->w->pack[1],
                                .precision = n->w->precision};

        a.c = tape_grad_target(t, n->x, &a.accumulate);
        tape_matmul(t, &a);
    }
    return t->err.code;
}

struct tensor *tape_linear(struct tape *t, struct tensor *x, struct param *w,
                           struct param *b, enum op_act act)
{
    struct linear_node *n;
    struct tensor *y;
    int needs_grad;

    if (t->err.code)
        return NULL;
    invariant(x->cols == w->cols && (!b || b->rows * b->cols == w->rows));
    needs_grad = x->needs_grad || param_trains(w) || param_trains(b);
    y = tape_tensor(t, x->rows, w->rows, needs_grad);
    if (!y)
        return NULL;
    n = tape_record(t, sizeof *n, backward, y, NULL);
    if (n) {
        n->x = x;
        n->y = y;
        n->w = w;
        n->b = b;
        n->act = act;
        tape_adds_to(&n->node, w);
        tape_adds_to(&n->node, b);
        if (act != ACT_NONE)
            n->node.keep[0] = tape_grad_new(t, y);
    }
    {
        struct matmul_args a = {.M = x->rows,
                                .N = w->rows,
                                .K = w->cols,
                                .a = x->data,
                                .lda = w->cols,
                                .b = w->data,
                                .ldb = w->cols,
                                .trans_b = 1,
                                .bias = b ? b->data : NULL,
                                .act = act,
                                .pre = n && n->node.keep[0] ? n->node.keep[0]->p : NULL,
                                .c = y->data,
                                .ldc = w->rows,
                                .pack = &w->pack[0],
                                .precision = w->precision};

        tape_matmul(t, &a);
    }
    return y;
}
