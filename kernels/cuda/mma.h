/* What kernels for tensor cores are made of: one function for each piece of inline PTX,
 * with both forms (gpu.h). tests/cuda_emu/test_emu.cu holds each against plain loops; the
 * form for a GPU must agree with the "Matrix Fragments" figures of the PTX ISA, which is
 * what the emulated form follows. mma_*, ldmatrix and cp_async are for sm_80 and up, wmma_*
 * for sm_70 and up. */
#ifndef KERNELS_CUDA_MMA_H
#define KERNELS_CUDA_MMA_H

#include "kernels/cuda/gpu.h"

#ifndef HONE_CUDA_EMU
#include <mma.h>
#endif

typedef __nv_bfloat16 bf16;

#ifdef HONE_CUDA_EMU
namespace emu
{

struct mma_arg {
    float *d;
    const uint32_t *a, *b;
};

template <class T> float half_of(const uint32_t *r, int i)
{
    typename std::conditional<std::is_same<T, __half>::value, __half_raw,
                              __nv_bfloat16_raw>::type raw;
    raw.x = (unsigned short)(r[i / 2] >> 16 * (i % 2));
    return (float)T(raw);
}

/* mma.m16n8k16, "Matrix Fragments for mma.m16n8k16" in the PTX ISA: lane = 4 g + t holds
 * a: (g, 2t) (g, 2t+1) | (g+8, ..) | (g, 2t+8 ..) | (g+8, 2t+8 ..), b: (2t, g) (2t+1, g) |
 * (2t+8, g) .., d: (g, 2t) (g, 2t+1) (g+8, ..) .. */
template <class T> void do_mma(fiber *lanes, unsigned who)
{
    static float A[16][16], B[16][8], C[16][8];
    if (who != ~0u)
        fail(lanes[__builtin_ctz(who)].file, lanes[__builtin_ctz(who)].line,
             "mma needs all 32 lanes of the warp");
    count.mma++;
    for (int l = 0; l < 32; l++) {
        const mma_arg *m = (const mma_arg *)lanes[l].arg;
        int g = l / 4, t = l % 4;
        for (int i = 0; i < 8; i++)
            A[g + i / 2 % 2 * 8][2 * t + i % 2 + i / 4 * 8] = half_of<T>(m->a, i);
        for (int i = 0; i < 4; i++)
            B[2 * t + i % 2 + i / 2 * 8][g] = half_of<T>(m->b, i);
    }
    for (int i = 0; i < 16; i++) {
        float row[8] = {};
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++)
                row[j] += A[i][k] * B[k][j];
        memcpy(C[i], row, sizeof row);
    }
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++)
            ((mma_arg *)lanes[l].arg)->d[i] += C[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2];
}

struct ldmatrix_arg {
    uint32_t *r;
    const void *p;
};

template <int N, bool TRANS> void do_ldmatrix(fiber *lanes, unsigned who)
{
    const fiber &f = lanes[__builtin_ctz(who)];
    uint16_t m[N][8][8];
    if (who != ~0u)
        fail(f.file, f.line, "ldmatrix needs all 32 lanes of the warp");
    for (int i = 0; i < N; i++) {
        unsigned banks[8] = {};
        for (int row = 0; row < 8; row++) {
            const void *p = ((ldmatrix_arg *)lanes[8 * i + row].arg)->p;
            if (!is_shared(p, 16) || (uintptr_t)p % 16)
                fail(f.file, f.line,
                     "ldmatrix: row %d of matrix %d, %p: not shared memory, or not aligned "
                     "to 16 bytes",
                     row, i, p);
            touch(lanes[8 * i + row].thread, p, 16, false, f.file, f.line);
            memcpy(m[i][row], p, 16);
            banks[(uintptr_t)p / 16 % 8]++;
        }
        count.ldmatrix++;
        count.bank_conflicts += *std::max_element(banks, banks + 8) - 1;
    }
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < N; i++) {
            int g = l / 4, t = l % 4;
            uint16_t lo = TRANS ? m[i][2 * t][g] : m[i][g][2 * t],
                     hi = TRANS ? m[i][2 * t + 1][g] : m[i][g][2 * t + 1];
            ((ldmatrix_arg *)lanes[l].arg)->r[i] = lo | (uint32_t)hi << 16;
        }
}

} // namespace emu
#endif

/* D += A B for one warp: 16x8 += 16x16 16x8, f32 sums */
GPU_INLINE void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], EMU_AT)
{
#ifdef HONE_CUDA_EMU
    emu::mma_arg m = {d, a, b};
    emu::warp_op("mma bf16", ~0u, true, &m, emu::do_mma<__nv_bfloat16>, file, line);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

GPU_INLINE void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2], EMU_AT)
{
#ifdef HONE_CUDA_EMU
    emu::mma_arg m = {d, a, b};
    emu::warp_op("mma f16", ~0u, true, &m, emu::do_mma<__half>, file, line);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/* N (1, 2, 4) 8x8 matrices of 16-bit elements from shared memory; lane 8 i + r gives the
 * address of row r of matrix i. */
template <int N, bool TRANS = false>
GPU_INLINE void ldmatrix(uint32_t r[N], const void *p, EMU_AT)
{
#ifdef HONE_CUDA_EMU
    emu::ldmatrix_arg a = {r, p};
    emu::warp_op(TRANS ? "ldmatrix.trans" : "ldmatrix", ~0u, true, &a,
                 emu::do_ldmatrix<N, TRANS>, file, line);
#else
    uint32_t s = (uint32_t)__cvta_generic_to_shared(p);
    if constexpr (N == 4 && TRANS)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(s)
                     : "memory");
    else if constexpr (N == 4)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(s)
                     : "memory");
    else if constexpr (N == 2 && TRANS)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                     : "=r"(r[0]), "=r"(r[1])
                     : "r"(s)
                     : "memory");
    else if constexpr (N == 2)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                     : "=r"(r[0]), "=r"(r[1])
                     : "r"(s)
                     : "memory");
    else if constexpr (TRANS)
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                     : "=r"(r[0])
                     : "r"(s)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                     : "=r"(r[0])
                     : "r"(s)
                     : "memory");
#endif
}

/* Copy 16 bytes from global to shared memory without registers; zeros instead where valid
 * is false (from must still be an address). */
GPU_INLINE void cp_async16(void *to, const void *from, bool valid, EMU_AT)
{
#ifdef HONE_CUDA_EMU
    emu::copy_async(to, from, 16, valid ? 16 : 0, file, line);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
#endif
}

GPU_INLINE void cp_async_commit()
{
#ifdef HONE_CUDA_EMU
    emu::copy_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Wait until at most LEFT of this thread's groups are under way. Other threads see the data
 * after the next barrier. */
template <int LEFT> GPU_INLINE void cp_async_wait(EMU_AT)
{
#ifdef HONE_CUDA_EMU
    emu::copy_wait(LEFT, file, line);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}

/* Two floats as a register of two bf16, the first in the low half. */
GPU_INLINE uint32_t pack_bf16(float lo, float hi)
{
    __nv_bfloat162 x = __floats2bfloat162_rn(lo, hi);
    uint32_t r;
    memcpy(&r, &x, 4);
    return r;
}

/* 16x16x16 by the older wmma instructions (GPUs before sm_80: f16 only). The layout of a
 * fragment is the compiler's secret. */
#ifdef HONE_CUDA_EMU
struct wmma_f16 {
    __half v[8];
};
struct wmma_f32 {
    float v[8]; /* element 8 lane + i of the row-major tile */
};
namespace emu
{
struct wmma_arg {
    float *d;
    const __half *a, *b;
};
inline void do_wmma(fiber *lanes, unsigned who)
{
    if (who != ~0u)
        fail(lanes[__builtin_ctz(who)].file, lanes[__builtin_ctz(who)].line,
             "wmma needs all 32 lanes of the warp");
    auto at = [&](int i) { return (wmma_arg *)lanes[i / 8].arg; };
    count.mma += 2;
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            float s = 0;
            for (int k = 0; k < 16; k++)
                s += (float)at(16 * m + k)->a[k % 8] * (float)at(16 * k + n)->b[n % 8];
            at(16 * m + n)->d[n % 8] += s;
        }
}
} // namespace emu
inline void wmma_load(wmma_f16 *f, const __half *p, int row_stride)
{
    for (int i = 0; i < 8; i++)
        f->v[i] = p[(emu::now->lane / 2) * row_stride + emu::now->lane % 2 * 8 + i];
}
#define wmma_load_a wmma_load
#define wmma_load_b wmma_load
inline void wmma_zero(wmma_f32 *f)
{
    memset(f, 0, sizeof *f);
}
inline void wmma_mma(wmma_f32 *d, const wmma_f16 *a, const wmma_f16 *b, EMU_AT)
{
    emu::wmma_arg w = {d->v, a->v, b->v};
    emu::warp_op("wmma", ~0u, true, &w, emu::do_wmma, file, line);
}
inline void wmma_store(float *p, const wmma_f32 *f, int row_stride)
{
    for (int i = 0; i < 8; i++)
        p[(emu::now->lane / 2) * row_stride + emu::now->lane % 2 * 8 + i] = f->v[i];
}
#else
typedef nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, __half,
                               nvcuda::wmma::row_major>
    wmma_a16;
typedef nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, __half,
                               nvcuda::wmma::row_major>
    wmma_b16;
typedef nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> wmma_f32;
GPU_INLINE void wmma_load_a(wmma_a16 *f, const __half *p, int row_stride)
{
    nvcuda::wmma::load_matrix_sync(*f, p, row_stride);
}
GPU_INLINE void wmma_load_b(wmma_b16 *f, const __half *p, int row_stride)
{
    nvcuda::wmma::load_matrix_sync(*f, p, row_stride);
}
GPU_INLINE void wmma_zero(wmma_f32 *f)
{
    nvcuda::wmma::fill_fragment(*f, 0.0f);
}
GPU_INLINE void wmma_mma(wmma_f32 *d, const wmma_a16 *a, const wmma_b16 *b)
{
    nvcuda::wmma::mma_sync(*d, *a, *b, *d);
}
GPU_INLINE void wmma_store(float *p, const wmma_f32 *f, int row_stride)
{
    nvcuda::wmma::store_matrix_sync(p, *f, row_stride, nvcuda::wmma::mem_row_major);
}
#endif
#ifdef HONE_CUDA_EMU
typedef wmma_f16 wmma_a16;
typedef wmma_f16 wmma_b16;
#endif

#endif
