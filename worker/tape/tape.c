/* The tape itself: modes, failure, blocks, gradients, the batch, and the walk backwards.
 *
 * Invariant: nodes are recorded in program order, and a tensor's consumers come after its
 * producer, so one walk from the last node to the first sees every gradient complete
 * before it is used. Gradient contributions to one tensor are summed in that fixed order.
 *
 * Fails by keeping the first error in t->err: running out of step memory (ERR_NOMEM), or
 * an operator of the back end with its own reason. */
#include "worker/tape/tape.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "worker/tape/rule.h"

struct tape *tape_new(const struct backend *be, struct err *e)
{
    struct tape *t = mem_alloc(sizeof *t);

    if (!t) {
        err_set(e, ERR_NOMEM, "out of memory for a tape");
        return NULL;
    }
    t->be = be;
    t->memory.be = be;
    t->mode = TAPE_INFER;
    return t;
}

void tape_free(struct tape *t)
{
    if (!t)
        return;
    step_fini(&t->memory);
    arena_fini(&t->arena);
    mem_free(t->count);
    mem_free(t);
}

static void let_params_go(struct tape *t, struct tape_node *node)
{
    for (int i = 0; i < NODE_PARAM_MAX && node->param[i]; i++)
        if (!--node->param[i]->pending && t->param_done)
            t->param_done(t->param_arg, node->param[i]);
}

void tape_on_param(struct tape *t, void (*done)(void *arg, struct param *p), void *arg)
{
    t->param_done = done;
    t->param_arg = arg;
}

void tape_adds_to(struct tape_node *node, struct param *p)
{
    int i = 0;

    if (!param_trains(p))
        return;
    while (i < NODE_PARAM_MAX && node->param[i])
        i++;
    invariant(i < NODE_PARAM_MAX);
    node->param[i] = p;
    p->pending++;
}

void tape_reset(struct tape *t, enum tape_mode mode)
{
    t->param_done = NULL;
    for (; t->last; t->last = t->last->before) /* a backward that never came */
        let_params_go(t, t->last);
    t->mode = mode;
    t->quiet = t->prepares = 0;
    t->err.code = 0;
    t->err.msg[0] = t->err.mend[0] = 0;
    arena_reset(&t->arena);
    t->dropout = 0;
    t->site = 0;
    memset(&t->batch, 0, sizeof t->batch);
    if (step_reset(&t->memory, tape_plans(t)))
        tape_fail(t, ERR_NOMEM, "out of memory for the activations of a step");
}

int tape_result(const struct tape *t, struct err *e)
{
    if (t->err.code)
        *e = t->err;
    return t->err.code;
}

size_t tape_peak(const struct tape *t)
{
    return step_peak(&t->memory);
}

void tape_reserve(struct tape *t, size_t bytes)
{
    if (bytes > t->memory.planned)
        t->memory.planned = bytes;
}

int tape_fail(struct tape *t, int code, const char *fmt, ...)
{
    char text[ERR_MSG_MAX];
    va_list ap;

    if (t->err.code)
        return t->err.code;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(&t->err, code, "%s", text);
}

int tape_check(struct tape *t, int rc, const char *op)
{
    if (!rc)
        return 0;
    return tape_fail(t, rc, "%s on %s: %s", op, t->be->name, t->be->error());
}

void tape_prepare(struct tape *t)
{
    invariant(tape_plans(t));
    t->prepares = t->be->choices != NULL;
}

int tape_matmul(struct tape *t, const struct matmul_args *a)
{
    if (t->prepares && !t->err.code)
        return tape_check(t, t->be->choices->prepare(a), "matmul");
    return TAPE_RUN(t, matmul, a);
}

struct tape_block *tape_take(struct tape *t, size_t bytes)
{
    struct tape_block *b;

    if (t->err.code)
        return NULL;
    b = arena_alloc(&t->arena, sizeof *b);
    if (!b || step_take(&t->memory, bytes, &b->offset, &b->p)) {
        char size[32], held[32];

        tape_fail(t, ERR_NOMEM,
                  "out of memory: a step wants %s more beside the %s it holds",
                  str_bytes(size, sizeof size, (double)bytes),
                  str_bytes(held, sizeof held, (double)tape_peak(t)));
        err_mend(&t->err, "lower micro_tokens (tokens in memory at once), or set "
                          "resources.recompute to on");
        return NULL;
    }
    b->bytes = bytes;
    b->refs = 1;
    return b;
}

void tape_give(struct tape *t, struct tape_block *b)
{
    if (!b || --b->refs)
        return;
    if (step_give(&t->memory, b->offset, b->bytes))
        tape_fail(t, ERR_NOMEM, "out of memory for the books of a step");
}

const void *tape_copy(struct tape *t, const void *host, size_t bytes)
{
    struct tape_block *b = tape_take(t, bytes);

    if (!b)
        return NULL;
    if (tape_runs(t))
        tape_check(t, t->be->copy_in(b->p, host, bytes), "copy to the device");
    return b->p;
}

static struct tensor *tensor_over(struct tape *t, long rows, long cols, int needs_grad,
                                  struct tape_block *data)
{
    struct tensor *x = data ? arena_alloc(&t->arena, sizeof *x) : NULL;

    if (!x) {
        tape_fail(t, ERR_NOMEM, "out of memory for the books of a step");
        return NULL;
    }
    x->rows = rows;
    x->cols = cols;
    x->needs_grad = needs_grad && !tape_infers(t);
    x->data_block = data;
    x->data = data->p;
    return x;
}

struct tensor *tape_tensor(struct tape *t, long rows, long cols, int needs_grad)
{
    size_t bytes = (size_t)rows * (size_t)cols * sizeof(float);

    invariant(rows > 0 && cols > 0);
    return tensor_over(t, rows, cols, needs_grad, tape_take(t, bytes));
}

struct tensor *tape_alias(struct tape *t, struct tensor *x, int needs_grad)
{
    struct tensor *y;

    if (t->err.code)
        return NULL;
    y = tensor_over(t, x->rows, x->cols, needs_grad, x->data_block);
    if (y)
        y->data_block->refs++;
    return y;
}

void tape_release(struct tape *t, struct tensor *x)
{
    if (!x || tape_records(t) || t->err.code)
        return;
    tape_give(t, x->data_block);
    x->data_block = NULL;
    x->data = NULL;
}

void *tape_record(struct tape *t, size_t size,
                  int (*backward)(struct tape *, struct tape_node *), struct tensor *y,
                  struct tensor *z)
{
    struct tape_node *node;

    if (t->err.code || !tape_records(t))
        return NULL;
    if (!(y && y->needs_grad) && !(z && z->needs_grad))
        return NULL;
    node = arena_alloc(&t->arena, size);
    if (!node) {
        tape_fail(t, ERR_NOMEM, "out of memory for the books of a step");
        return NULL;
    }
    node->backward = backward;
    node->before = t->last;
    node->out[0] = y;
    node->out[1] = z;
    for (int i = 0; i < NODE_OUT_MAX; i++)
        if (node->out[i])
            node->out[i]->producer = node;
    t->last = node;
    return node;
}

struct tape_block *tape_grad_new(struct tape *t, const struct tensor *x)
{
    return tape_take(t, (size_t)x->rows * (size_t)x->cols * sizeof(float));
}

static void set_grad(struct tensor *x, struct tape_block *b)
{
    x->grad_block = b;
    x->grad = b ? b->p : NULL;
}

/* x's gradient in a block that nobody shares. */
static int grad_unshare(struct tape *t, struct tensor *x)
{
    struct tape_block *own;
    struct add_args add;

    if (x->grad_block->refs == 1)
        return 0;
    own = tape_grad_new(t, x);
    if (!own)
        return t->err.code;
    add = (struct add_args){.x = x->grad, .y = own->p, .n = x->rows * x->cols};
    if (tape_runs(t))
        tape_check(t, t->be->fill_zero(own->p, own->bytes), "fill_zero");
    TAPE_RUN(t, add, &add);
    tape_give(t, x->grad_block);
    set_grad(x, own);
    return t->err.code;
}

int tape_grad_put(struct tape *t, struct tensor *x, struct tape_block *b)
{
    struct add_args add;

    if (t->err.code || !b)
        return t->err.code;
    if (!x->grad_block) {
        set_grad(x, b);
        return 0;
    }
    if (grad_unshare(t, x))
        return t->err.code;
    add = (struct add_args){.x = b->p, .y = x->grad, .n = x->rows * x->cols};
    TAPE_RUN(t, add, &add);
    tape_give(t, b);
    return t->err.code;
}

float *tape_grad_own(struct tape *t, struct tensor *x)
{
    return grad_unshare(t, x) ? NULL : x->grad;
}

float *tape_grad_target(struct tape *t, struct tensor *x, int *accumulate)
{
    *accumulate = x->grad_block != NULL;
    if (!x->grad_block)
        set_grad(x, tape_grad_new(t, x));
    else
        grad_unshare(t, x);
    return x->grad;
}

struct tape_block *tape_grad_pass(struct tape *t, struct tensor *x)
{
    struct tape_block *b;

    if (grad_unshare(t, x))
        return NULL;
    b = x->grad_block;
    set_grad(x, NULL);
    return b;
}

void tape_touch_rows(struct tape *t, struct param *w)
{
    if (tape_runs(t) && w->touched)
        memset(w->touched, 1, (size_t)w->rows);
    if (tape_runs(t) && w->live)
        memset(w->live, 1, (size_t)w->rows);
}

void tape_set_dropout(struct tape *t, uint64_t key)
{
    t->dropout = !tape_infers(t);
    t->key = key;
}

struct op_dropout tape_next_dropout(struct tape *t, double p, int rows_are_sequences)
{
    struct op_dropout d = {0};
    uint32_t site = t->site++;

    if (!t->dropout || p <= 0)
        return d;
    d.p = (float)p;
    d.site = site;
    d.key = t->key;
    d.example = rows_are_sequences ? t->batch.row_example : t->batch.example;
    d.position = rows_are_sequences ? t->batch.row_position : t->batch.position;
    return d;
}

int tape_set_batch(struct tape *t, const struct packed *in, const int *pooled, long n)
{
    struct tape_batch *b = &t->batch;
    size_t B = (size_t)in->B, T = (size_t)in->T, rows = (size_t)n;
    uint32_t *row = NULL, *example = NULL;
    int *bounds = NULL;

    if (t->err.code)
        return t->err.code;
    row = mem_array(rows, sizeof *row);
    example = mem_array(rows, sizeof *example);
    bounds = mem_array(rows + 1, sizeof *bounds);
    if (!row || !example || !bounds) {
        tape_fail(t, ERR_NOMEM, "out of memory for the books of a step");
        goto done;
    }
    for (size_t i = 0; i < rows; i++) {
        row[i] = in->position[pooled[i]];
        example[i] = in->example[pooled[i]];
        bounds[i + 1] = pooled[i] + 1;
    }
    b->B = in->B;
    b->T = in->T;
    b->rows = n;
    b->cu_seqlens = tape_copy(t, in->cu_seqlens, (B + 1) * sizeof *in->cu_seqlens);
    b->position = tape_copy(t, in->position, T * sizeof *in->position);
    b->example = tape_copy(t, in->example, T * sizeof *in->example);
    b->row_example = tape_copy(t, example, rows * sizeof *example);
    b->row_position = tape_copy(t, row, rows * sizeof *row);
    b->pool_seqlens = tape_copy(t, bounds, (rows + 1) * sizeof *bounds);
done:
    mem_free(row);
    mem_free(example);
    mem_free(bounds);
    return t->err.code;
}

int tape_seed(struct tape *t, struct tensor *x, const float *grad)
{
    size_t bytes;

    if (t->err.code)
        return t->err.code;
    if (tape_infers(t) || !x->needs_grad)
        return tape_fail(t, ERR_FAILED, "no gradient flows into this tensor");
    invariant(!x->grad_block);
    bytes = (size_t)x->rows * (size_t)x->cols * sizeof(float);
    set_grad(x, tape_grad_new(t, x));
    if (tape_runs(t))
        tape_check(t, t->be->copy_in(x->grad, grad, bytes), "copy to the device");
    return t->err.code;
}

static void give_outputs(struct tape *t, struct tape_node *node)
{
    for (int i = 0; i < NODE_OUT_MAX; i++) {
        struct tensor *x = node->out[i];

        if (!x || x->producer != node)
            continue;
        tape_give(t, x->grad_block);
        tape_give(t, x->data_block);
        set_grad(x, NULL);
        x->data_block = NULL;
        x->data = NULL;
        x->producer = NULL;
    }
    for (int i = 0; i < NODE_KEEP_MAX; i++) {
        tape_give(t, node->keep[i]);
        node->keep[i] = NULL;
    }
}

void tape_walk(struct tape *t, const struct tape_node *end)
{
    while (t->last != end && !t->err.code) {
        struct tape_node *node = t->last;
        int reached = 0;

        for (int i = 0; i < NODE_OUT_MAX; i++)
            reached |= node->out[i] && node->out[i]->grad_block;
        if (reached)
            node->backward(t, node);
        if (t->err.code) /* what is left is let go by the next reset */
            return;
        give_outputs(t, node);
        let_params_go(t, node);
        t->last = node->before;
    }
}

int tape_backward(struct tape *t, struct err *e)
{
    tape_walk(t, NULL);
    return tape_result(t, e);
}
