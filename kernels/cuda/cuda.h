/* The CUDA back end's own header: what its files share.
 *
 * Everything runs in order on one stream of one device. An operator returns when its work
 * is queued; only copy_out, and the operators whose result is on the host or that check
 * what lies on the device (grad_norm, pool, cross_entropy), wait for it. What the table
 * (plugin.c) names goes through graph.c first, which runs steps of training as graphs.
 *
 * Invariant: every operator gives the same bits on every run: sums are taken in an order
 * that depends on the arguments alone, and there are no atomics on floats. */
#ifndef KERNELS_CUDA_CUDA_H
#define KERNELS_CUDA_CUDA_H

#include <cuda_runtime_api.h>
#include <stddef.h>

#include "kernels/backend.h"
#include "kernels/fail.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- device.c ---- */
/* Ready to work: opens the device on first use, makes it the calling thread's. 0, or a
 * negative ERR_ code with the reason in op_error(). */
int cuda_ready(void);
int cuda_devices(void);
void cuda_describe(char *buf, size_t n);
void cuda_model(char *buf, size_t n); /* "NVIDIA H200", whichever of them it is */
int cuda_capability(void);            /* 89: compute capability 8.9; 0: no device */
const char *cuda_bf16(void);          /* what multiplies bf16; NULL: nothing does */
const char *cuda_f16(void);
cudaStream_t cuda_stream(void);
/* This thread's work goes to another stream (a capture); NULL: as ever. */
void cuda_divert(cudaStream_t to);
const char *cuda_name(void); /* of the device and its host, for messages */

/* 0, or ERR_DEVICE with "<device>: <what>: <CUDA's words>" and the mend where one is known.
 */
int cuda_check(cudaError_t e, const char *what);
/* The same for the kernels just launched. */
int cuda_launched(const char *what);

int cuda_device(void); /* its number */

/* ---- trace.c: backend.h, struct backend_device ---- */
void trace_bus(char *buf, size_t n);
void trace_enter(int part);
int trace_step_seconds(double *seconds, int n);

/* ---- memory.c ---- */
void *cuda_alloc(size_t bytes);
void cuda_release(void *p);
int cuda_copy_in(void *device, const void *host, size_t bytes);
int cuda_copy_out(void *host, const void *device, size_t bytes);
int cuda_fill_zero(void *device, size_t bytes);

int cuda_memory(size_t *left, size_t *all);
int cuda_reserve(size_t bytes, size_t scratch);
void cuda_step(int begins);
extern int cuda_in_step; /* number of the step that runs; 0: none does */

/* reserve.c: blocks of the one range that cuda_reserve() took. block_take: NULL: no room;
 * block_give: 0: p is none of them. */
void *cuda_block_take(size_t bytes);
int cuda_block_give(void *p);
/* A range of at least `bytes`, where none of its blocks is in use. */
int cuda_blocks_open(size_t bytes);
size_t cuda_blocks_bytes(void);

/* Device memory for the length of one operator: the next one writes over it, in stream
 * order. Grows when it must; NULL: none, with the reason in op_error(). */
void *cuda_scratch(size_t bytes);

/* The scratch memory there is, as graphs have it in them. */
const void *cuda_scratch_at(size_t *bytes);

/* ---- graph.c ---- */
/* Memory for inputs and keys; before the first step. 0, or a negative ERR_ code. */
int graph_open(void);
/* Run what was written down so far: before anything that must come behind it. Returns a
 * failure that could not be told before, too. The second form keeps it for a later call. */
int graph_flush(void);
void graph_flush_later(void);
/* A piece is running, maybe into a capture: nothing may wait for the device. */
int graph_running(void);
const uint64_t *graph_key(void); /* of dropout, on the device */
void graph_clear(void);          /* all graphs go */
void graph_forget(void);         /* algorithms were given back: other graphs from now on */
/* backend.h: backend_device, and the calls that are written down. */
int graph_notice(char *buf, size_t n);
void graph_enter(int part);
int graph_step_seconds(double *seconds, int n);
int graph_copy_in(void *device, const void *host, size_t bytes);
int graph_copy_out(void *host, const void *device, size_t bytes);
int graph_fill_zero(void *device, size_t bytes);
void graph_step(int begins);
void graph_pack_free(struct op_pack *p);

/* ---- gemm.c ---- */
int cuda_open_products(void);
void cuda_pack_free(struct op_pack *p);

/* ---- product.cu ---- */
/* c = act(c + bias) on (M,N) with row stride ldc; pre, when not NULL, receives c + bias. */
int cuda_epilogue(const struct matmul_args *a);

/* How the operands of a product are multiplied. TF32: they lie there as f32. */
enum cuda_operand { OPERAND_F32, OPERAND_BF16, OPERAND_F16, OPERAND_TF32, OPERANDS };
static inline size_t operand_size(int type)
{
    return type == OPERAND_BF16 || type == OPERAND_F16 ? 2 : 4;
}

/* x (rows, cols) with row stride ld, rounded (as kernels/bf16.h and f16.h), to `to` with
 * row stride ld_to; OPERAND_F32: f32 that holds what bf16 would. */
int cuda_round(void *to, long ld_to, enum cuda_operand type, const float *x, long ld,
               long rows, long cols);

/* ---- nccl.c ---- */
extern const struct backend_ranks cuda_ranks;
/* 0, or ERR_DEVICE once a group was aborted: what comes from the device is worthless. */
int cuda_ranks_check(void);

/* ---- links.c ---- */
int cuda_links(struct backend_links *l);

/* ---- exchange.cu: what nccl.c needs done on its own stream ---- */
int cuda_to_wire(void *to, const float *x, size_t n, cudaStream_t s); /* as bf16 */
int cuda_from_wire(float *x, const void *from, size_t n, cudaStream_t s);
/* x (n) = part 0 + part 1 + ... of parts (world, n) */
int cuda_sum_wire(float *x, const void *parts, int world, size_t n, cudaStream_t s);
int cuda_copy_rows(float *packed, float *table, const int *id, long rows, long cols,
                   int back);

#define X(op)                                                                              \
    int cuda_##op(const struct op##_args *);                                               \
    int graph_##op(const struct op##_args *);
HONE_OPS(X)
#undef X

#ifdef __cplusplus
}
#endif
#endif
