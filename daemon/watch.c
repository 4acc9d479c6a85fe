/* Watchers: see watch.h. */
#include "daemon/watch.h"

#include "base/clock.h"
#include "base/mem.h"
#include "daemon/event.h"
#include "daemon/journal.h"
#include "daemon/show.h"

enum { BACKLOG_MAX = 1 << 16 }; /* bytes unsent before the journal has to wait */

struct watch {
    struct rpc_call *call;
    uint64_t job;
    struct journal_place place;
    struct watch *next;
};

static int is_slow(struct daemon *d, const struct watch *w)
{
    return d->io->ops->unsent(d->io, w->call->conn) > BACKLOG_MAX;
}

/* An event of the moment: without a number. `last`: the end of the stream. */
static void send_now(struct daemon *d, struct watch *w, const struct job *j,
                     const struct job_stage *s, Hone__V1__Event *ev, int last)
{
    (void)d;
    ev->job = j->id;
    ev->time = clock_wall();
    ev->stage = s ? (char *)(uintptr_t)s->name : NULL;
    if (last)
        rpc_reply(&ev->base, w->call);
    else
        rpc_more(w->call, &ev->base);
}

static void send_state(struct daemon *d, struct watch *w, const struct job *j, int last)
{
    Hone__V1__Event ev = HONE__V1__EVENT__INIT;
    struct arena a = {0};

    ev.job_state = show_job(&a, j, d->io->ops->now(d->io));
    send_now(d, w, j, NULL, &ev, last);
    arena_fini(&a);
}

/* What it had to see has been forgotten: how many, in place of the newest of them, and how
 * the job stands now. */
static void send_gap(struct daemon *d, struct watch *w, const struct job *j, uint64_t first)
{
    Hone__V1__Event ev = HONE__V1__EVENT__INIT;

    ev.has_gap = ev.has_seq = 1;
    ev.gap = first - 1 - w->place.after;
    ev.seq = first - 1;
    send_now(d, w, j, NULL, &ev, 0);
    w->place = (struct journal_place){.after = first - 1};
    if (!job_ended(j))
        send_state(d, w, j, 0);
}

/* Send what it has room for: 1: the stream has ended, the call is gone. */
static int pump(struct daemon *d, struct watch *w, struct job *j)
{
    struct err e;
    struct journal *journal = event_journal(d, j, &e);
    const uint8_t *body;
    size_t n;
    int rc = journal ? 1 : e.code;

    while (rc > 0) {
        if (is_slow(d, w))
            return 0;
        if (w->place.after + 1 < journal_first(journal))
            send_gap(d, w, j, journal_first(journal));
        rc = journal_read(journal, &w->place, &body, &n, &e);
        if (rc <= 0)
            break;
        if (job_ended(j) && w->place.after == journal_last(journal)) {
            rpc_reply_bytes(w->call, body, n, 0);
            return 1;
        }
        rpc_reply_bytes(w->call, body, n, 1);
    }
    if (rc < 0) {
        rpc_fail(w->call, &e);
        return 1;
    }
    if (!job_ended(j))
        return 0;
    send_state(d, w, j, 1);
    return 1;
}

/* Pump those of a job, or of a connection. */
static void pump_all(struct daemon *d, struct job *j, uint64_t conn)
{
    for (struct watch **p = &d->watches; *p;) {
        struct watch *w = *p;
        struct job *of = j;

        if ((j && w->job != j->id) || (conn && w->call->conn != conn)) {
            p = &w->next;
            continue;
        }
        if (!of)
            of = daemon_find_job(d, w->job);
        if (of && !pump(d, w, of)) {
            p = &w->next;
            continue;
        }
        *p = w->next;
        if (!of)
            rpc_drop(w->call);
        mem_free(w);
    }
}

void watch_pump(struct daemon *d, struct job *j)
{
    pump_all(d, j, 0);
}

void watch_drained(struct daemon *d, uint64_t conn)
{
    pump_all(d, NULL, conn);
}

void watch_progress(struct daemon *d, struct job *j, const struct job_stage *s,
                    const Hone__V1__Progress *p)
{
    for (struct watch *w = d->watches; w; w = w->next) {
        Hone__V1__Event ev = HONE__V1__EVENT__INIT;

        if (w->job != j->id || is_slow(d, w))
            continue;
        ev.progress = (Hone__V1__Progress *)(uintptr_t)p;
        send_now(d, w, j, s, &ev, 0);
    }
}

static void begin_now(struct daemon *d, struct watch *w, struct job *j)
{
    if (job_ended(j))
        return; /* the end says it all */
    send_state(d, w, j, 0);
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
        send_now(d, w, j, s, &ev, 0);
    }
}

void watch_begin(struct rpc_call *call, struct job *j, const uint64_t *after)
{
    struct daemon *d = call->d;
    struct watch *w = mem_alloc(sizeof *w);
    struct err e;
    struct journal *journal = event_journal(d, j, &e);

    if (!w || !journal) {
        if (!w)
            err_set(&e, ERR_NOMEM, "out of memory for a watcher");
        rpc_fail(call, &e);
        mem_free(w);
        return;
    }
    w->call = call;
    w->job = j->id;
    w->place.after = journal_last(journal);
    if (after && *after < w->place.after)
        w->place.after = *after;
    if (!after)
        begin_now(d, w, j);
    if (pump(d, w, j)) {
        mem_free(w);
        return;
    }
    w->next = d->watches;
    d->watches = w;
}

static void drop(struct watch **p)
{
    struct watch *w = *p;

    *p = w->next;
    rpc_drop(w->call);
    mem_free(w);
}

void watch_closed(struct daemon *d, uint64_t conn)
{
    for (struct watch **p = &d->watches; *p;)
        if ((*p)->call->conn == conn)
            drop(p);
        else
            p = &(*p)->next;
}

void watch_free_all(struct daemon *d)
{
    while (d->watches)
        drop(&d->watches);
}

int watch_count(const struct daemon *d)
{
    int n = 0;

    for (const struct watch *w = d->watches; w; w = w->next)
        n++;
    return n;
}
