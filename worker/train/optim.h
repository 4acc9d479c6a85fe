/* The optimizer: AdamW over a model's trainable parameters, its moments, and the gradient
 * norm; with several ranks also where gradients are summed.
 *
 * Parameters fall into groups by weight decay (none on biases and norms) and by rate (heads
 * that are new may have their own). Rows of an embedding that never had a gradient have
 * zero moments; without weight decay AdamW leaves them alone exactly, so they are neither
 * visited nor given memory. Such tables are called sparse here, all others dense.
 *
 * Over several ranks the gradients of dense parameters lie in one row of memory that the
 * communicator gives and sums in buckets while backward goes on (comm_grad); of sparse ones
 * only the rows that some rank has touched travel. With `shard` (ZeRO-1) a rank keeps
 * moments for, and updates, only the dense elements it owns; sparse tables are small in
 * use and updated everywhere alike.
 *
 * Invariant: after optim_step() or optim_skip() all gradients are zero, and parameters are
 * the same on all ranks. */
#ifndef WORKER_TRAIN_OPTIM_H
#define WORKER_TRAIN_OPTIM_H

#include <stddef.h>

#include "base/err.h"
#include "worker/dist/comm.h"
#include "worker/model/model.h"

struct optim_options {
    double lr, head_lr; /* head_lr 0: as lr */
    double beta1, beta2, eps, weight_decay;
    int shard;     /* ZeRO-1 */
    size_t bucket; /* elements that travel together from device to device; 0: the usual */
};

/* Elements [first, first + n) of a parameter, which this rank updates. */
struct optim_piece {
    int param; /* index into optim.param */
    size_t first, n;
};

struct optim {
    struct optim_options options;
    struct model *model;
    const struct backend *backend;
    const struct comm *comm;
    struct param **param;  /* (n) trainable parameters, in the model's order */
    unsigned char **ready; /* (n) sparse: rows whose moments were zeroed; NULL: dense */
    int n;
    struct optim_piece *piece;   /* (n_pieces) in order */
    struct adamw_tensor *tensor; /* (n_pieces) the same, for the operators */
    int n_pieces;
    double *sum;               /* (n_pieces) squares of the gradients */
    double *param_sum;         /* (n) */
    struct optim_grads *grads; /* optim_grads.c; NULL: one rank */
    long updates;              /* steps that were applied: AdamW's t */
};

int optim_open(struct optim *o, struct model *m, const struct optim_options *options,
               const struct comm *c, struct err *e); /* collective */
/* Total. Parameters go back to the model's own memory. */
void optim_close(struct optim *o);

/* Backward has completed the gradient of p in the last micro-batch of the step: its bucket
 * may start. For tape_on_param(). */
void optim_param_done(void *o, struct param *p);

/* Sum the gradients of all ranks. Collective. */
int optim_reduce_all(struct optim *o, struct err *e);

/* Global norm of the gradients. *bad: the tensor in which values that are not finite began
 * (the last one in the model's order, backward's first), or -1. Collective. */
int optim_norm(struct optim *o, double *norm, int *bad, struct err *e);

/* One AdamW step with rates lr * factor; gradients are multiplied by `scale` first.
 * Collective. */
int optim_step(struct optim *o, double factor, double scale, struct err *e);

/* Drop the gradients of a step that is not to be applied. After optim_reduce_all(). */
int optim_skip(struct optim *o, struct err *e);

/* Rows of moments that hold anything: *rows (mem_alloc'ed, ascending) or NULL for all. */
int optim_rows(const struct optim *o, int i, int **rows, long *n, struct err *e);

/* The pieces of parameter i: [*from, *to). */
void optim_pieces(const struct optim *o, int i, int *from, int *to);

/* Moment `kind` ('m' or 'v') of the whole dense parameter i to host memory. Collective. */
int optim_moment(const struct optim *o, int i, char kind, float *out, struct err *e);

#endif
