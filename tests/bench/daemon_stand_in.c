/* This program as hone-worker: see daemon_rig.h.
 *
 * As a worker it is told by `--set what=...`: `flood=N` sends N metric points as fast as
 * they are acknowledged, `pulse=N` sends one every 10 ms with the time in it, `report=N`
 * reports N steps, one each millisecond, `sleep` waits until it is stopped. As `--checks`
 * it judges every job at once, but one with `--set real` as the real hone-worker does. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/str.h"
#include "hone.pb-c.h"
#include "proto/frame.h"
#include "proto/message.h"
#include "proto/transport.h"
#include "tests/bench/daemon_rig.h"
#include "wire.pb-c.h"
#include "worker.pb-c.h"
#include "worker/link/checks.h"
#include "worker/link/link.h"
#include "worker/verb/verb.h"

enum { WINDOW = 4096, PAD = 1200 };

/* Frames by hand: the link would drop points when it is faster than the daemon. */
static int flood(long n)
{
    Hone__V1__Hello h = HONE__V1__HELLO__INIT;
    struct frame_reader in;
    struct str out = {0};
    struct err e;
    char buf[65536], json[160];
    uint64_t acked = 0, sent = 0;
    const uint8_t *body;
    size_t len;
    ssize_t got;
    int fd, welcome = 0;

    if (transport_connect(getenv("HONE_UPLINK"), &fd, &e))
        return 1;
    h.magic = PROTO_MAGIC;
    h.version = PROTO_VERSION;
    h.role = HONE__V1__ROLE__WORKER;
    h.token = getenv("HONE_UPLINK_TOKEN");
    h.job = getenv("HONE_UPLINK_JOB");
    h.stage = (char *)"sft";
    h.has_attempt = h.has_rank = 1;
    h.attempt = (uint32_t)atoi(getenv("HONE_UPLINK_ATTEMPT"));
    frame_reader_init(&in, FRAME_CAP);
    message_frame(&h.base, &out, &e);
    while (acked < (uint64_t)n) {
        while (welcome && sent < (uint64_t)n && sent < acked + WINDOW &&
               out.len < sizeof buf) {
            Hone__V1__Up up = HONE__V1__UP__INIT;

            up.seq = ++sent;
            snprintf(json, sizeof json,
                     "{\"step\": %llu, \"epoch\": 0.25, \"time\": 12.345, \"split\": "
                     "\"train\", \"loss\": 0.693147181, \"lr\": 1e-05}",
                     (unsigned long long)sent);
            up.metric = json;
            message_frame(&up.base, &out, &e);
        }
        if (out.len && send(fd, out.s, out.len, MSG_NOSIGNAL) != (ssize_t)out.len)
            return 1;
        str_clear(&out);
        got = recv(fd, buf, sizeof buf, 0);
        if (got <= 0 || frame_feed(&in, buf, (size_t)got, &e))
            return 1;
        while (frame_next(&in, &body, &len, &e) > 0) {
            ProtobufCMessage *m;

            if (!welcome) {
                welcome = 1;
                continue;
            }
            if (message_unpack(&hone__v1__down__descriptor, body, len, &m, &e))
                return 1;
            acked = ((Hone__V1__Down *)m)->received;
            message_free(m);
        }
    }
    return 0;
}

static int open_link(struct link **l)
{
    struct link_hello hello = {.stage = "sft", .rank = 0, .world = 1};
    struct err e;

    return link_hello_env(&hello, &e) || link_open(l, &hello, &e);
}

static int pulse(long n)
{
    struct link *l;
    char json[PAD + 64];

    if (open_link(&l))
        return 1;
    usleep(1500000); /* until everybody watches */
    for (long i = 0; i < n; i++) {
        snprintf(json, sizeof json, "{\"at\": %.9f, \"pad\": \"%0*d\"}", clock_now(), PAD,
                 0);
        link_metric(l, json);
        usleep(10000);
    }
    link_done(l, 0, "");
    link_close(l);
    return 0;
}

static double own_cpu(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* n reports of a step, one each millisecond; the last point says what a report has taken of
 * the thread that makes it. */
static int report(long n)
{
    struct link *l;
    double cost = 0, began;
    char json[200];

    if (open_link(&l))
        return 1;
    for (long i = 1; i <= n; i++) {
        snprintf(json, sizeof json,
                 "{\"step\": %ld, \"epoch\": 0.25, \"time\": 12.345, \"split\": \"train\", "
                 "\"loss\": 0.693147181, \"lr\": 1e-05, \"tokens_per_second\": 1234.5}",
                 i);
        began = own_cpu();
        link_metric(l, json);
        if (i % 50 == 0) /* as the trainer: not more often than can be seen */
            link_progress(l, "train", i, n, "{\"loss\": 0.693147181}");
        cost += own_cpu() - began;
        usleep(1000);
    }
    snprintf(json, sizeof json, "{\"cost\": %.9f}", cost / (double)n);
    link_metric(l, json);
    link_done(l, 0, "");
    link_close(l);
    return 0;
}

static int wait_for_word(void)
{
    struct link *l;

    if (open_link(&l))
        return 1;
    for (;;) {
        if (link_control(l) == CONTROL_STOP) {
            link_close(l);
            return 3;
        }
        usleep(20000);
    }
}

static int check(int argc, char **argv)
{
    if (argc > 4 && !strcmp(argv[4], "name=real"))
        return verb_check(argc, argv);
    puts("{\"problems\": [], \"plan\": {\"name\": \"bench\", \"workers\": 1, "
         "\"threads\": 1, \"stages\": [{\"name\": \"sft\", \"needs\": []}]}}");
    return 0;
}

static int work(int argc, char **argv)
{
    for (int i = 2; i < argc; i++) {
        if (str_starts(argv[i], "flood="))
            return flood(atol(argv[i] + 6));
        if (str_starts(argv[i], "pulse="))
            return pulse(atol(argv[i] + 6));
        if (str_starts(argv[i], "report="))
            return report(atol(argv[i] + 7));
    }
    return wait_for_word();
}

int stand_in(int argc, char **argv, int *status)
{
    if (argc == 2 && !strcmp(argv[1], "--checks"))
        *status = checks_serve(check);
    else if (getenv("HONE_UPLINK"))
        *status = link_leave_status(work(argc, argv));
    else
        return 0;
    return 1;
}
