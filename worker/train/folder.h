/* The run's folder: where it is, whose it is, who works in it.
 *
 *     RUN/job.yaml  job.resolved.yaml  log  <stage>/...
 *
 * Invariants: two processes never work on the same stage of a run, nor does a whole run
 * share its folder (advisory locks: RUN/.lock, RUN/<stage>/.lock, given back by the kernel
 * however the process ends). A folder that holds another run, or anything else, is refused
 * before a byte of it is changed. */
#ifndef WORKER_TRAIN_FOLDER_H
#define WORKER_TRAIN_FOLDER_H

#include "base/err.h"
#include "base/file.h"
#include "worker/spec/spec.h"

struct folder {
    char path[FILE_PATH_MAX];
    char job_hash[33];        /* of the resolved job as first written, resources apart */
    int run_lock, stage_lock; /* file descriptors, or -1 */
};

/* out: --out, or NULL for runs/<name>-<n>/ beside the job file (with `resume` the newest
 * one there). stage: the only one that will run, or NULL for all; "": one of a seed, whose
 * own folder is opened besides. */
int folder_open(struct folder *f, const struct spec *spec, const char *out,
                const char *stage, int resume, struct err *e);
void folder_close(struct folder *f); /* total */

#endif
