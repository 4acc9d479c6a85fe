/* Attention forward on tensor cores (flash.h): o = softmax(scale q k^T + mask) v with
 * running maximum and sum (Dao et al. 2022), in base 2 with the scale in the exponent's
 * factor.
 *
 * K and V have a tile each. While scores are computed, V's next tile is under way; while
 * probabilities meet V, K's is: as much overlap as two tiles of each, in half the memory,
 * which leaves room for a second block on the smaller chips. Statistics are f32; l sums the
 * probabilities before dropout and before they are rounded. */
#include "kernels/cuda/flash.h"

struct forward_args {
    attention_args a;
    keep k;
    const void *q, *key, *v; /* rounded copies */
    int w;
};

/* The tiles of one head size: MT strips of rows a warp, N keys a step. */
template <class P, int D> struct forward_tile {
    enum {
        MT = P::VOLTA || D > 128 ? 1 : 2,
        N = D <= 64 ? 64 : 32,
        M = FLASH_WARPS * MT * P::ROWS,
        SHARED = (M + 2 * N) * D * 2
    };
};

/* Scores of one strip to probabilities; o and l shrink when the maximum grows. */
template <class P, int D, int N>
GPU_INLINE void softmax_step(float (&s)[N / 8][P::E], float (&o)[D / 8][P::E],
                             float (&m)[2], float (&l)[2], float c)
{
#pragma unroll
    for (int slot = 0; slot < 2; slot++) {
        float top = m[slot], base, shrink, sum = 0;

#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int e = 0; e < P::E; e++)
                if (e / 2 % 2 == slot)
                    top = fmaxf(top, s[n][e]);
        top = P::row_max(top);
        base = top == -INFINITY ? 0 : top * c; /* nothing seen yet */
        shrink = exp2_fast(m[slot] * c - base);
        m[slot] = top;
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int e = 0; e < P::E; e++)
                if (e / 2 % 2 == slot) {
                    s[n][e] = exp2_fast(s[n][e] * c - base);
                    sum += s[n][e];
                }
        l[slot] = l[slot] * shrink + sum;
        if (!__any_sync(0xffffffffu, shrink != 1)) /* times 1 changes no bit */
            continue;
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int e = 0; e < P::E; e++)
                if (e / 2 % 2 == slot)
                    o[n][e] *= shrink;
    }
}

/* Block (query tile, head). */
template <class P, int D>
static __global__ void __launch_bounds__(FLASH_THREADS)
    flash_kernel(const __grid_constant__ forward_args p)
{
    if constexpr (P::template HERE<D>) {
        typedef typename P::element T;
        constexpr int MT = forward_tile<P, D>::MT, N = forward_tile<P, D>::N;
        constexpr int M = forward_tile<P, D>::M, E = P::E;
        const attention_args &a = p.a;
        DYNAMIC_SHARED(T, sq);
        T *sk = sq + M * D, *sv = sk + N * D;
        sequence_tile t = find_tile(a.cu_seqlens, (int)a.B, M, gridDim.x - 1 - blockIdx.x);
        int h = blockIdx.y, kv = h / (a.H / a.K), from = 0, to = t.length;
        int strip =
            threadIdx.x / WARP * MT * P::ROWS; /* the warp's first row in the tile */
        int row0 = t.begin + strip;
        long ldq = (long)a.H * D, ldk = (long)a.K * D;
        const T *q = (const T *)p.q + (t.start + t.begin) * ldq + h * D;
        const T *key = (const T *)p.key + t.start * ldk + kv * D;
        const T *v = (const T *)p.v + t.start * ldk + kv * D;
        sight see = {t.length, a.causal, a.window};
        float c = a.scale * FLASH_LOG2E;
        float o[MT][D / 8][E], m[MT][2], l[MT][2];

        if (t.begin >= t.length)
            return;
        if (a.causal)
            to = min(to, t.begin + M);
        if (a.window > 0)
            from = max(0, t.begin - a.window + 1) / N * N;
#pragma unroll
        for (int i = 0; i < MT; i++) {
            clear(o[i]);
            m[i][0] = m[i][1] = -INFINITY;
            l[i][0] = l[i][1] = 0;
        }
        load_tile<D, M>(sq, q, ldq, t.length - t.begin);
        load_tile<D, N>(sk, key + from * ldk, ldk, t.length - from);
        copy_commit();
        for (int j0 = from; j0 < to; j0 += N) {
            bool idle = sees_none(see, row0, MT * P::ROWS, j0, N);
            float s[MT][N / 8][E];

            copy_wait<0>();
            __syncthreads(); /* K is there, V has been used */
            load_tile<D, N>(sv, v + j0 * ldk, ldk, t.length - j0);
            copy_commit();
            if (!idle) {
#pragma unroll
                for (int i = 0; i < MT; i++)
                    clear(s[i]);
#pragma unroll
                for (int k = 0; k < D / 16; k++) {
                    uint32_t x[MT][P::A], y[P::B];

#pragma unroll
                    for (int i = 0; i < MT; i++)
                        P::template load_a<D>(x[i], sq, strip + i * P::ROWS, k);
#pragma unroll
                    for (int n = 0; n < N / 16; n++) {
                        P::template load_rows<D>(y, sk, 16 * n, k);
#pragma unroll
                        for (int i = 0; i < MT; i++)
                            P::template multiply<false>(s[i][2 * n], s[i][2 * n + 1], x[i],
                                                        y);
                    }
                }
                if (!sees_all(see, row0, MT * P::ROWS, j0, N)) {
#pragma unroll
                    for (int i = 0; i < MT; i++)
#pragma unroll
                        for (int n = 0; n < N / 8; n++)
#pragma unroll
                            for (int e = 0; e < E; e++)
                                if (!sees(see, row0 + i * P::ROWS + P::row(e / 2 % 2),
                                          j0 + 8 * n + P::column(e)))
                                    s[i][n][e] = -INFINITY;
                }
#pragma unroll
                for (int i = 0; i < MT; i++)
                    softmax_step<P, D, N>(s[i], o[i], m[i], l[i], c);
                if (p.k.on) {
#pragma unroll
                    for (int i = 0; i < MT; i++)
#pragma unroll
                        for (int n = 0; n < N / 8; n++) {
                            int r = row0 + i * P::ROWS;
                            uint32_t bits =
                                P::kept_across(p.k, t.start + r, t.length - r,
                                               (uint32_t)(h * 65536 + (j0 + 8 * n) / 4));

#pragma unroll
                            for (int e = 0; e < E; e++)
                                s[i][n][e] *= bits >> e & 1 ? p.k.scale : 0;
                        }
                }
            }
            copy_wait<0>();
            __syncthreads(); /* V is there, K has been used */
            if (j0 + N < to) {
                load_tile<D, N>(sk, key + (j0 + N) * ldk, ldk, t.length - j0 - N);
                copy_commit();
            }
            if (idle)
                continue;
#pragma unroll
            for (int k = 0; k < N / 16; k++) {
                uint32_t x[MT][P::A], y[P::B];

#pragma unroll
                for (int i = 0; i < MT; i++)
                    P::turn_a(x[i], s[i][2 * k], s[i][2 * k + 1]);
#pragma unroll
                for (int n = 0; n < D / 16; n++) {
                    P::template load_columns<D>(y, sv, k, 16 * n);
#pragma unroll
                    for (int i = 0; i < MT; i++)
                        P::template multiply<true>(o[i][2 * n], o[i][2 * n + 1], x[i], y);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < MT; i++) {
            int r = row0 + i * P::ROWS;
            float f[2];

#pragma unroll
            for (int slot = 0; slot < 2; slot++) {
                int at = r + P::row(slot);

                l[i][slot] = P::row_sum(l[i][slot]);
                f[slot] = 1 / l[i][slot];
                if (a.lse && P::column(0) == 0 && at < t.length)
                    a.lse[(long)(t.start + at) * a.H + h] =
                        (m[i][slot] * c + log2f(l[i][slot])) * FLASH_LN2;
            }
            store_sums<P, D>(a.o + (t.start + r) * a.ldo + h * a.d, a.ldo, t.length - r, 0,
                             a.d, p.w, o[i], f);
        }
    }
}

template <class P, int D> static int forward(const forward_args &p)
{
    size_t shared = forward_tile<P, D>::SHARED;
    int rc = flash_reserve(flash_kernel<P, D>, shared);

    if (rc)
        return rc;
    LAUNCH((flash_kernel<P, D>),
           dim3(tile_count(p.a.T, p.a.B, forward_tile<P, D>::M), (unsigned)p.a.H),
           dim3(FLASH_THREADS), shared, cuda_stream(), p);
    return cuda_launched("attention");
}

int flash_forward(const struct attention_args *a)
{
    int D = flash_size(a->d), rc;
    size_t q = flash_round((size_t)(a->T * a->H * D) * 2);
    size_t kv = flash_round((size_t)(a->T * a->K * D) * 2);
    char *copy = (char *)cuda_scratch(q + 2 * kv);
    flash_copies c = {{{a->q, a->ldq, a->H, copy},
                       {a->k, a->ldk, a->K, copy + q},
                       {a->v, a->ldv, a->K, copy + q + kv}},
                      3,
                      a->d,
                      a->precision == PRECISION_F16,
                      a->T,
                      nullptr,
                      nullptr};
    forward_args p = {*a,
                      keep_of(a->dropout),
                      copy,
                      copy + q,
                      copy + q + kv,
                      a->d % 2 == 0 && a->ldo % 2 == 0 && (uintptr_t)a->o % 8 == 0};

    if (!copy)
        return ERR_NOMEM;
    rc = flash_pack(&c, D);
    return rc ? rc : FLASH_DISPATCH(a->precision, D, forward, p);
}
