/* Attention (Dao et al. 2022): a task is one head and one block of queries of a sequence;
 * it walks the keys in blocks with an online softmax, so that no T x T matrix exists.
 *
 * Invariant: key blocks start at fixed places of the sequence and a query's row is never
 * mixed with another's, so its bits depend on its sequence alone. Fails when memory is
 * short. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/attention.h"
#include "kernels/fail.h"

struct forward {
    const struct attention_args *a;
    const struct cpu_loops *loops;
    const struct query_block *block;
    long d_wide; /* d rounded up to whole panels */
    float *scratch;
    long scratch_floats;
};

/* A worker's memory. */
struct room {
    float *k, *v;    /* panels of a key block */
    float *s, *keep; /* (QUERY_BLOCK, KEY_BLOCK) scores; one row of factors */
    float *o;        /* (QUERY_BLOCK, d_wide) */
    float top[QUERY_BLOCK], sum[QUERY_BLOCK];
};

static void lay_out(const struct forward *f, int worker, struct room *m)
{
    float *p = f->scratch + worker * f->scratch_floats;

    m->k = p;
    m->v = m->k + KEY_BLOCK * f->a->d;
    m->s = m->v + KEY_BLOCK * f->d_wide;
    m->keep = m->s + QUERY_BLOCK * KEY_BLOCK;
    m->o = m->keep + KEY_BLOCK;
}

static long room_floats(const struct forward *f)
{
    return KEY_BLOCK * (f->a->d + f->d_wide + QUERY_BLOCK + 1) + QUERY_BLOCK * f->d_wide;
}

/* Scores of the block become probabilities times what the sum so far asks for. */
static void softmax_rows(const struct forward *f, struct room *m, long start, long first,
                         long n, int h, long j0, long keys)
{
    const struct attention_args *a = f->a;
    long wide = attention_round(keys, f->loops->tile_n);

    for (long r = 0; r < n; r++) {
        float *s = m->s + r * KEY_BLOCK, shrink;
        long lo, hi;

        attention_sees(a->causal, a->window, first + r, j0, keys, &lo, &hi);
        shrink = f->loops->softmax(s, wide, lo, hi, a->scale, &m->top[r], &m->sum[r]);
        if (j0 > 0 && shrink != 1.0f)
            f->loops->scale(shrink, m->o + r * f->d_wide, m->o + r * f->d_wide, f->d_wide);
        if (a->dropout.p > 0) {
            f->loops->keep(&a->dropout, start + first + r, (uint32_t)(h * 65536 + j0 / 4),
                           keys, m->keep);
            for (long j = 0; j < keys; j++)
                s[j] *= m->keep[j];
        }
    }
}

static void key_block(const struct forward *f, struct room *m, long start, long first,
                      long n, int h, long j0, long keys, int add)
{
    const struct attention_args *a = f->a;
    long kv = h / (a->H / a->K), d = a->d;
    struct tile score = {.a = a->q + (start + first) * a->ldq + h * d,
                         .rs = a->ldq,
                         .ks = 1,
                         .b = m->k,
                         .bs = f->loops->tile_n,
                         .c = m->s,
                         .ldc = KEY_BLOCK,
                         .k = d};
    struct tile value = {.a = m->s,
                         .rs = KEY_BLOCK,
                         .ks = 1,
                         .b = m->v,
                         .bs = f->loops->tile_n,
                         .c = m->o,
                         .ldc = f->d_wide,
                         .k = keys,
                         .add = add};

    attention_columns(f->loops, a->k + (start + j0) * a->ldk + kv * d, a->ldk, keys, d,
                      m->k);
    attention_rows(f->loops, a->v + (start + j0) * a->ldv + kv * d, a->ldv, keys, d, m->v);
    attention_product(f->loops, score, n, cpu_ceil_div(keys, f->loops->tile_n));
    softmax_rows(f, m, start, first, n, h, j0, keys);
    attention_product(f->loops, value, n, f->d_wide / f->loops->tile_n);
}

static void forward_task(void *arg, long i, int worker)
{
    const struct forward *f = arg;
    const struct attention_args *a = f->a;
    int h = (int)(i % a->H), b = f->block[i / a->H].b;
    long first = f->block[i / a->H].first, start = a->cu_seqlens[b];
    long length = a->cu_seqlens[b + 1] - start, n = cpu_min(QUERY_BLOCK, length - first);
    long end = a->causal ? first + n : length, j0 = 0;
    struct room m;
    int add = 0;

    lay_out(f, worker, &m);
    for (long r = 0; r < n; r++) {
        m.top[r] =
            -1e30f; /* finite, so that a row with no visible key yet stays a number */
        m.sum[r] = 0;
    }
    if (a->window > 0 && first - a->window + 1 > 0)
        j0 = (first - a->window + 1) / KEY_BLOCK * KEY_BLOCK;
    for (; j0 < end; j0 += KEY_BLOCK, add = 1)
        key_block(f, &m, start, first, n, h, j0, cpu_min(KEY_BLOCK, length - j0), add);
    for (long r = 0; r < n; r++) {
        long t = start + first + r;

        f->loops->scale(1.0f / m.sum[r], m.o + r * f->d_wide,
                        a->o + t * a->ldo + (long)h * a->d, a->d);
        if (a->lse)
            a->lse[t * a->H + h] = m.top[r] + logf(m.sum[r]);
    }
}

int cpu_attention(const struct attention_args *a)
{
    struct forward f = {.a = a, .loops = cpu_loops()};
    struct query_block *block;
    double work = 0;
    long n = 0;
    int rc = 0;

    f.d_wide = attention_round(a->d, f.loops->tile_n);
    f.scratch_floats = room_floats(&f);
    for (long b = 0; b < a->B; b++) {
        double length = a->cu_seqlens[b + 1] - a->cu_seqlens[b];

        n += cpu_ceil_div((long)length, QUERY_BLOCK);
        work += length * length * a->H * (a->d * 4 + 40) / 40;
    }
    block = cpu_scratch_take((size_t)(n + 1) * sizeof *block);
    f.scratch = cpu_scratch_take((size_t)f.scratch_floats * sizeof *f.scratch *
                                 (size_t)cpu_threads_for(work));
    if (block && f.scratch) {
        f.block = block;
        n = 0;
        for (int b = 0; b < a->B; b++)
            for (int i = 0; i < a->cu_seqlens[b + 1] - a->cu_seqlens[b]; i += QUERY_BLOCK)
                block[n++] = (struct query_block){b, i};
        cpu_for(n * a->H, work, forward_task, &f);
    } else {
        rc = op_fail(ERR_NOMEM, "attention: out of memory");
    }
    cpu_scratch_give(f.scratch);
    cpu_scratch_give(block);
    return rc;
}
