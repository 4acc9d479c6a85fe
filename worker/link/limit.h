/* What a stage's worker may use: HONE_LIMIT_MEMORY=BYTES, from the daemon that started it.
 *
 * Its private memory ends there (RLIMIT_DATA: an allocation fails, the stage with it, and
 * says so), it starts no process (seccomp: fork is refused, threads are not), leaves no
 * core, and where the machine runs out all the same the kernel ends it before others. Not
 * for stages on GPUs, whose driver reserves address space and starts helpers. */
#ifndef WORKER_LINK_LIMIT_H
#define WORKER_LINK_LIMIT_H

#include "base/err.h"

/* Does nothing where HONE_LIMIT_MEMORY is not set. limit_memory() comes before threads and
 * before confine(); limit_processes() when what starts with the program (MPI) has. */
int limit_memory(struct err *e);
int limit_processes(struct err *e);

#endif
