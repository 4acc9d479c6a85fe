/* Does each emulated operation do what the GPU does, and are planted bugs noticed?
 *
 *   emu_plain         all operations; built by nvcc it runs on a GPU, and tests this test
 *   emu_plain NAME    run one planted bug; exit status 0 means that nobody noticed */
#include "kernels/cuda/mma.h"

#include <cmath>
#include <cstdio>
#include <thread>
#include <vector>

#define FULL 0xffffffffu

template <class T> struct buffer {
    T *p;
    size_t n;
    explicit buffer(const std::vector<T> &x) : n(x.size())
    {
        cudaMalloc((void **)&p, n * sizeof(T));
        cudaMemcpy(p, x.data(), n * sizeof(T), cudaMemcpyHostToDevice);
    }
    explicit buffer(size_t size) : n(size)
    {
        cudaMalloc((void **)&p, n * sizeof(T));
    }
    std::vector<T> get() const
    {
        std::vector<T> x(n);
        cudaDeviceSynchronize();
        cudaMemcpy(x.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost);
        return x;
    }
    ~buffer()
    {
        cudaFree(p);
    }
};

static int failed;
static void report(const char *name, bool ok)
{
    printf("emu %s: %s\n", name, ok ? "ok" : "FAILED");
    failed += !ok;
}

/* ---- operations ---- */

static __global__ void shuffles(int *out)
{
    int i = threadIdx.x, *o = out + 12 * i;
    o[0] = __shfl_sync(FULL, i, 5);
    o[1] = __shfl_sync(FULL, i, 9, 8);
    o[2] = __shfl_up_sync(FULL, i, 3);
    o[3] = __shfl_up_sync(FULL, i, 3, 16);
    o[4] = __shfl_down_sync(FULL, i, 2, 8);
    o[5] = __shfl_xor_sync(FULL, i, 17);
    o[6] = __shfl_xor_sync(FULL, i, 4, 4);
    o[7] = (int)__ballot_sync(FULL, i % 3 == 0);
    o[8] = __any_sync(FULL, i == 7) + 2 * __all_sync(FULL, i < 31);
    o[9] = i < 8 ? __shfl_xor_sync(0xffu, i, 1)
                 : __shfl_xor_sync(~0xffu, i, 8); /* two halves on their own */
    o[10] = __syncthreads_count(i < 5);
    o[11] = __syncthreads_or(i == 40) + 2 * __syncthreads_and(1);
}

static bool test_shuffles()
{
    buffer<int> b(12 * 32);
    LAUNCH(shuffles, dim3(1), dim3(32), 0, 0, b.p);
    std::vector<int> x = b.get();
    bool ok = true;
    for (int i = 0; i < 32; i++) {
        int want[12] = {5,
                        i / 8 * 8 + 1,
                        i < 3 ? i : i - 3,
                        i % 16 < 3 ? i : i - 3,
                        i % 8 > 5 ? i : i + 2,
                        i ^ 17,
                        i % 8 < 4 ? i : i ^ 4,
                        0x49249249,
                        1,
                        i < 8 ? i ^ 1 : i ^ 8,
                        5,
                        2};
        for (int k = 0; k < 12; k++) {
            if (k == 9 && i >= 8 && (i ^ 8) < 8)
                continue; /* of a lane that is not in the mask: undefined */
            if (x[12 * i + k] != want[k]) {
                printf("  lane %d result %d: %d, not %d\n", i, k, x[12 * i + k], want[k]);
                ok = false;
            }
        }
    }
    return ok;
}

static __global__ void matrices(float *out, const bf16 *a, const bf16 *b, const __half *ah,
                                const __half *bh)
{
    __shared__ __align__(128) bf16 sa[16][16], sb[16][8],
        sz[32][8]; /* b row-major: trans on the way */
    int l = threadIdx.x;
    copy16(&sa[l / 2][l % 2 * 8], a + 8 * l, true);
    copy_commit();
    if (l < 16)
        copy16(sb[l], b + 8 * l, true);
    copy16(sz[l], a, false);
    copy_commit();
    copy_wait<1>();
    __syncthreads(); /* sa is there */
    uint32_t x[4], y[2], z[1], w[2];
    float d[4] = {}, e[4] = {}, f[4] = {};
    ldmatrix<4>(x, &sa[l % 16][l / 16 * 8]);
    copy_wait<0>();
    __syncthreads(); /* sb and sz too */
    ldmatrix<2, true>(y, sb[l % 16]);
    d[0] = __bfloat162float(sz[31 - l][7]);
    mma_bf16(d, x, y);
    ldmatrix<1, true>(z, sb[l % 8]);
    ldmatrix<1, true>(w, sb[8 + l % 8]);
    y[0] = z[0];
    y[1] = w[0];
    mma_bf16(e, x, y);
    int g = l / 4, t = l % 4;
    const uint32_t *ra = (const uint32_t *)ah;
    uint32_t fa[4] = {ra[g * 8 + t], ra[(g + 8) * 8 + t], ra[g * 8 + t + 4],
                      ra[(g + 8) * 8 + t + 4]},
             fb[2];
    for (int i = 0; i < 2; i++) {
        __half2 h =
            __halves2half2(bh[(2 * t + 8 * i) * 8 + g], bh[(2 * t + 1 + 8 * i) * 8 + g]);
        memcpy(&fb[i], &h, 4);
    }
    mma_f16(f, fa, fb);
    for (int i = 0; i < 4; i++) {
        int at = (g + 8 * (i / 2)) * 8 + 2 * t + i % 2;
        out[at] = d[i];
        out[128 + at] = e[i];
        out[256 + at] = f[i];
    }
}

/* Both forms of mma.m8n8k4: 32x8 += 32x4 4x8, each quad pair rows 4 p .. and 16 + 4 p .. */
static __global__ void older(float *out, const __half *a, const __half *b)
{
    int l = threadIdx.x, high = l / 16 * 4;
    uint32_t x[2], y[2], z[2];
    float d[8] = {}, e[8] = {};
    __half columns[4], rows[4];
    for (int i = 0; i < 4; i++) {
        columns[i] = b[8 * i + l % 4 + high];
        rows[i] = b[8 * (l % 4) + i + high];
    }
    memcpy(x, a + 4 * l, 8);
    memcpy(y, columns, 8);
    memcpy(z, rows, 8);
    mma_volta<false>(d, x, y);
    mma_volta<true>(e, x, z);
    for (int i = 0; i < 8; i++) {
        int at = 8 * ((l & ~2) + (i & 2)) + (i & 4) + (l & 2) + i % 2;
        out[at] = d[i];
        out[256 + at] = e[i];
    }
}

static bool test_matrices()
{
    std::vector<bf16> a(256), b(128);
    std::vector<__half> ah(256), bh(256);
    double worst = 0;
    for (int i = 0; i < 256; i++)
        a[i] = __float2bfloat16(cosf(i * 0.3f)), ah[i] = __float2half(cosf(i * 0.3f)),
        bh[i] = __float2half(sinf(i * 0.2f));
    for (int i = 0; i < 128; i++)
        b[i] = __float2bfloat16(sinf(i * 0.2f));
    buffer<bf16> da(a), db(b);
    buffer<__half> dah(ah), dbh(bh);
    buffer<float> out(384), volta(512);
    LAUNCH(matrices, dim3(1), dim3(32), 0, 0, out.p, da.p, db.p, dah.p, dbh.p);
    LAUNCH(older, dim3(1), dim3(32), 0, 0, volta.p, dah.p, dbh.p);
    std::vector<float> x = out.get(), y = volta.get();
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 8; n++) {
            double s = 0, h = 0;
            for (int k = 0; k < 16; k++) {
                s += (double)__bfloat162float(a[m * 16 + k]) *
                     __bfloat162float(b[k * 8 + n]);
                h += (double)__half2float(ah[m * 16 + k]) * __half2float(bh[k * 8 + n]);
            }
            double e = fmax(fabs(x[m * 8 + n] - s), fmax(fabs(x[128 + m * 8 + n] - s),
                                                         fabs(x[256 + m * 8 + n] - h)));
            if (!(e <= worst))
                worst = e;
        }
    for (int m = 0; m < 32; m++)
        for (int n = 0; n < 8; n++) {
            double s = 0;
            for (int k = 0; k < 4; k++)
                s += (double)__half2float(ah[m * 4 + k]) * __half2float(bh[k * 8 + n]);
            double e = fmax(fabs(y[m * 8 + n] - s), fabs(y[256 + m * 8 + n] - s));
            if (!(e <= worst))
                worst = e;
        }
    return worst < 1e-5;
}

static __global__ void packed(float *out)
{
    __half2 h = __hfma2(__floats2half2_rn(1.5f, -2.0f), __floats2half2_rn(2.0f, 3.0f),
                        __floats2half2_rn(0.25f, 1.0f));
    __nv_bfloat162 b = __hadd2(
        __floats2bfloat162_rn(1.5f, -2.0f),
        __hmul2(__floats2bfloat162_rn(2.0f, 3.0f), __floats2bfloat162_rn(4.0f, 0.5f)));
    float2 x = __half22float2(h), y = __bfloat1622float2(b);
    float4 v = make_float4(x.x, x.y, y.x, y.y);
    *(float4 *)out = v;
    out[4] =
        __expf(1.0f) + __logf(2.0f) + rsqrtf(4.0f) + __fdividef(1.0f, 4.0f) + __ldg(out);
}

static bool test_packed()
{
    buffer<float> b(8);
    LAUNCH(packed, dim3(1), dim3(1), 0, 0, b.p);
    std::vector<float> x = b.get();
    return x[0] == 3.25f && x[1] == -5 && x[2] == 9.5f && x[3] == -0.5f &&
           fabs(x[4] - (2.718282 + 0.693147 + 0.75 + 3.25)) < 1e-4;
}

/* Ragged blocks of three dimensions, threads that leave early, static shared memory,
 * whole-number atomics. */
static __global__ void shapes(unsigned *sum, int *seen)
{
    __shared__ int part[1024];
    int i = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z),
        n = blockDim.x * blockDim.y * blockDim.z;
    part[i] = i;
    __syncthreads();
    if (i % 3 == 1)
        return;
    atomicAdd(sum, (unsigned)part[n - 1 - i]);
    __syncthreads();
    int lanes = __popc(__ballot_sync(FULL, 1));
    seen[(blockIdx.x + gridDim.x * blockIdx.y) * n + i] = lanes;
}

static bool test_shapes()
{
    bool ok = true;
    for (int z : {1, 2, 12}) {
        int n = 5 * 17 * z, blocks = 6;
        buffer<unsigned> sum(std::vector<unsigned>(1, 0u));
        buffer<int> seen(std::vector<int>(n * blocks, 0));
        LAUNCH(shapes, dim3(2, 3), dim3(5, 17, z), 0, 0, sum.p, seen.p);
        unsigned want = 0;
        std::vector<int> x = seen.get();
        for (int i = 0; i < n; i++)
            want += i % 3 == 1 ? 0 : n - 1 - i;
        ok = ok && sum.get()[0] == want * blocks;
        for (int i = 0; i < n * blocks; i++)
            ok = ok && (i % n % 3 == 1 ? x[i] == 0 : x[i] > 0 && x[i] <= 22);
    }
    return ok;
}

static __global__ void add(float *x, float v, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        x[i] += v;
}

static __global__ void twice(float *x, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        x[i] *= 2;
}

#ifdef HONE_CUDA_EMU
/* What CUDA refuses while a stream is captured, and what spoils the capture; another thread
 * may ask for events. */
static bool forbidden_in_captures(cudaStream_t s, cudaEvent_t e, float *dev)
{
    float pageable[4] = {1, 2, 3, 4};
    void *p = nullptr;
    cudaGraph_t g;
    bool ok = true;
    for (int call = 0; call < 6; call++) {
        cudaError_t rc = cudaSuccess, end;
        cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
        LAUNCH(twice, dim3(1), dim3(4), 0, s, dev, 4);
        if (call == 1)
            rc = cudaStreamSynchronize(s);
        else if (call == 2)
            rc = cudaMalloc(&p, 16);
        else if (call == 3)
            rc = cudaEventQuery(e);
        else if (call == 4)
            rc = cudaMemcpyAsync(pageable, dev, 16, cudaMemcpyDeviceToHost, s);
        else if (call == 5)
            std::thread([&] { rc = cudaEventQuery(e); }).join();
        end = cudaStreamEndCapture(s, &g);
        if (call % 5)
            ok = ok && rc == cudaErrorStreamCaptureUnsupported && end;
        else
            ok = ok && !rc && !end && g && !cudaGraphDestroy(g);
        cudaGetLastError();
    }
    return ok;
}

#endif

/* copy on one stream, two kernels on another, once directly and once as a graph; wait:
 * false leaves the event out */
static bool streams(bool wait)
{
    const int n = 100;
    float *host, *dev;
    cudaStream_t a, b;
    cudaEvent_t e, f;
    cudaGraph_t g;
    cudaGraphExec_t x;
    cudaMallocHost((void **)&host, n * 4);
    cudaMalloc((void **)&dev, n * 4);
    cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&e, cudaEventDisableTiming);
    cudaEventCreateWithFlags(&f, cudaEventDisableTiming);
    for (int i = 0; i < n; i++)
        host[i] = (float)i;
    bool ok = true;
    for (int graph = 0; graph < 2; graph++) {
        if (graph)
            cudaStreamBeginCapture(a, cudaStreamCaptureModeThreadLocal);
        cudaMemcpyAsync(dev, host, n * 4, cudaMemcpyHostToDevice, a);
        cudaEventRecord(e, a);
        if (wait)
            cudaStreamWaitEvent(b, e, 0);
        LAUNCH(add, dim3(2), dim3(64), 0, b, dev, 1.0f, n);
        LAUNCH(twice, dim3(2), dim3(64), 0, b, dev, n);
        cudaEventRecord(f, b);
        cudaStreamWaitEvent(a, f, 0);
        cudaMemcpyAsync(host, dev, n * 4, cudaMemcpyDeviceToHost, a);
        if (graph) {
            cudaStreamEndCapture(a, &g);
            cudaGraphInstantiate(&x, g, 0);
            cudaGraphLaunch(x, a);
            cudaGraphLaunch(x, a);
        }
        cudaStreamSynchronize(a);
        for (int i = 0; i < n; i++)
            ok = ok && host[i] == (graph ? ((2 * i + 2) * 2 + 2) * 2 + 2 : 2 * i + 2);
    }
    cudaGraphExecDestroy(x);
    cudaGraphDestroy(g);
#ifdef HONE_CUDA_EMU
    cudaEventRecord(e, a);
    cudaStreamSynchronize(a);
    ok = ok && forbidden_in_captures(a, e, dev);
#endif
    cudaEventDestroy(e);
    cudaEventDestroy(f);
    cudaStreamDestroy(a);
    cudaStreamDestroy(b);
    cudaFree(dev);
    cudaFreeHost(host);
    return ok;
}

#ifdef HONE_CUDA_EMU
/* ---- planted bugs: each is a kernel that a GPU might well run without complaint ---- */

enum bug {
    NO_SYNC,
    OVERWRITE,
    NO_SYNCWARP,
    NO_WAIT,
    UNSET,
    TWO_BARRIERS,
    LOST_LANE,
    BAD_MASK,
    TWO_OPS,
    PART_MMA,
    UNALIGNED,
    PAST_SHARED,
    PAST_STATIC,
    PAST_GLOBAL,
    TWO_BLOCKS
};
static const char *const bugs[] = {
    "no_sync",      "overwrite",   "no_syncwarp", "no_wait",     "unset",
    "two_barriers", "lost_lane",   "bad_mask",    "two_ops",     "part_mma",
    "unaligned",    "past_shared", "past_static", "past_global", "two_blocks"};

static __global__ void planted(int bug, float *out, const float *in)
{
    DYNAMIC_SHARED(float, s);
    __shared__ float fixed[64];
    int i = threadIdx.x;
    float x = in[i];
    uint32_t r[4] = {};
    float d[4] = {};
    s[i] = fixed[i] = x;
    __syncthreads();
    switch (bug) {
    case NO_SYNC:
        s[i] = 2 * x;
        x = s[63 - i];
        break;
    case OVERWRITE:
        x = s[63 - i];
        s[i] = 0;
        break;
    case NO_SYNCWARP:
        s[i] = 2 * x;
        x = s[i ^ 1];
        break;
    case NO_WAIT:
        if (i < 16)
            copy16(s + 4 * i, in + 4 * i, true);
        copy_commit();
        __syncthreads();
        x = s[i];
        break;
    case UNSET:
        x = s[64 + i];
        break;
    case TWO_BARRIERS:
        if (i < 32)
            __syncthreads();
        else
            __syncthreads();
        break;
    case LOST_LANE:
        if (i)
            __syncwarp();
        __syncthreads();
        break;
    case BAD_MASK:
        x = __shfl_sync(0xffffu, x, 0);
        break;
    case TWO_OPS:
        x = i % 2 ? __shfl_sync(FULL, x, 0) : (float)__any_sync(FULL, x > 0);
        break;
    case PART_MMA:
        if (i != 3)
            mma_bf16(d, r, r);
        else
            return;
        break;
    case UNALIGNED:
        ldmatrix<4>(r, s + i % 32 + 1);
        break;
    case PAST_SHARED:
        s[128 + i / 63] = 0;
        break;
    case PAST_STATIC: {
        float *p = fixed;
        asm("" : "+r"(p)); /* so that only ASan can know */
        p[i + 1] = 0;
        break;
    }
    case PAST_GLOBAL:
        x += in[i + 1];
        break;
    case TWO_BLOCKS:
        out[i] = x;
        return;
    }
    if (blockIdx.x == 0)
        out[i] = x + d[0] + (float)r[0];
}

static int planted_bug(const char *name)
{
    if (!strcmp(name, "no_event"))
        return !streams(false);
    if (!strcmp(name, "no_attribute")) {
        buffer<float> in(64), out(64);
        LAUNCH(planted, dim3(1), dim3(64), 60 << 10, 0, 0, out.p, in.p);
        return 0;
    }
    if (!strcmp(name, "freed_memory")) {
        cudaStream_t s;
        cudaGraph_t g;
        cudaGraphExec_t x;
        float *dev;
        cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
        cudaMalloc((void **)&dev, 16);
        cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
        LAUNCH(twice, dim3(1), dim3(4), 0, s, dev, 4);
        cudaStreamEndCapture(s, &g);
        cudaGraphInstantiate(&x, g, 0);
        cudaFree(dev);
        cudaGraphLaunch(x, s);
        cudaStreamSynchronize(s);
        return 0;
    }
    if (!strcmp(name, "host_access")) {
        buffer<float> b(4);
        return b.p[0] == 1;
    }
    if (!strcmp(name, "reused_buffer")) {
        float *host;
        cudaStream_t s;
        buffer<float> b(1);
        cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
        cudaMallocHost((void **)&host, 4);
        *host = 1;
        cudaMemcpyAsync(b.p, host, 4, cudaMemcpyHostToDevice, s);
        *host = 2;
        cudaStreamSynchronize(s);
        return b.get()[0] != 1;
    }
    for (int bug = 0; bug < (int)(sizeof bugs / sizeof *bugs); bug++)
        if (!strcmp(name, bugs[bug])) {
            std::vector<float> x(64, 1.0f),
                want(64, bug == NO_SYNC || bug == NO_SYNCWARP ? 2.0f : 1.0f);
            buffer<float> in(x), out(64);
            LAUNCH(planted, dim3(2), dim3(64), 512, 0, bug, out.p, in.p);
            return out.get() != want;
        }
    return 9;
}
#endif

int main(int n, char **arg)
{
#ifdef HONE_CUDA_EMU
    if (n > 1) {
        int r = planted_bug(arg[1]);
        fprintf(stderr, "result %s\n", r ? "wrong" : "right");
        return r;
    }
#endif
    (void)n;
    (void)arg;
    report("shuffles and votes", test_shuffles());
    report("mma, ldmatrix, cp.async", test_matrices());
    report("half2, bfloat162, float4, fast functions", test_packed());
    report("block shapes, early exit, atomics", test_shapes());
    report("streams, events, graphs", streams(true));
    return failed != 0;
}
