/* The optimizer: AdamW over a model's trainable parameters, its moments, and the gradient
 * norm.
 *
 * Parameters fall into groups by weight decay (none on biases and norms) and by rate (heads
 * that are new may have their own). Rows of an embedding that never had a gradient have
 * zero moments; without weight decay AdamW leaves them alone exactly, so they are neither
 * visited nor given memory.
 *
 * Invariant: after optim_step() or optim_skip() all gradients are zero. */
#ifndef WORKER_TRAIN_OPTIM_H
#define WORKER_TRAIN_OPTIM_H

#include <stddef.h>

#include "base/err.h"
#include "worker/dist/comm.h"
#include "worker/model/model.h"

struct optim_options {
    double lr, head_lr; /* head_lr 0: as lr */
    double beta1, beta2, eps, weight_decay;
};

struct optim {
    struct optim_options options;
    struct model *model;
    const struct backend *backend;
    struct adamw_tensor *tensor; /* (n) */
    struct param **param;        /* (n) trainable parameters, in the model's order */
    unsigned char **ready;       /* (n) rows whose moments were zeroed; NULL: all */
    double *sum;                 /* (n) squares of the gradients */
    int n;
    long updates; /* steps that were applied: AdamW's t */
};

int optim_open(struct optim *o, struct model *m, const struct optim_options *options,
               struct err *e);
void optim_close(struct optim *o); /* total */

/* Sum the gradients of all ranks. */
int optim_reduce_all(struct optim *o, const struct comm *c, struct err *e);

/* Global norm of the gradients. *bad: the tensor in which values that are not finite began
 * (the last one in the model's order, backward's first), or -1. */
int optim_norm(struct optim *o, double *norm, int *bad, struct err *e);

/* One AdamW step with rates lr * factor; gradients are multiplied by `scale` first. */
int optim_step(struct optim *o, double factor, double scale, struct err *e);

/* Drop the gradients of a step that is not to be applied. */
int optim_skip(struct optim *o, struct err *e);

/* Rows of moments that hold anything: *rows (mem_alloc'ed, ascending) or NULL for all. */
int optim_rows(const struct optim *o, int i, int **rows, long *n, struct err *e);

#endif
