/* What attention forward and backward share: tiles in shared memory and their products,
 * f32.
 *
 * A block of 128 threads owns a tile of rows (queries, or in the gradient of k and v keys)
 * and streams the other side past it in tiles of N rows. Thread (ty, tx) of 16 x 8 has R
 * owned rows, ty * R and on; of a score tile their C = N / 8 columns tx * C and on, which
 * are neighbours, so that one Philox call serves four; and of an output row the columns
 * 32 j + 4 tx and on. Row r of a streamed tile lies in slot (r % C) * 8 + r / C: the eight
 * lanes of a row then read from different banks. The heads' d columns are padded with zeros
 * to D, rows past the end of the sequence are zeros. Tiles fit into the 64 KiB that a block
 * may have on sm_75. */
#ifndef KERNELS_CUDA_ATTENTION_H
#define KERNELS_CUDA_ATTENTION_H

#include "kernels/cuda/common.h"

enum { THREADS = 128, ROW_LANES = 8, ROW_GROUPS = THREADS / ROW_LANES };
enum { PAD = 4 }; /* floats between the rows of a tile */

/* Rows 0 .. ROWS - 1 of g to a tile; rows from `valid` on are zeros. SLOTS: streamed. */
template <int D, int ROWS, bool SLOTS>
static __device__ void load_rows(float *s, const float *g, long ld, int valid, int d, int w)
{
    constexpr int C = ROWS / ROW_LANES;

    for (int i = threadIdx.x; i < ROWS * D / 4; i += THREADS) {
        int r = i / (D / 4), c = i % (D / 4) * 4;
        int slot = SLOTS ? r % C * ROW_LANES + r / C : r;
        float4 v = make_float4(0, 0, 0, 0);

        if (r < valid && c < d)
            v = load4(g + r * ld + c, d - c, w);
        *(float4 *)(s + slot * (D + PAD) + c) = v;
    }
}

/* s[r][c] = owned row r times streamed row c. */
template <int D, int R, int C>
static __device__ void scores(float (&s)[R][C], const float *owned, const float *streamed)
{
    constexpr int S = (D + PAD);
    const float *x = owned + threadIdx.x / ROW_LANES * R * S;
    const float *y = streamed + threadIdx.x % ROW_LANES * S;

#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int c = 0; c < C; c++)
            s[r][c] = 0;
#pragma unroll(D > 128 ? 1 : 2)
    for (int k = 0; k < D; k += 4) {
        float4 a[R];

#pragma unroll
        for (int r = 0; r < R; r++)
            a[r] = *(const float4 *)(x + r * S + k);
#pragma unroll
        for (int c = 0; c < C; c++) {
            float4 b = *(const float4 *)(y + c * ROW_LANES * S + k);

#pragma unroll
            for (int r = 0; r < R; r++)
                s[r][c] += a[r].x * b.x + a[r].y * b.y + a[r].z * b.z + a[r].w * b.w;
        }
    }
}

/* Hands a thread's weights of the streamed rows to the lanes of its rows. */
template <int R, int C> static __device__ void put_weights(float *p, const float (&s)[R][C])
{
    constexpr int P = C * ROW_LANES + 1;
    float *row = p + threadIdx.x / ROW_LANES * R * P + threadIdx.x % ROW_LANES;

    __syncwarp(); /* what p held has been read */
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int c = 0; c < C; c++)
            row[r * P + c * ROW_LANES] = s[r][c];
    __syncwarp();
}

/* out[r] += sum over streamed rows of weight times row. */
template <int D, int R, int N>
static __device__ void add_rows(float4 (&out)[R][D / 32], const float *p,
                                const float *streamed)
{
    const float *row = p + threadIdx.x / ROW_LANES * R * (N + 1);
    const float *y = streamed + threadIdx.x % ROW_LANES * 4;

#pragma unroll(D > 128 ? 1 : 2)
    for (int n = 0; n < N; n++) {
        float weight[R];

#pragma unroll
        for (int r = 0; r < R; r++)
            weight[r] = row[r * (N + 1) + n];
#pragma unroll
        for (int j = 0; j < D / 32; j++) {
            float4 v = *(const float4 *)(y + n * (D + PAD) + 32 * j);

#pragma unroll
            for (int r = 0; r < R; r++) {
                out[r][j].x += weight[r] * v.x;
                out[r][j].y += weight[r] * v.y;
                out[r][j].z += weight[r] * v.z;
                out[r][j].w += weight[r] * v.w;
            }
        }
    }
}

template <int D, int R> static __device__ void clear_rows(float4 (&x)[R][D / 32])
{
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int j = 0; j < D / 32; j++)
            x[r][j] = make_float4(0, 0, 0, 0);
}

/* The thread's part of its rows to g; rows from `valid` on do not exist. */
template <int D, int R>
static __device__ void store_rows(float *g, long ld, int valid, int d, int w,
                                  const float4 (&x)[R][D / 32])
{
    int first = threadIdx.x / ROW_LANES * R, c0 = threadIdx.x % ROW_LANES * 4;

#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int j = 0; j < D / 32; j++) {
            int c = 32 * j + c0;

            if (first + r < valid && c < d)
                store4(g + (first + r) * ld + c, x[r][j], d - c, w);
        }
}

GPU_INLINE float word_of(float4 f, int i)
{
    return i == 0 ? f.x : i == 1 ? f.y : i == 2 ? f.z : f.w;
}

/* Is key j of the sequence seen by query i? */
GPU_INLINE bool is_seen(int i, int j, int length, int causal, int window)
{
    return i < length && j < length && !(causal && j > i) &&
           !(window > 0 && i - j >= window);
}

/* Above 48 KiB of shared memory a kernel must say so. */
template <class K> static int reserve(K kernel, size_t shared)
{
    if (shared <= 48 << 10)
        return 0;
    return cuda_check(cudaFuncSetAttribute((const void *)kernel,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           (int)shared),
                      "shared memory of attention");
}

/* Call f<D> with the least D that holds d. */
#define BY_HEAD_SIZE(d, f, ...)                                                            \
    ((d) <= 32    ? f<32>(__VA_ARGS__)                                                     \
     : (d) <= 64  ? f<64>(__VA_ARGS__)                                                     \
     : (d) <= 128 ? f<128>(__VA_ARGS__)                                                    \
     : (d) <= 256 ? f<256>(__VA_ARGS__)                                                    \
                  : op_fail(ERR_UNSUPPORTED, "attention: head size %d is above 256", d))

#endif
