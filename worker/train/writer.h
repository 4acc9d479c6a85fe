/* A thread that does what waits for the disk (fsync, hashes, renames) while training goes
 * on. Jobs are done one after another, in the order in which they were added.
 *
 * Invariant: after a failure nothing more is done, and the failure stays: writer_failed()
 * and writer_wait() give it back, so a run whose checkpoint was not written ends with the
 * reason. What a killed process had not finished is as if it had not begun: jobs make
 * folders that appear whole or not at all (worker/ckpt/state.h). */
#ifndef WORKER_TRAIN_WRITER_H
#define WORKER_TRAIN_WRITER_H

#include <stddef.h>

#include "base/err.h"

struct writer;

/* Have run(arg) done; *arg, of `bytes`, is copied. *w NULL: opens it. Where there is no
 * memory or thread for it, it is done at once. Fails as earlier jobs have. */
int writer_add(struct writer **w, int (*run)(void *arg, struct err *e), const void *arg,
               size_t bytes, struct err *e);

/* What failed so far, without waiting. */
int writer_failed(struct writer *w, struct err *e);

/* Until everything that was added is done. NULL: 0. */
int writer_wait(struct writer *w, struct err *e);

/* Waits. Total. */
void writer_free(struct writer *w);

#endif
