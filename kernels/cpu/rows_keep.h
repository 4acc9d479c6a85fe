/* Dropout factors of a run of elements: Philox4x32-10 on as many counters as there are
 * 64-bit lanes. The same decisions as keep_words() of keep.h, word for word. */
#ifndef KERNELS_CPU_ROWS_KEEP_H
#define KERNELS_CPU_ROWS_KEEP_H

#include "kernels/cpu/simd.h"
#include "kernels/keep.h"

#if defined(SIMD_AVX512)
enum { KEEP_LANES = 8 };
typedef __m512i vq;
#define VQ(op) _mm512_##op
#define vq_xor _mm512_xor_si512
#elif defined(SIMD_AVX2)
enum { KEEP_LANES = 4 };
typedef __m256i vq;
#define VQ(op) _mm256_##op
#define vq_xor _mm256_xor_si256
#endif

#ifndef SIMD_PLAIN
static inline vq vq_set1(uint64_t x)
{
#ifdef SIMD_AVX512
    return _mm512_set1_epi64((long long)x);
#else
    return _mm256_set1_epi64x((long long)x);
#endif
}

/* Groups group .. group + KEEP_LANES - 1: 0 or scale for 4 elements each. A counter word
 * is the low half of a 64-bit lane; what the products leave in the high half is never
 * read. */
static inline void keep_groups(const struct op_dropout *d, long row, uint32_t group,
                               uint32_t threshold, float scale, float *out)
{
    uint64_t lane[KEEP_LANES];
    vq c0 = vq_set1(d->example[row]), c1 = vq_set1(d->position[row]);
    vq c2, c3 = vq_set1(d->site), m0 = vq_set1(0xD2511F53u), m1 = vq_set1(0xCD9E8D57u);
    vq low = vq_set1(0xFFFFFFFFu), ab, cd, even, odd;
    uint32_t k0 = (uint32_t)d->key, k1 = (uint32_t)(d->key >> 32);

    for (int i = 0; i < KEEP_LANES; i++)
        lane[i] = group + (uint32_t)i;
    memcpy(&c2, lane, sizeof c2);
    for (int i = 0; i < 10; i++) {
        vq p0 = VQ(mul_epu32)(c0, m0), p1 = VQ(mul_epu32)(c2, m1);

        c0 = vq_xor(vq_xor(VQ(srli_epi64)(p1, 32), c1), vq_set1(k0));
        c1 = p1;
        c2 = vq_xor(vq_xor(VQ(srli_epi64)(p0, 32), c3), vq_set1(k1));
        c3 = p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
#ifdef SIMD_AVX512
    ab = _mm512_or_si512(_mm512_and_si512(c0, low), _mm512_slli_epi64(c1, 32));
    cd = _mm512_or_si512(_mm512_and_si512(c2, low), _mm512_slli_epi64(c3, 32));
    even = _mm512_unpacklo_epi64(ab, cd); /* groups 0 2 4 6 */
    odd = _mm512_unpackhi_epi64(ab, cd);  /* groups 1 3 5 7 */
    ab = _mm512_permutex2var_epi64(even, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), odd);
    cd =
        _mm512_permutex2var_epi64(even, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), odd);
    vf_store(out, _mm512_maskz_mov_ps(
                      _mm512_cmpge_epu32_mask(ab, _mm512_set1_epi32((int)threshold)),
                      vf_set1(scale)));
    vf_store(out + VW, _mm512_maskz_mov_ps(
                           _mm512_cmpge_epu32_mask(cd, _mm512_set1_epi32((int)threshold)),
                           vf_set1(scale)));
#else
    __m256i sign = _mm256_set1_epi32((int)0x80000000u);
    __m256i edge = _mm256_set1_epi32((int)(threshold ^ 0x80000000u));

    ab = _mm256_or_si256(_mm256_and_si256(c0, low), _mm256_slli_epi64(c1, 32));
    cd = _mm256_or_si256(_mm256_and_si256(c2, low), _mm256_slli_epi64(c3, 32));
    even = _mm256_unpacklo_epi64(ab, cd);
    odd = _mm256_unpackhi_epi64(ab, cd);
    ab = _mm256_xor_si256(_mm256_permute2x128_si256(even, odd, 0x20), sign);
    cd = _mm256_xor_si256(_mm256_permute2x128_si256(even, odd, 0x31), sign);
    vf_store(out, _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(edge, ab)),
                                   vf_set1(scale)));
    vf_store(out + VW, _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(edge, cd)),
                                        vf_set1(scale)));
#endif
}
#else
enum { KEEP_LANES = 1 };
static inline void keep_groups(const struct op_dropout *d, long row, uint32_t group,
                               uint32_t threshold, float scale, float *out)
{
    uint32_t w[4];

    keep_words(d, row, group, w);
    for (int i = 0; i < 4; i++)
        out[i] = w[i] < threshold ? 0 : scale;
}
#endif

/* out[i], i = 0 .. n-1: the factor of element i of the row, from group `group` on. */
static void loop_keep(const struct op_dropout *d, long row, uint32_t group, long n,
                      float *out)
{
    enum { STEP = 4 * KEEP_LANES };
    uint32_t threshold = (uint32_t)keep_threshold(d->p); /* p < 1: fits */
    float scale = keep_scale(d->p), rest[STEP];
    long i = 0;

    for (; i + STEP <= n; i += STEP, group += KEEP_LANES)
        keep_groups(d, row, group, threshold, scale, out + i);
    if (i < n) {
        keep_groups(d, row, group, threshold, scale, rest);
        memcpy(out + i, rest, (size_t)(n - i) * sizeof *out);
    }
}

/* y = dropout(x) on one row; y may be x. */
static void loop_dropout(const struct op_dropout *d, long row, const float *x, float *y,
                         long n)
{
    enum { PART = 512 };
    float factor[PART];

    for (long c = 0; c < n; c += PART) {
        long part = n - c < PART ? n - c : PART;

        loop_keep(d, row, (uint32_t)(c / 4), part, factor);
        for (long i = 0; i < part; i += VW)
            vf_store_up_to(y + c + i,
                           vf_load_up_to(x + c + i, part - i) *
                               vf_load_up_to(factor + i, part - i),
                           part - i);
    }
}

#endif
