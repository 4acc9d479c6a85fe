/* The scheduler: see sched.h. */
#include "daemon/sched.h"

#include <math.h>

static void decide(struct schedule *out, enum decision_kind kind, size_t job, size_t stage)
{
    if (out->n < SCHED_MAX)
        out->item[out->n++] = (struct decision){kind, job, stage};
}

/* Nothing new starts in a job that is over, ends, or has lost a stage. */
static int may_start(const struct job *j)
{
    if (job_ended(j) || j->stop)
        return 0;
    for (size_t i = 0; i < j->n_stages; i++)
        if (j->stage[i].state == STAGE_FAILED || j->stage[i].state == STAGE_STOPPED)
            return 0;
    return 1;
}

static int ready(const struct job *j, const struct job_stage *s)
{
    if (s->state != STAGE_WAITING)
        return 0;
    for (size_t i = 0; i < s->n_needs; i++)
        if (j->stage[s->needs[i]].state != STAGE_DONE)
            return 0;
    return 1;
}

void sched_decide(struct job *const *jobs, size_t n, int cores, double now,
                  struct schedule *out)
{
    int used = 0, running = 0, full = 0;

    out->n = 0;
    out->wake = INFINITY;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < jobs[i]->n_stages; k++) {
            const struct job_stage *s = &jobs[i]->stage[k];

            if (s->state != STAGE_RUNNING)
                continue;
            used += s->cores;
            running++;
            if (jobs[i]->kill_at <= now)
                decide(out, DECIDE_KILL, i, k);
            else if (jobs[i]->kill_at < out->wake)
                out->wake = jobs[i]->kill_at;
        }
    }
    for (size_t i = 0; i < n && !full; i++) {
        if (!may_start(jobs[i]))
            continue;
        for (size_t k = 0; k < jobs[i]->n_stages && !full; k++) {
            const struct job_stage *s = &jobs[i]->stage[k];

            if (!ready(jobs[i], s))
                continue;
            full = running && used + s->cores > cores;
            if (full || out->n == SCHED_MAX)
                break;
            decide(out, DECIDE_START, i, k);
            used += s->cores;
            running++;
        }
    }
}
