/* Before and after a matrix product: operands rounded to bf16 or f16; c = act(c + bias),
 * and the value before the activation where backward wants it, in place, one pass. */
#include "kernels/cuda/common.h"

static __global__ void epilogue_kernel(matmul_args a, int w)
{
    long groups = (a.N + 3) / 4, i = (long)blockIdx.x * BLOCK + threadIdx.x;
    long m = i / groups, n = i % groups * 4, left = a.N - n, at = m * a.ldc + n;
    float4 x;

    if (m >= a.M)
        return;
    x = load4(a.c + at, left, w);
    if (a.bias)
        x = x + load4(a.bias + n, left, w);
    if (a.pre)
        store4(a.pre + at, x, left, w);
    x = make_float4(act_value(a.act, x.x), act_value(a.act, x.y), act_value(a.act, x.z),
                    act_value(a.act, x.w));
    store4(a.c + at, x, left, w);
}

int cuda_epilogue(const struct matmul_args *a)
{
    int w = a->N % 4 == 0 && wide(a->ldc, a->c, a->bias, a->pre);

    LAUNCH(epilogue_kernel, dim3(blocks(a->M * ((a->N + 3) / 4), BLOCK)), dim3(BLOCK), 0,
           cuda_stream(), *a, w);
    return cuda_launched("epilogue");
}

template <class T> static GPU_INLINE T rounded(float x);
template <> GPU_INLINE __nv_bfloat16 rounded<__nv_bfloat16>(float x)
{
    return __float2bfloat16_rn(x);
}
template <> GPU_INLINE float rounded<float>(float x)
{
    return __bfloat162float(__float2bfloat16_rn(x));
}

template <> GPU_INLINE __half rounded<__half>(float x)
{
    return __float2half_rn(x);
}

template <class T>
static __global__ void round_kernel(T *to, long ld_to, const float *x, long ld, long rows,
                                    long cols)
{
    long i = (long)blockIdx.x * BLOCK + threadIdx.x, r = i / cols, c = i % cols;

    if (r < rows)
        to[r * ld_to + c] = rounded<T>(x[r * ld + c]);
}

template <class T>
static void launch_round(T *to, long ld_to, const float *x, long ld, long rows, long cols)
{
    LAUNCH(round_kernel<T>, dim3(blocks(rows * cols, BLOCK)), dim3(BLOCK), 0, cuda_stream(),
           to, ld_to, x, ld, rows, cols);
}

int cuda_round(void *to, long ld_to, enum cuda_operand type, const float *x, long ld,
               long rows, long cols)
{
    if (!rows || !cols)
        return 0;
    if (type == OPERAND_BF16)
        launch_round((__nv_bfloat16 *)to, ld_to, x, ld, rows, cols);
    else if (type == OPERAND_F16)
        launch_round((__half *)to, ld_to, x, ld, rows, cols);
    else
        launch_round((float *)to, ld_to, x, ld, rows, cols);
    return cuda_launched("round operands");
}
