/* CUDA kernels on the CPU, to test that they are right where there is no GPU. For tests
 * only.
 *
 * A kernel file includes kernels/cuda/gpu.h, which is CUDA under nvcc and this header under
 * g++ -x c++ -DHONE_CUDA_EMU. The threads of a block are fibers of one OS thread. They
 * switch only at barriers and warp operations, in an order drawn from the environment
 * variable EMU_SEED. README.md says what is checked and what cannot be. */
#ifndef TESTS_CUDA_EMU_CUDA_EMU_H
#define TESTS_CUDA_EMU_CUDA_EMU_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include <cuda_bf16.h> /* conversions also work on the host */
#include <cuda_fp16.h>
#include <cuda_runtime_api.h> /* prototypes: emu_runtime.cc */
#include <vector_functions.h> /* make_float4 ... */

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __launch_bounds__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __constant__    static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
/* One section for all of it, so that a new block can be given poisoned memory. A function
 * template or an inline function that has such a variable must be static: gcc cannot mix
 * COMDAT variables into the section. */
#define __shared__ static __attribute__((section("emu_shared")))

#define EMU_AT                                                                             \
    const char *file = __builtin_FILE(),                                                   \
               int line = __builtin_LINE() /* the caller's place, for messages */

namespace emu
{

enum state : char { READY, AT_WARP, AT_BLOCK, DONE };

struct async_copy {
    void *to;
    const void *from;
    unsigned bytes, zeros;
};

struct fiber {
    void *sp;         /* or the ucontext_t */
    void *fake_stack; /* ASan's */
    char *stack;
    uint3 tid;
    int thread, warp, lane;
    enum state state;
    /* what it waits for */
    const char *op, *file;
    int line;
    unsigned mask;
    bool aligned; /* every lane must be at the same instruction */
    void *arg;
    void (*run)(fiber *lanes, unsigned who);
    /* cp.async */
    std::vector<async_copy> copies;
    std::vector<size_t> groups; /* ends of the committed groups in copies */
};

extern fiber *now;
extern dim3 grid_dim, block_dim;
extern uint3 block_idx;
extern unsigned char *dynamic_shared;

struct counters {
    unsigned long launches, blocks, switches, barriers, warp_ops, mma, ldmatrix,
        bank_conflicts;
};
extern counters count;

[[noreturn]] void fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Wait for the live lanes of mask. The last to arrive runs `run` for all: lanes[i].arg is
 * what lane i gave. */
void warp_op(const char *op, unsigned mask, bool aligned, void *arg,
             void (*run)(fiber *, unsigned), const char *file, int line);
void block_barrier(const char *op, int *votes, int vote, const char *file, int line);

/* Tell the race checker of an access. Does nothing unless the program has been built with
 * it. */
void touch(int thread, const void *p, size_t n, bool write, const char *file, int line);
bool is_shared(const void *p, size_t n);

void copy_async(void *to, const void *from, unsigned bytes, unsigned valid,
                const char *file, int line);
void copy_commit();
void copy_wait(size_t left, const char *file, int line);

void run_grid(const char *name, const void *function, dim3 grid, dim3 threads,
              size_t dynamic, const std::function<void()> &body);
/* uses: memory that the work was given, when it goes into a capture. */
void enqueue(cudaStream_t stream, std::function<void()> work,
             const std::vector<const void *> &uses = {});
bool is_captured(cudaStream_t stream);
enum counted { KERNELS, PRODUCTS, COPIES, FILLS, EVENTS, WAITS, GRAPHS, NODES, COUNTED };
void count_call(counted what, cudaStream_t stream, long n = 1);

/* Everything in an argument that may be a pointer. */
template <class T> void add_words(std::vector<const void *> *to, const T &arg)
{
    for (size_t i = 0; i + sizeof(void *) <= sizeof arg; i += sizeof(void *)) {
        const void *p;
        memcpy(&p, (const char *)&arg + i, sizeof p);
        to->push_back(p);
    }
}
bool launch_fails(); /* on request of a test */

/* The arguments are copied when the launch is made, as on a GPU; the kernel may run later.
 */
template <class F, class... A>
void launch(const char *name, const void *function, dim3 grid, dim3 threads, size_t dynamic,
            cudaStream_t stream, F kernel, A... args)
{
    std::vector<const void *> uses;
    if (launch_fails())
        return;
    if (is_captured(stream))
        (add_words(&uses, args), ...);
    count_call(KERNELS, stream);
    enqueue(
        stream,
        [=] { run_grid(name, function, grid, threads, dynamic, [&] { kernel(args...); }); },
        uses);
}

inline bool in(unsigned who, int lane)
{
    return who >> lane & 1;
}

struct shuffle_arg {
    uint64_t word;
    int from;
};

inline void do_shuffle(fiber *lanes, unsigned who)
{
    uint64_t got[32];
    for (int i = 0; i < 32; i++)
        if (in(who, i)) {
            int from = ((shuffle_arg *)lanes[i].arg)->from;
            got[i] = in(who, from) ? ((shuffle_arg *)lanes[from].arg)->word
                                   : ~0ull; /* a lane that is not there: poison */
        }
    for (int i = 0; i < 32; i++)
        if (in(who, i))
            ((shuffle_arg *)lanes[i].arg)->word = got[i];
}

template <class T>
T shuffle(const char *op, unsigned mask, T v, int from, const char *file, int line)
{
    static_assert(sizeof(T) <= 8, "shuffle of more than 8 bytes");
    shuffle_arg a = {0, from};
    memcpy(&a.word, &v, sizeof v);
    warp_op(op, mask, false, &a, do_shuffle, file, line);
    memcpy(&v, &a.word, sizeof v);
    return v;
}

inline void do_ballot(fiber *lanes, unsigned who)
{
    unsigned votes = 0;
    for (int i = 0; i < 32; i++)
        if (in(who, i) && *(unsigned *)lanes[i].arg)
            votes |= 1u << i;
    for (int i = 0; i < 32; i++)
        if (in(who, i))
            *(unsigned *)lanes[i].arg = votes;
}

template <class T, class F>
__attribute__((noinline, no_sanitize("thread"))) T atomic(T *p, F f)
{
    T old = *p;
    *p = f(old);
    return old;
}

} // namespace emu

#define threadIdx (emu::now->tid)
#define blockIdx  (emu::block_idx)
#define blockDim  (emu::block_dim)
#define gridDim   (emu::grid_dim)
#define warpSize  32

#define DYNAMIC_SHARED(type, name) type *name = (type *)emu::dynamic_shared
#define LAUNCH(kernel, grid, threads, shared, stream, ...)                                 \
    emu::launch(                                                                           \
        #kernel, (const void *)(kernel), grid, threads, shared, stream,                    \
        [=](auto... a) { kernel(a...); }, __VA_ARGS__)

/* ---- barriers and warp operations ---- */

inline void __syncthreads(EMU_AT)
{
    emu::block_barrier("__syncthreads", nullptr, 0, file, line);
}
inline int __syncthreads_count(int p, EMU_AT)
{
    int v[2];
    emu::block_barrier("__syncthreads_count", v, p, file, line);
    return v[0];
}
inline int __syncthreads_or(int p, EMU_AT)
{
    int v[2];
    emu::block_barrier("__syncthreads_or", v, p, file, line);
    return v[0] != 0;
}
inline int __syncthreads_and(int p, EMU_AT)
{
    int v[2];
    emu::block_barrier("__syncthreads_and", v, p, file, line);
    return v[0] == v[1];
}
inline void __syncwarp(unsigned mask = ~0u, EMU_AT)
{
    emu::warp_op("__syncwarp", mask, false, nullptr, nullptr, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int p, EMU_AT)
{
    unsigned v = p != 0;
    emu::warp_op("__ballot_sync", mask, false, &v, emu::do_ballot, file, line);
    return v;
}
inline int __any_sync(unsigned mask, int p, EMU_AT)
{
    return __ballot_sync(mask, p, file, line) != 0;
}
inline int __all_sync(unsigned mask, int p, EMU_AT)
{
    return __ballot_sync(mask, !p, file, line) == 0;
}
template <class T> T __shfl_sync(unsigned mask, T v, int lane, int width = 32, EMU_AT)
{
    int base = emu::now->lane & ~(width - 1);
    return emu::shuffle("__shfl_sync", mask, v, base + (lane & (width - 1)), file, line);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, EMU_AT)
{
    int me = emu::now->lane, from = me - (int)by;
    return emu::shuffle("__shfl_up_sync", mask, v, from < (me & ~(width - 1)) ? me : from,
                        file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, EMU_AT)
{
    int me = emu::now->lane, from = me + (int)by;
    return emu::shuffle("__shfl_down_sync", mask, v, from > (me | (width - 1)) ? me : from,
                        file, line);
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, EMU_AT)
{
    int me = emu::now->lane, from = me ^ bits;
    return emu::shuffle("__shfl_xor_sync", mask, v, from > (me | (width - 1)) ? me : from,
                        file, line);
}
inline void __threadfence()
{
}
inline void __threadfence_block()
{
}

/* ---- atomics: whole numbers only. The order of float additions would change from run to
 * run. ---- */

inline int atomicAdd(int *p, int v)
{
    return emu::atomic(p, [=](int x) { return x + v; });
}
inline unsigned atomicAdd(unsigned *p, unsigned v)
{
    return emu::atomic(p, [=](unsigned x) { return x + v; });
}
inline unsigned long long atomicAdd(unsigned long long *p, unsigned long long v)
{
    return emu::atomic(p, [=](unsigned long long x) { return x + v; });
}
inline int atomicMax(int *p, int v)
{
    return emu::atomic(p, [=](int x) { return x > v ? x : v; });
}
inline unsigned atomicMax(unsigned *p, unsigned v)
{
    return emu::atomic(p, [=](unsigned x) { return x > v ? x : v; });
}
inline unsigned long long atomicMax(unsigned long long *p, unsigned long long v)
{
    return emu::atomic(p, [=](unsigned long long x) { return x > v ? x : v; });
}
inline unsigned atomicExch(unsigned *p, unsigned v)
{
    return emu::atomic(p, [=](unsigned) { return v; });
}
inline unsigned atomicCAS(unsigned *p, unsigned was, unsigned v)
{
    return emu::atomic(p, [=](unsigned x) { return x == was ? v : x; });
}
void atomicAdd(float *, float) = delete;
void atomicAdd(double *, double) = delete;
void atomicAdd(__half *, __half) = delete;
void atomicAdd(__half2 *, __half2) = delete;
void atomicAdd(__nv_bfloat16 *, __nv_bfloat16) = delete;
void atomicAdd(__nv_bfloat162 *, __nv_bfloat162) = delete;

/* ---- small intrinsics ---- */

/* CUDA's headers have host versions of most of the half-precision arithmetic, but not of
 * fma. */
inline __half __hfma(__half x, __half y, __half z)
{
    return __double2half((double)(float)x * (float)y + (float)z);
}
inline __nv_bfloat16 __hfma(__nv_bfloat16 x, __nv_bfloat16 y, __nv_bfloat16 z)
{
    return __double2bfloat16((double)(float)x * (float)y + (float)z);
}
inline __half2 __hfma2(__half2 x, __half2 y, __half2 z)
{
    return {__hfma(x.x, y.x, z.x), __hfma(x.y, y.y, z.y)};
}
inline __nv_bfloat162 __hfma2(__nv_bfloat162 x, __nv_bfloat162 y, __nv_bfloat162 z)
{
    return {__hfma(x.x, y.x, z.x), __hfma(x.y, y.y, z.y)};
}

using std::max;
using std::min;
#define __expf   expf /* macros: glibc declares some of these names itself */
#define __exp10f exp10f
#define __logf   logf
#define __log2f  log2f
#define __sinf   sinf
#define __cosf   cosf
#define __powf   powf
#define __tanhf  tanhf
inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
inline float __frsqrt_rn(float x)
{
    return 1.0f / sqrtf(x);
}
inline float __frcp_rn(float x)
{
    return 1.0f / x;
}
inline float __fdividef(float x, float y)
{
    return x / y;
}
inline float __fmaf_rn(float x, float y, float z)
{
    return fmaf(x, y, z);
}
inline float __saturatef(float x)
{
    return x > 0 ? (x < 1 ? x : 1) : 0;
}
inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
inline unsigned __umulhi(unsigned x, unsigned y)
{
    return (unsigned)((uint64_t)x * y >> 32);
} /* Philox */
inline uint32_t __float_as_uint(float x)
{
    uint32_t y;
    memcpy(&y, &x, 4);
    return y;
}
inline int __float_as_int(float x)
{
    int y;
    memcpy(&y, &x, 4);
    return y;
}
inline float __uint_as_float(uint32_t x)
{
    float y;
    memcpy(&y, &x, 4);
    return y;
}
inline float __int_as_float(int x)
{
    float y;
    memcpy(&y, &x, 4);
    return y;
}
template <class T> T __ldg(const T *p)
{
    return *p;
}
template <class T> T __ldcs(const T *p)
{
    return *p;
}
template <class T> T __ldcg(const T *p)
{
    return *p;
}
template <class T> void __stcs(T *p, T v)
{
    *p = v;
}
template <class T> void __stcg(T *p, T v)
{
    *p = v;
}
#endif
