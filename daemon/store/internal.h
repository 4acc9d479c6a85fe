/* What the files of the store share. */
#ifndef DAEMON_STORE_INTERNAL_H
#define DAEMON_STORE_INTERNAL_H

#include <sqlite3.h>

#include "base/err.h"
#include "base/file.h"

enum { STORE_KEPT = 16 };

struct store {
    sqlite3 *db;
    struct { /* statements, parsed once */
        const char *sql;
        sqlite3_stmt *q;
    } kept[STORE_KEPT];
    char path[FILE_PATH_MAX];
    uint64_t epoch;
};

/* The error of the newest call to SQLite. */
int store_fail(struct store *s, const char *what, struct err *e);

#endif
