/* Jobs as messages: see show.h. */
#include "daemon/show.h"

#include "daemon/journal.h"

static char *text(const char *s)
{
    return (char *)(uintptr_t)s;
}

static int show_numbers(struct arena *a, const struct cores *from, uint32_t **to, size_t *n)
{
    *n = 0;
    *to = arena_array(a, (size_t)cores_count(from) + 1, sizeof **to);
    if (!*to)
        return -1;
    for (int i = 0; i < CORES_MAX; i++)
        if (cores_has(from, i))
            (*to)[(*n)++] = (uint32_t)i;
    return 0;
}

static int show_ranks(struct arena *a, const struct job_stage *from, double now,
                      Hone__V1__StageState *to)
{
    Hone__V1__RankState *r = arena_array(a, from->n_ranks + 1, sizeof *r);

    to->ranks = arena_array(a, from->n_ranks + 1, sizeof *to->ranks);
    if (!r || !to->ranks)
        return -1;
    for (size_t i = 0; i < from->n_ranks; i++) {
        const struct rank *k = &from->rank[i];

        if (!k->heard)
            continue;
        hone__v1__rank_state__init(&r[i]);
        r[i].rank = (uint32_t)i;
        r[i].host = k->host;
        r[i].has_pid = k->pid != 0;
        r[i].pid = k->pid;
        r[i].phase = k->phase;
        r[i].has_step = 1;
        r[i].step = k->step;
        r[i].collective = k->collective;
        r[i].has_collective_seq = k->collective != NULL;
        r[i].collective_seq = k->collective_seq;
        r[i].has_heard = 1;
        r[i].heard = now - k->heard;
        to->ranks[to->n_ranks++] = &r[i];
    }
    return 0;
}

static int show_progress(struct arena *a, const struct job_stage *from,
                         Hone__V1__StageState *to)
{
    Hone__V1__Progress *p;

    if (!from->phase)
        return 0;
    p = arena_alloc(a, sizeof *p);
    if (!p)
        return -1;
    hone__v1__progress__init(p);
    p->phase = from->phase;
    p->step = from->step;
    p->total = from->total;
    p->figures = from->figures;
    to->progress = p;
    return 0;
}

static int show_stage(struct arena *a, const struct job *j, const struct job_stage *from,
                      double now, Hone__V1__StageState *to)
{
    hone__v1__stage_state__init(to);
    to->needs = arena_array(a, from->n_needs + 1, sizeof *to->needs);
    if (!to->needs)
        return -1;
    for (size_t k = 0; k < from->n_needs; k++)
        to->needs[to->n_needs++] = text(j->stage[from->needs[k]].name);
    to->name = text(from->name);
    to->state = text(stage_state_name(from->state));
    to->has_attempt = to->has_steps = to->has_memory = to->has_restarts = 1;
    to->attempt = from->attempt;
    to->steps = from->steps;
    to->memory = from->memory;
    for (int i = 0; i < LOSSES; i++)
        to->restarts += from->restarts[i];
    to->has_worker_status = from->attempt && from->state >= STAGE_DONE;
    to->worker_status = (uint32_t)from->status;
    to->message = text(from->message);
    to->mend = text(from->mend);
    to->has_started = from->started > 0;
    to->started = from->started;
    to->has_ended = from->ended > 0;
    to->ended = from->ended;
    return show_numbers(a, &from->cores, &to->cores, &to->n_cores) ||
                   show_numbers(a, &from->gpus, &to->gpus, &to->n_gpus) ||
                   show_ranks(a, from, now, to) || show_progress(a, from, to)
               ? -1
               : 0;
}

Hone__V1__Job *show_job(struct arena *a, const struct job *j, double now)
{
    Hone__V1__Job *m = arena_alloc(a, sizeof *m);
    Hone__V1__StageState *s = arena_array(a, j->n_stages + 1, sizeof *s);

    if (!m || !s)
        return NULL;
    hone__v1__job__init(m);
    m->stages = arena_array(a, j->n_stages + 1, sizeof *m->stages);
    if (!m->stages)
        return NULL;
    for (size_t i = 0; i < j->n_stages; i++) {
        if (show_stage(a, j, &j->stage[i], now, &s[i]))
            return NULL;
        m->stages[m->n_stages++] = &s[i];
    }
    m->id = j->id;
    m->name = text(j->name);
    m->state = text(job_state_name(j->state));
    m->run = text(j->run);
    m->has_exit_status = job_ended(j);
    m->exit_status = (uint32_t)j->exit_status;
    m->message = text(j->message);
    m->mend = text(j->mend);
    m->has_priority = m->has_submitted = 1;
    m->priority = j->priority;
    m->submitted = j->submitted;
    m->has_ended = job_ended(j);
    m->ended = j->ended;
    m->has_attached = j->attached;
    m->attached = j->attached;
    m->owner = text(j->owner);
    m->file = text(j->file);
    m->has_last_seq = j->journal != NULL;
    m->last_seq = j->journal ? journal_last(j->journal) : 0;
    return m;
}
