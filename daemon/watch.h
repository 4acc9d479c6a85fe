/* Watchers: clients that follow a job's events until it ends.
 *
 * A watcher that does not keep up loses metric and progress events, never state changes;
 * the next event it gets is preceded by a gap that says how many. */
#ifndef DAEMON_WATCH_H
#define DAEMON_WATCH_H

#include "daemon/daemon.h"
#include "daemon/rpc.h"
#include "hone.pb-c.h"

/* Begin: sends the job's state and every stage's newest progress. Takes the call. */
void watch_begin(struct rpc_call *call, struct job *j);
void watch_closed(struct daemon *d, uint64_t conn);
void watch_free_all(struct daemon *d);

void watch_job(struct daemon *d, struct job *j); /* the state, and the end of the stream */
/* An event of a stage (stage NULL: of the job); fills job, stage and time. */
void watch_event(struct daemon *d, struct job *j, const struct job_stage *stage,
                 Hone__V1__Event *ev);

/* The job as a message; lives in the arena. NULL: out of memory. */
Hone__V1__Job *watch_job_message(struct arena *a, const struct job *j);

#endif
