/* The uplink. One thread owns the connection (proto/channel.h); callers only touch the
 * outbox and the slots under the mutex and ring an eventfd.
 *
 * A new connection begins with the Welcome's acknowledgement and writes the rest of the
 * outbox again, so that a message is lost only where the outbox says so. Progress is kept
 * in slots, not in the outbox: the newest overwrites. A run that no daemon started attaches
 * itself first (report.h), and again where its daemon does not know it any more.
 *
 * What is said within batch_every of the last writing waits for the end of that time and
 * goes out together: steps that take less than a millisecond would otherwise wake two
 * threads and a daemon each. */
#include "worker/link/link.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "proto/channel.h"
#include "proto/message.h"
#include "proto/transport.h"
#include "wire.pb-c.h"
#include "worker.pb-c.h"
#include "worker/link/outbox.h"
#include "worker/link/report.h"

enum { TEXT_MAX = 60000, CHUNK = 65536, SILENCE_MS = 5000 };
enum { BATCH_MAX = 256, BATCH_BYTES = 1 << 18 };

/* Seconds. */
static const double batch_every = 0.05, heartbeat_every = 1.0, answer_within = 2.0,
                    far_within = 5.0;
static const double flush_within = 2.0, far_flush_within = 10.0;
static const double retry_first = 0.05, retry_most = 1.0, far_retry_most = 5.0;
static const double refused_wait = 60.0; /* a certificate or a token may be mended */

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
    char *address, *far, *authority, *certificate, *key, *credential;
    char *token, *job, *stage; /* the first two by report_attach() where `run` is set */
    const struct report *run;
    unsigned attempt, rank, world;
    int orphan_stop, orphan_said;
    int patient; /* it is not a daemon beside us: it may be away for long */

    struct outbox box;
    struct str points; /* metrics on their way into it, each with its NUL */
    size_t n_points;
    struct slot slot[SLOTS];
    int newest;              /* slot */
    int fresh_words, urgent; /* the thread knows that there is something; that it is much */

    atomic_int control, finish; /* finish: for good */
    int closing, broken;        /* broken: refused, or out of memory: silent from now on */
    int lingers;                /* link_close() has been, links_end() is to come */
    double close_by;
    struct link *next; /* of those that linger */

    /* The thread's own: */
    struct channel c;
    struct str fresh; /* frames for the channel */
    double lost_at;
    int is_lost; /* said so */
    char complaint[ERR_MSG_MAX];
};

/* Links of stages that are over, whose daemon has not heard everything. One thread, the
 * trainer's, closes links. */
static struct link *lingering;

static void ring(struct link *l)
{
    uint64_t one = 1;
    ssize_t n = write(l->wake, &one, sizeof one);

    (void)n; /* full: it is ringing already */
}

/* Under the lock: something new is to be said. Only the first since the last writing wakes
 * the thread, and the one that makes a batch. */
static void touch(struct link *l)
{
    int much = l->n_points + l->box.n - l->box.n_written >= BATCH_MAX;

    if (l->fresh_words && (l->urgent || !much))
        return;
    l->fresh_words = 1;
    l->urgent |= much;
    ring(l);
}

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

/* Under the lock. */
static void add(struct link *l, Hone__V1__Up *up, int metric)
{
    up->has_attempt = l->run != NULL;
    up->attempt = l->attempt;
    outbox_add(&l->box, up, metric);
}

static void add_point(struct link *l, const char *json)
{
    Hone__V1__Up up = HONE__V1__UP__INIT;

    up.metric = wire_text(json);
    if (up.metric)
        add(l, &up, 1);
    mem_free(up.metric);
}

/* Under the lock: points become messages. */
static void settle_points(struct link *l)
{
    const char *p = str_get(&l->points);

    for (; l->n_points; l->n_points--, p += strlen(p) + 1)
        add_point(l, p);
    str_clear(&l->points);
}

static void enqueue(struct link *l, Hone__V1__Up *up)
{
    pthread_mutex_lock(&l->lock);
    if (!l->broken || l->box.fd >= 0) { /* the next start of the run sends it */
        settle_points(l);
        add(l, up, 0);
        touch(l);
    }
    pthread_mutex_unlock(&l->lock);
}

/* ---- what the trainer calls ---- */

/* With a journal it is in there when this returns; else copied, and the thread does the
 * rest: the file has it as well. */
void link_metric(struct link *l, const char *json)
{
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    if (l->box.fd >= 0) {
        add_point(l, json);
        touch(l);
    } else if (!l->broken) {
        str_add_bytes(&l->points, json, strlen(json) + 1);
        l->n_points += !str_failed(&l->points);
        if (l->points.len > BATCH_BYTES)
            settle_points(l);
        touch(l);
    }
    pthread_mutex_unlock(&l->lock);
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
        touch(l);
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
        enqueue(l, &up);
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
    enqueue(l, &up);
    mem_free(done.message);
}

enum link_control link_control(struct link *l)
{
    return l ? (enum link_control)atomic_exchange(&l->control, CONTROL_NONE) : CONTROL_NONE;
}

int link_finish(struct link *l)
{
    return l && atomic_load(&l->finish);
}

/* ---- the thread ---- */

static void take_word(struct link *l, int word)
{
    static const enum link_control control[] = {[HONE__V1__WORD__STOP] = CONTROL_STOP,
                                                [HONE__V1__WORD__CHECKPOINT] =
                                                    CONTROL_CHECKPOINT,
                                                [HONE__V1__WORD__ABORT] = CONTROL_ABORT};

    if (word == HONE__V1__WORD__FINISH)
        atomic_store(&l->finish, 1);
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
        outbox_acknowledge(&l->box, down->received);
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

    while ((rc = frame_next(&l->c.in, &body, &len, e)) > 0)
        if ((rc = take_down(l, body, len, e)))
            break;
    return rc;
}

static void write_up(struct link *l, const Hone__V1__Up *up)
{
    struct err e;

    if (message_frame(&up->base, &l->fresh, &e))
        log_warn("uplink: %s", e.msg);
}

static int fill_slot(struct link *l, struct slot *s)
{
    Hone__V1__Up up = HONE__V1__UP__INIT;
    Hone__V1__Progress progress = HONE__V1__PROGRESS__INIT;

    if (!s->fresh)
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

/* Give the channel what waits, unless it has enough to do. */
static int fill(struct link *l, int heartbeat, struct err *e)
{
    Hone__V1__Up up = HONE__V1__UP__INIT;
    Hone__V1__Heartbeat beat = HONE__V1__HEARTBEAT__INIT;
    const struct slot *newest;
    int told = 0, rc = 1;

    if (channel_unsent(&l->c) >= CHUNK)
        return 0;
    str_clear(&l->fresh);
    pthread_mutex_lock(&l->lock);
    settle_points(l);
    while (rc > 0 && l->fresh.len < CHUNK)
        rc = outbox_next(&l->box, &l->fresh, e);
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
    l->fresh_words = l->urgent = l->box.n_written < l->box.n;
    pthread_mutex_unlock(&l->lock);
    if (rc < 0 || !l->fresh.len)
        return rc < 0 ? rc : 0;
    return channel_put(&l->c, l->fresh.s, l->fresh.len, e);
}

static int send_hello(struct link *l, struct err *e)
{
    Hone__V1__Hello h = HONE__V1__HELLO__INIT;
    char host[256] = "";

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
    h.instance = l->box.instance;
    h.attempt = l->attempt;
    h.rank = l->rank;
    h.world = l->world;
    return channel_put_message(&l->c, &h.base, e);
}

/* Wait for the Welcome. ERR_DENIED: refused. */
static int take_welcome(struct link *l, struct err *e)
{
    const uint8_t *body;
    ProtobufCMessage *m;
    Hone__V1__Welcome *w;
    size_t len;
    int rc = channel_await(&l->c, l->patient ? far_within : answer_within, &body, &len, e);

    if (!rc)
        rc = message_unpack(&hone__v1__welcome__descriptor, body, len, &m, e);
    if (rc)
        return rc;
    w = (Hone__V1__Welcome *)m;
    if (w->refused) {
        rc = err_set(e, ERR_DENIED, "the daemon refused: %s", w->refused->message);
    } else {
        pthread_mutex_lock(&l->lock);
        outbox_acknowledge(&l->box, w->received);
        outbox_rewind(&l->box);
        pthread_mutex_unlock(&l->lock);
    }
    message_free(m);
    return rc;
}

/* The socket beside us; where this is another host than the daemon's, its address. */
static int open_channel(struct link *l, struct err *e)
{
    struct channel_target to = {l->address, l->authority, l->certificate, l->key};
    int rc = channel_open(&l->c, &to, far_within, e);

    if (rc && l->far) {
        to.address = l->far;
        rc = channel_open(&l->c, &to, far_within, e);
    }
    if (!rc)
        channel_limit_silence(&l->c, SILENCE_MS);
    return rc;
}

/* Ask for our place in the daemon, over a connection of its own. */
static int attach(struct link *l, struct err *e)
{
    struct report_place place;
    int rc = open_channel(l, e);

    if (!rc)
        rc = report_attach(&l->c, l->run, l->credential, l->stage, far_within, &place, e);
    channel_close(&l->c);
    if (rc)
        return rc;
    l->job = mem_strdup(place.job);
    l->token = mem_strdup(place.token);
    if (!l->job || !l->token)
        return err_set(e, ERR_NOMEM, "uplink: out of memory");
    return 0;
}

static void forget_place(struct link *l)
{
    mem_free(l->job);
    mem_free(l->token);
    l->job = l->token = NULL;
}

static int dial(struct link *l, struct err *e)
{
    int rc = l->run && !l->job ? attach(l, e) : 0;

    if (!rc)
        rc = open_channel(l, e);
    if (!rc)
        rc = send_hello(l, e);
    if (!rc)
        rc = take_welcome(l, e);
    if (rc == ERR_DENIED && l->run)
        forget_place(l);
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

/* Wait, but not when link_close() does. */
static void pause_for(struct link *l, double seconds)
{
    double until = clock_now() + seconds, left;

    while ((left = until - clock_now()) > 0) {
        struct pollfd p = {l->wake, POLLIN, 0};
        uint64_t count;
        int closing;

        pthread_mutex_lock(&l->lock);
        closing = l->closing && !l->lingers;
        pthread_mutex_unlock(&l->lock);
        if (closing && left > retry_most)
            return;
        if (poll(&p, 1, (int)(left * 1000) + 1) > 0 &&
            read(l->wake, &count, sizeof count) < 0)
            return;
    }
}

/* Say each trouble with a daemon elsewhere once. */
static void complain(struct link *l, const struct err *e, int refused)
{
    if (!l->patient || !strcmp(l->complaint, e->msg))
        return;
    snprintf(l->complaint, sizeof l->complaint, "%s", e->msg);
    if (refused)
        log_warn("uplink: %s; training goes on, unreported%s%s", e->msg,
                 e->mend[0] ? "; try: " : "", e->mend);
    else if (!l->is_lost)
        log_warn("uplink: %s; training goes on, and is reported when the daemon is there",
                 e->msg);
    l->is_lost = 1;
}

/* 1: connected; 0: not yet; -1: give up. */
static int reconnect(struct link *l, double *pause)
{
    double most = l->patient ? far_retry_most : retry_most;
    struct err e;
    int rc = dial(l, &e), refused = rc != ERR_UNREACHABLE && rc != ERR_NOMEM, closing;

    if (!rc) {
        if (l->is_lost)
            log_info("uplink: reporting to %s", l->far ? l->far : l->address);
        *pause = retry_first;
        l->is_lost = 0;
        l->complaint[0] = '\0';
        return 1;
    }
    channel_close(&l->c);
    if (rc == ERR_DENIED && !l->patient) {
        log_warn("uplink: %s", e.msg);
        return -1;
    }
    complain(l, &e, refused);
    judge_absence(l, &e);
    pthread_mutex_lock(&l->lock);
    closing = l->closing && !l->lingers; /* else links_end() will say how long to try */
    pthread_mutex_unlock(&l->lock);
    if (closing && (l->orphan_stop || refused ||
                    clock_now() > (l->patient ? l->close_by : l->lost_at + flush_within)))
        return -1;
    /* The first refusals may be of a daemon that has just lost its memory of us. */
    pause_for(l, refused && *pause >= 1 ? refused_wait : *pause);
    *pause = *pause * 2 < most ? *pause * 2 : most;
    return 0;
}
/* Has link_close() been called, and everything said? */
static int is_finished(struct link *l)
{
    int finished;

    pthread_mutex_lock(&l->lock);
    finished = l->closing && l->box.n == 0 && !l->n_points && !l->slot[SLOT_TRAIN].fresh &&
               !l->slot[SLOT_OTHER].fresh;
    pthread_mutex_unlock(&l->lock);
    return finished && !channel_unsent(&l->c);
}

/* When to write: at once (0), or where there is nothing at the next heartbeat. */
static double write_at(struct link *l, double written, double beat)
{
    double at;

    pthread_mutex_lock(&l->lock);
    at = l->urgent || l->closing ? 0 : l->fresh_words ? written + batch_every : beat;
    pthread_mutex_unlock(&l->lock);
    return at < beat ? at : beat;
}

/* Speak and listen until the connection is lost. 1: all was said and link_close() waits. */
static int converse(struct link *l, struct err *e)
{
    double beat = clock_now() + heartbeat_every, written = 0, at = 0;

    if (take_frames(l, e)) /* what came together with the Welcome */
        return 0;
    for (;;) {
        struct pollfd p[2] = {{l->c.fd, POLLIN, 0}, {l->wake, POLLIN, 0}};
        double now = clock_now();
        uint64_t count;

        if ((now >= at && fill(l, now >= beat, e)) || channel_transmit(&l->c, e))
            return 0;
        written = now >= at ? now : written;
        if (now >= beat)
            beat = now + heartbeat_every;
        if (is_finished(l))
            return 1;
        at = write_at(l, written, beat);
        if (channel_unsent(&l->c) >= CHUNK) /* it takes no more as yet */
            at = beat;
        if (channel_unsent(&l->c))
            p[0].events |= POLLOUT;
        poll(p, 2, at > now ? (int)((at - now) * 1000) + 1 : 0);
        if (p[1].revents & POLLIN && read(l->wake, &count, sizeof count) < 0)
            count = 0;
        if (p[0].revents & (POLLIN | POLLHUP | POLLERR) &&
            (channel_receive(&l->c, e) || take_frames(l, e)))
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
        channel_close(&l->c);
        l->lost_at = clock_now();
        if (rc)
            break;
        complain(l, &e, 0);
        judge_absence(l, &e);
    }
    pthread_mutex_lock(&l->lock);
    if (l->run && l->box.n)
        log_warn("uplink: stage %s: %zu messages could not be told; the next start of the "
                 "run tells them",
                 l->stage, l->box.n);
    l->broken = 1;
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- open and close ---- */

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
    channel_close(&l->c);
    outbox_close(&l->box);
    str_fini(&l->fresh);
    str_fini(&l->points);
    if (l->wake >= 0)
        close(l->wake);
    mem_free(l->address);
    mem_free(l->far);
    mem_free(l->authority);
    mem_free(l->certificate);
    mem_free(l->key);
    mem_free(l->credential);
    mem_free(l->token);
    mem_free(l->job);
    mem_free(l->stage);
    for (int i = 0; i < SLOTS; i++) {
        mem_free(l->slot[i].phase);
        mem_free(l->slot[i].figures);
    }
    mem_free(l);
}

static int fill_in(struct link *l, const struct link_hello *h, struct err *e)
{
    l->c.fd = l->box.fd = -1;
    l->attempt = (unsigned)h->attempt;
    l->rank = (unsigned)h->rank;
    l->world = (unsigned)h->world;
    l->orphan_stop = h->orphan_stop;
    l->run = h->run;
    l->patient = h->run || h->far || !str_starts(h->address, "unix:");
    l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->wake < 0)
        return err_errno(e, ERR_IO, errno, "open the uplink");
    if (copy(&l->address, h->address) || copy(&l->far, h->far) ||
        copy(&l->authority, h->authority) || copy(&l->certificate, h->certificate) ||
        copy(&l->key, h->key) || copy(&l->credential, h->credential) ||
        copy(&l->stage, h->stage) || (!h->run && copy(&l->token, h->token)) ||
        (!h->run && copy(&l->job, h->job)))
        return err_set(e, ERR_NOMEM, "open the uplink: out of memory");
    return outbox_open(&l->box, h->journal, e);
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
    rc = fill_in(l, h, e);
    if (rc)
        goto fail;
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
    pthread_setname_np(l->thread, "hone-uplink"); /* for top(1) */
    *out = l;
    return 0;
fail:
    release(l);
    return rc;
}

/* Wait for the thread, and at last leave it alone. */
static void end(struct link *l, double flush)
{
    struct timespec until;

    pthread_mutex_lock(&l->lock);
    l->closing = 1;
    l->lingers = 0;
    l->close_by = clock_now() + flush;
    pthread_mutex_unlock(&l->lock);
    ring(l);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)flush + l->patient;
    if (pthread_timedjoin_np(l->thread, NULL, &until))
        return; /* stuck in a call of the system: the process is about to end anyway */
    pthread_mutex_destroy(&l->lock);
    release(l);
}

void link_close(struct link *l)
{
    if (!l)
        return;
    if (!l->run) {
        end(l, l->patient ? far_flush_within : flush_within);
        return;
    }
    pthread_mutex_lock(&l->lock);
    l->closing = l->lingers = 1;
    pthread_mutex_unlock(&l->lock);
    ring(l);
    l->next = lingering;
    lingering = l;
}

void links_end(void)
{
    double until = clock_now() + far_flush_within;

    while (lingering) {
        struct link *l = lingering;
        double left = until - clock_now();

        lingering = l->next;
        end(l, left > 0 ? left : 0);
    }
}
