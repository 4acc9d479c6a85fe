/* Sums down columns (columns.h). A block takes 32 columns of one chunk of rows: eight
 * groups of four columns, 32 lanes of rows each, added in lane order through shared memory.
 */
#include "kernels/cuda/columns.h"

#include "kernels/cuda/common.h"

enum { COLUMNS = 32, LANES = BLOCK / COLUMNS, CHUNK = 128 };
enum { GROUPS = COLUMNS / 4, ROWS = BLOCK / GROUPS };

struct column_sums {
    const float *x;               /* (N,D) */
    const float *s, *mean, *rstd; /* norm: what x is multiplied with, or NULL */
    long N, D;
    const float *pre; /* (N,D), not NULL: x times act'(pre) is summed, and stored to dx */
    int act, w;
    float *dx;            /* may be x */
    float *plain, *times; /* (chunks, D) partial sums, or NULL */
};

/* The lanes of each column in order; by one warp, a column a thread. */
static GPU_INLINE void add_lanes(const float4 (*part)[GROUPS], long D, float *out)
{
    long c = (long)blockIdx.x * COLUMNS + threadIdx.x;
    const float *from = (const float *)part + threadIdx.x;
    float sum = from[0];

    for (int i = 1; i < ROWS; i++)
        sum += from[i * COLUMNS];
    if (c < D)
        out[blockIdx.y * D + c] = sum;
}

static __global__ void partial_sums(column_sums p)
{
    __shared__ float4 part[2][ROWS][GROUPS];
    int tx = threadIdx.x % GROUPS, ty = threadIdx.x / GROUPS;
    long c = (long)blockIdx.x * COLUMNS + 4 * tx, first = (long)blockIdx.y * CHUNK;
    long last = min(p.N, first + CHUNK), left = p.D - c;
    float4 plain = make_float4(0, 0, 0, 0), times = plain;

    for (long r = first + ty; r < last && left > 0; r += ROWS) {
        float4 x = load4(p.x + r * p.D + c, left, p.w);

        if (p.pre) {
            x = x * act_slope4(p.act, load4(p.pre + r * p.D + c, left, p.w));
            store4(p.dx + r * p.D + c, x, left, p.w);
        }
        plain = plain + x;
        if (p.s)
            times = times +
                    x * ((load4(p.s + r * p.D + c, left, p.w) - (p.mean ? p.mean[r] : 0)) *
                         p.rstd[r]);
    }
    part[0][ty][tx] = plain;
    part[1][ty][tx] = times;
    __syncthreads();
    if (threadIdx.x >= COLUMNS)
        return;
    if (p.plain)
        add_lanes(part[0], p.D, p.plain);
    if (p.times)
        add_lanes(part[1], p.D, p.times);
}

/* A block takes 32 columns; lane y of eight adds chunks y, y + 8, ... */
static __global__ void add_partial(const float *partial, long chunks, long D, float *out)
{
    __shared__ float part[LANES][COLUMNS];
    int tx = threadIdx.x % COLUMNS, ty = threadIdx.x / COLUMNS;
    long c = (long)blockIdx.x * COLUMNS + tx;
    float sum = 0;

    for (long i = ty; i < chunks && c < D; i += LANES)
        sum += partial[i * D + c];
    part[ty][tx] = sum;
    __syncthreads();
    if (ty || c >= D)
        return;
    for (int i = 1; i < LANES; i++)
        sum += part[i][tx];
    out[c] += sum;
}

int columns_finish(const float *partial, long chunks, long D, float *out)
{
    LAUNCH(add_partial, dim3(blocks(D, COLUMNS)), dim3(BLOCK), 0, cuda_stream(), partial,
           chunks, D, out);
    return cuda_launched("column sums");
}

static int sum_columns(column_sums p, float *plain, float *times)
{
    long chunks = (p.N + CHUNK - 1) / CHUNK;
    float *partial;
    int rc;

    if (!p.N || !p.D || (!plain && !times))
        return 0;
    p.w = wide(p.D, p.x, p.s, p.pre, p.dx);
    if (chunks > 65535)
        return op_fail(ERR_UNSUPPORTED, "%ld rows in one operator", p.N);
    partial = (float *)cuda_scratch((size_t)(2 * chunks * p.D) * sizeof *partial);
    if (!partial)
        return ERR_NOMEM;
    p.plain = plain ? partial : nullptr;
    p.times = times ? partial + chunks * p.D : nullptr;
    LAUNCH(partial_sums, dim3(blocks(p.D, COLUMNS), (unsigned)chunks), dim3(BLOCK), 0,
           cuda_stream(), p);
    rc = cuda_launched("column sums");
    if (!rc && plain)
        rc = columns_finish(p.plain, chunks, p.D, plain);
    if (!rc && times)
        rc = columns_finish(p.times, chunks, p.D, times);
    return rc;
}

int columns_add(const float *x, long N, long D, float *out)
{
    column_sums p = {};

    p.x = x;
    p.N = N;
    p.D = D;
    return sum_columns(p, out, nullptr);
}

int columns_act(const struct act_backward_args *a)
{
    column_sums p = {};

    p.x = a->dy;
    p.pre = a->x;
    p.act = a->act;
    p.dx = a->dx;
    p.N = a->N;
    p.D = a->D;
    return sum_columns(p, a->dbias, nullptr);
}

int columns_norm(const struct norm_backward_args *a)
{
    column_sums p = {};

    p.x = a->dy;
    p.s = a->sum;
    p.mean = a->kind == NORM_LAYER ? a->mean : nullptr;
    p.rstd = a->rstd;
    p.N = a->N;
    p.D = a->D;
    return sum_columns(p, a->db, a->dw);
}
