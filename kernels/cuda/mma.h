/* What kernels for tensor cores are made of: one function for each piece of inline PTX,
 * with both forms (gpu.h). tests/cuda_emu/test_emu.cu holds each against plain loops; the
 * form for a GPU must agree with the "Matrix Fragments" figures of the PTX ISA, which is
 * what the emulated form follows. mma_bf16 is for sm_80 and up, mma_f16 and ldmatrix for
 * sm_75 and up, mma_volta for sm_70 (newer chips take it, slowly); copy16 is a plain copy
 * before sm_80. load_here is for every kernel. */
#ifndef KERNELS_CUDA_MMA_H
#define KERNELS_CUDA_MMA_H

#include "kernels/cuda/gpu.h"

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

/* mma.m8n8k4 with f32 sums: the lanes 4 p .. 4 p + 3 and 16 more form quad pair p, which
 * has a product of its own. Lane l is row r = l % 4 (+ 4 from lane 16 on) of a, k = 0 .. 3;
 * column r of a column-major b, k = 0 .. 3; or row l % 4 of a row-major b, its columns
 * 0 .. 3 (+ 4). d: (l % 2 + (i & 2) (+ 4), (i & 4) + (l & 2) + i % 2). */
template <bool B_ROWS> void do_mma_volta(fiber *lanes, unsigned who)
{
    if (who != ~0u)
        fail(lanes[__builtin_ctz(who)].file, lanes[__builtin_ctz(who)].line,
             "mma needs all 32 lanes of the warp");
    count.mma++;
    for (int pair = 0; pair < 4; pair++) {
        float A[8][4], B[4][8];
        for (int m = 0; m < 8; m++) {
            const mma_arg *x = (const mma_arg *)lanes[4 * pair + m % 4 + m / 4 * 16].arg;
            for (int i = 0; i < 4; i++) {
                A[m][i] = half_of<__half>(x->a, i);
                if (B_ROWS)
                    B[m % 4][i + m / 4 * 4] = half_of<__half>(x->b, i);
                else
                    B[i][m] = half_of<__half>(x->b, i);
            }
        }
        for (int m = 0; m < 8; m++) {
            int l = 4 * pair + m % 4 + m / 4 * 16;
            for (int i = 0; i < 8; i++) {
                int row = l % 2 + (i & 2) + l / 16 * 4, col = (i & 4) + (l & 2) + i % 2;
                float s = 0;
                for (int k = 0; k < 4; k++)
                    s += A[row][k] * B[k][col];
                ((mma_arg *)lanes[l].arg)->d[i] += s;
            }
        }
    }
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
#elif __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else /* two halves of the sum, whose fragments are halves of the larger one's */
    for (int i = 0; i < 2; i++)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                     "{%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[2 * i]), "r"(a[2 * i + 1]), "r"(b[i]));
#endif
}

/* D += A B for each quad pair: 8x8 += 8x4 4x8 of f16, f32 sums; b is column-major, or with
 * B_ROWS row-major. */
template <bool B_ROWS>
GPU_INLINE void mma_volta(float d[8], const uint32_t a[2], const uint32_t b[2], EMU_AT)
{
#ifdef HONE_CUDA_EMU
    emu::mma_arg m = {d, a, b};
    emu::warp_op("mma volta", ~0u, true, &m, emu::do_mma_volta<B_ROWS>, file, line);
#else
    if constexpr (B_ROWS)
        asm volatile(
            "mma.sync.aligned.m8n8k4.row.row.f32.f16.f16.f32 "
            "{%0,%1,%2,%3,%4,%5,%6,%7},{%8,%9},{%10,%11},{%0,%1,%2,%3,%4,%5,%6,%7};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
              "+f"(d[6]), "+f"(d[7])
            : "r"(a[0]), "r"(a[1]), "r"(b[0]), "r"(b[1]));
    else
        asm volatile(
            "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 "
            "{%0,%1,%2,%3,%4,%5,%6,%7},{%8,%9},{%10,%11},{%0,%1,%2,%3,%4,%5,%6,%7};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
              "+f"(d[6]), "+f"(d[7])
            : "r"(a[0]), "r"(a[1]), "r"(b[0]), "r"(b[1]));
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

/* Copy 16 bytes from global to shared memory, on sm_80 and up without registers and while
 * other work goes on; zeros instead, and nothing is read, where valid is false. */
GPU_INLINE void copy16(void *to, const void *from, bool valid, EMU_AT)
{
#ifdef HONE_CUDA_EMU
    emu::copy_async(to, from, 16, valid ? 16 : 0, file, line);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
#else
    *(uint4 *)to = valid ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
#endif
}

/* A word that no kernel changes, loaded where it is used: kept in registers through a loop,
 * as a compiler would, it spills others. */
GPU_INLINE uint64_t load_here(const uint64_t *p)
{
#ifdef HONE_CUDA_EMU
    return *p;
#else
    uint32_t low, high;

    asm volatile("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(low), "=r"(high) : "l"(p));
    return (uint64_t)high << 32 | low;
#endif
}

GPU_INLINE void copy_commit()
{
#ifdef HONE_CUDA_EMU
    emu::copy_commit();
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Wait until at most LEFT of this thread's groups are under way. Other threads see the data
 * after the next barrier. */
template <int LEFT> GPU_INLINE void copy_wait(EMU_AT)
{
#ifdef HONE_CUDA_EMU
    emu::copy_wait(LEFT, file, line);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}

/* 2^x to about 2^-22; results below 2^-126 are 0. */
GPU_INLINE float exp2_fast(float x)
{
#ifdef HONE_CUDA_EMU
    return exp2f(x);
#else
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

/* Two floats as a register of two short ones, the first in the low half. */
GPU_INLINE uint32_t pack_f16(float lo, float hi)
{
    __half2 x = __floats2half2_rn(lo, hi);
    uint32_t r;
    memcpy(&r, &x, 4);
    return r;
}

GPU_INLINE uint32_t pack_bf16(float lo, float hi)
{
    __nv_bfloat162 x = __floats2bfloat162_rn(lo, hi);
    uint32_t r;
    memcpy(&r, &x, 4);
    return r;
}

#endif
