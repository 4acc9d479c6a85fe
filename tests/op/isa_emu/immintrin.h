/* AVX-512, AVX512_BF16 and AMX intrinsics for processors without them: the very files of
 * kernels/cpu are compiled against this header (SIMD_EMULATED), so that the operator tests
 * guard those loops on any machine with AVX2. Only what the kernels use is here; another
 * intrinsic is a compile error of this test library.
 *
 * The semantics are those of Intel's manual (SDM, volume 2): masks, blends and permutations
 * exactly; vdpbf16ps as two fused multiply-adds, odd k first; tdpbf16ps with even and odd k
 * summed apart; both with denormals taken for 0. AMX instructions without a configuration,
 * or outside the configured shape, abort, as the processor would trap. */
#ifndef TESTS_OP_ISA_EMU_IMMINTRIN_H
#define TESTS_OP_ISA_EMU_IMMINTRIN_H

#include_next <immintrin.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Some are macros, without optimization more of them. */
#undef _mm256_cvtne2ps_pbh
#undef _mm256_maskz_loadu_ps
#undef _mm256_permutexvar_epi16
#undef _mm512_abs_ps
#undef _mm512_add_epi32
#undef _mm512_add_epi64
#undef _mm512_add_ps
#undef _mm512_and_si512
#undef _mm512_castps_si512
#undef _mm512_castsi512_ps
#undef _mm512_cmp_ps_mask
#undef _mm512_cmpge_epu32_mask
#undef _mm512_cvtneps_pbh
#undef _mm512_cvtps_epi32
#undef _mm512_dpbf16_ps
#undef _mm512_extractf32x4_ps
#undef _mm512_fmadd_ps
#undef _mm512_loadu_ps
#undef _mm512_mask_blend_ps
#undef _mm512_mask_storeu_ps
#undef _mm512_maskz_loadu_ps
#undef _mm512_maskz_mov_ps
#undef _mm512_max_ps
#undef _mm512_mul_epu32
#undef _mm512_or_si512
#undef _mm512_permutex2var_epi64
#undef _mm512_roundscale_ps
#undef _mm512_set1_epi32
#undef _mm512_set1_epi64
#undef _mm512_set1_ps
#undef _mm512_setr_epi64
#undef _mm512_setzero_ps
#undef _mm512_slli_epi32
#undef _mm512_slli_epi64
#undef _mm512_sqrt_ps
#undef _mm512_srli_epi64
#undef _mm512_storeu_ps
#undef _mm512_unpackhi_epi64
#undef _mm512_unpacklo_epi64
#undef _mm512_xor_si512
#undef _tile_dpbf16ps
#undef _tile_loadconfig
#undef _tile_loadd
#undef _tile_release
#undef _tile_stored
#undef _tile_zero

#pragma GCC push_options
#pragma GCC target("avx2,fma")

typedef uint32_t emu_u32 __attribute__((vector_size(64)));
typedef uint64_t emu_u64 __attribute__((vector_size(64)));

#define EMU static inline __attribute__((always_inline))

/* ---- AVX-512: f32 -------------------------------------------------------------------- */

EMU __m512 emu_set1(float x)
{
    return (__m512){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}
EMU __m512 emu_load(const float *p)
{
    __m512 v;

    memcpy(&v, p, sizeof v);
    return v;
}
EMU void emu_store(float *p, __m512 v)
{
    memcpy(p, &v, sizeof v);
}
EMU __m512 emu_load_masked(__mmask16 m, const float *p)
{
    __m512 v = emu_set1(0);

    for (int i = 0; i < 16; i++)
        if (m >> i & 1)
            v[i] = p[i];
    return v;
}
EMU void emu_store_masked(float *p, __mmask16 m, __m512 v)
{
    for (int i = 0; i < 16; i++)
        if (m >> i & 1)
            p[i] = v[i];
}
EMU __m512 emu_fma(__m512 a, __m512 b, __m512 c)
{
    for (int i = 0; i < 16; i++)
        c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
}
EMU __m512 emu_max(__m512 a, __m512 b)
{
    for (int i = 0; i < 16; i++)
        b[i] = a[i] > b[i] ? a[i] : b[i];
    return b;
}
EMU __m512 emu_sqrt(__m512 a)
{
    for (int i = 0; i < 16; i++)
        a[i] = sqrtf(a[i]);
    return a;
}
EMU __m512 emu_round(__m512 a)
{
    for (int i = 0; i < 16; i++)
        a[i] = rintf(a[i]);
    return a;
}
EMU __mmask16 emu_less(__m512 a, __m512 b)
{
    unsigned m = 0;

    for (int i = 0; i < 16; i++)
        m |= (unsigned)(a[i] < b[i]) << i;
    return (__mmask16)m;
}
EMU __m512 emu_blend(__mmask16 m, __m512 a, __m512 b)
{
    for (int i = 0; i < 16; i++)
        a[i] = m >> i & 1 ? b[i] : a[i];
    return a;
}
EMU __m512 emu_abs(__m512 a)
{
    return (__m512)((emu_u32)a & 0x7fffffffu);
}
EMU __m128 emu_quarter(__m512 v, int q)
{
    return (__m128){v[4 * q], v[4 * q + 1], v[4 * q + 2], v[4 * q + 3]};
}

#define _mm512_set1_ps            emu_set1
#define _mm512_setzero_ps()       emu_set1(0)
#define _mm512_loadu_ps           emu_load
#define _mm512_storeu_ps          emu_store
#define _mm512_maskz_loadu_ps     emu_load_masked
#define _mm512_mask_storeu_ps     emu_store_masked
#define _mm512_fmadd_ps           emu_fma
#define _mm512_max_ps             emu_max
#define _mm512_sqrt_ps            emu_sqrt
#define _mm512_mask_blend_ps      emu_blend
#define _mm512_maskz_mov_ps(m, v) emu_blend(m, emu_set1(0), v)
#define _mm512_abs_ps             emu_abs
#define _mm512_add_ps(a, b)       ((__m512)((a) + (b)))
#define _mm512_extractf32x4_ps    emu_quarter
#define _mm512_castps_si512(v)    ((__m512i)(v))
#define _mm512_castsi512_ps(v)    ((__m512)(v))
/* The kernels use these with one constant each. */
#define _mm512_roundscale_ps(v, mode)                                                      \
    emu_round((mode) == (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC) ? (v)              \
                                                                        : emu_set1(NAN))
#define _mm512_cmp_ps_mask(a, b, op) ((op) == _CMP_LT_OQ ? emu_less(a, b) : (abort(), 0))

/* ---- AVX-512: integers --------------------------------------------------------------- */

EMU __m512i emu_set1_32(int x)
{
    return (__m512i)((emu_u32){0} + (uint32_t)x);
}
EMU __m512i emu_set1_64(long long x)
{
    return (__m512i)((emu_u64){0} + (uint64_t)x);
}
EMU __m512i emu_cvtps(__m512 v)
{
    emu_u32 r = {0};

    for (int i = 0; i < 16; i++)
        r[i] = fabsf(v[i]) < 0x1p31f ? (uint32_t)(int32_t)rintf(v[i]) : 0x80000000u;
    return (__m512i)r;
}
EMU __mmask16 emu_not_less_u32(__m512i a, __m512i b)
{
    unsigned m = 0;

    for (int i = 0; i < 16; i++)
        m |= (unsigned)(((emu_u32)a)[i] >= ((emu_u32)b)[i]) << i;
    return (__mmask16)m;
}
EMU __m512i emu_unpack_64(__m512i a, __m512i b, int high)
{
    for (int i = high; i < 8; i += 2) {
        long long x = a[i], y = b[i];

        a[i - high] = x;
        a[i - high + 1] = y;
    }
    return a;
}
EMU __m512i emu_permute2_64(__m512i a, __m512i index, __m512i b)
{
    __m512i r = a;

    for (int i = 0; i < 8; i++)
        r[i] = index[i] & 8 ? b[index[i] & 7] : a[index[i] & 7];
    return r;
}

#define _mm512_set1_epi32       emu_set1_32
#define _mm512_set1_epi64       emu_set1_64
#define _mm512_setr_epi64(...)  ((__m512i){__VA_ARGS__})
#define _mm512_add_epi32(a, b)  ((__m512i)((emu_u32)(a) + (emu_u32)(b)))
#define _mm512_and_si512(a, b)  ((a) & (b))
#define _mm512_or_si512(a, b)   ((a) | (b))
#define _mm512_xor_si512(a, b)  ((a) ^ (b))
#define _mm512_slli_epi32(a, n) ((__m512i)((emu_u32)(a) << (n)))
#define _mm512_slli_epi64(a, n) ((__m512i)((emu_u64)(a) << (n)))
#define _mm512_srli_epi64(a, n) ((__m512i)((emu_u64)(a) >> (n)))
#define _mm512_mul_epu32(a, b)                                                             \
    ((__m512i)(((emu_u64)(a)&0xffffffffu) * ((emu_u64)(b)&0xffffffffu)))
#define _mm512_add_epi64(a, b)      ((__m512i)((emu_u64)(a) + (emu_u64)(b)))
#define _mm512_cvtps_epi32          emu_cvtps
#define _mm512_cmpge_epu32_mask     emu_not_less_u32
#define _mm512_unpacklo_epi64(a, b) emu_unpack_64(a, b, 0)
#define _mm512_unpackhi_epi64(a, b) emu_unpack_64(a, b, 1)
#define _mm512_permutex2var_epi64   emu_permute2_64

/* ---- AVX512_BF16 --------------------------------------------------------------------- */

EMU float emu_flush(float x)
{
    return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x;
}
EMU uint16_t emu_narrow(float x)
{
    uint32_t u;

    x = emu_flush(x);
    memcpy(&u, &x, sizeof u);
    if (isnan(x))
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
EMU float emu_widen(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float x;

    memcpy(&x, &u, sizeof x);
    return emu_flush(x);
}
EMU __m256bh emu_narrow_16(__m512 v)
{
    __m256bh r = {0};

    for (int i = 0; i < 16; i++)
        r[i] = (short)emu_narrow(v[i]);
    return r;
}
EMU __m256bh emu_narrow_2x8(__m256 high, __m256 low)
{
    __m256bh r = {0};

    for (int i = 0; i < 8; i++) {
        r[i] = (short)emu_narrow(low[i]);
        r[i + 8] = (short)emu_narrow(high[i]);
    }
    return r;
}
EMU __m256 emu_load_masked_8(__mmask8 m, const float *p)
{
    __m256 v = {0};

    for (int i = 0; i < 8; i++)
        if (m >> i & 1)
            v[i] = p[i];
    return v;
}
EMU __m256i emu_permute_16(__m256i index, __m256i v)
{
    uint16_t at[16], in[16], out[16];
    __m256i r;

    memcpy(at, &index, sizeof at);
    memcpy(in, &v, sizeof in);
    for (int i = 0; i < 16; i++)
        out[i] = in[at[i] & 15];
    memcpy(&r, out, sizeof r);
    return r;
}
EMU __m512 emu_dot(__m512 acc, __m512bh a, __m512bh b)
{
    for (int i = 0; i < 16; i++)
        for (int k = 1; k >= 0; k--)
            acc[i] = emu_flush(__builtin_fmaf(emu_widen((uint16_t)a[2 * i + k]),
                                              emu_widen((uint16_t)b[2 * i + k]),
                                              emu_flush(acc[i])));
    return acc;
}

#define _mm512_cvtneps_pbh       emu_narrow_16
#define _mm256_cvtne2ps_pbh      emu_narrow_2x8
#define _mm256_maskz_loadu_ps    emu_load_masked_8
#define _mm256_permutexvar_epi16 emu_permute_16
#define _mm512_dpbf16_ps         emu_dot

/* ---- AMX ----------------------------------------------------------------------------- */

enum { EMU_TILES = 8, EMU_ROWS = 16, EMU_ROW_BYTES = 64 };

struct emu_tiles {
    int configured;
    int rows[EMU_TILES], row_bytes[EMU_TILES];
    char data[EMU_TILES][EMU_ROWS][EMU_ROW_BYTES];
};

void emu_tile_configure(const void *config);
void emu_tile_release(void);
void emu_tile_zero(int t);
void emu_tile_load(int t, const void *from, long stride);
void emu_tile_store(int t, void *to, long stride);
void emu_tile_dot(int c, int a, int b);

#define _tile_loadconfig emu_tile_configure
#define _tile_release    emu_tile_release
#define _tile_zero       emu_tile_zero
#define _tile_loadd      emu_tile_load
#define _tile_stored     emu_tile_store
#define _tile_dpbf16ps   emu_tile_dot

#pragma GCC pop_options

#endif
