/* What attention on tensor cores shares, forward and backward: how a warp holds matrices,
 * tiles in shared memory, masks.
 *
 * q, k, v (and do) are first rounded to contiguous copies (T, heads, D) of two bytes an
 * element, the heads' d columns padded with zeros to D. A block of four warps owns a tile
 * of rows and streams the other side past it; scores, probabilities and sums stay in
 * registers. A warp's strip of ROWS rows by 8 columns takes E sums a lane, two rows of them
 * ("slots": sum e is of slot e / 2 % 2). Sums over 16 columns or rows at a time: a step.
 *
 *   ampere<T>  mma.m16n8k16: 16 rows, lane 4 g + t has rows g and g + 8, columns 2t, 2t
 * + 1. bf16 on sm_80 and up, f16 on sm_75 and up. volta      mma.m8n8k4 of f16: 32 rows,
 * lane l has rows (l & ~2) and 2 more, columns (l & 2), (l & 2) + 1, and the same 4
 * further. sm_70.
 *
 * Row r of a tile has its 16-byte chunk c at c ^ (r & 7): the eight rows that are read
 * together lie in different banks. */
#ifndef KERNELS_CUDA_FLASH_H
#define KERNELS_CUDA_FLASH_H

#include "kernels/cuda/common.h"

enum { FLASH_WARPS = 4, FLASH_THREADS = 32 * FLASH_WARPS };
#define FLASH_LOG2E 1.4426950408889634f
#define FLASH_LN2   0.6931471805599453f

#if defined(__CUDA_ARCH__) && defined(HONE_CUDA_AS)
#define FLASH_ARCH (10 * HONE_CUDA_AS) /* tests: an older chip's kernels on a newer one */
#elif defined(__CUDA_ARCH__)
#define FLASH_ARCH __CUDA_ARCH__
#else
#define FLASH_ARCH 0 /* the host's pass: every kernel is there */
#endif

/* Chunk c of row r in a tile with rows of D elements. */
template <int D> GPU_INLINE int chunk_at(int r, int c)
{
    return r * D + 8 * (D >= 64 ? c ^ (r & 7) : c ^ (r >> 1 & 3));
}

/* The chunk that is 2 k + ... from where p is: k steps of 16 columns further, whatever the
 * row, since rows begin at multiples of their length. One instruction on an address that
 * changes from tile to tile: nothing for the compiler to keep in registers. */
template <class T> GPU_INLINE const T *step_on(const T *p, int k)
{
    return (const T *)((uintptr_t)p ^ (uintptr_t)(32 * k));
}

GPU_INLINE int lane_id()
{
    return threadIdx.x % WARP;
}

/* The factors of a group of four as bits: 1, kept. */
GPU_INLINE uint32_t keep_bits(const keep &k, long row, uint32_t group)
{
    uint4 w = philox(make_uint4(k.example[row], k.position[row], group, k.site),
                     load_here(k.key));

    return (w.x >= k.threshold) | (w.y >= k.threshold) << 1 | (w.z >= k.threshold) << 2 |
           (w.w >= k.threshold) << 3;
}

template <class T> GPU_INLINE uint32_t pack2(float lo, float hi);
template <> GPU_INLINE uint32_t pack2<bf16>(float lo, float hi)
{
    return pack_bf16(lo, hi);
}
template <> GPU_INLINE uint32_t pack2<__half>(float lo, float hi)
{
    return pack_f16(lo, hi);
}

template <class T> struct ampere {
    typedef T element;
    template <int D> /* is it compiled for this architecture? */
    static constexpr bool HERE =
        !FLASH_ARCH || FLASH_ARCH >= 800 ||
        (FLASH_ARCH == 750 && std::is_same<T, __half>::value && D <= 128);
    enum { ROWS = 16, E = 4, A = 4, B = 4, VOLTA = 0 };

    static GPU_INLINE int row(int slot)
    {
        return lane_id() / 4 + 8 * slot;
    }
    static GPU_INLINE int column(int e)
    {
        return lane_id() % 4 * 2 + e % 2;
    }
    /* Over the lanes of a row. */
    static GPU_INLINE float row_max(float x)
    {
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
        return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
    }
    static GPU_INLINE float row_sum(float x)
    {
        x += __shfl_xor_sync(0xffffffffu, x, 1);
        return x + __shfl_xor_sync(0xffffffffu, x, 2);
    }
    /* Rows row .. row + ROWS - 1 of tile x, step k. */
    template <int D>
    static GPU_INLINE void load_a(uint32_t (&a)[A], const T *x, int r, int k)
    {
        ldmatrix<4>(a, step_on(x + chunk_at<D>(r + lane_id() % 16, lane_id() / 16), k));
    }
    /* The same from g with row stride ld; rows from `valid` on are zeros. */
    static GPU_INLINE void fetch_a(uint32_t (&a)[A], const T *g, long ld, int valid, int k)
    {
        int r = lane_id() / 4, c = 16 * k + lane_id() % 4 * 2;

#pragma unroll
        for (int i = 0; i < 4; i++) {
            int at = r + i % 2 * 8;

            a[i] = at < valid ? *(const uint32_t *)(g + at * ld + c + i / 2 * 8) : 0;
        }
    }
    /* Sums of 16 columns as the left side of a product. */
    static GPU_INLINE void turn_a(uint32_t (&a)[A], const float (&x)[E],
                                  const float (&y)[E])
    {
        a[0] = pack2<T>(x[0], x[1]);
        a[1] = pack2<T>(x[2], x[3]);
        a[2] = pack2<T>(y[0], y[1]);
        a[3] = pack2<T>(y[2], y[3]);
    }
    /* The right side of 16 columns: columns are rows r .. r + 15 of y, step k; */
    template <int D>
    static GPU_INLINE void load_rows(uint32_t (&b)[B], const T *y, int r, int k)
    {
        int l = lane_id();

        ldmatrix<4>(b, step_on(y + chunk_at<D>(l % 8 + l / 16 * 8, l / 8 % 2), k) + r * D);
    }
    /* or columns are columns c .. c + 15 of y, step k along its rows. */
    template <int D>
    static GPU_INLINE void load_columns(uint32_t (&b)[B], const T *y, int k, int c)
    {
        int l = lane_id();

        ldmatrix<4, true>(b, step_on(y + chunk_at<D>(l % 16, l / 16), c / 16) + 16 * k * D);
    }
    template <bool COLUMNS>
    static GPU_INLINE void multiply(float (&x)[E], float (&y)[E], const uint32_t (&a)[A],
                                    const uint32_t (&b)[B])
    {
        if constexpr (std::is_same<T, bf16>::value) {
            mma_bf16(x, a, b);
            mma_bf16(y, a, b + 2);
        } else {
            mma_f16(x, a, b);
            mma_f16(y, a, b + 2);
        }
    }
    /* Which sums of a strip are kept, as bits e. Rows are queries, the warp's first is
     * token `token` and `valid` of them exist; the strip's first key is 4 * group. Two
     * lanes share a group of a row: each asks for one of their two rows. */
    static GPU_INLINE uint32_t kept_across(const keep &k, long token, int valid,
                                           uint32_t group)
    {
        int odd = lane_id() % 2, r = row(odd);
        uint32_t mine = r < valid ? keep_bits(k, token + r, group + lane_id() % 4 / 2) : 0;
        uint32_t other = __shfl_xor_sync(0xffffffffu, mine, 1);
        uint32_t first = odd ? other : mine, second = odd ? mine : other;

        return (first >> 2 * odd & 3) | (second >> 2 * odd & 3) << 2;
    }
    /* Rows are keys, the warp's first is 4 * group; columns are queries from token on. Four
     * lanes share a group of a column, and the same for two columns and two slots: each
     * asks for one of the four. */
    static GPU_INLINE uint32_t kept_down(const keep &k, long token, int valid,
                                         uint32_t group)
    {
        int l = lane_id(), place = l / 4 % 4, c = column(place);
        uint32_t mine =
            c < valid ? keep_bits(k, token + c, group + place / 2 * 2 + l / 16) : 0;
        uint32_t bits = 0;

#pragma unroll
        for (int e = 0; e < E; e++) {
            uint32_t x = __shfl_sync(0xffffffffu, mine, (l & ~12) | e << 2);

            bits |= (x >> place & 1) << e;
        }
        return bits;
    }
};

struct volta {
    typedef __half element;
    template <int D> static constexpr bool HERE = FLASH_ARCH < 750;
    enum { ROWS = 32, E = 8, A = 8, B = 16, VOLTA = 1 };

    static GPU_INLINE int row(int slot)
    {
        return (lane_id() & ~2) + 2 * slot;
    }
    static GPU_INLINE int column(int e)
    {
        return (lane_id() & 2) + (e & 4) + e % 2;
    }
    static GPU_INLINE float row_max(float x)
    {
        return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
    }
    static GPU_INLINE float row_sum(float x)
    {
        return x + __shfl_xor_sync(0xffffffffu, x, 2);
    }
    static GPU_INLINE void put(uint32_t *to, uint4 v)
    {
        to[0] = v.x;
        to[1] = v.y;
        to[2] = v.z;
        to[3] = v.w;
    }
    template <int D>
    static GPU_INLINE void load_a(uint32_t (&a)[A], const __half *x, int r, int k)
    {
        put(a, *(const uint4 *)step_on(x + chunk_at<D>(r + lane_id(), 0), k));
        put(a + 4, *(const uint4 *)step_on(x + chunk_at<D>(r + lane_id(), 1), k));
    }
    static GPU_INLINE void fetch_a(uint32_t (&a)[A], const __half *g, long ld, int valid,
                                   int k)
    {
        const uint4 *p = (const uint4 *)(g + lane_id() * ld + 16 * k);
        uint4 zero = make_uint4(0, 0, 0, 0);

        put(a, lane_id() < valid ? p[0] : zero);
        put(a + 4, lane_id() < valid ? p[1] : zero);
    }
    /* Lanes l and l ^ 2 have half of the columns of rows (l & ~2) and + 2 each; afterwards
     * one row each. */
    static GPU_INLINE void turn_half(uint32_t *a, const float *x)
    {
        int second = lane_id() / 2 % 2;
        uint32_t up = pack_f16(x[0], x[1]), down = pack_f16(x[2], x[3]);
        uint32_t got = __shfl_xor_sync(0xffffffffu, second ? up : down, 2);

        a[0] = second ? got : up;
        a[1] = second ? down : got;
    }
    static GPU_INLINE void turn_a(uint32_t (&a)[A], const float (&x)[E],
                                  const float (&y)[E])
    {
        turn_half(a, x);
        turn_half(a + 2, x + 4);
        turn_half(a + 4, y);
        turn_half(a + 6, y + 4);
    }
    template <int D>
    static GPU_INLINE void load_rows(uint32_t (&b)[B], const __half *y, int r, int k)
    {
        int at = r + lane_id() % 4 + lane_id() / 16 * 4;

#pragma unroll
        for (int n = 0; n < 2; n++) {
            const __half *row = y + 8 * n * D;

            put(b + 8 * n, *(const uint4 *)step_on(row + chunk_at<D>(at, 0), k));
            put(b + 8 * n + 4, *(const uint4 *)step_on(row + chunk_at<D>(at, 1), k));
        }
    }
    template <int D>
    static GPU_INLINE void load_columns(uint32_t (&b)[B], const __half *y, int k, int c)
    {
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int s = 0; s < 4; s++) {
                int r = 16 * k + 4 * s + lane_id() % 4;
                uint2 v =
                    *(const uint2 *)(y + chunk_at<D>(r, c / 8 + n) + lane_id() / 16 * 4);

                b[8 * n + 2 * s] = v.x;
                b[8 * n + 2 * s + 1] = v.y;
            }
    }
    template <bool COLUMNS>
    static GPU_INLINE void multiply(float (&x)[E], float (&y)[E], const uint32_t (&a)[A],
                                    const uint32_t (&b)[B])
    {
#pragma unroll
        for (int s = 0; s < 4; s++) {
            mma_volta<COLUMNS>(x, a + 2 * s, b + 2 * s);
            mma_volta<COLUMNS>(y, a + 2 * s, b + 8 + 2 * s);
        }
    }
    static GPU_INLINE uint32_t kept_across(const keep &k, long token, int valid,
                                           uint32_t group)
    {
        int second = lane_id() / 2 % 2, r = row(second);
        uint32_t bits = 0;

#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t mine = r < valid ? keep_bits(k, token + r, group + h) : 0;
            uint32_t other = __shfl_xor_sync(0xffffffffu, mine, 2);
            uint32_t x = second ? other : mine, y = second ? mine : other;

            bits |= ((x >> 2 * second & 3) | (y >> 2 * second & 3) << 2) << 4 * h;
        }
        return bits;
    }
    /* Two lanes share the groups of four columns: each asks for two of them. */
    static GPU_INLINE uint32_t kept_down(const keep &k, long token, int valid,
                                         uint32_t group)
    {
        int odd = lane_id() % 2;
        uint32_t mine = 0, other, bits = 0;

#pragma unroll
        for (int h = 0; h < 2; h++) {
            int c = column(4 * h + odd);

            if (c < valid)
                mine |= keep_bits(k, token + c, group + lane_id() / 4) << 4 * h;
        }
        other = __shfl_xor_sync(0xffffffffu, mine, 1);
#pragma unroll
        for (int e = 0; e < E; e++) {
            uint32_t x = (e % 2 == odd ? mine : other) >> e / 4 * 4;

            bits |= (x >> (odd + (e & 2)) & 1) << e;
        }
        return bits;
    }
};

template <int N, int E> GPU_INLINE void clear(float (&c)[N][E])
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < E; e++)
            c[n][e] = 0;
}

/* Start to copy rows 0 .. ROWS - 1 of g, with row stride ld, to a tile; zeros from row
 * `valid` on. */
template <int D, int ROWS, class T>
GPU_INLINE void load_tile(T *s, const T *g, long ld, int valid)
{
    enum { STEP = FLASH_THREADS / (D / 8) };       /* rows at a time */
    enum { AT_ONCE = FLASH_ARCH == 750 ? 1 : 16 }; /* there by registers */
    int r = threadIdx.x / (D / 8), c = threadIdx.x % (D / 8);

    g += r * ld + 8 * c;
#pragma unroll(AT_ONCE)
    for (int i = 0; i < ROWS; i += STEP, g += STEP * ld)
        if (ROWS % STEP == 0 || r + i < ROWS)
            copy16(s + chunk_at<D>(r + i, c), g, r + i < valid);
}

/* Who sees whom: key j is seen by query i if it exists, is not after i (causal), and is
 * less than `window` before it (window > 0). */
struct sight {
    int length, causal, window;
};

GPU_INLINE bool sees(const sight &s, int i, int j)
{
    return j < s.length && !(s.causal && j > i) && !(s.window > 0 && i - j >= s.window);
}

/* Of `rows` queries from i0 on and `keys` keys from j0 on: does each see each, or none any?
 */
GPU_INLINE bool sees_all(const sight &s, int i0, int rows, int j0, int keys)
{
    return sees(s, i0, j0 + keys - 1) && sees(s, i0 + rows - 1, j0);
}

GPU_INLINE bool sees_none(const sight &s, int i0, int rows, int j0, int keys)
{
    return j0 >= s.length || i0 >= s.length || (s.causal && j0 > i0 + rows - 1) ||
           (s.window > 0 && i0 - (j0 + keys - 1) >= s.window);
}

/* A warp's sums times f[slot] to columns c0 .. of rows 0 .. valid - 1 of g; columns from d
 * on do not exist. */
template <class P, int COLUMNS>
GPU_INLINE void store_sums(float *g, long ld, int valid, int c0, int d, int w,
                           const float (&x)[COLUMNS / 8][P::E], const float (&f)[2])
{
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
        for (int e = 0; e < P::E; e += 2) {
            int r = P::row(e / 2 % 2), c = c0 + 8 * n + P::column(e);
            float2 v = make_float2(x[n][e] * f[e / 2 % 2], x[n][e + 1] * f[e / 2 % 2]);

            if (r >= valid || c >= d)
                continue;
            if (w)
                *(float2 *)(g + r * ld + c) = v;
            else {
                g[r * ld + c] = v.x;
                if (c + 1 < d)
                    g[r * ld + c + 1] = v.y;
            }
        }
}

/* ---- rounded copies (flash_pack.cu) ---- */

struct flash_copy {
    const float *x; /* (T, heads, d) with token stride ld */
    long ld;
    int heads;
    void *to; /* (T, heads, D) */
};

struct flash_copies {
    flash_copy of[4];
    int n, d, f16;
    long T;
    const float *o; /* not NULL: delta[t, h] = of[3].x . o of that head (stride ld) */
    float *delta;
};

int flash_pack(const flash_copies *c, int D);

/* The least of 32, 64, 128, 256 that holds d. */
static inline int flash_size(int d)
{
    return d <= 32 ? 32 : d <= 64 ? 64 : d <= 128 ? 128 : 256;
}

static inline size_t flash_round(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

/* Call f<P, D>(...) for this device and precision; heads above 128 are not volta's. */
#define FLASH_BY_SIZE(P, D, f, ...)                                                        \
    ((D) == 32    ? f<P, 32>(__VA_ARGS__)                                                  \
     : (D) == 64  ? f<P, 64>(__VA_ARGS__)                                                  \
     : (D) == 128 ? f<P, 128>(__VA_ARGS__)                                                 \
                  : f<P, 256>(__VA_ARGS__))
#define FLASH_BY_SIZE_VOLTA(D, f, ...)                                                     \
    ((D) == 32   ? f<volta, 32>(__VA_ARGS__)                                               \
     : (D) == 64 ? f<volta, 64>(__VA_ARGS__)                                               \
                 : f<volta, 128>(__VA_ARGS__))
#define FLASH_DISPATCH(precision, D, f, ...)                                               \
    ((precision) == PRECISION_BF16 ? FLASH_BY_SIZE(ampere<bf16>, D, f, __VA_ARGS__)        \
     : cuda_capability() >= 75     ? FLASH_BY_SIZE(ampere<__half>, D, f, __VA_ARGS__)      \
                                   : FLASH_BY_SIZE_VOLTA(D, f, __VA_ARGS__))

/* Above 48 KiB of shared memory a kernel must say so. */
template <class K> static int flash_reserve(K kernel, size_t shared)
{
    if (shared <= 48 << 10)
        return 0;
    return cuda_check(cudaFuncSetAttribute((const void *)kernel,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           (int)shared),
                      "shared memory of attention");
}

/* Can attention in this precision run on tensor cores here? */
static inline int flash_serves(enum op_precision precision, int d, float scale)
{
    int capability = cuda_capability();

    if (d > 256 || !(scale > 0))
        return 0;
    if (precision == PRECISION_BF16)
        return capability >= 80;
    return precision == PRECISION_F16 && (capability >= 80 || d <= 128);
}

int flash_forward(const struct attention_args *a);
int flash_backward(const struct attention_backward_args *a);

#endif
