/* The register tile of every matrix product: `rows` x TILE_N of c from k steps,
 *
 *     c[r][n] (+)= sum over k of a[r rs + k ks] b[k bs + n],  n = 0 .. TILE_N - 1.
 *
 * Invariant: an element is one chain of fused multiply-adds in the order of k, whatever
 * the rows around it; that is why rows do not depend on M and bits not on threads.
 * The sizes fill the register file: 14 x 2 accumulators of 32 (AVX-512), 6 x 2 of 16
 * (AVX2), 4 x 2 of 16 (SSE). */
#ifndef KERNELS_CPU_TILE_H
#define KERNELS_CPU_TILE_H

#include <limits.h>

#include "kernels/cpu/loops.h"
#include "kernels/cpu/simd.h"

#if defined(SIMD_AVX512)
#define TILE_CASES(X)                                                                      \
    X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)
enum { TILE_M = 14, STRIPS = 1, FAR_GROUP = 0, PLAIN_MOST = INT_MAX };
#elif defined(SIMD_AVX2)
#define TILE_CASES(X) X(1) X(2) X(3) X(4) X(5) X(6)
enum { TILE_M = 6, STRIPS = 8, FAR_GROUP = 256 * 1024, PLAIN_MOST = 48 };
#else
#define TILE_CASES(X) X(1) X(2) X(3) X(4)
enum { TILE_M = 4, STRIPS = 4, FAR_GROUP = 256 * 1024, PLAIN_MOST = 48 };
#endif
enum { TILE_N = 2 * VW };
_Static_assert((int)TILE_M <= (int)VW,
               "loop_copy_strips moves a row of a strip as one vector");

static inline __attribute__((always_inline)) void tile_rows(const struct tile *t,
                                                            const int rows)
{
    /* Every third row has its own pointer; the two after it are one addressing mode away,
     * which keeps all of them in registers. */
    const float *a[TILE_M / 3 + 1], *b = t->b;
    long rs = t->rs, ks = t->ks, bs = t->bs;
    vf acc[TILE_M][2];

#pragma GCC unroll 14
    for (int r = 0; r < rows; r++) {
        if (r % 3 == 0)
            a[r / 3] = t->a + r * rs;
        acc[r][0] = acc[r][1] = vf_set1(0);
        __builtin_prefetch(t->c + r * t->ldc, 1);
        __builtin_prefetch(t->c + r * t->ldc + VW, 1);
    }
    for (long k = t->k; k; k--) {
        vf b0 = vf_load(b), b1 = vf_load(b + VW);

#pragma GCC unroll 14
        for (int r = 0; r < rows; r++) {
            vf x = vf_set1(a[r / 3][r % 3 * rs]);

            acc[r][0] = vf_fma(x, b0, acc[r][0]);
            acc[r][1] = vf_fma(x, b1, acc[r][1]);
            if (r % 3 == 2 || r == rows - 1)
                a[r / 3] += ks;
        }
        b += bs;
    }
    for (int r = 0; r < rows; r++) {
        float *c = t->c + r * t->ldc;

        if (t->add) {
            acc[r][0] += vf_load(c);
            acc[r][1] += vf_load(c + VW);
        }
        vf_store(c, acc[r][0]);
        vf_store(c + VW, acc[r][1]);
    }
}

static void loop_tile(const struct tile *t)
{
    switch (t->rows) {
#define X(n)                                                                               \
    case n:                                                                                \
        tile_rows(t, n);                                                                   \
        break;
        TILE_CASES(X)
#undef X
    }
}

#endif
