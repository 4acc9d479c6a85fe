/* hone watch: a job's events until it ends; the exit status is the job's.
 *
 * Events have numbers: after a lost connection (a daemon that is started again) the stream
 * goes on behind the last one seen, so nothing is missed and nothing comes twice. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "launcher/events.h"
#include "launcher/jobs.h"
#include "launcher/progress.h"
#include "launcher/remote.h"
#include "launcher/screen.h"
#include "launcher/stream.h"
#include "launcher/verb.h"
#include "proto/message.h"

struct options {
    struct arg_list job;
    const char *to, *after;
    int json;
};

struct watch {
    const struct options *o;
    uint64_t job, seen;
    int has_seen; /* else: from now on */
    struct progress *progress;
    int status; /* the job's */
    char message[512], mend[512];
};

static int ask(void *ctx, struct client *c, uint32_t *id, struct err *e)
{
    Hone__V1__WatchRequest m = HONE__V1__WATCH_REQUEST__INIT;
    struct watch *w = ctx;

    m.id = w->job;
    m.has_after = w->has_seen;
    m.after = w->seen;
    return client_send(c, "Watch", &m.base, id, e);
}

static void keep_end(struct watch *w, const Hone__V1__Job *j)
{
    w->status = (int)j->exit_status;
    remote_clean(w->message, sizeof w->message, j->message);
    remote_clean(w->mend, sizeof w->mend, j->mend);
}

static int take(void *ctx, const Hone__V1__Reply *reply, int *over, struct err *e)
{
    struct watch *w = ctx;
    ProtobufCMessage *m;
    const Hone__V1__Event *ev;
    int rc = client_body(reply, &hone__v1__event__descriptor, &m, e);

    if (rc)
        return rc;
    ev = (Hone__V1__Event *)m;
    if (ev->has_seq) {
        w->seen = ev->seq;
        w->has_seen = 1;
    } else if (ev->job_state && ev->job_state->has_last_seq && !w->has_seen) {
        w->seen = ev->job_state->last_seq;
        w->has_seen = 1;
    }
    if (w->o->json)
        events_print(ev);
    else
        progress_event(w->progress, ev);
    *over = !(reply->has_more && reply->more);
    if (*over && ev->job_state && ev->job_state->has_exit_status)
        keep_end(w, ev->job_state);
    message_free(m);
    return 0;
}

static int idle(void *ctx)
{
    struct watch *w = ctx;

    return w->o->json ? -1 : progress_draw(w->progress);
}

static void lost(void *ctx, const char *why)
{
    struct watch *w = ctx;
    char line[600];

    snprintf(line, sizeof line, "%.500s; trying again", why);
    if (!w->o->json)
        progress_say(w->progress, line);
}

static int watch(const struct options *o, int *status, struct err *e)
{
    struct watch w = {.o = o};
    struct stream s = {o->to, &w, ask, take, idle, lost};
    long after = -1;
    int rc = remote_job(o->job.item[0], &w.job, e);

    if (!rc)
        rc = args_long("--after", o->after, 0, 1L << 62, &after, e);
    if (rc)
        return rc;
    /* On a terminal the past as well: its curves. */
    if (after < 0 && !o->json && screen_is_live(STDERR_FILENO))
        after = 0;
    w.has_seen = after >= 0;
    w.seen = after >= 0 ? (uint64_t)after : 0;
    w.progress = progress_new();
    rc = stream_run(&s, e);
    progress_end(w.progress);
    progress_free(w.progress);
    *status = w.status;
    if (!rc && w.status && !o->json) {
        err_set(e, ERR_FAILED, "%s",
                *w.message      ? w.message
                : w.status == 3 ? "stopped on request"
                                : "the job failed");
        if (*w.mend)
            err_mend(e, "%s", w.mend);
        err_print(e, "hone");
    }
    return rc;
}

static int run(int argc, char **argv)
{
    static const struct arg_flag flags[] = {
        ARG_VALUE("--after", "N", "events after number N, 0: all from the beginning",
                  struct options, after),
        REMOTE_FLAGS(struct options), ARG_END};
    static const struct arg_spec spec = {
        "hone watch",
        "JOB [--after N] [--to DAEMON] [--json]",
        "Follows a job until it ends, also over a restart of the daemon; ctrl-C ends the\n"
        "watching alone. The exit status is the job's. --json: one event a line.",
        flags,
        1,
        1,
        offsetof(struct options, job)};
    struct options o = {0};
    struct err e;
    int status = 0, rc = args_parse(&spec, argc, argv, &o, &e);

    if (rc == ARGS_HELP)
        return 0;
    if (!rc)
        rc = watch(&o, &status, &e);
    if (rc)
        err_print(&e, "hone");
    return rc ? err_exit_status(rc) : status;
}

const struct verb verb_watch = {"watch", "follow a job until it ends", run};
