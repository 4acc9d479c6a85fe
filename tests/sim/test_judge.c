/* The watchdog in virtual time (daemon/judge.h): who is silent, or gets nowhere, is named
 * and ended within the limit that follows from the step time, and started again within its
 * budget; who is merely slow, or waits for a daemon that did not run, is left alone. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/log.h"
#include "daemon/event.h"
#include "daemon/journal.h"
#include "daemon/work.h"
#include "proto/message.h"
#include "tests/sim/sim.h"

enum { CHECK = 0, FIRST = 1 };

static struct sim s;

/* A submitted job of one stage's worth: its first process is FIRST, with two ranks. */
static void begin(void)
{
    Hone__V1__Hello h = HONE__V1__HELLO__INIT;

    sim_open(&s, 1);
    s.broken = 0;
    s.workers = 2;
    fault_arm(NULL);
    sim_start_daemon(&s);
    s.client[0].conn = sim_dial(&s, -1, 0);
    h.magic = PROTO_MAGIC;
    h.version = PROTO_VERSION;
    h.role = HONE__V1__ROLE__CLIENT;
    sim_say(&s, s.client[0].conn, &h.base);
    while (!s.fact[0].id) {
        sim_deliver(&s, s.client[0].conn, 1 << 20);
        sim_client_hear(&s, 0);
        if (!s.client[0].busy)
            sim_submit(&s, 0, 0);
        if (s.n_processes && s.process[CHECK].alive)
            sim_worker_act(&s, CHECK);
        sim_tell_end(&s, CHECK);
        sim_advance(&s, 0.01);
    }
    assert_true(s.process[FIRST].alive);
}

static void dial(int process)
{
    struct sim_process *p = &s.process[process];
    Hone__V1__Hello h = HONE__V1__HELLO__INIT;
    char job[24];

    p->conn = sim_dial(&s, process, -1);
    snprintf(job, sizeof job, "%llu", (unsigned long long)p->job);
    h.magic = PROTO_MAGIC;
    h.version = PROTO_VERSION;
    h.role = HONE__V1__ROLE__WORKER;
    h.token = p->token + strlen("HONE_UPLINK_TOKEN=");
    h.job = job;
    h.stage = p->stage;
    h.has_attempt = h.has_rank = h.has_world = h.has_pid = h.has_instance = 1;
    h.attempt = p->attempt;
    h.world = 2;
    h.host = (char *)"alpha";
    h.pid = 70;
    h.instance = p->instance;
    sim_say(&s, p->conn, &h.base);
}

/* Rank 0 says where it is; rank 1 through it, unless it is -1. */
static void beat(int process, long step0, long step1)
{
    int conn = s.process[process].conn;
    Hone__V1__Up up = HONE__V1__UP__INIT;
    Hone__V1__Heartbeat h = HONE__V1__HEARTBEAT__INIT;

    if (conn < 0) /* it was ended */
        return;
    up.heartbeat = &h;
    h.phase = (char *)"train";
    h.has_step = 1;
    h.step = step0;
    sim_say(&s, conn, &up.base);
    if (step1 >= 0) {
        h.step = step1;
        h.has_rank = h.has_pid = h.has_collective_seq = 1;
        h.rank = 1;
        h.host = (char *)"beta";
        h.pid = 71;
        h.collective = (char *)"all_reduce";
        h.collective_seq = 9;
        sim_say(&s, conn, &up.base);
    }
    while (sim_deliver(&s, conn, 1 << 20))
        ;
}

/* Notes of events that hold this text. */
static int is_noted(const char *text)
{
    struct job *j = daemon_find_job(&s.d, s.fact[0].id);
    struct journal_place place = {0};
    const uint8_t *body;
    size_t n;
    struct err e;
    int found = 0;

    while (journal_read(event_journal(&s.d, j, &e), &place, &body, &n, &e) > 0) {
        ProtobufCMessage *m;
        const Hone__V1__Event *ev;

        assert_int_equal(message_unpack(&hone__v1__event__descriptor, body, n, &m, &e), 0);
        ev = (Hone__V1__Event *)m;
        found += ev->note && strstr(ev->note->text, text);
        message_free(m);
    }
    return found;
}

static void deliver(int process, const Hone__V1__Up *up)
{
    sim_say(&s, s.process[process].conn, &up->base);
    while (sim_deliver(&s, s.process[process].conn, 1 << 20))
        ;
}

static void point(int process, uint64_t seq, const char *line)
{
    Hone__V1__Up up = HONE__V1__UP__INIT;

    up.seq = seq;
    up.metric = (char *)(uintptr_t)line;
    deliver(process, &up);
}

static void progress(int process, const char *phase, long step)
{
    Hone__V1__Up up = HONE__V1__UP__INIT;
    Hone__V1__Progress p = HONE__V1__PROGRESS__INIT;

    p.phase = (char *)(uintptr_t)phase;
    p.step = step;
    p.total = 100000;
    up.progress = &p;
    deliver(process, &up);
}

/* Of the loss: each once, however often the points say it. */
static void test_loss_alarms(void **state)
{
    (void)state;
    begin();
    dial(FIRST);
    point(FIRST, 1, "{\"step\": 1, \"split\": \"train\", \"loss\": 0.5}");
    assert_int_equal(is_noted("the loss"), 0);
    point(FIRST, 2, "{\"step\": 2, \"split\": \"train\", \"loss\": null}");
    point(FIRST, 3, "{\"step\": 3, \"split\": \"train\", \"loss\": null}");
    assert_int_equal(is_noted("the loss is no number any more"), 1);
    point(FIRST, 4, "{\"step\": 4, \"split\": \"train\", \"loss\": 1, \"stalled\": 120}");
    point(FIRST, 5, "{\"step\": 5, \"split\": \"train\", \"loss\": 1, \"stalled\": 120}");
    assert_int_equal(is_noted("the training loss has not fallen for 120 steps"), 1);
    assert_true(s.process[FIRST].alive); /* nobody is ended for it */
    sim_close(&s);
}

/* A quarter of an hour of training without a checkpoint; one sets it back. */
static void test_checkpoint_overdue(void **state)
{
    (void)state;
    begin();
    dial(FIRST);
    for (int i = 0; i < 1700; i += 5) {
        progress(FIRST, i == 800 ? "save" : "train", i);
        sim_advance(&s, 5);
        if (i < 1690)
            assert_int_equal(is_noted("no checkpoint for"), 0);
    }
    for (int i = 1700; i < 4200; i += 5) { /* 4 x the 800 s that it took before */
        progress(FIRST, "train", i);
        sim_advance(&s, 5);
    }
    assert_int_equal(is_noted("no checkpoint for"), 1);
    assert_true(s.process[FIRST].alive);
    sim_close(&s);
}

static void test_disk_nearly_full(void **state)
{
    (void)state;
    begin();
    dial(FIRST);
    for (int i = 1; i < 20; i++) {
        if (i == 10)
            s.d.limits.disk_least = 1ull << 60; /* no disk has so much */
        beat(FIRST, i, i);
        sim_advance(&s, 1);
        assert_int_equal(is_noted("the disk of the run folder is nearly full"), i >= 10);
    }
    assert_true(s.process[FIRST].alive);
    sim_close(&s);
}

static void test_silent_rank(void **state)
{
    (void)state;
    begin();
    dial(FIRST);
    for (int i = 1; i <= 30; i++) {
        beat(FIRST, i, i);
        sim_advance(&s, 1);
    }
    assert_true(s.process[FIRST].alive);
    for (int i = 31; i <= 39; i++) { /* rank 1 has stopped */
        beat(FIRST, 30, -1);
        sim_advance(&s, 1);
    }
    assert_true(s.process[FIRST].alive);
    for (int i = 0; i < 4; i++) {
        beat(FIRST, 30, -1);
        sim_advance(&s, 1);
    }
    assert_false(s.process[FIRST].alive);
    assert_int_equal(s.process[FIRST].signal, SIGKILL);
    assert_true(is_noted("rank 1 on beta (process 71) was not heard for"));
    assert_true(is_noted("phase train, step 30, collective all_reduce 9"));
    /* ... and the stage is started again. */
    assert_int_equal(sim_tell_end(&s, FIRST), 1);
    if (s.n_processes > FIRST + 1) { /* the other stage was first */
        sim_end_process(&s, FIRST + 1, 0, 0);
        sim_tell_end(&s, FIRST + 1);
    }
    sim_advance(&s, 2);
    assert_int_equal(s.process[s.n_processes - 1].attempt, 2);
    assert_string_equal(s.process[s.n_processes - 1].stage, s.process[FIRST].stage);
    sim_close(&s);
}

/* Steps of 4 s: 40 s of silence are allowed. */
static void test_limit_adapts(void **state)
{
    (void)state;
    begin();
    dial(FIRST);
    for (int i = 1; i <= 60; i++) {
        beat(FIRST, 1 + i / 4, -1);
        sim_advance(&s, 1);
    }
    sim_advance(&s, 35);
    assert_true(s.process[FIRST].alive);
    sim_advance(&s, 10);
    assert_false(s.process[FIRST].alive);
    sim_close(&s);
}

static void test_stuck(void **state)
{
    (void)state;
    begin();
    dial(FIRST);
    for (int i = 1; i <= 10; i++) {
        beat(FIRST, i, -1);
        sim_advance(&s, 1);
    }
    for (int i = 0; i < 55; i++) {
        beat(FIRST, 10, -1);
        sim_advance(&s, 1);
    }
    assert_true(s.process[FIRST].alive);
    for (int i = 0; i < 10; i++) {
        beat(FIRST, 10, -1);
        sim_advance(&s, 1);
    }
    assert_false(s.process[FIRST].alive);
    assert_true(is_noted("rank 0 on alpha (process 70) has taken no step for"));
    sim_close(&s);
}

/* The machine was suspended for an hour: nobody is blamed. */
static void test_suspended(void **state)
{
    (void)state;
    begin();
    dial(FIRST);
    beat(FIRST, 1, 1);
    sim_advance(&s, 2);
    s.now += 3600;
    s.io.events->wake(s.io.ctx);
    assert_true(s.process[FIRST].alive);
    beat(FIRST, 2, 2);
    sim_advance(&s, 5);
    assert_true(s.process[FIRST].alive);
    sim_close(&s);
}

/* One that never says a word is given a minute. */
static void test_never_heard(void **state)
{
    (void)state;
    begin();
    sim_advance(&s, 58);
    assert_true(s.process[FIRST].alive);
    sim_advance(&s, 5);
    assert_false(s.process[FIRST].alive);
    assert_true(is_noted("rank 0 was not heard for"));
    sim_close(&s);
}

/* It dies again and again without getting further: the budget ends, and the job fails. */
static void test_budget(void **state)
{
    unsigned starts = 0;
    struct job *j;

    (void)state;
    begin();
    for (int i = FIRST; i < s.n_processes && i < 40; i++) {
        starts += !strcmp(s.process[i].stage, "sft");
        if (s.process[i].alive)
            sim_end_process(&s, i, 0, SIGSEGV);
        assert_int_equal(sim_tell_end(&s, i), 1);
        sim_advance(&s, 61);
    }
    j = daemon_find_job(&s.d, s.fact[0].id);
    assert_int_equal(j->state, JOB_FAILED);
    assert_int_equal(starts, 1 + work_budget[LOSS_CRASH]);
    sim_close(&s);
}

/* It saved and stopped because of somebody else's signal: it goes on. */
static void test_stopped_by_others(void **state)
{
    (void)state;
    begin();
    sim_end_process(&s, FIRST, 3, 0);
    assert_int_equal(sim_tell_end(&s, FIRST), 1);
    if (s.n_processes > FIRST + 1) {
        sim_end_process(&s, FIRST + 1, 0, 0);
        sim_tell_end(&s, FIRST + 1);
    }
    sim_advance(&s, 2);
    assert_int_equal(s.process[s.n_processes - 1].attempt, 2);
    assert_string_equal(s.process[s.n_processes - 1].stage, s.process[FIRST].stage);
    sim_close(&s);
}

/* Wrong input is not tried again. */
static void test_no_budget(void **state)
{
    (void)state;
    begin();
    sim_end_process(&s, FIRST, 2, 0);
    assert_int_equal(sim_tell_end(&s, FIRST), 1);
    sim_advance(&s, 100);
    for (int i = FIRST + 1; i < s.n_processes; i++)
        assert_string_not_equal(s.process[i].stage, s.process[FIRST].stage);
    sim_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_alarms),
        cmocka_unit_test(test_checkpoint_overdue),
        cmocka_unit_test(test_disk_nearly_full),
        cmocka_unit_test(test_silent_rank),
        cmocka_unit_test(test_limit_adapts),
        cmocka_unit_test(test_stuck),
        cmocka_unit_test(test_suspended),
        cmocka_unit_test(test_never_heard),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_no_budget),
        cmocka_unit_test(test_stopped_by_others),
    };

    signal(SIGPIPE, SIG_IGN);
    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
