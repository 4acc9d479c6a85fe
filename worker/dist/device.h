/* Ranks whose gradients are summed from device to device (NCCL, by the back end's `ranks`),
 * as a struct comm: the small collectives are the cluster's, whose copy this is.
 *
 * Bucket b of n elements belongs in equal parts to the ranks where the optimizer is sharded
 * (backend_share()). Buckets are queued from the last to the first on every rank, each as
 * soon as backward has completed it; nothing waits on the host.
 *
 * A watch (device_watch.c) looks ten times a second how far the sums have come. One that
 * does not move for the cluster's patience (HONE_NCCL_SECONDS, if set) hangs: the rank that
 * has not joined it is named, the sums are aborted, and the job ends, as it does when the
 * library reports an error, or the device is lost.
 *
 * Fails with ERR_CONFIG where the ranks' devices do not go together, ERR_DEVICE when they
 * cannot be connected; without the library the cluster's own sums serve, after a warning.
 */
#ifndef WORKER_DIST_DEVICE_H
#define WORKER_DIST_DEVICE_H

#include "kernels/backend.h"
#include "worker/dist/cluster.h"

/* Collective. *out NULL: the cluster serves (host back ends, one rank, no library).
 * two_bytes: gradients travel as bf16. c stays the caller's, and must outlive *out. */
int device_open(struct comm **out, const struct comm *c, const struct backend *b,
                int two_bytes, struct err *e);
void device_close(struct comm *c); /* total; collective after success, else not */

#endif
