/* The store: jobs and stages in SQLite, so that an acknowledged submit survives power loss.
 *
 * STATE/jobs.db; write-ahead log with full synchronisation, or a rollback journal where the
 * folder lies on a network file system, whose shared memory WAL cannot use. The schema is
 * made by numbered migrations (migrations.c); a newer schema than ours is refused.
 *
 * One daemon per folder: it holds STATE/lock, and because a lock may be lost on a network
 * file system, every daemon counts the epoch up when it opens the store and every write
 * checks it: a daemon whose epoch is over is told so with ERR_DENIED and changes nothing.
 *
 * Every call is one transaction. Fails with ERR_IO (ERR_CORRUPT: a file that is no store of
 * ours), naming the file. */
#ifndef DAEMON_STORE_STORE_H
#define DAEMON_STORE_STORE_H

#include "base/err.h"
#include "daemon/job.h"

struct store;

/* Durable: an acknowledged write survives power loss. Ephemeral: the state of a private
 * daemon, which goes with it; nothing is synced. Read: another daemon's, left as it is, for
 * store_backup(), store_verify() and loading. */
enum store_kind { STORE_DURABLE, STORE_EPHEMERAL, STORE_READ };
int store_open(struct store **out, const char *dir, enum store_kind kind, struct err *e);
void store_close(struct store *s);
uint64_t store_epoch(const struct store *s);

/* New jobs with their stages, all or none: gives them their ids. */
int store_add_jobs(struct store *s, struct job *const *list, size_t n, struct err *e);
int store_add_job(struct store *s, struct job *j, struct err *e);
/* Everything about a job and its stages that may change. */
int store_save_job(struct store *s, const struct job *j, struct err *e);
int store_remove_jobs(struct store *s, const uint64_t *id, size_t n, struct err *e);
int store_remove_job(struct store *s, uint64_t id, struct err *e);

/* Jobs as they were saved, each to be freed with job_free(). */
struct store_filter {
    uint64_t id;            /* this one, 0: any */
    uint64_t before;        /* ids below, 0: any */
    const char *request_id; /* with owner: submitted with it, NULL: any */
    const char *owner;      /* NULL: any */
    unsigned states;        /* bits 1 << enum job_state, 0: any */
    int oldest_first;
};
typedef int store_take(void *ctx, struct job *j); /* takes the job; not 0: enough */
int store_load_jobs(struct store *s, const struct store_filter *f, store_take *take,
                    void *ctx, struct err *e);
/* One job, NULL when there is none. */
int store_load_job(struct store *s, const struct store_filter *f, struct job **out,
                   struct err *e);

/* Jobs that have ended. */
int store_count_ended(struct store *s, uint64_t *n, struct err *e);
/* At most `max` of them, the oldest first, that are not among the newest `keep` (0: all
 * are) or ended before `before`. */
int store_list_old(struct store *s, uint64_t keep, double before, uint64_t *id, size_t max,
                   size_t *n, struct err *e);

/* A consistent copy of the store, while it is in use. */
int store_backup(struct store *s, const char *path, struct err *e);
/* ERR_CORRUPT says what is wrong. */
int store_verify(struct store *s, struct err *e);

/* The schema: migration i brings user_version from i to i + 1. */
extern const char *const store_migrations[];
extern const int store_n_migrations;

#endif
