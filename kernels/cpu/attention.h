/* What attention and its gradient share: blocks of queries and keys of one sequence, the
 * operands as panels for the register tile, and the list of tasks.
 *
 * Every operand is copied into panels: a "row panel" set of x (rows, d) is d_panels times
 * (rows, tile_n); a "column panel" set is key_panels times (d, tile_n), the transpose. The
 * copies cost 1/rows of the products they serve and free those from strides. */
#ifndef KERNELS_CPU_ATTENTION_H
#define KERNELS_CPU_ATTENTION_H

#include "kernels/cpu/cpu.h"

enum {
    QUERY_BLOCK = 56, /* 4 strips of 14 */
    KEY_BLOCK = 128,
};

/* Queries first .. first+n-1 of sequence b. */
struct query_block {
    int b, first;
};

static inline long attention_round(long n, long to)
{
    return cpu_ceil_div(n, to) * to;
}

/* c (rows, ldc) (+)= a b: b in panels of (k, tile_n), `panels` of them. */
static inline void attention_product(const struct cpu_loops *loops, struct tile t,
                                     long rows, long panels)
{
    long strips = cpu_ceil_div(rows, loops->tile_m);
    struct tile one = t;

    for (long s = 0; s < strips; s++) {
        long from = rows * s / strips;

        one.rows = (int)(rows * (s + 1) / strips - from);
        one.a = t.a + from * t.rs;
        for (long p = 0; p < panels; p++) {
            one.b = t.b + p * t.k * loops->tile_n;
            one.c = t.c + from * t.ldc + p * loops->tile_n;
            loops->tile(&one);
        }
    }
}

/* Row panels of x (rows, d). */
static inline void attention_rows(const struct cpu_loops *loops, const float *x, long ld,
                                  long rows, long d, float *out)
{
    for (long c = 0; c < d; c += loops->tile_n, out += rows * loops->tile_n)
        loops->pack_rows(x + c, ld, cpu_min(loops->tile_n, d - c), rows, out);
}

/* Column panels of x (rows, d): its transpose. */
static inline void attention_columns(const struct cpu_loops *loops, const float *x, long ld,
                                     long rows, long d, float *out)
{
    for (long r = 0; r < rows; r += loops->tile_n, out += d * loops->tile_n)
        loops->pack_columns(x + r * ld, ld, cpu_min(loops->tile_n, rows - r), d, out);
}

/* Keys of block first .. first+n-1 that query i sees, as columns *lo .. *hi-1. */
static inline void attention_sees(int causal, int window, long i, long first, long n,
                                  long *lo, long *hi)
{
    *hi = causal ? cpu_min(n, i + 1 - first) : n;
    *lo = window > 0 ? i - window + 1 - first : 0;
    if (*lo < 0)
        *lo = 0;
    if (*hi < *lo)
        *hi = *lo;
}

#endif
