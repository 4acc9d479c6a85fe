/* Vectors of the instruction set in force: 16 lanes with AVX-512, 8 with AVX2 and FMA, 4
 * elsewhere. Included once by each loops_<isa>.c, which defines SIMD_AVX512, SIMD_AVX2 or
 * SIMD_PLAIN and sets the target of the functions that follow.
 *
 * Invariant: max and min return their second operand when either is NaN, so with the data
 * there a NaN stays one. Sums over lanes are taken in one fixed order. */
#ifndef KERNELS_CPU_SIMD_H
#define KERNELS_CPU_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(SIMD_AVX512)

enum { VW = 16 };
typedef __m512 vf;

static inline vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void vf_store(float *p, vf v)
{
    _mm512_storeu_ps(p, v);
}
static inline __mmask16 vf_first(long n)
{
    return (__mmask16)((1u << n) - 1);
}
static inline vf vf_load_n(const float *p, long n)
{
    return _mm512_maskz_loadu_ps(vf_first(n), p);
}
static inline void vf_store_n(float *p, vf v, long n)
{
    _mm512_mask_storeu_ps(p, vf_first(n), v);
}
static inline vf vf_set1(float x)
{
    return _mm512_set1_ps(x);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
static inline vf vf_sqrt(vf a)
{
    return _mm512_sqrt_ps(a);
}
static inline vf vf_round(vf a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a < b ? x : y */
static inline vf vf_where_less(vf a, vf b, vf x, vf y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
static inline vf vf_abs(vf a)
{
    return _mm512_abs_ps(a);
}
/* x 2^n for integral n in -126 .. 127 and x near 1. */
static inline vf vf_scale2(vf x, vf n)
{
    return _mm512_castsi512_ps(_mm512_add_epi32(
        _mm512_castps_si512(x), _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23)));
}

#elif defined(SIMD_AVX2)

enum { VW = 8 };
typedef __m256 vf;

static inline vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void vf_store(float *p, vf v)
{
    _mm256_storeu_ps(p, v);
}
static inline __m256i vf_first(long n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf vf_load_n(const float *p, long n)
{
    return _mm256_maskload_ps(p, vf_first(n));
}
static inline void vf_store_n(float *p, vf v, long n)
{
    _mm256_maskstore_ps(p, vf_first(n), v);
}
static inline vf vf_set1(float x)
{
    return _mm256_set1_ps(x);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline vf vf_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
static inline vf vf_sqrt(vf a)
{
    return _mm256_sqrt_ps(a);
}
static inline vf vf_round(vf a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf vf_where_less(vf a, vf b, vf x, vf y)
{
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
static inline vf vf_abs(vf a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
static inline vf vf_scale2(vf x, vf n)
{
    return _mm256_castsi256_ps(_mm256_add_epi32(
        _mm256_castps_si256(x), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}

#else

enum { VW = 4 };
typedef float vf __attribute__((vector_size(16)));

static inline vf vf_load(const float *p)
{
    vf v;

    memcpy(&v, p, sizeof v);
    return v;
}
static inline void vf_store(float *p, vf v)
{
    memcpy(p, &v, sizeof v);
}
static inline vf vf_load_n(const float *p, long n)
{
    vf v = {0};

    for (long i = 0; i < n; i++)
        v[i] = p[i];
    return v;
}
static inline void vf_store_n(float *p, vf v, long n)
{
    for (long i = 0; i < n; i++)
        p[i] = v[i];
}
static inline vf vf_set1(float x)
{
    return (vf){x, x, x, x};
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return a * b + c;
}
static inline vf vf_max(vf a, vf b)
{
    for (int i = 0; i < VW; i++)
        b[i] = a[i] > b[i] ? a[i] : b[i];
    return b;
}
static inline vf vf_sqrt(vf a)
{
    for (int i = 0; i < VW; i++)
        a[i] = sqrtf(a[i]);
    return a;
}
static inline vf vf_round(vf a)
{
    for (int i = 0; i < VW; i++)
        a[i] = rintf(a[i]);
    return a;
}
static inline vf vf_where_less(vf a, vf b, vf x, vf y)
{
    for (int i = 0; i < VW; i++)
        y[i] = a[i] < b[i] ? x[i] : y[i];
    return y;
}
static inline vf vf_abs(vf a)
{
    for (int i = 0; i < VW; i++)
        a[i] = fabsf(a[i]);
    return a;
}
static inline vf vf_scale2(vf x, vf n)
{
    for (int i = 0; i < VW; i++)
        x[i] = ldexpf(x[i], n[i] >= -126 && n[i] <= 127 ? (int)n[i] : 0);
    return x;
}

#endif

#ifndef SIMD_PLAIN
/* Lanes 0..3 of the halves folded onto one another. */
#ifdef SIMD_AVX512
#define VF_FOLD(op, v)                                                                     \
    _mm_##op(_mm_##op(_mm512_extractf32x4_ps(v, 0), _mm512_extractf32x4_ps(v, 2)),         \
             _mm_##op(_mm512_extractf32x4_ps(v, 1), _mm512_extractf32x4_ps(v, 3)))
#else
#define VF_FOLD(op, v) _mm_##op(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1))
#endif

static inline float vf_sum(vf v)
{
    __m128 x = VF_FOLD(add_ps, v);

    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

/* The largest lane; a NaN may be lost. */
static inline float vf_top(vf v)
{
    __m128 x = VF_FOLD(max_ps, v);

    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
#else
static inline float vf_sum(vf v)
{
    return (v[0] + v[2]) + (v[1] + v[3]);
}

static inline float vf_top(vf v)
{
    float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];

    return a > b ? a : b;
}
#endif

static inline vf vf_min(vf a, vf b)
{
    return -vf_max(-a, -b);
}

/* Full vectors of a row and what is left: n lanes from p, the rest 0. */
static inline vf vf_load_up_to(const float *p, long n)
{
    return n >= VW ? vf_load(p) : vf_load_n(p, n);
}
static inline void vf_store_up_to(float *p, vf v, long n)
{
    if (n >= VW)
        vf_store(p, v);
    else
        vf_store_n(p, v, n);
}

#endif
