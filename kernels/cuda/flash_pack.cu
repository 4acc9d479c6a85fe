/* q, k, v and do rounded to two bytes for attention on tensor cores (flash.h), padded with
 * zeros to the tile's head size, in one launch; with do also delta = do . o of each head,
 * from the unrounded values (Dao et al. 2022, section B.2). D / 8 threads a head. */
#include "kernels/cuda/flash.h"

template <class T, int D>
static __global__ void __launch_bounds__(BLOCK) pack_kernel(flash_copies c, int w)
{
    constexpr int LANES = D / 8;
    flash_copy f = c.of[blockIdx.y];
    long i = ((long)blockIdx.x * BLOCK + threadIdx.x) / LANES;
    long t = i / f.heads, at = t * f.ld + i % f.heads * c.d;
    int col = threadIdx.x % LANES * 8, left = c.d - col;
    bool valid = t < c.T;
    float4 x = make_float4(0, 0, 0, 0), y = x;

    if (valid && left > 0)
        x = load4(f.x + at + col, left, w);
    if (valid && left > 4)
        y = load4(f.x + at + col + 4, left - 4, w);
    if (valid) {
        uint4 v = make_uint4(pack2<T>(x.x, x.y), pack2<T>(x.z, x.w), pack2<T>(y.x, y.y),
                             pack2<T>(y.z, y.w));

        *(uint4 *)((T *)f.to + i * D + col) = v;
    }
    if (blockIdx.y == 3) {
        float sum = 0;

        if (valid && left > 0) {
            float4 o = load4(c.o + at + col, left, w);

            sum += x.x * o.x + x.y * o.y + x.z * o.z + x.w * o.w;
        }
        if (valid && left > 4) {
            float4 o = load4(c.o + at + col + 4, left - 4, w);

            sum += y.x * o.x + y.y * o.y + y.z * o.z + y.w * o.w;
        }
#pragma unroll
        for (int bits = LANES / 2; bits; bits /= 2)
            sum += __shfl_xor_sync(0xffffffffu, sum, bits);
        if (valid && threadIdx.x % LANES == 0)
            c.delta[i] = sum;
    }
}

template <class T, int D> static int pack(const flash_copies &c, long heads, int w)
{
    LAUNCH((pack_kernel<T, D>), dim3(blocks(c.T * heads, BLOCK / (D / 8)), (unsigned)c.n),
           dim3(BLOCK), 0, cuda_stream(), c, w);
    return cuda_launched("attention");
}

int flash_pack(const flash_copies *c, int D)
{
    long heads = 0;
    int w = c->d % 4 == 0 && wide(0, c->o);

    for (int i = 0; i < c->n; i++) {
        heads = c->of[i].heads > heads ? c->of[i].heads : heads;
        w = w && wide(c->of[i].ld, c->of[i].x);
    }
    return c->f16 ? FLASH_BY_SIZE(__half, D, pack, *c, heads, w)
                  : FLASH_BY_SIZE(bf16, D, pack, *c, heads, w);
}
