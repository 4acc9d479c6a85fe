/* The watchdog: see judge.h. */
#include "daemon/judge.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "daemon/attach.h"
#include "daemon/event.h"
#include "daemon/notify.h"
#include "daemon/work.h"

/* Seconds. */
static const double tick_every = 1.0, own_gap = 5.0;
static const double silent_least = 10.0, silent_most = 60.0, silent_steps = 10.0;
static const double stuck_least = 60.0, stuck_steps = 20.0;
static const double save_least = 900.0, save_factor = 4.0;

enum { ALARM_DISK = 1 };

static void alarm_note(struct daemon *d, struct job *j, const struct job_stage *s,
                       const char *text)
{
    event_note(d, j, s, "warning", "%s", text);
    notify_run(d, j, "alarm", text);
}

/* How long the rank has been silent beyond what is allowed: 1. */
static int is_silent(const struct job *j, const struct job_stage *s, const struct rank *r,
                     double now)
{
    double limit;

    if (!r->heard) /* others may report through rank 0, or wait in Slurm's queue */
        return !j->slurm && r == s->rank && now - s->not_before > silent_most;
    limit = fmax(silent_least, silent_steps * r->step_time);
    return now - r->heard > fmin(limit, silent_most);
}

static int is_stuck(const struct rank *r, double now)
{
    return r->heard > 0 && r->phase && !strcmp(r->phase, "train") && r->stepped > 0 &&
           now - r->stepped > fmax(stuck_least, stuck_steps * r->step_time);
}

static void end_hung(struct daemon *d, struct job *j, struct job_stage *s, size_t rank,
                     const char *what, double since)
{
    const struct rank *r = &s->rank[rank];
    char where[256] = "";

    if (r->host || r->pid)
        snprintf(where, sizeof where, " on %.200s (process %u)", r->host ? r->host : "?",
                 r->pid);
    if (r->collective)
        s->killed = arena_printf(
            &j->arena, "rank %zu%s %s for %.0f s: phase %s, step %ld, collective %s %llu",
            rank, where, what, since, r->phase ? r->phase : "start", r->step, r->collective,
            (unsigned long long)r->collective_seq);
    else
        s->killed =
            arena_printf(&j->arena, "rank %zu%s %s for %.0f s: phase %s, step %ld", rank,
                         where, what, since, r->phase ? r->phase : "start", r->step);
    if (!s->killed)
        s->killed = "a rank hangs";
    event_note(d, j, s, "error", "%s; its group is ended", s->killed);
    notify_run(d, j, "alarm", s->killed);
    work_kill(d, j, s);
}

static void judge_stage(struct daemon *d, struct job *j, struct job_stage *s, double now)
{
    for (size_t i = 0; !s->killed && i < s->n_ranks; i++) {
        const struct rank *r = &s->rank[i];

        if (is_silent(j, s, r, now))
            end_hung(d, j, s, i, "was not heard",
                     now - (r->heard > 0 ? r->heard : s->not_before));
        else if (is_stuck(r, now))
            end_hung(d, j, s, i, "has taken no step", now - r->stepped);
    }
}

/* After a time in which we did not run ourselves, silence proves nothing. */
static void forgive(struct daemon *d, struct job_stage *s, double now)
{
    (void)d;
    s->not_before = now;
    for (size_t i = 0; i < s->n_ranks; i++) {
        if (s->rank[i].heard > 0)
            s->rank[i].heard = now;
        if (s->rank[i].stepped > 0)
            s->rank[i].stepped = now;
    }
}

static void check_disk(struct daemon *d, struct job *j)
{
    long long left = file_free_bytes(j->run);
    char bytes[32], text[128];

    if (left < 0)
        return;
    if (left > 2 * (long long)d->limits.disk_least)
        j->alarms &= ~ALARM_DISK;
    if (left > (long long)d->limits.disk_least || j->alarms & ALARM_DISK)
        return;
    j->alarms |= ALARM_DISK;
    snprintf(text, sizeof text, "the disk of the run folder is nearly full: %s left",
             str_bytes(bytes, sizeof bytes, (double)left));
    alarm_note(d, j, NULL, text);
}

/* A stage that trains for long without saving loses much when it is lost. */
static void check_save(struct daemon *d, struct job *j, struct job_stage *s, double now)
{
    double limit = fmax(save_least, save_factor * s->save_interval);
    char text[128], since[32];

    if (!s->phase || strcmp(s->phase, "train") != 0 || s->saved <= 0 ||
        now - s->saved < limit || s->save_overdue)
        return;
    s->save_overdue = 1;
    snprintf(text, sizeof text, "no checkpoint for %s",
             str_duration(since, sizeof since, now - s->saved));
    alarm_note(d, j, s, text);
}

void judge_tick(struct daemon *d)
{
    double now = d->io->ops->now(d->io), passed = now - d->ticked;

    if (d->is_private || passed < tick_every)
        return;
    d->ticked = now;
    for (size_t i = 0; i < d->n_jobs; i++) {
        struct job *j = d->jobs[i];
        int runs = 0;

        for (size_t k = 0; k < j->n_stages; k++) {
            struct job_stage *s = &j->stage[k];

            if (s->state != STAGE_RUNNING)
                continue;
            runs = 1;
            if (passed > own_gap)
                forgive(d, s, now);
            if (j->attached)
                attach_judge(d, j, s, now);
            else
                judge_stage(d, j, s, now);
            check_save(d, j, s, now);
        }
        if (runs && !j->attached)
            check_disk(d, j);
    }
}

double judge_next(const struct daemon *d)
{
    if (d->is_private)
        return INFINITY;
    for (size_t i = 0; i < d->n_jobs; i++)
        for (size_t k = 0; k < d->jobs[i]->n_stages; k++)
            if (d->jobs[i]->stage[k].state == STAGE_RUNNING)
                return d->ticked + tick_every;
    return INFINITY;
}

/* As event_add(): it is flushed with the point that shows it. */
static void alarm_add(struct daemon *d, struct job *j, struct job_stage *s, char *text)
{
    Hone__V1__Event ev = HONE__V1__EVENT__INIT;
    Hone__V1__Note note = HONE__V1__NOTE__INIT;
    struct err e;

    note.level = (char *)"warning";
    note.text = text;
    ev.note = &note;
    if (event_add(d, j, s, &ev, &e))
        log_error("job %llu: %s", (unsigned long long)j->id, e.msg);
    notify_run(d, j, "alarm", text);
}

void judge_metric(struct daemon *d, struct job *j, struct job_stage *s, const char *line)
{
    static const char stalled[] = "\"stalled\": ";
    const char *at = strstr(line, stalled);
    char text[96];

    /* Written as null: JSON has no other word for it. */
    if (!s->told_number && strstr(line, "\"loss\": null")) {
        s->told_number = 1;
        alarm_add(d, j, s, (char *)(uintptr_t) "the loss is no number any more");
    }
    if (s->told_stalled || !at)
        return;
    s->told_stalled = 1;
    snprintf(text, sizeof text, "the training loss has not fallen for %ld steps",
             strtol(at + strlen(stalled), NULL, 10));
    alarm_add(d, j, s, text);
}

void judge_ended(struct daemon *d, struct job *j)
{
    notify_run(d, j, job_state_name(j->state), j->message ? j->message : "");
}
