/* Clients of the simulation, and what they know for certain: an acknowledged submit is a
 * job for ever, an acknowledged pause or cancel holds until something else is asked for, a
 * watcher has every event once. */
#include <stdio.h>
#include <string.h>

#include "daemon/event.h"
#include "daemon/journal.h"
#include "proto/message.h"
#include "tests/sim/sim.h"

enum { SUBMIT, PAUSE, RESUME, CANCEL, RETRY, SKIP, PRIORITY, WATCH, KINDS };
static const char *const methods[KINDS] = {"Submit", "Pause", "Resume",      "Cancel",
                                           "Retry",  "Skip",  "SetPriority", "Watch"};
static const char *const stages[SIM_STAGES] = {"sft", "rm", "ppo"};

int sim_stage_index(const char *name)
{
    int seed = 1, i = 0;

    if (sscanf(name, "seed-%d/", &seed) == 1)
        name = strchr(name, '/') + 1;
    while (i < SIM_STAGES && strcmp(stages[i], name) != 0)
        i++;
    return (seed - 1) * SIM_STAGES + i;
}

/* Of stage i of all. */
static const char *stage_name(const struct sim *s, int i, char out[24])
{
    if (s->seeds == 1)
        return stages[i];
    snprintf(out, 24, "seed-%d/%s", i / SIM_STAGES + 1, stages[i % SIM_STAGES]);
    return out;
}

/* ---- asking ---- */

static void call(struct sim *s, struct sim_client *c, const ProtobufCMessage *m)
{
    Hone__V1__Call call = HONE__V1__CALL__INIT;
    struct str body = {0};
    struct err e;

    sim_check(s, !message_pack(m, &body, &e));
    call.id = c->id = (uint32_t)s->next_id++;
    call.method = (char *)(uintptr_t)methods[c->what];
    call.has_request = 1;
    call.request.data = (uint8_t *)body.s;
    call.request.len = body.len;
    c->busy = 1;
    sim_say(s, c->conn, &call.base);
    str_fini(&body);
}

static void submit(struct sim *s, struct sim_client *c)
{
    Hone__V1__SubmitRequest m = HONE__V1__SUBMIT_REQUEST__INIT;
    struct sim_fact *f = &s->fact[c->fact];
    char out[128];

    snprintf(f->request, sizeof f->request, "r%d", c->fact);
    snprintf(out, sizeof out, "%s/run-%d", s->dir, c->fact);
    m.file = s->file;
    m.out = out;
    m.request_id = f->request;
    m.has_resume = 1;
    m.resume = 1; /* a daemon that was killed while it judged may have left the folder */
    m.has_priority = 1;
    m.priority = c->fact % 3;
    call(s, c, &m.base);
}

/* Requests that may end a pause, or the end of a job. */
static int undoes(int what)
{
    return what == RESUME || what == RETRY || what == CANCEL;
}

/* Has another client such a request on its way? Who comes first, nobody knows. */
static int is_contested(const struct sim *s, const struct sim_client *c)
{
    for (int i = 0; i < SIM_CLIENTS; i++) {
        const struct sim_client *o = &s->client[i];

        if (o != c && o->busy && o->fact == c->fact && undoes(o->what))
            return 1;
    }
    return 0;
}

void sim_submit(struct sim *s, int client, int fact)
{
    struct sim_client *c = &s->client[client];

    if (!c->hello || c->busy)
        return;
    c->what = SUBMIT;
    c->fact = fact;
    submit(s, c);
}

static void ask_job(struct sim *s, struct sim_client *c)
{
    struct sim_fact *f = &s->fact[c->fact];
    Hone__V1__JobRequest job = HONE__V1__JOB_REQUEST__INIT;
    Hone__V1__CancelRequest cancel = HONE__V1__CANCEL_REQUEST__INIT;
    Hone__V1__StageRequest stage = HONE__V1__STAGE_REQUEST__INIT;
    Hone__V1__PriorityRequest priority = HONE__V1__PRIORITY_REQUEST__INIT;
    Hone__V1__WatchRequest watch = HONE__V1__WATCH_REQUEST__INIT;
    char name[24];

    job.id = cancel.id = stage.id = priority.id = watch.id = f->id;
    cancel.has_now = 1;
    cancel.now = rng_below(&s->r, 3) == 0;
    stage.stage = c->what == SKIP ? (char *)(uintptr_t)stage_name(s, c->stage, name) : NULL;
    priority.priority = (int)rng_below(&s->r, 5) - 2;
    watch.has_after = 1;
    watch.after = s->client[c - s->client].seen[c->fact];
    /* From here on the old knowledge is none: the answer may be lost. */
    if (undoes(c->what)) {
        f->paused = 0;
        f->asked++;
    }
    if (c->what == RETRY)
        f->ended = 0;
    c->asked = f->asked;
    c->contested = is_contested(s, c);
    if (c->what == WATCH)
        c->watching = c->fact;
    call(s, c,
         c->what == CANCEL                     ? &cancel.base
         : c->what == WATCH                    ? &watch.base
         : c->what == PRIORITY                 ? &priority.base
         : c->what == SKIP || c->what == RETRY ? &stage.base
                                               : &job.base);
}

void sim_client_act(struct sim *s, int index, int calm)
{
    static const int often[] = {SUBMIT, SUBMIT, PAUSE, RESUME, RESUME,  CANCEL,
                                RETRY,  RETRY,  SKIP,  WATCH,  PRIORITY};
    struct sim_client *c = &s->client[index];
    Hone__V1__Hello h = HONE__V1__HELLO__INIT;

    if (c->conn < 0) {
        c->conn = sim_dial(s, -1, index);
        if (c->conn < 0)
            return;
        h.magic = PROTO_MAGIC;
        h.version = PROTO_VERSION;
        h.role = HONE__V1__ROLE__CLIENT;
        sim_say(s, c->conn, &h.base);
    }
    if (!c->hello || c->busy)
        return;
    c->fact = (int)rng_below(&s->r, SIM_JOBS);
    c->stage = (int)rng_below(&s->r, (uint32_t)(s->seeds * SIM_STAGES));
    c->what = often[rng_below(&s->r, sizeof often / sizeof *often)];
    if (calm)
        c->what = s->fact[c->fact].paused ? RESUME : WATCH;
    if (c->what == SUBMIT ? calm : !s->fact[c->fact].id)
        return;
    sim_trace(s, "client %d: %s job %llu", index, methods[c->what],
              (unsigned long long)s->fact[c->fact].id);
    if (c->what == SUBMIT)
        submit(s, c);
    else
        ask_job(s, c);
}

/* ---- hearing ---- */

/* What was known of the job that is gone does not hold for this one. */
static void begin_anew(struct sim *s, int fact)
{
    struct sim_fact *f = &s->fact[fact];

    f->gone = f->over = f->paused = f->ended = 0;
    f->asked++;
    memset(f->skipped, 0, sizeof f->skipped);
    for (int i = 0; i < SIM_CLIENTS; i++)
        s->client[i].seen[fact] = 0;
}

static void learn(struct sim *s, struct sim_client *c, const Hone__V1__Job *j)
{
    struct sim_fact *f = &s->fact[c->fact];
    int state = job_state_find(j->state);

    sim_trace(s, "client %d: %s of job %llu is acknowledged: %s", (int)(c - s->client),
              methods[c->what], (unsigned long long)j->id, j->state);
    if (c->what == SUBMIT) {
        sim_check(s, !f->id || f->id == j->id || f->gone);
        if (f->gone) /* the request was forgotten with its job */
            begin_anew(s, c->fact);
        for (int i = 0; i < SIM_JOBS; i++)
            sim_check(s, i == c->fact || s->fact[i].id != j->id);
        f->id = j->id;
    }
    if (c->contested || is_contested(s, c) || c->asked != f->asked)
        return;
    f->paused = c->what == PAUSE && (state == JOB_PAUSED || state == JOB_PAUSING);
    f->ended = c->what == CANCEL && state >= JOB_STOPPING;
}

static void take_event(struct sim *s, struct sim_client *c, const Hone__V1__Event *ev)
{
    if (!ev->has_seq)
        return;
    if (ev->has_gap && !ev->has_report) /* forgotten: it says how many */
        sim_check(s, s->event_bytes && ev->seq == c->seen[c->watching] + ev->gap);
    else
        sim_check(s, ev->seq == c->seen[c->watching] + 1);
    c->seen[c->watching] = ev->seq;
}

static void take_reply(struct sim *s, struct sim_client *c, const Hone__V1__Reply *reply)
{
    const ProtobufCMessageDescriptor *d = c->what == SUBMIT
                                              ? &hone__v1__submit_reply__descriptor
                                          : c->what == WATCH ? &hone__v1__event__descriptor
                                                             : &hone__v1__job__descriptor;
    ProtobufCMessage *m;
    struct err e;

    if (reply->id != c->id)
        return;
    c->busy = reply->has_more && reply->more;
    if (reply->error) {
        sim_trace(s, "client %d: %s: %s", (int)(c - s->client), methods[c->what],
                  reply->error->message);
        return;
    }
    sim_check(s, !message_unpack(d, reply->body.data, reply->body.len, &m, &e));
    if (c->what == WATCH)
        take_event(s, c, (Hone__V1__Event *)m);
    else if (c->what != SUBMIT)
        learn(s, c, (Hone__V1__Job *)m);
    else if (((Hone__V1__SubmitReply *)m)->job)
        learn(s, c, ((Hone__V1__SubmitReply *)m)->job);
    message_free(m);
}

void sim_client_hear(struct sim *s, int index)
{
    struct sim_client *c = &s->client[index];
    struct sim_conn *conn = c->conn >= 0 ? &s->conn[c->conn] : NULL;
    const uint8_t *body;
    size_t n, had;
    struct err e;

    if (!conn)
        return;
    had = conn->down.len;
    frame_feed(&conn->in, str_get(&conn->down), conn->down.len, &e);
    str_clear(&conn->down);
    while (frame_next(&conn->in, &body, &n, &e) > 0) {
        ProtobufCMessage *m;

        if (!c->hello) {
            c->hello = 1;
            continue;
        }
        sim_check(s, !message_unpack(&hone__v1__reply__descriptor, body, n, &m, &e));
        take_reply(s, c, (Hone__V1__Reply *)m);
        message_free(m);
    }
    if (conn->goodbye)
        sim_cut(s, c->conn);
    else if (had && s->up)
        s->io.events->drained(s->io.ctx, conn->id);
}

/* ---- what must be so ---- */

/* A lost stage holds up its own seed alone: when the job has failed by itself, the other
 * seeds are through. */
static void check_seeds(struct sim *s, const struct job *j)
{
    int lost[SIM_SEEDS] = {0};

    for (size_t i = 0; i < j->n_stages; i++)
        lost[i / SIM_STAGES] |=
            j->stage[i].state == STAGE_FAILED || j->stage[i].state == STAGE_STOPPED;
    for (size_t i = 0; i < j->n_stages && job_ended(j) && j->want != WANT_STOP; i++)
        sim_check(s, lost[i / SIM_STAGES] || stage_over(j->stage[i].state));
}

struct newer {
    uint64_t id, n; /* jobs above */
};

static int count_newer(void *ctx, struct job *j)
{
    struct newer *w = ctx;

    w->n += j->id > w->id;
    job_free(j);
    return 0;
}

/* Only what had ended is forgotten, and only while enough newer ones are kept. */
static void check_gone(struct sim *s, struct sim_fact *f)
{
    struct store_filter ended = {.states =
                                     1u << JOB_DONE | 1u << JOB_FAILED | 1u << JOB_STOPPED};
    struct newer newer = {.id = f->id};
    struct err e;

    if (f->gone)
        return;
    sim_check(s, s->keep && f->over);
    sim_check(s, !store_load_jobs(s->store, &ended, count_newer, &newer, &e));
    sim_check(s, newer.n >= s->keep);
    f->gone = 1;
}

static void check_job(struct sim *s, struct sim_fact *f)
{
    struct job *j = f->gone ? NULL : daemon_find_job(&s->d, f->id);

    if (!j) {
        check_gone(s, f);
        return;
    }
    f->over = job_ended(j);
    sim_check(s, j->n_stages == (size_t)(s->seeds * SIM_STAGES));
    check_seeds(s, j);
    for (size_t i = 0; i < j->n_stages; i++) {
        const struct job_stage *st = &j->stage[i];

        f->skipped[i] = st->state == STAGE_SKIPPED;
        sim_check(s, st->state != STAGE_DONE || sim_is_finished(s, j->id, st->name));
        sim_check(s, st->state != STAGE_RUNNING || st->child);
        for (size_t k = 0; k < st->n_needs; k++)
            sim_check(s, st->state != STAGE_RUNNING ||
                             (stage_over(j->stage[st->needs[k]].state) &&
                              sim_is_finished(s, j->id, j->stage[st->needs[k]].name)));
    }
    if (f->paused)
        sim_check(s, j->state == JOB_PAUSED || j->state == JOB_PAUSING || job_ended(j));
    if (f->ended)
        sim_check(s, j->state == JOB_STOPPING || job_ended(j));
    for (size_t i = 0; i < j->n_stages; i++)
        sim_check(s, j->state != JOB_DONE || stage_over(j->stage[i].state));
}

void sim_check_facts(struct sim *s)
{
    uint64_t open = 0;

    if (!s->up)
        return;
    for (int i = SIM_JOBS - 1; i >= 0; i--)
        if (s->fact[i].id)
            check_job(s, &s->fact[i]);
    for (size_t i = 0; i < s->d.n_jobs; i++)
        open += !job_ended(s->d.jobs[i]);
    sim_check(s, !s->open || open <= s->open);
}

/* The journal has of each worker's reports the first so many, each once and in order, and
 * at least those that were acknowledged. */
static void check_journal(struct sim *s, struct job *j)
{
    uint64_t last[SIM_PROCESSES] = {0};
    struct journal_place place = {0};
    struct journal *journal;
    const uint8_t *body;
    size_t n;
    struct err e;

    journal = event_journal(&s->d, j, &e);
    sim_check(s, journal != NULL);
    while (journal_read(journal, &place, &body, &n, &e) > 0) {
        ProtobufCMessage *m;
        const Hone__V1__Event *ev;
        int process;
        unsigned long long seq;

        sim_check(s, !message_unpack(&hone__v1__event__descriptor, body, n, &m, &e));
        ev = (Hone__V1__Event *)m;
        sim_check(s, ev->has_seq && ev->seq == place.after && ev->job == j->id);
        if (ev->metric) {
            sim_check(s, sscanf(ev->metric, "{\"m\": \"%d/%llu", &process, &seq) == 2);
            sim_check(s, seq == last[process] + 1 ||
                             (!last[process] && journal_first(journal) > 1));
            sim_check(s, s->process[process].job == j->id);
            last[process] = seq;
        }
        message_free(m);
    }
    for (int i = 0; i < s->n_processes; i++) {
        const struct sim_process *p = &s->process[i];
        uint64_t metrics = p->acked - (p->done_made && p->acked == p->seq);

        if (p->job == j->id && !p->is_check && (last[i] || journal_first(journal) == 1))
            sim_check(s, last[i] >= metrics);
    }
}

void sim_check_end(struct sim *s)
{
    for (int i = 0; i < SIM_JOBS; i++) {
        struct job *j = s->fact[i].id ? daemon_find_job(&s->d, s->fact[i].id) : NULL;

        if (!s->fact[i].id || s->fact[i].gone)
            continue;
        sim_check(s, j != NULL);
        sim_check(s, job_ended(j) || j->state == JOB_PAUSED);
        check_journal(s, j);
    }
    for (int i = 0; i < s->n_processes; i++)
        sim_check(s, !s->process[i].alive);
}
