/* Gradients on their way to other ranks: rounded to bf16 and summed in f32, and the rows of
 * a table that are in use packed together. */
#include "kernels/cuda/common.h"

static __global__ void to_wire_kernel(__nv_bfloat16 *to, const float *x, size_t n)
{
    size_t i = (size_t)blockIdx.x * BLOCK + threadIdx.x;

    if (i < n)
        to[i] = __float2bfloat16_rn(x[i]);
}

static __global__ void from_wire_kernel(float *x, const __nv_bfloat16 *from, size_t n)
{
    size_t i = (size_t)blockIdx.x * BLOCK + threadIdx.x;

    if (i < n)
        x[i] = __bfloat162float(from[i]);
}

/* In order of rank. */
static __global__ void sum_wire_kernel(float *x, const __nv_bfloat16 *parts, int world,
                                       size_t n)
{
    size_t i = (size_t)blockIdx.x * BLOCK + threadIdx.x;
    float sum;

    if (i >= n)
        return;
    sum = __bfloat162float(parts[i]);
    for (int r = 1; r < world; r++)
        sum += __bfloat162float(parts[(size_t)r * n + i]);
    x[i] = sum;
}

static __global__ void rows_kernel(float *packed, float *table, const int *id, long rows,
                                   long cols, int back)
{
    long i = (long)blockIdx.x * BLOCK + threadIdx.x, r = i / cols;
    float *own;

    if (r >= rows)
        return;
    own = table + id[r] * cols + i % cols;
    if (back)
        *own = packed[i];
    else
        packed[i] = *own;
}

int cuda_to_wire(void *to, const float *x, size_t n, cudaStream_t s)
{
    if (!n)
        return 0;
    LAUNCH(to_wire_kernel, dim3(blocks((long)n, BLOCK)), dim3(BLOCK), 0, s,
           (__nv_bfloat16 *)to, x, n);
    return cuda_launched("round gradients");
}

int cuda_from_wire(float *x, const void *from, size_t n, cudaStream_t s)
{
    if (!n)
        return 0;
    LAUNCH(from_wire_kernel, dim3(blocks((long)n, BLOCK)), dim3(BLOCK), 0, s, x,
           (const __nv_bfloat16 *)from, n);
    return cuda_launched("widen gradients");
}

int cuda_sum_wire(float *x, const void *parts, int world, size_t n, cudaStream_t s)
{
    if (!n)
        return 0;
    LAUNCH(sum_wire_kernel, dim3(blocks((long)n, BLOCK)), dim3(BLOCK), 0, s, x,
           (const __nv_bfloat16 *)parts, world, n);
    return cuda_launched("sum gradients");
}

int cuda_copy_rows(float *packed, float *table, const int *id, long rows, long cols,
                   int back)
{
    if (!rows || !cols)
        return 0;
    LAUNCH(rows_kernel, dim3(blocks(rows * cols, BLOCK)), dim3(BLOCK), 0, cuda_stream(),
           packed, table, id, rows, cols, back);
    return cuda_launched("pack rows");
}
