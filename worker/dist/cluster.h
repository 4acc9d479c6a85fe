/* Ranks that MPI started, as a struct comm.
 *
 * L ranks of a host share a window (window.h); rank l of each of the H hosts forms rail l.
 * Gradients lie in the window, where the ranks of a host read each other's directly: rank l
 * sums slice l of every bucket over its host, rail l sums it over the hosts (each byte
 * crosses the network once a host). With a sharded optimizer the hosts of a rail share the
 * slice further, and the parameters lie in the window too: an update is seen by the whole
 * host without a copy. Where ranks cannot share memory, or hosts hold unequal numbers of
 * them, every rank counts as a host of its own.
 *
 * Fails with ERR_FAILED when another host does not answer within the patience; then the
 * communicator is broken: every later call fails at once with the same message. */
#ifndef WORKER_DIST_CLUSTER_H
#define WORKER_DIST_CLUSTER_H

#include "worker/dist/comm.h"
#include "worker/dist/mpi.h"
#include "worker/dist/watch.h"

struct cluster_setup {
    const struct mpi_ops *mpi;
    watch_lost *lost; /* a rank of this host, or another host; see watch.h, beacon.h */
    watch_lag *lag;   /* a rank for which all others wait, lag.h; on rank 0; NULL: none */
    void *arg;
};

int cluster_open(struct comm **out, const struct cluster_setup *s, struct err *e);
/* agreed: every rank closes now (MPI says goodbye); else this one alone goes. Total. */
void cluster_close(struct comm *c, int agreed);

/* Is this rank the first of its host to speak of a loss? From any thread; once. */
int cluster_speaks(const struct comm *c);
int cluster_is_broken(const struct comm *c);

/* Cores each of the ranks of this host may use, from the affinity of all of them. */
int cluster_threads(const struct comm *c);

/* Ranks of this host and their number. */
int cluster_local(const struct comm *c, int *ranks);

#endif
