/* The plan of a job: what `hone-worker check FILE --json` says about it.
 *
 *     {"problems": [{"where", "message", "mend", "warning"}],
 *      "plan": {"name": ..., "seeds": 1, "workers": 1, "threads": 0, "gpus": 0,
 *               "slurm": ["--partition=gpu"],
 *               "notify": {"program", "where"},
 *               "stages": [{"name", "needs": [...], "steps": N, "peak_bytes": N}]}}
 *
 * The worker is ours, but its output is read like any input: ERR_CORRUPT names the key. */
#ifndef DAEMON_PLAN_H
#define DAEMON_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "daemon/job.h"
#include "hone.pb-c.h"

enum { PLAN_STAGES_MAX = 64 };

struct plan {
    const char *name;
    int cores;          /* of each stage, 0: all there are */
    int gpus;           /* of each stage */
    const char **slurm; /* options of srun; NULL: no Slurm */
    size_t n_slurm;
    int workers;
    int seeds; /* above 1: each has all stages, named "seed-<k>/<stage>" */
    const char *notify, *notify_where; /* the job file's program, NULL: none */
    struct job_stage *stage;
    size_t n_stages;
    const char **unmet; /* stages not selected that selected ones need */
    size_t n_unmet;
    Hone__V1__Problem **problem;
    size_t n_problems;
    int errors; /* problems that are no warnings */
    int n_own;  /* of plan_add_problem() */
};

int plan_read(struct plan *p, const char *text, struct arena *a, struct err *e);

/* What the daemon itself has to say, beside the worker's problems. */
int plan_add_problem(struct plan *p, struct arena *a, int warning, const char *where,
                     const char *message, const char *mend, struct err *e);

/* Keep the stages named (n > 0); needs outside of them become `unmet`: an earlier attempt
 * must have finished them. An unknown name is ERR_CONFIG with "did you mean". */
int plan_select(struct plan *p, char *const *names, size_t n, struct arena *a,
                struct err *e);

#endif
