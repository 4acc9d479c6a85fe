/* Preference order of the K label candidates for a gold label (ClaHF; algorithms.md 1).
 *
 * order[y * K + r] is the candidate at rank r when the gold label is y; rank 0 is y.
 *   ordinal:   by (|i - y|, i); ties: high puts the higher id first.
 *   embedding: by cosine distance of mean-pooled base-model embeddings of the candidate
 *              texts (filled by the caller's K x K distance matrix).
 *   matrix:    by a K x K file of distances (JSON list of lists, or rows of numbers). */
#ifndef WORKER_DATA_PREFER_H
#define WORKER_DATA_PREFER_H

#include "base/err.h"

enum prefer_ties { TIES_LOW, TIES_HIGH };

/* Sort by distance[y * K + i], gold first, ties by id. distance NULL: ordinal. */
void prefer_order(int K, const double *distance, enum prefer_ties ties, int *order);
int prefer_read_matrix(const char *path, int K, double *distance, struct err *e);
void prefer_cosine(int K, int D, const float *embedding, double *distance);

#endif
