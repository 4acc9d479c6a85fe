/* The newest checkpoint of the stage that runs, for messages: whoever must end the process
 * names it, from whatever thread.
 *
 * A checkpoint has its name only when it is whole (worker/ckpt/state.h), so the folder is
 * looked into when a message is due, and nothing is remembered but where it lies: the same
 * on every rank. Reading it may wait for a file server: that is given up after a second. */
#ifndef WORKER_TRAIN_NEWEST_H
#define WORKER_TRAIN_NEWEST_H

#include "base/err.h"

/* The folder of checkpoints of the stage that begins, and its name; NULL: none runs. */
void newest_stage(const char *dir, const char *name);

/* Add to the mend (or make it): what --resume goes on from. Nothing where no stage runs.
 * Returns e->code. */
int newest_mend(struct err *e);

#endif
