/* Embeddings and their sorted gradient, rotary positions, pooling.
 *
 * Sums over tokens (a segment of equal indices, a sequence's mean): a block takes 32
 * columns, eight lanes take every eighth token, and lanes are added in order. */
#include "kernels/cuda/common.h"

enum { COLUMNS = 32, LANES = BLOCK / COLUMNS };

static __global__ void embedding_kernel(embedding_args a, int w)
{
    long groups = (a.D + 3) / 4, i = (long)blockIdx.x * BLOCK + threadIdx.x;
    long t = i / groups, c = i % groups * 4;
    float4 sum = make_float4(0, 0, 0, 0);

    if (t >= a.T)
        return;
#pragma unroll
    for (int n = 0; n < OP_TABLES_MAX; n++)
        if (n < a.n)
            sum = sum + load4(a.table[n] + a.index[n][t] * a.D + c, a.D - c, w);
    store4(a.y + t * a.D + c, sum, a.D - c, w);
}

int cuda_embedding(const struct embedding_args *a)
{
    int rc = cuda_ready(), w = wide(a->D, a->y);
    long n = a->T * ((a->D + 3) / 4);

    if (rc || !n)
        return rc;
    for (int i = 0; i < a->n; i++)
        w = w && wide(a->D, a->table[i]);
    LAUNCH(embedding_kernel, dim3(blocks(n, BLOCK)), dim3(BLOCK), 0, cuda_stream(), *a, w);
    return cuda_launched("embedding");
}

/* The block's sum over its lanes, for lane 0 of each column; all threads call it. */
static GPU_INLINE float lane_sum(float x, float (*part)[COLUMNS])
{
    int tx = threadIdx.x % COLUMNS, ty = threadIdx.x / COLUMNS;

    part[ty][tx] = x;
    __syncthreads();
    for (int i = 1; !ty && i < LANES; i++)
        x += part[i][tx];
    return x;
}

static __global__ void embedding_backward_kernel(embedding_backward_args a)
{
    __shared__ float part[LANES][COLUMNS];
    long c = (long)blockIdx.y * COLUMNS + threadIdx.x % COLUMNS;
    int from = a.start[blockIdx.x], to = a.start[blockIdx.x + 1];
    float sum = 0;

    if (from >= to) /* no segment: so many there may be */
        return;
    for (int i = from + threadIdx.x / COLUMNS; i < to && c < a.D; i += LANES)
        sum += a.dy[a.order[i] * a.D + c];
    sum = lane_sum(sum, part);
    if (threadIdx.x < COLUMNS && c < a.D)
        a.dtable[a.index[a.order[from]] * a.D + c] += sum;
}

int cuda_embedding_backward(const struct embedding_backward_args *a)
{
    int rc = cuda_ready();

    if (rc || !a->n_segments || !a->D)
        return rc;
    LAUNCH(embedding_backward_kernel, dim3((unsigned)a->n_segments, blocks(a->D, COLUMNS)),
           dim3(BLOCK), 0, cuda_stream(), *a);
    return cuda_launched("embedding_backward");
}

/* Far positions: the angle in double, brought below one turn, then in float. */
static GPU_INLINE float2 rotary_at(const rotary_args &a, uint32_t position, int i)
{
    double angle = i < a.rot / 2 ? (double)position * a.freq[i] : 0;
    float s, c;

    angle -= 6.283185307179586 * floor(angle * 0.15915494309189535);
    sincosf((float)angle, &s, &c);
    return make_float2(c, a.inverse ? -s : s);
}

/* Four numbers of a head's first half and their partners in the second; interleaved, where
 * neighbours are partners, two pairs. */
static __global__ void rotary_kernel(rotary_args a, int w)
{
    int half = a.rot / 2, each = a.interleaved ? 2 : 4, groups = (half + each - 1) / each;
    long n = (long)blockIdx.x * BLOCK + threadIdx.x;
    int i = (int)(n % groups) * each;
    long h = n / groups % a.heads, t = n / groups / a.heads;
    float *x = a.x + t * a.ld + h * a.d + (a.interleaved ? 2 * i : i);
    float4 u, v, c, s;
    float2 r[4];

    if (t >= a.T)
        return;
    for (int j = 0; j < each; j++)
        r[j] = rotary_at(a, a.position[t], i + j);
    if (a.interleaved) {
        u = load4(x, a.rot - 2 * i, w);
        v = make_float4(u.x * r[0].x - u.y * r[0].y, u.x * r[0].y + u.y * r[0].x,
                        u.z * r[1].x - u.w * r[1].y, u.z * r[1].y + u.w * r[1].x);
        store4(x, v, a.rot - 2 * i, w);
        return;
    }
    c = make_float4(r[0].x, r[1].x, r[2].x, r[3].x);
    s = make_float4(r[0].y, r[1].y, r[2].y, r[3].y);
    u = load4(x, half - i, w);
    v = load4(x + half, half - i, w);
    store4(x, u * c - v * s, half - i, w);
    store4(x + half, u * s + v * c, half - i, w);
}

int cuda_rotary(const struct rotary_args *a)
{
    int half = a->rot / 2, each = a->interleaved ? 2 : 4, rc = cuda_ready();
    long n = a->T * a->heads * ((half + each - 1) / each);

    if (rc || !n)
        return rc;
    LAUNCH(rotary_kernel, dim3(blocks(n, BLOCK)), dim3(BLOCK), 0, cuda_stream(), *a,
           half % each == 0 && wide(a->d | a->ld, a->x));
    return cuda_launched("rotary");
}

/* *empty: set to the number of an empty sequence (any, when there are several), from -1. */
static __global__ void pool_kernel(pool_args a, int *empty)
{
    __shared__ float part[LANES][COLUMNS];
    long b = blockIdx.x, c = (long)blockIdx.y * COLUMNS + threadIdx.x % COLUMNS;
    int from = a.cu_seqlens[b], to = a.cu_seqlens[b + 1];
    float sum = 0;

    if (to <= from) {
        if (threadIdx.x == 0 && blockIdx.y == 0)
            atomicMax(empty, (int)b);
        return;
    }
    if (a.kind == POOL_FIRST)
        to = from + 1;
    else if (a.kind == POOL_LAST)
        from = to - 1;
    for (int t = from + threadIdx.x / COLUMNS; t < to && c < a.D; t += LANES)
        sum += a.x[t * a.D + c];
    sum = lane_sum(sum, part);
    if (threadIdx.x < COLUMNS && c < a.D)
        a.y[b * a.D + c] = a.kind == POOL_MEAN ? sum / (float)(to - from) : sum;
}

static __global__ void pool_backward_kernel(pool_backward_args a, int *empty)
{
    long b = blockIdx.x, c = (long)blockIdx.y * COLUMNS + threadIdx.x % COLUMNS;
    int from = a.cu_seqlens[b], to = a.cu_seqlens[b + 1];

    if (to <= from) {
        if (threadIdx.x == 0 && blockIdx.y == 0)
            atomicMax(empty, (int)b);
        return;
    }
    for (int t = from + threadIdx.x / COLUMNS; t < to && c < a.D; t += LANES) {
        float g = a.dy[b * a.D + c];

        if (a.kind == POOL_MEAN)
            g /= (float)(to - from);
        else if (a.kind != POOL_SUM && t != (a.kind == POOL_FIRST ? from : to - 1))
            g = 0;
        a.dx[t * a.D + c] = g;
    }
}

static int *new_flag(void)
{
    int *flag = (int *)cuda_scratch(sizeof *flag);

    if (!flag ||
        cuda_check(cudaMemsetAsync(flag, 0xff, sizeof *flag, cuda_stream()), "fill"))
        return nullptr;
    return flag;
}

static int check_flag(const int *flag, const char *op)
{
    int empty = -1, rc = graph_running() ? 0 : cuda_copy_out(&empty, flag, sizeof empty);

    if (!rc && empty >= 0)
        rc = op_fail(ERR_FAILED, "%s: sequence %d is empty", op, empty);
    return rc;
}

int cuda_pool(const struct pool_args *a)
{
    int rc = cuda_ready(), *flag;

    if (rc || !a->B || !a->D)
        return rc;
    flag = new_flag();
    if (!flag)
        return ERR_DEVICE;
    LAUNCH(pool_kernel, dim3((unsigned)a->B, blocks(a->D, COLUMNS)), dim3(BLOCK), 0,
           cuda_stream(), *a, flag);
    rc = cuda_launched("pool");
    return rc ? rc : check_flag(flag, "pool");
}

int cuda_pool_backward(const struct pool_backward_args *a)
{
    int rc = cuda_ready(), *flag;

    if (rc || !a->B || !a->D)
        return rc;
    flag = new_flag();
    if (!flag)
        return ERR_DEVICE;
    LAUNCH(pool_backward_kernel, dim3((unsigned)a->B, blocks(a->D, COLUMNS)), dim3(BLOCK),
           0, cuda_stream(), *a, flag);
    rc = cuda_launched("pool_backward");
    return rc ? rc : check_flag(flag, "pool_backward");
}
