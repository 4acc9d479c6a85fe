/* Folders that jobs may use: `honed --root DIR`, one or more, joined with ':'. NULL: jobs
 * may use what the daemon's user may.
 *
 * The daemon checks what it opens itself (the job file, the run folder); workers are told
 * by HONE_CONFINE, and the kernel holds them to it (worker/link/confine.h). */
#ifndef DAEMON_ROOTS_H
#define DAEMON_ROOTS_H

#include "base/args.h"
#include "base/err.h"
#include "base/str.h"

/* Resolve the folders into "DIR:DIR" and tell workers of them. */
int roots_open(const struct arg_list *folders, struct str *out, struct err *e);
/* Does the path, or what exists of it, lie in one of them? Links are followed. ERR_DENIED.
 */
int roots_check(const char *roots, const char *path, struct err *e);

#endif
