/* Jobs and their stages: what is known of them, and which changes are possible.
 *
 *     stage: waiting -> running -> done | failed | stopped
 *     job:   queued -> running -> done | failed | stopped, by way of stopping
 *
 * Invariant: a stage changes only by stage_move(), which allows the arrows above and
 * nothing else; a job's state follows from its stages and from whether a stop was asked for
 * (job_settle()). All text lives in the job's arena. */
#ifndef DAEMON_JOB_H
#define DAEMON_JOB_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"

enum stage_state { STAGE_WAITING, STAGE_RUNNING, STAGE_DONE, STAGE_FAILED, STAGE_STOPPED };
enum job_state {
    JOB_QUEUED,
    JOB_RUNNING,
    JOB_STOPPING,
    JOB_DONE,
    JOB_FAILED,
    JOB_STOPPED,
};

struct job_stage {
    const char *name;
    int whole;              /* all stages of the job, by one worker */
    size_t *needs, n_needs; /* indices of stages */
    uint64_t steps;         /* planned; 0: not known */
    int cores;              /* what it occupies while it runs */
    enum stage_state state;
    unsigned attempt;
    int status; /* of the worker, once ended: exit status, or 128 + signal */
    const char *message, *mend;

    long long log_from; /* where this attempt's lines begin in RUN/log */
    uint64_t child;     /* process, 0: none */
    uint64_t link;      /* connection of the worker's uplink, 0: none */
    uint64_t received;  /* highest sequence number taken in */
    int said_done;      /* the link has told its end: a later one begins anew */
    /* Newest progress, for those who begin to watch later. */
    char *phase, *figures;
    long step, total;
};

struct job {
    struct arena arena;
    uint64_t id;
    const char *name, *file, *run, *owner;
    const char **set;
    size_t n_set;
    int resume;
    struct job_stage *stage;
    size_t n_stages;
    enum job_state state;
    int stop;       /* asked to stop */
    double kill_at; /* stopping has lasted long enough; INFINITY: no limit */
    char token[33];
    int lock; /* descriptor that holds the run folder, -1: none */
    int exit_status;
    const char *message, *mend;
};

const char *stage_state_name(enum stage_state s);
const char *job_state_name(enum job_state s);
int job_ended(const struct job *j);

/* Bug (invariant) when the arrow does not exist. */
void stage_move(struct job_stage *s, enum stage_state to);

/* How the worker's end is to be read: done (0), stopped (3), failed (all else). */
enum stage_state stage_outcome(int exit_status, int signal);

/* Bring the job's state, exit status and message up to date with its stages. Returns 1 when
 * that ended the job. */
int job_settle(struct job *j);

struct job *job_new(void); /* NULL: out of memory */
void job_free(struct job *j);

#endif
