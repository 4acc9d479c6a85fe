/* Panels for the register tile: k x TILE_N, the columns of the right-hand matrix beyond
 * its edge 0. */
#ifndef KERNELS_CPU_PACK_H
#define KERNELS_CPU_PACK_H

#include "kernels/bf16.h"
#include "kernels/cpu/tile.h"

/* Rows are read at a stride that hardware does not foresee: ask for them this early. */
enum { PACK_AHEAD = 12 };

/* out[k][c] = b[k ldb + c] for c < n. */
static void loop_pack_rows(const float *b, long ldb, long n, long k, float *out)
{
    for (long i = 0; i < k; i++, b += ldb, out += TILE_N) {
        __builtin_prefetch(b + PACK_AHEAD * ldb);
        __builtin_prefetch(b + PACK_AHEAD * ldb + VW);
        if (n == TILE_N) {
            vf_store(out, vf_load(b));
            vf_store(out + VW, vf_load(b + VW));
            continue;
        }
        for (long c = 0; c < TILE_N; c++)
            out[c] = c < n ? b[c] : 0;
    }
}

/* Strip i of n, columns at[i] .. at[i + 1] - 1 of a (k, lda), to out + i room, its rows
 * close together: out[i room + r w + c] = a[r lda + at[i] + c], w <= TILE_M its width.
 * Strips side by side go in one pass, since they share the lines of a's rows. Whole vectors
 * are moved: what a row writes too much the next one overwrites, so `room` holds VW more
 * than a strip; the last row, behind which there may be nothing to read, is moved element
 * by element. */
static void loop_copy_strips(const float *a, long lda, const long *at, int n, long k,
                             float *out, long room)
{
    long r = 0;

    for (; lda >= VW && r + 1 < k; r++, a += lda) {
        for (long c = at[0]; c < at[n]; c += 64 / (long)sizeof *a)
            __builtin_prefetch(a + PACK_AHEAD * lda + c);
        for (int i = 0; i < n; i++)
            vf_store(out + i * room + r * (at[i + 1] - at[i]), vf_load(a + at[i]));
    }
    for (; r < k; r++, a += lda)
        for (int i = 0; i < n; i++)
            for (long c = at[i]; c < at[i + 1]; c++)
                out[i * room + r * (at[i + 1] - at[i]) + c - at[i]] = a[c];
}

#ifndef SIMD_PLAIN
/* out[k][c] = b[c ldb + k] for an 8 x 8 corner. */
static inline void transpose8(const float *b, long ldb, float *out)
{
    __m256 r[8], s[8];

#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        r[i] = _mm256_loadu_ps(b + i * ldb);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(s[i], s[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(s[i], s[i + 2], 0xEE);
        r[i + 2] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xEE);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(out + i * TILE_N, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(out + (i + 4) * TILE_N,
                         _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}
#endif

/* out[k][c] = b[c ldb + k] for c < n. */
static void loop_pack_columns(const float *b, long ldb, long n, long k, float *out)
{
    long c = 0;

#ifndef SIMD_PLAIN
    for (; c + 8 <= n; c += 8) {
        long i = 0;

        for (; i + 8 <= k; i += 8) {
            if (i % 16 == 0) /* a line of each of the next 8 rows */
                for (int r = 8; r < 16; r++)
                    __builtin_prefetch(b + (c + r) * ldb + i);
            transpose8(b + c * ldb + i, ldb, out + i * TILE_N + c);
        }
        for (; i < k; i++)
            for (long j = c; j < c + 8; j++)
                out[i * TILE_N + j] = b[j * ldb + i];
    }
#endif
    for (; c < TILE_N; c++)
        for (long i = 0; i < k; i++)
            out[i * TILE_N + c] = c < n ? b[c * ldb + i] : 0;
}

/* y = x rounded to bf16; y may be x. */
static void loop_round_bf16(const float *x, float *y, long n)
{
    for (long i = 0; i < n; i++)
        y[i] = bf16_round(x[i]);
}

#endif
