/* Operators that gather, scatter or turn rows of tokens: embeddings, pooling, rotary
 * positions. A row of the result is one thread's; a sum over tokens goes in token order. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/fail.h"

enum { TOKEN_BLOCK = 32, COLUMN_BLOCK = 128, SEGMENT_BLOCK = 16 };

static void embedding_task(void *arg, long i, int worker)
{
    const struct embedding_args *a = arg;
    const struct cpu_loops *loops = cpu_loops();
    long to = cpu_min(a->T, (i + 1) * TOKEN_BLOCK);

    (void)worker;
    for (long t = i * TOKEN_BLOCK; t < to; t++) {
        float *y = a->y + t * a->D;

        memcpy(y, a->table[0] + (long)a->index[0][t] * a->D, (size_t)a->D * sizeof *y);
        for (int k = 1; k < a->n; k++)
            loops->add(a->table[k] + (long)a->index[k][t] * a->D, y, a->D);
    }
}

int cpu_embedding(const struct embedding_args *a)
{
    struct embedding_args copy = *a;

    cpu_for(cpu_ceil_div(a->T, TOKEN_BLOCK), (double)(a->T * a->D * a->n) / 8,
            embedding_task, &copy);
    return 0;
}

/* Task: some segments on some columns. A frequent token is one segment, so the columns
 * are split as well. */
static void embedding_backward_task(void *arg, long i, int worker)
{
    const struct embedding_backward_args *a = arg;
    const struct cpu_loops *loops = cpu_loops();
    long columns = cpu_ceil_div(a->D, COLUMN_BLOCK);
    long c = i % columns * COLUMN_BLOCK, n = cpu_min(COLUMN_BLOCK, a->D - c);
    long from = i / columns * SEGMENT_BLOCK;
    long to = cpu_min(a->n_segments, from + SEGMENT_BLOCK);

    (void)worker;
    for (long s = from; s < to; s++) {
        long row = a->index[a->order[a->start[s]]];

        for (int k = a->start[s]; k < a->start[s + 1]; k++)
            loops->add(a->dy + (long)a->order[k] * a->D + c, a->dtable + row * a->D + c, n);
    }
}

int cpu_embedding_backward(const struct embedding_backward_args *a)
{
    struct embedding_backward_args copy = *a;
    long tasks =
        cpu_ceil_div(a->n_segments, SEGMENT_BLOCK) * cpu_ceil_div(a->D, COLUMN_BLOCK);

    cpu_for(tasks, (double)(a->T * a->D) / 4, embedding_backward_task, &copy);
    return 0;
}

/* ---- pooling ---- */

static int check_lengths(const int *cu_seqlens, long B, const char *op)
{
    for (long b = 0; b < B; b++)
        if (cu_seqlens[b + 1] <= cu_seqlens[b])
            return op_fail(ERR_FAILED, "%s: sequence %ld is empty", op, b);
    return 0;
}

static void pool_task(void *arg, long b, int worker)
{
    const struct pool_args *a = arg;
    const struct cpu_loops *loops = cpu_loops();
    long from = a->cu_seqlens[b], to = a->cu_seqlens[b + 1];
    float *y = a->y + b * a->D;

    (void)worker;
    memcpy(y, a->x + (a->kind == POOL_LAST ? to - 1 : from) * a->D,
           (size_t)a->D * sizeof *y);
    if (a->kind != POOL_MEAN && a->kind != POOL_SUM)
        return;
    for (long t = from + 1; t < to; t++)
        loops->add(a->x + t * a->D, y, a->D);
    if (a->kind == POOL_MEAN)
        loops->scale(1.0f / (float)(to - from), y, y, a->D);
}

int cpu_pool(const struct pool_args *a)
{
    struct pool_args copy = *a;
    int rc = check_lengths(a->cu_seqlens, a->B, "pool");

    if (!rc)
        cpu_for(a->B, (double)(a->T * a->D) / 8, pool_task, &copy);
    return rc;
}

static void pool_backward_task(void *arg, long b, int worker)
{
    const struct pool_backward_args *a = arg;
    long from = a->cu_seqlens[b], to = a->cu_seqlens[b + 1], n = to - from;
    const float *dy = a->dy + b * a->D;
    float *dx = a->dx + from * a->D;

    (void)worker;
    if (a->kind == POOL_MEAN || a->kind == POOL_SUM) {
        cpu_loops()->scale(a->kind == POOL_SUM ? 1.0f : 1.0f / (float)n, dy, dx, a->D);
        for (long t = 1; t < n; t++)
            memcpy(dx + t * a->D, dx, (size_t)a->D * sizeof *dx);
        return;
    }
    memset(dx, 0, (size_t)(n * a->D) * sizeof *dx);
    memcpy(dx + (a->kind == POOL_LAST ? n - 1 : 0) * a->D, dy, (size_t)a->D * sizeof *dx);
}

int cpu_pool_backward(const struct pool_backward_args *a)
{
    struct pool_backward_args copy = *a;
    int rc = check_lengths(a->cu_seqlens, a->B, "pool_backward");

    if (!rc)
        cpu_for(a->B, (double)(a->T * a->D) / 8, pool_backward_task, &copy);
    return rc;
}

/* ---- rotary positions ---- */

struct turn {
    const struct rotary_args *a;
    float *table; /* (positions, or tokens where they are fewer; rot / 2) pairs cos, sin */
    int by_token;
};

static void angle_task(void *arg, long row, int worker)
{
    const struct turn *j = arg;
    int half = j->a->rot / 2;
    long position = j->by_token ? (long)j->a->position[row] : row;
    float *out = j->table + row * 2 * half;

    (void)worker;
    for (int i = 0; i < half; i++) {
        double angle = (double)position * j->a->freq[i], s = sin(angle);

        out[2 * i] = (float)cos(angle);
        out[2 * i + 1] = (float)(j->a->inverse ? -s : s);
    }
}

static void rotary_task(void *arg, long i, int worker)
{
    const struct turn *j = arg;
    const struct rotary_args *a = j->a;
    long to = cpu_min(a->T, (i + 1) * TOKEN_BLOCK);
    int half = a->rot / 2;

    (void)worker;
    for (long t = i * TOKEN_BLOCK; t < to; t++) {
        const float *turn = j->table + (j->by_token ? t : (long)a->position[t]) * 2 * half;

        for (int h = 0; h < a->heads; h++) {
            float *x = a->x + t * a->ld + (long)h * a->d;

            for (int k = 0; k < half; k++) {
                float *p = a->interleaved ? x + 2 * k : x + k;
                float *q = a->interleaved ? p + 1 : p + half, u = *p, v = *q;

                *p = u * turn[2 * k] - v * turn[2 * k + 1];
                *q = u * turn[2 * k + 1] + v * turn[2 * k];
            }
        }
    }
}

int cpu_rotary(const struct rotary_args *a)
{
    struct turn j = {.a = a};
    long positions = 0;
    int half = a->rot / 2;

    for (long t = 0; t < a->T; t++)
        if (a->position[t] >= positions)
            positions = (long)a->position[t] + 1;
    j.by_token = positions > a->T;
    positions = cpu_min(positions, a->T);
    j.table = cpu_scratch_take((size_t)(positions * 2 * half + 1) * sizeof *j.table);
    if (!j.table)
        return op_fail(ERR_NOMEM, "rotary: out of memory for %ld positions", positions);
    cpu_for(positions, (double)(positions * half) * 40, angle_task, &j);
    cpu_for(cpu_ceil_div(a->T, TOKEN_BLOCK), (double)(a->T * a->heads * half), rotary_task,
            &j);
    cpu_scratch_give(j.table);
    return 0;
}
