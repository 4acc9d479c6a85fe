/* Watchers: see watch.h. */
#include "daemon/watch.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

enum { BACKLOG_MAX = 1 << 20 }; /* bytes unsent before points are dropped */

struct watch {
    struct rpc_call *call;
    uint64_t job, dropped;
    struct watch *next;
};

Hone__V1__Job *watch_job_message(struct arena *a, const struct job *j)
{
    Hone__V1__Job *m = arena_alloc(a, sizeof *m);
    Hone__V1__StageState *s = arena_array(a, j->n_stages, sizeof *s);
    Hone__V1__StageState **list = arena_array(a, j->n_stages, sizeof *list);

    if (!m || (j->n_stages && (!s || !list)))
        return NULL;
    hone__v1__job__init(m);
    m->id = j->id;
    m->name = (char *)(uintptr_t)j->name;
    m->state = (char *)(uintptr_t)job_state_name(j->state);
    m->run = (char *)(uintptr_t)j->run;
    m->owner = (char *)(uintptr_t)j->owner;
    m->file = (char *)(uintptr_t)j->file;
    m->has_exit_status = job_ended(j);
    m->exit_status = (uint32_t)j->exit_status;
    m->message = (char *)(uintptr_t)j->message;
    m->mend = (char *)(uintptr_t)j->mend;
    m->stages = list;
    m->n_stages = j->n_stages;
    for (size_t i = 0; i < j->n_stages; i++) {
        const struct job_stage *from = &j->stage[i];
        char **needs = arena_array(a, from->n_needs, sizeof *needs);

        if (from->n_needs && !needs)
            return NULL;
        hone__v1__stage_state__init(&s[i]);
        for (size_t k = 0; k < from->n_needs; k++)
            needs[k] = (char *)(uintptr_t)j->stage[from->needs[k]].name;
        s[i].name = (char *)(uintptr_t)from->name;
        s[i].state = (char *)(uintptr_t)stage_state_name(from->state);
        s[i].has_attempt = s[i].has_steps = 1;
        s[i].attempt = from->attempt;
        s[i].steps = from->steps;
        s[i].needs = needs;
        s[i].n_needs = from->n_needs;
        s[i].has_worker_status = from->state >= STAGE_DONE;
        s[i].worker_status = (uint32_t)from->status;
        s[i].message = (char *)(uintptr_t)from->message;
        list[i] = &s[i];
    }
    return m;
}

static void say_gap(struct watch *w)
{
    Hone__V1__Event gap = HONE__V1__EVENT__INIT;

    if (!w->dropped)
        return;
    gap.job = w->job;
    gap.time = clock_wall();
    gap.has_gap = 1;
    gap.gap = w->dropped;
    w->dropped = 0;
    rpc_more(w->call, &gap.base);
}

void watch_event(struct daemon *d, struct job *j, const struct job_stage *stage,
                 Hone__V1__Event *ev)
{
    ev->job = j->id;
    ev->time = clock_wall();
    ev->stage = stage ? (char *)(uintptr_t)stage->name : NULL;
    for (struct watch *w = d->watches; w; w = w->next) {
        int point = ev->metric || ev->progress;

        if (w->job != j->id)
            continue;
        if (point && d->io->ops->unsent(d->io, w->call->conn) > BACKLOG_MAX) {
            w->dropped++;
            continue;
        }
        say_gap(w);
        rpc_more(w->call, &ev->base);
    }
}

static void end_all(struct daemon *d, struct job *j, Hone__V1__Event *last)
{
    for (struct watch **p = &d->watches; *p;) {
        struct watch *w = *p;

        if (w->job != j->id) {
            p = &w->next;
            continue;
        }
        *p = w->next;
        rpc_reply(&last->base, w->call);
        mem_free(w);
    }
}

void watch_job(struct daemon *d, struct job *j)
{
    Hone__V1__Event ev = HONE__V1__EVENT__INIT;
    struct arena a = {0};

    ev.job_state = watch_job_message(&a, j);
    if (!ev.job_state)
        log_error("job %llu: out of memory", (unsigned long long)j->id);
    else if (!job_ended(j))
        watch_event(d, j, NULL, &ev);
    ev.job = j->id;
    ev.time = clock_wall();
    if (job_ended(j))
        end_all(d, j, &ev);
    arena_fini(&a);
}

void watch_begin(struct rpc_call *call, struct job *j)
{
    struct daemon *d = call->d;
    struct watch *w = mem_alloc(sizeof *w);
    struct err e;

    if (!w) {
        err_set(&e, ERR_NOMEM, "out of memory for a watcher");
        rpc_fail(call, &e);
        return;
    }
    w->call = call;
    w->job = j->id;
    w->next = d->watches;
    d->watches = w;
    watch_job(d, j);
    if (job_ended(j))
        return;
    for (size_t i = 0; i < j->n_stages; i++) {
        const struct job_stage *s = &j->stage[i];
        Hone__V1__Event ev = HONE__V1__EVENT__INIT;
        Hone__V1__Progress p = HONE__V1__PROGRESS__INIT;

        if (!s->phase)
            continue;
        p.phase = s->phase;
        p.step = s->step;
        p.total = s->total;
        p.figures = s->figures;
        ev.progress = &p;
        watch_event(d, j, s, &ev);
    }
}

void watch_closed(struct daemon *d, uint64_t conn)
{
    for (struct watch **p = &d->watches; *p;) {
        struct watch *w = *p;

        if (w->call->conn != conn) {
            p = &w->next;
            continue;
        }
        *p = w->next;
        rpc_drop(w->call);
        mem_free(w);
    }
}

void watch_free_all(struct daemon *d)
{
    while (d->watches) {
        struct watch *w = d->watches;

        d->watches = w->next;
        rpc_drop(w->call);
        mem_free(w);
    }
}
