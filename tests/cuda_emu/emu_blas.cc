/* cuBLASLt of the emulator: the calls of kernels/cuda/gemm.c, with the vendor's prototypes,
 * over f32, bf16 and f16 matrices that lie column by column.
 *
 * There are three algorithms: sums in float in the order of k, from its end, and odd k
 * after even ones; so their bits differ, and a row does not depend on the others. The
 * device's clock goes on by a second for each product, by half of that for algorithm
 * EMU_FASTEST (default 0), by a tenth less where it adds a bias (EMU_UNFUSED: none does).
 * Before each product the workspace becomes NaN. What the library would refuse is refused
 * here too: strides shorter than columns, pointers that are not aligned as promised to the
 * heuristic, a workspace smaller than the algorithm was promised, sizes that do not fit
 * each other. EMU_FAIL=cublasLtMatmul:n and so on make calls fail. */
#include <cublasLt.h>

#include "tests/cuda_emu/emu_internal.h"

using namespace emu;

namespace
{

struct description {
    cublasOperation_t ta = CUBLAS_OP_N, tb = CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    const float *bias = nullptr;
    bool tf32 = false;
};

struct matrix {
    cudaDataType type;
    uint64_t rows, cols;
    int64_t ld;
};

struct preference {
    uint64_t workspace = 0;
    uint32_t align[4] = {256, 256, 256, 256}, split = ~0u;
};

/* What an algorithm remembers of the question it answered. */
struct promise {
    uint64_t magic, workspace;
    uint32_t align_in, align_out, id;
};
enum { ALGORITHMS = 3 };
const uint64_t magic = 0x656d756c61746564;

struct product {
    long m, n, k, lda, ldb, ldc;
    bool ta, tb;
    float alpha, beta;
    float *c;
    const float *bias;
    unsigned id;
};

/* The l-th k to be added. */
long order(const product &p, long l)
{
    long even = (p.k + 1) / 2;

    return p.id == 0 ? l : p.id == 1 ? p.k - 1 - l : l < even ? 2 * l : 2 * (l - even) + 1;
}

float number(float x)
{
    return x;
}
float number(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}
float number(__half x)
{
    return __half2float(x);
}

/* An f32 that is read with the 10 bits of fraction of TF32. */
struct tf32 {
    uint32_t bits;
};
float number(tf32 x)
{
    float f;

    x.bits = (x.bits + 0x1000) & 0xffffe000;
    memcpy(&f, &x.bits, sizeof f);
    return f;
}

/* A column of c at a time, so that the inner loop runs down a column of a. */
template <class T> void multiply(const product &p, const T *pa, const T *pb)
{
    std::vector<float> sum((size_t)p.m);

    for (long j = 0; j < p.n; j++) {
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (long i = 0; p.ta && i < p.m; i++) {
            const T *a = pa + i * p.lda;
            float s = 0;

            for (long q = 0; q < p.k; q++) {
                long l = order(p, q);

                s += number(a[l]) * number(p.tb ? pb[l * p.ldb + j] : pb[j * p.ldb + l]);
            }
            sum[(size_t)i] = s;
        }
        for (long q = 0; !p.ta && q < p.k; q++) {
            long l = order(p, q);
            const T *a = pa + l * p.lda;
            float b = number(p.tb ? pb[l * p.ldb + j] : pb[j * p.ldb + l]);

            for (long i = 0; i < p.m; i++)
                sum[(size_t)i] += number(a[i]) * b;
        }
        for (long i = 0; i < p.m; i++) {
            float *c = p.c + j * p.ldc + i;

            *c = p.alpha * sum[(size_t)i] + (p.beta != 0 ? p.beta * *c : 0) +
                 (p.bias ? p.bias[i] : 0);
        }
    }
}

bool fits(const description *d, const matrix *a, const matrix *b, const matrix *c)
{
    uint64_t m = d->ta ? a->cols : a->rows, k = d->ta ? a->rows : a->cols;
    uint64_t n = d->tb ? b->rows : b->cols;

    return a->type == b->type && c->type == CUDA_R_32F &&
           (d->tb ? b->cols : b->rows) == k && c->rows == m && c->cols == n &&
           a->ld >= (int64_t)a->rows && b->ld >= (int64_t)b->rows &&
           c->ld >= (int64_t)c->rows;
}

} // namespace

#define CALL(name, status)                                                                 \
    guard hold(lock);                                                                      \
    if (injected(#name))                                                                   \
        return status;

extern "C" {
cublasStatus_t cublasLtCreate(cublasLtHandle_t *h)
{
    CALL(cublasLtCreate, CUBLAS_STATUS_NOT_INITIALIZED)
    outside_steps("cublasLtCreate");
    if (capture_forbids())
        return CUBLAS_STATUS_NOT_INITIALIZED;
    *h = (cublasLtHandle_t) new char;
    return CUBLAS_STATUS_SUCCESS;
}
const char *cublasLtGetStatusString(cublasStatus_t s)
{
    switch (s) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    }
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d,
                                        cublasComputeType_t compute, cudaDataType_t scale)
{
    CALL(cublasLtMatmulDescCreate, CUBLAS_STATUS_ALLOC_FAILED)
    if ((compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_FAST_TF32) ||
        scale != CUDA_R_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    description *made = new description;
    made->tf32 = compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    *d = (cublasLtMatmulDesc_t)made;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
    delete (description *)d;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d,
                                              cublasLtMatmulDescAttributes_t what,
                                              const void *value, size_t bytes)
{
    description *x = (description *)d;
    void *to = what == CUBLASLT_MATMUL_DESC_TRANSA         ? (void *)&x->ta
               : what == CUBLASLT_MATMUL_DESC_TRANSB       ? (void *)&x->tb
               : what == CUBLASLT_MATMUL_DESC_EPILOGUE     ? (void *)&x->epilogue
               : what == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? (void *)&x->bias
                                                           : nullptr;

    if (!to)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (bytes !=
        (what == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? sizeof x->bias : sizeof x->ta))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    CALL(cublasLtMatrixLayoutCreate, CUBLAS_STATUS_ALLOC_FAILED)
    if (type != CUDA_R_32F && type != CUDA_R_16BF && type != CUDA_R_16F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *l = (cublasLtMatrixLayout_t) new matrix{type, rows, cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    delete (matrix *)l;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p)
{
    CALL(cublasLtMatmulPreferenceCreate, CUBLAS_STATUS_ALLOC_FAILED)
    *p = (cublasLtMatmulPreference_t) new preference;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    delete (preference *)p;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t
cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                     cublasLtMatmulPreferenceAttributes_t what,
                                     const void *value, size_t bytes)
{
    preference *x = (preference *)p;
    int i = (int)what - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;

    if (what == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES && bytes == 8)
        memcpy(&x->workspace, value, 8);
    else if (what == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK && bytes == 4)
        memcpy(&x->split, value, 4);
    else if (i >= 0 && i < 4 && bytes == 4)
        memcpy(&x->align[i], value, 4);
    else
        return CUBLAS_STATUS_INVALID_VALUE;
    for (uint32_t align : x->align)
        if (!align || align & (align - 1) || align > 256)
            return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t
cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t d,
                               cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                               cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t,
                               cublasLtMatmulPreference_t p, int most,
                               cublasLtMatmulHeuristicResult_t *out, int *found)
{
    CALL(cublasLtMatmulAlgoGetHeuristic, CUBLAS_STATUS_NOT_SUPPORTED)
    const preference *x = (const preference *)p;
    promise made = {magic, x->workspace, std::max(x->align[0], x->align[1]),
                    std::max(x->align[2], x->align[3]), 0};

    *found = 0;
    if (x->split & CUBLASLT_REDUCTION_SCHEME_INPLACE)
        fail(nullptr, 0, "in-place split-K is not excluded: its sums have no fixed order");
    if (!fits((description *)d, (matrix *)a, (matrix *)b, (matrix *)c))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (((description *)d)->epilogue != CUBLASLT_EPILOGUE_DEFAULT && getenv("EMU_UNFUSED"))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (; *found < ALGORITHMS && *found < most; ++*found) {
        made.id = (uint32_t)*found;
        memset(&out[*found], 0, sizeof *out);
        memcpy(&out[*found].algo, &made, sizeof made);
    }
    return CUBLAS_STATUS_SUCCESS;
}
size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t d,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *out)
{
    CALL(cublasLtMatmulAlgoCheck, CUBLAS_STATUS_NOT_SUPPORTED)
    promise made;

    memcpy(&made, algo, sizeof made);
    if (made.magic != magic || made.id >= ALGORITHMS ||
        !fits((description *)d, (matrix *)a, (matrix *)b, (matrix *)c))
        return CUBLAS_STATUS_INVALID_VALUE;
    memset(out, 0, sizeof *out);
    out->workspaceSize = made.workspace;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t d, const void *alpha,
                              const void *A, cublasLtMatrixLayout_t a, const void *B,
                              cublasLtMatrixLayout_t b, const void *beta, const void *C,
                              cublasLtMatrixLayout_t c, void *D, cublasLtMatrixLayout_t,
                              const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t bytes, cudaStream_t s)
{
    CALL(cublasLtMatmul, CUBLAS_STATUS_EXECUTION_FAILED)
    const description *x = (const description *)d;
    const matrix *ma = (const matrix *)a, *mb = (const matrix *)b, *mc = (const matrix *)c;
    promise made;

    memcpy(&made, algo, sizeof made);
    if (made.magic != magic || made.id >= ALGORITHMS || C != D || !fits(x, ma, mb, mc) ||
        bytes < made.workspace)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (((uintptr_t)A | (uintptr_t)B) % made.align_in || (uintptr_t)C % made.align_out)
        return CUBLAS_STATUS_INVALID_VALUE;
    for (const matrix *l : {ma, mb, mc}) {
        uintptr_t stride = (uintptr_t)l->ld * (l->type == CUDA_R_32F ? 4 : 2);

        if (stride % (l == mc ? made.align_out : made.align_in))
            return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (injected("unfit")) /* an algorithm that does not fit these sizes */
        return CUBLAS_STATUS_NOT_SUPPORTED;
    product p = {(long)mc->rows,
                 (long)mc->cols,
                 (long)(x->ta ? ma->rows : ma->cols),
                 (long)ma->ld,
                 (long)mb->ld,
                 (long)mc->ld,
                 x->ta != CUBLAS_OP_N,
                 x->tb != CUBLAS_OP_N,
                 *(const float *)alpha,
                 *(const float *)beta,
                 (float *)D,
                 x->epilogue == CUBLASLT_EPILOGUE_BIAS ? x->bias : nullptr,
                 made.id};
    const char *fastest = getenv("EMU_FASTEST");
    double ms = made.id == (unsigned)(fastest ? atoi(fastest) : 0) ? 500 : 1000;
    ms = p.bias ? 0.9 * ms : ms;
    cudaDataType type = ma->type;
    bool rounds = x->tf32;
    auto run = [=] {
        memset(workspace, 0xff, 4096);
        spend(ms);
        if (type == CUDA_R_16BF)
            multiply(p, (const __nv_bfloat16 *)A, (const __nv_bfloat16 *)B);
        else if (type == CUDA_R_16F)
            multiply(p, (const __half *)A, (const __half *)B);
        else if (rounds)
            multiply(p, (const tf32 *)A, (const tf32 *)B);
        else
            multiply(p, (const float *)A, (const float *)B);
    };
    count_call(PRODUCTS, s);
    enqueue(s, run, {A, B, D, workspace, p.bias});
    return CUBLAS_STATUS_SUCCESS;
}
}
