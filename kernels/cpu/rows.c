/* Operators that treat rows or elements one by one: cut into blocks of fixed size, each
 * done by one thread. Column sums (gradients of biases, of a norm's weights) are taken
 * block by block into scratch and added in block order: their bits depend on N alone. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/fail.h"

enum { ROW_BLOCK = 32, FLAT_BLOCK = 16384 };

struct job {
    const void *args;
    const struct cpu_loops *loops;
    float *part; /* (blocks, width) of column sums, or NULL */
    long width;
};

static long row_blocks(long n)
{
    return cpu_ceil_div(n, ROW_BLOCK);
}

/* Elements [from, to) of flat block i. */
static long flat_end(long n, long i)
{
    return cpu_min(n, (i + 1) * FLAT_BLOCK);
}

/* Zeroed room for the column sums of every block; NULL: none. */
static float *part_take(long blocks, long width)
{
    size_t bytes = (size_t)(blocks * width) * sizeof(float);
    float *part = cpu_scratch_take(bytes);

    if (part)
        memset(part, 0, bytes);
    return part;
}

static void part_add(const struct job *j, long blocks, long column, long n, float *to)
{
    for (long i = 0; to && i < blocks; i++)
        j->loops->add(j->part + i * j->width + column, to, n);
}

/* ---- activations ---- */

static void act_task(void *arg, long i, int worker)
{
    const struct job *j = arg;
    const struct act_args *a = j->args;
    long from = i * FLAT_BLOCK;

    (void)worker;
    j->loops->act(a->act, a->x + from, a->y + from, flat_end(a->n, i) - from);
}

int cpu_act(const struct act_args *a)
{
    struct job j = {.args = a, .loops = cpu_loops()};

    cpu_for(cpu_ceil_div(a->n, FLAT_BLOCK), (double)a->n / 2, act_task, &j);
    return 0;
}

static void act_backward_task(void *arg, long i, int worker)
{
    const struct job *j = arg;
    const struct act_backward_args *a = j->args;
    long from = i * ROW_BLOCK, to = cpu_min(a->N, from + ROW_BLOCK);

    (void)worker;
    for (long r = from; r < to; r++) {
        float *dx = a->dx + r * a->D;

        if (a->act != ACT_NONE)
            j->loops->act_slope(a->act, a->x + r * a->D, a->dy + r * a->D, dx, a->D);
        else if (dx != a->dy + r * a->D)
            memcpy(dx, a->dy + r * a->D, (size_t)a->D * sizeof *dx);
        if (j->part)
            j->loops->add(dx, j->part + i * a->D, a->D);
    }
}

int cpu_act_backward(const struct act_backward_args *a)
{
    struct job j = {.args = a, .loops = cpu_loops(), .width = a->D};
    long blocks = row_blocks(a->N);

    if (a->N <= 0 || (!a->dbias && a->act == ACT_NONE && a->dx == a->dy))
        return 0;
    if (a->dbias && !(j.part = part_take(blocks, a->D)))
        return op_fail(ERR_NOMEM, "act_backward: out of memory");
    cpu_for(blocks, (double)(a->N * a->D) / (a->act == ACT_NONE ? 8 : 2), act_backward_task,
            &j);
    part_add(&j, a->dbias ? blocks : 0, 0, a->D, a->dbias);
    cpu_scratch_give(j.part);
    return 0;
}

static void glu_task(void *arg, long i, int worker)
{
    const struct job *j = arg;
    const struct glu_args *a = j->args;
    long from = i * ROW_BLOCK, to = cpu_min(a->N, from + ROW_BLOCK);

    (void)worker;
    for (long r = from; r < to; r++)
        j->loops->glu(a->act, a->gate + r * a->ld, a->up + r * a->ld, a->y + r * a->F,
                      a->F);
}

int cpu_glu(const struct glu_args *a)
{
    struct job j = {.args = a, .loops = cpu_loops()};

    cpu_for(row_blocks(a->N), (double)(a->N * a->F) / 2, glu_task, &j);
    return 0;
}

static void glu_backward_task(void *arg, long i, int worker)
{
    const struct job *j = arg;
    const struct glu_backward_args *a = j->args;
    long from = i * ROW_BLOCK, to = cpu_min(a->N, from + ROW_BLOCK);

    (void)worker;
    for (long r = from; r < to; r++) {
        long at = r * a->ld;

        j->loops->glu_slope(a->act, a->gate + at, a->up + at, a->dy + r * a->F,
                            a->dgate + at, a->dup + at, a->F);
    }
}

int cpu_glu_backward(const struct glu_backward_args *a)
{
    struct job j = {.args = a, .loops = cpu_loops()};

    cpu_for(row_blocks(a->N), (double)(a->N * a->F), glu_backward_task, &j);
    return 0;
}

/* ---- norms ---- */

static void norm_task(void *arg, long i, int worker)
{
    const struct job *j = arg;
    const struct norm_args *a = j->args;

    (void)worker;
    j->loops->norm(a, i * ROW_BLOCK, cpu_min(a->N, (i + 1) * ROW_BLOCK));
}

int cpu_norm(const struct norm_args *a)
{
    struct job j = {.args = a, .loops = cpu_loops()};

    if (!a->sum && (a->residual || a->dropout.p > 0))
        return op_fail(ERR_FAILED, "norm: a residual or dropout needs room for the sum");
    cpu_for(row_blocks(a->N), (double)(a->N * a->D) / (a->dropout.p > 0 ? 2 : 8), norm_task,
            &j);
    return 0;
}

static void norm_backward_task(void *arg, long i, int worker)
{
    const struct job *j = arg;
    const struct norm_backward_args *a = j->args;
    float *dw = j->part + i * j->width;

    (void)worker;
    j->loops->norm_backward(a, i * ROW_BLOCK, cpu_min(a->N, (i + 1) * ROW_BLOCK), dw,
                            dw + a->D);
}

int cpu_norm_backward(const struct norm_backward_args *a)
{
    struct job j = {.args = a, .loops = cpu_loops(), .width = 2 * a->D};
    long blocks = row_blocks(a->N);

    if (a->N <= 0)
        return 0;
    if (!(j.part = part_take(blocks, j.width)))
        return op_fail(ERR_NOMEM, "norm_backward: out of memory");
    cpu_for(blocks, (double)(a->N * a->D) / (a->dropout.p > 0 ? 2 : 4), norm_backward_task,
            &j);
    part_add(&j, blocks, 0, a->D, a->dw);
    part_add(&j, blocks, a->D, a->D, a->db);
    cpu_scratch_give(j.part);
    return 0;
}

/* A head is a row of d elements; as many tokens to a block as hold ROW_BLOCK rows. */
static long head_tokens(int heads)
{
    return cpu_ceil_div(ROW_BLOCK, heads);
}

static void head_norm_task(void *arg, long i, int worker)
{
    const struct job *j = arg;
    const struct head_norm_args *a = j->args;
    struct norm_args row = {.kind = NORM_RMS, .N = 1, .D = a->d, .w = a->w, .eps = a->eps};
    long from = i * head_tokens(a->heads), to = cpu_min(a->T, from + head_tokens(a->heads));

    (void)worker;
    for (long r = from * a->heads; r < to * a->heads; r++) {
        row.x = a->saved + r * a->d;
        row.y = a->x + r / a->heads * a->ld + r % a->heads * a->d;
        row.rstd = a->rstd + r;
        memcpy(a->saved + r * a->d, row.y, (size_t)a->d * sizeof *row.y);
        j->loops->norm(&row, 0, 1);
    }
}

int cpu_head_norm(const struct head_norm_args *a)
{
    struct job j = {.args = a, .loops = cpu_loops()};

    cpu_for(cpu_ceil_div(a->T, head_tokens(a->heads)), (double)(a->T * a->heads * a->d) / 4,
            head_norm_task, &j);
    return 0;
}

static void head_norm_backward_task(void *arg, long i, int worker)
{
    const struct job *j = arg;
    const struct head_norm_backward_args *a = j->args;
    struct norm_backward_args row = {.kind = NORM_RMS, .N = 1, .D = a->d, .w = a->w};
    long from = i * head_tokens(a->heads), to = cpu_min(a->T, from + head_tokens(a->heads));
    float *dw = j->part + i * j->width;

    (void)worker;
    for (long r = from * a->heads; r < to * a->heads; r++) {
        row.dx = a->dx + r / a->heads * a->ld + r % a->heads * a->d;
        row.dy = row.dx;
        row.sum = a->saved + r * a->d;
        row.rstd = a->rstd + r;
        j->loops->norm_backward(&row, 0, 1, dw, dw + a->d);
    }
}

int cpu_head_norm_backward(const struct head_norm_backward_args *a)
{
    struct job j = {.args = a, .loops = cpu_loops(), .width = 2L * a->d};
    long blocks = cpu_ceil_div(a->T, head_tokens(a->heads));

    if (a->T <= 0)
        return 0;
    if (!(j.part = part_take(blocks, j.width)))
        return op_fail(ERR_NOMEM, "head_norm_backward: out of memory");
    cpu_for(blocks, (double)(a->T * a->heads * a->d) / 2, head_norm_backward_task, &j);
    part_add(&j, blocks, 0, a->d, a->dw);
    cpu_scratch_give(j.part);
    return 0;
}

/* ---- losses, dropout, sums ---- */

static void cross_entropy_task(void *arg, long n, int worker)
{
    const struct job *j = arg;
    const struct cross_entropy_args *a = j->args;
    float *dz = a->dlogits ? a->dlogits + n * a->V : NULL;

    (void)worker;
    if (a->label[n] != -100) {
        a->loss[n] = j->loops->cross_entropy(a, a->logits + n * a->V, a->label[n], dz);
        return;
    }
    a->loss[n] = 0;
    if (dz)
        memset(dz, 0, (size_t)a->V * sizeof *dz);
}

int cpu_cross_entropy(const struct cross_entropy_args *a)
{
    struct job j = {.args = a, .loops = cpu_loops()};

    if (a->focal > 0 && a->smoothing > 0)
        return op_fail(ERR_FAILED, "cross_entropy: focal and smoothing exclude each other");
    for (long n = 0; n < a->N; n++)
        if (a->label[n] != -100 && (a->label[n] < 0 || a->label[n] >= a->V))
            return op_fail(ERR_FAILED,
                           "cross_entropy: label %d of row %ld is not below %ld",
                           a->label[n], n, a->V);
    cpu_for(a->N, (double)(a->N * a->V), cross_entropy_task, &j);
    return 0;
}

static void finish_logprob(const struct logprob_args *a, long n, float *state)
{
    float *out = a->out + n * LOGPROB_OUT, log_sum = logf(state[1]);

    state[2] = log_sum - state[2] / state[1];
    state[1] = log_sum;
    if (a->target[n] < 0) {
        memset(out, 0, LOGPROB_OUT * sizeof *out);
        return;
    }
    out[0] = fmaf(state[3], a->scale, -state[0]) - log_sum;
    out[1] = state[2];
    out[2] = state[3] * a->scale >= state[0];
    out[3] = 1;
}

static void logprob_task(void *arg, long n, int worker)
{
    const struct job *j = arg;
    const struct logprob_args *a = j->args;
    const float *z = a->logits + n * a->columns;
    float *state = a->state + n * LOGPROB_STATE;
    long t = a->target[n] - a->first;

    (void)worker;
    if (a->first == 0) {
        state[0] = -INFINITY;
        state[1] = state[2] = state[3] = 0;
    }
    j->loops->logprob(z, a->columns, a->scale, state);
    if (t >= 0 && t < a->columns)
        state[3] = z[t];
    if (a->first + a->columns == a->V)
        finish_logprob(a, n, state);
}

int cpu_logprob(const struct logprob_args *a)
{
    struct job j = {.args = a, .loops = cpu_loops()};

    cpu_for(a->N, (double)(a->N * a->columns), logprob_task, &j);
    return 0;
}

static void logprob_backward_task(void *arg, long n, int worker)
{
    const struct job *j = arg;
    const struct logprob_backward_args *a = j->args;
    float *z = a->logits + n * a->columns;

    (void)worker;
    if (a->target[n] < 0)
        memset(z, 0, (size_t)a->columns * sizeof *z);
    else
        j->loops->logprob_slope(z, a->columns, a->scale, a->target[n] - a->first,
                                a->state + n * LOGPROB_STATE, a->dout + n * LOGPROB_OUT);
}

int cpu_logprob_backward(const struct logprob_backward_args *a)
{
    struct job j = {.args = a, .loops = cpu_loops()};

    cpu_for(a->N, (double)(a->N * a->columns), logprob_backward_task, &j);
    return 0;
}

static void dropout_task(void *arg, long i, int worker)
{
    const struct job *j = arg;
    const struct dropout_args *a = j->args;
    long from = i * ROW_BLOCK, to = cpu_min(a->N, from + ROW_BLOCK);

    (void)worker;
    for (long r = from; r < to; r++) {
        const float *x = a->x + r * a->D;

        if (a->dropout.p > 0)
            j->loops->dropout(&a->dropout, r, x, a->y + r * a->D, a->D);
        else if (x != a->y + r * a->D)
            memcpy(a->y + r * a->D, x, (size_t)a->D * sizeof *x);
    }
}

int cpu_dropout(const struct dropout_args *a)
{
    struct job j = {.args = a, .loops = cpu_loops()};

    cpu_for(row_blocks(a->N), (double)(a->N * a->D) / 2, dropout_task, &j);
    return 0;
}

static void add_task(void *arg, long i, int worker)
{
    const struct job *j = arg;
    const struct add_args *a = j->args;
    long from = i * FLAT_BLOCK;

    (void)worker;
    j->loops->add(a->x + from, a->y + from, flat_end(a->n, i) - from);
}

int cpu_add(const struct add_args *a)
{
    struct job j = {.args = a, .loops = cpu_loops()};

    cpu_for(cpu_ceil_div(a->n, FLAT_BLOCK), (double)a->n / 8, add_task, &j);
    return 0;
}
