/* Launcher back ends: how the workers of one stage are started on some kind of machine.
 *
 * A back end turns a request into a command: arguments and environment, no side effects.
 * The daemon runs the command and watches its process, so that every back end is tested as
 * a pure function. Here: `local` (one worker on this machine, without mpirun), `mpirun`
 * (several, on this machine or over the hosts of the allocation that mpirun finds itself
 * in) and `slurm` (any number, where Slurm puts them). */
#ifndef LAUNCHER_BACKEND_LAUNCH_H
#define LAUNCHER_BACKEND_LAUNCH_H

#include <stddef.h>

#include "base/arena.h"
#include "base/err.h"

struct launch_request {
    const char *worker; /* path of hone-worker, from launch_find() */
    const char *file;   /* job file */
    const char *const *set;
    size_t n_set;
    const char *stage; /* NULL: all, one after the other */
    const char *run;
    int resume;
    int workers;                /* ranks */
    const char *uplink, *token; /* address of the daemon; the job's secret */
    const char *far;            /* HOST:PORT for ranks on other hosts; NULL: none */
    const char *authority;      /* certificate file that the daemon's is checked against */
    unsigned long long job;
    unsigned attempt;
    const char *status;        /* file the worker leaves its exit status in; NULL: none */
    unsigned long long memory; /* bytes each rank may use on this machine; 0: no limit */
    int orphan_stop;           /* the worker stops when the daemon has gone */
    const char *gpus;          /* numbers "0,2" of the GPUs it may use; NULL: as we may */
    const char *const *slurm;  /* options of srun, checked; for the slurm back end */
    size_t n_slurm;
};

struct launch_command {
    const char *const *argv; /* NULL-terminated; argv[0] is the file to execute */
    const char *const *env;  /* NULL-terminated: the whole environment */
};

struct launch_backend {
    const char *name;
    /* The command lives in the arena. */
    int (*command)(const struct launch_request *r, struct arena *a,
                   struct launch_command *out, struct err *e);
};

extern const struct launch_backend launch_local, launch_mpirun, launch_slurm;

/* For back ends: the n words of `before`, then hone-worker and its arguments; the
 * environment with what the worker's uplink needs and the m variables of `extra`. */
int launch_worker(const struct launch_request *r, const char *const *before, size_t n,
                  const char *const *extra, size_t m, struct arena *a,
                  struct launch_command *out, struct err *e);

/* The command that judges a job file: hone-worker check FILE --json ...; brief: without
 * what takes time (memory). */
int launch_check(const char *worker, const char *file, const char *const *set, size_t n_set,
                 int brief, struct arena *a, struct launch_command *out, struct err *e);

/* A program in PATH: 0, or ERR_FAILED for the caller to explain. */
int launch_find_in_path(const char *program, char *out, size_t n);

/* A program of ours: beside the running executable, or else in PATH. */
int launch_find(const char *program, char *out, size_t n, struct err *e);

#endif
