/* The daemon over an outside world that the test plays: a submit, its check, its stages
 * and its end, event by event; then the same with the n-th allocation failing, for every n,
 * until a run meets no failure. Whatever fails, nothing leaks and nothing hangs. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/daemon.h"
#include "hone.pb-c.h"
#include "proto/frame.h"
#include "proto/message.h"
#include "wire.pb-c.h"

enum { CLIENT = 1, CHILDREN = 16 };

static const char verdict[] =
    "{\"problems\": [], \"plan\": {\"name\": \"toy\", \"stages\": [{\"name\": \"sft\", "
    "\"needs\": []}, {\"name\": \"rm\", \"needs\": [\"sft\"]}]}}";

struct world {
    struct io io; /* first: the daemon's io is the world */
    struct daemon d;
    struct store *store;
    char dir[64], file[128], run[128];
    double now, wake;
    uint64_t children;
    char started[CHILDREN][16]; /* "check", or the stage */
    int killed[CHILDREN], closed, stopped;
    char sent[1 << 16]; /* to the client */
    size_t n_sent;
};

static struct world *world_of(struct io *io)
{
    return (struct world *)io;
}

static double io_now(struct io *io)
{
    return world_of(io)->now;
}

static void io_send(struct io *io, uint64_t conn, const void *p, size_t n)
{
    struct world *w = world_of(io);

    assert_int_equal(conn, CLIENT);
    assert_true(w->n_sent + n <= sizeof w->sent);
    memcpy(w->sent + w->n_sent, p, n);
    w->n_sent += n;
}

static size_t io_unsent(struct io *io, uint64_t conn)
{
    (void)io;
    (void)conn;
    return 0;
}

static void io_close(struct io *io, uint64_t conn)
{
    assert_int_equal(conn, CLIENT);
    world_of(io)->closed = 1;
}

static int io_spawn(struct io *io, const struct io_command *c, uint64_t *child,
                    struct err *e)
{
    struct world *w = world_of(io);
    const char *what = "all";

    (void)e;
    for (int i = 1; c->argv[i]; i++)
        if (!strcmp(c->argv[i], "check"))
            what = "check";
        else if (!strcmp(c->argv[i], "--stage"))
            what = c->argv[i + 1];
    assert_true(w->children + 1 < CHILDREN);
    *child = ++w->children;
    snprintf(w->started[*child], sizeof w->started[0], "%s", what);
    return 0;
}

static void io_kill(struct io *io, uint64_t child, int signal, int whole)
{
    (void)whole;
    world_of(io)->killed[child] = signal;
}

static void io_wake_at(struct io *io, double when)
{
    world_of(io)->wake = when;
}

static void io_stop(struct io *io)
{
    world_of(io)->stopped = 1;
}

static void open_world(struct world *w)
{
    static const struct io_ops ops = {io_now,   io_send, io_unsent,  io_close,
                                      io_spawn, io_kill, io_wake_at, io_stop};
    struct err e;

    memset(w, 0, sizeof *w);
    snprintf(w->dir, sizeof w->dir, "/tmp/hone-test-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->file, sizeof w->file, "%s/job.yaml", w->dir);
    snprintf(w->run, sizeof w->run, "%s/run", w->dir);
    assert_int_equal(file_write_atomic(w->file, "x", 1, &e), 0);
    assert_int_equal(store_open(&w->store, w->dir, STORE_EPHEMERAL, &e), 0);
    w->io.ops = &ops;
    daemon_init(&w->d, &w->io, w->store, w->dir, "unix:/nowhere", 1);
    assert_int_equal(daemon_recover(&w->d, &e), 0);
    snprintf(w->d.worker, sizeof w->d.worker, "/bin/hone-worker");
}

static void close_world(struct world *w)
{
    struct err e;

    daemon_fini(&w->d);
    store_close(w->store);
    file_remove_tree(w->dir, &e);
}

/* ---- the client ---- */

static void say(struct world *w, const ProtobufCMessage *m)
{
    struct str out = {0};
    struct err e;

    assert_int_equal(message_frame(m, &out, &e), 0);
    w->io.events->received(w->io.ctx, CLIENT, out.s, out.len);
    str_fini(&out);
}

static void call(struct world *w, uint32_t id, const char *method,
                 const ProtobufCMessage *m)
{
    Hone__V1__Call c = HONE__V1__CALL__INIT;
    struct str body = {0};
    struct err e;

    assert_int_equal(message_pack(m, &body, &e), 0);
    c.id = id;
    c.method = (char *)(uintptr_t)method;
    c.has_request = 1;
    c.request.data = (uint8_t *)body.s;
    c.request.len = body.len;
    say(w, &c.base);
    str_fini(&body);
}

static void hello(struct world *w)
{
    Hone__V1__Hello h = HONE__V1__HELLO__INIT;

    h.magic = PROTO_MAGIC;
    h.version = PROTO_VERSION;
    h.role = HONE__V1__ROLE__CLIENT;
    say(w, &h.base);
}

static void submit(struct world *w)
{
    Hone__V1__SubmitRequest m = HONE__V1__SUBMIT_REQUEST__INIT;

    m.file = w->file;
    m.out = w->run;
    call(w, 1, "Submit", &m.base);
}

static void watch(struct world *w, uint64_t id)
{
    Hone__V1__WatchRequest m = HONE__V1__WATCH_REQUEST__INIT;

    m.id = id;
    call(w, 2, "Watch", &m.base);
}

static void cancel(struct world *w, uint64_t id, int now)
{
    Hone__V1__CancelRequest m = HONE__V1__CANCEL_REQUEST__INIT;

    m.id = id;
    m.has_now = 1;
    m.now = now;
    call(w, 3, "Cancel", &m.base);
}

static void ends(struct world *w, uint64_t child, int status, int signal, const char *out)
{
    struct io_exit how = {status, signal, out, ""};

    w->io.events->exited(w->io.ctx, child, &how);
}

/* Replies so far; `last`: the exit status of the last job state, -1: it has not ended. */
static int count_replies(struct world *w, int *last)
{
    struct frame_reader in;
    const uint8_t *body;
    size_t n;
    struct err e;
    int count = -1; /* the Welcome */

    *last = -1;
    frame_reader_init(&in, FRAME_CAP);
    assert_int_equal(frame_feed(&in, w->sent, w->n_sent, &e), 0);
    while (frame_next(&in, &body, &n, &e) > 0) {
        ProtobufCMessage *m, *event;

        if (count++ < 0)
            continue;
        assert_int_equal(message_unpack(&hone__v1__reply__descriptor, body, n, &m, &e), 0);
        if (((Hone__V1__Reply *)m)->id == 2 && !((Hone__V1__Reply *)m)->error) {
            const Hone__V1__Reply *r = (Hone__V1__Reply *)m;
            const Hone__V1__Event *ev;

            assert_int_equal(message_unpack(&hone__v1__event__descriptor, r->body.data,
                                            r->body.len, &event, &e),
                             0);
            ev = (Hone__V1__Event *)event;
            if (ev->job_state && ev->job_state->has_exit_status) {
                assert_false(r->has_more && r->more);
                *last = (int)ev->job_state->exit_status;
            }
            message_free(event);
        }
        message_free(m);
    }
    frame_reader_fini(&in);
    return count;
}

/* ---- tests ---- */

static void begin(struct world *w)
{
    w->io.events->connected(w->io.ctx, CLIENT);
    hello(w);
    submit(w);
}

static void test_a_job_to_its_end(void **state)
{
    struct world w;
    struct store_filter f = {.id = 1};
    struct job *stored;
    struct err e;
    int status;

    (void)state;
    open_world(&w);
    begin(&w);
    assert_string_equal(w.started[1], "check");
    assert_int_equal(w.d.n_jobs, 0);
    ends(&w, 1, 0, 0, verdict);
    assert_int_equal(w.d.n_jobs, 1);
    assert_string_equal(w.started[2], "sft");
    assert_int_equal(w.children, 2);
    watch(&w, 1);
    ends(&w, 2, 0, 0, "");
    assert_string_equal(w.started[3], "rm");
    count_replies(&w, &status);
    assert_int_equal(status, -1);
    ends(&w, 3, 0, 0, "");
    count_replies(&w, &status);
    assert_int_equal(status, 0);
    assert_int_equal(store_load_job(w.store, &f, &stored, &e), 0);
    assert_non_null(stored);
    assert_int_equal(stored->state, JOB_DONE);
    job_free(stored);
    assert_false(w.stopped);
    w.io.events->ending(w.io.ctx, 0);
    assert_true(w.stopped);
    close_world(&w);
}

static void test_stop_then_abort(void **state)
{
    struct world w;
    int status;

    (void)state;
    open_world(&w);
    begin(&w);
    ends(&w, 1, 0, 0, verdict);
    watch(&w, 1);
    cancel(&w, 1, 0);
    assert_int_equal(w.killed[2], SIGTERM); /* it has no link */
    cancel(&w, 1, 1);
    assert_int_equal(w.killed[2], SIGKILL);
    ends(&w, 2, 0, SIGKILL, "");
    count_replies(&w, &status);
    assert_int_equal(status, 3);
    assert_int_equal(w.children, 2); /* rm was not started */
    close_world(&w);
}

/* The owner goes while a stage runs: a polite word, and force 1.6 s later. */
static void test_owner_gone(void **state)
{
    struct world w;

    (void)state;
    open_world(&w);
    begin(&w);
    ends(&w, 1, 0, 0, verdict);
    w.io.events->ending(w.io.ctx, 0);
    assert_int_equal(w.killed[2], SIGTERM);
    assert_false(w.stopped);
    assert_true(w.wake > 1 && w.wake < 2);
    w.now = w.wake;
    w.io.events->wake(w.io.ctx);
    assert_int_equal(w.killed[2], SIGKILL);
    ends(&w, 2, 0, SIGKILL, "");
    assert_true(w.stopped);
    close_world(&w);
}

static void test_client_leaves_during_the_check(void **state)
{
    struct world w;

    (void)state;
    open_world(&w);
    begin(&w);
    w.io.events->closed(w.io.ctx, CLIENT);
    assert_int_equal(w.killed[1], SIGKILL);
    ends(&w, 1, 0, SIGKILL, "");
    assert_int_equal(w.d.n_jobs, 0);
    assert_null(w.d.admissions);
    assert_false(file_exists(w.run));
    close_world(&w);
}

static void test_bad_verdicts(void **state)
{
    static const char stranger[] = "{\"plan\": {\"name\": \"x\", \"stages\": "
                                   "[{\"name\": \"a\", \"needs\": [\"b\"]}]}}";
    static const char *const said[] = {"",
                                       "{",
                                       "[]",
                                       "{\"plan\": {}}",
                                       "{\"plan\": {\"name\": 1}}",
                                       "{\"plan\": {\"name\": \"x\", \"stages\": []}}",
                                       "{\"problems\": [{\"where\": 1}]}",
                                       stranger};

    (void)state;
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        struct world w;
        int status;

        open_world(&w);
        begin(&w);
        ends(&w, 1, 0, 0, said[i]);
        assert_int_equal(count_replies(&w, &status), 1);
        assert_int_equal(w.d.n_jobs, 0);
        assert_null(w.d.admissions);
        assert_false(file_exists(w.run));
        close_world(&w);
    }
}

static void write_in(const struct world *w, const char *name, const char *text)
{
    char path[256];
    struct err e;

    snprintf(path, sizeof path, "%s/%s", w->run, name);
    assert_int_equal(file_write_atomic(path, text, strlen(text), &e), 0);
}

/* rm, killed: what summary.json says then. `job`: a worker had begun with the folder. */
static void kill_rm(struct world *w, const char *summary, int job)
{
    open_world(w);
    begin(w);
    ends(w, 1, 0, 0, verdict);
    if (job)
        write_in(w, "job.resolved.yaml", "name: toy\n");
    if (summary)
        write_in(w, "summary.json", summary);
    ends(w, 2, 0, 0, "");
    assert_string_equal(w->started[3], "rm");
    ends(w, 3, 0, SIGKILL, "");
}

static json_t *read_summary(const struct world *w)
{
    char path[256];
    json_t *o;
    struct err e;

    snprintf(path, sizeof path, "%s/summary.json", w->run);
    assert_int_equal(json_read(path, 1 << 20, &o, &e), 0);
    return o;
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));

    assert_non_null(text);
    return text;
}

static void test_killed_worker_in_the_summary(void **state)
{
    static const char was[] = "{\"name\": \"toy\", \"state\": \"running\", \"stages\": "
                              "{\"sft\": {\"state\": \"done\", \"steps\": 7}, "
                              "\"rm\": {\"state\": \"pending\"}}}";
    char path[256], target[256], *text;
    struct world w;
    json_t *o, *stages;
    struct err e;
    size_t n;

    (void)state;
    kill_rm(&w, was, 1);
    o = read_summary(&w);
    assert_string_equal(text_of(o, "state"), "failed");
    assert_non_null(strstr(text_of(o, "message"), "stage rm: hone-worker was ended by"));
    stages = json_object_get(o, "stages");
    assert_string_equal(text_of(json_object_get(stages, "sft"), "state"), "done");
    assert_string_equal(text_of(json_object_get(stages, "rm"), "state"), "failed");
    json_decref(o);
    close_world(&w);

    kill_rm(&w, NULL, 1); /* not even "running" */
    o = read_summary(&w);
    assert_string_equal(text_of(o, "state"), "failed");
    assert_string_equal(text_of(o, "name"), "toy");
    json_decref(o);
    close_world(&w);

    kill_rm(&w, NULL, 0); /* the folder is as empty as it was */
    snprintf(path, sizeof path, "%s/summary.json", w.run);
    assert_false(file_exists(path));
    close_world(&w);

    /* A link in its place is not followed. */
    open_world(&w);
    begin(&w);
    ends(&w, 1, 0, 0, verdict);
    write_in(&w, "job.resolved.yaml", "name: toy\n");
    snprintf(path, sizeof path, "%s/summary.json", w.run);
    snprintf(target, sizeof target, "%s/secret", w.dir);
    assert_int_equal(file_write_atomic(target, "{\"pin\": 1}", 10, &e), 0);
    assert_int_equal(symlink(target, path), 0);
    ends(&w, 2, 0, SIGKILL, "");
    assert_int_equal(file_read(target, 100, &text, &n, &e), 0);
    assert_string_equal(text, "{\"pin\": 1}");
    mem_free(text);
    close_world(&w);
}

/* Allocation n fails, wherever that is in the story. */
static void test_without_memory(void **state)
{
    static struct world w;
    int fired = 1;
    long n = 0;

    (void)state;
    for (; fired; n++) {
        long before = mem_live();
        Hone__V1__SubmitRequest m = HONE__V1__SUBMIT_REQUEST__INIT;
        Hone__V1__Call c = HONE__V1__CALL__INIT;
        Hone__V1__Hello h = HONE__V1__HELLO__INIT;
        struct str body = {0}, stream = {0};
        struct err e;

        open_world(&w);
        h.magic = PROTO_MAGIC;
        h.version = PROTO_VERSION;
        h.role = HONE__V1__ROLE__CLIENT;
        m.file = w.file;
        m.out = w.run;
        assert_int_equal(message_pack(&m.base, &body, &e), 0);
        c.id = 1;
        c.method = (char *)"Submit";
        c.has_request = 1;
        c.request.data = (uint8_t *)body.s;
        c.request.len = body.len;
        assert_int_equal(message_frame(&h.base, &stream, &e), 0);
        assert_int_equal(message_frame(&c.base, &stream, &e), 0);

        mem_fail_at(n);
        w.io.events->connected(w.io.ctx, CLIENT);
        w.io.events->received(w.io.ctx, CLIENT, stream.s, stream.len);
        for (uint64_t child = 1; child <= w.children; child++)
            ends(&w, child, 0, 0, child == 1 ? verdict : "");
        fired = mem_failed();
        mem_fail_at(-1);
        str_fini(&body);
        str_fini(&stream);
        w.io.events->ending(w.io.ctx, 0);
        assert_true(w.stopped);
        close_world(&w);
        assert_int_equal(mem_live(), before);
    }
    assert_true(n > 20); /* or nothing was tried */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_job_to_its_end),
        cmocka_unit_test(test_stop_then_abort),
        cmocka_unit_test(test_owner_gone),
        cmocka_unit_test(test_client_leaves_during_the_check),
        cmocka_unit_test(test_bad_verdicts),
        cmocka_unit_test(test_killed_worker_in_the_summary),
        cmocka_unit_test(test_without_memory),
    };

    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
