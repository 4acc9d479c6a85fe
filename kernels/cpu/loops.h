/* The inner loops, compiled once for each instruction set (loops_<isa>.c) and chosen by
 * what this processor has. Arrays need no alignment; n may be any length. */
#ifndef KERNELS_CPU_LOOPS_H
#define KERNELS_CPU_LOOPS_H

#include "kernels/op.h"

/* See tile.h. */
struct tile {
    const float *a;
    long rs, ks;
    const float *b;
    long bs;
    float *c;
    long ldc;
    long k;
    int rows, add;
};

struct epilogue {
    float *c, *pre; /* (rows, n) with stride ldc; pre or NULL */
    long ldc, n;
    int rows;
    const float *bias; /* (n) or NULL */
    enum op_act act;
};

/* AdamW's constants of one step, see rows_train.h. */
struct adamw_step {
    float beta1, beta2, rest1, rest2; /* rest: 1 - beta */
    float grad_scale, eps, rate;      /* eps sqrt(1 - b2^t); sqrt(1 - b2^t) / (1 - b1^t) */
};

struct cpu_loops {
    const char *name; /* "avx512", "avx2", "plain" */
    int tile_m, tile_n;
    int strips;      /* copied at once: together about whole cache lines */
    long far_group;  /* floats of packed panels when a's strips come from afar */
    long plain_most; /* rows of a product up to which b's own rows serve as panels */
    void (*tile)(const struct tile *t);
    void (*pack_rows)(const float *b, long ldb, long n, long k, float *out);
    void (*pack_columns)(const float *b, long ldb, long n, long k, float *out);
    void (*copy_strips)(const float *a, long lda, const long *at, int n, long k, float *out,
                        long room);
    void (*round_bf16)(const float *x, float *y, long n); /* y may be x */
    void (*epilogue)(const struct epilogue *e);
    void (*act)(enum op_act act, const float *x, float *y, long n);
    void (*act_slope)(enum op_act act, const float *x, const float *dy, float *dx, long n);
    void (*glu)(enum op_act act, const float *gate, const float *up, float *y, long n);
    void (*glu_slope)(enum op_act act, const float *gate, const float *up, const float *dy,
                      float *dgate, float *dup, long n);
    void (*add)(const float *x, float *y, long n);
    void (*scale)(float f, const float *x, float *y, long n);
    void (*keep)(const struct op_dropout *d, long row, uint32_t group, long n, float *out);
    void (*dropout)(const struct op_dropout *d, long row, const float *x, float *y, long n);
    void (*norm)(const struct norm_args *a, long from, long to);
    void (*norm_backward)(const struct norm_backward_args *a, long from, long to, float *dw,
                          float *db);
    float (*cross_entropy)(const struct cross_entropy_args *a, const float *z, int y,
                           float *dz);
    void (*logprob)(const float *z, long n, float scale, float *state);
    void (*logprob_slope)(float *z, long n, float scale, long t, const float *state,
                          const float *g);
    float (*softmax)(float *s, long n, long lo, long hi, float scale, float *top,
                     float *sum);
    void (*softmax_slope)(float *s, float *dp, const float *keep, long n, long lo, long hi,
                          float scale, float lse, float delta);
    float (*dot)(const float *x, const float *y, long n);
    void (*adamw)(const struct adamw_tensor *t, const struct adamw_step *k, long from,
                  long to);
    double (*square_sum)(const float *x, long n);
};

extern const struct cpu_loops cpu_loops_plain;
#if defined(__x86_64__)
extern const struct cpu_loops cpu_loops_avx512, cpu_loops_avx2;
#endif

/* The best this processor runs; HONE_ISA=avx2 or plain asks for less. */
const struct cpu_loops *cpu_loops(void);

#endif
