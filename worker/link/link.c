/* The uplink. One thread owns the socket; callers only touch the queue under the mutex and
 * ring an eventfd.
 *
 * The queue holds packed messages in order of their sequence numbers: first those that were
 * written but not acknowledged, then those still to be written. A new connection begins
 * with the Welcome's acknowledgement and writes the rest again, so a message is lost only
 * when the queue overflows: then the oldest metric makes room and a gap marker says how
 * many went. Progress is kept in slots, not in the queue: the newest overwrites. */
#include "worker/link/link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/frame.h"
#include "proto/message.h"
#include "proto/transport.h"
#include "wire.pb-c.h"
#include "worker.pb-c.h"

enum { QUEUE_MAX = 1024, TEXT_MAX = 60000, CHUNK = 65536 };

/* Seconds. */
static const double heartbeat_every = 1.0, answer_within = 2.0, flush_within = 2.0;
static const double retry_first = 0.05, retry_most = 1.0;

struct item {
    uint64_t seq;
    int metric;     /* may be dropped when the queue is full */
    struct str out; /* the frame */
};

/* The newest progress of one kind. */
struct slot {
    int fresh; /* not yet written */
    char *phase, *figures;
    long step, total;
};

/* Training's own, so that what comes after the last step does not hide it; all others. */
enum { SLOT_TRAIN, SLOT_OTHER, SLOTS };

struct link {
    pthread_mutex_t lock;
    pthread_t thread;
    int wake; /* eventfd */
    char *address, *token, *job, *stage;
    unsigned attempt, rank, world;
    uint64_t instance;
    int orphan_stop, orphan_said;

    struct item queue[QUEUE_MAX]; /* in order of seq */
    size_t n, n_written;
    uint64_t next_seq;
    uint64_t dropped; /* metrics since the last gap marker */

    struct slot slot[SLOTS];
    int newest; /* slot */

    atomic_int control;
    int closing, broken; /* broken: refused, or out of memory: silent from now on */

    /* The thread's own: */
    int fd;
    struct frame_reader in;
    struct str out;
    size_t out_start;
    double lost_at;
};

static void ring(struct link *l)
{
    uint64_t one = 1;
    ssize_t n = write(l->wake, &one, sizeof one);

    (void)n; /* full: it is ringing already */
}

/* ---- queue (lock held) ---- */

static void remove_item(struct link *l, size_t i)
{
    str_fini(&l->queue[i].out);
    memmove(&l->queue[i], &l->queue[i + 1], (l->n - i - 1) * sizeof *l->queue);
    l->n--;
    if (i < l->n_written)
        l->n_written--;
}

static void push(struct link *l, Hone__V1__Up *up, int metric)
{
    struct item it = {0};
    struct err e;

    up->seq = it.seq = l->next_seq;
    it.metric = metric;
    if (message_frame(&up->base, &it.out, &e)) {
        str_fini(&it.out);
        l->dropped += metric;
        return;
    }
    l->next_seq++;
    l->queue[l->n++] = it;
}

/* Say what was dropped, once there is room again. */
static void say_gap(struct link *l)
{
    Hone__V1__Up gap = HONE__V1__UP__INIT;

    if (!l->dropped || l->n >= QUEUE_MAX / 2)
        return;
    gap.has_gap = 1;
    gap.gap = l->dropped;
    l->dropped = 0;
    push(l, &gap, 0);
}

static void acknowledge(struct link *l, uint64_t seq)
{
    while (l->n && l->queue[0].seq <= seq)
        remove_item(l, 0);
    say_gap(l);
}

/* Make room for two items: what comes, and a gap marker. */
static void make_room(struct link *l)
{
    while (l->n > QUEUE_MAX - 2) {
        size_t i = 0;

        while (i < l->n - 1 && !l->queue[i].metric)
            i++;
        l->dropped += (uint64_t)l->queue[i].metric;
        remove_item(l, i);
    }
}

static void enqueue(struct link *l, Hone__V1__Up *up, int metric)
{
    pthread_mutex_lock(&l->lock);
    if (!l->broken) {
        make_room(l);
        say_gap(l);
        push(l, up, metric);
        ring(l);
    }
    pthread_mutex_unlock(&l->lock);
}

/* ---- what the trainer calls ---- */

/* A copy that the wire accepts: at most TEXT_MAX bytes, '?' for what is not UTF-8 (a file
 * name may be anything). */
static char *wire_text(const char *s)
{
    size_t n = strlen(s), i = 0;
    char *copy = mem_alloc((n < TEXT_MAX ? n : TEXT_MAX) + 1);

    if (!copy)
        return NULL;
    n = n < TEXT_MAX ? n : TEXT_MAX;
    memcpy(copy, s, n);
    while ((i += str_utf8_valid(copy + i, n - i)) < n)
        copy[i++] = '?';
    return copy;
}

void link_metric(struct link *l, const char *json)
{
    Hone__V1__Up up = HONE__V1__UP__INIT;

    if (!l)
        return;
    up.metric = wire_text(json);
    if (up.metric)
        enqueue(l, &up, 1);
    mem_free(up.metric);
}

void link_progress(struct link *l, const char *phase, long step, long total,
                   const char *json)
{
    struct slot fresh = {.fresh = 1, .step = step, .total = total}, old = fresh;

    if (!l)
        return;
    fresh.phase = wire_text(phase);
    fresh.figures = json ? wire_text(json) : NULL;
    if (!fresh.phase || (json && !fresh.figures)) {
        old = fresh;
    } else {
        pthread_mutex_lock(&l->lock);
        l->newest = strcmp(phase, "train") ? SLOT_OTHER : SLOT_TRAIN;
        old = l->slot[l->newest];
        l->slot[l->newest] = fresh;
        ring(l);
        pthread_mutex_unlock(&l->lock);
    }
    mem_free(old.phase);
    mem_free(old.figures);
}

void link_event(struct link *l, const char *level, const char *text)
{
    Hone__V1__Up up = HONE__V1__UP__INIT;
    Hone__V1__Note note = HONE__V1__NOTE__INIT;

    if (!l)
        return;
    note.level = (char *)level;
    note.text = wire_text(text);
    up.note = &note;
    if (note.text)
        enqueue(l, &up, 0);
    mem_free(note.text);
}

void link_done(struct link *l, int status, const char *message)
{
    Hone__V1__Up up = HONE__V1__UP__INIT;
    Hone__V1__Done done = HONE__V1__DONE__INIT;

    if (!l)
        return;
    done.status = (uint32_t)status;
    done.message = wire_text(message ? message : "");
    up.done = &done;
    enqueue(l, &up, 0);
    mem_free(done.message);
}

enum link_control link_control(struct link *l)
{
    return l ? (enum link_control)atomic_exchange(&l->control, CONTROL_NONE) : CONTROL_NONE;
}

/* ---- the thread ---- */

static void disconnect(struct link *l)
{
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
    frame_reader_fini(&l->in);
    str_fini(&l->out);
    l->out_start = 0;
}

static void take_word(struct link *l, int word)
{
    static const enum link_control control[] = {[HONE__V1__WORD__STOP] = CONTROL_STOP,
                                                [HONE__V1__WORD__CHECKPOINT] =
                                                    CONTROL_CHECKPOINT,
                                                [HONE__V1__WORD__ABORT] = CONTROL_ABORT};

    if (word >= HONE__V1__WORD__STOP && word <= HONE__V1__WORD__ABORT)
        atomic_store(&l->control, (int)control[word]);
}

/* One frame from the daemon. */
static int take_down(struct link *l, const uint8_t *p, size_t n, struct err *e)
{
    ProtobufCMessage *m;
    Hone__V1__Down *down;
    int rc = message_unpack(&hone__v1__down__descriptor, p, n, &m, e);

    if (rc)
        return rc;
    down = (Hone__V1__Down *)m;
    if (down->has_received) {
        pthread_mutex_lock(&l->lock);
        acknowledge(l, down->received);
        pthread_mutex_unlock(&l->lock);
    }
    if (down->has_word)
        take_word(l, (int)down->word);
    message_free(m);
    return 0;
}

/* The frames that have arrived. */
static int take_frames(struct link *l, struct err *e)
{
    const uint8_t *body;
    size_t len;
    int rc;

    while ((rc = frame_next(&l->in, &body, &len, e)) > 0)
        if ((rc = take_down(l, body, len, e)))
            break;
    return rc;
}

/* Read what is there; an error: the connection is gone. */
static int receive(struct link *l, struct err *e)
{
    char buf[4096];
    ssize_t got = recv(l->fd, buf, sizeof buf, MSG_DONTWAIT);
    int rc;

    if (got == 0)
        return err_set(e, ERR_UNREACHABLE, "the daemon closed the connection");
    if (got < 0)
        return errno == EAGAIN || errno == EINTR
                   ? 0
                   : err_errno(e, ERR_UNREACHABLE, errno, "receive");
    rc = frame_feed(&l->in, buf, (size_t)got, e);
    return rc ? rc : take_frames(l, e);
}

static int transmit(struct link *l, struct err *e)
{
    while (l->out_start < l->out.len) {
        ssize_t n = send(l->fd, l->out.s + l->out_start, l->out.len - l->out_start,
                         MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : err_errno(e, ERR_UNREACHABLE, errno, "send");
        l->out_start += (size_t)n;
    }
    str_clear(&l->out);
    l->out_start = 0;
    return 0;
}

static void write_up(struct link *l, const Hone__V1__Up *up)
{
    struct err e;

    if (message_frame(&up->base, &l->out, &e))
        log_warn("uplink: %s", e.msg);
}

static int fill_slot(struct link *l, struct slot *s)
{
    Hone__V1__Up up = HONE__V1__UP__INIT;
    Hone__V1__Progress progress = HONE__V1__PROGRESS__INIT;

    if (!s->fresh || l->out.len >= CHUNK)
        return 0;
    progress.phase = s->phase;
    progress.step = s->step;
    progress.total = s->total;
    progress.figures = s->figures;
    up.progress = &progress;
    write_up(l, &up);
    s->fresh = 0;
    return 1;
}

/* Move what waits into the output buffer (at most about CHUNK bytes of it). */
static void fill(struct link *l, int heartbeat)
{
    Hone__V1__Up up = HONE__V1__UP__INIT;
    Hone__V1__Heartbeat beat = HONE__V1__HEARTBEAT__INIT;
    const struct slot *newest;
    int told = 0;

    pthread_mutex_lock(&l->lock);
    while (l->n_written < l->n && l->out.len < CHUNK) {
        const struct str *frame = &l->queue[l->n_written++].out;

        str_add_bytes(&l->out, frame->s, frame->len);
    }
    /* The newest last. */
    told |= fill_slot(l, &l->slot[!l->newest]);
    told |= fill_slot(l, &l->slot[l->newest]);
    if (heartbeat && !told) {
        newest = &l->slot[l->newest];
        beat.phase = newest->phase;
        beat.has_step = 1;
        beat.step = newest->step;
        up.heartbeat = &beat;
        write_up(l, &up);
    }
    pthread_mutex_unlock(&l->lock);
}

static int send_hello(struct link *l, struct err *e)
{
    Hone__V1__Hello h = HONE__V1__HELLO__INIT;
    char host[256] = "";
    int rc;

    h.magic = PROTO_MAGIC;
    h.version = PROTO_VERSION;
    h.role = HONE__V1__ROLE__WORKER;
    h.program = (char *)"hone-worker " HONE_VERSION;
    h.token = l->token;
    h.job = l->job;
    h.stage = l->stage;
    if (!gethostname(host, sizeof host - 1))
        h.host = host;
    h.has_attempt = h.has_rank = h.has_world = h.has_pid = h.has_instance = 1;
    h.pid = (uint32_t)getpid();
    h.instance = l->instance;
    h.attempt = l->attempt;
    h.rank = l->rank;
    h.world = l->world;
    rc = message_frame(&h.base, &l->out, e);
    return rc ? rc : transmit(l, e);
}

/* Wait for the Welcome. ERR_DENIED: refused, do not come back. */
static int take_welcome(struct link *l, struct err *e)
{
    double until = clock_now() + answer_within;
    const uint8_t *body;
    ProtobufCMessage *m;
    Hone__V1__Welcome *w;
    size_t len;
    int rc;

    while (!(rc = frame_next(&l->in, &body, &len, e))) {
        struct pollfd p = {l->fd, POLLIN, 0};
        double left = until - clock_now();
        char buf[1024];
        ssize_t got;

        if (left <= 0)
            return err_set(e, ERR_UNREACHABLE, "the daemon does not answer");
        poll(&p, 1, (int)(left * 1000) + 1);
        got = recv(l->fd, buf, sizeof buf, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            return err_set(e, ERR_UNREACHABLE, "the daemon closed the connection");
        if (got > 0 && (rc = frame_feed(&l->in, buf, (size_t)got, e)))
            return rc;
    }
    if (rc < 0)
        return rc;
    rc = message_unpack(&hone__v1__welcome__descriptor, body, len, &m, e);
    if (rc)
        return rc;
    w = (Hone__V1__Welcome *)m;
    if (w->refused) {
        rc = err_set(e, ERR_DENIED, "the daemon refused: %s", w->refused->message);
    } else {
        pthread_mutex_lock(&l->lock);
        acknowledge(l, w->received);
        l->n_written = 0;
        pthread_mutex_unlock(&l->lock);
    }
    message_free(m);
    return rc;
}

static int dial(struct link *l, struct err *e)
{
    int rc = transport_connect(l->address, &l->fd, e);

    frame_reader_init(&l->in, FRAME_CAP);
    if (!rc)
        rc = send_hello(l, e);
    if (!rc)
        rc = take_welcome(l, e);
    return rc;
}

/* The daemon is away: should the work stop? Nobody listening at a private address is final;
 * silence is given 2 s. */
static void judge_absence(struct link *l, const struct err *e)
{
    struct err again;
    int fd, gone;

    if (!l->orphan_stop || l->orphan_said)
        return;
    gone = transport_connect(l->address, &fd, &again) == ERR_UNREACHABLE;
    if (!gone && fd >= 0)
        close(fd);
    if (!gone && clock_now() - l->lost_at < answer_within)
        return;
    log_warn("uplink: %s: nobody to work for, stopping", e->msg);
    atomic_store(&l->control, CONTROL_STOP);
    l->orphan_said = 1;
}

static void wait_bell(struct link *l, double seconds)
{
    struct pollfd p = {l->wake, POLLIN, 0};
    uint64_t count;

    if (poll(&p, 1, (int)(seconds * 1000)) > 0 && read(l->wake, &count, sizeof count) < 0)
        return;
}

/* 1: connected; 0: not yet; -1: give up. */
static int reconnect(struct link *l, double *pause)
{
    struct err e;
    int rc = dial(l, &e);

    if (!rc) {
        *pause = retry_first;
        return 1;
    }
    disconnect(l);
    if (rc == ERR_DENIED) {
        log_warn("uplink: %s", e.msg);
        return -1;
    }
    judge_absence(l, &e);
    pthread_mutex_lock(&l->lock);
    rc = l->closing;
    pthread_mutex_unlock(&l->lock);
    if (rc && (l->orphan_stop || clock_now() - l->lost_at > flush_within))
        return -1;
    wait_bell(l, *pause);
    *pause = *pause * 2 < retry_most ? *pause * 2 : retry_most;
    return 0;
}

/* Speak and listen until the connection is lost. 1: all was said and link_close() waits. */
static int converse(struct link *l, struct err *e)
{
    double beat = clock_now() + heartbeat_every;

    if (take_frames(l, e)) /* what came together with the Welcome */
        return 0;
    for (;;) {
        struct pollfd p[2] = {{l->fd, POLLIN, 0}, {l->wake, POLLIN, 0}};
        double left = beat - clock_now();
        uint64_t count;
        int finished;

        fill(l, left <= 0);
        if (left <= 0)
            beat = clock_now() + heartbeat_every;
        if (transmit(l, e))
            return 0;
        pthread_mutex_lock(&l->lock);
        finished = l->closing && l->n == 0 && !l->slot[SLOT_TRAIN].fresh &&
                   !l->slot[SLOT_OTHER].fresh;
        pthread_mutex_unlock(&l->lock);
        if (finished && l->out_start == l->out.len)
            return 1;
        if (l->out_start < l->out.len)
            p[0].events |= POLLOUT;
        left = beat - clock_now();
        poll(p, 2, left > 0 ? (int)(left * 1000) + 1 : 0);
        if (p[1].revents & POLLIN && read(l->wake, &count, sizeof count) < 0)
            count = 0;
        if (p[0].revents & (POLLIN | POLLHUP | POLLERR) && receive(l, e))
            return 0;
    }
}

static void *run(void *arg)
{
    struct link *l = arg;
    double pause = retry_first;
    struct err e;
    int rc;

    l->lost_at = clock_now();
    while ((rc = reconnect(l, &pause)) >= 0) {
        if (rc == 0)
            continue;
        rc = converse(l, &e);
        disconnect(l);
        l->lost_at = clock_now();
        if (rc)
            break;
        judge_absence(l, &e);
    }
    pthread_mutex_lock(&l->lock);
    l->broken = 1;
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- open and close ---- */

int link_hello_env(struct link_hello *h, struct err *e)
{
    const char *attempt = getenv("HONE_UPLINK_ATTEMPT");
    const char *orphan = getenv("HONE_UPLINK_ORPHAN");
    long n = 1;

    h->address = getenv("HONE_UPLINK");
    h->token = getenv("HONE_UPLINK_TOKEN");
    h->job = getenv("HONE_UPLINK_JOB");
    if (h->address && !*h->address)
        h->address = NULL;
    if (attempt && (str_to_long(attempt, &n) || n < 0 || n > 1000000))
        return err_set(e, ERR_USAGE, "HONE_UPLINK_ATTEMPT: \"%s\" is no number of attempts",
                       attempt);
    h->attempt = (int)n;
    h->orphan_stop = orphan && !strcmp(orphan, "stop");
    return 0;
}

int link_leave_status(int status)
{
    const char *path = getenv("HONE_UPLINK_STATUS");
    char text[16];
    struct err e;

    if (path && *path) {
        snprintf(text, sizeof text, "%d\n", status);
        if (file_write_atomic(path, text, strlen(text), &e))
            log_warn("uplink: %s", e.msg);
    }
    return status;
}

static int copy(char **out, const char *s)
{
    *out = s ? mem_strdup(s) : NULL;
    return s && !*out;
}

static void release(struct link *l)
{
    while (l->n)
        remove_item(l, l->n - 1);
    if (l->wake >= 0)
        close(l->wake);
    mem_free(l->address);
    mem_free(l->token);
    mem_free(l->job);
    mem_free(l->stage);
    for (int i = 0; i < SLOTS; i++) {
        mem_free(l->slot[i].phase);
        mem_free(l->slot[i].figures);
    }
    mem_free(l);
}

int link_open(struct link **out, const struct link_hello *h, struct err *e)
{
    struct link *l;
    sigset_t all, old;
    int rc;

    *out = NULL;
    if (!h->address)
        return 0;
    l = mem_alloc(sizeof *l);
    if (!l)
        return err_set(e, ERR_NOMEM, "open the uplink: out of memory");
    l->fd = -1;
    l->next_seq = 1;
    if (getrandom(&l->instance, sizeof l->instance, 0) != sizeof l->instance)
        l->instance = (uint64_t)getpid() << 32 | (uint64_t)time(NULL);
    l->attempt = (unsigned)h->attempt;
    l->rank = (unsigned)h->rank;
    l->world = (unsigned)h->world;
    l->orphan_stop = h->orphan_stop;
    l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->wake < 0) {
        rc = err_errno(e, ERR_IO, errno, "open the uplink");
        goto fail;
    }
    if (copy(&l->address, h->address) || copy(&l->token, h->token) ||
        copy(&l->job, h->job) || copy(&l->stage, h->stage)) {
        rc = err_set(e, ERR_NOMEM, "open the uplink: out of memory");
        goto fail;
    }
    pthread_mutex_init(&l->lock, NULL);
    /* Signals are for the trainer's thread. */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    rc = pthread_create(&l->thread, NULL, run, l);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc) {
        rc = err_errno(e, ERR_IO, rc, "start the uplink's thread");
        goto fail;
    }
    *out = l;
    return 0;
fail:
    release(l);
    return rc;
}

void link_close(struct link *l)
{
    struct timespec until;

    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->closing = 1;
    pthread_mutex_unlock(&l->lock);
    ring(l);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)flush_within;
    if (pthread_timedjoin_np(l->thread, NULL, &until))
        return; /* stuck in a call of the system: the process is about to end anyway */
    pthread_mutex_destroy(&l->lock);
    release(l);
}
