/* Inside a cluster: shared by cluster.c and grad.c alone. */
#ifndef WORKER_DIST_CLUSTER_INTERNAL_H
#define WORKER_DIST_CLUSTER_INTERNAL_H

#include "worker/dist/beacon.h"
#include "worker/dist/cluster.h"
#include "worker/dist/window.h"

struct cluster {
    struct comm comm;
    const struct mpi_ops *mpi;
    char host[64];
    struct window window;    /* head NULL: none */
    struct window_rank lone; /* what window_rank() would be of, where there is none */
    struct watch *watch;
    struct beacon *beacon; /* on the first rank of each host, where there are several */
    int local, locals;     /* l of L: within the window, 0 of 1 where there is none */
    int host_index, hosts; /* h of H: within the rail */
    int rail;              /* MPI group, where H > 1 */
    int threads;
    double patience;
    double limit; /* of what a rank may take, if that was set; else 0 */
    enum comm_phase phase;
    long step;
    int verdict;
    struct err broken; /* code 0: not */
    watch_lost *lost;
    void *lost_arg;
};

/* What others may know of this rank. */
static inline struct window_rank *cluster_self(struct cluster *k)
{
    return k->window.head ? window_rank(&k->window, k->window.local) : &k->lone;
}

int cluster_fail(struct cluster *k, struct err *e);
int cluster_mpi_error(struct cluster *k, int error, const char *what, struct err *e);
/* Until the request is done; ERR_FAILED after the patience. */
int cluster_wait(struct cluster *k, struct mpi_request *r, const char *what, struct err *e);
/* The same for a request just made: error is what its start returned. */
int cluster_finish(struct cluster *k, int error, struct mpi_request *const *r,
                   const char *what, struct err *e);

int cluster_grad_open(const struct comm *c, struct comm_grad *g, struct err *e);
void cluster_grad_close(const struct comm *c, struct comm_grad *g);
void cluster_grad_start(const struct comm *c, struct comm_grad *g, int bucket);
int cluster_grad_wait(const struct comm *c, struct comm_grad *g, struct err *e);
int cluster_param_gather(const struct comm *c, struct comm_grad *g, struct err *e);

#endif
