/* Runs that were started elsewhere and report (daemon/attach.h): who may attach and with
 * what, the same run twice, its starts, what it tells, and a worker that is not heard. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/log.h"
#include "daemon/attach.h"
#include "daemon/auth.h"
#include "tests/unit/daemon/quiet_talk.h"
#include "worker.pb-c.h"

enum { STAGES_TOO_MANY = 65 };

static char dir[64], alice[AUTH_TOKEN_SIZE], bob[AUTH_TOKEN_SIZE];
static char key[] = "00112233445566778899aabbccddeeff";
static struct quiet w;
static struct io_ops ops;
static struct store *store;
static struct daemon d;
static struct auth *auth;
static double now;

static double tell_time(struct io *io)
{
    (void)io;
    return now;
}

static void start_daemon(void)
{
    struct err e;

    quiet_open(&w);
    ops = *w.io.ops;
    ops.now = tell_time;
    w.io.ops = &ops;
    assert_int_equal(store_open(&store, dir, STORE_EPHEMERAL, &e), 0);
    daemon_init(&d, &w.io, store, dir, "unix:/nowhere", 0);
    d.auth = auth;
    assert_int_equal(daemon_recover(&d, &e), 0);
}

static void end_daemon(void)
{
    daemon_fini(&d);
    quiet_close_all(&w);
    store_close(store);
}

static int set_up(void **state)
{
    struct err e;

    (void)state;
    now = 1;
    snprintf(dir, sizeof dir, "/tmp/hone-test-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    assert_int_equal(auth_open(&auth, dir, &e), 0);
    assert_int_equal(auth_add_token(dir, "alice", ACCESS_OPERATOR, alice, &e), 0);
    assert_int_equal(auth_add_token(dir, "bob", ACCESS_OPERATOR, bob, &e), 0);
    start_daemon();
    return 0;
}

static int tear_down(void **state)
{
    struct err e;

    (void)state;
    end_daemon();
    auth_close(auth);
    return file_remove_tree(dir, &e);
}

/* ---- talking ---- */

static void hang_up(void)
{
    w.io.events->closed(w.io.ctx, QUIET_ID);
    str_clear(&w.out);
}

struct place {
    uint64_t job;
    char token[2][TOKEN_MAX];
};

static Hone__V1__AttachRequest request(unsigned attempt)
{
    static char *stages[] = {(char *)"sft", (char *)"rm"};
    Hone__V1__AttachRequest a = HONE__V1__ATTACH_REQUEST__INIT;

    a.key = key;
    a.attempt = attempt;
    a.name = (char *)"toy";
    a.host = (char *)"n1";
    a.file = (char *)"/etc/passwd";
    a.run = (char *)"/etc";
    a.stages = stages;
    a.n_stages = 2;
    return a;
}

/* 0 and *out, or the status of the error. */
static int attach(const Hone__V1__AttachRequest *a, const char *token, struct place *out)
{
    Hone__V1__Call c = HONE__V1__CALL__INIT;
    Hone__V1__AttachReply *reply;
    Hone__V1__Reply *r;
    ProtobufCMessage *m;
    struct str body = {0};
    struct err e;
    int status;

    assert_int_equal(quiet_enter(&w, token), 0);
    assert_int_equal(message_pack(&a->base, &body, &e), 0);
    c.id = 1;
    c.method = (char *)"Attach";
    c.has_request = 1;
    c.request.data = (uint8_t *)body.s;
    c.request.len = body.len;
    quiet_say(&w, &c.base);
    str_fini(&body);
    r = (Hone__V1__Reply *)quiet_answer(&w, &hone__v1__reply__descriptor);
    status = r->error ? (int)r->error->status : 0;
    if (!status) {
        assert_int_equal(message_unpack(&hone__v1__attach_reply__descriptor, r->body.data,
                                        r->body.len, &m, &e),
                         0);
        reply = (Hone__V1__AttachReply *)m;
        out->job = reply->job;
        assert_int_equal(reply->n_tokens, 2);
        for (int i = 0; i < 2; i++)
            snprintf(out->token[i], TOKEN_MAX, "%s", reply->tokens[i]);
        message_free(m);
    }
    message_free(&r->base);
    hang_up();
    return status;
}

/* A worker's Hello: 0 and *received, or the status of the refusal. */
static int hello(const struct place *p, int stage, unsigned attempt, unsigned rank,
                 uint64_t *received)
{
    Hone__V1__Hello h = HONE__V1__HELLO__INIT;
    Hone__V1__Welcome *welcome;
    char job[24];
    int status;

    snprintf(job, sizeof job, "%llu", (unsigned long long)p->job);
    w.io.events->connected(w.io.ctx, QUIET_ID);
    h.magic = PROTO_MAGIC;
    h.version = PROTO_VERSION;
    h.role = HONE__V1__ROLE__WORKER;
    h.job = job;
    h.stage = (char *)(stage ? "rm" : "sft");
    h.token = (char *)(uintptr_t)p->token[stage];
    h.has_attempt = h.has_rank = h.has_world = h.has_pid = h.has_instance = 1;
    h.attempt = attempt;
    h.rank = rank;
    h.host = (char *)"n1";
    h.pid = 70;
    h.instance = 5;
    quiet_say(&w, &h.base);
    welcome = (Hone__V1__Welcome *)quiet_answer(&w, &hone__v1__welcome__descriptor);
    status = welcome->refused ? (int)welcome->refused->status : 0;
    *received = welcome->received;
    message_free(&welcome->base);
    if (status)
        hang_up();
    return status;
}

/* What is acknowledged. */
static uint64_t acknowledged(void)
{
    Hone__V1__Down *down = (Hone__V1__Down *)quiet_answer(&w, &hone__v1__down__descriptor);
    uint64_t received = down->received;

    message_free(&down->base);
    return received;
}

static uint64_t tell_metric(uint64_t seq, unsigned attempt, long step)
{
    Hone__V1__Up up = HONE__V1__UP__INIT;
    char line[64];

    snprintf(line, sizeof line, "{\"step\": %ld, \"at\": %u}", step, attempt);
    up.seq = seq;
    up.metric = line;
    up.has_attempt = 1;
    up.attempt = attempt;
    quiet_say(&w, &up.base);
    return acknowledged();
}

static uint64_t tell_end(uint64_t seq, unsigned status)
{
    Hone__V1__Up up = HONE__V1__UP__INIT;
    Hone__V1__Done done = HONE__V1__DONE__INIT;

    done.status = status;
    up.seq = seq;
    up.done = &done;
    quiet_say(&w, &up.base);
    return acknowledged();
}

static void beat(long step)
{
    Hone__V1__Up up = HONE__V1__UP__INIT;
    Hone__V1__Heartbeat h = HONE__V1__HEARTBEAT__INIT;

    h.phase = (char *)"train";
    h.has_step = 1;
    h.step = step;
    up.heartbeat = &h;
    quiet_say(&w, &up.base);
}

static struct job *job(const struct place *p)
{
    return daemon_find_job(&d, p->job);
}

static void pass(double seconds)
{
    for (double t = 0; t < seconds; t += 1) {
        now += 1;
        w.io.events->wake(w.io.ctx);
    }
}

/* ---- tests ---- */

static void test_hostile(void **state)
{
    static char *many[STAGES_TOO_MANY];
    static const char *const names[] = {"", "../x", "a b", "sft/..", "s.t"};
    char name[300];
    Hone__V1__AttachRequest a;
    struct place p;

    (void)state;
    a = request(1);
    assert_int_equal(attach(&a, alice, &p), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *one = (char *)(uintptr_t)names[i];

        a = request(1);
        a.stages = &one;
        a.n_stages = 1;
        assert_int_equal(attach(&a, alice, &p), 2);
    }
    for (int i = 0; i < STAGES_TOO_MANY; i++)
        many[i] = (char *)"sft";
    a = request(1);
    a.stages = many;
    a.n_stages = 2; /* twice the same */
    assert_int_equal(attach(&a, alice, &p), 2);
    a.n_stages = STAGES_TOO_MANY;
    assert_int_equal(attach(&a, alice, &p), 2);
    a.n_stages = 0;
    assert_int_equal(attach(&a, alice, &p), 2);
    a = request(0);
    assert_int_equal(attach(&a, alice, &p), 2);
    a = request(1);
    a.key = (char *)"../../../../etc/passwd";
    assert_int_equal(attach(&a, alice, &p), 2);
    a = request(1);
    a.has_workers = 1;
    a.workers = 1 << 30;
    assert_int_equal(attach(&a, alice, &p), 2);
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    a = request(1);
    a.name = name;
    assert_int_equal(attach(&a, alice, &p), 2);
    assert_int_equal(d.n_jobs, 1);
}

static void test_same_run(void **state)
{
    struct place p, again, other;
    Hone__V1__AttachRequest a = request(1);

    (void)state;
    assert_int_equal(attach(&a, alice, &p), 0);
    assert_int_equal(attach(&a, alice, &again), 0);
    assert_memory_equal(&p.job, &again.job, sizeof p.job);
    assert_string_equal(p.token[0], again.token[0]);
    assert_string_not_equal(p.token[0], p.token[1]);
    /* Nobody else gets at it with its key. */
    assert_int_equal(attach(&a, bob, &other), 0);
    assert_int_not_equal(other.job, p.job);
    assert_string_not_equal(other.token[0], p.token[0]);
    /* No path of this host, and nothing that could start here. */
    assert_string_equal(job(&p)->run, "n1:/etc");
    assert_int_equal(job(&p)->state, JOB_QUEUED);
    a.n_stages = 1;
    assert_int_equal(attach(&a, alice, &again), 2);
}

static void test_reports(void **state)
{
    Hone__V1__AttachRequest a = request(1);
    struct place p, wrong;
    uint64_t received;

    (void)state;
    assert_int_equal(attach(&a, alice, &p), 0);
    wrong = p;
    wrong.token[0][3] ^= 1;
    assert_int_equal(hello(&wrong, 0, 1, 0, &received), 5);
    wrong = p;
    memcpy(wrong.token[0], p.token[1], TOKEN_MAX); /* of the other stage */
    assert_int_equal(hello(&wrong, 0, 1, 0, &received), 5);
    assert_int_equal(hello(&p, 0, 2, 0, &received), 5);
    assert_int_equal(hello(&p, 0, 1, 1, &received), 5);
    assert_int_equal(job(&p)->stage[0].state, STAGE_WAITING);

    assert_int_equal(hello(&p, 0, 1, 0, &received), 0);
    assert_int_equal(received, 0);
    assert_int_equal(job(&p)->state, JOB_RUNNING);
    assert_int_equal(tell_metric(1, 1, 10), 1);
    assert_int_equal(tell_metric(2, 1, 20), 2);
    hang_up();

    /* Another daemon takes it up where that one was killed. */
    end_daemon();
    start_daemon();
    assert_int_equal(job(&p)->stage[0].state, STAGE_RUNNING);
    assert_int_equal(hello(&p, 0, 1, 0, &received), 0);
    assert_int_equal(received, 2);
    assert_int_equal(tell_metric(2, 1, 20), 2); /* again: without effect */
    assert_int_equal(tell_end(3, 0), 3);
    assert_int_equal(job(&p)->stage[0].state, STAGE_DONE);
    hang_up();
    /* The acknowledgement was lost: whatever it says again is known. */
    assert_int_equal(hello(&p, 0, 1, 0, &received), 0);
    assert_true(received == UINT64_MAX);
    hang_up();

    assert_int_equal(hello(&p, 1, 1, 0, &received), 0);
    assert_int_equal(tell_end(1, 1), 1);
    hang_up();
    assert_int_equal(job(&p)->state, JOB_FAILED);
    assert_int_equal(job(&p)->exit_status, 1);
}

static void test_starts(void **state)
{
    Hone__V1__AttachRequest a = request(1), b = request(2);
    struct place p, q;
    uint64_t received;

    (void)state;
    assert_int_equal(attach(&a, alice, &p), 0);
    assert_int_equal(hello(&p, 0, 1, 0, &received), 0);
    assert_int_equal(tell_metric(1, 1, 10), 1);
    hang_up(); /* killed; and started again, with what it had not told */
    assert_int_equal(attach(&b, alice, &q), 0);
    assert_true(q.job == p.job);
    assert_string_not_equal(p.token[0], q.token[0]);
    assert_int_equal(attach(&a, alice, &p), 5);
    assert_int_equal(hello(&p, 0, 1, 0, &received), 5);
    assert_int_equal(hello(&q, 0, 2, 0, &received), 0);
    assert_int_equal(received, 1);
    assert_int_equal(tell_metric(2, 1, 20), 2); /* of the first start */
    assert_int_equal(tell_metric(3, 2, 15), 3);
    assert_int_equal(tell_end(4, 3), 4);
    hang_up();
    assert_int_equal(job(&p)->state, JOB_STOPPED);
    /* A third start of a job that had ended. */
    a = request(3);
    assert_int_equal(attach(&a, alice, &q), 0);
    assert_int_equal(job(&p)->state, JOB_QUEUED);
    assert_int_equal(hello(&q, 0, 3, 0, &received), 0);
    assert_int_equal(job(&p)->state, JOB_RUNNING);
    hang_up();
}

/* Paused, it is told to stop, and waits for the next start of its run, resumed or not. */
static void test_paused(void **state)
{
    Hone__V1__AttachRequest a = request(1);
    Hone__V1__Down *down;
    struct place p, q;
    uint64_t received;
    struct err e;

    (void)state;
    assert_int_equal(attach(&a, alice, &p), 0);
    assert_int_equal(hello(&p, 0, 1, 0, &received), 0);
    assert_int_equal(tell_metric(1, 1, 10), 1);
    assert_int_equal(daemon_want(&d, job(&p), WANT_PAUSE, &e), 0);
    assert_int_equal(job(&p)->state, JOB_PAUSING);
    down = (Hone__V1__Down *)quiet_answer(&w, &hone__v1__down__descriptor);
    assert_int_equal(down->word, HONE__V1__WORD__STOP);
    message_free(&down->base);
    assert_int_equal(tell_end(2, 3), 2);
    hang_up();
    assert_int_equal(job(&p)->state, JOB_PAUSED);
    assert_int_equal(job(&p)->stage[0].state, STAGE_WAITING);
    /* The acknowledgement was lost: its end is known, and nothing has begun. */
    assert_int_equal(hello(&p, 0, 1, 0, &received), 0);
    assert_true(received == UINT64_MAX);
    hang_up();
    assert_int_equal(job(&p)->state, JOB_PAUSED);

    assert_int_equal(daemon_want(&d, job(&p), WANT_RUN, &e), 0);
    assert_int_equal(job(&p)->state, JOB_QUEUED); /* nothing starts here */
    a = request(2);
    assert_int_equal(attach(&a, alice, &q), 0);
    assert_true(q.job == p.job);
    assert_int_equal(hello(&q, 0, 2, 0, &received), 0);
    assert_int_equal(received, 1); /* what was said after it counts on from there */
    assert_int_equal(job(&p)->state, JOB_RUNNING);

    assert_int_equal(daemon_want(&d, job(&p), WANT_PAUSE, &e), 0);
    str_clear(&w.out);
    assert_int_equal(tell_end(3, 3), 3);
    hang_up();
    assert_int_equal(job(&p)->state, JOB_PAUSED);
    a = request(3);
    assert_int_equal(attach(&a, alice, &q), 0); /* somebody starts it all the same */
    assert_int_equal(hello(&q, 0, 3, 0, &received), 0);
    assert_int_equal(job(&p)->state, JOB_RUNNING);
    assert_int_equal(job(&p)->want, WANT_RUN);
    hang_up();
}

static void test_silent(void **state)
{
    Hone__V1__AttachRequest a = request(1);
    struct place p;
    uint64_t received;

    (void)state;
    assert_int_equal(attach(&a, alice, &p), 0);
    assert_int_equal(hello(&p, 0, 1, 0, &received), 0);
    beat(1);
    pass(9);
    assert_int_equal(job(&p)->stage[0].quiet, 0);
    pass(4);
    assert_int_equal(job(&p)->stage[0].quiet, 1);
    beat(2);
    pass(2);
    assert_int_equal(job(&p)->stage[0].quiet, 0);
    pass(590);
    assert_int_equal(job(&p)->stage[0].state, STAGE_RUNNING);
    pass(20);
    assert_int_equal(job(&p)->state, JOB_FAILED);
    assert_non_null(strstr(job(&p)->message, "rank 0 on n1 (process 70) was not heard"));
    hang_up();
    /* It comes back: refused, attached again, and on it goes. */
    assert_int_equal(hello(&p, 0, 1, 0, &received), 5);
    assert_int_equal(attach(&a, alice, &p), 0);
    assert_int_equal(hello(&p, 0, 1, 0, &received), 0);
    assert_int_equal(job(&p)->state, JOB_RUNNING);
    assert_null(job(&p)->message);
    hang_up();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_hostile, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_same_run, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reports, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_starts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_paused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_silent, set_up, tear_down),
    };

    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
