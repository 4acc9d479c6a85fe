/* Workers of the simulation: a link as worker/link/link.c keeps one (numbered messages are
 * kept until they are acknowledged, and said again after a reconnect), and ends of every
 * kind. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "proto/message.h"
#include "tests/sim/sim.h"

static void dial(struct sim *s, int index)
{
    struct sim_process *p = &s->process[index];
    Hone__V1__Hello h = HONE__V1__HELLO__INIT;
    char job[24];

    p->conn = sim_dial(s, index, -1);
    if (p->conn < 0)
        return;
    snprintf(job, sizeof job, "%llu", (unsigned long long)p->job);
    h.magic = PROTO_MAGIC;
    h.version = PROTO_VERSION;
    h.role = HONE__V1__ROLE__WORKER;
    h.token = p->token + strlen("HONE_UPLINK_TOKEN=");
    h.job = job;
    h.stage = p->stage;
    h.has_attempt = h.has_rank = h.has_world = h.has_pid = h.has_instance = 1;
    h.attempt = p->attempt;
    h.world = 1;
    h.pid = (uint32_t)(1000 + index);
    h.instance = p->instance;
    sim_say(s, p->conn, &h.base);
}

/* Write what is not yet written on this connection. */
static void write_messages(struct sim *s, struct sim_process *p)
{
    while (p->welcome && p->sent < p->seq) {
        Hone__V1__Up up = HONE__V1__UP__INIT;
        Hone__V1__Done done = HONE__V1__DONE__INIT;

        up.seq = ++p->sent;
        if (p->done_made && up.seq == p->seq) {
            done.status = (uint32_t)p->ends;
            up.done = &done;
        } else {
            up.metric = p->text[up.seq % MSG_MAX];
        }
        sim_say(s, p->conn, &up.base);
    }
}

static void make_metric(struct sim *s, int index)
{
    struct sim_process *p = &s->process[index];

    if (p->seq + 2 >= MSG_MAX)
        return;
    p->seq++;
    snprintf(p->text[p->seq % MSG_MAX], sizeof p->text[0], "{\"m\": \"%d/%llu\"}", index,
             (unsigned long long)p->seq);
    write_messages(s, p);
}

static void take_welcome(struct sim *s, struct sim_process *p, const Hone__V1__Welcome *w)
{
    if (w->refused) {
        /* Its daemon does not know it: that must never happen to a living worker. */
        sim_check(s, !p->alive);
        return;
    }
    sim_check(s, w->received >= p->acked && w->received <= p->seq);
    p->welcome = 1;
    p->acked = p->sent = w->received;
    write_messages(s, p);
}

void sim_worker_hear(struct sim *s, int index)
{
    struct sim_process *p = &s->process[index];
    struct sim_conn *c = p->conn >= 0 ? &s->conn[p->conn] : NULL;
    const uint8_t *body;
    size_t n;
    struct err e;

    if (!c || p->hung)
        return;
    frame_feed(&c->in, str_get(&c->down), c->down.len, &e);
    str_clear(&c->down);
    while (frame_next(&c->in, &body, &n, &e) > 0) {
        ProtobufCMessage *m;
        const Hone__V1__Down *down;

        if (!p->welcome) {
            sim_check(s, !message_unpack(&hone__v1__welcome__descriptor, body, n, &m, &e));
            take_welcome(s, p, (Hone__V1__Welcome *)m);
            message_free(m);
            continue;
        }
        sim_check(s, !message_unpack(&hone__v1__down__descriptor, body, n, &m, &e));
        down = (Hone__V1__Down *)m;
        if (down->has_received) {
            sim_check(s, down->received >= p->acked && down->received <= p->seq);
            p->acked = down->received;
        }
        if (down->has_word && down->word == HONE__V1__WORD__STOP)
            p->stopping = 1;
        if (down->has_word && down->word == HONE__V1__WORD__FINISH && p->steps > 0)
            p->steps = 0;
        message_free(m);
    }
    if (c->goodbye)
        sim_cut(s, p->conn);
}

static void say_progress(struct sim *s, struct sim_process *p)
{
    Hone__V1__Up up = HONE__V1__UP__INIT;
    Hone__V1__Progress progress = HONE__V1__PROGRESS__INIT;

    if (!p->welcome || p->beat > s->now)
        return;
    p->beat = s->now + 1;
    progress.phase = (char *)"train";
    progress.step = p->steps > 20 ? 20 : 20 - p->steps;
    progress.total = 20;
    up.progress = &progress;
    sim_say(s, p->conn, &up.base);
}

int sim_is_finished(const struct sim *s, uint64_t job, const char *stage)
{
    for (int i = 0; i < s->n_processes; i++) {
        const struct sim_process *p = &s->process[i];

        if (p->job == job && !p->alive && !p->signal && !p->status && !p->is_check &&
            !strcmp(p->stage, stage))
            return 1;
    }
    return 0;
}

/* 1: it ended. */
static int perhaps_end(struct sim *s, int index)
{
    struct sim_process *p = &s->process[index];

    if (p->done_made) {
        /* It waits for its last words to arrive, or gives up. */
        if (p->acked == p->seq || rng_below(&s->r, 20) == 0) {
            sim_end_process(s, index, p->ends, 0);
            return 1;
        }
        return 0;
    }
    if (p->stopping || p->steps <= 0) {
        p->ends = p->steps <= 0 ? 0 : 3;
        if (s->broken && p->steps <= 0 && rng_below(&s->r, 12) == 0)
            p->ends = 1;
        p->seq++;
        p->done_made = 1;
        write_messages(s, p);
    }
    return 0;
}

void sim_worker_act(struct sim *s, int index)
{
    struct sim_process *p = &s->process[index];
    uint32_t dice = rng_below(&s->r, s->broken ? 100 : 30);

    if (!p->alive)
        return;
    if (p->is_check) {
        p->hung = dice == 97; /* it has taken too long */
        sim_end_process(s, index, 0, dice == 98 ? SIGSEGV : dice == 97 ? SIGKILL : 0);
        return;
    }
    if (dice == 99) {
        sim_end_process(s, index, 0, rng_below(&s->r, 2) ? SIGKILL : SIGSEGV);
        return;
    }
    p->hung |= dice == 98;
    if (p->hung)
        return;
    if (p->conn < 0)
        dial(s, index);
    if (perhaps_end(s, index))
        return;
    if (!p->done_made && dice < 25) {
        p->steps--;
        make_metric(s, index);
    }
    say_progress(s, p);
}
