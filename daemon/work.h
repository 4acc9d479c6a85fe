/* Workers of stages: how an attempt is started, ended, judged and tried again.
 *
 * Invariant: the store knows that an attempt runs, and its token, before its process
 * exists; so a daemon that comes later finds every process (its environment has the token),
 * and none runs twice. */
#ifndef DAEMON_WORK_H
#define DAEMON_WORK_H

#include "daemon/daemon.h"

/* Restarts that a stage has by itself without getting further, per class of loss. */
extern const unsigned work_budget[LOSSES];

/* 0: it runs; else it has failed, or is to be tried later. */
int work_start(struct daemon *d, struct job *j, struct job_stage *s,
               const struct decision *where);
/* A stage's process has ended. */
void work_ended(struct daemon *d, struct job *j, struct job_stage *s,
                const struct io_exit *how);
/* Find the stage's process of an earlier daemon, or learn how it ended. */
void work_adopt(struct daemon *d, struct job *j, struct job_stage *s);
/* End the running attempt by force, with all that it started. */
void work_kill(struct daemon *d, const struct job *j, const struct job_stage *s);
/* Ask the running attempt to save and stop. */
void work_ask(struct daemon *d, struct job_stage *s, enum stage_asked what);

#endif
