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
};
const int store_n_migrations = sizeof store_migrations / sizeof *store_migrations;
