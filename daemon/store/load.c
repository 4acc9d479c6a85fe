/* Jobs out of the store. What is read was written by us, but a file is a file: names and
 * numbers that make no sense are ERR_CORRUPT. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "daemon/plan.h"
#include "daemon/store/internal.h"
#include "daemon/store/store.h"

enum { SETS_MAX = 4096 };

static int corrupt(const struct store *s, const struct job *j, const char *what,
                   struct err *e)
{
    return err_set(e, ERR_CORRUPT, "%s: job %llu: %s", s->path, (unsigned long long)j->id,
                   what);
}

static int no_memory(const struct store *s, struct err *e)
{
    return err_set(e, ERR_NOMEM, "%s: out of memory", s->path);
}

/* A column as text in the arena; NULL stays NULL. -1: out of memory. */
static int text_of(sqlite3_stmt *q, int at, struct arena *a, const char **out)
{
    const char *t = (const char *)sqlite3_column_text(q, at);

    *out = t ? arena_strdup(a, t) : NULL;
    return t && !*out ? -1 : 0;
}

/* A JSON array of texts; NULL stays NULL. */
static int read_texts(struct store *s, struct job *j, const char *text, const char ***out,
                      size_t *count, struct err *e)
{
    json_t *list = NULL;
    size_t n;
    int rc;

    if (!text)
        return 0;
    rc = json_parse(s->path, text, strlen(text), &list, e);
    if (rc)
        return rc;
    n = json_array_size(list);
    *out = arena_array(&j->arena, n + 1, sizeof **out);
    if (!*out)
        rc = no_memory(s, e);
    if (n > SETS_MAX)
        rc = corrupt(s, j, "too many settings", e);
    for (size_t i = 0; !rc && i < n; i++) {
        const char *item = json_string_value(json_array_get(list, i));

        if (!item)
            rc = corrupt(s, j, "a setting that is no text", e);
        else if (!((*out)[(*count)++] = arena_strdup(&j->arena, item)))
            rc = no_memory(s, e);
    }
    json_decref(list);
    return rc;
}

enum {
    ID,
    NAME,
    FILE_,
    RUN,
    SETTINGS,
    RESUME,
    STATE,
    STATUS,
    MESSAGE,
    MEND,
    SUBMITTED,
    ENDED,
    REQUEST,
    OWNER,
    NOTIFY,
    PRIORITY,
    WANT,
    SLURM,
    ATTACHED
};

static int read_job(struct store *s, sqlite3_stmt *q, struct job *j, struct err *e)
{
    const char *settings, *slurm;
    int rc, state = job_state_find((const char *)sqlite3_column_text(q, STATE));
    int want = job_want_find((const char *)sqlite3_column_text(q, WANT));

    j->id = (uint64_t)sqlite3_column_int64(q, ID);
    if (state < 0 || want < 0)
        return corrupt(s, j, "unknown state", e);
    j->state = (enum job_state)state;
    j->want = (enum job_want)want;
    j->resume = sqlite3_column_int(q, RESUME);
    j->attached = sqlite3_column_int(q, ATTACHED);
    j->exit_status = sqlite3_column_int(q, STATUS);
    j->submitted = sqlite3_column_double(q, SUBMITTED);
    j->ended = sqlite3_column_double(q, ENDED);
    j->priority = sqlite3_column_int(q, PRIORITY);
    if (text_of(q, NAME, &j->arena, &j->name) || text_of(q, FILE_, &j->arena, &j->file) ||
        text_of(q, RUN, &j->arena, &j->run) ||
        text_of(q, MESSAGE, &j->arena, &j->message) ||
        text_of(q, MEND, &j->arena, &j->mend) ||
        text_of(q, REQUEST, &j->arena, &j->request_id) ||
        text_of(q, OWNER, &j->arena, &j->owner) ||
        text_of(q, NOTIFY, &j->arena, &j->notify) ||
        text_of(q, SETTINGS, &j->arena, &settings) || text_of(q, SLURM, &j->arena, &slurm))
        return no_memory(s, e);
    rc = read_texts(s, j, settings, &j->set, &j->n_set, e);
    return rc ? rc : read_texts(s, j, slurm, &j->slurm, &j->n_slurm, e);
}

/* "0,2,3" into out[0..max); -1: that is no such list. */
static int read_numbers(const char *text, long *out, size_t max, size_t *n)
{
    char *end;

    for (*n = 0; text && *text; text = *end ? end + 1 : end) {
        if (*n == max)
            return -1;
        out[(*n)++] = strtol(text, &end, 10);
        if (end == text || (*end && *end != ','))
            return -1;
    }
    return 0;
}

enum {
    S_NAME,
    S_STATE,
    S_ATTEMPT,
    S_STATUS,
    S_MESSAGE,
    S_NEEDS,
    S_STEPS,
    S_N_CORES,
    S_MEMORY,
    S_WORKERS,
    S_MEND,
    S_TOKEN,
    S_ASKED,
    S_FRESH,
    S_RESTARTS,
    S_CORES,
    S_STARTED,
    S_ENDED,
    S_N_GPUS,
    S_GPUS
};

static int read_cores(struct store *s, sqlite3_stmt *q, int column, const struct job *j,
                      struct cores *out, struct err *e)
{
    long number[CORES_MAX];
    size_t n;

    if (read_numbers((const char *)sqlite3_column_text(q, column), number, CORES_MAX, &n))
        return corrupt(s, j, "cores", e);
    for (size_t i = 0; i < n; i++) {
        if (number[i] < 0 || number[i] >= CORES_MAX)
            return corrupt(s, j, "cores", e);
        cores_add(out, (int)number[i]);
    }
    return 0;
}

static int read_lists(struct store *s, sqlite3_stmt *q, struct job *j, struct job_stage *st,
                      struct err *e)
{
    long number[CORES_MAX];
    size_t n;

    if (read_numbers((const char *)sqlite3_column_text(q, S_NEEDS), number, PLAN_STAGES_MAX,
                     &n))
        return corrupt(s, j, "needs", e);
    st->needs = arena_array(&j->arena, n + 1, sizeof *st->needs);
    if (!st->needs)
        return no_memory(s, e);
    for (size_t i = 0; i < n; i++) {
        if (number[i] < 0 || (size_t)number[i] >= j->n_stages)
            return corrupt(s, j, "needs", e);
        st->needs[st->n_needs++] = (size_t)number[i];
    }
    if (read_numbers((const char *)sqlite3_column_text(q, S_RESTARTS), number, LOSSES, &n))
        return corrupt(s, j, "restarts", e);
    for (size_t i = 0; i < n; i++)
        st->restarts[i] = (unsigned)number[i];
    return read_cores(s, q, S_CORES, j, &st->cores, e) ||
                   read_cores(s, q, S_GPUS, j, &st->gpus, e)
               ? e->code
               : 0;
}

static int read_stage(struct store *s, sqlite3_stmt *q, struct job *j, struct job_stage *st,
                      struct err *e)
{
    int state = stage_state_find((const char *)sqlite3_column_text(q, S_STATE));
    const char *token = (const char *)sqlite3_column_text(q, S_TOKEN);
    int asked;

    if (state < 0)
        return corrupt(s, j, "unknown state of a stage", e);
    st->state = (enum stage_state)state;
    st->attempt = (unsigned)sqlite3_column_int64(q, S_ATTEMPT);
    st->status = sqlite3_column_int(q, S_STATUS);
    st->steps = (uint64_t)sqlite3_column_int64(q, S_STEPS);
    st->n_cores = sqlite3_column_int(q, S_N_CORES);
    st->n_gpus = sqlite3_column_int(q, S_N_GPUS);
    st->memory = (uint64_t)sqlite3_column_int64(q, S_MEMORY);
    st->workers = sqlite3_column_int(q, S_WORKERS);
    asked = sqlite3_column_int(q, S_ASKED);
    if (asked < ASKED_NOTHING || asked > ASKED_SKIP)
        return corrupt(s, j, "unknown wish", e);
    st->asked = (enum stage_asked)asked;
    st->fresh = sqlite3_column_int(q, S_FRESH);
    st->started = sqlite3_column_double(q, S_STARTED);
    st->ended = sqlite3_column_double(q, S_ENDED);
    snprintf(st->token, sizeof st->token, "%s", token ? token : "");
    if (text_of(q, S_NAME, &j->arena, &st->name) ||
        text_of(q, S_MESSAGE, &j->arena, &st->message) ||
        text_of(q, S_MEND, &j->arena, &st->mend))
        return no_memory(s, e);
    st->seed = stage_seed(st->name);
    return read_lists(s, q, j, st, e);
}

static int read_stages(struct store *s, struct job *j, struct err *e)
{
    sqlite3_stmt *q;
    size_t i = 0;
    int rc = 0, step;

    if (sqlite3_prepare_v2(
            s->db,
            "SELECT name, state, attempt, worker_status, message, "
            "needs, steps, n_cores, memory, workers, mend, token, asked, fresh, "
            "restarts, cores, started, ended, n_gpus, gpus, "
            "count(*) OVER () FROM stage WHERE job = ? ORDER BY position",
            -1, &q, NULL))
        return store_fail(s, "read", e);
    sqlite3_bind_int64(q, 1, (sqlite3_int64)j->id);
    while (!rc && (step = sqlite3_step(q)) == SQLITE_ROW) {
        if (!j->stage) {
            int64_t n = sqlite3_column_int64(q, S_GPUS + 1);

            if (n > JOB_STAGES_MAX) {
                rc = corrupt(s, j, "too many stages", e);
                break;
            }
            j->n_stages = (size_t)n;
            j->stage = arena_array(&j->arena, j->n_stages, sizeof *j->stage);
        }
        if (!j->stage)
            rc = no_memory(s, e);
        else if (i < j->n_stages)
            rc = read_stage(s, q, j, &j->stage[i++], e);
    }
    if (!rc && step != SQLITE_DONE)
        rc = store_fail(s, "read", e);
    if (!rc && !j->n_stages)
        rc = corrupt(s, j, "no stages", e);
    sqlite3_finalize(q);
    return rc;
}

static void add_states(struct str *sql, unsigned states)
{
    int first = 1;

    if (!states)
        return;
    str_add(sql, " AND state IN (");
    for (int i = JOB_QUEUED; i <= JOB_STOPPED; i++)
        if (states & 1u << i) {
            str_addf(sql, "%s'%s'", first ? "" : ", ", job_state_name((enum job_state)i));
            first = 0;
        }
    str_add(sql, ")");
}

static int prepare(struct store *s, const struct store_filter *f, sqlite3_stmt **q,
                   struct err *e)
{
    struct str sql = {0};
    int rc = 0;

    str_add(&sql, "SELECT id, name, file, run, settings, resume, state, exit_status, "
                  "message, mend, submitted, ended, request_id, owner, notify, priority, "
                  "want, slurm, attached FROM job WHERE 1");
    if (f->id)
        str_add(&sql, " AND id = ?1");
    if (f->before)
        str_add(&sql, " AND id < ?2");
    if (f->request_id)
        str_add(&sql, " AND request_id = ?3");
    if (f->owner)
        str_add(&sql, " AND owner = ?4");
    add_states(&sql, f->states);
    str_addf(&sql, " ORDER BY id %s", f->oldest_first ? "ASC" : "DESC");
    if (str_failed(&sql))
        rc = no_memory(s, e);
    else if (sqlite3_prepare_v2(s->db, sql.s, -1, q, NULL))
        rc = store_fail(s, "read", e);
    str_fini(&sql);
    if (rc)
        return rc;
    sqlite3_bind_int64(*q, 1, (sqlite3_int64)f->id);
    sqlite3_bind_int64(*q, 2, (sqlite3_int64)f->before);
    if (f->request_id)
        sqlite3_bind_text(*q, 3, f->request_id, -1, SQLITE_STATIC);
    if (f->owner)
        sqlite3_bind_text(*q, 4, f->owner, -1, SQLITE_STATIC);
    return 0;
}

int store_load_jobs(struct store *s, const struct store_filter *f, store_take *take,
                    void *ctx, struct err *e)
{
    sqlite3_stmt *q;
    int step = SQLITE_ROW, rc = prepare(s, f, &q, e);

    if (rc)
        return rc;
    while (!rc && (step = sqlite3_step(q)) == SQLITE_ROW) {
        struct job *j = job_new();

        rc = j ? read_job(s, q, j, e) : no_memory(s, e);
        if (!rc)
            rc = read_stages(s, j, e);
        if (rc)
            job_free(j);
        else if (take(ctx, j))
            break;
    }
    if (!rc && step != SQLITE_DONE && step != SQLITE_ROW)
        rc = store_fail(s, "read", e);
    sqlite3_finalize(q);
    return rc;
}

static int take_one(void *ctx, struct job *j)
{
    *(struct job **)ctx = j;
    return 1;
}

int store_load_job(struct store *s, const struct store_filter *f, struct job **out,
                   struct err *e)
{
    *out = NULL;
    return store_load_jobs(s, f, take_one, out, e);
}

#define ENDED "state IN ('done', 'failed', 'stopped')"

int store_count_ended(struct store *s, uint64_t *n, struct err *e)
{
    sqlite3_stmt *q;
    int rc = 0;

    if (sqlite3_prepare_v2(s->db, "SELECT count(*) FROM job WHERE " ENDED, -1, &q, NULL))
        return store_fail(s, "read", e);
    if (sqlite3_step(q) == SQLITE_ROW)
        *n = (uint64_t)sqlite3_column_int64(q, 0);
    else
        rc = store_fail(s, "read", e);
    sqlite3_finalize(q);
    return rc;
}

int store_list_old(struct store *s, uint64_t keep, double before, uint64_t *id, size_t max,
                   size_t *n, struct err *e)
{
    sqlite3_stmt *q;
    int step;

    *n = 0;
    if (sqlite3_prepare_v2(s->db,
                           "SELECT id FROM job WHERE " ENDED
                           " AND (ended < ?1 OR (?2 > 0 AND "
                           "id <= (SELECT id FROM job WHERE " ENDED
                           " ORDER BY id DESC LIMIT 1 OFFSET ?2))) ORDER BY id LIMIT ?3",
                           -1, &q, NULL))
        return store_fail(s, "read", e);
    sqlite3_bind_double(q, 1, before);
    sqlite3_bind_int64(q, 2, keep > INT64_MAX ? INT64_MAX : (sqlite3_int64)keep);
    sqlite3_bind_int64(q, 3, (sqlite3_int64)max);
    while ((step = sqlite3_step(q)) == SQLITE_ROW && *n < max)
        id[(*n)++] = (uint64_t)sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    return step == SQLITE_DONE || step == SQLITE_ROW ? 0 : store_fail(s, "read", e);
}
