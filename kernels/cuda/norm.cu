/* s = dropout(x) + residual; y = norm(s) w + b, and its gradient (Ba et al. 2016; Zhang &
 * Sennrich 2019). With u = (s - mean) rstd and g = dy w:
 *   ds = rstd (g - mean(g) - u mean(g u)) + dsum,  dresidual = ds,  dx = dropout'(ds).
 *
 * A warp takes a row of up to WARP_COLUMNS columns, a block a longer one; in backward such
 * a warp also sums dw and db, longer rows are read once more for them. The variance is
 * two-pass. Every thread reads and writes its own columns, so outputs may lie in inputs.
 * The norm of heads (RMS, in place, what it read is saved) takes a warp a head. */
#include "kernels/cuda/common.h"

#include "kernels/cuda/columns.h"

enum { WARP_COLUMNS = 1024 };
enum { GROUPS = WARP_COLUMNS / 4 / WARP, STRIP = 64 }; /* rows of a block, in backward */

/* The sum over the row's threads: a warp, or the block. */
template <int THREADS> static __device__ float row_sum(float x)
{
    if (THREADS == WARP)
        return warp_sum(x);
    __shared__ float part[BLOCK_WARPS];
    return block_sum(x, part);
}

static GPU_INLINE float square_sum(float4 v, float mean, long left)
{
    float sum = (v.x - mean) * (v.x - mean);

    if (left > 1)
        sum += (v.y - mean) * (v.y - mean);
    if (left > 2)
        sum += (v.z - mean) * (v.z - mean);
    if (left > 3)
        sum += (v.w - mean) * (v.w - mean);
    return sum;
}

template <int THREADS> static __global__ void norm_kernel(norm_args a, keep k, int w)
{
    long r = (long)blockIdx.x * (BLOCK / THREADS) + threadIdx.x / THREADS, D = a.D;
    int lane = threadIdx.x % THREADS;
    const float *s = (a.sum ? a.sum : a.x) + r * D;
    float mean = 0, square = 0, rstd;

    if (r >= a.N)
        return;
    for (long c = 4 * lane; c < D; c += 4 * THREADS) {
        float4 v = load4(a.x + r * D + c, D - c, w);

        if (k.on)
            v = v * keep_factors(k, r, (uint32_t)(c / 4));
        if (a.residual)
            v = v + load4(a.residual + r * D + c, D - c, w);
        if (a.sum)
            store4(a.sum + r * D + c, v, D - c, w);
        mean += v.x + v.y + v.z + v.w;
    }
    mean = a.kind == NORM_LAYER ? row_sum<THREADS>(mean) / (float)D : 0;
    for (long c = 4 * lane; c < D; c += 4 * THREADS)
        square += square_sum(load4(s + c, D - c, w), mean, D - c);
    rstd = 1 / sqrtf(row_sum<THREADS>(square) / (float)D + a.eps);
    for (long c = 4 * lane; c < D; c += 4 * THREADS) {
        float4 v = load4(s + c, D - c, w), g = load4(a.w + c, D - c, w);
        float4 b = a.b ? load4(a.b + c, D - c, w) : make_float4(0, 0, 0, 0);

        v = make_float4((v.x - mean) * rstd, (v.y - mean) * rstd, (v.z - mean) * rstd,
                        (v.w - mean) * rstd);
        store4(a.y + r * D + c, v * g + b, D - c, w);
    }
    if (lane)
        return;
    if (a.kind == NORM_LAYER)
        a.mean[r] = mean;
    a.rstd[r] = rstd;
}

int cuda_norm(const struct norm_args *a)
{
    int rc = cuda_ready(), w;

    if (!a->sum && (a->residual || a->dropout.p > 0))
        return op_fail(ERR_FAILED, "norm: a residual or dropout needs room for the sum");
    if (rc || !a->N || !a->D)
        return rc;
    w = wide(a->D, a->x, a->residual, a->w, a->b) && wide(a->D, a->sum, a->y);
    if (a->D <= WARP_COLUMNS)
        LAUNCH(norm_kernel<WARP>, dim3(blocks(a->N, BLOCK / WARP)), dim3(BLOCK), 0,
               cuda_stream(), *a, keep_of(a->dropout), w);
    else
        LAUNCH(norm_kernel<BLOCK>, dim3((unsigned)a->N), dim3(BLOCK), 0, cuda_stream(), *a,
               keep_of(a->dropout), w);
    return cuda_launched("norm");
}

/* A block a row. */
static __global__ void norm_backward_kernel(norm_backward_args a, keep k, int w)
{
    long r = blockIdx.x, D = a.D;
    int lane = threadIdx.x;
    float mean, rstd, mg = 0, mgu = 0;

    mean = a.kind == NORM_LAYER ? a.mean[r] : 0;
    rstd = a.rstd[r];
    for (long c = 4 * lane; c < D; c += 4 * BLOCK) {
        float4 g = load4(a.dy + r * D + c, D - c, w) * load4(a.w + c, D - c, w);
        float4 s = load4(a.sum + r * D + c, D - c, w);

        mg += g.x + g.y + g.z + g.w;
        mgu += (g.x * (s.x - mean) + g.y * (s.y - mean) + g.z * (s.z - mean) +
                g.w * (s.w - mean)) *
               rstd;
    }
    mg = a.kind == NORM_LAYER ? row_sum<BLOCK>(mg) / (float)D : 0;
    mgu = row_sum<BLOCK>(mgu) / (float)D;
    for (long c = 4 * lane; c < D; c += 4 * BLOCK) {
        float4 g = load4(a.dy + r * D + c, D - c, w) * load4(a.w + c, D - c, w);
        float4 s = load4(a.sum + r * D + c, D - c, w);
        float4 d = make_float4(rstd * (g.x - mg - (s.x - mean) * rstd * mgu),
                               rstd * (g.y - mg - (s.y - mean) * rstd * mgu),
                               rstd * (g.z - mg - (s.z - mean) * rstd * mgu),
                               rstd * (g.w - mg - (s.w - mean) * rstd * mgu));

        if (a.dsum)
            d = d + load4(a.dsum + r * D + c, D - c, w);
        if (a.dresidual)
            store4(a.dresidual + r * D + c, d, D - c, w);
        if (k.on)
            d = d * keep_factors(k, r, (uint32_t)(c / 4));
        if (a.dx)
            store4(a.dx + r * D + c, d, D - c, w);
    }
}

static GPU_INLINE float sum4(float4 v)
{
    return v.x + v.y + v.z + v.w;
}

/* The same with the sums of dw and db, for rows that fit a warp's registers: dy and s are
 * read once. A block takes STRIP rows, warp i of them i, i + 8, ...; its partial sums are
 * added in order of warps and go to dw[block], db[block] (either may be NULL). */
static __global__ void __launch_bounds__(BLOCK)
    norm_strip_kernel(norm_backward_args a, keep k, int w, float *dw, float *db)
{
    __shared__ float4 part[2][WARP_COLUMNS / 4];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    long first = (long)blockIdx.x * STRIP, last = min(a.N, first + STRIP), D = a.D;
    float4 sw[GROUPS], sb[GROUPS];

#pragma unroll
    for (int j = 0; j < GROUPS; j++)
        sw[j] = sb[j] = make_float4(0, 0, 0, 0);
    for (long r = first + warp; r < last; r += BLOCK_WARPS) {
        float mean = a.kind == NORM_LAYER ? a.mean[r] : 0, rstd = a.rstd[r];
        float mg = 0, mgu = 0;
        float4 g[GROUPS], u[GROUPS];

#pragma unroll
        for (int j = 0; j < GROUPS; j++) {
            long c = 4 * (lane + j * WARP), left = D - c;

            g[j] = u[j] = make_float4(0, 0, 0, 0);
            if (left <= 0)
                continue;
            g[j] = load4(a.dy + r * D + c, left, w);
            u[j] = (load4(a.sum + r * D + c, left, w) - mean) * rstd;
            sb[j] = sb[j] + g[j];
            sw[j] = sw[j] + g[j] * u[j];
            g[j] = g[j] * load4(a.w + c, left, w); /* beyond the row: 0 */
            mg += sum4(g[j]);
            mgu += sum4(g[j] * u[j]);
        }
        mg = a.kind == NORM_LAYER ? warp_sum(mg) / (float)D : 0;
        mgu = warp_sum(mgu) / (float)D;
#pragma unroll
        for (int j = 0; j < GROUPS; j++) {
            long c = 4 * (lane + j * WARP), left = D - c;
            float4 d = ((g[j] - mg) + u[j] * -mgu) * rstd;

            if (left <= 0)
                continue;
            if (a.dsum)
                d = d + load4(a.dsum + r * D + c, left, w);
            if (a.dresidual)
                store4(a.dresidual + r * D + c, d, left, w);
            if (k.on)
                d = d * keep_factors(k, r, (uint32_t)(c / 4));
            if (a.dx)
                store4(a.dx + r * D + c, d, left, w);
        }
    }
    for (int i = 0; i < BLOCK_WARPS; i++) {
#pragma unroll
        for (int j = 0; j < GROUPS; j++)
            if (warp == i) {
                int c = lane + j * WARP;

                part[0][c] = i ? part[0][c] + sw[j] : sw[j];
                part[1][c] = i ? part[1][c] + sb[j] : sb[j];
            }
        __syncthreads();
    }
    for (long c = 4 * threadIdx.x; c < D; c += 4 * BLOCK) {
        if (dw)
            store4(dw + blockIdx.x * D + c, part[0][c / 4], D - c, D % 4 == 0);
        if (db)
            store4(db + blockIdx.x * D + c, part[1][c / 4], D - c, D % 4 == 0);
    }
}

static int norm_strips(const norm_backward_args *a)
{
    long strips = (a->N + STRIP - 1) / STRIP;
    int rc, w = wide(a->D, a->dy, a->dsum, a->sum, a->w) && wide(a->D, a->dx, a->dresidual);
    float *dw = (float *)cuda_scratch((size_t)(2 * strips * a->D) * sizeof *dw);
    float *db = dw + strips * a->D;

    if (!dw)
        return ERR_NOMEM;
    LAUNCH(norm_strip_kernel, dim3((unsigned)strips), dim3(BLOCK), 0, cuda_stream(), *a,
           keep_of(a->dropout), w, a->dw ? dw : nullptr, a->db ? db : nullptr);
    rc = cuda_launched("norm_backward");
    if (!rc && a->dw)
        rc = columns_finish(dw, strips, a->D, a->dw);
    if (!rc && a->db)
        rc = columns_finish(db, strips, a->D, a->db);
    return rc;
}

int cuda_norm_backward(const struct norm_backward_args *a)
{
    int rc = cuda_ready(), w;

    if (rc || !a->N || !a->D)
        return rc;
    if ((a->dx || a->dresidual) && a->D <= WARP_COLUMNS)
        return norm_strips(a);
    rc = columns_norm(a); /* first: dx may lie in dy */
    if (rc || (!a->dx && !a->dresidual))
        return rc;
    w = wide(a->D, a->dy, a->dsum, a->sum, a->w) && wide(a->D, a->dx, a->dresidual);
    LAUNCH(norm_backward_kernel, dim3((unsigned)a->N), dim3(BLOCK), 0, cuda_stream(), *a,
           keep_of(a->dropout), w);
    return cuda_launched("norm_backward");
}

/* Heads go to HEAD_COLUMNS columns, as in attention; a warp a head. */
enum { HEAD_COLUMNS = 256, HEAD_GROUPS = HEAD_COLUMNS / 4 / WARP };

static GPU_INLINE float *head_at(float *x, long ld, int heads, int d, long r)
{
    return x + r / heads * ld + r % heads * d;
}

static __global__ void head_norm_kernel(head_norm_args a, int w)
{
    long r = (long)blockIdx.x * BLOCK_WARPS + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP;
    float *x = head_at(a.x, a.ld, a.heads, a.d, r), square = 0, rstd;
    float4 v[HEAD_GROUPS];

    if (r >= a.T * a.heads)
        return;
#pragma unroll
    for (int j = 0; j < HEAD_GROUPS; j++) {
        int c = 4 * (lane + j * WARP), left = a.d - c;

        v[j] = load4(x + c, left, w && left > 0);
        store4(a.saved + r * a.d + c, v[j], left, w && left > 0);
        square += sum4(v[j] * v[j]);
    }
    rstd = 1 / sqrtf(warp_sum(square) / (float)a.d + a.eps);
#pragma unroll
    for (int j = 0; j < HEAD_GROUPS; j++) {
        int c = 4 * (lane + j * WARP), left = a.d - c;

        store4(x + c, v[j] * rstd * load4(a.w + c, left, w && left > 0), left,
               w && left > 0);
    }
    if (lane == 0)
        a.rstd[r] = rstd;
}

static int heads_fit(int d)
{
    if (d <= HEAD_COLUMNS)
        return 0;
    return op_fail(ERR_UNSUPPORTED, "norm of heads of %d, more than %d", d, HEAD_COLUMNS);
}

int cuda_head_norm(const struct head_norm_args *a)
{
    long rows = a->T * a->heads;
    int rc = cuda_ready();

    if (!rc)
        rc = heads_fit(a->d);
    if (rc || !rows)
        return rc;
    LAUNCH(head_norm_kernel, dim3(blocks(rows, BLOCK_WARPS)), dim3(BLOCK), 0, cuda_stream(),
           *a, wide(a->d | a->ld, a->x, a->w, a->saved));
    return cuda_launched("head_norm");
}

/* As norm_strip_kernel: a block takes STRIP heads; its sums for dw go to dw[block]. */
static __global__ void head_norm_strip_kernel(head_norm_backward_args a, int w, float *dw)
{
    __shared__ float4 part[HEAD_COLUMNS / 4];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    long first = (long)blockIdx.x * STRIP, last = min(a.T * a.heads, first + STRIP);
    float4 sw[HEAD_GROUPS];

#pragma unroll
    for (int j = 0; j < HEAD_GROUPS; j++)
        sw[j] = make_float4(0, 0, 0, 0);
    for (long r = first + warp; r < last; r += BLOCK_WARPS) {
        float *dx = head_at(a.dx, a.ld, a.heads, a.d, r), rstd = a.rstd[r], mgu = 0;
        float4 g[HEAD_GROUPS], u[HEAD_GROUPS];

#pragma unroll
        for (int j = 0; j < HEAD_GROUPS; j++) {
            int c = 4 * (lane + j * WARP), left = a.d - c;

            g[j] = load4(dx + c, left, w && left > 0);
            u[j] = load4(a.saved + r * a.d + c, left, w && left > 0) * rstd;
            sw[j] = sw[j] + g[j] * u[j];
            g[j] = g[j] * load4(a.w + c, left, w && left > 0);
            mgu += sum4(g[j] * u[j]);
        }
        mgu = warp_sum(mgu) / (float)a.d;
#pragma unroll
        for (int j = 0; j < HEAD_GROUPS; j++) {
            int c = 4 * (lane + j * WARP), left = a.d - c;

            store4(dx + c, (g[j] + u[j] * -mgu) * rstd, left, w && left > 0);
        }
    }
    for (int i = 0; i < BLOCK_WARPS; i++) {
#pragma unroll
        for (int j = 0; j < HEAD_GROUPS; j++)
            if (warp == i) {
                int c = lane + j * WARP;

                part[c] = i ? part[c] + sw[j] : sw[j];
            }
        __syncthreads();
    }
    if (dw && 4 * (int)threadIdx.x < a.d)
        store4(dw + blockIdx.x * (long)a.d + 4 * threadIdx.x, part[threadIdx.x],
               a.d - 4 * (int)threadIdx.x, a.d % 4 == 0);
}

int cuda_head_norm_backward(const struct head_norm_backward_args *a)
{
    long rows = a->T * a->heads, strips = (rows + STRIP - 1) / STRIP;
    int rc = cuda_ready();
    float *dw = nullptr;

    if (!rc)
        rc = heads_fit(a->d);
    if (rc || !rows)
        return rc;
    if (a->dw && !(dw = (float *)cuda_scratch((size_t)(strips * a->d) * sizeof *dw)))
        return ERR_NOMEM;
    LAUNCH(head_norm_strip_kernel, dim3((unsigned)strips), dim3(BLOCK), 0, cuda_stream(),
           *a, wide(a->d | a->ld, a->dx, a->w, a->saved), dw);
    rc = cuda_launched("head_norm_backward");
    return rc || !dw ? rc : columns_finish(dw, strips, a->d, a->dw);
}
