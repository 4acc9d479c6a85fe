/* The gradient of attention (Dao et al. 2022, section B.2): scores are computed again from
 * q and k, probabilities from them and lse. A task is one kv head of one sequence: it walks
 * blocks of keys, for each the query heads it serves, for each blocks of queries:
 *   dV += (P M)^T dO;  dS = P (dO V^T M - delta) scale;  dQ += dS K;  dK += dS^T Q.
 *
 * Invariant: blocks start at fixed places of the sequence and sums go in their order.
 * Fails when memory is short. */
#include <string.h>

#include "kernels/cpu/attention.h"
#include "kernels/fail.h"

struct backward {
    const struct attention_backward_args *a;
    const struct cpu_loops *loops;
    long d_wide, longest;
    float *scratch;
    long scratch_floats;
};

/* A worker's memory, and where it stands. */
struct room {
    float *kt, *vt, *k;      /* panels of the key block */
    float *dk, *dv;          /* (KEY_BLOCK, d_wide) */
    float *q, *dout;         /* row panels of the query block */
    float *s, *dp, *keep;    /* (QUERY_BLOCK, KEY_BLOCK); one row of factors */
    float *dq;               /* (heads of the group, longest, d_wide) */
    long start, length, kv;  /* sequence and kv head */
    long j0, keys, i0, rows; /* blocks */
};

static void lay_out(const struct backward *f, int worker, struct room *m)
{
    long d = f->a->d, wide = f->d_wide;

    m->kt = f->scratch + worker * f->scratch_floats;
    m->vt = m->kt + KEY_BLOCK * d;
    m->k = m->vt + KEY_BLOCK * d;
    m->dk = m->k + KEY_BLOCK * wide;
    m->dv = m->dk + KEY_BLOCK * wide;
    m->q = m->dv + KEY_BLOCK * wide;
    m->dout = m->q + QUERY_BLOCK * wide;
    m->s = m->dout + QUERY_BLOCK * wide;
    m->dp = m->s + QUERY_BLOCK * KEY_BLOCK;
    m->keep = m->dp + QUERY_BLOCK * KEY_BLOCK;
    m->dq = m->keep + KEY_BLOCK;
}

static long room_floats(const struct backward *f)
{
    const struct attention_backward_args *a = f->a;

    return KEY_BLOCK * (2 * a->d + 3 * f->d_wide + 2 * QUERY_BLOCK + 1) +
           QUERY_BLOCK * 2 * f->d_wide + a->H / a->K * f->longest * f->d_wide;
}

static void slope_rows(const struct backward *f, const struct room *m, int h)
{
    const struct attention_backward_args *a = f->a;
    long wide = attention_round(m->keys, f->loops->tile_n);

    for (long r = 0; r < m->rows; r++) {
        long t = m->start + m->i0 + r, at = t * a->ldo + (long)h * a->d, lo, hi;
        float delta = f->loops->dot(a->dout + at, a->o + at, a->d);
        float *keep = a->dropout.p > 0 ? m->keep : NULL;

        __builtin_prefetch(a->o + at +
                           8 * a->ldo); /* of a later row: nobody else reads o */
        __builtin_prefetch(a->o + at + 8 * a->ldo + 16);
        attention_sees(a->causal, a->window, m->i0 + r, m->j0, m->keys, &lo, &hi);
        if (keep)
            f->loops->keep(&a->dropout, t, (uint32_t)(h * 65536 + m->j0 / 4), wide, keep);
        f->loops->softmax_slope(m->s + r * KEY_BLOCK, m->dp + r * KEY_BLOCK, keep, wide, lo,
                                hi, a->scale, a->lse[t * a->H + h], delta);
    }
}

/* One block of queries of head h against the block of keys. */
static void query_block(const struct backward *f, const struct room *m, int h, float *dq)
{
    const struct attention_backward_args *a = f->a;
    long t = m->start + m->i0, d = a->d, nt = f->loops->tile_n;
    long key_panels = cpu_ceil_div(m->keys, nt), d_panels = f->d_wide / nt;
    const float *q = a->q + t * a->ldq + h * d, *dout = a->dout + t * a->ldo + h * d;
    struct tile s = {.a = q,
                     .rs = a->ldq,
                     .ks = 1,
                     .b = m->kt,
                     .bs = nt,
                     .c = m->s,
                     .ldc = KEY_BLOCK,
                     .k = d};
    struct tile dp = {.a = dout,
                      .rs = a->ldo,
                      .ks = 1,
                      .b = m->vt,
                      .bs = nt,
                      .c = m->dp,
                      .ldc = KEY_BLOCK,
                      .k = d};
    struct tile dv = {.a = m->s,
                      .rs = 1,
                      .ks = KEY_BLOCK,
                      .b = m->dout,
                      .bs = nt,
                      .c = m->dv,
                      .ldc = f->d_wide,
                      .k = m->rows,
                      .add = 1};
    struct tile dk = {.a = m->dp,
                      .rs = 1,
                      .ks = KEY_BLOCK,
                      .b = m->q,
                      .bs = nt,
                      .c = m->dk,
                      .ldc = f->d_wide,
                      .k = m->rows,
                      .add = 1};
    struct tile dqt = {.a = m->dp,
                       .rs = KEY_BLOCK,
                       .ks = 1,
                       .b = m->k,
                       .bs = nt,
                       .c = dq + m->i0 * f->d_wide,
                       .ldc = f->d_wide,
                       .k = m->keys,
                       .add = 1};

    attention_rows(f->loops, q, a->ldq, m->rows, d, m->q);
    attention_rows(f->loops, dout, a->ldo, m->rows, d, m->dout);
    attention_product(f->loops, s, m->rows, key_panels);
    attention_product(f->loops, dp, m->rows, key_panels);
    slope_rows(f, m, h);
    attention_product(f->loops, dv, m->keys, d_panels);
    attention_product(f->loops, dk, m->keys, d_panels);
    attention_product(f->loops, dqt, m->rows, d_panels);
}

/* Is there a pair of a query in i0 .. and a key in j0 .. that see each other? */
static int blocks_meet(const struct attention_backward_args *a, const struct room *m)
{
    if (a->causal && m->j0 >= m->i0 + m->rows)
        return 0;
    return a->window <= 0 || m->i0 - (m->j0 + m->keys - 1) < a->window;
}

static void store(float *to, long ld, const float *from, long wide, long rows, long d)
{
    for (long r = 0; r < rows; r++)
        memcpy(to + r * ld, from + r * wide, (size_t)d * sizeof *to);
}

static void key_block(const struct backward *f, struct room *m)
{
    const struct attention_backward_args *a = f->a;
    long t = m->start + m->j0, d = a->d, group = a->H / a->K;
    const float *k = a->k + t * a->ldk + m->kv * d, *v = a->v + t * a->ldv + m->kv * d;

    attention_columns(f->loops, k, a->ldk, m->keys, d, m->kt);
    attention_columns(f->loops, v, a->ldv, m->keys, d, m->vt);
    attention_rows(f->loops, k, a->ldk, m->keys, d, m->k);
    memset(m->dk, 0, (size_t)(2 * KEY_BLOCK * f->d_wide) * sizeof *m->dk); /* and dv */
    for (long g = 0; g < group; g++) {
        for (m->i0 = 0; m->i0 < m->length; m->i0 += QUERY_BLOCK) {
            m->rows = cpu_min(QUERY_BLOCK, m->length - m->i0);
            if (blocks_meet(a, m))
                query_block(f, m, (int)(m->kv * group + g),
                            m->dq + g * f->longest * f->d_wide);
        }
    }
    store(a->dk + t * a->ldk + m->kv * d, a->ldk, m->dk, f->d_wide, m->keys, d);
    store(a->dv + t * a->ldv + m->kv * d, a->ldv, m->dv, f->d_wide, m->keys, d);
}

static void backward_task(void *arg, long i, int worker)
{
    const struct backward *f = arg;
    const struct attention_backward_args *a = f->a;
    long b = i / a->K, group = a->H / a->K;
    struct room m = {.kv = i % a->K};

    lay_out(f, worker, &m);
    m.start = a->cu_seqlens[b];
    m.length = a->cu_seqlens[b + 1] - m.start;
    for (long g = 0; g < group; g++)
        memset(m.dq + g * f->longest * f->d_wide, 0,
               (size_t)(m.length * f->d_wide) * sizeof *m.dq);
    for (m.j0 = 0; m.j0 < m.length; m.j0 += KEY_BLOCK) {
        m.keys = cpu_min(KEY_BLOCK, m.length - m.j0);
        key_block(f, &m);
    }
    for (long g = 0; g < group; g++)
        store(a->dq + m.start * a->ldq + (m.kv * group + g) * a->d, a->ldq,
              m.dq + g * f->longest * f->d_wide, f->d_wide, m.length, a->d);
}

int cpu_attention_backward(const struct attention_backward_args *a)
{
    struct backward f = {.a = a, .loops = cpu_loops()};
    double work = 0;

    f.d_wide = attention_round(a->d, f.loops->tile_n);
    for (long b = 0; b < a->B; b++) {
        long length = a->cu_seqlens[b + 1] - a->cu_seqlens[b];

        f.longest = length > f.longest ? length : f.longest;
        work += (double)length * (double)length * a->H * (a->d * 10 + 40) / 40;
    }
    f.scratch_floats = room_floats(&f);
    f.scratch = cpu_scratch_take((size_t)f.scratch_floats * sizeof *f.scratch *
                                 (size_t)cpu_threads_for(work));
    if (!f.scratch)
        return op_fail(ERR_NOMEM, "attention_backward: out of memory");
    cpu_for(a->B * a->K, work, backward_task, &f);
    cpu_scratch_give(f.scratch);
    return 0;
}
