/* Runs that no daemon started, reporting to one: `hone-worker JOB --report HOST:PORT`.
 *
 *     RUN/.hone/report[-STAGE]: KEY STARTS
 *
 * The run draws its key once; the daemon knows the run by it and by who reports, however
 * often it is started, and gives each stage the secret under which its uplink speaks. Each
 * start counts up: who reports with an older number is refused. `--stage` makes a run of
 * its own of one stage. Rank 0's business alone. */
#ifndef WORKER_LINK_REPORT_H
#define WORKER_LINK_REPORT_H

#include <stddef.h>

#include "base/err.h"
#include "base/file.h"
#include "proto/channel.h"

enum { REPORT_STAGES_MAX = 64 };

struct report {
    char key[33];
    unsigned attempt;
    char name[256], host[256], file[FILE_PATH_MAX], run[FILE_PATH_MAX]; /* for people */
    const char *stage[REPORT_STAGES_MAX];                               /* borrowed */
    size_t n_stages;
    unsigned workers;
};

/* What a daemon gave us: the job's number there, and the stage's secret. */
struct report_place {
    char job[24], token[64];
};

/* Read and count up the run's file. `stage`: the only one, or NULL. Leaves name, file,
 * stages and workers to the caller. */
int report_open(struct report *r, const char *run, const char *stage, struct err *e);

/* Over a fresh channel: say who we are (credential NULL: the certificate or the socket say
 * it), and ask for the place of `stage`. ERR_DENIED: not let in. */
int report_attach(struct channel *c, const struct report *r, const char *credential,
                  const char *stage, double within, struct report_place *out,
                  struct err *e);

#endif
