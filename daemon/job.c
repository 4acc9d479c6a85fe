/* Jobs: see job.h. */
#include "daemon/job.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "daemon/journal.h"

static const char *const stage_names[] = {"waiting", "running", "done",
                                          "failed",  "stopped", "skipped"};
static const char *const job_names[] = {"queued",   "running", "pausing", "paused",
                                        "stopping", "done",    "failed",  "stopped"};
static const char *const want_names[] = {"run", "pause", "stop"};

static int find(const char *const *names, size_t n, const char *name)
{
    for (size_t i = 0; name && i < n; i++)
        if (!strcmp(names[i], name))
            return (int)i;
    return -1;
}

#define COUNT(list) (sizeof(list) / sizeof *(list))

const char *stage_state_name(enum stage_state s)
{
    return stage_names[s];
}

const char *job_state_name(enum job_state s)
{
    return job_names[s];
}

const char *job_want_name(enum job_want w)
{
    return want_names[w];
}

int stage_state_find(const char *name)
{
    return find(stage_names, COUNT(stage_names), name);
}

int job_state_find(const char *name)
{
    return find(job_names, COUNT(job_names), name);
}

int job_want_find(const char *name)
{
    return find(want_names, COUNT(want_names), name);
}

int job_ended(const struct job *j)
{
    return j->state >= JOB_DONE;
}

int stage_over(enum stage_state s)
{
    return s == STAGE_DONE || s == STAGE_SKIPPED;
}

unsigned stage_seed(const char *name)
{
    static const char prefix[] = "seed-";
    const char *p = name + strlen(prefix);
    unsigned n = 0;

    if (strncmp(name, prefix, strlen(prefix)) != 0)
        return 0;
    for (; *p >= '0' && *p <= '9' && n < 100000; p++)
        n = 10 * n + (unsigned)(*p - '0');
    return *p == '/' ? n : 0;
}

static int is_lost(const struct job_stage *s)
{
    return s->state == STAGE_FAILED || s->state == STAGE_STOPPED;
}

int stage_held_up(const struct job *j, const struct job_stage *s)
{
    for (size_t i = 0; i < j->n_stages; i++)
        if (j->stage[i].seed == s->seed && is_lost(&j->stage[i]))
            return 1;
    return 0;
}

void stage_move(struct job_stage *s, enum stage_state to)
{
    enum {
        WAITING = 1u << STAGE_WAITING,
        ENDS = 1u << STAGE_DONE | 1u << STAGE_FAILED | 1u << STAGE_STOPPED |
               1u << STAGE_SKIPPED
    };
    static const unsigned arrows[] = {
        [STAGE_WAITING] = 1u << STAGE_RUNNING | 1u << STAGE_FAILED | 1u << STAGE_SKIPPED,
        [STAGE_RUNNING] = WAITING | ENDS,
        [STAGE_DONE] = WAITING,
        [STAGE_FAILED] = WAITING,
        [STAGE_STOPPED] = WAITING,
        [STAGE_SKIPPED] = WAITING,
    };

    invariant(arrows[s->state] & 1u << to);
    s->state = to;
}

enum stage_state stage_outcome(int exit_status, int signal)
{
    if (signal)
        return STAGE_FAILED;
    return exit_status == 0 ? STAGE_DONE : exit_status == 3 ? STAGE_STOPPED : STAGE_FAILED;
}

/* Of a failed stage: its worker's status where interface.md gives it a meaning, else 1. */
static int failure_status(const struct job_stage *s)
{
    return s->status == 2 ? 2 : 1;
}

static int end(struct job *j, enum job_state state, int status)
{
    j->state = state;
    j->exit_status = status;
    return 1;
}

/* Seeds that have a failed stage, and all there are. */
static unsigned count_failed(const struct job *j, unsigned *seeds)
{
    unsigned n = 0;

    *seeds = 0;
    for (size_t i = 0; i < j->n_stages; i++) {
        const struct job_stage *s = &j->stage[i];
        int first = s->state == STAGE_FAILED;

        for (size_t k = 0; k < i; k++)
            first &= j->stage[k].seed != s->seed || j->stage[k].state != STAGE_FAILED;
        n += (unsigned)first;
        *seeds = s->seed > *seeds ? s->seed : *seeds;
    }
    return n;
}

static void say_failed(struct job *j, const struct job_stage *failed)
{
    const char *why = failed->message ? failed->message : "failed", *message;
    unsigned seeds, n = count_failed(j, &seeds);

    if (seeds > 1)
        message = arena_printf(&j->arena, "%u of %u seeds failed: stage %s: %s", n, seeds,
                               failed->name, why);
    else
        message = arena_printf(&j->arena, "stage %s: %s", failed->name, why);
    j->message = message ? message : "a stage failed";
    j->mend = failed->mend;
}

int job_settle(struct job *j)
{
    static const enum job_state busy[] = {JOB_RUNNING, JOB_PAUSING, JOB_STOPPING};
    size_t count[STAGE_SKIPPED + 1] = {0}, open = 0; /* waiting, and can still start */
    const struct job_stage *failed = NULL;

    if (job_ended(j))
        return 0;
    for (size_t i = 0; i < j->n_stages; i++) {
        count[j->stage[i].state]++;
        if (j->stage[i].state == STAGE_FAILED && !failed)
            failed = &j->stage[i];
    }
    if (count[STAGE_RUNNING]) {
        j->state = busy[j->want];
        return 0;
    }
    for (size_t i = 0; i < j->n_stages; i++)
        open += j->stage[i].state == STAGE_WAITING && !stage_held_up(j, &j->stage[i]);
    if (failed && (!open || j->want == WANT_STOP)) {
        say_failed(j, failed);
        return end(j, JOB_FAILED, failure_status(failed));
    }
    if (count[STAGE_DONE] + count[STAGE_SKIPPED] == j->n_stages)
        return end(j, JOB_DONE, 0);
    if ((count[STAGE_STOPPED] && !open) || j->want == WANT_STOP)
        return end(j, JOB_STOPPED, 3);
    if (j->want == WANT_PAUSE)
        j->state = JOB_PAUSED;
    else
        j->state = count[STAGE_DONE] ? JOB_RUNNING : JOB_QUEUED;
    return 0;
}

int job_mark(const struct job *j, struct job_mark *m, struct err *e)
{
    *m = (struct job_mark){.stage = mem_array(j->n_stages, sizeof *m->stage),
                           .state = j->state,
                           .want = j->want,
                           .exit_status = j->exit_status,
                           .alarms = j->alarms,
                           .ended = j->ended,
                           .kill_at = j->kill_at,
                           .message = j->message,
                           .mend = j->mend};
    if (!m->stage)
        return err_set(e, ERR_NOMEM, "out of memory");
    memcpy(m->stage, j->stage, j->n_stages * sizeof *m->stage);
    return 0;
}

void job_restore(struct job *j, const struct job_mark *m)
{
    memcpy(j->stage, m->stage, j->n_stages * sizeof *m->stage);
    j->state = m->state;
    j->want = m->want;
    j->exit_status = m->exit_status;
    j->alarms = m->alarms;
    j->ended = m->ended;
    j->kill_at = m->kill_at;
    j->message = m->message;
    j->mend = m->mend;
}

void job_mark_fini(struct job_mark *m)
{
    mem_free(m->stage);
    m->stage = NULL;
}

void job_revive(struct job *j)
{
    j->state = JOB_QUEUED;
    j->want = WANT_RUN;
    j->message = j->mend = NULL;
    j->ended = 0;
    j->kill_at = INFINITY;
    j->alarms = 0;
}

int stage_open_ranks(struct job_stage *s)
{
    size_t n = s->workers > 1 ? (size_t)s->workers : 1;

    stage_close_ranks(s);
    s->rank = mem_array(n, sizeof *s->rank);
    s->n_ranks = s->rank ? n : 0;
    return s->rank ? 0 : -1;
}

void stage_close_ranks(struct job_stage *s)
{
    for (size_t i = 0; i < s->n_ranks; i++) {
        mem_free(s->rank[i].host);
        mem_free(s->rank[i].phase);
        mem_free(s->rank[i].collective);
    }
    mem_free(s->rank);
    mem_free(s->phase);
    mem_free(s->figures);
    s->rank = NULL;
    s->n_ranks = 0;
    s->phase = s->figures = NULL;
}

struct job *job_new(void)
{
    struct job *j = mem_alloc(sizeof *j);

    if (!j)
        return NULL;
    j->lock = -1;
    j->kill_at = INFINITY;
    return j;
}

void job_free(struct job *j)
{
    if (!j)
        return;
    for (size_t i = 0; i < j->n_stages; i++)
        stage_close_ranks(&j->stage[i]);
    journal_close(j->journal);
    if (j->lock >= 0)
        close(j->lock);
    arena_fini(&j->arena);
    mem_free(j);
}

int job_no_stage(const struct job *j, const char *name, struct err *e)
{
    enum { NAMES_MAX = 64 };
    const char *names[NAMES_MAX + 1], *near;
    size_t n = 0;

    while (n < j->n_stages && n < NAMES_MAX) {
        names[n] = j->stage[n].name;
        n++;
    }
    names[n] = NULL;
    near = str_nearest(name, names);
    err_set(e, ERR_CONFIG, "job %llu has no stage \"%.100s\"", (unsigned long long)j->id,
            name);
    err_field(e, "stage");
    return near ? err_mend(e, "did you mean %.100s?", near)
                : err_mend(e, "hone show %llu lists them", (unsigned long long)j->id);
}
