/* The store: see store.h. */
#include "daemon/store/store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/store/internal.h"

int store_fail(struct store *s, const char *what, struct err *e)
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
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) ? store_fail(s, "write", e) : 0;
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
        return store_fail(s, "read", e);
    rc = sqlite3_step(q);
    *version = rc == SQLITE_ROW ? sqlite3_column_int(q, 0) : 0;
    sqlite3_finalize(q);
    return rc == SQLITE_ROW ? 0 : store_fail(s, "read", e);
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
    if (version == store_n_migrations)
        return 0;
    str_add(&sql, "BEGIN IMMEDIATE;"); /* one synchronisation of the disk for all */
    for (; version < store_n_migrations; version++)
        str_addf(&sql, "%s PRAGMA user_version = %d;", store_migrations[version],
                 version + 1);
    str_add(&sql, "COMMIT;");
    rc = str_failed(&sql) ? err_set(e, ERR_NOMEM, "%s: out of memory", s->path)
                          : execute(s, sql.s, e);
    if (rc)
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    str_fini(&sql);
    return rc;
}

/* A statement by its text, which has to stay where it is. It is reset when it has run.
 * NULL: *e says why. */
static sqlite3_stmt *prepare(struct store *s, const char *sql, struct err *e)
{
    int i = 0;

    while (i < STORE_KEPT && s->kept[i].sql && s->kept[i].sql != sql)
        i++;
    invariant(i < STORE_KEPT);
    if (!s->kept[i].sql) {
        if (sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &s->kept[i].q,
                               NULL)) {
            store_fail(s, "write", e);
            return NULL;
        }
        s->kept[i].sql = sql;
    }
    return s->kept[i].q;
}

/* A transaction of the daemon that has the folder. */
static int begin(struct store *s, struct err *e)
{
    int64_t epoch = -1;
    sqlite3_stmt *q;
    int rc = execute(s, "BEGIN IMMEDIATE", e);

    if (rc)
        return rc;
    q = prepare(s, "SELECT epoch FROM daemon", e);
    if (q) {
        if (sqlite3_step(q) == SQLITE_ROW)
            epoch = sqlite3_column_int64(q, 0);
        sqlite3_reset(q);
        if (epoch != (int64_t)s->epoch)
            rc = err_set(e, ERR_DENIED, "%s: another honed has taken over", s->path);
    } else {
        rc = e->code;
    }
    if (rc)
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

/* Commit when rc is 0, else roll back and keep the first error. */
static int conclude(struct store *s, int rc, struct err *e)
{
    if (!rc && fault_hit(FAULT_FSYNC))
        rc = err_errno(e, ERR_IO, errno, "write %s", s->path);
    if (!rc)
        rc = execute(s, "COMMIT", e);
    if (rc)
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

static int take_over(struct store *s, struct err *e)
{
    sqlite3_stmt *q;
    int rc = execute(s, "BEGIN IMMEDIATE; UPDATE daemon SET epoch = epoch + 1;", e);

    if (rc)
        return conclude(s, rc, e);
    if (sqlite3_prepare_v2(s->db, "SELECT epoch FROM daemon", -1, &q, NULL))
        return conclude(s, store_fail(s, "read", e), e);
    if (sqlite3_step(q) == SQLITE_ROW)
        s->epoch = (uint64_t)sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    return conclude(s, 0, e);
}

uint64_t store_epoch(const struct store *s)
{
    return s->epoch;
}

int store_open(struct store **out, const char *dir, enum store_kind kind, struct err *e)
{
    struct store *s = mem_alloc(sizeof *s);
    int rc;

    *out = NULL;
    if (!s)
        return err_set(e, ERR_NOMEM, "open the store: out of memory");
    rc = file_join(s->path, sizeof s->path, dir, "jobs.db", e);
    if (!rc &&
        sqlite3_open_v2(s->path, &s->db,
                        kind == STORE_READ ? SQLITE_OPEN_READONLY
                                           : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                        NULL))
        rc = store_fail(s, "open", e);
    if (!rc && kind == STORE_READ) {
        *out = s;
        return 0;
    }
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
    if (!rc)
        rc = take_over(s, e);
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
    for (int i = 0; i < STORE_KEPT; i++)
        sqlite3_finalize(s->kept[i].q);
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

/* Run a bound statement to its end; its texts are not needed any more. */
static int finish(struct store *s, sqlite3_stmt *q, struct err *e)
{
    int rc = sqlite3_step(q);

    rc = sqlite3_reset(q) || rc != SQLITE_DONE ? store_fail(s, "write", e) : 0;
    sqlite3_clear_bindings(q);
    return rc;
}

/* "0,2,3" */
static void add_numbers(struct str *out, const size_t *n, size_t count)
{
    for (size_t i = 0; i < count; i++)
        str_addf(out, "%s%zu", i ? "," : "", n[i]);
}

static int save_stage(struct store *s, const struct job *j, size_t i, struct err *e)
{
    static const char sql[] =
        "INSERT OR REPLACE INTO stage (job, position, name, state, attempt, "
        "worker_status, message, needs, steps, n_cores, memory, workers, mend, token, "
        "asked, fresh, restarts, cores, started, ended, n_gpus, gpus) VALUES (?1, ?2, ?3, "
        "?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, "
        "?21, ?22)";
    const struct job_stage *st = &j->stage[i];
    struct str needs = {0}, cores = {0}, gpus = {0}, restarts = {0};
    sqlite3_stmt *q;
    int rc = 0;

    add_numbers(&needs, st->needs, st->n_needs);
    cores_write(&st->cores, &cores);
    cores_write(&st->gpus, &gpus);
    for (int k = 0; k < LOSSES; k++)
        str_addf(&restarts, "%s%u", k ? "," : "", st->restarts[k]);
    if (str_failed(&needs) || str_failed(&cores) || str_failed(&gpus) ||
        str_failed(&restarts))
        rc = err_set(e, ERR_NOMEM, "%s: out of memory", s->path);
    q = rc ? NULL : prepare(s, sql, e);
    if (q) {
        sqlite3_bind_int64(q, 1, (sqlite3_int64)j->id);
        sqlite3_bind_int64(q, 2, (sqlite3_int64)i);
        bind_text(q, 3, st->name);
        bind_text(q, 4, stage_state_name(st->state));
        sqlite3_bind_int64(q, 5, st->attempt);
        sqlite3_bind_int(q, 6, st->status);
        bind_text(q, 7, st->message);
        bind_text(q, 8, str_get(&needs));
        sqlite3_bind_int64(q, 9, (sqlite3_int64)st->steps);
        sqlite3_bind_int(q, 10, st->n_cores);
        sqlite3_bind_int64(q, 11, (sqlite3_int64)st->memory);
        sqlite3_bind_int(q, 12, st->workers);
        bind_text(q, 13, st->mend);
        bind_text(q, 14, st->token);
        sqlite3_bind_int(q, 15, (int)st->asked);
        sqlite3_bind_int(q, 16, st->fresh);
        bind_text(q, 17, str_get(&restarts));
        bind_text(q, 18, str_get(&cores));
        sqlite3_bind_double(q, 19, st->started);
        sqlite3_bind_double(q, 20, st->ended);
        sqlite3_bind_int(q, 21, st->n_gpus);
        bind_text(q, 22, str_get(&gpus));
        rc = finish(s, q, e);
    } else if (!rc) {
        rc = e->code;
    }
    str_fini(&needs);
    str_fini(&cores);
    str_fini(&gpus);
    str_fini(&restarts);
    return rc;
}

static void add_texts(struct str *out, const char *const *text, size_t n)
{
    str_add_char(out, '[');
    for (size_t i = 0; i < n; i++) {
        if (i)
            str_add_char(out, ',');
        str_add_json(out, text[i], strlen(text[i]));
    }
    str_add_char(out, ']');
}

static int insert_job(struct store *s, struct job *j, struct err *e)
{
    struct str set = {0}, slurm = {0};
    sqlite3_stmt *q;
    int rc;

    add_texts(&set, j->set, j->n_set);
    add_texts(&slurm, j->slurm, j->n_slurm);
    if (str_failed(&set) || str_failed(&slurm)) {
        rc = err_set(e, ERR_NOMEM, "%s: out of memory", s->path);
        goto done;
    }
    q = prepare(s,
                "INSERT INTO job (name, file, run, settings, resume, state, "
                "submitted, request_id, owner, notify, priority, want, "
                "slurm, attached) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                e);
    if (!q) {
        rc = e->code;
        goto done;
    }
    bind_text(q, 1, j->name);
    bind_text(q, 2, j->file);
    bind_text(q, 3, j->run);
    bind_text(q, 4, str_get(&set));
    sqlite3_bind_int(q, 5, j->resume);
    bind_text(q, 6, job_state_name(j->state));
    sqlite3_bind_double(q, 7, j->submitted);
    bind_text(q, 8, j->request_id);
    bind_text(q, 9, j->owner);
    bind_text(q, 10, j->notify);
    sqlite3_bind_int(q, 11, j->priority);
    bind_text(q, 12, job_want_name(j->want));
    bind_text(q, 13, j->slurm ? str_get(&slurm) : NULL);
    sqlite3_bind_int(q, 14, j->attached);
    rc = finish(s, q, e);
    if (!rc)
        j->id = (uint64_t)sqlite3_last_insert_rowid(s->db);
done:
    str_fini(&set);
    str_fini(&slurm);
    return rc;
}

static int update_job(struct store *s, const struct job *j, struct err *e)
{
    sqlite3_stmt *q;

    q = prepare(s,
                "UPDATE job SET state = ?2, exit_status = ?3, message = ?4, "
                "mend = ?5, ended = ?6, priority = ?7, want = ?8 WHERE id = ?1",
                e);
    if (!q)
        return e->code;
    sqlite3_bind_int64(q, 1, (sqlite3_int64)j->id);
    bind_text(q, 2, job_state_name(j->state));
    if (job_ended(j)) {
        sqlite3_bind_int(q, 3, j->exit_status);
        sqlite3_bind_double(q, 6, j->ended);
    }
    bind_text(q, 4, j->message);
    bind_text(q, 5, j->mend);
    sqlite3_bind_int(q, 7, j->priority);
    bind_text(q, 8, job_want_name(j->want));
    return finish(s, q, e);
}

int store_add_jobs(struct store *s, struct job *const *list, size_t n, struct err *e)
{
    int rc = begin(s, e);

    if (rc)
        return rc;
    for (size_t k = 0; !rc && k < n; k++) {
        rc = insert_job(s, list[k], e);
        for (size_t i = 0; !rc && i < list[k]->n_stages; i++)
            rc = save_stage(s, list[k], i, e);
    }
    return conclude(s, rc, e);
}

int store_add_job(struct store *s, struct job *j, struct err *e)
{
    return store_add_jobs(s, &j, 1, e);
}

int store_save_job(struct store *s, const struct job *j, struct err *e)
{
    int rc = begin(s, e);

    if (rc)
        return rc;
    rc = update_job(s, j, e);
    for (size_t i = 0; !rc && i < j->n_stages; i++)
        rc = save_stage(s, j, i, e);
    return conclude(s, rc, e);
}

static int delete_rows(struct store *s, const char *sql, uint64_t id, struct err *e)
{
    sqlite3_stmt *q;

    q = prepare(s, sql, e);
    if (!q)
        return e->code;
    sqlite3_bind_int64(q, 1, (sqlite3_int64)id);
    return finish(s, q, e);
}

int store_remove_jobs(struct store *s, const uint64_t *id, size_t n, struct err *e)
{
    int rc = begin(s, e);

    if (rc)
        return rc;
    for (size_t i = 0; !rc && i < n; i++) {
        rc = delete_rows(s, "DELETE FROM stage WHERE job = ?", id[i], e);
        if (!rc)
            rc = delete_rows(s, "DELETE FROM job WHERE id = ?", id[i], e);
    }
    return conclude(s, rc, e);
}

int store_remove_job(struct store *s, uint64_t id, struct err *e)
{
    return store_remove_jobs(s, &id, 1, e);
}

int store_backup(struct store *s, const char *path, struct err *e)
{
    sqlite3_stmt *q;

    q = prepare(s, "VACUUM INTO ?", e);
    if (!q)
        return e->code;
    bind_text(q, 1, path);
    return finish(s, q, e);
}

int store_verify(struct store *s, struct err *e)
{
    const char *said;
    sqlite3_stmt *q;
    int rc = 0;

    if (sqlite3_prepare_v2(s->db, "PRAGMA integrity_check(1)", -1, &q, NULL))
        return store_fail(s, "check", e);
    if (sqlite3_step(q) != SQLITE_ROW)
        rc = store_fail(s, "check", e);
    said = rc ? NULL : (const char *)sqlite3_column_text(q, 0);
    if (said && strcmp(said, "ok") != 0)
        rc = err_set(e, ERR_CORRUPT, "%s: %.500s", s->path, said);
    sqlite3_finalize(q);
    return rc;
}
