/* The scheduler: see sched.h. */
#include "daemon/sched.h"

#include <math.h>

/* What is taken so far. */
struct taken {
    struct cores cores, gpus;
    int n_cores, n_gpus;
    uint64_t memory;
    int running;
};

static struct decision *decide(struct schedule *out, enum decision_kind kind, size_t job,
                               size_t stage)
{
    if (out->n == SCHED_MAX)
        return NULL;
    out->item[out->n] = (struct decision){.kind = kind, .job = job, .stage = stage};
    return &out->item[out->n++];
}

static void wake_by(struct schedule *out, double when)
{
    if (when < out->wake)
        out->wake = when;
}

/* Nothing new starts in a job that is over, rests or ends; nor in one that is started
 * elsewhere. */
static int may_start(const struct job *j)
{
    return !job_ended(j) && j->want == WANT_RUN && !j->attached;
}

static int ready(const struct job *j, const struct job_stage *s)
{
    if (s->state != STAGE_WAITING)
        return 0;
    for (size_t i = 0; i < s->n_needs; i++)
        if (!stage_over(j->stage[s->needs[i]].state))
            return 0;
    return !stage_held_up(j, s);
}

/* What runs, and whether its time is over. */
static void take_running(const struct job *j, size_t index, double now, struct taken *t,
                         struct schedule *out)
{
    for (size_t k = 0; k < j->n_stages; k++) {
        const struct job_stage *s = &j->stage[k];

        if (s->state != STAGE_RUNNING)
            continue;
        cores_join(&t->cores, &s->cores);
        cores_join(&t->gpus, &s->gpus);
        t->memory += s->memory;
        t->running += !j->slurm && !j->attached;
        if (j->kill_at <= now)
            decide(out, DECIDE_KILL, index, k);
        else
            wake_by(out, j->kill_at);
    }
}

/* The n lowest free numbers; how many there were. */
static int place(const struct cores *has, struct cores *taken, int n, struct cores *out)
{
    int placed = 0;

    for (int i = 0; i < CORES_MAX && placed < n; i++)
        if (cores_has(has, i) && !cores_has(taken, i)) {
            cores_add(out, i);
            cores_add(taken, i);
            placed++;
        }
    return placed;
}

static int has_room(const struct resources *r, const struct taken *t, int total,
                    const struct job *j, const struct job_stage *s)
{
    if (j->slurm)
        return 1; /* it takes nothing of ours */
    if (s->n_gpus > cores_count(&r->gpus) - t->n_gpus)
        return 0;
    if (!t->running)
        return 1;
    return s->n_cores <= total - t->n_cores && s->memory <= r->memory &&
           t->memory <= r->memory - s->memory;
}

/* 0: there is no room for what is next in line. */
static int start_ready(const struct job *j, size_t index, const struct resources *r,
                       int total, double now, struct taken *t, struct schedule *out)
{
    for (size_t k = 0; k < j->n_stages; k++) {
        const struct job_stage *s = &j->stage[k];
        struct decision *d;

        if (!ready(j, s))
            continue;
        if (s->not_before > now) {
            wake_by(out, s->not_before);
            continue;
        }
        if (s->n_gpus > cores_count(&r->gpus))
            continue; /* they were there when it came */
        if (!has_room(r, t, total, j, s))
            return 0;
        d = decide(out, DECIDE_START, index, k);
        if (!d)
            return 0;
        t->n_cores += place(&r->cores, &t->cores, s->n_cores, &d->cores);
        t->n_gpus += place(&r->gpus, &t->gpus, s->n_gpus, &d->gpus);
        t->memory += s->memory;
        t->running += !j->slurm;
    }
    return 1;
}

void sched_decide(struct job *const *jobs, size_t n, const struct resources *r, double now,
                  struct schedule *out)
{
    int total = cores_count(&r->cores), full = 0;
    struct taken t = {0};

    out->n = 0;
    out->wake = INFINITY;
    for (size_t i = 0; i < n; i++)
        take_running(jobs[i], i, now, &t, out);
    t.n_cores = cores_count(&t.cores);
    t.n_gpus = cores_count(&t.gpus);
    for (size_t i = 0; i < n; i++)
        if (may_start(jobs[i]) && (!full || jobs[i]->slurm))
            full |= !start_ready(jobs[i], i, r, total, now, &t, out);
}
