/* The daemon: what all its parts share.
 *
 * Everything that happens reaches it through `struct io_events` and everything it does goes
 * through `struct io_ops` (io.h), so that it runs the same under libuv and under a test.
 * One thread; a handler runs to its end. After each event the scheduler is asked.
 *
 * Invariant: a job's change is stored before anybody is told of it; where the store fails,
 * a request is refused, and what simply happened is stored as soon as that is possible.
 *
 * Jobs that have not ended are all in memory; of those that have, the newest asked for. */
#ifndef DAEMON_DAEMON_H
#define DAEMON_DAEMON_H

#include <stdint.h>

#include "base/err.h"
#include "base/file.h"
#include "daemon/access.h"
#include "daemon/conn.h"
#include "daemon/folder.h"
#include "daemon/io.h"
#include "daemon/job.h"
#include "daemon/sched.h"
#include "daemon/store/store.h"
#include "launcher/backend/launch.h"

struct admission;
struct auth;
struct http_call;
struct watch;
struct tail;

enum { PAST_MAX = 32, CHECK_LIMIT = 900 };

/* What the owner of the daemon allows, and when to warn. */
struct limits {
    uint64_t disk_least;  /* bytes free where a run folder lies: below, an alarm */
    uint64_t keep_jobs;   /* that have ended; 0: all */
    double keep_seconds;  /* after their end; 0: for ever */
    uint64_t open_jobs;   /* of one owner, that have not ended; 0: any number */
    uint64_t state_bytes; /* of the state folder; 0: any number */
    uint64_t event_bytes; /* of one job's journal; 0: any number */
    double look_every;    /* seconds */
};

/* How much it holds, as last looked (retain.c). */
struct held {
    uint64_t ended, state_bytes;
    double next; /* look again then */
    size_t told; /* warnings */
};

struct daemon {
    struct io *io;
    struct store *store;
    const struct launch_backend *launcher;
    const char *address; /* where workers dial */
    const char *far;     /* HOST:PORT, those on other hosts; NULL: there are none */
    const char *state;   /* folder */
    char worker[FILE_PATH_MAX];
    char hone[FILE_PATH_MAX]; /* "": not found, nobody writes reports */
    const char *roots;        /* folders that jobs may use, daemon/roots.h; NULL: any */
    struct auth *auth;        /* borrowed; NULL: nobody comes over the network */
    struct access self;       /* whom a peer on a Unix socket turns out to be */
    struct resources resources;
    double check_limit; /* seconds that judging a job may take */
    int is_private;     /* ends with its owner, and its workers with it */
    int ending;         /* takes nothing new; a private one stops when nothing runs */
    double started;     /* by the io's clock */
    double ticked;      /* when the watchdog looked last, judge.c */
    struct limits limits;
    struct held held;

    struct job **jobs;  /* not ended, in order of id */
    struct job **queue; /* the same, in order of priority and id */
    size_t n_jobs, cap_jobs;
    struct job *past[PAST_MAX]; /* ended */
    unsigned next_past;

    struct conn *conns;
    double conns_checked;    /* when conn_tick() last looked */
    double complaints_since; /* of connections closed for what they said, conn.c */
    unsigned complaints;
    struct http_call *http_calls; /* requests over HTTP, http.c */
    double http_checked;          /* when http_tick() last looked */
    struct folder_hints hints;    /* of run folders */
    struct admission *admissions; /* submits on their way, admit.c */
    struct watch *watches;        /* watch.c */
    struct tail *tails;           /* tail.c */
};

void daemon_init(struct daemon *d, struct io *io, struct store *store, const char *state,
                 const char *address, int is_private);
/* Take up what an earlier daemon left: its jobs, and their workers where they live. */
int daemon_recover(struct daemon *d, struct err *e);
void daemon_fini(struct daemon *d);

/* New jobs, all or none: takes them and gives them their ids. */
int daemon_add_jobs(struct daemon *d, struct job *const *list, size_t n, struct err *e);
/* Put a job from the store, or from the past, among those that have not ended. */
int daemon_keep_job(struct daemon *d, struct job *j, struct err *e);
/* Also one that has ended: valid until the handler returns. NULL: none. */
struct job *daemon_find_job(struct daemon *d, uint64_t id);
void daemon_forget_job(struct daemon *d, struct job *j); /* an ended one: free it */
void daemon_sort_queue(struct daemon *d);

/* A job or one of its stages changed by itself: settle, store, tell. */
void daemon_job_changed(struct daemon *d, struct job *j);
/* Store a change that was asked for; a failure: the caller takes it back. */
int daemon_save(struct daemon *d, struct job *j, struct err *e);
/* What is wanted of a job changes on request: stored, or refused and left as it was. */
int daemon_want(struct daemon *d, struct job *j, enum job_want want, struct err *e);
/* Ask a job to stop: politely (checkpoint), by force once `grace` seconds have passed. */
int daemon_stop_job(struct daemon *d, struct job *j, double grace, struct err *e);
void daemon_schedule(struct daemon *d);

#endif
