/* Attention's gradient on tensor cores (flash.h; Dao et al. 2022, section B.2). With
 * P = exp(scale S - lse), M the dropout factors, delta_i = do_i . o_i:
 *   dV = (P M)^T dO;  dS = P (M dO V^T - delta);  dQ = scale dS K;  dK = scale dS^T Q.
 *
 * Two kernels. dk and dv: a block owns keys and streams the queries of all heads of its
 * group in order, with scores transposed (keys down, queries across), so that P^T and dS^T
 * come out as the left side of their products. dq: a block owns queries and streams keys.
 * Nothing is added across blocks, so the scores are computed twice: 7 products for 5.
 *
 * What a block owns lies in registers where they suffice, else in shared memory; what
 * streams past has two tiles, one under way while the other is used. With WC = 2 warps
 * work in pairs on the same rows: both compute the scores, each sums half of the columns.
 */
#include "kernels/cuda/flash.h"

struct backward_args {
    attention_backward_args a;
    keep k;
    const void *q, *key, *v, *dout; /* rounded copies */
    const float *delta;
    int w;
};

template <class P, int D> struct backward_tile {
    enum {
        WC = D > (P::VOLTA ? 64 : 128) ? 2 : 1,
        N = D > (P::VOLTA ? 32 : 128) ? 16 : 32,
        M = FLASH_WARPS / WC * P::ROWS,
        COLUMNS = D / WC,
        /* Is the first (k, q), the second (v, do) of what is owned in registers? */
        KEY_REGISTERS = !P::VOLTA && D <= 64,
        V_REGISTERS = !P::VOLTA && D <= 128,
        Q_REGISTERS = V_REGISTERS,
        DKDV_SHARED = ((2 - KEY_REGISTERS - V_REGISTERS) * M + 4 * N) * D * 2 + 16 * N,
        DQ_SHARED = ((2 - 2 * Q_REGISTERS) * M + 4 * N) * D * 2
    };
};

/* What a warp owns of one operand, as the left side of products: its strip of ROWS rows
 * from `strip` on of the block's tile. */
template <class P, int D, bool REGISTERS> struct owned {
    typedef typename P::element T;
    uint32_t a[REGISTERS ? D / 16 : 1][P::A];
    const T *tile;
    int strip;

    /* s: room for the tile, where it is not in registers; returns what comes behind it. */
    template <int M> GPU_INLINE T *start(T *s, const T *g, long ld, int valid, int first)
    {
        strip = first;
        tile = s;
        if constexpr (REGISTERS) {
#pragma unroll
            for (int k = 0; k < D / 16; k++)
                P::fetch_a(a[k], g + first * ld, ld, valid - first, k);
            return s;
        } else {
            load_tile<D, M>(s, g, ld, valid);
            return s + M * D;
        }
    }
    /* c (ROWS, N) = its rows times those of y. */
    template <int N> GPU_INLINE void times(float (&c)[N / 8][P::E], const T *y)
    {
        clear(c);
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
            uint32_t b[P::B];

            if constexpr (!REGISTERS)
                P::template load_a<D>(a[0], tile, strip, k);
#pragma unroll
            for (int n = 0; n < N / 16; n++) {
                P::template load_rows<D>(b, y, 16 * n, k);
                P::template multiply<false>(c[2 * n], c[2 * n + 1], a[REGISTERS ? k : 0],
                                            b);
            }
        }
    }
};

/* c (ROWS, COLUMNS) += x (ROWS, N) times columns c0 .. of y (N, D). */
template <class P, int D, int N, int COLUMNS>
GPU_INLINE void add_product(float (&c)[COLUMNS / 8][P::E], const float (&x)[N / 8][P::E],
                            const typename P::element *y, int c0)
{
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
        uint32_t a[P::A], b[P::B];

        P::turn_a(a, x[2 * k], x[2 * k + 1]);
#pragma unroll
        for (int n = 0; n < COLUMNS / 16; n++) {
            P::template load_columns<D>(b, y, k, c0 + 16 * n);
            P::template multiply<true>(c[2 * n], c[2 * n + 1], a, b);
        }
    }
}

/* Block (key tile, kv head). */
template <class P, int D>
static __global__ void __launch_bounds__(FLASH_THREADS)
    flash_dkdv_kernel(const __grid_constant__ backward_args p)
{
    if constexpr (P::template HERE<D>) {
        typedef typename P::element T;
        typedef backward_tile<P, D> tile;
        constexpr int N = tile::N, M = tile::M, E = P::E, COLUMNS = tile::COLUMNS;
        const attention_backward_args &a = p.a;
        DYNAMIC_SHARED(T, shared);
        sequence_tile t = find_tile(a.cu_seqlens, (int)a.B, M, blockIdx.x);
        int kv = blockIdx.y, group = a.H / a.K, from = 0, to = t.length;
        int warp = threadIdx.x / WARP, strip = warp / tile::WC * P::ROWS;
        int row0 = t.begin + strip, c0 = warp % tile::WC * COLUMNS;
        long ldq = (long)a.H * D, ldk = (long)a.K * D;
        sight see = {t.length, a.causal, a.window};
        float c = a.scale * FLASH_LOG2E, dk[COLUMNS / 8][E], dv[COLUMNS / 8][E];
        owned<P, D, tile::KEY_REGISTERS> key;
        owned<P, D, tile::V_REGISTERS> value;

        if (t.begin >= t.length)
            return;
        if (a.causal)
            from = t.begin / N * N;
        if (a.window > 0)
            to = min(to, t.begin + M - 1 + a.window);
        T *sq = key.template start<M>(shared,
                                      (const T *)p.key + (t.start + t.begin) * ldk + kv * D,
                                      ldk, t.length - t.begin, strip);
        sq =
            value.template start<M>(sq, (const T *)p.v + (t.start + t.begin) * ldk + kv * D,
                                    ldk, t.length - t.begin, strip);
        T *sdo = sq + 2 * N * D; /* two of sq, sdo, sl, sd */
        float *sl = (float *)(sdo + 2 * N * D), *sd = sl + 2 * N;
        int next_h = kv * group, next_i = from, half = 0; /* what is loaded next, whereto */
        auto load = [&]() {
            long at = (t.start + next_i) * ldq + next_h * D;

            load_tile<D, N>(sq + half * N * D, (const T *)p.q + at, ldq, t.length - next_i);
            load_tile<D, N>(sdo + half * N * D, (const T *)p.dout + at, ldq,
                            t.length - next_i);
            copy_commit();
            if (threadIdx.x < N) {
                int i = next_i + threadIdx.x;
                long row = (long)(t.start + i) * a.H + next_h;

                /* no probability past the end */
                sl[half * N + threadIdx.x] =
                    i < t.length ? a.lse[row] * FLASH_LOG2E : INFINITY;
                sd[half * N + threadIdx.x] = i < t.length ? p.delta[row] : 0;
            }
            half ^= 1;
            next_i += N;
            if (next_i >= to) {
                next_i = from;
                next_h++;
            }
        };
        load();
        clear(dk);
        clear(dv);
        int h = kv * group, i0 = from;
        for (; h < (kv + 1) * group; i0 + N < to ? i0 += N : (h++, i0 = from)) {
            const T *qj = sq + (half ^ 1) * N * D, *doj = sdo + (half ^ 1) * N * D;
            const float *lj = sl + (half ^ 1) * N, *dj = sd + (half ^ 1) * N;
            float s[N / 8][E], g[N / 8][E];
            uint32_t kept = ~0u; /* E bits a strip */

            copy_wait<0>();
            __syncthreads(); /* the tile is there, the one before has been used */
            if (next_h < (kv + 1) * group)
                load();
            if (sees_none(see, i0, N, row0, P::ROWS))
                continue;
            key.template times<N>(s, qj);
            if (p.k.on) {
                kept = 0;
#pragma unroll
                for (int n = 0; n < N / 8; n++)
                    kept |= P::kept_down(p.k, t.start + i0 + 8 * n, t.length - i0 - 8 * n,
                                         (uint32_t)(h * 65536 + row0 / 4))
                            << n * E;
            }
            bool all = sees_all(see, i0, N, row0, P::ROWS);
#pragma unroll
            for (int n = 0; n < N / 8; n++) {
#pragma unroll
                for (int e = 0; e < E; e++) {
                    int i = 8 * n + P::column(e);

                    s[n][e] = exp2_fast(s[n][e] * c - lj[i]);
                    if (!all && !sees(see, i0 + i, row0 + P::row(e / 2 % 2)))
                        s[n][e] = 0;
                    if (p.k.on)
                        g[n][e] = kept >> (n * E + e) & 1 ? s[n][e] * p.k.scale : 0;
                    else
                        g[n][e] = s[n][e];
                }
            }
            add_product<P, D, N, COLUMNS>(dv, g, doj, c0);
            value.template times<N>(g, doj);
#pragma unroll
            for (int n = 0; n < N / 8; n++)
#pragma unroll
                for (int e = 0; e < E; e++) {
                    float f = p.k.on ? (kept >> (n * E + e) & 1 ? p.k.scale : 0) : 1;

                    s[n][e] *= f * g[n][e] - dj[8 * n + P::column(e)];
                }
            add_product<P, D, N, COLUMNS>(dk, s, qj, c0);
        }
        float one[2] = {1, 1}, scale[2] = {a.scale, a.scale};
        long at = t.start + row0;
        store_sums<P, COLUMNS>(a.dk + at * a.ldk + kv * a.d, a.ldk, t.length - row0, c0,
                               a.d, p.w, dk, scale);
        store_sums<P, COLUMNS>(a.dv + at * a.ldv + kv * a.d, a.ldv, t.length - row0, c0,
                               a.d, p.w, dv, one);
    }
}

/* Block (query tile, head). */
template <class P, int D>
static __global__ void __launch_bounds__(FLASH_THREADS)
    flash_dq_kernel(const __grid_constant__ backward_args p)
{
    if constexpr (P::template HERE<D>) {
        typedef typename P::element T;
        typedef backward_tile<P, D> tile;
        constexpr int N = tile::N, M = tile::M, E = P::E, COLUMNS = tile::COLUMNS;
        const attention_backward_args &a = p.a;
        DYNAMIC_SHARED(T, shared);
        sequence_tile t = find_tile(a.cu_seqlens, (int)a.B, M, gridDim.x - 1 - blockIdx.x);
        int h = blockIdx.y, kv = h / (a.H / a.K), from = 0, to = t.length;
        int warp = threadIdx.x / WARP, strip = warp / tile::WC * P::ROWS;
        int row0 = t.begin + strip, c0 = warp % tile::WC * COLUMNS;
        long ldq = (long)a.H * D, ldk = (long)a.K * D;
        sight see = {t.length, a.causal, a.window};
        float c = a.scale * FLASH_LOG2E, lse[2], delta[2], dq[COLUMNS / 8][E];
        owned<P, D, tile::Q_REGISTERS> query, dout;

        if (t.begin >= t.length)
            return;
        if (a.causal)
            to = min(to, t.begin + M);
        if (a.window > 0)
            from = max(0, t.begin - a.window + 1) / N * N;
        long at = (t.start + t.begin) * ldq + h * D, kv_at = t.start * ldk + kv * D;
        T *sk = query.template start<M>(shared, (const T *)p.q + at, ldq,
                                        t.length - t.begin, strip);
        sk = dout.template start<M>(sk, (const T *)p.dout + at, ldq, t.length - t.begin,
                                    strip);
        T *sv = sk + 2 * N * D; /* two of sk, sv */
        auto load = [&](int j0) {
            int half = j0 / N % 2;

            load_tile<D, N>(sk + half * N * D, (const T *)p.key + kv_at + j0 * ldk, ldk,
                            t.length - j0);
            load_tile<D, N>(sv + half * N * D, (const T *)p.v + kv_at + j0 * ldk, ldk,
                            t.length - j0);
            copy_commit();
        };
        load(from);
#pragma unroll
        for (int slot = 0; slot < 2; slot++) {
            int i = row0 + P::row(slot);
            long row = (long)(t.start + i) * a.H + h;

            lse[slot] = i < t.length ? a.lse[row] * FLASH_LOG2E : INFINITY;
            delta[slot] = i < t.length ? p.delta[row] : 0;
        }
        clear(dq);
        for (int j0 = from; j0 < to; j0 += N) {
            const T *kj = sk + j0 / N % 2 * N * D, *vj = sv + j0 / N % 2 * N * D;
            float s[N / 8][E], g[N / 8][E];

            copy_wait<0>();
            __syncthreads(); /* the tile is there, the one before has been used */
            if (j0 + N < to)
                load(j0 + N);
            if (sees_none(see, row0, P::ROWS, j0, N))
                continue;
            query.template times<N>(s, kj);
            dout.template times<N>(g, vj);
            bool all = sees_all(see, row0, P::ROWS, j0, N);
#pragma unroll
            for (int n = 0; n < N / 8; n++) {
                uint32_t kept = ~0u;

                if (p.k.on)
                    kept = P::kept_across(p.k, t.start + row0, t.length - row0,
                                          (uint32_t)(h * 65536 + (j0 + 8 * n) / 4));
#pragma unroll
                for (int e = 0; e < E; e++) {
                    int slot = e / 2 % 2;
                    float f = p.k.on ? (kept >> e & 1 ? p.k.scale : 0) : 1;
                    float x = exp2_fast(s[n][e] * c - lse[slot]);

                    if (!all && !sees(see, row0 + P::row(slot), j0 + 8 * n + P::column(e)))
                        x = 0;
                    s[n][e] = x * (f * g[n][e] - delta[slot]);
                }
            }
            add_product<P, D, N, COLUMNS>(dq, s, kj, c0);
        }
        float scale[2] = {a.scale, a.scale};
        store_sums<P, COLUMNS>(a.dq + (long)(t.start + row0) * a.ldq + h * a.d, a.ldq,
                               t.length - row0, c0, a.d, p.w, dq, scale);
    }
}

template <class P, int D> static int backward(const backward_args &p)
{
    typedef backward_tile<P, D> tile;
    unsigned tiles = tile_count(p.a.T, p.a.B, tile::M);
    int rc = flash_reserve(flash_dkdv_kernel<P, D>, tile::DKDV_SHARED);

    if (!rc)
        rc = flash_reserve(flash_dq_kernel<P, D>, tile::DQ_SHARED);
    if (rc)
        return rc;
    LAUNCH((flash_dkdv_kernel<P, D>), dim3(tiles, (unsigned)p.a.K), dim3(FLASH_THREADS),
           tile::DKDV_SHARED, cuda_stream(), p);
    LAUNCH((flash_dq_kernel<P, D>), dim3(tiles, (unsigned)p.a.H), dim3(FLASH_THREADS),
           tile::DQ_SHARED, cuda_stream(), p);
    return cuda_launched("attention_backward");
}

static bool even(const void *p, long ld)
{
    return (uintptr_t)p % 8 == 0 && ld % 2 == 0;
}

int flash_backward(const struct attention_backward_args *a)
{
    int D = flash_size(a->d), rc;
    size_t q = flash_round((size_t)(a->T * a->H * D) * 2);
    size_t kv = flash_round((size_t)(a->T * a->K * D) * 2);
    size_t sums = (size_t)(a->T * a->H) * sizeof(float);
    char *copy = (char *)cuda_scratch(2 * q + 2 * kv + sums);
    char *key = copy + q, *v = key + kv, *dout = v + kv;
    float *delta = (float *)(dout + q);
    flash_copies c = {{{a->q, a->ldq, a->H, copy},
                       {a->k, a->ldk, a->K, key},
                       {a->v, a->ldv, a->K, v},
                       {a->dout, a->ldo, a->H, dout}},
                      4,
                      a->d,
                      a->precision == PRECISION_F16,
                      a->T,
                      a->o,
                      delta};
    int w = even(a->dq, a->ldq) && even(a->dk, a->ldk) && even(a->dv, a->ldv);
    backward_args p = {*a,    keep_of(a->dropout), copy, key, v, dout,
                       delta, w && a->d % 2 == 0};

    if (!copy)
        return ERR_NOMEM;
    rc = flash_pack(&c, D);
    return rc ? rc : FLASH_DISPATCH(a->precision, D, backward, p);
}
