/* Locks on folders: one daemon per state folder, one run per run folder.
 *
 * FOLDER/NAME is locked with flock(2), which belongs to the open file: workers inherit the
 * descriptor of their run folder's lock, so the folder stays taken until the last of them
 * has ended, whatever happened to the daemon. */
#ifndef DAEMON_LOCK_H
#define DAEMON_LOCK_H

#include "base/err.h"

/* 0 and *fd; 1: somebody else holds it (*holder: their process id, 0 when not known). */
int lock_try(const char *path, int *fd, long *holder, struct err *e);

#endif
