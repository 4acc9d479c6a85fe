/* Attention forward over packed sequences (Dao et al. 2022): o = softmax(scale q k^T +
 * mask) v with running maximum and sum, no score matrix in memory; attention.h has the
 * tiles. Dropout acts on the probabilities, not on their sum. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/flash.h"

/* Block (query tile, head). */
template <int D, int R, int N>
static __global__ void __launch_bounds__(THREADS)
    attention_kernel(attention_args a, keep k, int w)
{
    constexpr int M = ROW_GROUPS * R, C = N / ROW_LANES, S = D + PAD;
    DYNAMIC_SHARED(float, sq);
    float *sk = sq + M * S, *sv = sk + N * S, *sp = sv + N * S;
    int ty = threadIdx.x / ROW_LANES, tx = threadIdx.x % ROW_LANES;
    sequence_tile t = find_tile(a.cu_seqlens, (int)a.B, M, blockIdx.x);
    int h = blockIdx.y, kv = h / (a.H / a.K), from = 0, to = t.length;
    float m[R], l[R], p[R][C];
    float4 o[R][D / 32];

    if (t.begin >= t.length)
        return;
    if (a.causal)
        to = min(to, t.begin + M);
    if (a.window > 0)
        from = max(0, t.begin - a.window + 1) / N * N;
    clear_rows<D, R>(o);
#pragma unroll
    for (int r = 0; r < R; r++) {
        m[r] = -INFINITY;
        l[r] = 0;
    }
    load_rows<D, M, false>(sq, a.q + (t.start + t.begin) * a.ldq + h * a.d, a.ldq,
                           t.length - t.begin, a.d, w);
    for (int j0 = from; j0 < to; j0 += N) {
        __syncthreads(); /* the tile before is done with */
        load_rows<D, N, true>(sk, a.k + (t.start + j0) * a.ldk + kv * a.d, a.ldk,
                              t.length - j0, a.d, w);
        load_rows<D, N, true>(sv, a.v + (t.start + j0) * a.ldv + kv * a.d, a.ldv,
                              t.length - j0, a.d, w);
        __syncthreads();
        scores<D, R, C>(p, sq, sk);
#pragma unroll
        for (int r = 0; r < R; r++) {
            int i = t.begin + ty * R + r, j = j0 + tx * C;
            float top = m[r], base, shrink;
            float4 f = make_float4(1, 1, 1, 1);

#pragma unroll
            for (int c = 0; c < C; c++) {
                bool seen = is_seen(i, j + c, t.length, a.causal, a.window);

                p[r][c] = seen ? p[r][c] * a.scale : -INFINITY;
                top = fmaxf(top, p[r][c]);
            }
#pragma unroll
            for (int bits = 1; bits < ROW_LANES; bits *= 2)
                top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, bits));
            if (k.on && i < t.length)
                f = keep_factors(k, t.start + i, (uint32_t)(h * 65536 + j / 4));
            base = top == -INFINITY ? 0 : top; /* nothing seen yet */
            shrink = expf(m[r] - base);
            m[r] = top;
            l[r] *= shrink;
#pragma unroll
            for (int c = 0; c < C; c++) {
                p[r][c] = expf(p[r][c] - base);
                l[r] += p[r][c];
                p[r][c] *= word_of(f, (j + c) % 4);
            }
#pragma unroll
            for (int q = 0; q < D / 32; q++)
                o[r][q] = o[r][q] * make_float4(shrink, shrink, shrink, shrink);
        }
        put_weights<R, C>(sp, p);
        add_rows<D, R, N>(o, sp, sv);
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
        int i = t.begin + ty * R + r;
        float f;

#pragma unroll
        for (int bits = 1; bits < ROW_LANES; bits *= 2)
            l[r] += __shfl_xor_sync(0xffffffffu, l[r], bits);
        f = 1 / l[r];
#pragma unroll
        for (int q = 0; q < D / 32; q++)
            o[r][q] = o[r][q] * make_float4(f, f, f, f);
        if (a.lse && tx == 0 && i < t.length)
            a.lse[(long)(t.start + i) * a.H + h] = m[r] + logf(l[r]);
    }
    store_rows<D, R>(a.o + (t.start + t.begin) * a.ldo + h * a.d, a.ldo, t.length - t.begin,
                     a.d, w, o);
}

template <int D> static int forward(const attention_args &a)
{
    constexpr int R = D <= 64 ? 4 : D <= 128 ? 2 : 1;
    constexpr int N = D <= 128 ? 32 : 16, M = ROW_GROUPS * R;
    size_t shared = ((size_t)(M + 2 * N) * (D + PAD) + M * (N + 1)) * sizeof(float);
    int rc = reserve(attention_kernel<D, R, N>, shared);
    int w = wide(a.d | a.ldq | a.ldk | a.ldv | a.ldo, a.q, a.k, a.v, a.o);

    if (rc)
        return rc;
    LAUNCH((attention_kernel<D, R, N>), dim3(tile_count(a.T, a.B, M), (unsigned)a.H),
           dim3(THREADS), shared, cuda_stream(), a, keep_of(a.dropout), w);
    return cuda_launched("attention");
}

int cuda_attention(const struct attention_args *a)
{
    int rc = cuda_ready();

    if (rc || !a->T || !a->B)
        return rc;
    if (flash_serves(a->precision, a->d, a->scale))
        return flash_forward(a);
    return BY_HEAD_SIZE(a->d, forward, *a);
}
