/* Matrix products through cuBLASLt; bias and activation follow in a kernel of our own.
 *
 * cuBLASLt knows columns first, so that a row-major c = op(a) op(b) is computed as
 * c^T = op(b)^T op(a)^T, with no copies. In bf16 the operands are rounded to copies first
 * (a weight's is kept in its pack), and the tensor cores sum in f32; a GPU without bf16
 * multiplies the rounded values in f32.
 *
 * Which algorithm runs is decided once for each kind of product, and for stand-in sizes:
 * the number of rows M of a layer's product, and the length K of a weight gradient's,
 * differ from batch to batch and are replaced by STAND_IN. So the choice does not depend on
 * what was computed before (a resumed run makes the same one), and the bits of a row do not
 * depend on how many rows there are: split-K is left out of products over rows. In weight
 * gradients it is allowed through the workspace, where partial sums are added in order;
 * in-place split-K, which adds as blocks finish, never is. An algorithm that does not fit
 * the true sizes is replaced by the best one for those, again a function of sizes alone. */
#include <cublasLt.h>
#include <pthread.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

enum { WORKSPACE = 32 << 20, CHOICES_MAX = 512, STAND_IN = 4096 };

/* What an algorithm is chosen for. */
struct kind {
    long M, N, K; /* M or K: STAND_IN */
    int trans_a, trans_b, accumulate, bf16;
    int align_in, align_out; /* bytes that pointers and strides are multiples of */
};

struct choice {
    struct kind kind;
    cublasLtMatmulAlgo_t algo;
};

static struct {
    pthread_mutex_t lock;
    cublasLtHandle_t handle;
    void *workspace;
    int n;
    struct choice choice[CHOICES_MAX];
} lt = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct product {
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c; /* a and b as cuBLASLt has them: exchanged */
};

static int blas_check(cublasStatus_t s, const char *what)
{
    if (s == CUBLAS_STATUS_SUCCESS)
        return 0;
    return op_fail(s == CUBLAS_STATUS_ALLOC_FAILED ? ERR_NOMEM : ERR_DEVICE,
                   "%s: matmul: %s: %s%s", cuda_name(), what, cublasLtGetStatusString(s),
                   s == CUBLAS_STATUS_ALLOC_FAILED || s == CUBLAS_STATUS_NOT_INITIALIZED
                       ? ": lower micro_tokens, or free the device"
                       : "");
}

static int open_library(void)
{
    int rc = 0;

    if (!lt.handle)
        rc = blas_check(cublasLtCreate(&lt.handle), "open cuBLASLt");
    if (!rc && !lt.workspace)
        rc = cuda_check(cudaMalloc(&lt.workspace, WORKSPACE), "workspace of cuBLASLt");
    return rc;
}

int cuda_open_products(void)
{
    int rc;

    pthread_mutex_lock(&lt.lock);
    rc = open_library();
    pthread_mutex_unlock(&lt.lock);
    return rc;
}

static void close_product(struct product *p)
{
    if (p->c)
        cublasLtMatrixLayoutDestroy(p->c);
    if (p->b)
        cublasLtMatrixLayoutDestroy(p->b);
    if (p->a)
        cublasLtMatrixLayoutDestroy(p->a);
    if (p->op)
        cublasLtMatmulDescDestroy(p->op);
    memset(p, 0, sizeof *p);
}

/* A matrix of rows x cols with row stride ld is cols x rows to cuBLASLt. */
static int layout(cublasLtMatrixLayout_t *out, int bf16, long rows, long cols, long ld)
{
    return blas_check(cublasLtMatrixLayoutCreate(out, bf16 ? CUDA_R_16BF : CUDA_R_32F,
                                                 (uint64_t)cols, (uint64_t)rows, ld),
                      "layout");
}

struct strides {
    long a, b, c;
};

static int open_product(struct product *p, const struct kind *k, struct strides ld)
{
    cublasOperation_t ta = k->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t tb = k->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    int rc = blas_check(cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                        "description");

    if (!rc)
        rc = blas_check(cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA,
                                                       &ta, sizeof ta),
                        "description");
    if (!rc)
        rc = blas_check(cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSB,
                                                       &tb, sizeof tb),
                        "description");
    if (!rc)
        rc = layout(&p->a, k->bf16, k->trans_b ? k->N : k->K, k->trans_b ? k->K : k->N,
                    ld.b);
    if (!rc)
        rc = layout(&p->b, k->bf16, k->trans_a ? k->K : k->M, k->trans_a ? k->M : k->K,
                    ld.a);
    return rc ? rc : layout(&p->c, 0, k->M, k->N, ld.c);
}

/* Strides as short as may be. */
static struct strides tight(const struct kind *k)
{
    long in = k->align_in / (k->bf16 ? 2 : 4), out = k->align_out / 4;
    long a = k->trans_a ? k->M : k->K, b = k->trans_b ? k->K : k->N;

    return (struct strides){(a + in - 1) / in * in, (b + in - 1) / in * in,
                            (k->N + out - 1) / out * out};
}

static int is_gradient(const struct kind *k)
{
    return k->trans_a && k->accumulate;
}

static int prefer(cublasLtMatmulPreference_t pref, const struct kind *k)
{
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    uint64_t workspace = WORKSPACE;
    uint32_t align, split = CUBLASLT_REDUCTION_SCHEME_NONE;
    int rc = blas_check(
        cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &workspace, sizeof workspace),
        "preference");

    if (is_gradient(k)) /* long sums, few results */
        split |= CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    if (!rc)
        rc = blas_check(
            cublasLtMatmulPreferenceSetAttribute(
                pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &split, sizeof split),
            "preference");
    for (size_t i = 0; !rc && i < sizeof alignments / sizeof *alignments; i++) {
        align = (uint32_t)(i < 2 ? k->align_in : k->align_out);
        rc = blas_check(
            cublasLtMatmulPreferenceSetAttribute(pref, alignments[i], &align, sizeof align),
            "preference");
    }
    return rc;
}

/* The library's first choice for sizes k. */
static int choose(const struct kind *k, struct strides ld, cublasLtMatmulAlgo_t *algo)
{
    struct product p = {0};
    cublasLtMatmulPreference_t pref = NULL;
    cublasLtMatmulHeuristicResult_t best;
    int found = 0, rc = open_product(&p, k, ld);

    if (!rc)
        rc = blas_check(cublasLtMatmulPreferenceCreate(&pref), "preference");
    if (!rc)
        rc = prefer(pref, k);
    if (!rc)
        rc = blas_check(cublasLtMatmulAlgoGetHeuristic(lt.handle, p.op, p.a, p.b, p.c, p.c,
                                                       pref, 1, &best, &found),
                        "choose an algorithm");
    if (!rc && !found)
        rc = op_fail(ERR_DEVICE, "matmul: cuBLASLt knows no algorithm for %ld x %ld x %ld",
                     k->M, k->N, k->K);
    if (!rc)
        *algo = best.algo;
    if (pref)
        cublasLtMatmulPreferenceDestroy(pref);
    close_product(&p);
    return rc;
}

static int algorithm(const struct kind *k, cublasLtMatmulAlgo_t *algo)
{
    struct kind stand_in = *k;
    int rc;

    *(is_gradient(k) ? &stand_in.K : &stand_in.M) = STAND_IN;
    for (int i = 0; i < lt.n; i++) {
        if (!memcmp(&lt.choice[i].kind, &stand_in, sizeof stand_in)) {
            *algo = lt.choice[i].algo;
            return 0;
        }
    }
    rc = choose(&stand_in, tight(&stand_in), algo);
    if (!rc && lt.n < CHOICES_MAX)
        lt.choice[lt.n++] = (struct choice){stand_in, *algo};
    return rc;
}

/* Operands as they are multiplied: a's and b's own memory, or rounded copies. */
struct operands {
    const void *a, *b;
    struct strides ld;
};

static cublasStatus_t multiply(const struct matmul_args *a, const struct operands *x,
                               const struct product *p, const cublasLtMatmulAlgo_t *algo)
{
    float one = 1, beta = a->accumulate ? 1 : 0;

    return cublasLtMatmul(lt.handle, p->op, &one, x->b, p->a, x->a, p->b, &beta, a->c, p->c,
                          a->c, p->c, algo, lt.workspace, WORKSPACE, cuda_stream());
}

static int alignment(const void *p, const void *q, long ld, long ld2, size_t size)
{
    uintptr_t all = (uintptr_t)p | (uintptr_t)q | (uintptr_t)(ld | ld2) * size;

    return all % 16 ? (int)size : 16;
}

static int run(const struct matmul_args *a, const struct operands *x, int bf16)
{
    struct product p = {0};
    cublasLtMatmulAlgo_t algo;
    cublasStatus_t s;
    struct kind k;
    int rc;

    memset(&k, 0, sizeof k); /* compared as bytes */
    k = (struct kind){a->M, a->N, a->K, a->trans_a, a->trans_b, a->accumulate, bf16, 0, 0};
    k.align_in = alignment(x->a, x->b, x->ld.a, x->ld.b, bf16 ? 2 : 4);
    k.align_out = alignment(a->c, NULL, a->ldc, 0, 4);
    rc = open_product(&p, &k, x->ld);
    if (!rc)
        rc = algorithm(&k, &algo);
    if (!rc) {
        s = multiply(a, x, &p, &algo);
        if (s == CUBLAS_STATUS_NOT_SUPPORTED || s == CUBLAS_STATUS_INVALID_VALUE) {
            rc = choose(&k, x->ld, &algo);
            s = rc ? s : multiply(a, x, &p, &algo);
        }
        if (!rc)
            rc = blas_check(s, "cublasLtMatmul");
    }
    close_product(&p);
    return rc;
}

/* ---- bf16 ---------------------------------------------------------------------------- */

enum { ROUND_TO = 8 }; /* strides of rounded copies: 16 bytes of bf16 */

static long copy_stride(long cols)
{
    return (cols + ROUND_TO - 1) / ROUND_TO * ROUND_TO;
}

/* The weight's rounded copy, made anew when the weight has changed. */
static int round_weight(const struct matmul_args *a, long rows, long cols, int bf16,
                        const void **out)
{
    struct op_pack *pack = a->pack;
    uint64_t tag = (uint64_t)rows << 32 | (uint64_t)cols << 1 | (uint64_t)bf16;
    size_t bytes = (size_t)(rows * copy_stride(cols)) * (bf16 ? 2 : 4);
    int rc = 0;

    if (pack->data && pack->tag != tag)
        cuda_pack_free(pack);
    if (!pack->data) {
        pack->data = cuda_alloc(bytes);
        pack->tag = tag;
        pack->packed = 0;
        if (!pack->data)
            return ERR_NOMEM;
    }
    if (pack->packed != pack->version) {
        rc = cuda_round(pack->data, copy_stride(cols), bf16, a->b, a->ldb, rows, cols);
        pack->packed = rc ? 0 : pack->version;
    }
    *out = pack->data;
    return rc;
}

static int run_bf16(const struct matmul_args *a)
{
    int bf16 = cuda_bf16() != NULL, rc;
    size_t size = bf16 ? 2 : 4;
    long rows_a = a->trans_a ? a->K : a->M, cols_a = a->trans_a ? a->M : a->K;
    long rows_b = a->trans_b ? a->N : a->K, cols_b = a->trans_b ? a->K : a->N;
    size_t bytes_a = (size_t)(rows_a * copy_stride(cols_a)) * size;
    size_t bytes_b = a->pack ? 0 : (size_t)(rows_b * copy_stride(cols_b)) * size;
    char *copy = cuda_scratch(bytes_a + bytes_b);
    struct operands x = {copy, NULL, {copy_stride(cols_a), copy_stride(cols_b), a->ldc}};

    if (!copy)
        return ERR_NOMEM;
    rc = cuda_round(copy, x.ld.a, bf16, a->a, a->lda, rows_a, cols_a);
    if (!rc && a->pack)
        rc = round_weight(a, rows_b, cols_b, bf16, &x.b);
    else if (!rc) {
        x.b = copy + bytes_a;
        rc = cuda_round(copy + bytes_a, x.ld.b, bf16, a->b, a->ldb, rows_b, cols_b);
    }
    return rc ? rc : run(a, &x, bf16);
}

int cuda_matmul(const struct matmul_args *a)
{
    struct operands plain = {a->a, a->b, {a->lda, a->ldb, a->ldc}};
    int rc = cuda_ready();

    if (a->accumulate && (a->bias || a->act != ACT_NONE || a->pre))
        return op_fail(ERR_FAILED, "matmul: accumulate excludes bias and activation");
    if (rc || !a->M || !a->N)
        return rc;
    pthread_mutex_lock(&lt.lock);
    rc = open_library();
    if (!rc)
        rc = a->precision == PRECISION_BF16 ? run_bf16(a) : run(a, &plain, 0);
    pthread_mutex_unlock(&lt.lock);
    if (!rc && (a->bias || a->act != ACT_NONE || a->pre))
        rc = cuda_epilogue(a);
    return rc;
}

void cuda_pack_free(struct op_pack *p)
{
    cuda_release(p->data);
    p->data = NULL;
    p->packed = 0;
}
