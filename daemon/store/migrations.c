/* The schema, step by step. A migration that has been released is never changed: a new one
 * is added at the end. */
#include "daemon/store/store.h"

const char *const store_migrations[] = {
    /* 1: jobs and their stages. State is a name of daemon/job.h. */
    "CREATE TABLE job ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  name TEXT NOT NULL, file TEXT NOT NULL, run TEXT NOT NULL,"
    "  settings TEXT NOT NULL," /* --set, a JSON array */
    "  resume INTEGER NOT NULL, state TEXT NOT NULL,"
    "  exit_status INTEGER, message TEXT, mend TEXT,"
    "  submitted REAL NOT NULL, ended REAL) STRICT;"
    "CREATE TABLE stage ("
    "  job INTEGER NOT NULL REFERENCES job, position INTEGER NOT NULL,"
    "  name TEXT NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL,"
    "  worker_status INTEGER, message TEXT,"
    "  PRIMARY KEY (job, position)) STRICT, WITHOUT ROWID;",

    /* 2: what a daemon that was started again needs to go on; who has the folder. */
    "ALTER TABLE job ADD COLUMN request_id TEXT;"
    "ALTER TABLE job ADD COLUMN owner TEXT;"
    "ALTER TABLE job ADD COLUMN notify TEXT;"
    "ALTER TABLE job ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE job ADD COLUMN want TEXT NOT NULL DEFAULT 'run';"
    "CREATE UNIQUE INDEX job_request ON job (owner, request_id)"
    "  WHERE request_id IS NOT NULL;"
    "CREATE INDEX job_state ON job (state);"
    "ALTER TABLE stage ADD COLUMN whole INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE stage ADD COLUMN needs TEXT NOT NULL DEFAULT '';" /* positions: 0,1 */
    "ALTER TABLE stage ADD COLUMN steps INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE stage ADD COLUMN n_cores INTEGER NOT NULL DEFAULT 1;"
    "ALTER TABLE stage ADD COLUMN memory INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE stage ADD COLUMN workers INTEGER NOT NULL DEFAULT 1;"
    "ALTER TABLE stage ADD COLUMN mend TEXT;"
    "ALTER TABLE stage ADD COLUMN token TEXT;"
    "ALTER TABLE stage ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE stage ADD COLUMN fresh INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE stage ADD COLUMN restarts TEXT NOT NULL DEFAULT '';" /* by class: 0,1,0 */
    "ALTER TABLE stage ADD COLUMN cores TEXT NOT NULL DEFAULT '';"    /* numbers: 0,1 */
    "ALTER TABLE stage ADD COLUMN started REAL NOT NULL DEFAULT 0;"
    "ALTER TABLE stage ADD COLUMN ended REAL NOT NULL DEFAULT 0;"
    "CREATE TABLE daemon (only INTEGER PRIMARY KEY CHECK (only = 1),"
    "  epoch INTEGER NOT NULL) STRICT;"
    "INSERT INTO daemon VALUES (1, 0);",

    /* 3: GPUs by number; jobs whose workers Slurm runs. */
    "ALTER TABLE stage ADD COLUMN n_gpus INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE stage ADD COLUMN gpus TEXT NOT NULL DEFAULT '';" /* numbers: 0,1 */
    "ALTER TABLE job ADD COLUMN slurm TEXT;", /* options of srun, a JSON array */

    /* 4: each seed has stages of its own; what one worker did for all of them goes on when
     * it is submitted again with --resume. */
    "UPDATE job SET state = 'failed', exit_status = 1, ended = (julianday('now') - "
    "2440587.5) * 86400,"
    "  message = 'begun by an earlier honed, with all seeds in one worker',"
    "  mend = 'hone submit with --out and --resume goes on' WHERE"
    "  state NOT IN ('done', 'failed', 'stopped') AND id IN"
    "  (SELECT job FROM stage WHERE whole);"
    "UPDATE stage SET state = 'failed' WHERE whole AND state IN ('waiting', 'running');"
    "ALTER TABLE stage DROP COLUMN whole;",

    /* 5: jobs that were started elsewhere and only report here. */
    "ALTER TABLE job ADD COLUMN attached INTEGER NOT NULL DEFAULT 0;",
};
const int store_n_migrations = sizeof store_migrations / sizeof *store_migrations;
