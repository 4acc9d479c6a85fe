/* The daemon's end of the uplink. Messages that come again after a reconnect are told by
 * their sequence numbers and acknowledged without effect; numbers may be missing where the
 * worker's queue overflowed. */
#include "daemon/uplink.h"

#include <signal.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "daemon/watch.h"
#include "proto/message.h"
#include "worker.pb-c.h"

/* Compare in a time that does not depend on where the difference lies. */
static int token_equals(const char *a, const char *b)
{
    size_t n = strlen(a);
    unsigned char d = 0;

    if (!b || strlen(b) != n)
        return 0;
    for (size_t i = 0; i < n; i++)
        d |= (unsigned char)(a[i] ^ b[i]);
    return d == 0;
}

int uplink_hello(struct daemon *d, struct conn *c, const Hone__V1__Hello *h,
                 uint64_t *received, struct err *e)
{
    long id = 0;
    struct job *j = NULL;

    if (h->job && !str_to_long(h->job, &id) && id > 0)
        j = daemon_find_job(d, (uint64_t)id);
    if (!j || !token_equals(j->token, h->token) || !h->stage)
        return err_set(e, ERR_DENIED, "unknown job, or a wrong token");
    for (size_t i = 0; i < j->n_stages; i++) {
        struct job_stage *s = &j->stage[i];

        if (!s->whole && strcmp(s->name, h->stage) != 0)
            continue;
        if (s->state != STAGE_RUNNING || s->attempt != h->attempt)
            return err_set(e, ERR_DENIED, "stage %s is not at attempt %u", s->name,
                           h->attempt);
        c->role = CONN_WORKER;
        c->job = j->id;
        c->stage = i;
        s->link = c->id;
        if (s->said_done)
            s->received = 0;
        s->said_done = 0;
        *received = s->received;
        return 0;
    }
    return err_set(e, ERR_DENIED, "the job has no stage %.100s", h->stage);
}

static void keep_progress(struct job_stage *s, const Hone__V1__Progress *p)
{
    char *phase = mem_strdup(p->phase);
    char *figures = p->figures ? mem_strdup(p->figures) : NULL;

    mem_free(s->phase);
    mem_free(s->figures);
    s->phase = phase;
    s->figures = figures;
    s->step = (long)p->step;
    s->total = (long)p->total;
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

static void take(struct daemon *d, struct job *j, struct job_stage *s,
                 const Hone__V1__Up *up)
{
    Hone__V1__Event ev = HONE__V1__EVENT__INIT;

    if (up->done) {
        s->said_done = s->whole;
        keep_done(j, s, up->done);
        return;
    }
    if (up->progress)
        keep_progress(s, up->progress);
    ev.metric = up->metric;
    ev.progress = up->progress;
    ev.note = up->note;
    ev.has_gap = up->has_gap;
    ev.gap = up->gap;
    if (ev.metric || ev.progress || ev.note || ev.has_gap)
        watch_event(d, j, s, &ev);
}

int uplink_frame(struct daemon *d, struct conn *c, const uint8_t *p, size_t n,
                 struct err *e)
{
    struct job *j = daemon_find_job(d, c->job);
    struct job_stage *s = j ? &j->stage[c->stage] : NULL;
    Hone__V1__Down down = HONE__V1__DOWN__INIT;
    ProtobufCMessage *m;
    Hone__V1__Up *up;
    int rc;

    if (!s || s->link != c->id)
        return err_set(e, ERR_DENIED, "a newer worker has taken over");
    rc = message_unpack(&hone__v1__up__descriptor, p, n, &m, e);
    if (rc)
        return rc;
    up = (Hone__V1__Up *)m;
    if (up->seq == 0 || up->seq > s->received)
        take(d, j, s, up);
    if (up->seq) {
        s->received = up->seq > s->received ? up->seq : s->received;
        down.has_received = 1;
        down.received = s->received;
        conn_send(d, c->id, &down.base);
    }
    message_free(m);
    return 0;
}

void uplink_closed(struct daemon *d, struct conn *c)
{
    struct job *j = c->role == CONN_WORKER ? daemon_find_job(d, c->job) : NULL;

    if (j && j->stage[c->stage].link == c->id)
        j->stage[c->stage].link = 0;
}

void uplink_word(struct daemon *d, struct job_stage *s, Hone__V1__Word word)
{
    Hone__V1__Down down = HONE__V1__DOWN__INIT;

    if (s->link) {
        down.has_word = 1;
        down.word = word;
        conn_send(d, s->link, &down.base);
    } else if (s->child && word == HONE__V1__WORD__STOP) {
        d->io->ops->kill(d->io, s->child, SIGTERM);
    }
}
