/* Run folders: which one a job gets, and whether it may have it. */
#ifndef DAEMON_FOLDER_H
#define DAEMON_FOLDER_H

#include <stddef.h>

#include "base/err.h"

/* Choose `runs/<name>-<n>` beside the job file: a new n, made at once so that nobody else
 * gets it; with `resume` the newest there is. *made: the folder is new. */
int folder_choose(const char *file, const char *name, int resume, char *out, size_t n,
                  int *made, struct err *e);

/* Claim the folder the user named: made where it is missing; one that holds a run is
 * refused unless `resume`, one with other files always. */
int folder_claim(const char *path, int resume, int *made, struct err *e);

/* Has an earlier attempt finished this stage? */
int folder_has_stage(const char *run, const char *stage);

/* Lock it (RUN/.hone/lock): 0 and *fd; 1: in use, *holder says by whom. */
int folder_lock(const char *run, int *fd, long *holder, struct err *e);

/* Undo: remove what folder_choose(), folder_claim() and folder_lock() made. */
void folder_release(const char *run, int made);

#endif
