/* Attached jobs: runs that were started elsewhere (mpirun in a batch script, say) and
 * report here. The daemon keeps their events and shows them; it starts nothing, opens none
 * of their paths, and gives them no cores.
 *
 *     Attach (operator) -> job, a secret for each stage -> Hello of the stage's rank 0
 *
 * A stage waits until its worker says Hello, and is over when that says so; one that was
 * paused waits for the run's next start. One that is
 * not heard is named in an event, and after ten minutes failed ("lost"): the worker that
 * comes back after all is refused, attaches again, and goes on. Each start of a run has a
 * higher attempt; an older one is refused from then on. */
#ifndef DAEMON_ATTACH_H
#define DAEMON_ATTACH_H

#include "daemon/daemon.h"
#include "daemon/rpc.h"
#include "hone.pb-c.h"
#include "wire.pb-c.h"

void attach_begin(struct rpc_call *call, const Hone__V1__AttachRequest *in);

/* The Hello of a worker that knows the stage's secret. 0: it speaks for the stage, which
 * runs; 1: the stage is over; ERR_DENIED. */
int attach_hello(struct daemon *d, struct job *j, struct job_stage *s,
                 const Hone__V1__Hello *h, struct err *e);
void attach_done(struct daemon *d, struct job *j, struct job_stage *s); /* it said so */
/* By force: the worker is told, and not waited for. */
void attach_abort(struct daemon *d, struct job *j, struct job_stage *s);
void attach_judge(struct daemon *d, struct job *j, struct job_stage *s, double now);
void attach_recover(struct daemon *d, struct job *j, struct job_stage *s);

/* What the journal has of metrics.jsonl: points that a later attempt has taken back are
 * left out, as in the file. Ends the call. */
void attach_metrics(struct rpc_call *call, struct job *j, const char *stage);

#endif
