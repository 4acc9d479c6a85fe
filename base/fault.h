/* Fault injection for tests: the n-th write, fsync or rename fails, or the process kills
 * itself there, so that every durable step is tried.
 *
 * HONE_FAULT="write:3:ENOSPC" | "fsync:1:EIO" | "rename:2:KILL" arms it in a test build of
 * the programs too (cheap: one branch). Unset: never fires. */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

enum fault_point { FAULT_WRITE, FAULT_FSYNC, FAULT_RENAME, FAULT_STEP, FAULT_POINTS };

/* 0: go on. Otherwise errno is set and the caller fails as if the call had. KILL raises
 * SIGKILL, SEGV SIGSEGV; TERM raises SIGTERM and goes on. base/file.c calls it before each
 * write, fsync and rename; the trainer calls it at every step boundary with FAULT_STEP. */
int fault_hit(enum fault_point point);
int fault_arm(const char *spec); /* tests: as HONE_FAULT; NULL disarms; -1 when malformed */

#endif
