/* Attention's gradient (Dao et al. 2022, section B.2); attention.h has the tiles. With
 * P = exp(scale S - lse), M the dropout factors, delta_i = do_i . o_i:
 *   dV = (P M)^T dO;  dS = P (M dO V^T - delta);  dQ = scale dS K;  dK = scale dS^T Q.
 *
 * Three kernels: delta; dk and dv, where a block owns keys and streams the queries of all
 * heads of its group in order; dq, where a block owns queries and streams keys. Nothing is
 * added across blocks. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/flash.h"

/* One warp a (token, head). */
static __global__ void delta_kernel(attention_backward_args a, float *delta)
{
    long i = (long)blockIdx.x * (BLOCK / WARP) + threadIdx.x / WARP;
    long t = i / a.H, at = t * a.ldo + i % a.H * a.d;
    float sum = 0;

    if (t >= a.T)
        return;
    for (int c = threadIdx.x % WARP; c < a.d; c += WARP)
        sum += a.o[at + c] * a.dout[at + c];
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0)
        delta[i] = sum;
}

/* Block (key tile, kv head). */
template <int D, int R, int N>
static __global__ void __launch_bounds__(THREADS)
    dkdv_kernel(attention_backward_args a, keep k, const float *delta, int w)
{
    constexpr int M = ROW_GROUPS * R, C = N / ROW_LANES, S = D + PAD;
    DYNAMIC_SHARED(float, sk);
    float *sv = sk + M * S, *sq = sv + M * S, *sdo = sq + N * S, *sp = sdo + N * S;
    int ty = threadIdx.x / ROW_LANES, tx = threadIdx.x % ROW_LANES;
    sequence_tile t = find_tile(a.cu_seqlens, (int)a.B, M, blockIdx.x);
    int kv = blockIdx.y, group = a.H / a.K, from = 0, to = t.length;
    int valid = t.length - t.begin;
    float4 dk[R][D / 32], dv[R][D / 32];

    if (valid <= 0)
        return;
    if (a.causal)
        from = t.begin / N * N;
    if (a.window > 0)
        to = min(to, t.begin + M - 1 + a.window);
    clear_rows<D, R>(dk);
    clear_rows<D, R>(dv);
    load_rows<D, M, false>(sk, a.k + (t.start + t.begin) * a.ldk + kv * a.d, a.ldk, valid,
                           a.d, w);
    load_rows<D, M, false>(sv, a.v + (t.start + t.begin) * a.ldv + kv * a.d, a.ldv, valid,
                           a.d, w);
    for (int h = kv * group; h < (kv + 1) * group; h++)
        for (int i0 = from; i0 < to; i0 += N) {
            float s[R][C], g[R][C];
            int j = t.begin + ty * R;

            __syncthreads(); /* the tile before is done with */
            load_rows<D, N, true>(sq, a.q + (t.start + i0) * a.ldq + h * a.d, a.ldq,
                                  t.length - i0, a.d, w);
            load_rows<D, N, true>(sdo, a.dout + (t.start + i0) * a.ldo + h * a.d, a.ldo,
                                  t.length - i0, a.d, w);
            __syncthreads();
            scores<D, R, C>(s, sk, sq);
            scores<D, R, C>(g, sv, sdo);
#pragma unroll
            for (int c = 0; c < C; c++) {
                int i = i0 + tx * C + c;
                long row = t.start + i, at = row * a.H + h;
                float lse = 0, minus = 0;
                float4 f = make_float4(1, 1, 1, 1);

                if (i < t.length) {
                    if (k.on)
                        f = keep_factors(k, row, (uint32_t)(h * 65536 + j / 4));
                    lse = a.lse[at];
                    minus = delta[at];
                }
#pragma unroll
                for (int r = 0; r < R; r++) {
                    bool seen = is_seen(i, j + r, t.length, a.causal, a.window);
                    float p = seen ? expf(s[r][c] * a.scale - lse) : 0;
                    float m = word_of(f, (j + r) % 4);

                    s[r][c] = p * m;
                    g[r][c] = seen ? p * (m * g[r][c] - minus) * a.scale : 0;
                }
            }
            put_weights<R, C>(sp, s);
            add_rows<D, R, N>(dv, sp, sdo);
            put_weights<R, C>(sp, g);
            add_rows<D, R, N>(dk, sp, sq);
        }
    store_rows<D, R>(a.dk + (t.start + t.begin) * a.ldk + kv * a.d, a.ldk, valid, a.d, w,
                     dk);
    store_rows<D, R>(a.dv + (t.start + t.begin) * a.ldv + kv * a.d, a.ldv, valid, a.d, w,
                     dv);
}

/* Block (query tile, head). */
template <int D, int R, int N>
static __global__ void __launch_bounds__(THREADS)
    dq_kernel(attention_backward_args a, keep k, const float *delta, int w)
{
    constexpr int M = ROW_GROUPS * R, C = N / ROW_LANES, S = D + PAD;
    DYNAMIC_SHARED(float, sq);
    float *sdo = sq + M * S, *sk = sdo + M * S, *sv = sk + N * S, *sp = sv + N * S;
    int ty = threadIdx.x / ROW_LANES, tx = threadIdx.x % ROW_LANES;
    sequence_tile t = find_tile(a.cu_seqlens, (int)a.B, M, blockIdx.x);
    int h = blockIdx.y, kv = h / (a.H / a.K), from = 0, to = t.length;
    int valid = t.length - t.begin;
    float lse[R], minus[R];
    float4 dq[R][D / 32];

    if (valid <= 0)
        return;
    if (a.causal)
        to = min(to, t.begin + M);
    if (a.window > 0)
        from = max(0, t.begin - a.window + 1) / N * N;
    clear_rows<D, R>(dq);
    load_rows<D, M, false>(sq, a.q + (t.start + t.begin) * a.ldq + h * a.d, a.ldq, valid,
                           a.d, w);
    load_rows<D, M, false>(sdo, a.dout + (t.start + t.begin) * a.ldo + h * a.d, a.ldo,
                           valid, a.d, w);
#pragma unroll
    for (int r = 0; r < R; r++) {
        long at = (long)(t.start + t.begin + ty * R + r) * a.H + h;

        lse[r] = ty * R + r < valid ? a.lse[at] : 0;
        minus[r] = ty * R + r < valid ? delta[at] : 0;
    }
    for (int j0 = from; j0 < to; j0 += N) {
        float s[R][C], g[R][C];

        __syncthreads(); /* the tile before is done with */
        load_rows<D, N, true>(sk, a.k + (t.start + j0) * a.ldk + kv * a.d, a.ldk,
                              t.length - j0, a.d, w);
        load_rows<D, N, true>(sv, a.v + (t.start + j0) * a.ldv + kv * a.d, a.ldv,
                              t.length - j0, a.d, w);
        __syncthreads();
        scores<D, R, C>(s, sq, sk);
        scores<D, R, C>(g, sdo, sv);
#pragma unroll
        for (int r = 0; r < R; r++) {
            int i = t.begin + ty * R + r, j = j0 + tx * C;
            float4 f = make_float4(1, 1, 1, 1);

            if (k.on && i < t.length)
                f = keep_factors(k, t.start + i, (uint32_t)(h * 65536 + j / 4));
#pragma unroll
            for (int c = 0; c < C; c++) {
                bool seen = is_seen(i, j + c, t.length, a.causal, a.window);
                float p = seen ? expf(s[r][c] * a.scale - lse[r]) : 0;

                s[r][c] =
                    seen ? p * (word_of(f, (j + c) % 4) * g[r][c] - minus[r]) * a.scale : 0;
            }
        }
        put_weights<R, C>(sp, s);
        add_rows<D, R, N>(dq, sp, sk);
    }
    store_rows<D, R>(a.dq + (t.start + t.begin) * a.ldq + h * a.d, a.ldq, valid, a.d, w,
                     dq);
}

template <int D> static int backward(const attention_backward_args &a, float *delta)
{
    constexpr int R = D <= 128 ? 2 : 1, M = ROW_GROUPS * R;
    constexpr int N = D <= 64 ? 32 : D <= 128 ? 16 : 8;
    size_t shared = ((size_t)(2 * M + 2 * N) * (D + PAD) + M * (N + 1)) * sizeof(float);
    int w = wide(a.d | a.ldq | a.ldk | a.ldv | a.ldo, a.q, a.k, a.v, a.dout) &&
            wide(0, a.dq, a.dk, a.dv);
    unsigned tiles = tile_count(a.T, a.B, M);
    keep k = keep_of(a.dropout);
    int rc = reserve(dkdv_kernel<D, R, N>, shared);

    if (!rc)
        rc = reserve(dq_kernel<D, R, N>, shared);
    if (rc)
        return rc;
    LAUNCH(delta_kernel, dim3(blocks(a.T * a.H, BLOCK / WARP)), dim3(BLOCK), 0,
           cuda_stream(), a, delta);
    LAUNCH((dkdv_kernel<D, R, N>), dim3(tiles, (unsigned)a.K), dim3(THREADS), shared,
           cuda_stream(), a, k, (const float *)delta, w);
    LAUNCH((dq_kernel<D, R, N>), dim3(tiles, (unsigned)a.H), dim3(THREADS), shared,
           cuda_stream(), a, k, (const float *)delta, w);
    return cuda_launched("attention_backward");
}

int cuda_attention_backward(const struct attention_backward_args *a)
{
    float *delta;
    int rc = cuda_ready();

    if (rc || !a->T || !a->B)
        return rc;
    if (flash_serves(a->precision, a->d, a->scale))
        return flash_backward(a);
    delta = (float *)cuda_scratch((size_t)(a->T * a->H) * sizeof *delta);
    if (!delta)
        return ERR_NOMEM;
    return BY_HEAD_SIZE(a->d, backward, *a, delta);
}
