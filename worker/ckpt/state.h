/* Folders that appear whole or not at all: checkpoints, best/, final/.
 *
 *     .tmp-<name>/ is filled -> fsync of every file, their XXH3-128 to manifest.json ->
 *     renamed to <name>/ -> fsync of the parent
 *
 * Invariant: a folder under its own name was complete when it got it; what happened to its
 * bytes afterwards (a damaged disk, a stray edit) state_verify() finds. Replacing a folder
 * exchanges the two names in one step where the file system can. */
#ifndef WORKER_CKPT_STATE_H
#define WORKER_CKPT_STATE_H

#include <stddef.h>

#include "base/err.h"
#include "base/file.h"

/* Make an empty parent/.tmp-<name>; its path goes to tmp. */
int state_begin(const char *parent, const char *name, char tmp[FILE_PATH_MAX],
                struct err *e);
/* Sync the files of `tmp`, write their manifest and rename it to parent/<name>, replacing
 * what is there. */
int state_commit(const char *parent, const char *name, const char *tmp, struct err *e);
/* Remove what an interrupted begin left in `parent`. */
int state_clean(const char *parent, struct err *e);

/* Compare every file with the manifest: ERR_CORRUPT names the first that differs. */
int state_verify(const char *dir, struct err *e);

/* Steps of parent/checkpoint-<step>, ascending (mem_free). A parent that is not there has
 * none. */
int state_list(const char *parent, long **steps, size_t *n, struct err *e);
void state_path(char out[FILE_PATH_MAX], const char *parent, long step);

/* The newest checkpoint that verifies: *step and 0; *step = -1 when there is none. Damaged
 * ones are skipped, with a warning in the log. */
int state_newest(const char *parent, long *step, struct err *e);

/* Remove all but the `keep` newest checkpoints. */
int state_prune(const char *parent, size_t keep, struct err *e);

/* Hard links (or copies) of every regular file directly in `from`, but the manifest. */
int state_link_files(const char *from, const char *to, struct err *e);

#endif
