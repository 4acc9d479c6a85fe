/* Matrix products through cuBLASLt; what follows them (bias, activation) in a kernel of our
 * own, or a bias in the product itself where that is faster.
 *
 * In bf16 and f16 the operands are rounded to copies first (a weight's is kept in its
 * pack), and the tensor cores sum in f32; a GPU without bf16 multiplies the rounded values
 * in f32. In TF32 the tensor cores round f32 operands themselves, where there are such.
 *
 * Which algorithm runs is a matter of the kind of product alone (choose.c). One that does
 * not fit the true sizes is replaced by the best one for those: a function of sizes, too.
 */
#include <cublasLt.h>
#include <pthread.h>
#include <string.h>

#include "kernels/cuda/product.h"

static struct {
    pthread_mutex_t lock;
    cublasLtHandle_t handle;
    void *workspace;
} lt = {.lock = PTHREAD_MUTEX_INITIALIZER};

cublasLtHandle_t product_library(void)
{
    return lt.handle;
}

void *product_workspace(void)
{
    return lt.workspace;
}

int product_check(cublasStatus_t s, const char *what)
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
        rc = product_check(cublasLtCreate(&lt.handle), "open cuBLASLt");
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

void product_close(struct product *p)
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
static int layout(cublasLtMatrixLayout_t *out, int type, long rows, long cols, long ld)
{
    cudaDataType t = type == OPERAND_BF16  ? CUDA_R_16BF
                     : type == OPERAND_F16 ? CUDA_R_16F
                                           : CUDA_R_32F;

    return product_check(
        cublasLtMatrixLayoutCreate(out, t, (uint64_t)cols, (uint64_t)rows, ld), "layout");
}

static int set(cublasLtMatmulDesc_t op, cublasLtMatmulDescAttributes_t what,
               const void *value, size_t bytes)
{
    return product_check(cublasLtMatmulDescSetAttribute(op, what, value, bytes),
                         "description");
}

int product_open(struct product *p, const struct kind *k, struct strides ld,
                 const float *bias)
{
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    cublasOperation_t ta = k->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t tb = k->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasComputeType_t compute =
        k->type == OPERAND_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    int rc =
        product_check(cublasLtMatmulDescCreate(&p->op, compute, CUDA_R_32F), "description");

    if (!rc)
        rc = set(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta);
    if (!rc)
        rc = set(p->op, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb);
    if (!rc && bias)
        rc = set(p->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (!rc && bias)
        rc = set(p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    if (!rc)
        rc = layout(&p->a, k->type, k->trans_b ? k->N : k->K, k->trans_b ? k->K : k->N,
                    ld.b);
    if (!rc)
        rc = layout(&p->b, k->type, k->trans_a ? k->K : k->M, k->trans_a ? k->M : k->K,
                    ld.a);
    return rc ? rc : layout(&p->c, OPERAND_F32, k->M, k->N, ld.c);
}

/* Operands as they are multiplied: a's and b's own memory, or rounded copies. */
struct operands {
    const void *a, *b;
    struct strides ld;
    enum cuda_operand type;
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

/* c = act(c + bias) where there is any of it. */
static int follow(const struct matmul_args *a)
{
    return a->bias || a->act != ACT_NONE || a->pre ? cuda_epilogue(a) : 0;
}

static void set_kind(struct kind *k, const struct matmul_args *a, const struct operands *x)
{
    memset(k, 0, sizeof *k); /* compared as bytes */
    *k = (struct kind){a->M, a->N, a->K, a->trans_a, a->trans_b, a->accumulate, x->type};
    k->align_in = alignment(x->a, x->b, x->ld.a, x->ld.b, operand_size(x->type));
    k->align_out = alignment(a->c, NULL, a->ldc, 0, 4);
    k->bias = a->bias && (uintptr_t)a->bias % 16 == 0 && a->act == ACT_NONE && !a->pre;
}

static int run(const struct matmul_args *a, const struct operands *x)
{
    struct product p = {0};
    struct choice c;
    cublasStatus_t s;
    struct kind k;
    int rc;

    set_kind(&k, a, x);
    rc = choose_algorithm(&k, &c);
    if (!rc)
        rc = product_open(&p, &k, x->ld, c.fused ? a->bias : NULL);
    if (!rc) {
        s = multiply(a, x, &p, &c.algo);
        if (s == CUBLAS_STATUS_NOT_SUPPORTED || s == CUBLAS_STATUS_INVALID_VALUE) {
            c.fused = 0;
            product_close(&p);
            rc = choose_exactly(&k, x->ld, &c.algo);
            if (!rc)
                rc = product_open(&p, &k, x->ld, NULL);
            s = rc ? s : multiply(a, x, &p, &c.algo);
        }
        if (!rc)
            rc = product_check(s, "cublasLtMatmul");
    }
    product_close(&p);
    return rc || c.fused ? rc : follow(a);
}

/* ---- bf16 and f16 -------------------------------------------------------------------- */

enum { ROUND_TO = 8 }; /* strides of rounded copies: 16 bytes of two-byte numbers */

static long copy_stride(long cols)
{
    return (cols + ROUND_TO - 1) / ROUND_TO * ROUND_TO;
}

/* The weight's rounded copy, made anew when the weight has changed. */
static int round_weight(const struct matmul_args *a, long rows, long cols,
                        enum cuda_operand type, const void **out)
{
    struct op_pack *pack = a->pack;
    uint64_t tag = (uint64_t)rows << 32 | (uint64_t)cols << 2 | (uint64_t)type;
    size_t bytes = (size_t)(rows * copy_stride(cols)) * operand_size(type);
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
        rc = cuda_round(pack->data, copy_stride(cols), type, a->b, a->ldb, rows, cols);
        pack->packed = rc ? 0 : pack->version;
    }
    *out = pack->data;
    return rc;
}

static int rounds(const struct matmul_args *a)
{
    return a->precision == PRECISION_BF16 || a->precision == PRECISION_F16;
}

/* Where and how the operands will lie; of copies not yet where. */
static struct operands operands_of(const struct matmul_args *a)
{
    int tf32 = a->precision == PRECISION_TF32 && cuda_bf16(); /* both: sm_80 and up */
    long cols_a = a->trans_a ? a->M : a->K, cols_b = a->trans_b ? a->K : a->N;

    if (!rounds(a))
        return (struct operands){
            a->a, a->b, {a->lda, a->ldb, a->ldc}, tf32 ? OPERAND_TF32 : OPERAND_F32};
    return (struct operands){NULL,
                             NULL,
                             {copy_stride(cols_a), copy_stride(cols_b), a->ldc},
                             a->precision == PRECISION_F16 ? OPERAND_F16
                             : cuda_bf16()                 ? OPERAND_BF16
                                                           : OPERAND_F32};
}

static int run_rounded(const struct matmul_args *a, struct operands *x)
{
    size_t size = operand_size(x->type);
    int rc;
    long rows_a = a->trans_a ? a->K : a->M, cols_a = a->trans_a ? a->M : a->K;
    long rows_b = a->trans_b ? a->N : a->K, cols_b = a->trans_b ? a->K : a->N;
    size_t bytes_a = (size_t)(rows_a * x->ld.a) * size;
    size_t bytes_b = a->pack ? 0 : (size_t)(rows_b * x->ld.b) * size;
    char *copy = cuda_scratch(bytes_a + bytes_b);

    if (!copy)
        return ERR_NOMEM;
    x->a = copy;
    rc = cuda_round(copy, x->ld.a, x->type, a->a, a->lda, rows_a, cols_a);
    if (!rc && a->pack)
        rc = round_weight(a, rows_b, cols_b, x->type, &x->b);
    else if (!rc) {
        x->b = copy + bytes_a;
        rc = cuda_round(copy + bytes_a, x->ld.b, x->type, a->b, a->ldb, rows_b, cols_b);
    }
    return rc ? rc : run(a, x);
}

int cuda_matmul(const struct matmul_args *a)
{
    struct operands x;
    int rc = cuda_ready();

    if (a->accumulate && (a->bias || a->act != ACT_NONE || a->pre))
        return op_fail(ERR_FAILED, "matmul: accumulate excludes bias and activation");
    if (rc || !a->M || !a->N)
        return rc;
    pthread_mutex_lock(&lt.lock);
    rc = open_library();
    x = operands_of(a);
    if (!rc)
        rc = rounds(a) ? run_rounded(a, &x) : run(a, &x);
    pthread_mutex_unlock(&lt.lock);
    return rc;
}

void cuda_pack_free(struct op_pack *p)
{
    cuda_release(p->data);
    p->data = NULL;
    p->packed = 0;
}

int choices_prepare(const struct matmul_args *a)
{
    struct operands x;
    struct choice c;
    struct kind k;
    int rc = cuda_ready();

    if (rc)
        return rc;
    pthread_mutex_lock(&lt.lock);
    rc = open_library();
    x = operands_of(a);
    set_kind(&k, a, &x);
    if (!rc)
        rc = choose_algorithm(&k, &c);
    pthread_mutex_unlock(&lt.lock);
    return rc;
}

int choices_put(const char *text)
{
    int rc = cuda_ready();

    if (rc)
        return rc;
    pthread_mutex_lock(&lt.lock);
    rc = open_library();
    if (!rc)
        rc = choices_put_locked(text);
    graph_forget();
    pthread_mutex_unlock(&lt.lock);
    return rc;
}
