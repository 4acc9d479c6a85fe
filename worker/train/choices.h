/* What the back end chose by timing (kernels/backend.h), kept so that it is chosen once.
 *
 *     $XDG_CACHE_HOME/hone/products-<hash>.json   for each GPU model, driver and library
 *     checkpoint-N/state/products.json            of each rank, so that a resumed run has
 *                                                 the bits of one that was not stopped
 *
 * The cache saves time, nothing else: one that is damaged is named and ignored, one that
 * cannot be written is no failure. A checkpoint of another GPU, driver or library goes on
 * with a warning: its bits may differ. A back end that makes no choices leaves no file. */
#ifndef WORKER_TRAIN_CHOICES_H
#define WORKER_TRAIN_CHOICES_H

#include "base/err.h"
#include "kernels/backend.h"
#include "worker/dist/comm.h"

/* Take what earlier runs found out; once before the first product. */
void choices_load(const struct backend *b);

/* Store what has been found out since. Cheap when there is nothing. */
void choices_store(const struct backend *b);

/* Collective: rank 0 writes the file `path`, with what each rank has. */
int choices_save(const struct backend *b, const struct comm *c, const char *path,
                 struct err *e);

/* Take what the file says for this rank (ranks of a larger world go round). No file: 0. */
int choices_resume(const struct backend *b, const struct comm *c, const char *path,
                   struct err *e);

#endif
