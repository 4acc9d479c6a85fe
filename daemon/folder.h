/* Run folders: which one a job gets, and whether it may have it. */
#ifndef DAEMON_FOLDER_H
#define DAEMON_FOLDER_H

#include <stddef.h>
#include <time.h>

#include "base/err.h"

/* The newest numbers given, so that thousands of runs need not be listed for each new one.
 * One counts as long as nobody else has changed its folder. */
enum { FOLDER_HINTS = 8, FOLDER_NAME_MAX = 100 };
struct folder_hints {
    struct folder_hint {
        char *runs;
        char name[FOLDER_NAME_MAX];
        long newest;
        struct timespec changed;
    } item[FOLDER_HINTS];
    unsigned next;
};
void folder_forget(struct folder_hints *h);

/* Choose `runs/<name>-<n>` beside the job file: a new n, made at once so that nobody else
 * gets it; with `resume` the newest there is. *made: the folder is new. */
int folder_choose(struct folder_hints *h, const char *file, const char *name, int resume,
                  char *out, size_t n, int *made, struct err *e);

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
