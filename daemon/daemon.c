/* The daemon: events in, decisions of the scheduler out. */
#include "daemon/daemon.h"

#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/admit.h"
#include "daemon/sched.h"
#include "daemon/uplink.h"
#include "daemon/watch.h"

/* Seconds workers get to save: when a private daemon's owner has gone (all is over within
 * 2 s of that), and when the daemon is told to end. */
static const double grace_owner = 1.6, grace_signal = 10.0;

enum { LAST_WORDS_MAX = 8192 };

static int count_cores(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

struct job *daemon_find_job(struct daemon *d, uint64_t id)
{
    for (size_t i = 0; i < d->n_jobs; i++)
        if (d->jobs[i]->id == id)
            return d->jobs[i];
    return NULL;
}

int daemon_add_job(struct daemon *d, struct job *j, struct err *e)
{
    int rc;

    if (d->n_jobs == d->cap_jobs) {
        size_t cap = d->cap_jobs ? 2 * d->cap_jobs : 16;
        struct job **grown = mem_resize(d->jobs, cap, sizeof *grown);

        if (!grown) {
            job_free(j);
            return err_set(e, ERR_NOMEM, "submit: out of memory");
        }
        d->jobs = grown;
        d->cap_jobs = cap;
    }
    rc = store_add_job(d->store, j, e);
    if (rc) {
        job_free(j);
        return rc;
    }
    d->jobs[d->n_jobs++] = j;
    return 0;
}

void daemon_job_changed(struct daemon *d, struct job *j)
{
    int ended = job_settle(j);
    struct err e;

    if (store_save_job(d->store, j, &e))
        log_error("job %llu: %s", (unsigned long long)j->id, e.msg);
    watch_job(d, j);
    if (ended && j->lock >= 0) {
        close(j->lock); /* the folder is free for the next run */
        j->lock = -1;
    }
}

void daemon_stop_job(struct daemon *d, struct job *j, double grace)
{
    double limit = d->io->ops->now(d->io) + grace;

    if (job_ended(j))
        return;
    if (limit < j->kill_at)
        j->kill_at = limit;
    for (size_t i = 0; !j->stop && i < j->n_stages; i++)
        if (j->stage[i].state == STAGE_RUNNING)
            uplink_word(d, &j->stage[i], HONE__V1__WORD__STOP);
    j->stop = 1;
    daemon_job_changed(d, j);
    daemon_schedule(d);
}

/* ---- workers ---- */

static void fail_stage(struct daemon *d, struct job *j, struct job_stage *s,
                       const struct err *e)
{
    s->message = arena_strdup(&j->arena, e->msg);
    s->mend = e->mend[0] ? arena_strdup(&j->arena, e->mend) : NULL;
    s->status = err_exit_status(e->code);
    stage_move(s, STAGE_FAILED);
    daemon_job_changed(d, j);
}

static int start_worker(struct daemon *d, struct job *j, struct job_stage *s, struct err *e)
{
    struct launch_request request = {
        .worker = d->worker,
        .file = j->file,
        .set = j->set,
        .n_set = j->n_set,
        .stage = s->whole ? NULL : s->name,
        .run = j->run,
        .resume = j->resume,
        .uplink = d->address,
        .token = j->token,
        .job = j->id,
        .attempt = s->attempt + 1,
        .orphan_stop = d->is_private,
    };
    struct launch_command cmd;
    struct io_command io = {.keep_fd = j->lock};
    struct arena a = {0};
    char log[FILE_PATH_MAX];
    int rc = file_join(log, sizeof log, j->run, "log", e);

    if (!rc)
        rc = d->launcher->command(&request, &a, &cmd, e);
    if (!rc) {
        io.argv = cmd.argv;
        io.env = cmd.env;
        io.log = log;
        s->log_from = file_size(log);
        rc = d->io->ops->spawn(d->io, &io, &s->child, e);
    }
    arena_fini(&a);
    return rc;
}

static void start_stage(struct daemon *d, struct job *j, struct job_stage *s)
{
    struct err e;

    if (start_worker(d, j, s, &e)) {
        fail_stage(d, j, s, &e);
        return;
    }
    s->attempt++;
    s->received = 0;
    s->said_done = 0;
    stage_move(s, STAGE_RUNNING);
    daemon_job_changed(d, j);
}

/* The worker's last words: "hone: what" and "  try: mend" at the end of its part of the
 * log. Read from outside: bounded, and only as far as it is UTF-8. */
static void last_words(struct job *j, struct job_stage *s)
{
    static const char what[] = "hone: ", mend[] = "  try: ";
    char path[FILE_PATH_MAX], text[LAST_WORDS_MAX + 1], *line = NULL, *next;
    long long from = s->log_from > 0 ? s->log_from : 0, end;
    struct err e;
    ssize_t n;
    int fd;

    if (file_join(path, sizeof path, j->run, "log", &e))
        return;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    end = lseek(fd, 0, SEEK_END);
    n = pread(fd, text, LAST_WORDS_MAX,
              end - from > LAST_WORDS_MAX ? end - LAST_WORDS_MAX : from);
    close(fd);
    text[n > 0 ? str_utf8_valid(text, (size_t)n) : 0] = '\0';
    for (char *p = text; p; p = next) {
        next = strchr(p, '\n');
        if (next)
            *next++ = '\0';
        if (str_starts(p, what))
            line = p;
        else if (line && str_starts(p, mend))
            s->mend = arena_strdup(&j->arena, p + strlen(mend));
    }
    if (line)
        s->message = arena_strdup(&j->arena, line + strlen(what));
}

/* What to say of a worker that ended badly and did not say why itself. */
static void explain(struct job *j, struct job_stage *s, const struct io_exit *how)
{
    if (!how->signal && !s->message)
        last_words(j, s);
    if (how->signal)
        s->message = arena_printf(&j->arena,
                                  "hone-worker was ended by signal %d (%s); its log: "
                                  "%s/log",
                                  how->signal, strsignal(how->signal), j->run);
    else if (!s->message)
        s->message =
            arena_printf(&j->arena, "hone-worker ended with status %d; its log: %s/log",
                         how->status, j->run);
    if (!s->mend && how->status != 2)
        s->mend = arena_printf(&j->arena,
                               "hone run %s --out %s --resume goes on from the newest "
                               "checkpoint",
                               j->file, j->run);
}

static void stage_ended(struct daemon *d, struct job *j, struct job_stage *s,
                        const struct io_exit *how)
{
    enum stage_state to = stage_outcome(how->status, how->signal);

    /* Killed because we said so, or before it could listen to a polite word. */
    if (j->stop && (how->signal == SIGKILL || how->signal == SIGTERM))
        to = STAGE_STOPPED;
    s->child = s->link = 0;
    s->status = how->signal ? 128 + how->signal : how->status;
    if (to == STAGE_FAILED)
        explain(j, s, how);
    stage_move(s, to);
    log_info("job %llu: stage %s: %s", (unsigned long long)j->id, s->name,
             stage_state_name(to));
    daemon_job_changed(d, j);
}

/* ---- decisions ---- */

static int running(const struct daemon *d)
{
    for (size_t i = 0; i < d->n_jobs; i++)
        for (size_t k = 0; k < d->jobs[i]->n_stages; k++)
            if (d->jobs[i]->stage[k].state == STAGE_RUNNING)
                return 1;
    return 0;
}

void daemon_schedule(struct daemon *d)
{
    struct schedule plan;

    do {
        sched_decide(d->jobs, d->n_jobs, d->cores, d->io->ops->now(d->io), &plan);
        for (size_t i = 0; i < plan.n; i++) {
            struct job *j = d->jobs[plan.item[i].job];
            struct job_stage *s = &j->stage[plan.item[i].stage];

            if (plan.item[i].kind == DECIDE_KILL)
                d->io->ops->kill(d->io, s->child, SIGKILL);
            else
                start_stage(d, j, s);
        }
    } while (plan.n == SCHED_MAX && plan.item[plan.n - 1].kind == DECIDE_START);
    d->io->ops->wake_at(d->io, fmin(fmin(plan.wake, admit_next(d)), conn_next(d)));
    if (d->ending && !running(d))
        d->io->ops->stop(d->io);
}

/* ---- events ---- */

static void on_connected(void *ctx, uint64_t conn)
{
    conn_opened(ctx, conn);
}

static void on_received(void *ctx, uint64_t conn, const void *p, size_t n)
{
    conn_received(ctx, conn, p, n);
}

static void on_closed(void *ctx, uint64_t conn)
{
    conn_closed(ctx, conn);
}

static void on_exited(void *ctx, uint64_t child, const struct io_exit *how)
{
    struct daemon *d = ctx;

    if (!admit_exited(d, child, how)) {
        for (size_t i = 0; i < d->n_jobs; i++)
            for (size_t k = 0; k < d->jobs[i]->n_stages; k++)
                if (d->jobs[i]->stage[k].child == child)
                    stage_ended(d, d->jobs[i], &d->jobs[i]->stage[k], how);
    }
    daemon_schedule(d);
}

static void on_wake(void *ctx)
{
    admit_tick(ctx);
    conn_tick(ctx);
    daemon_schedule(ctx);
}

static void on_ending(void *ctx, int signal)
{
    struct daemon *d = ctx;
    double grace = signal == 0 ? grace_owner : d->ending ? 0 : grace_signal;

    d->ending = 1;
    admit_kill_checks(d);
    for (size_t i = 0; i < d->n_jobs; i++)
        daemon_stop_job(d, d->jobs[i], grace);
    daemon_schedule(d);
}

static const struct io_events events = {on_connected, on_received, on_closed,
                                        on_exited,    on_wake,     on_ending};

void daemon_init(struct daemon *d, struct io *io, struct store *store, const char *address,
                 int is_private)
{
    memset(d, 0, sizeof *d);
    d->io = io;
    d->store = store;
    d->address = address;
    d->is_private = is_private;
    d->launcher = &launch_local;
    d->cores = count_cores();
    access_self(&d->self);
    io->events = &events;
    io->ctx = d;
}

void daemon_fini(struct daemon *d)
{
    conn_free_all(d);
    watch_free_all(d);
    admit_free_all(d);
    for (size_t i = 0; i < d->n_jobs; i++)
        job_free(d->jobs[i]);
    mem_free(d->jobs);
    memset(d, 0, sizeof *d);
}
