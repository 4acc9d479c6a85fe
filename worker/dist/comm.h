/* Communication between the ranks of one stage: a table that each transport fills.
 *
 * `self` (one rank) is the only transport here: every collective is the identity. MPI and
 * NCCL fill the same table. All functions are collective (every rank calls them in the same
 * order) and return 0 or a negative ERR_ code.
 *
 * Invariant: agree() comes before any collective that a local failure would skip, so no
 * rank is left waiting: it returns the most severe code of all ranks to all of them. */
#ifndef WORKER_DIST_COMM_H
#define WORKER_DIST_COMM_H

#include <stddef.h>

#include "base/err.h"

struct comm {
    const char *name;
    int rank, world;
    void *state;
    int (*all_reduce)(const struct comm *c, float *x, size_t n, struct err *e); /* sum */
    /* out: world * bytes, in order of rank. */
    int (*all_gather)(const struct comm *c, const void *in, size_t bytes, void *out,
                      struct err *e);
    int (*broadcast)(const struct comm *c, void *p, size_t bytes, int root, struct err *e);
    int (*barrier)(const struct comm *c, struct err *e);
    /* *code: 0 or a local ERR_ code or control word; afterwards the same on all ranks: the
     * least (most severe) one. */
    int (*agree)(const struct comm *c, int *code, struct err *e);
};

const struct comm *comm_self(void);

#endif
