/* Points that a worker's link could not tell (it was killed, or the daemon was away) are
 * taken from RUN/<stage>/metrics.jsonl, which has every line: those that the job's journal
 * does not have are appended to it. */
#ifndef DAEMON_REFILL_H
#define DAEMON_REFILL_H

#include "daemon/daemon.h"

/* Without effect on what is there; a file that cannot be read is a note in the log. */
void refill_metrics(struct daemon *d, struct job *j, const struct job_stage *s);

#endif
