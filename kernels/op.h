/* The operators: one argument struct each, shapes in comments. Everything that must know
 * the whole set (the back-end tables, the reference table, the operator tests, traces)
 * reads HONE_OPS.
 *
 * Conventions
 * - Letters: B sequences, T packed tokens, N rows, D width, H heads, K kv heads, d head
 *   size, F feed-forward, V vocabulary. Matrices are row-major; ld* are row strides in
 *   elements. Everything is f32 in memory; reductions inside an operator accumulate in
 *   f32 with a fixed order (or wider), never in an order that depends on threads. Matrix
 *   products may round their operands (enum op_precision).
 * - House rule: parameter gradients accumulate (+=), activation gradients overwrite (=).
 * - Sequences are packed without padding; cu_seqlens[B + 1] marks their bounds.
 * - Same inputs, same back end: same bits, for every number of threads. The output rows
 *   of a sequence do not depend on what else is in the batch (row invariance).
 * - Inputs and outputs do not overlap unless an operator says so.
 * - Result 0, or a negative ERR_ code with the reason in backend_error(). */
#ifndef KERNELS_OP_H
#define KERNELS_OP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* BF16, F16: both operands of the product are rounded to bf16 or f16 (to nearest even; what
 * is too large for f16 becomes infinity); products are exact and summed in f32, in an order
 * that K and the instruction set alone decide. Bias, activation and c stay f32. Operands
 * and results below 2^-126 may count as 0. TF32: the operands may be rounded to 10 bits of
 * fraction, where the device has units for it; everywhere else it is f32. */
enum op_precision { PRECISION_F32, PRECISION_BF16, PRECISION_F16, PRECISION_TF32 };
enum op_act { ACT_NONE, ACT_GELU_ERF, ACT_GELU_TANH, ACT_RELU, ACT_SILU, ACT_TANH };
enum op_norm { NORM_LAYER, NORM_RMS };
enum op_pool { POOL_FIRST, POOL_MEAN, POOL_LAST, POOL_SUM };

/* Dropout keyed by what an element is, never by its place in a batch. With `key` =
 * rng_key(seed, DROPOUT, step, 0), element c of token t is dropped iff
 *     philox({example[t], position[t], c / 4, site}, key)[c % 4] < p * 2^32,
 * the rest is scaled by 1/(1-p). Attention probabilities (query token t, head h, key
 * position j within the sequence) use {example[t], position[t], h * 65536 + j / 4, site}
 * and word j % 4. For (B, .) tensors example and position hold one entry a row.
 * p = 0: off, nothing else is read. */
struct op_dropout {
    float p;
    uint32_t site;
    uint64_t key;
    const uint32_t *example, *position; /* (T) or (B) */
};

/* A back end's private, packed copy of a weight matrix; belongs to the parameter. The
 * owner raises `version` when the weight changes, the back end repacks when it differs
 * from `packed` (first use: packed == 0 and version >= 1). A pack serves products of one
 * precision. */
struct op_pack {
    uint64_t version, packed;
    void *data;   /* freed by the back end's pack_free */
    uint64_t tag; /* private */
};

/* c (M,N) = act(op(a) op(b) + bias), or c += op(a) op(b) with accumulate (then no bias and
 * no act). `pre`, when not NULL, receives the value before the activation. */
struct matmul_args {
    long M, N, K;
    const float *a;
    long lda;
    int trans_a; /* 0: a is (M,K); 1: (K,M) */
    const float *b;
    long ldb;
    int trans_b;       /* 0: b is (K,N); 1: (N,K) */
    const float *bias; /* (N) or NULL */
    enum op_act act;
    float *pre; /* (M,N) with ldc, or NULL */
    float *c;
    long ldc;
    int accumulate;
    struct op_pack *pack; /* of b, when b is a weight; or NULL */
    enum op_precision precision;
};

/* y = act(x), elementwise, n elements; y may be x. */
struct act_args {
    enum op_act act;
    const float *x;
    float *y;
    long n;
};

/* dx (N,D) = dy * act'(x), x before the activation; dbias (D) += column sums of dx when not
 * NULL. ACT_NONE with dx == dy (nothing is copied) gives the bias gradient alone. dx may
 * be dy. */
struct act_backward_args {
    enum op_act act;
    const float *x, *dy; /* (N,D) */
    float *dx;           /* (N,D) */
    float *dbias;        /* (D) or NULL */
    long N, D;
};

/* y = silu(gate) * up, elementwise on (N,F); gate and up may be column blocks of one
 * matrix (stride ld). */
struct glu_args {
    enum op_act act; /* ACT_SILU, ACT_GELU_TANH, ACT_GELU_ERF */
    const float *gate, *up;
    long ld;
    float *y; /* (N,F), contiguous */
    long N, F;
};
struct glu_backward_args {
    enum op_act act;
    const float *gate, *up, *dy;
    long ld; /* also of dgate, dup */
    float *dgate, *dup;
    long N, F;
};

/* s = dropout(x) + residual; y = norm(s) * w + b. Layer norm (Ba et al. 2016): mean and
 * biased variance, two-pass; RMS norm (Zhang & Sennrich 2019): no mean, no b.
 * residual NULL: s = dropout(x). sum may be NULL when residual is NULL and p = 0 (then x
 * itself is s). sum may be x or residual. */
struct norm_args {
    enum op_norm kind;
    long N, D;
    const float *x, *residual; /* (N,D) */
    const float *w, *b;        /* (D); b NULL for RMS */
    float eps;
    struct op_dropout dropout;
    float *sum;         /* (N,D): s, what backward needs */
    float *y;           /* (N,D) */
    float *mean, *rstd; /* (N); mean unused for RMS */
};
/* ds = norm'(dy) + dsum; dresidual = ds; dx = dropout'(ds); dw += , db +=. */
struct norm_backward_args {
    enum op_norm kind;
    long N, D;
    const float *dy;   /* (N,D) */
    const float *dsum; /* (N,D): gradient that reaches s from elsewhere, or NULL */
    const float *sum, *w, *mean, *rstd;
    struct op_dropout dropout;
    float *dx;        /* (N,D), or NULL; may be dy */
    float *dresidual; /* (N,D), or NULL; when p = 0 it may be NULL and dx serves both */
    float *dw, *db;   /* (D), or NULL */
};

/* RMS norm of each head, in place on x (T, heads, d) with token stride ld, all heads with
 * one w (Qwen3: q and k before they are turned): saved = x; x = saved rstd w. */
struct head_norm_args {
    float *x;
    long ld, T;
    int heads, d;
    const float *w; /* (d) */
    float eps;
    float *saved; /* (T, heads, d), contiguous */
    float *rstd;  /* (T, heads) */
};
/* dx = norm'(dx) in place, stride ld; dw +=. */
struct head_norm_backward_args {
    float *dx;
    long ld, T;
    int heads, d;
    const float *w, *saved, *rstd;
    float *dw; /* (d), or NULL */
};

/* y[t] = sum over n tables of table[i][index[i][t]]; indices are checked by the caller. */
enum { OP_TABLES_MAX = 3 };
struct embedding_args {
    int n;
    const float *table[OP_TABLES_MAX]; /* (rows, D) */
    const int *index[OP_TABLES_MAX];   /* (T) */
    float *y;                          /* (T,D) */
    long T, D;
};
/* dtable[row] += sum of dy over the tokens with index row, in token order: deterministic.
 * `order` lists the tokens sorted by (index, token); segment s covers order[start[s]] ..
 * order[start[s + 1] - 1], all of one index; the last ones may be empty. */
struct embedding_backward_args {
    const int *index; /* (T) */
    const int *order; /* (T) */
    const int *start; /* (n_segments + 1) */
    long n_segments, T, D;
    const float *dy; /* (T,D) */
    float *dtable;   /* (rows, D) */
};

/* Rotary positions (Su et al. 2021), in place on x (T, heads, d) with token stride ld: pair
 * (i, i + rot/2), or (2i, 2i + 1) when interleaved, turns by position * freq[i]; the first
 * `rot` of each head's d. inverse = 1 turns back (the gradient). */
struct rotary_args {
    float *x;
    long ld, T;
    int heads, d, rot, interleaved, inverse;
    const uint32_t *position; /* (T) */
    const float *freq;        /* (rot / 2) */
};

/* Variable-length attention (flash: Dao et al. 2022; no T x T matrix in memory).
 * o = softmax(scale q k^T + mask) v for each sequence and head; head h uses kv head
 * h / (H / K). causal: key j is seen by query i if j <= i; window > 0: and i - j < window.
 * lse (T,H): log of the softmax denominator, with the maximum in it. Below f32 a back end
 * may round the operands of its products: q, k, v, dout, probabilities and their gradient.
 */
struct attention_args {
    const float *q, *k, *v; /* (T, H or K heads, d) with token strides */
    long ldq, ldk, ldv, ldo;
    float *o;              /* (T, H, d) */
    float *lse;            /* (T, H), or NULL for inference */
    const int *cu_seqlens; /* (B + 1) */
    long B, T;
    int H, K, d, causal, window;
    float scale;
    struct op_dropout dropout; /* on the probabilities */
    enum op_precision precision;
};
struct attention_backward_args {
    const float *q, *k, *v, *o, *dout; /* dout like o */
    const float *lse;
    long ldq, ldk, ldv, ldo; /* dq, dk, dv use ldq, ldk, ldv; dout uses ldo */
    float *dq, *dk, *dv;
    const int *cu_seqlens;
    long B, T;
    int H, K, d, causal, window;
    float scale;
    struct op_dropout dropout;
    enum op_precision precision;
};

/* y (B,D): the first, the last, the mean or the sum of each sequence's rows of x (T,D). */
struct pool_args {
    enum op_pool kind;
    const float *x;
    float *y;
    const int *cu_seqlens;
    long B, T, D;
};
/* dx (T,D) = (rows that no gradient reaches become 0). */
struct pool_backward_args {
    enum op_pool kind;
    const float *dy; /* (B,D) */
    float *dx;       /* (T,D) */
    const int *cu_seqlens;
    long B, T, D;
};

/* Softmax cross-entropy, forward and gradient in one pass. Row n with label y:
 *   loss[n] = -sum_v q_v log p_v, q = (1 - smoothing) one-hot(y) + smoothing / V,
 *   with focal (Lin et al. 2017): (1 - p_y)^focal in front (then smoothing must be 0);
 *   dlogits = scale * d loss[n]. Rows with label -100: loss 0, gradient 0. */
struct cross_entropy_args {
    const float *logits; /* (N,V) */
    const int *label;    /* (N) */
    float smoothing, focal, scale;
    float *loss;    /* (N) */
    float *dlogits; /* (N,V), may be logits, or NULL */
    long N, V;
};

/* Log-probabilities of chosen tokens under softmax(scale z), where the logits z (N,V) never
 * exist whole: the caller makes them a fragment of columns at a time, `first` ascending
 * from 0, every column once, and calls this for each fragment. With t the target of a row:
 *   out[n] = {log p_t, entropy -sum_v p_v log p_v, 1 if no token is likelier than t else 0,
 *             1}, written with the last fragment; target -100: all 0.
 * `state` passes from fragment to fragment and on to the gradient: the largest scaled
 * logit, the sum of exp(scale z - largest), that of it times (scale z - largest), z_t; once
 * the last fragment is in: largest, log of the sum, entropy, z_t. A row's bits depend on
 * its logits and on how its columns were cut. Targets are checked by the caller. */
enum { LOGPROB_OUT = 4, LOGPROB_STATE = 4 };
struct logprob_args {
    const float *logits; /* (N, columns), contiguous: z from column `first` */
    long N, V, first, columns;
    float scale;       /* 1 / temperature */
    const int *target; /* (N) 0 .. V - 1, or -100 */
    float *state;      /* (N, LOGPROB_STATE) */
    float *out;        /* (N, LOGPROB_OUT) */
};
/* The fragment becomes its own gradient: with g = dout[n],
 *   dz_v = scale (g[0] ([v = t] - p_v) - g[1] p_v (log p_v + entropy)). */
struct logprob_backward_args {
    float *logits; /* (N, columns) */
    long N, first, columns;
    float scale;
    const int *target;
    const float *state; /* after the last fragment */
    const float *dout;  /* (N, LOGPROB_OUT) */
};

/* y = dropout(x) on (N,D); the same call on dy gives dx. y may be x. */
struct dropout_args {
    const float *x;
    float *y;
    long N, D;
    struct op_dropout dropout;
};

/* y += x, n elements. */
struct add_args {
    const float *x;
    float *y;
    long n;
};

/* AdamW (Loshchilov & Hutter 2019) over many tensors, bias-corrected, step counts from 1:
 *   g = grad * grad_scale; m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
 *   p -= lr * (decay * p + (m / (1-b1^step)) / (sqrt(v / (1-b2^step)) + eps)).
 * live: rows of `width` elements whose flag is 0 have never had a gradient: their moments
 * are zero, so without decay they are left alone exactly. Gradients are set to 0.
 * On every back end the list of tensors, `live` and grad_norm's `sum` are host memory. */
struct adamw_tensor {
    float *p, *grad, *m, *v;
    long n;
    long width;                /* row width when live is given */
    const unsigned char *live; /* (n / width), or NULL: all rows */
    float decay, lr;           /* learning rate of this tensor at this step */
};
struct adamw_args {
    const struct adamw_tensor *tensor;
    int n;
    double beta1, beta2, eps;
    long step;
    float grad_scale;
};

/* sum[i] = sum of squares of tensor i's gradient in double, in a fixed order; a value that
 * is not finite makes it so. Reads only p-independent fields: grad, n, width, live. */
struct grad_norm_args {
    const struct adamw_tensor *tensor;
    int n;
    double *sum; /* (n) */
};

#define HONE_OPS(X)                                                                        \
    X(matmul)                                                                              \
    X(act)                                                                                 \
    X(act_backward)                                                                        \
    X(glu)                                                                                 \
    X(glu_backward)                                                                        \
    X(norm)                                                                                \
    X(norm_backward)                                                                       \
    X(head_norm)                                                                           \
    X(head_norm_backward)                                                                  \
    X(embedding)                                                                           \
    X(embedding_backward)                                                                  \
    X(rotary)                                                                              \
    X(attention)                                                                           \
    X(attention_backward)                                                                  \
    X(pool)                                                                                \
    X(pool_backward)                                                                       \
    X(cross_entropy)                                                                       \
    X(logprob)                                                                             \
    X(logprob_backward)                                                                    \
    X(dropout)                                                                             \
    X(add)                                                                                 \
    X(adamw)                                                                               \
    X(grad_norm)

#ifdef __cplusplus
}
#endif
#endif
