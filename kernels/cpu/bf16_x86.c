/* bf16 products with vdpbf16ps and with AMX's tdpbf16ps. Both eat pairs of neighbouring k,
 * so both share one layout: a panel is (k / 2, 32) pairs, a strip (rows, k / 2) pairs.
 *
 *     vdpbf16ps   c[n] += a[2i+1] b[2i+1][n], then += a[2i] b[2i][n]: one chain a lane
 *     tdpbf16ps   even and odd k of a step of 32 apart, their sum added to c
 *
 * Both round to nearest even, take denormals for 0 and flush results to 0, whatever MXCSR
 * says; so does the rounding of operands here (vcvtneps2bf16). Invariant as in bf16.h.
 *
 * Sizes. vdpbf16ps: 28 accumulators, two vectors of b, one broadcast pair fill 31 of 32
 * registers, and a step of k costs 28 products for 2 + 14 loads. AMX: 4 tiles of c, 2 of a,
 * 2 of b; a step of 32 k costs 4 tile products (64 cycles) for 4 tile loads (32 cycles from
 * L1; the 2 of b at some 40 bytes a cycle from L2: 51). A chunk of k = 384 makes strip and
 * panel 24 KiB each: the strip stays in L1 while panels stream by from L2.
 * SIMD_EMULATED: compiled by tests/op/isa_emu for processors that have neither. */
#include "kernels/cpu/bf16.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <stdint.h>

#if defined(SIMD_EMULATED)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#elif defined(__clang__)
#pragma clang attribute push(                                                              \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,"        \
                          "amx-tile,amx-bf16"))),                                          \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")
#pragma GCC target("amx-tile,amx-bf16")
#endif

enum {
    TILE_N = 32,
    DOT_M = 14,
    BLOCK_K = 16, /* k of one move: 8 pairs */
    BLOCK_N = 8,
    PANEL_BYTES = TILE_N * 4, /* a row of pairs */
    AMX_M = 32,
    AMX_K = 32,
    AMX_HALF = 16,
};

/* ---- packing ------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) __mmask16 first16(long n)
{
    return n >= 16 ? 0xffff : n > 0 ? (__mmask16)((1u << n) - 1) : 0;
}

static inline __attribute__((always_inline)) __mmask8 first8(long n)
{
    return n >= 8 ? 0xff : n > 0 ? (__mmask8)((1u << n) - 1) : 0;
}

/* 8 pairs from up to 16 neighbours; what is not there is 0. */
static inline __attribute__((always_inline)) __m256i pairs_along(const float *x, long n)
{
    return (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(first16(n), x));
}

/* 8 pairs (even[i], odd[i]); `k` of the two rows and `n` of the columns are there. */
static inline __attribute__((always_inline)) __m256i pairs_across(const float *x, long ld,
                                                                  long n, long k)
{
    const __m256i mix =
        _mm256_setr_epi16(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    __m256 even = _mm256_maskz_loadu_ps(k > 0 ? first8(n) : 0, x);
    __m256 odd = _mm256_maskz_loadu_ps(k > 1 ? first8(n) : 0, x + ld);

    return _mm256_permutexvar_epi16(mix, (__m256i)_mm256_cvtne2ps_pbh(odd, even));
}

/* An 8 x 8 square of pairs, turned over; rows of `out` lie `bytes` apart. */
static inline __attribute__((always_inline)) void store_turned(const __m256i in[8],
                                                               char *out, long bytes)
{
    __m256 r[8], s[8];

#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        s[i] = _mm256_unpacklo_ps((__m256)in[i], (__m256)in[i + 1]);
        s[i + 1] = _mm256_unpackhi_ps((__m256)in[i], (__m256)in[i + 1]);
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
        _mm256_storeu_ps((float *)(out + i * bytes),
                         _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps((float *)(out + (i + 4) * bytes),
                         _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

/* Columns from the rows of a transposed matrix: 8 of them, 16 k at a time. */
static inline __attribute__((always_inline)) void panel_along(const struct bf16_pack *p,
                                                              long step)
{
    for (long c = 0; c < TILE_N; c += BLOCK_N) {
        const float *x = p->x + c * p->ld;
        char *out = (char *)p->out + c * 4;

        for (long k = 0; k < p->k; k += BLOCK_K, out += BLOCK_K / 2 * PANEL_BYTES) {
            __m256i in[BLOCK_N];

#pragma GCC unroll 8
            for (long i = 0; i < BLOCK_N; i++) {
                long have = c + i < p->n ? p->k - k : 0;

                in[i] = pairs_along(have > 0 ? x + i * p->ld + k : x, have);
            }
            store_turned(in, out, PANEL_BYTES);
        }
        for (long k = (p->k + BLOCK_K - 1) / BLOCK_K * BLOCK_K; k % step; k += BLOCK_K)
            for (long i = 0; i < BLOCK_K / 2; i++, out += PANEL_BYTES)
                _mm256_storeu_si256((__m256i *)(void *)out, _mm256_setzero_si256());
    }
}

/* Columns where they lie: two rows of the matrix make one of pairs. */
static inline __attribute__((always_inline)) void panel_across(const struct bf16_pack *p,
                                                               long step)
{
    char *out = p->out;

    for (long k = 0; k < p->k || k % step; k += 2, out += PANEL_BYTES) {
        const float *x = p->k - k > 0 ? p->x + k * p->ld : p->x;

        for (long c = 0; c < TILE_N; c += BLOCK_N)
            _mm256_storeu_si256((__m256i *)(void *)(out + c * 4),
                                pairs_across(x + c, p->ld, p->n - c, p->k - k));
    }
}

static inline __attribute__((always_inline)) void strip_along(const struct bf16_pack *p,
                                                              long step)
{
    for (long r = 0; r < p->n; r++) {
        const float *x = p->x + r * p->ld;
        char *out = (char *)p->out + r * p->row_bytes;

        for (long k = 0; k < p->k || k % step; k += BLOCK_K, out += BLOCK_K * 2)
            _mm256_storeu_si256((__m256i *)(void *)out,
                                pairs_along(p->k > k ? x + k : x, p->k - k));
    }
}

/* Rows from the columns of a transposed matrix, 8 at a time. */
static inline __attribute__((always_inline)) void strip_across(const struct bf16_pack *p,
                                                               long step)
{
    for (long k = 0; k < p->k || k % step; k += BLOCK_K) {
        for (long r = 0; r < p->n; r += BLOCK_N) {
            __m256i in[BLOCK_N];

#pragma GCC unroll 8
            for (long i = 0; i < BLOCK_N; i++) {
                long at = k + 2 * i;

                in[i] = pairs_across(p->x + (at < p->k ? at * p->ld + r : 0), p->ld,
                                     p->n - r, p->k - at);
            }
            store_turned(in, (char *)p->out + r * p->row_bytes + k * 2, p->row_bytes);
        }
    }
}

/* ---- vdpbf16ps ----------------------------------------------------------------------- */

static inline __attribute__((always_inline)) void dot_rows(const struct bf16_tile *t,
                                                           const int rows)
{
    /* As in tile.h: every third row has a pointer of its own. */
    const int32_t *a[DOT_M / 3 + 1];
    const char *b = t->b;
    long rs = t->row_bytes / 4;
    __m512 acc[DOT_M][2];

#pragma GCC unroll 14
    for (int r = 0; r < rows; r++) {
        if (r % 3 == 0)
            a[r / 3] = (const int32_t *)t->a + r * rs;
        acc[r][0] = acc[r][1] = _mm512_setzero_ps();
        __builtin_prefetch(t->c + r * t->ldc, 1);
        __builtin_prefetch(t->c + r * t->ldc + 16, 1);
    }
    for (long k = t->k / 2; k; k--) {
        __m512bh b0 = (__m512bh)_mm512_loadu_ps((const float *)b);
        __m512bh b1 = (__m512bh)_mm512_loadu_ps((const float *)(b + 64));

#pragma GCC unroll 14
        for (int r = 0; r < rows; r++) {
            __m512bh x = (__m512bh)_mm512_set1_epi32(a[r / 3][r % 3 * rs]);

            acc[r][0] = _mm512_dpbf16_ps(acc[r][0], x, b0);
            acc[r][1] = _mm512_dpbf16_ps(acc[r][1], x, b1);
            if (r % 3 == 2 || r == rows - 1)
                a[r / 3]++;
        }
        b += PANEL_BYTES;
    }
    for (int r = 0; r < rows; r++) {
        float *c = t->c + r * t->ldc;

        if (t->add) {
            acc[r][0] = _mm512_add_ps(acc[r][0], _mm512_loadu_ps(c));
            acc[r][1] = _mm512_add_ps(acc[r][1], _mm512_loadu_ps(c + 16));
        }
        _mm512_storeu_ps(c, acc[r][0]);
        _mm512_storeu_ps(c + 16, acc[r][1]);
    }
}

#define DOT_CASES(X)                                                                       \
    X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)

static void dot_tile(const struct bf16_tile *t)
{
    switch (t->rows) {
#define X(n)                                                                               \
    case n:                                                                                \
        dot_rows(t, n);                                                                    \
        break;
        DOT_CASES(X)
#undef X
    }
}

static void dot_panel_along(const struct bf16_pack *p)
{
    panel_along(p, BLOCK_K);
}
static void dot_panel_across(const struct bf16_pack *p)
{
    panel_across(p, BLOCK_K);
}
static void dot_strip_along(const struct bf16_pack *p)
{
    strip_along(p, BLOCK_K);
}
static void dot_strip_across(const struct bf16_pack *p)
{
    strip_across(p, BLOCK_K);
}

const struct cpu_bf16 cpu_bf16_avx512 = {
    .name = "avx512_bf16",
    .native = 1,
    .tile_m = DOT_M,
    .tile_n = TILE_N,
    .row_step = 1,
    .strip_rows = 16,
    .k_step = BLOCK_K,
    .k_chunk = 1024,
    .bytes = 2,
    .per_ns = 96,
    .tile = dot_tile,
    .panel_along = dot_panel_along,
    .panel_across = dot_panel_across,
    .strip_along = dot_strip_along,
    .strip_across = dot_strip_across,
};

/* ---- AMX ----------------------------------------------------------------------------- */

/* Palette 1: eight tiles of 16 rows of 64 bytes (Intel SDM, ldtilecfg). */
static const struct {
    uint8_t palette, start_row, zero[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} amx_shapes = {
    1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

static void amx_begin(void)
{
    _tile_loadconfig(&amx_shapes);
}

static void amx_end(void)
{
    _tile_release();
}

/* Tiles 0 to 3: c; 4, 5: a; 6, 7: b. */
static void amx_tile_32(const struct bf16_tile *t)
{
    const char *a = t->a, *b = t->b;
    long ar = t->row_bytes, cr = t->ldc * 4;

    if (t->add) {
        _tile_loadd(0, t->c, cr);
        _tile_loadd(1, t->c + 16, cr);
        _tile_loadd(2, t->c + AMX_HALF * t->ldc, cr);
        _tile_loadd(3, t->c + AMX_HALF * t->ldc + 16, cr);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (long k = t->k; k > 0; k -= AMX_K) {
        _tile_loadd(4, a, ar);
        _tile_loadd(6, b, PANEL_BYTES);
        _tile_loadd(7, b + 64, PANEL_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + AMX_HALF * ar, ar);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        a += AMX_K * 2;
        b += AMX_K / 2 * PANEL_BYTES;
    }
    _tile_stored(0, t->c, cr);
    _tile_stored(1, t->c + 16, cr);
    _tile_stored(2, t->c + AMX_HALF * t->ldc, cr);
    _tile_stored(3, t->c + AMX_HALF * t->ldc + 16, cr);
}

static void amx_tile_16(const struct bf16_tile *t)
{
    const char *a = t->a, *b = t->b;
    long cr = t->ldc * 4;

    if (t->add) {
        _tile_loadd(0, t->c, cr);
        _tile_loadd(1, t->c + 16, cr);
    } else {
        _tile_zero(0);
        _tile_zero(1);
    }
    for (long k = t->k; k > 0; k -= AMX_K) {
        _tile_loadd(4, a, t->row_bytes);
        _tile_loadd(6, b, PANEL_BYTES);
        _tile_loadd(7, b + 64, PANEL_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        a += AMX_K * 2;
        b += AMX_K / 2 * PANEL_BYTES;
    }
    _tile_stored(0, t->c, cr);
    _tile_stored(1, t->c + 16, cr);
}

/* The compiler does not know that a tile load reads memory: what was written before must
 * be there. */
static void amx_tile(const struct bf16_tile *t)
{
    __asm__ volatile("" ::: "memory");
    if (t->rows > AMX_HALF)
        amx_tile_32(t);
    else
        amx_tile_16(t);
}

static void amx_panel_along(const struct bf16_pack *p)
{
    panel_along(p, AMX_K);
}
static void amx_panel_across(const struct bf16_pack *p)
{
    panel_across(p, AMX_K);
}
static void amx_strip_along(const struct bf16_pack *p)
{
    strip_along(p, AMX_K);
}
static void amx_strip_across(const struct bf16_pack *p)
{
    strip_across(p, AMX_K);
}

const struct cpu_bf16 cpu_bf16_amx = {
    .name = "amx",
    .native = 1,
    .tile_m = AMX_M,
    .tile_n = TILE_N,
    .row_step = AMX_HALF,
    .strip_rows = AMX_M,
    .k_step = AMX_K,
    .k_chunk = 384,
    .bytes = 2,
    .per_ns = 800,
    .begin = amx_begin,
    .end = amx_end,
    .tile = amx_tile,
    .panel_along = amx_panel_along,
    .panel_across = amx_panel_across,
    .strip_along = amx_strip_along,
    .strip_across = amx_strip_across,
};

#if defined(__clang__) && !defined(SIMD_EMULATED)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
