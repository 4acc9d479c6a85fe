/* Inside the optimizer: shared by optim.c and optim_grads.c alone. */
#ifndef WORKER_TRAIN_OPTIM_INTERNAL_H
#define WORKER_TRAIN_OPTIM_INTERNAL_H

#include "worker/train/optim.h"

/* Which elements of dense parameter i this rank owns, range by range from *at on (start
 * with 0). Returns 0 when there are no more. */
int optim_grads_own(const struct optim *o, int i, int *at, size_t *first, size_t *n);

int optim_grads_open(struct optim *o, struct err *e);
void optim_grads_close(struct optim *o);                /* total */
int optim_grads_gather(struct optim *o, struct err *e); /* parameters, after an update */
int optim_grads_zero(struct optim *o, struct err *e);   /* dense ones that are not owned */
int optim_grads_sum_norms(struct optim *o, struct err *e); /* param_sum over the ranks */

#endif
