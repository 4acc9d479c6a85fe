/* The CPU back end's own header: what its files share.
 *
 * Invariant: every operator here gives the same bits for every number of threads: work is
 * cut into blocks, a block is done by one thread, and wherever a sum crosses blocks their
 * bounds depend on the arguments alone and the sum is taken in block order. */
#ifndef KERNELS_CPU_CPU_H
#define KERNELS_CPU_CPU_H

#include <stddef.h>

#include "kernels/backend.h"
#include "kernels/cpu/loops.h"

/* The table: every operator is done here; host memory is handled as `host` does it. */
const struct backend *cpu_backend(const struct backend *host);

/* ---- parallel.c ---- */
void cpu_set_threads(int n);
int cpu_threads(void);

/* Runs task(arg, i, worker) for i = 0 .. n-1 on up to cpu_threads() threads, any order;
 * worker < cpu_threads() is the thread's number. `work` is the whole loop's cost in
 * elementary operations (about nanoseconds): too little of it runs on the caller alone. */
void cpu_for(long n, double work, void (*task)(void *arg, long i, int worker), void *arg);
/* Threads that cpu_for() would use for that much work. */
int cpu_threads_for(double work);

/* ---- scratch.c ---- */
/* A 64-aligned buffer of at least `bytes`, kept for reuse when given back; NULL: none. */
void *cpu_scratch_take(size_t bytes);
void cpu_scratch_give(void *p);

static inline long cpu_min(long a, long b)
{
    return a < b ? a : b;
}
static inline long cpu_ceil_div(long a, long b)
{
    return (a + b - 1) / b;
}

#define X(op) int cpu_##op(const struct op##_args *);
HONE_OPS(X)
#undef X
int cpu_matmul_bf16(const struct matmul_args *a); /* and f16; M, N, K > 0 */
void cpu_pack_free(struct op_pack *p);

#endif
