/* Inside the optimizer: shared by optim.c and optim_grads.c alone. */
#ifndef WORKER_TRAIN_OPTIM_INTERNAL_H
#define WORKER_TRAIN_OPTIM_INTERNAL_H

#include "worker/train/optim.h"

/* Which elements of dense parameter i this rank owns, range by range from *at on (start
 * with 0). Returns 0 when there are no more. */
int optim_grads_own(const struct optim *o, int i, int *at, size_t *first, size_t *n);

/* ---- optim_rows.c: rows of sparse tables, summed from device to device ---- */

struct optim_span { /* rows of one table, within what is packed */
    int param;
    long first, n; /* of optim_rows.id */
    size_t at;     /* of packed */
};
struct optim_rows {
    float *packed;           /* (cap) on the device */
    int *device_id, *id;     /* (cap_ids) */
    struct optim_span *span; /* (optim.n) */
    size_t cap;
    long cap_ids;
    /* What is packed together now: */
    int spans;
    long ids;
    size_t at;
};
int optim_rows_open(struct optim_rows *w, const struct optim *o, struct err *e);
void optim_rows_close(struct optim_rows *w, const struct optim *o); /* total */
/* bits: rows that some rank has touched, table by table in whole words; they are touched
 * and live here afterwards. Collective. */
int optim_rows_sum(struct optim_rows *w, struct optim *o, const unsigned *bits,
                   struct err *e);

int optim_grads_open(struct optim *o, struct err *e);
void optim_grads_close(struct optim *o);                /* total */
int optim_grads_gather(struct optim *o, struct err *e); /* parameters, after an update */
int optim_grads_zero(struct optim *o, struct err *e);   /* dense ones that are not owned */
int optim_grads_sum_norms(struct optim *o, struct err *e); /* param_sum over the ranks */

#endif
