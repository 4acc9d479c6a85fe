/* The daemon: what all its parts share.
 *
 * Everything that happens reaches it through `struct io_events` and everything it does goes
 * through `struct io_ops` (io.h), so that it runs the same under libuv and under a test.
 * One thread; a handler runs to its end. After each event the scheduler is asked.
 *
 * Invariant: a job's change is stored before anybody is told of it. */
#ifndef DAEMON_DAEMON_H
#define DAEMON_DAEMON_H

#include <stdint.h>

#include "base/err.h"
#include "base/file.h"
#include "daemon/access.h"
#include "daemon/conn.h"
#include "daemon/io.h"
#include "daemon/job.h"
#include "daemon/store/store.h"
#include "launcher/backend/launch.h"

struct admission;
struct auth;
struct watch;

struct daemon {
    struct io *io;
    struct store *store;
    const struct launch_backend *launcher;
    const char *address; /* where workers dial */
    char worker[FILE_PATH_MAX];
    struct auth *auth;  /* borrowed; NULL: nobody comes over the network */
    struct access self; /* whom a peer on a Unix socket turns out to be */
    int cores;
    int is_private; /* ends with its owner */
    int ending;     /* takes nothing new; stops when nothing runs */
    struct job **jobs;
    size_t n_jobs, cap_jobs;
    struct conn *conns;
    double conns_checked;         /* when conn_tick() last looked */
    struct admission *admissions; /* submits on their way, admit.c */
    struct watch *watches;        /* watch.c */
};

void daemon_init(struct daemon *d, struct io *io, struct store *store, const char *address,
                 int is_private);
void daemon_fini(struct daemon *d);

/* Takes the job, also when it fails. */
int daemon_add_job(struct daemon *d, struct job *j, struct err *e);
struct job *daemon_find_job(struct daemon *d, uint64_t id); /* NULL: none */

/* A job or one of its stages changed: settle, store, tell. */
void daemon_job_changed(struct daemon *d, struct job *j);
/* Ask a job to stop: politely (checkpoint), by force once `grace` seconds have passed. */
void daemon_stop_job(struct daemon *d, struct job *j, double grace);
void daemon_schedule(struct daemon *d);

#endif
