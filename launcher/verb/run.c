/* hone run: a job here, to its end.
 *
 *     private honed -> Submit -> Watch -> report
 *
 * One loop over two descriptors: the connection to honed and a signalfd. The first SIGINT,
 * SIGTERM or SIGHUP asks the workers to save and stop, the second ends them at once. The
 * exit status is the job's. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/args.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "launcher/events.h"
#include "launcher/progress.h"
#include "launcher/report.h"
#include "launcher/request.h"
#include "launcher/session.h"
#include "launcher/verb.h"
#include "proto/message.h"

enum { CHECKING_MS = 1000 };

struct options {
    struct arg_list job, set;
    const char *out, *stages;
    int resume, json;
};

struct run {
    struct options o;
    struct request request;
    int signals; /* signalfd */
    int stops;   /* how often we were asked to stop */
    int said_checking;
    struct session session;
    struct progress *progress;
    uint32_t submit_id, watch_id, cancel_id;
    uint64_t job; /* 0: not yet accepted */
    char folder[FILE_PATH_MAX];
    int status; /* exit status; valid once ended */
    int ended;
};

static const struct arg_flag flags[] = {
    ARG_LIST("--set", "KEY=VALUE", "override a key of the job file", struct options, set),
    ARG_VALUE("--out", "DIR", "run folder (default: runs/NAME-N/ beside the job file)",
              struct options, out),
    ARG_VALUE("--stages", "A,B", "only these stages", struct options, stages),
    ARG_SWITCH("--resume", "go on from the newest good checkpoint", struct options, resume),
    ARG_SWITCH("--json", "events on standard output, one JSON object a line",
               struct options, json),
    ARG_END};

static const struct arg_spec spec = {
    "hone run",
    "JOB.yaml [--set KEY=VALUE]... [--out DIR] [--stages A,B] [--resume] [--json]",
    "Runs the job here to its end. ctrl-C saves and stops (exit 3), a second one stops at\n"
    "once; --resume goes on. Progress goes to standard error, results to standard output.",
    flags,
    1,
    1,
    offsetof(struct options, job)};

/* ---- command line ---- */

static int open_signals(struct run *r, struct err *e)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    signal(SIGPIPE, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &set, NULL) ||
        (r->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)) < 0)
        return err_errno(e, ERR_FAILED, errno, "signals");
    return 0;
}

/* ---- talking to honed ---- */

static int submit(struct run *r, struct err *e)
{
    Hone__V1__SubmitRequest m = HONE__V1__SUBMIT_REQUEST__INIT;

    request_message(&r->request, &m);
    return client_send(r->session.client, "Submit", &m.base, &r->submit_id, e);
}

static int cancel(struct run *r, int now, struct err *e)
{
    Hone__V1__CancelRequest m = HONE__V1__CANCEL_REQUEST__INIT;

    m.id = r->job;
    m.has_now = 1;
    m.now = now;
    return client_send(r->session.client, "Cancel", &m.base, &r->cancel_id, e);
}

static int take_submit(struct run *r, const Hone__V1__SubmitReply *m, struct err *e)
{
    Hone__V1__WatchRequest watch = HONE__V1__WATCH_REQUEST__INIT;
    char line[FILE_PATH_MAX + 32];

    for (size_t i = 0; i < m->n_problems; i++)
        request_print_problem(m->problems[i]);
    if (!m->job) {
        r->ended = 1;
        r->status = err_exit_status(ERR_CONFIG);
        return 0;
    }
    r->job = m->job->id;
    snprintf(r->folder, sizeof r->folder, "%s", m->job->run ? m->job->run : "");
    if (r->o.json)
        events_start(m->job);
    snprintf(line, sizeof line, "%s -> %s", m->job->name ? m->job->name : "job", r->folder);
    progress_say(r->progress, line);
    progress_job(r->progress, m->job);
    watch.id = r->job;
    return client_send(r->session.client, "Watch", &watch.base, &r->watch_id, e);
}

static void finish(struct run *r, const Hone__V1__Job *job)
{
    struct err e;
    int stopped = job->exit_status == 3;

    r->ended = 1;
    r->status = (int)job->exit_status;
    progress_end(r->progress);
    if (r->status == 0)
        return;
    err_set(&e, ERR_FAILED, "%s",
            job->message ? job->message
            : stopped    ? "stopped on request"
                         : "the job failed");
    if (job->mend)
        err_mend(&e, "%s", job->mend);
    else if (stopped)
        err_mend(&e, "hone run %s --out %s --resume goes on", r->o.job.item[0], r->folder);
    err_print(&e, "hone");
}

static int take_event(struct run *r, const Hone__V1__Event *ev)
{
    if (r->o.json)
        events_print(ev);
    progress_event(r->progress, ev);
    if (ev->job_state && ev->job_state->has_exit_status)
        finish(r, ev->job_state);
    return 0;
}

static int take_reply(struct run *r, const Hone__V1__Reply *reply, struct err *e)
{
    ProtobufCMessage *m;
    int rc;

    if (reply->id == r->submit_id) {
        rc = client_body(reply, &hone__v1__submit_reply__descriptor, &m, e);
        if (!rc)
            rc = take_submit(r, (Hone__V1__SubmitReply *)m, e);
    } else if (reply->id == r->watch_id) {
        rc = client_body(reply, &hone__v1__event__descriptor, &m, e);
        if (!rc)
            rc = take_event(r, (Hone__V1__Event *)m);
    } else {
        return 0; /* of a Cancel: the events tell */
    }
    message_free(m);
    return rc;
}

static int take_replies(struct run *r, struct err *e)
{
    Hone__V1__Reply *reply;
    int rc;

    while (!r->ended && (rc = client_next(r->session.client, &reply, e)) != 0) {
        if (rc < 0)
            return rc;
        rc = take_reply(r, reply, e);
        message_free(&reply->base);
        if (rc)
            return rc;
    }
    return 0;
}

static int take_signal(struct run *r, struct err *e)
{
    struct signalfd_siginfo info;

    if (read(r->signals, &info, sizeof info) != sizeof info)
        return 0;
    if (!r->job)
        return err_set(e, ERR_STOPPED, "stopped before anything was started");
    if (++r->stops == 1) {
        progress_say(r->progress, "stopping: saving a checkpoint (again: stop at once)");
        return cancel(r, 0, e);
    }
    return cancel(r, 1, e);
}

/* honed has gone: what it was, and what the user can do. */
static int lost(struct run *r, struct err *e)
{
    int rc = session_lost(&r->session, e);

    progress_end(r->progress);
    if (r->job)
        err_mend(e, "the worker saves and stops; then hone run %s --out %s --resume",
                 r->o.job.item[0], r->folder);
    return rc;
}

/* Wait for something to happen; a check that takes its time is worth a word. */
static int await(struct run *r, struct pollfd p[2], struct err *e)
{
    int silent = !r->job && !r->said_checking;
    int n = poll(p, 2, silent ? CHECKING_MS : progress_draw(r->progress));

    if (n < 0 && errno != EINTR)
        return err_errno(e, ERR_FAILED, errno, "wait for honed");
    if (n == 0 && silent) {
        progress_say(r->progress, "checking the job and its data");
        r->said_checking = 1;
    }
    return 0;
}

static int follow(struct run *r, struct err *e)
{
    int rc = 0;

    while (!rc && !r->ended) {
        struct pollfd p[2] = {{client_fd(r->session.client), POLLIN, 0},
                              {r->signals, POLLIN, 0}};

        rc = await(r, p, e);
        if (rc)
            break;
        if (p[1].revents & POLLIN)
            rc = take_signal(r, e);
        if (!rc && p[0].revents & (POLLIN | POLLHUP | POLLERR)) {
            rc = client_fill(r->session.client, e);
            if (!rc)
                rc = take_replies(r, e);
        }
        if (rc == ERR_UNREACHABLE)
            rc = lost(r, e);
    }
    return rc;
}

/* ---- the end ---- */

/* The table and the report; a run that is not whole has neither. */
static int show_results(struct run *r, struct err *e)
{
    char report[FILE_PATH_MAX];
    struct str table = {0};
    int rc = report_write(r->folder, report, sizeof report, e);

    if (!rc && !r->o.json)
        rc = report_table(r->folder, &table, e);
    if (!rc && r->o.json)
        events_end("done", 0, r->folder, report);
    else if (!rc)
        printf("%s%s%s\n", str_get(&table), table.len ? "\n" : "", report);
    str_fini(&table);
    return rc;
}

static int run_job(struct run *r, struct err *e)
{
    int rc = request_make(&r->request, r->o.job.item[0], r->o.out, r->o.stages, &r->o.set,
                          r->o.resume, e);

    if (!rc)
        rc = open_signals(r, e);
    if (!rc)
        rc = session_open(&r->session, e);
    if (rc)
        return rc;
    r->progress = progress_new();
    rc = submit(r, e);
    if (!rc)
        rc = follow(r, e);
    session_close(&r->session);
    progress_free(r->progress);
    r->progress = NULL;
    if (!rc && r->status == 0)
        rc = show_results(r, e);
    else if (!rc && r->o.json && r->job)
        events_end(r->status == 3 ? "stopped" : "failed", r->status, r->folder, NULL);
    return rc;
}

static int run_run(int argc, char **argv)
{
    struct run *r = mem_alloc(sizeof *r);
    struct err e;
    int rc, status;

    if (!r) {
        fprintf(stderr, "hone: out of memory\n");
        return err_exit_status(ERR_NOMEM);
    }
    r->session.owner = -1;
    r->signals = -1;
    rc = args_parse(&spec, argc, argv, &r->o, &e);
    if (!rc)
        rc = run_job(r, &e);
    if (rc < 0)
        err_print(&e, "hone");
    status = rc == ARGS_HELP ? 0 : rc ? err_exit_status(rc) : r->status;
    if (r->signals >= 0)
        close(r->signals);
    request_fini(&r->request);
    mem_free(r);
    return status;
}

const struct verb verb_run = {"run", "run a job here to its end", run_run};
