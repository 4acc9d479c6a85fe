/* AdamW and the gradient norm over many tensors at once. Both read memory more than they
 * compute, so a row that has never had a gradient is not touched at all.
 *
 * A chunk is a fixed run of one tensor (whole rows where rows can be skipped); the norm
 * adds its chunks in order. Fails when memory is short. */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/fail.h"

enum { CHUNK = 32768 };

struct chunk {
    const struct adamw_tensor *t;
    int tensor;
    long from, to;
    double sum;
};

struct job {
    const struct cpu_loops *loops;
    struct adamw_step step;
    struct chunk *chunk;
    long n;
    double elements;
};

/* Chunk length of a tensor: whole rows when rows may be skipped. */
static long chunk_length(const struct adamw_tensor *t)
{
    if (!t->live || t->width <= 0)
        return CHUNK;
    return t->width * (t->width < CHUNK ? CHUNK / t->width : 1);
}

static int cut(struct job *j, const struct adamw_tensor *tensor, int n)
{
    j->loops = cpu_loops();
    for (int i = 0; i < n; i++)
        j->n += cpu_ceil_div(tensor[i].n, chunk_length(&tensor[i]));
    j->chunk = cpu_scratch_take((size_t)(j->n + 1) * sizeof *j->chunk);
    if (!j->chunk)
        return op_fail(ERR_NOMEM, "out of memory for %ld chunks", j->n);
    j->n = 0;
    for (int i = 0; i < n; i++) {
        const struct adamw_tensor *t = &tensor[i];
        long length = chunk_length(t);

        for (long from = 0; from < t->n; from += length)
            j->chunk[j->n++] = (struct chunk){t, i, from, cpu_min(t->n, from + length), 0};
        j->elements += (double)t->n;
    }
    return 0;
}

/* The next run of live rows within from .. to-1; 0: none. Tensors without flags, or with
 * decay when `dense_with_decay`, are one run. */
static int live_run(const struct adamw_tensor *t, int dense_with_decay, long *from, long to,
                    long *end)
{
    if (*from >= to)
        return 0;
    if (!t->live || t->width <= 0 || (dense_with_decay && t->decay != 0)) {
        *end = to;
        return 1;
    }
    while (*from < to && !t->live[*from / t->width])
        *from += t->width;
    for (*end = *from; *end < to && t->live[*end / t->width];)
        *end += t->width;
    *end = cpu_min(*end, to);
    return *from < to;
}

static void adamw_task(void *arg, long i, int worker)
{
    const struct job *j = arg;
    const struct chunk *c = &j->chunk[i];

    (void)worker;
    for (long from = c->from, end; live_run(c->t, 1, &from, c->to, &end); from = end)
        j->loops->adamw(c->t, &j->step, from, end);
}

int cpu_adamw(const struct adamw_args *a)
{
    double c1 = 1 - pow(a->beta1, (double)a->step);
    double c2 = sqrt(1 - pow(a->beta2, (double)a->step));
    struct job j = {.step = {(float)a->beta1, (float)a->beta2, (float)(1 - a->beta1),
                             (float)(1 - a->beta2), a->grad_scale, (float)(a->eps * c2),
                             (float)(c2 / c1)}};
    int rc;

    if (a->step < 1)
        return op_fail(ERR_FAILED, "adamw: steps count from 1");
    rc = cut(&j, a->tensor, a->n);
    if (rc)
        return rc;
    cpu_for(j.n, j.elements, adamw_task, &j);
    cpu_scratch_give(j.chunk);
    return 0;
}

static void grad_norm_task(void *arg, long i, int worker)
{
    struct job *j = arg;
    struct chunk *c = &j->chunk[i];

    (void)worker;
    for (long from = c->from, end; live_run(c->t, 0, &from, c->to, &end); from = end)
        c->sum += j->loops->square_sum(c->t->grad + from, end - from);
}

int cpu_grad_norm(const struct grad_norm_args *a)
{
    struct job j = {0};
    int rc = cut(&j, a->tensor, a->n);

    if (rc)
        return rc;
    cpu_for(j.n, j.elements / 4, grad_norm_task, &j);
    for (int i = 0; i < a->n; i++)
        a->sum[i] = 0;
    for (long i = 0; i < j.n; i++)
        a->sum[j.chunk[i].tensor] += j.chunk[i].sum;
    cpu_scratch_give(j.chunk);
    return 0;
}
