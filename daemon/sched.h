/* The scheduler: a pure function of the queue, the machine and the clock.
 *
 * It looks at jobs in the order of their submission and says which stages to start and
 * which processes to kill now, and when to ask again. It changes nothing.
 *
 * Invariants (tests/unit/daemon/test_sched.c): the stages that run and those it starts
 * never occupy more cores than there are, except that one stage alone may; a stage starts
 * only when all it needs is done; nothing of a job starts that has a failed or stopped
 * stage or was asked to stop; no stage passes an earlier one that is ready but has no room;
 * when nothing runs and something is ready, something starts. */
#ifndef DAEMON_SCHED_H
#define DAEMON_SCHED_H

#include <stddef.h>

#include "daemon/job.h"

enum { SCHED_MAX = 64 };

enum decision_kind { DECIDE_START, DECIDE_KILL };

struct decision {
    enum decision_kind kind;
    size_t job, stage; /* indices */
};

struct schedule {
    struct decision item[SCHED_MAX]; /* more are said on the next call */
    size_t n;
    double wake; /* ask again at this time, INFINITY: after the next event */
};

void sched_decide(struct job *const *jobs, size_t n, int cores, double now,
                  struct schedule *out);

#endif
