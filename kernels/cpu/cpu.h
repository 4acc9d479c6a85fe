/* The CPU back end's own header: what its files share.
 *
 * Invariant: every operator here gives the same bits for every number of threads: work is
 * cut into blocks whose bounds depend on the arguments alone, a block is done by one
 * thread, and sums over blocks are taken in block order. */
#ifndef KERNELS_CPU_CPU_H
#define KERNELS_CPU_CPU_H

#include "kernels/backend.h"

/* The table: what cpu/ does itself, the rest from `inherit`. */
const struct backend *cpu_backend(const struct backend *inherit);

#endif
