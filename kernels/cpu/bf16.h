/* Inner loops of bf16 products, one table for each kind of instruction:
 *
 *     amx           tdpbf16ps, 32 x 32 of c in four tile registers
 *     avx512_bf16   vdpbf16ps, 14 x 32 of c in 28 vectors
 *     rounding      any processor: operands rounded to bf16 but kept as f32, and the f32
 *                   tile. Correct everywhere, faster nowhere
 *
 * A panel holds tile_n columns of the right-hand matrix, a strip up to tile_m rows of the
 * left-hand one, both for one chunk of K, rounded up to k_step with zeros. Their layout is
 * the table's own; an element takes `bytes`.
 *
 * Invariant: an element of c is summed over k in an order that depends on k alone. */
#ifndef KERNELS_CPU_BF16_H
#define KERNELS_CPU_BF16_H

#include "kernels/op.h"

struct bf16_tile {
    const void *a; /* strip: rows `row_bytes` apart */
    const void *b; /* panel */
    float *c;      /* (rows, tile_n) */
    long row_bytes, ldc;
    long k; /* a multiple of k_step */
    int rows, add;
};

/* Part of a matrix to be packed: `n` rows or columns of k elements. Element (i, k) is
 * x[i ld + k] for `along`, x[k ld + i] for `across`. */
struct bf16_pack {
    const float *x;
    long ld, n, k;
    void *out;
    long row_bytes; /* strips */
};

struct cpu_bf16 {
    const char *name;
    int native;         /* faster than f32 is likely */
    int tile_m, tile_n; /* largest tile */
    int row_step;       /* a tile has a multiple of so many rows, none of them missing */
    int strip_rows;     /* a strip has room for so many */
    int k_step, k_chunk, bytes;
    double per_ns;                     /* multiply-adds, about: for sharing work out */
    void (*begin)(void), (*end)(void); /* around a thread's work with tiles; or NULL */
    void (*tile)(const struct bf16_tile *t);
    void (*panel_along)(const struct bf16_pack *p);
    void (*panel_across)(const struct bf16_pack *p);
    void (*strip_along)(const struct bf16_pack *p);
    void (*strip_across)(const struct bf16_pack *p);
};

#if defined(__x86_64__)
extern const struct cpu_bf16 cpu_bf16_avx512, cpu_bf16_amx;
#endif

/* The best this processor runs (features.h). */
const struct cpu_bf16 *cpu_bf16(void);
/* For f16, by rounding alone: so that what a GPU trained can go on here, and be tested. */
const struct cpu_bf16 *cpu_f16(void);

#endif
