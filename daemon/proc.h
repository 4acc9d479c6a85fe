/* Processes of an earlier daemon, found by their environment. */
#ifndef DAEMON_PROC_H
#define DAEMON_PROC_H

#include <sys/types.h>

#include "base/err.h"

/* The living process that leads its session and has `mark` (NAME=VALUE) in its environment:
 * *pid and *pidfd (to be closed), *kept: its descriptor 3 or -1. *pid 0: there is none;
 * what else has the mark (ranks whose mpirun is gone) is killed. ERR_IO: /proc cannot be
 * read. */
int proc_find(const char *mark, pid_t *pid, int *pidfd, int *kept, struct err *e);

/* SIGKILL to every process that has `mark`, and wait until they are gone (half a second at
 * most): those that mpirun, killed itself, has left running. */
void proc_sweep(const char *mark);

#endif
