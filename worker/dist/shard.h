/* Who takes which example of a batch: by tokens, so that ranks finish together.
 *
 * Longest first to the rank with the fewest tokens so far (Graham 1969: at most 4/3 of the
 * best split); ties go to the lower example and the lower rank. A pure function of the
 * lengths: every rank computes the same. A rank may get nothing. */
#ifndef WORKER_DIST_SHARD_H
#define WORKER_DIST_SHARD_H

#include <stddef.h>

#include "base/err.h"

/* owner[i] = rank that takes example i of tokens[i] tokens. */
int shard_by_tokens(const size_t *tokens, size_t n, int world, int *owner, struct err *e);

#endif
