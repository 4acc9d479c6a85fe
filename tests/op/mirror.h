/* A back end as the operator tests want it: it takes host memory, whatever the back end
 * beneath works on. Every pointer of an argument struct is mirrored: the ranges an operator
 * may touch are copied to memory of the back end, exactly as large, and back.
 *
 * Invariant: ranges that overlap on the host (in place, column blocks of one matrix)
 * overlap in the same way on the device. Fields that are host memory by contract stay as
 * they are. */
#ifndef TESTS_OP_MIRROR_H
#define TESTS_OP_MIRROR_H

#include "kernels/backend.h"

/* One at a time. */
const struct backend *mirror_of(const struct backend *be);

#endif
