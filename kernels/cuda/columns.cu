/* Sums down columns (columns.h). A block takes 32 columns of one chunk of rows: eight lanes
 * of rows each, added in lane order through shared memory. */
#include "kernels/cuda/columns.h"

#include "kernels/cuda/common.h"

enum { COLUMNS = 32, LANES = BLOCK / COLUMNS, CHUNK = 128 };

struct column_sums {
    const float *x;               /* (N,D): rows of `heads` to a stride of ld */
    const float *s, *mean, *rstd; /* norm: what x is multiplied with, or NULL */
    long N, D, heads, ld;
    const float *pre; /* (N,D), not NULL: x times act'(pre) is summed, and stored to dx */
    int act;
    float *dx;            /* may be x */
    float *plain, *times; /* (chunks, D) partial sums, or NULL */
};

static __global__ void partial_sums(column_sums p)
{
    __shared__ float part[2][LANES][COLUMNS];
    int tx = threadIdx.x % COLUMNS, ty = threadIdx.x / COLUMNS;
    long c = (long)blockIdx.x * COLUMNS + tx, first = (long)blockIdx.y * CHUNK;
    long last = min(p.N, first + CHUNK);
    float plain = 0, times = 0;

    for (long r = first + ty; r < last && c < p.D; r += LANES) {
        float x = p.x[r / p.heads * p.ld + r % p.heads * p.D + c];

        if (p.pre) {
            x *= act_slope(p.act, p.pre[r * p.D + c]);
            p.dx[r * p.D + c] = x;
        }
        plain += x;
        if (p.s)
            times += x * ((p.s[r * p.D + c] - (p.mean ? p.mean[r] : 0)) * p.rstd[r]);
    }
    part[0][ty][tx] = plain;
    part[1][ty][tx] = times;
    __syncthreads();
    if (ty || c >= p.D)
        return;
    for (int i = 1; i < LANES; i++) {
        plain += part[0][i][tx];
        times += part[1][i][tx];
    }
    if (p.plain)
        p.plain[blockIdx.y * p.D + c] = plain;
    if (p.times)
        p.times[blockIdx.y * p.D + c] = times;
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
    p.D = p.ld = D;
    p.heads = 1;
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
    p.D = p.ld = a->D;
    p.heads = 1;
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
    p.D = p.ld = a->D;
    p.heads = 1;
    return sum_columns(p, a->db, a->dw);
}

int columns_head_norm(const struct head_norm_backward_args *a)
{
    column_sums p = {};

    p.x = a->dx;
    p.s = a->saved;
    p.rstd = a->rstd;
    p.N = a->T * a->heads;
    p.D = a->d;
    p.heads = a->heads;
    p.ld = a->ld;
    return sum_columns(p, nullptr, a->dw);
}
