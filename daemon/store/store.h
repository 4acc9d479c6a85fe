/* The store: jobs and stages in SQLite, so that an acknowledged submit survives power loss.
 *
 * STATE/jobs.db; write-ahead log with full synchronisation, or a rollback journal where the
 * folder lies on a network file system, whose shared memory WAL cannot use. The schema is
 * made by numbered migrations (migrations.c); a newer schema than ours is refused. Nobody
 * else may use the folder: the daemon holds STATE/lock.
 *
 * Every call is one transaction. Fails with ERR_IO (ERR_CORRUPT: a file that is no store of
 * ours), naming the file. */
#ifndef DAEMON_STORE_STORE_H
#define DAEMON_STORE_STORE_H

#include "base/err.h"
#include "daemon/job.h"

struct store;

/* Durable: an acknowledged write survives power loss. Ephemeral: the state of a private
 * daemon, which goes with it; nothing is synced. */
enum store_kind { STORE_DURABLE, STORE_EPHEMERAL };
int store_open(struct store **out, const char *dir, enum store_kind kind, struct err *e);
void store_close(struct store *s);

/* A new job with its stages: gives it its id. */
int store_add_job(struct store *s, struct job *j, struct err *e);
/* States, attempts and messages of a job and its stages. */
int store_save_job(struct store *s, const struct job *j, struct err *e);

/* Jobs that an earlier daemon left unfinished are marked as failed; *n: how many. */
int store_recover(struct store *s, int *n, struct err *e);

/* A job's state as stored, for tests and for jobs of earlier daemons: 0 and *state, or
 * ERR_CONFIG when there is no such job. */
int store_job_state(struct store *s, uint64_t id, enum job_state *state, struct err *e);

/* The schema: migration i brings user_version from i to i + 1. */
extern const char *const store_migrations[];
extern const int store_n_migrations;

#endif
