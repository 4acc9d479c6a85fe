/* A matrix product as cuBLASLt is told of it, and which algorithm computes it.
 *
 * cuBLASLt knows columns first, so that a row-major c = op(a) op(b) is computed as
 * c^T = op(b)^T op(a)^T, with no copies.
 *
 * Invariant: the algorithm of a kind of product does not depend on the batch: the number of
 * rows M of a layer's product, and the length K of a weight gradient's, do not count. It is
 * chosen once, by timing (choose.c), and kept. */
#ifndef KERNELS_CUDA_PRODUCT_H
#define KERNELS_CUDA_PRODUCT_H

#include <cublasLt.h>

#include "kernels/cuda/cuda.h"

enum { WORKSPACE = 32 << 20 };

/* Compared as bytes: clear it first. */
struct kind {
    long M, N, K;
    int trans_a, trans_b, accumulate;
    int type;                /* enum cuda_operand */
    int align_in, align_out; /* bytes that pointers and strides are multiples of */
    int bias;                /* a bias is added, and nothing else is done to c */
};

struct choice {
    struct kind kind;
    cublasLtMatmulAlgo_t algo;
    int fused; /* the bias is added by cuBLASLt, not by a kernel of ours */
    int timed;
};

struct strides {
    long a, b, c;
};

struct product {
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c; /* a and b as cuBLASLt has them: exchanged */
};

/* ---- gemm.c ---- */
int product_check(cublasStatus_t s, const char *what);
/* bias: added by the product itself; or NULL. */
int product_open(struct product *p, const struct kind *k, struct strides ld,
                 const float *bias);
void product_close(struct product *p); /* total */
cublasLtHandle_t product_library(void);
void *product_workspace(void);
static inline int product_is_gradient(const struct kind *k)
{
    return k->trans_a && k->accumulate;
}

/* ---- choose.c: the caller holds gemm.c's lock ---- */
/* The algorithm for products of this kind, whatever their M (a gradient's K). Timed, where
 * it is not known yet and no step runs. */
int choose_algorithm(const struct kind *k, struct choice *out);
/* The library's first one for exactly these sizes, its bias not fused. */
int choose_exactly(const struct kind *k, struct strides ld, cublasLtMatmulAlgo_t *algo);
/* backend.h: choices; put and prepare open the library and take the lock. */
void choices_key(char *buf, size_t n);
unsigned long choices_changes(void);
size_t choices_get(char *buf, size_t n, int all);
int choices_put(const char *text);
int choices_prepare(const struct matmul_args *a);
int choices_put_locked(const char *text);

#endif
