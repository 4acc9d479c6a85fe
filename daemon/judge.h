/* The watchdog: workers that are silent or get nowhere, and things a person should know.
 *
 * A rank beats every second while its process runs. One that is silent for longer than
 *
 *     silence = min(60 s, max(10 s, 10 x its measured step time))
 *
 * (60 s until it was heard first) or whose training step does not change for
 * max(60 s, 20 x step time) is named with host, rank, process and what it was doing; its
 * group is ended, and started again from the newest checkpoint within its budget (work.h).
 * A daemon that did not run itself for a while (a suspended machine) gives everybody a new
 * start first. A private daemon judges nobody: its user is there to see. */
#ifndef DAEMON_JUDGE_H
#define DAEMON_JUDGE_H

#include "daemon/daemon.h"

void judge_tick(struct daemon *d);
double judge_next(const struct daemon *d); /* INFINITY: nothing runs */

/* A metric line of a worker: a loss that is no number, or that does not fall any more
 * ("stalled", worker/train/stall.h), is an alarm, once an attempt. Appends to the journal
 * without flushing. */
void judge_metric(struct daemon *d, struct job *j, struct job_stage *s, const char *line);
void judge_ended(struct daemon *d, struct job *j);

#endif
