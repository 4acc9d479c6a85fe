/* What kernels share: groups of four columns, activations, the dropout rule, sums.
 *
 * Sums run in an order that depends on shapes alone: a thread takes every so many-th group,
 * lanes are added as a butterfly (each lane ends with the same bits), then warps in order.
 *
 * The dropout rule is that of kernels/op.h, bit for bit (kernels/keep.h is its host form).
 * Activations are written so that they keep their relative accuracy where they are small:
 * GELU by erfc of the rounded argument and a first-order correction of its rounding. */
#ifndef KERNELS_CUDA_COMMON_H
#define KERNELS_CUDA_COMMON_H

#include "kernels/cuda/gpu.h"

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/mma.h"
#include "kernels/keep.h"

enum { BLOCK = 256, WARP = 32, BLOCK_WARPS = BLOCK / WARP };

static inline unsigned blocks(long n, long each)
{
    return (unsigned)((n + each - 1) / each);
}

/* ---- four columns at a time ---- */

/* May rows of D floats from here be read as float4? NULL is no obstacle. */
static inline int wide(long D, const void *a, const void *b = nullptr,
                       const void *c = nullptr, const void *d = nullptr)
{
    uintptr_t all = (uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)d;

    return D % 4 == 0 && all % 16 == 0;
}

/* `left` of them exist; the others are 0. */
GPU_INLINE float4 load4(const float *p, long left, int w)
{
    if (w)
        return *(const float4 *)p;
    return make_float4(left > 0 ? p[0] : 0, left > 1 ? p[1] : 0, left > 2 ? p[2] : 0,
                       left > 3 ? p[3] : 0);
}

GPU_INLINE void store4(float *p, float4 v, long left, int w)
{
    if (w) {
        *(float4 *)p = v;
        return;
    }
    if (left > 0)
        p[0] = v.x;
    if (left > 1)
        p[1] = v.y;
    if (left > 2)
        p[2] = v.z;
    if (left > 3)
        p[3] = v.w;
}

GPU_INLINE float4 operator+(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

GPU_INLINE float4 operator*(float4 a, float4 b)
{
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

GPU_INLINE float4 operator-(float4 a, float4 b)
{
    return make_float4(a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w);
}

GPU_INLINE float4 operator-(float4 a, float m)
{
    return make_float4(a.x - m, a.y - m, a.z - m, a.w - m);
}

GPU_INLINE float4 operator*(float4 a, float f)
{
    return make_float4(a.x * f, a.y * f, a.z * f, a.w * f);
}

/* ---- activations ---- */

GPU_INLINE float gelu_erf(float x)
{
    const float c = 0.70710678f, c_low = 1.2101615e-8f; /* sqrt(1/2) in two parts */
    float t = -x * c, low = fmaf(-x, c, -t) - x * c_low;

    if (!(fabsf(x) < 14.0f)) /* erfc is 0 or 2; infinities and NaN pass */
        return x < 0 ? x * 0.0f : x;
    return 0.5f * x * (erfcf(t) - 1.1283792f * low * expf(-t * t));
}

GPU_INLINE float gelu_tanh_inner(float x)
{
    return 0.79788456f * (x + 0.044715f * x * x * x);
}

GPU_INLINE float act_value(int act, float x)
{
    switch (act) {
    case ACT_GELU_ERF:
        return gelu_erf(x);
    case ACT_GELU_TANH: /* 0.5 x (1 + tanh u) */
        return x / (1 + expf(-2 * gelu_tanh_inner(x)));
    case ACT_RELU:
        return x < 0 ? 0 : x; /* a NaN stays one */
    case ACT_SILU:
        return x / (1 + expf(-x));
    case ACT_TANH:
        return tanhf(x);
    default:
        return x;
    }
}

GPU_INLINE float act_slope(int act, float x)
{
    float t, s;

    switch (act) {
    case ACT_GELU_ERF:
        return 0.5f * erfcf(-0.70710678f * x) + 0.39894228f * x * expf(-0.5f * x * x);
    case ACT_GELU_TANH: /* with s = (1 + tanh u) / 2: s (1 + 2 x (1 - s) u') */
        s = 1 / (1 + expf(-2 * gelu_tanh_inner(x)));
        return s * (1 + 2 * x * (1 - s) * 0.79788456f * (1 + 3 * 0.044715f * x * x));
    case ACT_RELU:
        return x > 0;
    case ACT_SILU:
        s = 1 / (1 + expf(-x));
        return s * (1 + x * (1 - s));
    case ACT_TANH:
        t = tanhf(x);
        return 1 - t * t;
    default:
        return 1;
    }
}

GPU_INLINE float4 act_value4(int act, float4 x)
{
    return make_float4(act_value(act, x.x), act_value(act, x.y), act_value(act, x.z),
                       act_value(act, x.w));
}

GPU_INLINE float4 act_slope4(int act, float4 x)
{
    return make_float4(act_slope(act, x.x), act_slope(act, x.y), act_slope(act, x.z),
                       act_slope(act, x.w));
}

/* ---- dropout ---- */

struct keep {
    const uint32_t *example, *position;
    const uint64_t *key; /* on the device: one launch of a graph differs by it */
    float scale;
    uint32_t threshold, site;
    int on;
};

static inline keep keep_of(const struct op_dropout &d)
{
    keep k = {};

    if (d.p > 0)
        k = {d.example,
             d.position,
             graph_key(),
             keep_scale(d.p),
             (uint32_t)keep_threshold(d.p),
             d.site,
             1};
    return k;
}

/* Philox4x32-10, as rng_philox() of base/rng.h. */
GPU_INLINE uint4 philox(uint4 c, uint64_t key)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);

#pragma unroll
    for (int i = 0; i < 10; i++) {
        uint32_t h0 = __umulhi(0xD2511F53u, c.x), l0 = 0xD2511F53u * c.x;
        uint32_t h1 = __umulhi(0xCD9E8D57u, c.z), l1 = 0xCD9E8D57u * c.z;

        c = make_uint4(h1 ^ c.y ^ k0, l1, h0 ^ c.w ^ k1, l0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

/* The factors of the four elements of a group: 0 where dropped, else the scale. */
GPU_INLINE float4 keep_factors(const keep &k, long row, uint32_t group)
{
    uint4 w;

    if (!k.on)
        return make_float4(1, 1, 1, 1);
    w = philox(make_uint4(k.example[row], k.position[row], group, k.site),
               load_here(k.key));
    return make_float4(w.x < k.threshold ? 0 : k.scale, w.y < k.threshold ? 0 : k.scale,
                       w.z < k.threshold ? 0 : k.scale, w.w < k.threshold ? 0 : k.scale);
}

/* ---- sums ---- */

template <class T> GPU_INLINE T warp_sum(T x)
{
#pragma unroll
    for (int bits = 16; bits; bits /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, bits);
    return x;
}

GPU_INLINE float warp_max(float x)
{
#pragma unroll
    for (int bits = 16; bits; bits /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, bits));
    return x;
}

/* Of all BLOCK threads; every thread must call it. part: shared, BLOCK_WARPS of T. */
template <class T> GPU_INLINE T block_sum(T x, T *part)
{
    x = warp_sum(x);
    __syncthreads(); /* part may still be read */
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = x;
    __syncthreads();
    x = part[0];
#pragma unroll
    for (int w = 1; w < BLOCK_WARPS; w++)
        x += part[w];
    return x;
}

GPU_INLINE float block_max(float x, float *part)
{
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = x;
    __syncthreads();
    x = part[0];
#pragma unroll
    for (int w = 1; w < BLOCK_WARPS; w++)
        x = fmaxf(x, part[w]);
    return x;
}

/* ---- sequences ---- */

/* Which tile of which sequence is tile number x, when each sequence b is cut into tiles of
 * `tile` tokens and begins at number cu[b] / tile + b? Numbers below T / tile + B may name
 * a tile past its sequence's end, which has no work: begin >= length. */
struct sequence_tile {
    int start, length, begin; /* first token and length of the sequence; first row */
};

GPU_INLINE sequence_tile find_tile(const int *cu, int B, int tile, int x)
{
    int low = 0, high = B - 1;

    while (low < high) { /* the last b with cu[b] / tile + b <= x */
        int mid = (low + high + 1) / 2;

        if (cu[mid] / tile + mid <= x)
            low = mid;
        else
            high = mid - 1;
    }
    return {cu[low], cu[low + 1] - cu[low], (x - cu[low] / tile - low) * tile};
}

static inline unsigned tile_count(long T, long B, int tile)
{
    return (unsigned)(T / tile + B);
}

#endif
