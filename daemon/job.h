/* Jobs and their stages: what is known of them, and which changes are possible.
 *
 *     stage: waiting -> running -> done | failed | stopped | skipped
 *            waiting -> failed | skipped
 *            running -> waiting                 (paused, or to be started again)
 *            done | failed | stopped | skipped -> waiting                 (retry)
 *     job:   queued -> running -> done | failed | stopped
 *            by way of stopping when it is cancelled; of pausing to paused and back
 *
 * A job of several seeds has the stages of each seed as its own: "seed-2/sft". A stage that
 * failed or stopped holds up those of its seed alone (stage_held_up()).
 *
 * Invariant: a stage changes only by stage_move(), which allows the arrows above and
 * nothing else; a job's state follows from its stages and from what is wanted of it
 * (job_settle()). All text lives in the job's arena. */
#ifndef DAEMON_JOB_H
#define DAEMON_JOB_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "daemon/cores.h"

enum stage_state {
    STAGE_WAITING,
    STAGE_RUNNING,
    STAGE_DONE,
    STAGE_FAILED,
    STAGE_STOPPED,
    STAGE_SKIPPED,
};
enum job_state {
    JOB_QUEUED,
    JOB_RUNNING,
    JOB_PAUSING,
    JOB_PAUSED,
    JOB_STOPPING,
    JOB_DONE,
    JOB_FAILED,
    JOB_STOPPED,
};
enum job_want { WANT_RUN, WANT_PAUSE, WANT_STOP };

/* What a running stage was asked for: to stop so that it may go on later (pause) or not
 * (cancel: the job's want says), or to end as skipped, with the model it has by then: also
 * of one that waits to go on. */
enum stage_asked { ASKED_NOTHING, ASKED_STOP, ASKED_SKIP };

/* Why a worker was lost, each with its budget of restarts: it crashed, it was killed by
 * somebody else (out of memory), it hung. */
enum loss { LOSS_CRASH, LOSS_KILLED, LOSS_HUNG, LOSSES };

enum { TOKEN_MAX = 33, JOB_STAGES_MAX = 1024 };

/* A worker process of a stage, as far as its uplink tells. */
struct rank {
    uint64_t link;            /* connection, 0: none */
    uint64_t instance;        /* of the link: another one counts from 1 again */
    uint64_t received, taken; /* sequence numbers: safe; looked at in this burst */
    int said_done;            /* the newest link has told its end */
    unsigned pid;             /* 0: not known */
    char *host, *phase, *collective;
    long step;
    uint64_t collective_seq;
    double heard, stepped; /* when last; 0: never */
    double step_time;      /* seconds, smoothed; 0: not known */
};

struct job_stage {
    const char *name;
    unsigned seed;          /* of several, from 1: as its name says; 0: there is one */
    size_t *needs, n_needs; /* indices of stages */
    uint64_t steps;         /* planned; 0: not known */
    int n_cores, n_gpus;    /* wanted of this machine */
    uint64_t memory;        /* bytes wanted, of all ranks; 0: not known */
    int workers;            /* ranks */

    enum stage_state state;
    unsigned attempt;
    int status; /* of the worker, once ended: exit status, or 128 + signal */
    const char *message, *mend;
    char token[TOKEN_MAX];     /* secret of the attempt */
    enum stage_asked asked;    /* of the running attempt */
    int fresh;                 /* begin anew: its folder goes before the next attempt */
    unsigned restarts[LOSSES]; /* since it last got further */
    double started, ended;     /* wall time; 0: not yet */
    struct cores cores, gpus;  /* occupied while it runs */

    double not_before;  /* start again then */
    long furthest;      /* step that any attempt reached */
    const char *killed; /* why we ended it, NULL: we did not */
    long long log_from; /* where this attempt's lines begin in RUN/log */
    uint64_t child;     /* process, 0: none */
    int gap;            /* points were lost on the way: the file has them */
    struct rank *rank;  /* workers of them, while it runs */
    size_t n_ranks;
    /* Newest progress, for those who begin to watch later. */
    char *phase, *figures;
    long step, total;
    double saved, save_interval;   /* newest checkpoint, longest time between two */
    int save_overdue;              /* said so */
    int told_number, told_stalled; /* of the loss, in this attempt */
    int quiet;                     /* attached, and not heard: said so */
};

struct journal;

struct job {
    struct arena arena;
    uint64_t id;
    const char *name, *file, *run, *owner;
    const char *request_id, *notify; /* NULL: none */
    const char **set;
    size_t n_set;
    const char **slurm; /* options of srun; NULL: this machine runs its workers */
    size_t n_slurm;
    int resume;
    int attached; /* started elsewhere, it only reports: file and run are not our paths */
    int priority;
    struct job_stage *stage;
    size_t n_stages;
    enum job_state state;
    enum job_want want;
    double kill_at;          /* stopping has lasted long enough; INFINITY: no limit */
    double submitted, ended; /* wall time; ended 0: not yet */
    int lock;                /* descriptor that holds the run folder, -1: none */
    int exit_status;
    const char *message, *mend;

    int unsaved;             /* the store does not know the newest state */
    struct journal *journal; /* its events; NULL: not opened */
    int told_events;         /* that they are near their limit */
    int alarms;              /* bits of alarms that were given, judge.c */
};

const char *stage_state_name(enum stage_state s);
const char *job_state_name(enum job_state s);
const char *job_want_name(enum job_want w);
/* -1: no such name */
int stage_state_find(const char *name);
int job_state_find(const char *name);
int job_want_find(const char *name);
int job_ended(const struct job *j);
int stage_over(enum stage_state s);    /* done or skipped: what needs it may start */
unsigned stage_seed(const char *name); /* "seed-2/sft": 2; of a job with one seed: 0 */
/* Nothing of its seed starts any more: a stage of it has failed or stopped. */
int stage_held_up(const struct job *j, const struct job_stage *s);

/* Bug (invariant) when the arrow does not exist. */
void stage_move(struct job_stage *s, enum stage_state to);

/* How the worker's end is to be read: done (0), stopped (3), failed (all else). */
enum stage_state stage_outcome(int exit_status, int signal);

/* Bring the job's state, exit status and message up to date with its stages. Returns 1 when
 * that ended the job. */
int job_settle(struct job *j);

/* A job as it is before a change that may have to be taken back. */
struct job_mark {
    struct job_stage *stage; /* copies; their ranks are the job's */
    enum job_state state;
    enum job_want want;
    int exit_status, alarms;
    double ended, kill_at;
    const char *message, *mend;
};
int job_mark(const struct job *j, struct job_mark *m, struct err *e);
void job_restore(struct job *j, const struct job_mark *m);
void job_mark_fini(struct job_mark *m); /* total */

/* One that has ended is wanted again: as if it had not. */
void job_revive(struct job *j);

/* Ranks of a stage that is about to start (or is found running). -1: out of memory. */
int stage_open_ranks(struct job_stage *s);
void stage_close_ranks(struct job_stage *s);

/* ERR_CONFIG: the job has no such stage; what it has is said. */
int job_no_stage(const struct job *j, const char *name, struct err *e);

struct job *job_new(void); /* NULL: out of memory */
void job_free(struct job *j);

#endif
