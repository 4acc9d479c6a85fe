/* The scheduler: a pure function of the queue, the machine and the clock.
 *
 * It looks at jobs in the order given (priority, then submission: daemon_queue()) and says
 * which stages to start, on which cores and GPUs, which processes to kill now, and when to
 * ask again. It changes nothing.
 *
 * A stage gets all its cores, GPUs and memory at once or does not start. Invariants
 * (tests/unit/daemon/test_sched.c): no core, no GPU and no byte is given twice; what wants
 * more cores or memory than there is gets all of it, alone; what wants more GPUs than there
 * are never starts, and stands in nobody's way; a stage starts only when all it needs is
 * over; nothing of a job starts that is to pause or stop, and nothing of a seed (a job has
 * one, or several) that has a failed or stopped stage; no stage passes an earlier one that
 * is ready but has no room; when nothing runs and something is ready, something starts.
 * Jobs whose workers Slurm runs take nothing here and wait for nobody. */
#ifndef DAEMON_SCHED_H
#define DAEMON_SCHED_H

#include <stddef.h>

#include "daemon/job.h"

enum { SCHED_MAX = 64 };

enum decision_kind { DECIDE_START, DECIDE_KILL };

struct resources {
    struct cores cores, gpus; /* by number */
    uint64_t memory;          /* bytes */
};

struct decision {
    enum decision_kind kind;
    size_t job, stage;        /* indices */
    struct cores cores, gpus; /* DECIDE_START */
};

struct schedule {
    struct decision item[SCHED_MAX]; /* more are said on the next call */
    size_t n;
    double wake; /* ask again at this time, INFINITY: after the next event */
};

void sched_decide(struct job *const *jobs, size_t n, const struct resources *r, double now,
                  struct schedule *out);

#endif
