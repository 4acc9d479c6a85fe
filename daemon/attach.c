/* Attached jobs: see attach.h. Everything in an AttachRequest is said by somebody who may
 * submit, and no more: texts are bounded, names are names, and paths are never opened. */
#include "daemon/attach.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "daemon/event.h"
#include "daemon/notify.h"
#include "daemon/plan.h"
#include "daemon/retain.h"
#include "daemon/uplink.h"

enum { KEY_DIGITS = 32, ATTEMPT_MAX = 1000000, NAME_MAX_ = 255, WORKERS_MAX = 1024 };
enum { LOST_STATUS = 137 }; /* of a stage that was given up: no worker says that itself */
enum { STOPPED_STATUS = 3 };

/* Seconds. */
static const double quiet_least = 10.0, quiet_most = 60.0, quiet_steps = 10.0;
static const double lost_after = 600.0;

/* ---- the request ---- */

static int is_name(const char *s)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789_-";
    size_t n = strlen(s);

    return n > 0 && n < 64 && strspn(s, letters) == n;
}

static int check_stages(const Hone__V1__AttachRequest *in, struct err *e)
{
    if (!in->n_stages || in->n_stages > PLAN_STAGES_MAX)
        return err_set(e, ERR_CONFIG, "stages: 1 to %d are possible", PLAN_STAGES_MAX);
    for (size_t i = 0; i < in->n_stages; i++) {
        if (!is_name(in->stages[i]))
            return err_set(e, ERR_CONFIG, "stages: \"%.80s\" is no name of a stage",
                           in->stages[i]);
        for (size_t k = 0; k < i; k++)
            if (!strcmp(in->stages[i], in->stages[k]))
                return err_set(e, ERR_CONFIG, "stages: %s stands there twice",
                               in->stages[i]);
    }
    return 0;
}

static int check(const struct daemon *d, const Hone__V1__AttachRequest *in, struct err *e)
{
    if (d->is_private || d->ending)
        return err_set(e, ERR_CONFIG, "this honed takes no reports of others");
    if (strlen(in->key) != KEY_DIGITS || strspn(in->key, "0123456789abcdef") != KEY_DIGITS)
        return err_set(e, ERR_CONFIG, "key: not %d hexadecimal digits", KEY_DIGITS);
    if (in->attempt < 1 || in->attempt > ATTEMPT_MAX)
        return err_set(e, ERR_CONFIG, "attempt: 1 to %d are possible", ATTEMPT_MAX);
    if (!*in->name || strlen(in->name) > NAME_MAX_ || strlen(in->host) > NAME_MAX_)
        return err_set(e, ERR_CONFIG, "name, host: 1 to %d bytes are possible", NAME_MAX_);
    if (strlen(in->file) >= FILE_PATH_MAX || strlen(in->run) >= FILE_PATH_MAX)
        return err_set(e, ERR_CONFIG, "file, run: too long");
    if (in->has_workers && (in->workers < 1 || in->workers > WORKERS_MAX))
        return err_set(e, ERR_CONFIG, "workers: 1 to %d are possible", WORKERS_MAX);
    return check_stages(in, e);
}

static int make_token(struct job_stage *s, struct err *e)
{
    unsigned char random[(TOKEN_MAX - 1) / 2];

    if (getrandom(random, sizeof random, 0) != sizeof random)
        return err_errno(e, ERR_IO, errno, "random numbers");
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(s->token + 2 * i, 3, "%02x", random[i]);
    return 0;
}

/* ---- a new one ---- */

static int fill(struct job *j, const struct rpc_call *call, const char *id,
                const Hone__V1__AttachRequest *in, struct err *e)
{
    struct arena *a = &j->arena;
    int rc = 0, whole;

    j->attached = 1;
    j->submitted = clock_wall();
    j->name = arena_strdup(a, in->name);
    j->owner = arena_strdup(a, call->who.user);
    j->request_id = arena_strdup(a, id);
    j->file = arena_printf(a, "%s:%s", in->host, in->file); /* no path of this host */
    j->run = arena_printf(a, "%s:%s", in->host, in->run);
    j->stage = arena_array(a, in->n_stages, sizeof *j->stage);
    whole = j->name && j->owner && j->request_id && j->file && j->run && j->stage;
    for (size_t i = 0; !rc && whole && i < in->n_stages; i++) {
        struct job_stage *s = &j->stage[j->n_stages++];

        s->name = arena_strdup(a, in->stages[i]);
        s->workers = in->has_workers ? (int)in->workers : 1;
        s->attempt = in->attempt;
        whole = s->name != NULL;
        rc = make_token(s, e);
    }
    return rc || whole ? rc : err_set(e, ERR_NOMEM, "out of memory for a job");
}

static int create(struct rpc_call *call, const char *id, const Hone__V1__AttachRequest *in,
                  struct job **out, struct err *e)
{
    struct daemon *d = call->d;
    struct job *j = job_new();
    int rc = j ? retain_check(d, call->who.user, 0, e)
               : err_set(e, ERR_NOMEM, "out of memory for a job");

    if (!rc)
        rc = fill(j, call, id, in, e);
    if (!rc)
        rc = daemon_add_jobs(d, &j, 1, e);
    if (rc) {
        job_free(j);
        return rc;
    }
    event_state(d, j);
    event_note(d, j, NULL, "info", "started on %.200s, which reports", in->host);
    *out = j;
    return 0;
}

/* ---- one that is known ---- */

static int is_same(const struct job *j, const Hone__V1__AttachRequest *in)
{
    int same = j->attached && j->n_stages == in->n_stages;

    for (size_t i = 0; same && i < j->n_stages; i++)
        same = !strcmp(j->stage[i].name, in->stages[i]);
    return same;
}

static int is_lost(const struct job_stage *s)
{
    return s->state == STAGE_FAILED && s->status == LOST_STATUS;
}

/* The stage as the run's new start (or its return after it was given up) finds it. */
static int again(struct job_stage *s, const Hone__V1__AttachRequest *in, struct err *e)
{
    int newer = in->attempt > s->attempt;

    if (newer && in->has_workers)
        s->workers = (int)in->workers;
    s->attempt = in->attempt;
    if (stage_over(s->state) || (!newer && !is_lost(s)))
        return 0;
    if (s->state != STAGE_WAITING)
        stage_move(s, STAGE_WAITING);
    s->asked = ASKED_NOTHING;
    s->message = s->mend = NULL;
    s->status = 0;
    return newer ? make_token(s, e) : 0;
}

static int go_on(struct daemon *d, struct job *j, const Hone__V1__AttachRequest *in,
                 struct err *e)
{
    struct job_mark was;
    int rc = job_mark(j, &was, e), had_ended = job_ended(j),
        newer = in->attempt > j->stage[0].attempt;

    if (rc)
        return rc;
    for (size_t i = 0; !rc && i < j->n_stages; i++)
        rc = again(&j->stage[i], in, e);
    if (newer || had_ended)
        job_revive(j);
    job_settle(j);
    if (!rc && had_ended && !job_ended(j))
        rc = daemon_keep_job(d, j, e); /* if not saved: swept out again */
    if (!rc)
        rc = daemon_save(d, j, e);
    if (rc)
        job_restore(j, &was);
    for (size_t i = 0; !rc && i < j->n_stages; i++)
        if (was.stage[i].state == STAGE_RUNNING && j->stage[i].state != STAGE_RUNNING)
            stage_close_ranks(&j->stage[i]);
    job_mark_fini(&was);
    if (rc)
        return rc;
    event_note(d, j, NULL, "info",
               newer ? "started again on %.200s, which reports (start %u)"
                     : "%.200s reports again (start %u)",
               in->host, in->attempt);
    daemon_job_changed(d, j);
    return 0;
}

/* Is there anything to be done before the run may go on? */
static int is_behind(const struct job *j, const Hone__V1__AttachRequest *in)
{
    int behind = 0;

    for (size_t i = 0; i < j->n_stages; i++)
        behind |= in->attempt > j->stage[i].attempt || is_lost(&j->stage[i]);
    return behind;
}

static int take_up(struct daemon *d, struct job *j, const Hone__V1__AttachRequest *in,
                   struct err *e)
{
    if (!is_same(j, in)) {
        err_set(e, ERR_CONFIG, "job %llu has other stages", (unsigned long long)j->id);
        return err_mend(e, "start another run, with a folder of its own");
    }
    if (in->attempt < j->stage[0].attempt)
        return err_set(e, ERR_DENIED, "start %u of this run reports as job %llu already",
                       j->stage[0].attempt, (unsigned long long)j->id);
    return is_behind(j, in) ? go_on(d, j, in, e) : 0;
}

static void answer(struct rpc_call *call, const struct job *j)
{
    Hone__V1__AttachReply reply = HONE__V1__ATTACH_REPLY__INIT;
    char *token[PLAN_STAGES_MAX];

    reply.job = j->id;
    reply.tokens = token;
    for (size_t i = 0; i < j->n_stages && i < PLAN_STAGES_MAX; i++)
        token[reply.n_tokens++] = (char *)(uintptr_t)j->stage[i].token;
    rpc_reply(&reply.base, call);
}

void attach_begin(struct rpc_call *call, const Hone__V1__AttachRequest *in)
{
    struct daemon *d = call->d;
    char id[KEY_DIGITS + 8];
    struct store_filter f = {.request_id = id, .owner = call->who.user};
    struct job *j = NULL, *known = NULL;
    struct err e;
    int rc = access_check(&call->who, ACCESS_SUBMIT, NULL, &e);

    if (!rc)
        rc = check(d, in, &e);
    snprintf(id, sizeof id, "run-%.*s", KEY_DIGITS, in->key);
    if (!rc)
        rc = store_load_job(d->store, &f, &known, &e);
    if (!rc && known) {
        j = daemon_find_job(d, known->id);
        rc = j ? take_up(d, j, in, &e) : err_set(&e, ERR_FAILED, "the job has gone");
    } else if (!rc) {
        rc = create(call, id, in, &j, &e);
    }
    job_free(known);
    if (rc)
        rpc_fail(call, &e);
    else
        answer(call, j);
    daemon_schedule(d);
}

/* ---- its workers ---- */

static int start(struct daemon *d, struct job *j, struct job_stage *s, struct err *e)
{
    if (job_ended(j))
        return err_set(e, ERR_DENIED, "job %llu is %s", (unsigned long long)j->id,
                       job_state_name(j->state));
    if (stage_open_ranks(s))
        return err_set(e, ERR_NOMEM, "out of memory");
    uplink_recall(d, j, s);
    s->status = s->gap = s->quiet = 0;
    s->started = clock_wall();
    s->ended = 0;
    s->not_before = d->io->ops->now(d->io);
    s->saved = s->save_interval = 0;
    stage_move(s, STAGE_RUNNING);
    daemon_job_changed(d, j);
    daemon_schedule(d); /* the watchdog is to look */
    return 0;
}

/* It has saved and stopped, and waits for the run's next start. */
static int is_paused(const struct job_stage *s)
{
    return s->state == STAGE_WAITING && s->status == STOPPED_STATUS;
}

int attach_hello(struct daemon *d, struct job *j, struct job_stage *s,
                 const Hone__V1__Hello *h, struct err *e)
{
    int rc = 0;

    if (h->attempt != s->attempt)
        return err_set(e, ERR_DENIED, "stage %s is at start %u", s->name, s->attempt);
    if (is_lost(s))
        return err_set(e, ERR_DENIED, "stage %s was given up", s->name);
    if (s->state != STAGE_WAITING && s->state != STAGE_RUNNING)
        return 1;
    if (is_paused(s))
        return 1; /* its end was stored, and the answer lost */
    if (s->state == STAGE_WAITING)
        rc = h->rank ? err_set(e, ERR_DENIED, "rank 0 of %s is not there yet", s->name)
                     : start(d, j, s, e);
    if (!rc && h->rank >= s->n_ranks)
        rc = err_set(e, ERR_DENIED, "stage %s has no rank %u", s->name, h->rank);
    return rc;
}

static void end(struct daemon *d, struct job *j, struct job_stage *s, enum stage_state to)
{
    s->ended = clock_wall();
    s->asked = ASKED_NOTHING;
    s->quiet = 0;
    stage_close_ranks(s);
    stage_move(s, to);
    log_info("job %llu: stage %s: %s", (unsigned long long)j->id, s->name,
             stage_state_name(to));
    daemon_job_changed(d, j);
}

void attach_done(struct daemon *d, struct job *j, struct job_stage *s)
{
    enum stage_state to = stage_outcome(s->status, 0);

    if (s->status == LOST_STATUS)
        s->status = 1;
    if (s->status && !s->message)
        s->message = arena_printf(&j->arena, "hone-worker ended with status %d", s->status);
    if (to == STAGE_STOPPED && j->want != WANT_STOP &&
        (s->asked == ASKED_STOP || j->want == WANT_PAUSE)) {
        to = STAGE_WAITING;
        s->message = "saved and stopped; it goes on when it is started again where it was, "
                     "with --resume";
    }
    end(d, j, s, to);
}

void attach_abort(struct daemon *d, struct job *j, struct job_stage *s)
{
    uplink_word(d, s, HONE__V1__WORD__ABORT);
    s->status = LOST_STATUS;
    end(d, j, s, STAGE_STOPPED);
}

/* "rank 0 on n3 (process 7) was not heard for 12 s: phase train, step 40" */
static const char *describe(struct job *j, const struct rank *r, double silent)
{
    const char *text = arena_printf(
        &j->arena,
        "rank 0 on %.200s (process %u) was not heard for %.0f s: phase %s, step %ld",
        r->host ? r->host : "?", r->pid, silent, r->phase ? r->phase : "start", r->step);

    return text ? text : "rank 0 was not heard";
}

static void give_up(struct daemon *d, struct job *j, struct job_stage *s, double silent)
{
    s->message = describe(j, &s->rank[0], silent);
    s->mend = "start it again with --resume and --report";
    s->status = LOST_STATUS;
    end(d, j, s, j->want == WANT_STOP ? STAGE_STOPPED : STAGE_FAILED);
}

void attach_judge(struct daemon *d, struct job *j, struct job_stage *s, double now)
{
    const struct rank *r = s->rank;
    double silent, limit;
    const char *text;

    if (!s->n_ranks)
        return;
    silent = now - (r->heard > 0 ? r->heard : s->not_before);
    limit = fmin(fmax(quiet_least, quiet_steps * r->step_time), quiet_most);
    if (silent > lost_after) {
        give_up(d, j, s, silent);
    } else if (silent > limit && !s->quiet) {
        s->quiet = 1;
        text = describe(j, r, silent);
        event_note(d, j, s, "warning", "%s; it may go on without us", text);
        notify_run(d, j, "alarm", text);
    } else if (silent < limit && s->quiet) {
        s->quiet = 0;
        event_note(d, j, s, "info", "rank 0 on %.200s is heard again",
                   r->host ? r->host : "?");
    }
}

void attach_recover(struct daemon *d, struct job *j, struct job_stage *s)
{
    if (stage_open_ranks(s)) {
        log_error("job %llu: stage %s: out of memory", (unsigned long long)j->id, s->name);
        return;
    }
    s->not_before = d->io->ops->now(d->io);
    uplink_recall(d, j, s);
    event_note(d, j, s, "info", "honed is back, and waits for its worker");
}
