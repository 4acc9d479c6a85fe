/* The store: see store.h. */
#include "daemon/store/store.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

struct store {
    sqlite3 *db;
    char path[FILE_PATH_MAX];
};

static int fail(struct store *s, const char *what, struct err *e)
{
    int code = sqlite3_extended_errcode(s->db) & 0xff;

    if (code == SQLITE_NOMEM)
        return err_set(e, ERR_NOMEM, "%s %s: out of memory", what, s->path);
    return err_set(e,
                   code == SQLITE_NOTADB || code == SQLITE_CORRUPT ? ERR_CORRUPT : ERR_IO,
                   "%s %s: %s", what, s->path, sqlite3_errmsg(s->db));
}

static int execute(struct store *s, const char *sql, struct err *e)
{
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) ? fail(s, "write", e) : 0;
}

/* NFS, SMB, CIFS, AFS, Ceph, Lustre, GPFS, FUSE, 9P: statfs(2) and the kernel's magic.h. */
static int on_network(const char *dir)
{
    static const unsigned long remote[] = {0x6969,     0x517b,     0xfe534d42, 0xff534d42,
                                           0x5346414f, 0x00c36400, 0x0bd00bd0, 0x47504653,
                                           0x65735546, 0x01021997};
    struct statfs fs;

    if (statfs(dir, &fs))
        return 0;
    for (size_t i = 0; i < sizeof remote / sizeof *remote; i++)
        if (((unsigned long)fs.f_type & 0xffffffffUL) == remote[i])
            return 1;
    return 0;
}

static int get_version(struct store *s, int *version, struct err *e)
{
    sqlite3_stmt *q;
    int rc;

    if (sqlite3_prepare_v2(s->db, "PRAGMA user_version", -1, &q, NULL))
        return fail(s, "read", e);
    rc = sqlite3_step(q);
    *version = rc == SQLITE_ROW ? sqlite3_column_int(q, 0) : 0;
    sqlite3_finalize(q);
    return rc == SQLITE_ROW ? 0 : fail(s, "read", e);
}

static int migrate(struct store *s, struct err *e)
{
    struct str sql = {0};
    int version, rc = get_version(s, &version, e);

    if (rc)
        return rc;
    if (version > store_n_migrations) {
        err_set(e, ERR_UNSUPPORTED, "%s was written by a newer honed (schema %d, ours %d)",
                s->path, version, store_n_migrations);
        return err_mend(e, "use that version, or another --state folder");
    }
    for (; !rc && version < store_n_migrations; version++) {
        str_clear(&sql);
        str_addf(&sql, "BEGIN IMMEDIATE; %s PRAGMA user_version = %d; COMMIT;",
                 store_migrations[version], version + 1);
        rc = str_failed(&sql) ? err_set(e, ERR_NOMEM, "%s: out of memory", s->path)
                              : execute(s, sql.s, e);
    }
    str_fini(&sql);
    return rc;
}

int store_open(struct store **out, const char *dir, enum store_kind kind, struct err *e)
{
    struct store *s = mem_alloc(sizeof *s);
    int rc;

    *out = NULL;
    if (!s)
        return err_set(e, ERR_NOMEM, "open the store: out of memory");
    rc = file_join(s->path, sizeof s->path, dir, "jobs.db", e);
    if (!rc && sqlite3_open(s->path, &s->db))
        rc = fail(s, "open", e);
    if (!rc) {
        sqlite3_busy_timeout(s->db, 2000);
        rc = execute(s,
                     kind == STORE_EPHEMERAL ? "PRAGMA synchronous = OFF"
                                             : "PRAGMA synchronous = FULL",
                     e);
    }
    if (!rc)
        rc = execute(s,
                     on_network(dir) ? "PRAGMA journal_mode = DELETE"
                                     : "PRAGMA journal_mode = WAL",
                     e);
    if (!rc)
        rc = execute(s, "PRAGMA foreign_keys = ON", e);
    if (!rc)
        rc = migrate(s, e);
    if (rc) {
        store_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    sqlite3_close(s->db);
    mem_free(s);
}

static void bind_text(sqlite3_stmt *q, int at, const char *text)
{
    if (text)
        sqlite3_bind_text(q, at, text, -1, SQLITE_STATIC);
    else
        sqlite3_bind_null(q, at);
}

/* Run a bound statement to its end and free it. */
static int finish(struct store *s, sqlite3_stmt *q, struct err *e)
{
    int rc = sqlite3_step(q);

    return sqlite3_finalize(q) || rc != SQLITE_DONE ? fail(s, "write", e) : 0;
}

static int insert_stage(struct store *s, const struct job *j, size_t i, struct err *e)
{
    const struct job_stage *st = &j->stage[i];
    sqlite3_stmt *q;

    if (sqlite3_prepare_v2(s->db,
                           "INSERT OR REPLACE INTO stage (job, position, name, state, "
                           "attempt, worker_status, message) VALUES (?, ?, ?, ?, ?, ?, ?)",
                           -1, &q, NULL))
        return fail(s, "write", e);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)j->id);
    sqlite3_bind_int64(q, 2, (sqlite3_int64)i);
    bind_text(q, 3, st->name);
    bind_text(q, 4, stage_state_name(st->state));
    sqlite3_bind_int64(q, 5, st->attempt);
    if (st->state >= STAGE_DONE)
        sqlite3_bind_int(q, 6, st->status);
    bind_text(q, 7, st->message);
    return finish(s, q, e);
}

static int insert_job(struct store *s, struct job *j, struct err *e)
{
    struct str set = {0};
    sqlite3_stmt *q;
    int rc;

    str_add_char(&set, '[');
    for (size_t i = 0; i < j->n_set; i++) {
        if (i)
            str_add_char(&set, ',');
        str_add_json(&set, j->set[i], strlen(j->set[i]));
    }
    str_add_char(&set, ']');
    if (sqlite3_prepare_v2(s->db,
                           "INSERT INTO job (name, file, run, settings, resume, state, "
                           "submitted) VALUES (?, ?, ?, ?, ?, ?, ?)",
                           -1, &q, NULL)) {
        str_fini(&set);
        return fail(s, "write", e);
    }
    bind_text(q, 1, j->name);
    bind_text(q, 2, j->file);
    bind_text(q, 3, j->run);
    bind_text(q, 4, str_get(&set));
    sqlite3_bind_int(q, 5, j->resume);
    bind_text(q, 6, job_state_name(j->state));
    sqlite3_bind_double(q, 7, clock_wall());
    rc = finish(s, q, e);
    str_fini(&set);
    if (!rc)
        j->id = (uint64_t)sqlite3_last_insert_rowid(s->db);
    return rc;
}

static int update_job(struct store *s, const struct job *j, struct err *e)
{
    sqlite3_stmt *q;

    if (sqlite3_prepare_v2(s->db,
                           "UPDATE job SET state = ?2, exit_status = ?3, message = ?4, "
                           "mend = ?5, ended = ?6 WHERE id = ?1",
                           -1, &q, NULL))
        return fail(s, "write", e);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)j->id);
    bind_text(q, 2, job_state_name(j->state));
    if (job_ended(j)) {
        sqlite3_bind_int(q, 3, j->exit_status);
        sqlite3_bind_double(q, 6, clock_wall());
    }
    bind_text(q, 4, j->message);
    bind_text(q, 5, j->mend);
    return finish(s, q, e);
}

/* Commit when rc is 0, else roll back and keep the first error. */
static int conclude(struct store *s, int rc, struct err *e)
{
    if (!rc)
        rc = execute(s, "COMMIT", e);
    if (rc)
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

int store_add_job(struct store *s, struct job *j, struct err *e)
{
    int rc = execute(s, "BEGIN IMMEDIATE", e);

    if (rc)
        return rc;
    rc = insert_job(s, j, e);
    for (size_t i = 0; !rc && i < j->n_stages; i++)
        rc = insert_stage(s, j, i, e);
    return conclude(s, rc, e);
}

int store_save_job(struct store *s, const struct job *j, struct err *e)
{
    int rc = execute(s, "BEGIN IMMEDIATE", e);

    if (rc)
        return rc;
    rc = update_job(s, j, e);
    for (size_t i = 0; !rc && i < j->n_stages; i++)
        rc = insert_stage(s, j, i, e);
    return conclude(s, rc, e);
}

int store_recover(struct store *s, int *n, struct err *e)
{
    int rc = execute(s,
                     "BEGIN IMMEDIATE;"
                     "UPDATE stage SET state = 'failed', message = 'honed ended' "
                     "  WHERE state = 'running';"
                     "UPDATE job SET state = 'failed', exit_status = 1, "
                     "  message = 'honed ended while the job ran' "
                     "  WHERE state IN ('queued', 'running', 'stopping');",
                     e);

    *n = rc ? 0 : sqlite3_changes(s->db);
    return conclude(s, rc, e);
}

int store_job_state(struct store *s, uint64_t id, enum job_state *state, struct err *e)
{
    sqlite3_stmt *q;
    const char *name;
    int rc;

    if (sqlite3_prepare_v2(s->db, "SELECT state FROM job WHERE id = ?", -1, &q, NULL))
        return fail(s, "read", e);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)id);
    rc = sqlite3_step(q);
    if (rc == SQLITE_ROW) {
        name = (const char *)sqlite3_column_text(q, 0);
        rc = err_set(e, ERR_CORRUPT, "%s: job %llu has an unknown state", s->path,
                     (unsigned long long)id);
        for (int i = JOB_QUEUED; name && i <= JOB_STOPPED; i++)
            if (!strcmp(name, job_state_name((enum job_state)i))) {
                *state = (enum job_state)i;
                rc = 0;
            }
    } else {
        rc = rc == SQLITE_DONE
                 ? err_set(e, ERR_CONFIG, "no job %llu", (unsigned long long)id)
                 : fail(s, "read", e);
    }
    sqlite3_finalize(q);
    return rc;
}
