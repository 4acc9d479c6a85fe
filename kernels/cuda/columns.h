/* Sums down columns, for the gradients of biases and norm weights.
 *
 * Two kernels: chunks of rows to partial sums in scratch, then the partial sums in chunk
 * order onto the gradient. The cut depends on N alone, so the bits do too. */
#ifndef KERNELS_CUDA_COLUMNS_H
#define KERNELS_CUDA_COLUMNS_H

#include "kernels/cuda/cuda.h"

/* out (D) += sum over rows of x (N,D). */
int columns_add(const float *x, long N, long D, float *out);

/* dx = dy * act'(x), dbias += its column sums, in one pass. */
int columns_act(const struct act_backward_args *a);

/* out (D) += partial sums (chunks, D), in an order that depends on `chunks` alone. */
int columns_finish(const float *partial, long chunks, long D, float *out);

/* dw (D) += sum over rows of dy * (sum - mean) * rstd, db (D) += sum of dy; either may be
 * NULL. */
int columns_norm(const struct norm_backward_args *a);

#endif
