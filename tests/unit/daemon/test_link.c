/* The worker's end of the uplink against a daemon played by the test: nothing is lost or
 * taken twice when connections break, an overflowing queue says what it dropped, a private
 * daemon's end stops the work. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "hone.pb-c.h"
#include "proto/frame.h"
#include "proto/message.h"
#include "proto/transport.h"
#include "wire.pb-c.h"
#include "worker.pb-c.h"
#include "worker/link/link.h"

struct peer {
    char dir[64], address[128];
    int listen_fd, fd;
    struct frame_reader in;
    struct link *link;
};

static void listen_again(struct peer *p)
{
    struct err e;

    assert_int_equal(transport_listen(p->address, &p->listen_fd, &e), 0);
}

static void stop_listening(struct peer *p)
{
    close(p->listen_fd);
    transport_unlink(p->address);
    p->listen_fd = -1;
}

static int set_up(void **state)
{
    struct peer *p = calloc(1, sizeof *p);

    snprintf(p->dir, sizeof p->dir, "/tmp/hone-test-XXXXXX");
    if (!mkdtemp(p->dir))
        return -1;
    snprintf(p->address, sizeof p->address, "unix:%s/socket", p->dir);
    p->fd = -1;
    listen_again(p);
    *state = p;
    return 0;
}

static void hang_up(struct peer *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
    frame_reader_fini(&p->in);
}

static int tear_down(void **state)
{
    struct peer *p = *state;
    struct err e;

    hang_up(p);
    if (p->listen_fd >= 0)
        close(p->listen_fd);
    file_remove_tree(p->dir, &e);
    free(p);
    return 0;
}

static void open_link(struct peer *p, int orphan_stop)
{
    struct link_hello h = {.address = p->address,
                           .token = "secret",
                           .job = "7",
                           .stage = "sft",
                           .attempt = 2,
                           .world = 1,
                           .orphan_stop = orphan_stop};
    struct err e;

    assert_int_equal(link_open(&p->link, &h, &e), 0);
}

static void send_message(struct peer *p, const ProtobufCMessage *m)
{
    struct str out = {0};
    struct err e;

    assert_int_equal(message_frame(m, &out, &e), 0);
    assert_int_equal(send(p->fd, out.s, out.len, MSG_NOSIGNAL), (ssize_t)out.len);
    str_fini(&out);
}

/* The next frame as a message, or NULL: nothing for 2 s, or the end. */
static ProtobufCMessage *receive(struct peer *p, const ProtobufCMessageDescriptor *d)
{
    ProtobufCMessage *m;
    const uint8_t *body;
    size_t n;
    struct err e;
    int rc;

    while (!(rc = frame_next(&p->in, &body, &n, &e))) {
        struct pollfd f = {p->fd, POLLIN, 0};
        char buf[4096];
        ssize_t got;

        if (poll(&f, 1, 2000) <= 0)
            return NULL;
        got = recv(p->fd, buf, sizeof buf, 0);
        if (got <= 0)
            return NULL;
        assert_int_equal(frame_feed(&p->in, buf, (size_t)got, &e), 0);
    }
    assert_int_equal(rc, 1);
    assert_int_equal(message_unpack(d, body, n, &m, &e), 0);
    return m;
}

/* Accept, take the Hello, answer with `received`. */
static void answer(struct peer *p, uint64_t received, const char *refusal)
{
    Hone__V1__Welcome w = HONE__V1__WELCOME__INIT;
    Hone__V1__Error error = HONE__V1__ERROR__INIT;
    struct pollfd f = {p->listen_fd, POLLIN, 0};
    Hone__V1__Hello *h;

    assert_int_equal(poll(&f, 1, 3000), 1);
    p->fd = accept(p->listen_fd, NULL, NULL);
    assert_true(p->fd >= 0);
    frame_reader_init(&p->in, FRAME_CAP);
    h = (Hone__V1__Hello *)receive(p, &hone__v1__hello__descriptor);
    assert_non_null(h);
    assert_int_equal(h->magic, PROTO_MAGIC);
    assert_int_equal(h->role, HONE__V1__ROLE__WORKER);
    assert_string_equal(h->token, "secret");
    assert_string_equal(h->job, "7");
    assert_string_equal(h->stage, "sft");
    assert_int_equal(h->attempt, 2);
    message_free(&h->base);
    w.version = PROTO_VERSION;
    w.has_received = 1;
    w.received = received;
    if (refusal) {
        error.status = 5;
        error.message = (char *)(uintptr_t)refusal;
        w.refused = &error;
    }
    send_message(p, &w.base);
}

static void acknowledge(struct peer *p, uint64_t seq)
{
    Hone__V1__Down down = HONE__V1__DOWN__INIT;

    down.has_received = 1;
    down.received = seq;
    send_message(p, &down.base);
}

/* The next message with a sequence number. */
static Hone__V1__Up *next_up(struct peer *p)
{
    double until = clock_now() + 5;

    for (;;) {
        Hone__V1__Up *up = (Hone__V1__Up *)receive(p, &hone__v1__up__descriptor);

        if (!up || up->seq)
            return up;
        message_free(&up->base);
        if (clock_now() > until) /* heartbeats alone */
            return NULL;
    }
}

static void say_metric(struct link *l, long i)
{
    char json[64];

    snprintf(json, sizeof json, "{\"step\": %ld}", i);
    link_metric(l, json);
}

static long step_of(const Hone__V1__Up *up)
{
    long step = -1;

    assert_non_null(up->metric);
    assert_int_equal(sscanf(up->metric, "{\"step\": %ld}", &step), 1);
    return step;
}

static enum link_control await_control(struct link *l, double seconds)
{
    double until = clock_now() + seconds;
    enum link_control word;

    while (!(word = link_control(l)) && clock_now() < until)
        usleep(1000);
    return word;
}

/* ---- tests ---- */

static void test_without_a_daemon(void **state)
{
    struct link_hello h = {.stage = "sft"};
    struct link *l = NULL;
    struct err e;

    (void)state;
    assert_int_equal(link_open(&l, &h, &e), 0);
    assert_null(l);
    link_metric(l, "{}");
    link_progress(l, "train", 1, 2, "{}");
    link_event(l, "info", "text");
    link_done(l, 0, "");
    assert_int_equal(link_control(l), CONTROL_NONE);
    link_close(l);
}

static void test_in_order(void **state)
{
    struct peer *p = *state;
    Hone__V1__Up *up;

    open_link(p, 0);
    answer(p, 0, NULL);
    for (long i = 1; i <= 20; i++)
        say_metric(p->link, i);
    link_done(p->link, 1, "bad \xff byte");
    for (long i = 1; i <= 20; i++) {
        up = next_up(p);
        assert_int_equal(up->seq, i);
        assert_int_equal(step_of(up), i);
        message_free(&up->base);
    }
    up = next_up(p);
    assert_int_equal(up->done->status, 1);
    assert_string_equal(up->done->message, "bad ? byte");
    acknowledge(p, up->seq);
    message_free(&up->base);
    link_close(p->link);
}

/* Points wait to go out together, and are numbered in the order in which all was said; a
 * long line of them does not wait. */
static void test_points_and_notes_in_order(void **state)
{
    enum { EACH = 100, POINTS = 800 };
    struct peer *p = *state;
    Hone__V1__Up *up;
    uint64_t seq = 0;

    open_link(p, 0);
    answer(p, 0, NULL);
    for (long i = 1; i <= POINTS; i++) {
        say_metric(p->link, i);
        if (i % EACH == 0)
            link_event(p->link, "info", "said after it");
    }
    for (long i = 1; i <= POINTS; i++) {
        up = next_up(p);
        assert_int_equal(up->seq, ++seq);
        assert_int_equal(step_of(up), i);
        message_free(&up->base);
        if (i % EACH)
            continue;
        up = next_up(p);
        assert_int_equal(up->seq, ++seq);
        assert_non_null(up->note);
        message_free(&up->base);
    }
    acknowledge(p, seq);
    link_close(p->link);
}

/* What was not acknowledged comes again, once, in order. */
static void test_broken_connections(void **state)
{
    struct peer *p = *state;
    uint64_t safe = 0;

    open_link(p, 0);
    for (long i = 1; i <= 60; i++)
        say_metric(p->link, i);
    while (safe < 60) {
        answer(p, safe, NULL);
        for (int i = 0; i < 10; i++) {
            Hone__V1__Up *up = next_up(p);

            assert_int_equal(up->seq, safe + 1 + (uint64_t)i);
            assert_int_equal(step_of(up), up->seq);
            message_free(&up->base);
        }
        safe += 7; /* three of the ten came in vain */
        safe = safe > 50 ? 60 : safe;
        if (safe == 60)
            acknowledge(p, safe);
        else
            hang_up(p);
    }
    link_close(p->link);
}

/* Nobody listens for long: the end is kept, and the gap counts what is not. */
static void test_overflow(void **state)
{
    struct peer *p = *state;
    const long said = 5000;
    uint64_t metrics = 0, gaps = 0;
    int done = 0;

    stop_listening(p);
    open_link(p, 0);
    link_event(p->link, "info", "first");
    for (long i = 1; i <= said; i++)
        say_metric(p->link, i);
    listen_again(p);
    answer(p, 0, NULL);
    while (metrics + gaps < (uint64_t)said || !done) {
        Hone__V1__Up *up = next_up(p);

        if (!up)
            break;
        if (up->note)
            assert_string_equal(up->note->text, "first");
        metrics += up->metric != NULL;
        gaps += up->has_gap ? up->gap : 0;
        done |= up->done != NULL;
        acknowledge(p, up->seq);
        /* There is room again: the next message brings the gap with it. */
        if (up->metric && step_of(up) == said)
            link_done(p->link, 0, "");
        message_free(&up->base);
    }
    assert_int_equal(metrics + gaps, said);
    assert_true(gaps > 0);
    assert_true(done);
    link_close(p->link);
}

static void test_words(void **state)
{
    struct peer *p = *state;
    Hone__V1__Down down = HONE__V1__DOWN__INIT;

    open_link(p, 0);
    answer(p, 0, NULL);
    down.has_word = 1;
    down.word = HONE__V1__WORD__CHECKPOINT;
    send_message(p, &down.base);
    assert_int_equal(await_control(p->link, 2), CONTROL_CHECKPOINT);
    down.word = HONE__V1__WORD__STOP;
    send_message(p, &down.base);
    assert_int_equal(await_control(p->link, 2), CONTROL_STOP);
    assert_int_equal(link_control(p->link), CONTROL_NONE);
    link_close(p->link);
}

static void test_private_daemon_gone(void **state)
{
    struct peer *p = *state;
    double at;

    open_link(p, 1);
    answer(p, 0, NULL);
    assert_int_equal(link_control(p->link), CONTROL_NONE);
    stop_listening(p);
    hang_up(p);
    at = clock_now();
    assert_int_equal(await_control(p->link, 2), CONTROL_STOP);
    assert_true(clock_now() - at < 1);
    link_done(p->link, 3, "");
    at = clock_now();
    link_close(p->link);
    assert_true(clock_now() - at < 1);
}

static void test_long_lived_daemon_gone(void **state)
{
    struct peer *p = *state;

    open_link(p, 0);
    answer(p, 0, NULL);
    stop_listening(p);
    hang_up(p);
    assert_int_equal(await_control(p->link, 0.5), CONTROL_NONE);
    listen_again(p);
    answer(p, 0, NULL);
    link_close(p->link);
}

static void test_refused(void **state)
{
    struct peer *p = *state;
    double at = clock_now();

    open_link(p, 0);
    answer(p, 0, "wrong token");
    say_metric(p->link, 1);
    link_close(p->link);
    assert_true(clock_now() - at < 1.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        cmocka_unit_test(test_without_a_daemon),
        T(test_in_order),
        T(test_points_and_notes_in_order),
        T(test_broken_connections),
        T(test_overflow),
        T(test_words),
        T(test_private_daemon_gone),
        T(test_long_lived_daemon_gone),
        T(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
