/* The daemon: events in, decisions of the scheduler out. */
#include "daemon/daemon.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/admit.h"
#include "daemon/attach.h"
#include "daemon/event.h"
#include "daemon/gpus.h"
#include "daemon/http.h"
#include "daemon/journal.h"
#include "daemon/judge.h"
#include "daemon/machine.h"
#include "daemon/plan.h"
#include "daemon/report.h"
#include "daemon/retain.h"
#include "daemon/summary.h"
#include "daemon/tail.h"
#include "daemon/uplink.h"
#include "daemon/watch.h"
#include "daemon/work.h"

/* Seconds workers get to save: when a private daemon's owner has gone (all is over within
 * 2 s of that), and when a private daemon is told to end. */
static const double grace_owner = 1.6, grace_signal = 10.0;

/* ---- the table of jobs ---- */

static size_t place_of(const struct daemon *d, uint64_t id)
{
    size_t low = 0, high = d->n_jobs;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (d->jobs[mid]->id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static void remember(struct daemon *d, struct job *j)
{
    job_free(d->past[d->next_past]);
    d->past[d->next_past] = j;
    d->next_past = (d->next_past + 1) % PAST_MAX;
}

struct job *daemon_find_job(struct daemon *d, uint64_t id)
{
    size_t at = place_of(d, id);
    struct store_filter f = {.id = id};
    struct job *j = NULL;
    struct err e;

    if (at < d->n_jobs && d->jobs[at]->id == id)
        return d->jobs[at];
    for (size_t i = 0; i < PAST_MAX; i++)
        if (d->past[i] && d->past[i]->id == id)
            return d->past[i];
    if (!id || store_load_job(d->store, &f, &j, &e) || !j)
        return NULL;
    remember(d, j);
    return j;
}

static int by_priority(const void *x, const void *y)
{
    const struct job *a = *(struct job *const *)x, *b = *(struct job *const *)y;

    if (a->priority != b->priority)
        return a->priority > b->priority ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

void daemon_sort_queue(struct daemon *d)
{
    qsort(d->queue, d->n_jobs, sizeof *d->queue, by_priority);
}

static int make_room(struct daemon *d, size_t n, struct err *e)
{
    size_t cap = d->cap_jobs ? 2 * d->cap_jobs : 16;
    struct job **jobs, **queue;

    if (d->n_jobs + n <= d->cap_jobs)
        return 0;
    while (cap < d->n_jobs + n)
        cap *= 2;
    jobs = mem_resize(d->jobs, cap, sizeof *jobs);
    if (jobs)
        d->jobs = jobs;
    queue = jobs ? mem_resize(d->queue, cap, sizeof *queue) : NULL;
    if (!queue)
        return err_set(e, ERR_NOMEM, "out of memory for a job");
    d->queue = queue;
    d->cap_jobs = cap;
    return 0;
}

int daemon_keep_job(struct daemon *d, struct job *j, struct err *e)
{
    size_t at = place_of(d, j->id), q = d->n_jobs;

    if (at < d->n_jobs && d->jobs[at] == j)
        return 0; /* it had ended just now, or could not be stored */
    if (make_room(d, 1, e))
        return e->code;
    for (size_t i = 0; i < PAST_MAX; i++)
        if (d->past[i] == j)
            d->past[i] = NULL;
    memmove(d->jobs + at + 1, d->jobs + at, (d->n_jobs - at) * sizeof *d->jobs);
    d->jobs[at] = j;
    for (; q && by_priority(&d->queue[q - 1], &j) > 0; q--)
        d->queue[q] = d->queue[q - 1];
    d->queue[q] = j;
    d->n_jobs++;
    return 0;
}

int daemon_add_jobs(struct daemon *d, struct job *const *list, size_t n, struct err *e)
{
    int rc = make_room(d, n, e);

    if (!rc)
        rc = store_add_jobs(d->store, list, n, e);
    for (size_t i = 0; !rc && i < n; i++)
        daemon_keep_job(d, list[i], e); /* there is room */
    return rc;
}

/* Ended jobs leave the table. */
static void sweep(struct daemon *d)
{
    size_t kept = 0;

    for (size_t i = 0; i < d->n_jobs; i++)
        if (!job_ended(d->jobs[i]) || d->jobs[i]->unsaved)
            d->jobs[kept++] = d->jobs[i];
        else
            remember(d, d->jobs[i]);
    if (kept == d->n_jobs)
        return;
    d->n_jobs = kept;
    memcpy(d->queue, d->jobs, kept * sizeof *d->queue);
    daemon_sort_queue(d);
}

void daemon_forget_job(struct daemon *d, struct job *j)
{
    for (size_t i = 0; i < PAST_MAX; i++)
        if (d->past[i] == j) {
            d->past[i] = NULL;
            job_free(j);
            return;
        }
}

/* ---- changes ---- */

static int is_running(const struct job *j)
{
    for (size_t i = 0; i < j->n_stages; i++)
        if (j->stage[i].state == STAGE_RUNNING)
            return 1;
    return 0;
}

/* The folder is free for others when nothing of ours is in it. A private daemon's one job
 * has it to the end. */
static void release_folder(struct daemon *d, struct job *j)
{
    if (j->lock < 0 || is_running(j) || (d->is_private && !job_ended(j)))
        return;
    close(j->lock);
    j->lock = -1;
}

static void save(struct daemon *d, struct job *j)
{
    struct err e;
    int rc = store_save_job(d->store, j, &e);

    if (rc && !j->unsaved)
        log_error("job %llu: %s", (unsigned long long)j->id, e.msg);
    j->unsaved = rc != 0;
    if (rc == ERR_DENIED)
        d->io->ops->stop(d->io); /* another daemon has the folder */
}

/* The change is in the store (or will be): tell it. */
static void tell(struct daemon *d, struct job *j, int ended)
{
    event_state(d, j);
    if (ended) {
        judge_ended(d, j);
        report_begin(d, j);
    }
    release_folder(d, j);
    if (!is_running(j))
        journal_rest(j->journal);
}

void daemon_job_changed(struct daemon *d, struct job *j)
{
    int ended = job_settle(j);

    if (ended) {
        j->ended = clock_wall();
        summary_end(d, j); /* first: a job that the store knows as ended is not looked at */
    }
    save(d, j);
    tell(d, j, ended);
}

int daemon_save(struct daemon *d, struct job *j, struct err *e)
{
    int rc = store_save_job(d->store, j, e);

    if (rc == ERR_DENIED)
        d->io->ops->stop(d->io);
    if (!rc)
        j->unsaved = 0;
    return rc;
}

int daemon_want(struct daemon *d, struct job *j, enum job_want want, struct err *e)
{
    struct job_mark was;
    int rc, ended;

    if (job_ended(j) || j->want == want)
        return 0;
    rc = job_mark(j, &was, e);
    if (rc)
        return rc;
    j->want = want;
    for (size_t i = 0; i < j->n_stages; i++) {
        struct job_stage *s = &j->stage[i];

        if (want != WANT_RUN && s->state == STAGE_RUNNING && !s->asked)
            s->asked = ASKED_STOP;
    }
    ended = job_settle(j);
    if (ended)
        j->ended = clock_wall();
    rc = daemon_save(d, j, e);
    if (rc)
        job_restore(j, &was);
    job_mark_fini(&was);
    if (rc)
        return rc;
    for (size_t i = 0; want != WANT_RUN && i < j->n_stages; i++)
        work_ask(d, &j->stage[i], ASKED_STOP);
    if (ended)
        summary_end(d, j);
    tell(d, j, ended);
    return 0;
}

int daemon_stop_job(struct daemon *d, struct job *j, double grace, struct err *e)
{
    double limit = d->io->ops->now(d->io) + grace;
    int rc = daemon_want(d, j, WANT_STOP, e);

    if (!rc && limit < j->kill_at)
        j->kill_at = limit;
    return rc;
}

/* ---- decisions ---- */

static int running(const struct daemon *d)
{
    for (size_t i = 0; i < d->n_jobs; i++)
        if (is_running(d->jobs[i]))
            return 1;
    return 0;
}

/* What could not be stored. */
static int save_again(struct daemon *d)
{
    int left = 0;

    for (size_t i = 0; i < d->n_jobs; i++) {
        if (d->jobs[i]->unsaved)
            save(d, d->jobs[i]);
        left |= d->jobs[i]->unsaved;
    }
    return left;
}

void daemon_schedule(struct daemon *d)
{
    struct schedule plan;
    double now, wake;

    do {
        now = d->io->ops->now(d->io);
        sched_decide(d->queue, d->n_jobs, &d->resources, now, &plan);
        for (size_t i = 0; i < plan.n; i++) {
            struct job *j = d->queue[plan.item[i].job];
            struct job_stage *s = &j->stage[plan.item[i].stage];

            if (plan.item[i].kind == DECIDE_KILL && j->attached)
                attach_abort(d, j, s);
            else if (plan.item[i].kind == DECIDE_KILL)
                work_kill(d, j, s);
            else if (work_start(d, j, s, &plan.item[i]))
                break; /* what was decided after it may not hold any more */
        }
    } while (plan.n && plan.item[plan.n - 1].kind == DECIDE_START);
    wake = fmin(fmin(plan.wake, admit_next(d)), fmin(judge_next(d), tail_next(d)));
    wake = fmin(wake, fmin(conn_next(d), http_next(d)));
    wake = fmin(wake, retain_next(d));
    if (save_again(d))
        wake = fmin(wake, now + 1);
    sweep(d);
    d->io->ops->wake_at(d->io, wake);
    if (d->ending && (!d->is_private || !running(d)))
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
    if (!http_closed(ctx, conn))
        conn_closed(ctx, conn);
}

static void on_drained(void *ctx, uint64_t conn)
{
    watch_drained(ctx, conn);
    tail_drained(ctx, conn);
}

static void on_exited(void *ctx, uint64_t child, const struct io_exit *how)
{
    struct daemon *d = ctx;

    if (!admit_exited(d, child, how)) {
        for (size_t i = 0; i < d->n_jobs; i++)
            for (size_t k = 0; k < d->jobs[i]->n_stages; k++)
                if (d->jobs[i]->stage[k].child == child)
                    work_ended(d, d->jobs[i], &d->jobs[i]->stage[k], how);
    }
    daemon_schedule(d);
}

static void on_wake(void *ctx)
{
    admit_tick(ctx);
    conn_tick(ctx);
    http_tick(ctx);
    judge_tick(ctx);
    tail_tick(ctx);
    retain_tick(ctx);
    daemon_schedule(ctx);
}

/* A private daemon takes its workers along; the workers of a long-lived one go on, and the
 * next daemon finds them. */
static void on_ending(void *ctx, int signal)
{
    struct daemon *d = ctx;
    double grace = signal == 0 ? grace_owner : d->ending ? 0 : grace_signal;
    struct err e;

    d->ending = 1;
    admit_kill_checks(d);
    for (size_t i = 0; d->is_private && i < d->n_jobs; i++)
        if (daemon_stop_job(d, d->jobs[i], grace, &e))
            log_error("job %llu: %s", (unsigned long long)d->jobs[i]->id, e.msg);
    daemon_schedule(d);
}

static void on_requested(void *ctx, uint64_t request, const struct io_request *r)
{
    http_requested(ctx, request, r);
}

static const struct io_events events = {on_connected, on_received, on_closed, on_drained,
                                        on_exited,    on_wake,     on_ending, on_requested};

/* ---- the beginning and the end ---- */

void daemon_init(struct daemon *d, struct io *io, struct store *store, const char *state,
                 const char *address, int is_private)
{
    memset(d, 0, sizeof *d);
    d->io = io;
    d->store = store;
    d->state = state;
    d->address = address;
    d->is_private = is_private;
    d->check_limit = CHECK_LIMIT;
    d->launcher = &launch_local;
    machine_cores(&d->resources.cores);
    gpus_find(getenv("CUDA_VISIBLE_DEVICES"), MACHINE_GPUS, &d->resources.gpus);
    d->resources.memory = machine_memory();
    retain_defaults(&d->limits);
    access_self(&d->self);
    io->events = &events;
    io->ctx = d;
    d->started = d->ticked = io->ops->now(io);
}

static int take_unfinished(void *ctx, struct job *j)
{
    struct daemon *d = ctx;
    struct err e;

    if (!daemon_keep_job(d, j, &e))
        return 0;
    log_error("job %llu: %s", (unsigned long long)j->id, e.msg);
    job_free(j);
    return 1;
}

int daemon_recover(struct daemon *d, struct err *e)
{
    struct store_filter f = {.oldest_first = 1};
    char path[FILE_PATH_MAX];
    int rc = file_join(path, sizeof path, d->state, "events", e);

    for (int i = JOB_QUEUED; i < JOB_DONE; i++)
        f.states |= 1u << i;
    if (!rc)
        rc = file_make_dirs(path, e);
    if (!rc)
        rc = store_load_jobs(d->store, &f, take_unfinished, d, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < d->n_jobs; i++)
        for (size_t k = 0; k < d->jobs[i]->n_stages; k++)
            if (d->jobs[i]->stage[k].state == STAGE_RUNNING)
                work_adopt(d, d->jobs[i], &d->jobs[i]->stage[k]);
    if (d->n_jobs)
        log_info("%zu jobs of an earlier honed are taken up", d->n_jobs);
    daemon_schedule(d);
    return 0;
}

void daemon_fini(struct daemon *d)
{
    conn_free_all(d);
    http_free_all(d);
    watch_free_all(d);
    tail_free_all(d);
    admit_free_all(d);
    for (size_t i = 0; i < d->n_jobs; i++)
        job_free(d->jobs[i]);
    for (size_t i = 0; i < PAST_MAX; i++)
        job_free(d->past[i]);
    folder_forget(&d->hints);
    mem_free(d->jobs);
    mem_free(d->queue);
    memset(d, 0, sizeof *d);
}
