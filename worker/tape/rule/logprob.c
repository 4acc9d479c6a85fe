/* Log-probabilities of chosen tokens: z = x w^T + b over a vocabulary V, then op.h's
 * logprob of z / temperature. All of z would be N x V numbers: it is made in fragments of
 * TAPE_FRAGMENT_COLUMNS columns and as many rows as fit into LOGPROB_FRAGMENT bytes.
 *
 * Backward makes each fragment again and turns it into its gradient in place; then
 * dx += dz w, dw += dz^T x, db += column sums of dz for the fragment's rows of w. What
 * stays between the two is LOGPROB_STATE numbers a row.
 *
 * The columns of a fragment depend on V alone, so a row's bits do not depend on how many
 * there are. */
#include "worker/tape/rule.h"

enum { KEEP_STATE = 0 };

struct logprob_node {
    struct tape_node node;
    struct tensor *x, *y;
    struct param *w, *b;
    const int *target; /* device */
    float *state;
    float scale;
};

/* Rows [row, row + rows) by columns [first, first + columns). */
struct fragment {
    float *z;
    long row, rows, first, columns;
};

static long fragment_columns(const struct param *w)
{
    return w->rows < TAPE_FRAGMENT_COLUMNS ? w->rows : TAPE_FRAGMENT_COLUMNS;
}

static long fragment_rows(const struct logprob_node *n)
{
    long fit = LOGPROB_FRAGMENT / (long)sizeof(float) / fragment_columns(n->w);

    return n->x->rows < fit ? n->x->rows : fit;
}

static long part(long n, long from, long most)
{
    return n - from < most ? n - from : most;
}

static void make_logits(struct tape *t, const struct logprob_node *n,
                        const struct fragment *f)
{
    long D = n->x->cols;
    struct matmul_args a = {.M = f->rows,
                            .N = f->columns,
                            .K = D,
                            .a = n->x->data + f->row * D,
                            .lda = D,
                            .b = n->w->data + f->first * D,
                            .ldb = D,
                            .trans_b = 1,
                            .bias = n->b ? n->b->data + f->first : NULL,
                            .c = f->z,
                            .ldc = f->columns,
                            .precision = n->w->precision};

    tape_matmul(t, &a);
}

static void run_forward(struct tape *t, const struct logprob_node *n,
                        const struct fragment *f)
{
    struct logprob_args a = {.logits = f->z,
                             .N = f->rows,
                             .V = n->w->rows,
                             .first = f->first,
                             .columns = f->columns,
                             .scale = n->scale,
                             .target = n->target + f->row,
                             .state = n->state + f->row * LOGPROB_STATE,
                             .out = n->y->data + f->row * LOGPROB_OUT};

    make_logits(t, n, f);
    TAPE_RUN(t, logprob, &a);
}

static void bias_gradient(struct tape *t, const struct logprob_node *n,
                          const struct fragment *f)
{
    struct act_backward_args a = {.act = ACT_NONE,
                                  .dy = f->z,
                                  .dx = f->z,
                                  .dbias = n->b->grad + f->first,
                                  .N = f->rows,
                                  .D = f->columns};

    TAPE_RUN(t, act_backward, &a);
}

static void weight_gradient(struct tape *t, const struct logprob_node *n,
                            const struct fragment *f)
{
    long D = n->x->cols;
    struct matmul_args a = {.M = f->columns,
                            .N = D,
                            .K = f->rows,
                            .a = f->z,
                            .lda = f->columns,
                            .trans_a = 1,
                            .b = n->x->data + f->row * D,
                            .ldb = D,
                            .c = n->w->grad + f->first * D,
                            .ldc = D,
                            .accumulate = 1,
                            .precision = n->w->precision};

    tape_matmul(t, &a);
}

static void input_gradient(struct tape *t, const struct logprob_node *n,
                           const struct fragment *f, float *dx, int accumulate)
{
    long D = n->x->cols;
    struct matmul_args a = {.M = f->rows,
                            .N = D,
                            .K = f->columns,
                            .a = f->z,
                            .lda = f->columns,
                            .b = n->w->data + f->first * D,
                            .ldb = D,
                            .c = dx + f->row * D,
                            .ldc = D,
                            .accumulate = accumulate || f->first > 0,
                            .precision = n->w->precision};

    tape_matmul(t, &a);
}

static void run_backward(struct tape *t, const struct logprob_node *n,
                         const struct fragment *f, float *dx, int accumulate)
{
    struct logprob_backward_args a = {.logits = f->z,
                                      .N = f->rows,
                                      .first = f->first,
                                      .columns = f->columns,
                                      .scale = n->scale,
                                      .target = n->target + f->row,
                                      .state = n->state + f->row * LOGPROB_STATE,
                                      .dout = n->y->grad + f->row * LOGPROB_OUT};

    make_logits(t, n, f);
    TAPE_RUN(t, logprob_backward, &a);
    if (param_trains(n->b))
        bias_gradient(t, n, f);
    if (param_trains(n->w))
        weight_gradient(t, n, f);
    if (n->x->needs_grad)
        input_gradient(t, n, f, dx, accumulate);
}

/* Every fragment, forward or backward. */
static void run_fragments(struct tape *t, const struct logprob_node *n, int forward,
                          float *dx, int accumulate)
{
    long rows = fragment_rows(n), columns = fragment_columns(n->w);
    struct tape_block *b = tape_take(t, (size_t)(rows * columns) * sizeof(float));
    struct fragment f = {.z = b ? b->p : NULL};

    for (f.row = 0; (tape_runs(t) || t->prepares) && f.row < n->x->rows; f.row += rows) {
        f.rows = part(n->x->rows, f.row, rows);
        for (f.first = 0; f.first < n->w->rows; f.first += columns) {
            f.columns = part(n->w->rows, f.first, columns);
            if (forward)
                run_forward(t, n, &f);
            else
                run_backward(t, n, &f, dx, accumulate);
        }
    }
    tape_give(t, b);
}

static int backward(struct tape *t, struct tape_node *node)
{
    struct logprob_node *n = (struct logprob_node *)node;
    int accumulate = 0;
    float *dx = n->x->needs_grad ? tape_grad_target(t, n->x, &accumulate) : NULL;

    run_fragments(t, n, 0, dx, accumulate);
    if (param_trains(n->w))
        tape_touch_rows(t, n->w);
    return t->err.code;
}

struct tensor *tape_logprob(struct tape *t, struct tensor *x, struct param *w,
                            struct param *b, const int *target, double temperature)
{
    struct logprob_node *n, plain = {.x = NULL};
    struct tape_block *state;
    struct tensor *y;

    if (t->err.code)
        return NULL;
    invariant(x->cols == w->cols && (!b || b->rows * b->cols == w->rows));
    invariant(temperature > 0);
    y = tape_tensor(t, x->rows, LOGPROB_OUT,
                    x->needs_grad || param_trains(w) || param_trains(b));
    state = tape_take(t, (size_t)x->rows * LOGPROB_STATE * sizeof(float));
    if (t->err.code)
        return NULL;
    n = tape_record(t, sizeof *n, backward, y, NULL);
    if (n) {
        n->node.keep[KEEP_STATE] = state;
        tape_adds_to(&n->node, w);
        tape_adds_to(&n->node, b);
    } else {
        n = &plain;
    }
    n->x = x;
    n->y = y;
    n->w = w;
    n->b = b;
    n->target = tape_copy(t, target, (size_t)x->rows * sizeof *target);
    n->state = state->p;
    n->scale = (float)(1 / temperature);
    run_fragments(t, n, 1, NULL, 0);
    if (n == &plain)
        tape_give(t, state);
    return t->err.code ? NULL : y;
}
