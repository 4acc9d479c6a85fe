/* What RUN/summary.json says of a job that did not come to its end. A worker that could
 * still speak has written it; one that was killed has left "running", or no file at all. */
#ifndef DAEMON_SUMMARY_H
#define DAEMON_SUMMARY_H

#include "daemon/daemon.h"

/* The job has failed or stopped: its "state" and "message" (why), and those of the stages
 * that did, in RUN and in the folder of every seed that is concerned. Where no worker had
 * begun with the folder (no job.resolved.yaml), nothing is written. */
void summary_end(struct daemon *d, const struct job *j);

#endif
