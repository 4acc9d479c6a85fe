/* Admission: see admit.h. */
#include "daemon/admit.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/event.h"
#include "daemon/folder.h"
#include "daemon/notify.h"
#include "daemon/plan.h"
#include "daemon/retain.h"
#include "daemon/roots.h"
#include "daemon/show.h"

enum { PRIORITY_MAX = 100, REQUEST_ID_MAX = 64, BATCH_MAX = 64 };

/* Seconds. */
static const double lock_wait = 10.0, lock_retry = 0.05;

struct admission {
    struct arena arena;
    struct rpc_call *call; /* NULL: the client has gone */
    const char *file, *out, *request_id, *notify;
    char owner[ACCESS_NAME_MAX];
    int priority;
    const char **set;
    size_t n_set;
    char **stages;
    size_t n_stages;
    int resume;
    uint64_t child; /* the check, 0: over, or not begun */
    struct plan plan;
    char run[FILE_PATH_MAX];
    int made, lock, committed;
    struct job *job;   /* made, and to be stored with the next batch; NULL: not yet */
    double lock_until; /* INFINITY: not waiting for a lock */
    struct admission *next;
};

static void forget(struct daemon *d, struct admission *a)
{
    struct admission **p = &d->admissions;

    while (*p != a)
        p = &(*p)->next;
    *p = a->next;
    if (a->lock >= 0)
        close(a->lock);
    job_free(a->job);
    if (a->run[0] && !a->committed)
        folder_release(a->run, a->made);
    arena_fini(&a->arena);
    mem_free(a);
}

static void refuse(struct daemon *d, struct admission *a, const struct err *e)
{
    if (a->call)
        rpc_fail(a->call, e);
    forget(d, a);
}

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "submit: out of memory");
}

static int copy_texts(struct arena *a, char **from, size_t n, const char ***out,
                      struct err *e)
{
    *out = arena_array(a, n + 1, sizeof **out);
    if (!*out)
        return no_memory(e);
    for (size_t i = 0; i < n; i++)
        if (!((*out)[i] = arena_strdup(a, from[i])))
            return no_memory(e);
    return 0;
}

/* What the daemon itself can judge at once. */
static int read_request(struct daemon *d, struct admission *a,
                        const Hone__V1__SubmitRequest *in, struct err *e)
{
    const char **stages;
    int rc;

    if (in->file[0] != '/' || (in->out && in->out[0] != '/'))
        return err_set(e, ERR_CONFIG, "submit: paths must be absolute");
    if (roots_check(d->roots, in->file, e) ||
        (in->out && roots_check(d->roots, in->out, e)))
        return e->code;
    if (!file_exists(in->file))
        return err_errno(e, ERR_CONFIG, errno, "read %s", in->file);
    a->file = arena_strdup(&a->arena, in->file);
    a->out = in->out ? arena_strdup(&a->arena, in->out) : NULL;
    a->resume = in->has_resume && in->resume;
    a->priority = in->has_priority ? in->priority : 0;
    if (a->priority < -PRIORITY_MAX || a->priority > PRIORITY_MAX)
        return err_set(e, ERR_CONFIG, "priority %d: -%d to %d are possible", a->priority,
                       PRIORITY_MAX, PRIORITY_MAX);
    if (in->request_id && strlen(in->request_id) > REQUEST_ID_MAX)
        return err_set(e, ERR_CONFIG, "request_id: more than %d bytes", REQUEST_ID_MAX);
    a->request_id = in->request_id ? arena_strdup(&a->arena, in->request_id) : NULL;
    a->notify = in->notify ? arena_strdup(&a->arena, in->notify) : NULL;
    if (!a->file || (in->out && !a->out) || (in->request_id && !a->request_id) ||
        (in->notify && !a->notify))
        return no_memory(e);
    rc = in->notify ? notify_check(d, in->notify, e) : 0;
    if (!rc)
        rc = copy_texts(&a->arena, in->set, in->n_set, &a->set, e);
    if (!rc)
        rc = copy_texts(&a->arena, in->stages, in->n_stages, &stages, e);
    if (rc)
        return rc;
    a->n_set = in->n_set;
    a->stages = (char **)(uintptr_t)stages;
    a->n_stages = in->n_stages;
    return 0;
}

static int start_check(struct daemon *d, struct admission *a, struct err *e)
{
    struct launch_command cmd;
    struct io_command io = {.keep_fd = -1};
    int rc = launch_check(d->worker, a->file, a->set, a->n_set, d->is_private, &a->arena,
                          &cmd, e);

    if (rc)
        return rc;
    io.argv = cmd.argv;
    io.env = cmd.env;
    io.check = !d->is_private; /* one is not worth keeping a process for */
    io.memory = d->resources.memory;
    io.seconds = d->check_limit;
    return d->io->ops->spawn(d->io, &io, &a->child, e);
}

/* The same submit again: 1: answered, with the job there is, or by waiting in the place of
 * the call that was first. */
static int is_repeat(struct rpc_call *call, const Hone__V1__SubmitRequest *in)
{
    struct daemon *d = call->d;
    struct store_filter f = {.request_id = in->request_id, .owner = call->who.user};
    Hone__V1__SubmitReply reply = HONE__V1__SUBMIT_REPLY__INIT;
    struct arena scratch = {0};
    struct job *j = NULL;
    struct err e;

    for (struct admission *a = d->admissions; a; a = a->next)
        if (a->request_id && !strcmp(a->request_id, in->request_id) &&
            !strcmp(a->owner, call->who.user) && a->call) {
            err_set(&e, ERR_FAILED, "submitted again by another connection");
            rpc_fail(a->call, &e);
            a->call = call;
            return 1;
        }
    if (store_load_job(d->store, &f, &j, &e)) {
        rpc_fail(call, &e);
        return 1;
    }
    if (!j)
        return 0;
    reply.job = show_job(&scratch, j, d->io->ops->now(d->io));
    if (reply.job) {
        rpc_reply(&reply.base, call);
    } else {
        no_memory(&e);
        rpc_fail(call, &e);
    }
    arena_fini(&scratch);
    job_free(j);
    return 1;
}

/* Others of the same owner that are on their way. */
static size_t arriving(const struct daemon *d, const struct admission *than)
{
    size_t n = 0;

    for (const struct admission *a = d->admissions; a; a = a->next)
        n += a != than && a->call && !strcmp(a->owner, than->owner);
    return n;
}

static int begin(struct daemon *d, struct admission *a, const Hone__V1__SubmitRequest *in,
                 struct err *e)
{
    int rc = d->ending ? err_set(e, ERR_FAILED, "honed is ending")
                       : retain_check(d, a->owner, arriving(d, a), e);

    if (!rc)
        rc = read_request(d, a, in, e);
    return rc ? rc : start_check(d, a, e);
}

void admit_begin(struct rpc_call *call, const Hone__V1__SubmitRequest *in)
{
    struct daemon *d = call->d;
    struct admission *a;
    struct err e;

    if (access_check(&call->who, ACCESS_SUBMIT, NULL, &e)) {
        rpc_fail(call, &e);
        return;
    }
    if (in->request_id && is_repeat(call, in))
        return;
    a = mem_alloc(sizeof *a);
    if (!a) {
        no_memory(&e);
        rpc_fail(call, &e);
        return;
    }
    a->call = call;
    snprintf(a->owner, sizeof a->owner, "%s", call->who.user);
    a->lock = -1;
    a->lock_until = INFINITY;
    a->next = d->admissions;
    d->admissions = a;
    if (begin(d, a, in, &e))
        refuse(d, a, &e);
}

/* ---- commit ---- */

/* What can never start here. */
static int check_devices(const struct daemon *d, const struct plan *p, struct err *e)
{
    int have = cores_count(&d->resources.gpus);

    if (p->slurm && d->is_private) {
        err_set(e, ERR_CONFIG,
                "hone run starts the workers itself, and the job says "
                "launcher: slurm");
        return err_mend(e, "hone submit, or run it within an allocation with --set "
                           "resources.launcher=local");
    }
    if (p->slurm || d->is_private || p->gpus <= have)
        return 0;
    err_set(e, ERR_CONFIG, "a stage wants %d GPUs, and this honed gives away %d", p->gpus,
            have);
    return err_mend(e,
                    "set resources.workers to what is there, or start honed with --gpus");
}

/* GPUs of each stage. A private daemon leaves them to its one worker, unless seeds share
 * them. */
static int gpus_of(const struct daemon *d, const struct plan *p)
{
    if (p->slurm ||
        (d->is_private && (p->seeds == 1 || p->gpus > cores_count(&d->resources.gpus))))
        return 0;
    return p->gpus;
}

/* Cores of each stage: as the job says, else all there are; seeds share them. */
static int cores_of(const struct daemon *d, const struct plan *p)
{
    int all = cores_count(&d->resources.cores), n;

    if (p->gpus && d->is_private && !gpus_of(d, p))
        return all; /* workers that find their GPU themselves: one at a time */
    n = p->cores > 0 ? p->cores : all / p->seeds;
    n = n < p->workers ? p->workers : n;
    return n < all ? n : all;
}

static int make_job(struct daemon *d, struct admission *a, struct job **out, struct err *e)
{
    struct job *j = job_new();
    int cores = cores_of(d, &a->plan);

    *out = j;
    if (!j)
        return no_memory(e);
    /* The admission's arena holds all texts of the plan: the job takes it over. */
    j->arena = a->arena;
    memset(&a->arena, 0, sizeof a->arena);
    j->name = a->plan.name;
    j->owner = arena_strdup(&j->arena, a->owner);
    j->request_id = a->request_id;
    j->notify = a->notify;
    j->priority = a->priority;
    j->submitted = clock_wall();
    j->file = a->file;
    j->set = a->set;
    j->n_set = a->n_set;
    j->resume = a->resume;
    j->stage = a->plan.stage;
    j->n_stages = a->plan.n_stages;
    j->slurm = a->plan.slurm;
    j->n_slurm = a->plan.n_slurm;
    for (size_t i = 0; i < j->n_stages; i++) {
        j->stage[i].n_cores = j->slurm ? 0 : cores;
        j->stage[i].n_gpus = gpus_of(d, &a->plan);
        if (j->slurm)
            j->stage[i].memory = 0; /* not of this machine */
    }
    j->run = arena_strdup(&j->arena, a->run);
    j->lock = a->lock;
    a->lock = -1;
    return j->run && j->owner ? 0 : no_memory(e);
}

/* More memory than there is: it would run alone, and perhaps not at all. */
static int warn_of_memory(struct daemon *d, struct admission *a, struct err *e)
{
    const struct job_stage *s = NULL;
    char want[32], have[32], text[256];

    for (size_t i = 0; i < a->plan.n_stages && !d->is_private && !a->plan.slurm; i++)
        if (a->plan.stage[i].memory > d->resources.memory)
            s = &a->plan.stage[i];
    if (!s)
        return 0;
    snprintf(text, sizeof text, "stage %.100s may need %s of memory, %s are there", s->name,
             str_bytes(want, sizeof want, (double)s->memory),
             str_bytes(have, sizeof have, (double)d->resources.memory));
    return plan_add_problem(&a->plan, &a->arena, 1, NULL, text,
                            "lower micro_tokens, or set resources.recompute to on", e);
}

static int warn_of_limits(struct daemon *d, struct admission *a, struct err *e)
{
    char *text[RETAIN_WARNINGS_MAX];
    size_t n = retain_warnings(d, a->owner, &a->arena, text);
    int rc = 0;

    for (size_t i = 0; !rc && i < n; i++)
        rc = plan_add_problem(&a->plan, &a->arena, 1, NULL, text[i], NULL, e);
    return rc;
}

/* It is stored: tell the client. */
static void accept(struct daemon *d, struct admission *a, struct job *j)
{
    Hone__V1__SubmitReply reply = HONE__V1__SUBMIT_REPLY__INIT;
    struct arena scratch = {0};
    struct err e;

    event_state(d, j);
    if (!d->is_private) {
        close(j->lock); /* until it runs: a queue holds no descriptors */
        j->lock = -1;
    }
    log_info("job %llu: %s -> %s", (unsigned long long)j->id, j->file, j->run);
    reply.problems = a->plan.problem; /* warnings */
    reply.n_problems = a->plan.n_problems;
    reply.job = show_job(&scratch, j, d->io->ops->now(d->io));
    if (reply.job) {
        rpc_reply(&reply.base, a->call);
    } else {
        no_memory(&e);
        rpc_fail(a->call, &e);
    }
    arena_fini(&scratch);
    forget(d, a);
}

/* Store all jobs that wait for it at once: one synchronisation of the disk for all. */
static void commit_all(struct daemon *d)
{
    struct admission *of[BATCH_MAX];
    struct job *job[BATCH_MAX];
    struct err e;
    size_t n = 0;
    int rc;

    for (struct admission *a = d->admissions; a && n < BATCH_MAX; a = a->next)
        if (a->job)
            of[n++] = a;
    if (!n)
        return;
    for (size_t i = 0; i < n / 2; i++) { /* in order of arrival: the newest stand first */
        struct admission *a = of[i];

        of[i] = of[n - 1 - i];
        of[n - 1 - i] = a;
    }
    for (size_t i = 0; i < n; i++)
        job[i] = of[i]->job;
    rc = daemon_add_jobs(d, job, n, &e);
    for (size_t i = 0; !rc && i < n; i++) { /* the daemon's now */
        of[i]->job = NULL;
        of[i]->committed = 1;
    }
    for (size_t i = 0; i < n; i++)
        if (rc)
            refuse(d, of[i], &e);
        else
            accept(d, of[i], job[i]);
    daemon_schedule(d);
}

/* Judged and placed: to be stored with the next batch. A private daemon has one job and
 * does not wait. */
static void commit(struct daemon *d, struct admission *a)
{
    struct err e;
    int rc = check_devices(d, &a->plan, &e);

    if (!rc)
        rc = warn_of_memory(d, a, &e);
    if (!rc)
        rc = warn_of_limits(d, a, &e);
    if (!rc)
        rc = make_job(d, a, &a->job, &e);
    if (rc)
        refuse(d, a, &e);
    else if (d->is_private)
        commit_all(d);
}

/* ---- place ---- */

/* 1: wait for the lock. */
static int try_lock(struct daemon *d, struct admission *a, struct err *e)
{
    long holder;
    int rc = folder_lock(a->run, &a->lock, &holder, e);

    if (rc <= 0)
        return rc;
    if (a->resume && d->io->ops->now(d->io) < a->lock_until)
        return 1;
    err_set(e, ERR_CONFIG, "%s is in use by another run (process %ld)", a->run, holder);
    return err_mend(e, "wait for it to end, or choose another folder with --out");
}

/* Stages left out by --stages must have been finished in this folder before. */
static int check_unmet(const struct admission *a, struct err *e)
{
    for (size_t i = 0; i < a->plan.n_unmet; i++) {
        const char *name = a->plan.unmet[i];

        if (folder_has_stage(a->run, name))
            continue;
        err_set(e, ERR_CONFIG, "--stages: needed is also %s, which has not finished in %s",
                name, a->run);
        return err_mend(e, "add %s to --stages, or go on with --out RUN --resume", name);
    }
    return 0;
}

static void place(struct daemon *d, struct admission *a)
{
    struct err e;
    int rc;

    if (isinf(a->lock_until)) {
        rc = a->out ? folder_claim(a->out, a->resume, &a->made, &e)
                    : folder_choose(&d->hints, a->file, a->plan.name, a->resume, a->run,
                                    sizeof a->run, &a->made, &e);
        if (rc) {
            a->run[0] = '\0';
            refuse(d, a, &e);
            return;
        }
        if (a->out)
            snprintf(a->run, sizeof a->run, "%s", a->out);
        rc = check_unmet(a, &e);
        if (rc) {
            refuse(d, a, &e);
            return;
        }
        a->lock_until = d->io->ops->now(d->io) + lock_wait;
    }
    rc = try_lock(d, a, &e);
    if (rc < 0)
        refuse(d, a, &e);
    else if (rc == 0)
        commit(d, a);
}

void admit_tick(struct daemon *d)
{
    for (struct admission *a = d->admissions, *next; a; a = next) {
        next = a->next;
        if (!isinf(a->lock_until) && !a->job)
            place(d, a);
    }
    commit_all(d);
}

double admit_next(const struct daemon *d)
{
    double now = d->io->ops->now(d->io), next = INFINITY;

    for (const struct admission *a = d->admissions; a; a = a->next)
        if (a->job)
            return now; /* once the others that have come by now are placed */
        else if (!isinf(a->lock_until))
            next = now + lock_retry;
    return next;
}

/* ---- check ---- */

static void reply_problems(struct daemon *d, struct admission *a)
{
    Hone__V1__SubmitReply reply = HONE__V1__SUBMIT_REPLY__INIT;

    reply.problems = a->plan.problem;
    reply.n_problems = a->plan.n_problems;
    rpc_reply(&reply.base, a->call);
    a->call = NULL;
    forget(d, a);
}

/* Lines "hone: what" and "  try: mend" on the worker's standard error, as problems. */
static int read_lines(struct admission *a, const char *text, struct err *e)
{
    static const char what[] = "hone: ", mend[] = "  try: ";
    size_t n = 0, lines = 1;
    Hone__V1__Problem *p = NULL;

    for (const char *s = text; *s; s++)
        lines += *s == '\n';
    a->plan.problem = arena_array(&a->arena, lines, sizeof *a->plan.problem);
    if (!a->plan.problem)
        return no_memory(e);
    a->plan.n_problems = 0;
    for (; *text; text += n + (text[n] == '\n')) {
        char *line;

        n = strcspn(text, "\n");
        line = arena_strndup(&a->arena, text, str_utf8_valid(text, n));
        if (!line)
            return no_memory(e);
        if (p && str_starts(line, mend)) {
            p->mend = line + strlen(mend);
        } else if (*line) {
            p = arena_alloc(&a->arena, sizeof *p);
            if (!p)
                return no_memory(e);
            hone__v1__problem__init(p);
            p->message = line + (str_starts(line, what) ? strlen(what) : 0);
            a->plan.problem[a->plan.n_problems++] = p;
            a->plan.errors++;
        }
    }
    return 0;
}

/* 0: the plan is there, or the problems are. */
static int read_verdict(const struct daemon *d, struct admission *a,
                        const struct io_exit *how, struct err *e)
{
    if (how->late) {
        err_set(e, ERR_FAILED, "%s: the check took longer than %g s", a->file,
                d->check_limit);
        return err_mend(e, "less data, or honed with a longer --check-limit");
    }
    if (how->signal)
        return err_set(e, ERR_FAILED, "hone-worker check was ended by signal %d (%s)",
                       how->signal, strsignal(how->signal));
    if (how->status == 0 ||
        (how->status == 2 && !plan_read(&a->plan, how->out, &a->arena, e) &&
         a->plan.errors))
        return how->status ? 0 : plan_read(&a->plan, how->out, &a->arena, e);
    memset(&a->plan, 0, sizeof a->plan);
    if (read_lines(a, how->err, e))
        return e->code;
    if (how->status == 2 && a->plan.errors)
        return 0;
    return err_set(e, ERR_FAILED, "hone-worker check ended with status %d%s%.900s",
                   how->status, a->plan.errors ? ": " : "",
                   a->plan.errors ? a->plan.problem[0]->message : "");
}

/* The job file's program is one of ours, unless the request named another. */
static int judge_notify(struct daemon *d, struct admission *a, struct err *e)
{
    struct plan *p = &a->plan;

    if (a->notify || !p->notify || p->errors)
        return 0;
    if (d->is_private)
        return plan_add_problem(p, &a->arena, 1, p->notify_where,
                                "\"notify\" is done by a daemon that is left running, not "
                                "by hone run",
                                "hone submit", e);
    a->notify = p->notify;
    if (!notify_check(d, p->notify, e))
        return 0;
    return plan_add_problem(p, &a->arena, 0, p->notify_where, e->msg, e->mend, e);
}

static void judge(struct daemon *d, struct admission *a, const struct io_exit *how)
{
    struct err e;
    int rc = read_verdict(d, a, how, &e);

    if (!rc)
        rc = judge_notify(d, a, &e);
    if (!rc && a->plan.errors) {
        reply_problems(d, a);
        return;
    }
    if (!rc)
        rc = plan_select(&a->plan, a->stages, a->n_stages, &a->arena, &e);
    if (rc)
        refuse(d, a, &e);
    else
        place(d, a);
}

int admit_exited(struct daemon *d, uint64_t child, const struct io_exit *how)
{
    struct admission *a = d->admissions;

    while (a && a->child != child)
        a = a->next;
    if (!a)
        return 0;
    a->child = 0;
    if (a->call)
        judge(d, a, how);
    else
        forget(d, a);
    return 1;
}

/* ---- clients that leave ---- */

void admit_kill_checks(struct daemon *d)
{
    for (struct admission *a = d->admissions; a; a = a->next)
        if (a->child)
            d->io->ops->kill(d->io, a->child, SIGKILL, 1);
}

void admit_closed(struct daemon *d, uint64_t conn)
{
    for (struct admission *a = d->admissions, *next; a; a = next) {
        next = a->next;
        if (!a->call || a->call->conn != conn)
            continue;
        rpc_drop(a->call);
        a->call = NULL;
        if (a->child)
            d->io->ops->kill(d->io, a->child, SIGKILL, 1); /* forgotten when it has ended */
        else
            forget(d, a);
    }
}

void admit_free_all(struct daemon *d)
{
    while (d->admissions) {
        if (d->admissions->call)
            rpc_drop(d->admissions->call);
        forget(d, d->admissions);
    }
}
