/* A job: its stages one after the other in the order of their needs, or one of them.
 *
 *     read job -> claim folder -> load data (all problems before step 0) -> stages ->
 *     summary.json
 *
 * Over several ranks rank 0 claims the folder, writes and logs; the others read the same
 * job, data and models, which is compared before anything starts.
 *
 * Stages that are done (stage.json says so and final/ verifies) are not run again. Exit
 * codes follow from the error: ERR_CONFIG before anything started, ERR_STOPPED with a
 * checkpoint to resume from, ERR_FAILED and ERR_IO when the work failed. */
#ifndef WORKER_TRAIN_RUN_H
#define WORKER_TRAIN_RUN_H

#include "base/err.h"
#include "worker/dist/comm.h"
#include "worker/dist/watch.h"
#include "worker/link/link.h"

struct run_options {
    const char *file;       /* the job */
    const char *const *set; /* KEY=VALUE, NULL-terminated, or NULL */
    const char *stage;      /* NULL: all; of a job with several seeds "seed-2/sft" */
    const char *out;        /* NULL: runs/<name>-<n>/ beside the job file */
    int resume;
    const struct comm *comm; /* run_job() is collective; NULL: one rank */
    int threads;             /* of this rank, where the job does not say; 0: all */
    watch_lost *lost;        /* ends the process, from any thread; or NULL */
};

int run_job(const struct run_options *o, struct err *e);

/* The uplink of the running stage, or NULL: for who must end the process elsewhere. */
extern struct link *run_link;
/* A note for its daemon, from any thread; nobody's where there is none. */
void run_event(const char *level, const char *text);

/* Set by signal handlers and control words: stop at the next step boundary. */
extern volatile int run_stop;

#endif
