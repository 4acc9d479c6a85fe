/* One stage from its first to its last step:
 *
 *     LOAD -> PREPARE -> TRAIN <-> EVAL <-> SAVE -> FINAL -> TEST
 *
 * Invariant: what happens at a step boundary is a pure function of the step, the options
 * and the metrics, never of time, so that a run that was stopped anywhere and resumed goes
 * the same way. A request to stop is obeyed at the next boundary: a checkpoint is written
 * and ERR_STOPPED returned. */
#ifndef WORKER_TRAIN_LOOP_H
#define WORKER_TRAIN_LOOP_H

#include "worker/dist/watch.h"
#include "worker/link/link.h"
#include "worker/train/job.h"

struct loop_options {
    struct job *job;
    const struct stage_spec *stage;
    const char *run_dir;
    const char *job_hash; /* of the resolved job, resources apart */
    int resume;
    volatile int *stop; /* a control word sets it as well */
    struct link *link;
    watch_lost *lost; /* ends the process, from any thread; or NULL */
};

int loop_run(const struct loop_options *o, struct err *e);

#endif
