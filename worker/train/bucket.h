/* How many gradients travel together between devices.
 *
 * Small buckets leave less behind when backward ends, large ones use the link better: with
 * `bucket_mb: 0` the smallest of a few sizes is taken whose sums reach nearly the best
 * rate. That is measured once for each kind of device, library, number of ranks and of
 * hosts, and kept on disk, so that a run and its repetition take the same; a resumed stage
 * keeps what its checkpoint says. Sums of two ranks, and two-byte gradients, have the same
 * bits with every size; of more ranks NCCL's order, and so the last bits, may depend on it.
 */
#ifndef WORKER_TRAIN_BUCKET_H
#define WORKER_TRAIN_BUCKET_H

#include "worker/spec/spec.h"
#include "worker/train/job.h"

/* Elements of a bucket of so many MiB. */
#define BUCKET_ELEMENTS(mb) ((size_t)(mb) << 18)
enum { BUCKET_MB_MOST = 25 }; /* that is chosen without being asked for */

/* The size for a job's devices, in MiB: as asked for, kept, or measured; 0: gradients do
 * not go from device to device. Collective. */
int bucket_choose(const struct job *j, long *mb, struct err *e);

/* What the newest checkpoint in `dir` was made with, in MiB; 0: nothing says. */
long bucket_of_checkpoint(const char *dir);

#endif
