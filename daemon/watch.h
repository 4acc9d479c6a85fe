/* Watchers: clients that follow a job's events until it ends.
 *
 * A watcher has a place in the job's journal and is sent what comes after it, as long as
 * little of that waits for the other end; one that is slow costs nobody anything and gets
 * the rest as it reads. Progress, which has no number, is sent to those that keep up. */
#ifndef DAEMON_WATCH_H
#define DAEMON_WATCH_H

#include "daemon/daemon.h"
#include "daemon/rpc.h"
#include "hone.pb-c.h"

/* Begin: from `after` on, or (NULL) with the job's state and every stage's newest progress
 * and then what happens from now on. Takes the call. */
void watch_begin(struct rpc_call *call, struct job *j, const uint64_t *after);
void watch_drained(struct daemon *d, uint64_t conn);
void watch_closed(struct daemon *d, uint64_t conn);
void watch_free_all(struct daemon *d);
int watch_count(const struct daemon *d);

void watch_pump(struct daemon *d, struct job *j); /* the journal has more */
void watch_progress(struct daemon *d, struct job *j, const struct job_stage *s,
                    const Hone__V1__Progress *p);

#endif
