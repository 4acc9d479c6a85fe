/* Workers of stages: see work.h. */
#include "daemon/work.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/attach.h"
#include "daemon/event.h"
#include "daemon/folder.h"
#include "daemon/uplink.h"
#include "proto/message.h"

enum { LAST_WORDS_MAX = 8192, STATUS_MAX = 16, MARK_MAX = 64, AUTHORITY_MAX = 1 << 20 };

const unsigned work_budget[LOSSES] = {3, 2, 3};

/* Seconds: before a store or a folder is tried again, and between restarts (doubling). */
static const double retry_soon = 1.0, backoff_first = 0.5, backoff_most = 60.0;

static int make_token(char out[TOKEN_MAX], struct err *e)
{
    unsigned char random[(TOKEN_MAX - 1) / 2];

    if (getrandom(random, sizeof random, 0) != sizeof random)
        return err_errno(e, ERR_IO, errno, "random numbers");
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(out + 2 * i, 3, "%02x", random[i]);
    return 0;
}

/* RUN/.hone/status-<stage>-<attempt>: what the worker's exit status was. */
static int status_path(const struct job *j, const struct job_stage *s, char *out,
                       struct err *e)
{
    int n =
        snprintf(out, FILE_PATH_MAX, "%s/.hone/status-%s-%u", j->run, s->name, s->attempt);
    char *slash = n < FILE_PATH_MAX && s->seed ? strrchr(out, '/') : NULL;

    if (slash) /* of "seed-2/sft" */
        *slash = '-';
    return n < FILE_PATH_MAX ? 0 : err_set(e, ERR_CONFIG, "%s: path too long", j->run);
}

/* ---- start ---- */

/* What a rank on another host checks our certificate against, where it can read it. */
static int leave_authority(const struct daemon *d, const struct job *j, char *out,
                           struct err *e)
{
    char from[FILE_PATH_MAX], *text = NULL;
    size_t n;
    int rc = file_join(from, sizeof from, d->state, "tls/ca.crt", e);

    if (!rc)
        rc = file_join(out, FILE_PATH_MAX, j->run, ".hone/authority.crt", e);
    if (!rc)
        rc = file_read(from, AUTHORITY_MAX, &text, &n, e);
    if (!rc)
        rc = file_write_atomic(out, text, n, e);
    mem_free(text);
    return rc;
}

static const struct launch_backend *launcher(const struct daemon *d, const struct job *j,
                                             const struct job_stage *s)
{
    return j->slurm ? &launch_slurm : s->workers > 1 ? &launch_mpirun : d->launcher;
}

/* No rank may take more than its share of all there is. Not for a machine of Slurm's, which
 * limits them itself, nor where a GPU's driver reserves address space; the user of a
 * private daemon is there to see. */
static unsigned long long limit_of(const struct daemon *d, const struct job *j,
                                   const struct job_stage *s)
{
    if (d->is_private || j->slurm || s->n_gpus)
        return 0;
    return d->resources.memory / (s->workers > 1 ? (unsigned)s->workers : 1);
}

static int command(struct daemon *d, const struct job *j, struct job_stage *s,
                   struct str *gpus, struct arena *a, struct io_command *io, struct err *e)
{
    char status[FILE_PATH_MAX], authority[FILE_PATH_MAX];
    int far = d->far && (s->workers > 1 || j->slurm);
    struct launch_request request = {
        .worker = d->worker,
        .file = j->file,
        .set = j->set,
        .n_set = j->n_set,
        .stage = s->name,
        .run = j->run,
        .resume = j->resume || s->attempt > 1,
        .workers = s->workers,
        .uplink = d->address,
        .token = s->token,
        .job = j->id,
        .attempt = s->attempt,
        .status = status,
        .orphan_stop = d->is_private,
        .gpus = s->n_gpus ? str_get(gpus) : NULL,
        .memory = limit_of(d, j, s),
        .far = far ? d->far : NULL,
        .authority = far ? authority : NULL,
        .slurm = j->slurm,
        .n_slurm = j->n_slurm,
    };
    struct launch_command cmd;
    int rc = status_path(j, s, status, e);

    if (!rc && far)
        rc = leave_authority(d, j, authority, e);
    if (!rc)
        rc = launcher(d, j, s)->command(&request, a, &cmd, e);
    if (rc)
        return rc;
    io->argv = cmd.argv;
    io->env = cmd.env;
    return 0;
}

static int spawn(struct daemon *d, const struct job *j, struct job_stage *s, struct err *e)
{
    struct io_command io = {.keep_fd = j->lock};
    struct arena a = {0};
    struct str gpus = {0};
    char log[FILE_PATH_MAX];
    int all = cores_count(&d->resources.cores);
    int rc = file_join(log, sizeof log, j->run, "log", e);

    cores_write(&s->gpus, &gpus);
    if (!rc && str_failed(&gpus))
        rc = err_set(e, ERR_NOMEM, "start a worker: out of memory");
    if (!rc)
        rc = command(d, j, s, &gpus, &a, &io, e);
    if (!rc) {
        io.log = log;
        /* `hone run` leaves a worker that has all cores as it would be by hand. */
        io.cores =
            j->slurm || (d->is_private && all <= cores_count(&s->cores)) ? NULL : &s->cores;
        io.gpus = &s->gpus;
        s->log_from = file_size(log);
        rc = d->io->ops->spawn(d->io, &io, &s->child, e);
    }
    arena_fini(&a);
    str_fini(&gpus);
    return rc;
}

/* What earlier attempts left of the stage. */
static int remove_output(const struct job *j, const struct job_stage *s, struct err *e)
{
    char path[FILE_PATH_MAX];
    int rc = file_join(path, sizeof path, j->run, s->name, e);

    return rc || !file_exists(path) ? rc : file_remove_tree(path, e);
}

/* The run folder as it has to be: locked, and without what is to begin anew. 1: somebody
 * else is in it. */
static int prepare_folder(struct job *j, const struct job_stage *s, struct err *e)
{
    long holder;
    int rc = j->lock < 0 ? folder_lock(j->run, &j->lock, &holder, e) : 0;

    return rc || !s->fresh ? rc : remove_output(j, s, e);
}

static void free_devices(struct job_stage *s)
{
    memset(&s->cores, 0, sizeof s->cores);
    memset(&s->gpus, 0, sizeof s->gpus);
}

static void fail_stage(struct daemon *d, struct job *j, struct job_stage *s,
                       const struct err *e)
{
    s->message = arena_strdup(&j->arena, e->msg);
    s->mend = e->mend[0] ? arena_strdup(&j->arena, e->mend) : NULL;
    s->status = err_exit_status(e->code);
    s->ended = clock_wall();
    free_devices(s);
    stage_close_ranks(s);
    stage_move(s, STAGE_FAILED);
    daemon_job_changed(d, j);
}

/* The attempt as the store shall know it before there is a process. */
static int begin_attempt(struct daemon *d, struct job *j, struct job_stage *s,
                         const struct decision *where, struct err *e)
{
    struct job_stage old = *s;
    enum job_state state = j->state;
    int rc = make_token(s->token, e);

    if (rc)
        return rc;
    s->attempt++;
    s->fresh = 0;
    if (s->asked != ASKED_SKIP) /* then it only ends what it has begun */
        s->asked = ASKED_NOTHING;
    s->killed = s->message = s->mend = NULL;
    s->status = s->gap = s->told_number = s->told_stalled = 0;
    s->started = clock_wall();
    s->ended = 0;
    s->cores = where->cores;
    s->gpus = where->gpus;
    stage_move(s, STAGE_RUNNING);
    job_settle(j);
    rc = store_save_job(d->store, j, e);
    if (rc) {
        *s = old;
        j->state = state;
    }
    return rc;
}

int work_start(struct daemon *d, struct job *j, struct job_stage *s,
               const struct decision *where)
{
    double now = d->io->ops->now(d->io);
    struct err e;
    int rc = prepare_folder(j, s, &e);

    if (rc < 0) {
        fail_stage(d, j, s, &e);
        return rc;
    }
    if (!rc && stage_open_ranks(s))
        rc = err_set(&e, ERR_NOMEM, "out of memory");
    if (!rc)
        rc = begin_attempt(d, j, s, where, &e);
    if (rc) {
        if (rc < 0)
            log_error("job %llu: stage %s: %s", (unsigned long long)j->id, s->name, e.msg);
        s->not_before = now + retry_soon;
        return rc;
    }
    s->not_before = now; /* from here the watchdog counts */
    rc = spawn(d, j, s, &e);
    if (rc)
        fail_stage(d, j, s, &e);
    else
        daemon_job_changed(d, j);
    return rc;
}

/* ---- end ---- */

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

/* The signal that ended the worker, 0: none. mpirun and srun say it in their status. */
static int signal_of(const struct io_exit *how)
{
    return how->signal ? how->signal : how->status > 128 ? how->status - 128 : 0;
}

/* What to say of a worker that ended badly and did not say why itself. */
static void explain(const struct daemon *d, struct job *j, struct job_stage *s,
                    const struct io_exit *how)
{
    int signal = signal_of(how);

    if (!how->signal && !s->message)
        last_words(j, s);
    if (s->killed)
        s->message = s->killed;
    else if (how->signal || (signal && !s->message))
        s->message = arena_printf(&j->arena,
                                  "hone-worker was ended by signal %d (%s); its log: "
                                  "%s/log",
                                  signal, strsignal(signal), j->run);
    else if (!s->message)
        s->message =
            arena_printf(&j->arena, "hone-worker ended with status %d; its log: %s/log",
                         how->status, j->run);
    if (s->mend || how->status == 2)
        return;
    s->mend =
        d->is_private
            ? arena_printf(&j->arena,
                           "hone run %s --out %s --resume goes on from the newest "
                           "checkpoint",
                           j->file, j->run)
            : arena_printf(&j->arena, "hone retry %llu goes on from the newest checkpoint",
                           (unsigned long long)j->id);
}

/* Which budget pays for it; -1: the worker said itself that it cannot. */
static int loss_of(const struct job_stage *s, const struct io_exit *how)
{
    int signal = signal_of(how);

    if (s->killed || how->status == WORKER_LOST_STATUS)
        return LOSS_HUNG;
    return !signal ? -1 : signal == SIGKILL ? LOSS_KILLED : LOSS_CRASH;
}

/* Shall it be started again? Then the stage waits, and says so. */
static int try_again(struct daemon *d, struct job *j, struct job_stage *s, int loss)
{
    double wait = backoff_first;
    unsigned n = 0;

    if (d->is_private || loss < 0 || j->want == WANT_STOP)
        return 0;
    if (s->step > s->furthest) {
        memset(s->restarts, 0, sizeof s->restarts);
        s->furthest = s->step;
    }
    if (s->restarts[loss] >= work_budget[loss])
        return 0;
    s->restarts[loss]++;
    for (int i = 0; i < LOSSES; i++)
        n += s->restarts[i];
    for (unsigned i = 1; i < n && wait < backoff_most; i++)
        wait *= 2;
    s->not_before = d->io->ops->now(d->io) + wait;
    event_note(d, j, s, "warning",
               "%s; restart %u of %u in %g s, from the newest checkpoint",
               s->message ? s->message : "the worker is lost", s->restarts[loss],
               work_budget[loss], wait);
    return 1;
}

/* Does a stage that is still to come read this one's model? */
static int is_needed(const struct job *j, const struct job_stage *s)
{
    for (size_t i = 0; i < j->n_stages; i++)
        for (size_t k = 0; k < j->stage[i].n_needs; k++)
            if (&j->stage[j->stage[i].needs[k]] == s && !stage_over(j->stage[i].state))
                return 1;
    return 0;
}

static enum stage_state outcome(struct daemon *d, struct job *j, struct job_stage *s,
                                const struct io_exit *how)
{
    enum stage_state to = stage_outcome(how->status, how->signal);
    int signal = signal_of(how), lost = signal == SIGKILL || signal == SIGTERM;
    int asked = s->asked == ASKED_STOP || j->want != WANT_RUN;

    if (s->asked == ASKED_SKIP && j->want != WANT_STOP &&
        (to == STAGE_DONE || folder_has_stage(j->run, s->name) || !is_needed(j, s)))
        return STAGE_SKIPPED;
    if (to == STAGE_DONE)
        return to;
    /* Killed because we said so, or before it could listen to a polite word (srun in
     * Slurm's queue says by its status that somebody ended it). */
    lost |= asked && !(s->n_ranks && s->rank[0].heard > 0);
    if (j->want == WANT_STOP && (lost || to == STAGE_STOPPED))
        return STAGE_STOPPED;
    /* Paused (and perhaps to go on already). */
    if (asked && (lost || to == STAGE_STOPPED))
        return STAGE_WAITING;
    if (to == STAGE_FAILED)
        explain(d, j, s, how);
    else if (!s->message) /* a signal from outside: the machine goes down, say */
        s->message = "the worker saved and stopped, and nobody here had asked for it";
    if (try_again(d, j, s, to == STAGE_STOPPED ? LOSS_KILLED : loss_of(s, how)))
        return STAGE_WAITING;
    return to;
}

/* The worker's mark in its environment, by which it is found. */
static void mark_of(const struct job_stage *s, char out[MARK_MAX])
{
    snprintf(out, MARK_MAX, "HONE_UPLINK_TOKEN=%s", s->token);
}

/* A killed srun leaves a process that ends the allocation: it must live. */
void work_kill(struct daemon *d, const struct job *j, const struct job_stage *s)
{
    d->io->ops->kill(d->io, s->child, SIGKILL, !j->slurm);
}

/* mpirun that was killed leaves its ranks running for seconds: they must not go on writing
 * to the folder when what they wrote is read, and the next attempt begins. Under Slurm it
 * waits for the end of the allocation, which a process that srun leaves brings about. */
static void sweep(struct daemon *d, const struct job *j, const struct job_stage *s,
                  const struct io_exit *how)
{
    char mark[MARK_MAX];

    if (!d->io->ops->sweep || j->slurm || (s->workers < 2 && !how->signal))
        return;
    mark_of(s, mark);
    d->io->ops->sweep(d->io, mark);
}

void work_ended(struct daemon *d, struct job *j, struct job_stage *s,
                const struct io_exit *how)
{
    char path[FILE_PATH_MAX];
    enum stage_state to;
    struct err e;

    s->child = 0;
    s->status = how->signal ? 128 + how->signal : how->status;
    sweep(d, j, s, how);
    uplink_lost(d, j, s);
    to = outcome(d, j, s, how);
    s->ended = clock_wall();
    free_devices(s);
    if (to != STAGE_WAITING || s->asked != ASKED_SKIP)
        s->asked = ASKED_NOTHING;
    stage_close_ranks(s);
    stage_move(s, to);
    log_info("job %llu: stage %s: %s", (unsigned long long)j->id, s->name,
             stage_state_name(to));
    daemon_job_changed(d, j);
    if (!j->unsaved && !status_path(j, s, path, &e)) /* else a later daemon asks for it */
        unlink(path);
}

/* ---- an earlier daemon's ---- */

/* Is this descriptor the run folder's lock? */
static int is_lock(const struct job *j, int fd)
{
    char path[FILE_PATH_MAX];
    struct stat a, b;
    struct err e;

    return !file_join(path, sizeof path, j->run, ".hone/lock", &e) && !fstat(fd, &a) &&
           !stat(path, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* How a process ended that nobody waited for: as its file says, or else it was killed. */
static void read_end(const char *path, struct io_exit *how)
{
    char *text;
    size_t n;
    struct err e;
    long status;

    *how = (struct io_exit){.signal = SIGKILL, .out = "", .err = ""};
    if (file_read(path, STATUS_MAX, &text, &n, &e))
        return;
    text[strcspn(text, "\n")] = '\0';
    if (!str_to_long(text, &status) && status >= 0 && status < 256)
        *how = (struct io_exit){.status = (int)status, .out = "", .err = ""};
    mem_free(text);
}

void work_adopt(struct daemon *d, struct job *j, struct job_stage *s)
{
    char mark[MARK_MAX], status[FILE_PATH_MAX];
    struct io_exit how;
    struct err e;
    int kept = -1;

    s->child = 0;
    if (j->attached) {
        attach_recover(d, j, s);
        return;
    }
    mark_of(s, mark);
    if (stage_open_ranks(s) || status_path(j, s, status, &e) ||
        (d->io->ops->adopt && d->io->ops->adopt(d->io, mark, status, &s->child, &kept, &e)))
        log_error("job %llu: stage %s: cannot look for its worker",
                  (unsigned long long)j->id, s->name);
    if (kept >= 0 && (j->lock >= 0 || !is_lock(j, kept)))
        close(kept);
    else if (kept >= 0)
        j->lock = kept;
    s->not_before = d->io->ops->now(d->io);
    if (s->child) {
        uplink_recall(d, j, s);
        event_note(d, j, s, "info", "honed is back, the worker goes on");
        return;
    }
    read_end(status, &how);
    work_ended(d, j, s, &how);
}

void work_ask(struct daemon *d, struct job_stage *s, enum stage_asked what)
{
    if (s->state != STAGE_RUNNING)
        return;
    if (what > s->asked)
        s->asked = what;
    uplink_word(d, s, what == ASKED_SKIP ? HONE__V1__WORD__FINISH : HONE__V1__WORD__STOP);
}
