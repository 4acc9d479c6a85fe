/* Admission: from a SubmitRequest to a job, or to a list of problems.
 *
 *     check -> place -> commit
 *
 * check: `hone-worker check` judges the job file as a child process; place: choose or claim
 * the run folder and lock it (with `resume` waiting up to 10 s for an earlier run that is
 * just ending); commit: store the job, answer, schedule. A submit that is refused leaves
 * nothing behind. */
#ifndef DAEMON_ADMIT_H
#define DAEMON_ADMIT_H

#include <stdint.h>

#include "daemon/daemon.h"
#include "daemon/io.h"
#include "daemon/rpc.h"

void admit_begin(struct rpc_call *call, const Hone__V1__SubmitRequest *in);
/* A process ended: 1 when it was one of ours. */
int admit_exited(struct daemon *d, uint64_t child, const struct io_exit *how);
void admit_tick(struct daemon *d);         /* try locks again */
double admit_next(const struct daemon *d); /* when to do so, INFINITY: no need */
void admit_kill_checks(struct daemon *d);
void admit_closed(struct daemon *d, uint64_t conn);
void admit_free_all(struct daemon *d);

#endif
