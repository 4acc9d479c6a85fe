/* The daemon's end of the uplink. Messages that come again after a reconnect are told by
 * their sequence numbers and acknowledged without effect; numbers may be missing where the
 * worker's queue overflowed. A message is acknowledged once its event is in the journal. */
#include "daemon/uplink.h"

#include <signal.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/attach.h"
#include "daemon/event.h"
#include "daemon/journal.h"
#include "daemon/judge.h"
#include "daemon/refill.h"
#include "daemon/watch.h"
#include "proto/message.h"

/* Compare in a time that does not depend on where the difference lies. */
static int token_equals(const char *a, const char *b)
{
    size_t n = strlen(a);
    unsigned char d = 0;

    if (!b || !n || strlen(b) != n)
        return 0;
    for (size_t i = 0; i < n; i++)
        d |= (unsigned char)(a[i] ^ b[i]);
    return d == 0;
}

static void replace(char **old, const char *text)
{
    char *copy = text ? mem_strdup(text) : NULL;

    if (text && !copy)
        return; /* the older one still says something */
    mem_free(*old);
    *old = copy;
}

/* 1: of an attached job, and over. */
static int find_stage(struct daemon *d, const Hone__V1__Hello *h, struct job **j,
                      size_t *stage, struct err *e)
{
    long id = 0;

    *j = NULL;
    if (h->job && !str_to_long(h->job, &id) && id > 0)
        *j = daemon_find_job(d, (uint64_t)id);
    for (size_t i = 0; *j && h->stage && i < (*j)->n_stages; i++) {
        struct job_stage *s = &(*j)->stage[i];

        if (strcmp(s->name, h->stage) != 0)
            continue;
        if (!token_equals(s->token, h->token))
            break;
        *stage = i;
        if ((*j)->attached)
            return attach_hello(d, *j, s, h, e);
        if (s->state != STAGE_RUNNING || s->attempt != h->attempt)
            return err_set(e, ERR_DENIED, "stage %s is not at attempt %u", s->name,
                           h->attempt);
        if (h->rank >= s->n_ranks)
            return err_set(e, ERR_DENIED, "stage %s has no rank %u", s->name, h->rank);
        *stage = i;
        return 0;
    }
    return err_set(e, ERR_DENIED, "unknown job or stage, or a wrong token");
}

int uplink_hello(struct daemon *d, struct conn *c, const Hone__V1__Hello *h,
                 uint64_t *received, struct err *e)
{
    struct rank *r;
    struct job *j;
    int rc = find_stage(d, h, &j, &c->stage, e);

    if (rc < 0)
        return rc;
    if (rc > 0) { /* it has ended, and nothing it could say is missing */
        c->role = CONN_WORKER;
        *received = UINT64_MAX;
        return 0;
    }
    c->role = CONN_WORKER;
    c->job = j->id;
    c->rank = h->rank;
    r = &j->stage[c->stage].rank[c->rank];
    if (r->instance != h->instance)
        r->received = r->said_done = 0;
    r->instance = h->instance;
    r->taken = r->received;
    r->link = c->id;
    r->pid = h->pid;
    replace(&r->host, h->host);
    r->heard = d->io->ops->now(d->io);
    r->stepped = r->heard;
    *received = r->received;
    return 0;
}

void uplink_welcomed(struct daemon *d, struct conn *c)
{
    struct job *j = daemon_find_job(d, c->job);

    if (!j)
        return;
    if (j->stage[c->stage].asked == ASKED_STOP || j->want != WANT_RUN)
        uplink_word(d, &j->stage[c->stage], HONE__V1__WORD__STOP);
    else if (j->stage[c->stage].asked == ASKED_SKIP)
        uplink_word(d, &j->stage[c->stage], HONE__V1__WORD__FINISH);
}

/* ---- what comes ---- */

static void heard(struct daemon *d, struct rank *r, const char *phase, long step)
{
    double now = d->io->ops->now(d->io);

    r->heard = now;
    if (phase && (!r->phase || strcmp(r->phase, phase) != 0)) {
        replace(&r->phase, phase);
        r->stepped = now;
    }
    if (step == r->step)
        return;
    if (step > r->step && r->step > 0 && r->stepped > 0) {
        double took = (now - r->stepped) / (double)(step - r->step);

        r->step_time = r->step_time > 0 ? 0.8 * r->step_time + 0.2 * took : took;
    }
    r->step = step;
    r->stepped = now;
}

static void keep_progress(struct job_stage *s, const Hone__V1__Progress *p, double now)
{
    replace(&s->phase, p->phase);
    replace(&s->figures, p->figures);
    s->step = (long)p->step;
    s->total = (long)p->total;
    if (s->saved <= 0 || !strcmp(p->phase, "save")) {
        if (s->saved > 0 && now - s->saved > s->save_interval)
            s->save_interval = now - s->saved;
        s->saved = now;
        s->save_overdue = 0;
    }
}

/* A heartbeat, perhaps for another rank. */
static void keep_heartbeat(struct daemon *d, struct job_stage *s, size_t rank,
                           const Hone__V1__Heartbeat *h)
{
    struct rank *r;

    if (h->has_rank)
        rank = h->rank;
    if (rank >= s->n_ranks)
        return;
    r = &s->rank[rank];
    heard(d, r, h->phase, h->has_step ? (long)h->step : r->step);
    if (h->host)
        replace(&r->host, h->host);
    if (h->has_pid)
        r->pid = h->pid;
    if (h->collective)
        replace(&r->collective, h->collective);
    if (h->has_collective_seq)
        r->collective_seq = h->collective_seq;
}

/* "message\n  try: mend" */
static void keep_done(struct job *j, struct job_stage *s, const Hone__V1__Done *done)
{
    static const char mark[] = "\n  try: ";
    const char *text = done->message ? done->message : "", *mend = strstr(text, mark);

    if (!*text)
        return;
    s->message =
        arena_strndup(&j->arena, text, mend ? (size_t)(mend - text) : strlen(text));
    if (mend)
        s->mend = arena_strdup(&j->arena, mend + strlen(mark));
}

static int take_numbered(struct daemon *d, struct job *j, struct job_stage *s,
                         struct conn *c, const Hone__V1__Up *up, struct err *e)
{
    struct rank *r = &s->rank[c->rank];
    Hone__V1__Event ev = HONE__V1__EVENT__INIT;

    if (up->done) {
        r->said_done = 1;
        if (c->rank == 0)
            s->status = (int)up->done->status;
        keep_done(j, s, up->done);
        return 0;
    }
    s->gap |= up->has_gap;
    ev.metric = up->metric;
    ev.note = up->note;
    ev.has_gap = up->has_gap;
    ev.gap = up->gap;
    if (!ev.metric && !ev.note && !ev.has_gap)
        return 0;
    ev.has_attempt = ev.has_rank = ev.has_report = ev.has_instance = 1;
    ev.attempt = up->has_attempt && up->attempt < s->attempt ? up->attempt : s->attempt;
    ev.rank = (uint32_t)c->rank;
    ev.report = up->seq;
    ev.instance = r->instance;
    if (event_add(d, j, s, &ev, e))
        return e->code;
    if (ev.metric)
        judge_metric(d, j, s, ev.metric);
    return 0;
}

static int take(struct daemon *d, struct job *j, struct job_stage *s, struct conn *c,
                const Hone__V1__Up *up, struct err *e)
{
    struct rank *r = &s->rank[c->rank];
    int rc = 0;

    if (up->progress) {
        heard(d, r, up->progress->phase, (long)up->progress->step);
        if (c->rank == 0) {
            keep_progress(s, up->progress, r->heard);
            watch_progress(d, j, s, up->progress);
        }
    } else if (up->heartbeat) {
        r->heard = d->io->ops->now(d->io);
        keep_heartbeat(d, s, c->rank, up->heartbeat);
    } else if (up->seq > r->taken) {
        rc = take_numbered(d, j, s, c, up, e);
    }
    if (!rc && up->seq > r->taken)
        r->taken = up->seq;
    c->told |= up->seq != 0;
    return rc;
}

static struct job_stage *stage_of(struct daemon *d, const struct conn *c, struct job **j)
{
    struct job_stage *s;

    *j = daemon_find_job(d, c->job);
    s = *j ? &(*j)->stage[c->stage] : NULL;
    return s && c->rank < s->n_ranks && s->rank[c->rank].link == c->id ? s : NULL;
}

int uplink_frame(struct daemon *d, struct conn *c, const uint8_t *p, size_t n,
                 struct err *e)
{
    ProtobufCMessage *m;
    struct job *j;
    struct job_stage *s = stage_of(d, c, &j);
    int rc;

    if (!s && j && j->attached && j->stage[c->stage].state != STAGE_RUNNING)
        return 0; /* it has said its end; what else it has to say is of no use */
    if (!s)
        return err_set(e, ERR_DENIED, "a newer worker has taken over");
    rc = message_unpack(&hone__v1__up__descriptor, p, n, &m, e);
    if (rc)
        return rc;
    rc = take(d, j, s, c, (Hone__V1__Up *)m, e);
    message_free(m);
    return rc;
}

int uplink_settle(struct daemon *d, struct conn *c, struct err *e)
{
    Hone__V1__Down down = HONE__V1__DOWN__INIT;
    struct job *j;
    struct job_stage *s = stage_of(d, c, &j);
    struct rank *r;

    if (!s || !c->told)
        return 0;
    c->told = 0;
    r = &s->rank[c->rank];
    if (event_flush(d, j, e)) {
        r->taken = r->received; /* the worker will say it again */
        return e->code;
    }
    r->received = r->taken;
    down.has_received = 1;
    down.received = r->received;
    if (j->attached && c->rank == 0 && r->said_done) {
        attach_done(d, j, s); /* stored before it is acknowledged */
        daemon_schedule(d);
    }
    conn_send(d, c->id, &down.base);
    return 0;
}

void uplink_closed(struct daemon *d, struct conn *c)
{
    struct job *j;
    struct job_stage *s = c->role == CONN_WORKER ? stage_of(d, c, &j) : NULL;

    if (s)
        s->rank[c->rank].link = 0;
}

void uplink_word(struct daemon *d, struct job_stage *s, Hone__V1__Word word)
{
    Hone__V1__Down down = HONE__V1__DOWN__INIT;
    uint64_t link = s->n_ranks ? s->rank[0].link : 0;

    if (link) {
        down.has_word = 1;
        down.word = word;
        conn_send(d, link, &down.base);
    } else if (s->child && word == HONE__V1__WORD__STOP) {
        d->io->ops->kill(d->io, s->child, SIGTERM, 0);
    }
}

/* ---- from files ---- */

void uplink_recall(struct daemon *d, struct job *j, struct job_stage *s)
{
    struct journal_place place = {0};
    const uint8_t *body;
    size_t n;
    struct err e;
    struct journal *journal = event_journal(d, j, &e);
    int rc = journal ? 1 : e.code;

    while (rc > 0 && (rc = journal_read(journal, &place, &body, &n, &e)) > 0) {
        ProtobufCMessage *m;
        const Hone__V1__Event *ev;

        rc = message_unpack(&hone__v1__event__descriptor, body, n, &m, &e);
        if (rc)
            break;
        ev = (Hone__V1__Event *)m;
        if (ev->has_report && (ev->attempt == s->attempt || j->attached) &&
            ev->rank < s->n_ranks && ev->stage && !strcmp(ev->stage, s->name)) {
            s->rank[ev->rank].instance = ev->instance;
            s->rank[ev->rank].received = s->rank[ev->rank].taken = ev->report;
        }
        message_free(m);
        rc = 1;
    }
    if (rc < 0)
        log_error("job %llu: events: %s", (unsigned long long)j->id, e.msg);
}

void uplink_lost(struct daemon *d, struct job *j, struct job_stage *s)
{
    /* Of an earlier attempt the file may have lines that its last writer on another host
     * added after its end was noticed here. */
    int complete = s->n_ranks && s->rank[0].said_done && !s->gap && s->attempt == 1;

    for (size_t i = 0; i < s->n_ranks; i++)
        s->rank[i].link = 0;
    if (!complete && !d->is_private)
        refill_metrics(d, j, s);
}
